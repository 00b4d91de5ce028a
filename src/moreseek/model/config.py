"""The shape of a model, under the names that Hugging Face's config.json uses."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from moreseek.config import Settings, parse
from moreseek.errors import InputError
from moreseek.text.folder_files import MAX_CONFIG_BYTES, member, read_json_object

Family = Literal["deepseek_v3", "llama", "qwen2", "qwen3"]
ARCHITECTURES: dict[str, Family] = {
    "DeepseekV3ForCausalLM": "deepseek_v3",
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}

# Bounds beyond any model: a hostile config.json must be refused before it costs time or memory.
Width = Annotated[int, Field(gt=0, le=1 << 20)]
Vocabulary = Annotated[int, Field(gt=0, le=1 << 24)]
Layers = Annotated[int, Field(gt=0, le=4096)]
Experts = Annotated[int, Field(gt=0, le=1 << 16)]
_MAX_HEADS_WIDTH = 1 << 22


class ModelConfig(Settings):
    """Shape of one transformer. Keys of the other family are ignored.

    Rope is given as transformers' older pair ``rope_theta`` and ``rope_scaling`` (types: yarn, linear, llama3).
    """

    model_type: Family = "deepseek_v3"
    vocab_size: Vocabulary
    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: Layers
    num_attention_heads: Width
    num_key_value_heads: Width | None = None
    head_dim: Width | None = None
    max_position_embeddings: int = Field(default=4096, gt=0, le=1 << 30)
    rms_norm_eps: float = Field(default=1e-6, ge=0, allow_inf_nan=False)
    rope_theta: float = Field(default=10000.0, gt=1, allow_inf_nan=False)
    rope_scaling: dict[str, Any] | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    # DeepSeek-V3 only
    q_lora_rank: Width | None = None
    kv_lora_rank: Width = 512
    qk_nope_head_dim: Width = 128
    qk_rope_head_dim: Width = 64
    v_head_dim: Width = 128
    n_routed_experts: Experts = 8
    n_shared_experts: int = Field(default=1, ge=0, le=1024)
    num_experts_per_tok: Experts = 2
    moe_intermediate_size: Width = 128
    first_k_dense_replace: int = Field(default=1, ge=0)
    n_group: Experts = 1
    topk_group: Experts = 1
    norm_topk_prob: bool = True
    routed_scaling_factor: float = Field(default=1.0, allow_inf_nan=False)
    num_nextn_predict_layers: int = Field(default=0, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        widest = self.qk_head_dim + self.v_head_dim if self.is_deepseek else self.attention_head_dim
        if max(self.num_attention_heads, self.kv_heads) * widest > _MAX_HEADS_WIDTH:
            raise ValueError(f"{self.num_attention_heads} heads of width {widest} are beyond any model")
        if self.is_deepseek:
            if self.qk_rope_head_dim % 2:
                raise ValueError("qk_rope_head_dim must be even, since rope rotates pairs")
            if self.attention_bias and self.q_lora_rank is None:
                raise ValueError("attention_bias needs a q_lora_rank: without one the field's files hold no query bias")
            if self.num_experts_per_tok > self.n_routed_experts:
                raise ValueError("num_experts_per_tok must not exceed n_routed_experts")
            if self.n_routed_experts % self.n_group or self.topk_group > self.n_group:
                raise ValueError("n_group must divide n_routed_experts, and topk_group must not exceed n_group")
            if self.n_group > 1 and self.n_routed_experts // self.n_group < 2:
                raise ValueError("a group needs at least 2 experts, since its score is the sum of its top 2")
            if self.topk_group * (self.n_routed_experts // self.n_group) < self.num_experts_per_tok:
                raise ValueError("the chosen groups must hold at least num_experts_per_tok experts")
        else:
            if self.num_attention_heads % self.kv_heads:
                raise ValueError("num_key_value_heads must divide num_attention_heads")
            if self.attention_head_dim % 2:
                raise ValueError("head_dim must be even, since rope rotates pairs")
            if self.num_nextn_predict_layers:
                raise ValueError("num_nextn_predict_layers is for model_type deepseek_v3 only")
        if self.rope_scaling is not None:
            _check_rope_scaling(self.rope_scaling)
        return self

    @property
    def is_deepseek(self) -> bool:
        return self.model_type == "deepseek_v3"

    @property
    def kv_heads(self) -> int:
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def attention_head_dim(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def rope_dim(self) -> int:
        return self.qk_rope_head_dim if self.is_deepseek else self.attention_head_dim

    @property
    def qkv_bias(self) -> bool:
        return self.attention_bias or self.model_type == "qwen2"

    @property
    def output_bias(self) -> bool:
        return self.attention_bias and self.model_type != "qwen2"

    @property
    def eos_ids(self) -> tuple[int, ...]:
        eos = self.eos_token_id
        return () if eos is None else (eos,) if isinstance(eos, int) else tuple(eos)

    def is_moe(self, layer: int) -> bool:
        return self.is_deepseek and layer >= self.first_k_dense_replace

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        """config.json as transformers and vLLM read it, hub-only keys of V3 included."""
        shared = {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                  "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "initializer_range",
                  "bos_token_id", "eos_token_id", "pad_token_id"}  # fmt: skip
        out: dict[str, Any] = {
            "architectures": [name for name, family in ARCHITECTURES.items() if family == self.model_type],
            "model_type": self.model_type,
            **self.model_dump(include=shared),
            "num_key_value_heads": self.num_attention_heads if self.is_deepseek else self.kv_heads,
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "use_cache": True,
            "dtype": dtype,
            "torch_dtype": dtype,
            "rope_theta": self.rope_theta,
            "rope_scaling": self.rope_scaling,
        }
        if self.model_type != "qwen2":
            out["attention_bias"] = self.attention_bias
        if not self.is_deepseek:
            return out | {"head_dim": self.attention_head_dim}
        keys = [name for name in type(self).model_fields if name in _DEEPSEEK_KEYS]
        return out | {
            **{key: getattr(self, key) for key in keys},
            "rope_interleave": True,
            "scoring_func": "sigmoid",  # vLLM refuses a V3 folder without these three
            "topk_method": "noaux_tc",
            "moe_layer_freq": 1,
        }

    @classmethod
    def from_hf(cls, table: dict[str, Any], where: str = "config.json") -> Self:
        """Read config.json of a supported architecture. Raises InputError for what we cannot honour."""
        names = table.get("architectures") or []
        names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        family = next((ARCHITECTURES[name] for name in names if name in ARCHITECTURES), table.get("model_type"))
        if not isinstance(family, str) or family not in ARCHITECTURES.values():
            raise InputError(
                f"{where}: architecture {names or family} is not supported. Supported: {', '.join(ARCHITECTURES)}."
            )
        _refuse_unsupported(table, where)
        known = {key: value for key, value in table.items() if key in cls.model_fields and value is not None}
        known["model_type"] = family
        rope, scaling = (table.get(key) or {} for key in ("rope_parameters", "rope_scaling"))
        if not isinstance(rope, dict) or not isinstance(scaling, dict):
            raise InputError(f"{where}: rope_parameters and rope_scaling must be tables.")
        known["rope_theta"] = rope.get("rope_theta", table.get("rope_theta", 10000.0))
        scaling = dict(scaling or rope)
        scaling.pop("rope_theta", None)
        known["rope_scaling"] = None if rope_type(scaling) == "default" else scaling
        if family == "deepseek_v3":
            known = _V3_DEFAULTS | known
            known.pop("head_dim", None)
            if "num_mtp_layers" in table and "num_nextn_predict_layers" not in table:
                known["num_nextn_predict_layers"] = table["num_mtp_layers"]
        if family == "qwen2":
            known.pop("attention_bias", None)
        return parse(cls, known, where)

    @classmethod
    def load(cls, folder: Path) -> Self:
        path = member(folder, "config.json")
        if not path.is_file():
            raise InputError(f"{folder}: no config.json, so this is not a model folder.")
        return cls.from_hf(read_json_object(path, MAX_CONFIG_BYTES), str(path))


_DEEPSEEK_KEYS = {
    "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "n_routed_experts",
    "n_shared_experts", "num_experts_per_tok", "moe_intermediate_size", "first_k_dense_replace", "n_group",
    "topk_group", "norm_topk_prob", "routed_scaling_factor", "num_nextn_predict_layers",
}  # fmt: skip


_V3_DEFAULTS = {"n_group": 8, "topk_group": 4, "num_experts_per_tok": 8, "routed_scaling_factor": 2.5}
"""What transformers takes a V3 config.json to mean that leaves them out; no tensor's shape tells."""

