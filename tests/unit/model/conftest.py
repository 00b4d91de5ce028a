"""Small models of every family with a tokenizer, as folders on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.twins.conftest import KINDS, YARN, scramble

from moreseek.model.config import ModelConfig
from moreseek.model.transformer import build
from moreseek.model.weights import save_model
from moreseek.text.tokenizer import Tokenizer, train_tokenizer

MakeFolder = Callable[..., Path]
TEXT = "the cat sat on the mat 1234 5678, it's 12 o'clock; the dogs' 3.14 café naïve 你好 x = foo(bar)\n\n  return 42 "
ROWS = 330  # more than the tokenizer has ids, as in most models of the field

V3_YARN = YARN | {"mscale": 0.7, "mscale_all_dim": 0.7}
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-bias": ("llama", {"attention_bias": True, "num_key_value_heads": 4}),
    "llama-yarn": ("llama", {"rope_scaling": YARN}),
    "llama-linear": ("llama", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    "qwen2-tied": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 24, "num_key_value_heads": 2}),
    "v3": ("v3", {"num_nextn_predict_layers": 0}),
    "v3-groups": ("v3", {"num_nextn_predict_layers": 0, "q_lora_rank": 20, "n_group": 4, "topk_group": 2}),
    "v3-yarn": ("v3", {"num_nextn_predict_layers": 0, "rope_scaling": V3_YARN, "n_shared_experts": 2}),
    "v3-tied": ("v3", {"num_nextn_predict_layers": 0, "tie_word_embeddings": True, "norm_topk_prob": False}),
    "v3-dense": ("v3", {"num_nextn_predict_layers": 0, "first_k_dense_replace": 3}),
}


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEXT] * 5, 320)


@pytest.fixture
def make_folder(tmp_path: Path, tokenizer: Tokenizer) -> MakeFolder:
    """make_folder("v3", n_group=4, …): a Hugging Face folder of a model of that kind."""

    def make(kind: str, name: str = "model", **changes: Any) -> Path:
        ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_ids[0], "pad_token_id": tokenizer.pad_id}
        config = ModelConfig.model_validate(KINDS[kind] | {"vocab_size": ROWS, "hidden_size": 48} | ids | changes)
        model = build(config, seed=1)
        scramble(model, 1)
        save_model(model, tmp_path / name)
        tokenizer.save(tmp_path / name)
        return tmp_path / name

    return make