_ROPE_NUMBERS = {
    "yarn": ("factor",),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
_ROPE_OPTIONS = ("original_max_position_embeddings", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
                 "attention_factor")  # fmt: skip
_MAX_ROPE_NUMBER = 1 << 40


def rope_type(scaling: dict[str, Any] | None) -> str:
    """The type of a rope_scaling table; 'default' when there is none."""
    return (scaling or {}).get("rope_type") or (scaling or {}).get("type") or "default"


def _check_rope_scaling(scaling: dict[str, Any]) -> None:
    kind = rope_type(scaling)
    if not isinstance(kind, str) or kind not in _ROPE_NUMBERS:
        raise ValueError("rope_scaling type must be yarn, linear or llama3")
    for key in (*_ROPE_NUMBERS[kind], *_ROPE_OPTIONS):
        value = scaling.get(key)
        if value is None and key not in _ROPE_NUMBERS[kind]:
            continue
        if not isinstance(value, int | float) or not 0 < value <= _MAX_ROPE_NUMBER:
            raise ValueError(f"rope_scaling of type {kind} needs a positive {key}, found {value!r}")


def _refuse_unsupported(table: dict[str, Any], where: str) -> None:
    """A setting that changes the maths and that this code does not have must not be ignored in silence."""
    wrong = {
        "hidden_act": table.get("hidden_act", "silu") != "silu",
        "mlp_bias": bool(table.get("mlp_bias")),
        "use_sliding_window": bool(table.get("use_sliding_window")),
        "scoring_func": table.get("scoring_func", "sigmoid") != "sigmoid",
        "topk_method": table.get("topk_method", "noaux_tc") != "noaux_tc",
        "moe_layer_freq": table.get("moe_layer_freq", 1) != 1,
        "rope_interleave": table.get("rope_interleave", True) is False,
        "quantization_config": table.get("quantization_config") is not None,
    }
    for key, bad in wrong.items():
        if bad:
            raise InputError(f"{where}: {key} = {table[key]!r} is not supported.")
