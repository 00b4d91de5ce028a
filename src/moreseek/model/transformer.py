"""The transformer: one code for DeepSeek-V3 and for dense Llama / Qwen2 / Qwen3."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moreseek.model.attention import GroupedQueryAttention, LatentAttention, Pass
from moreseek.model.branches import Branches
from moreseek.model.cache import CacheView
from moreseek.model.config import ModelConfig
from moreseek.model.layers import RMSNorm, Rope
from moreseek.model.linear import Linear
from moreseek.model.moe import MoE, Router
from moreseek.model.swiglu import MLP
from moreseek.native.attention import Layout
from moreseek.native.bindings import usable


class Block(nn.Module):
    """Pre-norm attention and feed-forward (dense or MoE), each with its residual."""

    def __init__(self, config: ModelConfig, layer: int, moe: bool) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        attention = LatentAttention if config.is_deepseek else GroupedQueryAttention
        self.self_attn = attention(config, layer)
        self.mlp = MoE(config) if moe else MLP(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor, delta: Tensor | None, shared: Pass) -> tuple[Tensor, Tensor]:
        """The residual stream and what the last block adds to it, both (B, T, hidden) → the same after this block."""
        x, h = self.input_layernorm.add(x, delta)
        x, h = self.post_attention_layernorm.add(x, self.self_attn(h, shared))
        return x, self.mlp(h, shared) if isinstance(self.mlp, MoE) else self.mlp(h)


class MTP(nn.Module):
    """Multi-token prediction of depth 1 (V3 §2.2): from h_i and the embedding of token i+1, predict token i+2."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.enorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hnorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.eh_proj = Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.block = Block(config, config.num_hidden_layers, config.is_moe(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden: Tensor, next_embeddings: Tensor, shared: Pass) -> Tensor:
        """hidden (after the final norm, as serving engines feed it) and next_embeddings: (B, T, hidden)."""
        joined = torch.cat([self.enorm(next_embeddings), self.hnorm(hidden)], dim=-1)  # embedding first on disk too
        return self.norm.add(*self.block(self.eh_proj(joined), None, shared))[1]


class Transformer(nn.Module):
    """A causal language model. ``model(ids)`` gives logits; training works on ``hidden_states`` and ``head``.

    Made with weights of no meaning: ``initialise`` or a checkpoint gives them theirs.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        # Given its weight, it draws no random one: on the meta device that draw alone imports two seconds of torch.
        empty = torch.empty(config.vocab_size, config.hidden_size)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, _weight=empty)
        self.layers = nn.ModuleList(Block(config, i, config.is_moe(i)) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mtp = MTP(config) if config.num_nextn_predict_layers else None
        self.lm_head = None if config.tie_word_embeddings else Linear(config.hidden_size, config.vocab_size, False)
        self.rope = Rope(config)

    @property
    def head(self) -> Tensor:
        """The output matrix (vocab, hidden); the embedding itself when tied."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def embed(self, ids: Tensor) -> Tensor:
        """(…) → (…, hidden)."""
        return self.embed_tokens(ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, hidden) → (…, vocab)."""
        return hidden @ self.head.t() if self.lm_head is None else self.lm_head(hidden)

    @property
    def device(self) -> torch.device:
        return self.embed_tokens.weight.device

    @property
    def size(self) -> int:
        """Parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def embeddings(self) -> Tensor:
        """(vocab, hidden) for looking up, in fp32 or bf16."""
        return self.embed_tokens.weight

    def head_in_turn(self) -> Iterator[Tensor]:
        """The output matrix's rows, a multiple of 64 at a time but for the last; here all of them."""
        yield self.head

    def at_hand(self, part: nn.Module) -> AbstractContextManager[None]:
        """While this lasts, the weights of a part can be read; here they always can."""
        del part
        return nullcontext()

    def layers_in_turn(self) -> Iterator[Block]:
        """The layers; the weights of each can be read until the next is asked for, and here always."""
        return iter(self.layers)  # pyright: ignore[reportReturnType]

    def samples(self) -> Iterator[bytes]:
        """Some of all weights, by which the model is known again."""
        for parameter in self.parameters():
            flat = parameter.detach().reshape(-1)
            yield flat[:: max(1, len(flat) // 64)].float().cpu().numpy().tobytes()

    def forward(self, ids: Tensor, documents: Tensor | None = None) -> Tensor:
        """ids: (B, T) int64 → logits (B, T, vocab)."""
        return self.logits(self.hidden_states(ids, documents))

    def start_pass(
        self, ids: Tensor, documents: Tensor | None, balance_weight: float = 0.0, branches: Branches | None = None,
        real: Tensor | None = None,
    ) -> Pass:  # fmt: skip
        """What the layers share.

        documents: (B, T) int, equal inside a document; None means one a row. With ``branches`` the ids are one flat
        row (1, N), laid out as it says. real: (B, T) bool, False for padding, which counts for no expert's load.
        """
        if branches is not None:
            positions = branches.positions
            phases = self.rope(positions, int(positions.max()) + 1)
            layout = branches.layout(phases) if usable(self.embed_tokens.weight) else None
            return Pass(phases=phases, branches=branches, layout=layout, real=real)
        tokens = ids.shape[1]
        phases = self.rope(torch.arange(tokens, device=ids.device).unsqueeze(0), tokens)
        shared = Pass(phases=phases, balance_weight=balance_weight, real=real)
        if usable(self.embed_tokens.weight):
            shared.layout = rows_layout(ids.shape[0], tokens, phases, documents)
        elif documents is not None:
            shared.mask = document_mask(documents, self._mask_dtype())
        return shared

    def _mask_dtype(self) -> torch.dtype:
        kind = self.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.embed_tokens.weight.dtype

    def hidden_states(self, ids: Tensor, documents: Tensor | None = None, shared: Pass | None = None) -> Tensor:
        """ids: (B, T) → the final norm's output (B, T, hidden)."""
        shared = shared or self.start_pass(ids, documents)
        return self._through_layers(ids, shared)

    def _through_layers(self, ids: Tensor, shared: Pass) -> Tensor:
        x, delta = self.embed(ids), None
        for layer in self.layers_in_turn():
            x, delta = layer(x, delta, shared)
        return self.norm.add(x, delta)[1]

    def mtp_hidden_states(self, hidden: Tensor, ids: Tensor, shared: Pass) -> Tensor:
        """Hidden states that predict token i+2 at position i. The last position has no next token and is noise."""
        assert self.mtp is not None
        next_ids = torch.cat([ids[:, 1:], ids[:, -1:]], dim=1)
        return self.mtp(hidden, self.embed(next_ids), shared)

    def mtp_alone(self, hidden: Tensor, next_ids: Tensor, shared: Pass) -> Tensor:
        """The same with the next tokens given, and with gradients for nothing but the MTP module."""
        assert self.mtp is not None
        embeddings = F.embedding(next_ids, self.embed_tokens.weight.detach())
        return self.mtp(hidden.detach(), embeddings, shared)

    def cached_hidden_states(self, ids: Tensor, view: CacheView) -> Tensor:
        """Like hidden_states for new tokens only. ids: (n, T); the view says what is cached before them."""
        return self._through_layers(ids, self.cached_pass(view))

    def cached_pass(self, view: CacheView) -> Pass:
        """What the layers share when new tokens meet a cache."""
        return Pass(phases=self.rope(view.positions, view.longest), cache=view)

    def routers(self) -> list[Router]:
        return [module for module in self.modules() if isinstance(module, Router)]


def rows_layout(rows: int, tokens: int, phases: Tensor, documents: Tensor | None) -> Layout:
    """A plain batch for the native kernel. phases: complex (1, T, 1, R/2); documents: (B, T), each in one piece."""
    steps = torch.arange(tokens)
    first = None
    if documents is not None:
        begins = torch.ones_like(documents, dtype=torch.bool)
        begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
        first = torch.where(begins, steps, 0).cummax(dim=1).values.flatten()
    nothing = torch.zeros(0, dtype=torch.int64)
    return Layout(
        torch.arange(0, rows * tokens, tokens), torch.full((rows,), tokens), torch.zeros(rows + 1, dtype=torch.int64),
        nothing, nothing, steps.repeat(rows), torch.view_as_real(phases).flatten(0, -3).flatten(1).contiguous(), first,
    )  # fmt: skip


def document_mask(documents: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive causal mask (B, 1, T, T) that keeps attention inside a document. documents: (B, T)."""
    tokens = documents.shape[1]
    same = documents.unsqueeze(2) == documents.unsqueeze(1)
    allowed = same & torch.ones(tokens, tokens, dtype=torch.bool, device=documents.device).tril()
    mask = torch.zeros(allowed.shape, dtype=dtype, device=documents.device)
    return mask.masked_fill_(~allowed, float("-inf")).unsqueeze(1)


@torch.no_grad()
def initialise(model: Transformer, seed: int) -> None:
    """Initialise for training from scratch, the same for one seed on every device.

    Matrices: normal with std 1/sqrt(fan-in), capped by nothing; those that write into the residual stream start
    at zero, so that every block begins as the identity; embeddings and router use the config's initializer_range
    (V3: 0.006; a small model learns faster from 0.02); norms are 1, biases 0.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        leaf = name.rsplit(".", 2)
        if parameter.dim() < 2:
            parameter.fill_(1.0 if leaf[-1] == "weight" else 0.0)
        elif any(part in ("o_proj", "down_proj") for part in leaf):
            parameter.zero_()
        else:
            fan_in_std = parameter.shape[-1] ** -0.5
            small = name.startswith(("embed_tokens", "lm_head")) or ".gate.weight" in name
            std = model.config.initializer_range if small else fan_in_std
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def parameter_counts(model: Transformer) -> dict[str, int]:
    """Total and active (a token's) parameters, without MTP in 'active'."""
    config = model.config
    active_share = config.num_experts_per_tok / config.n_routed_experts
    active = sum(
        round(parameter.numel() * (active_share if ".experts." in name else 1))
        for name, parameter in model.named_parameters()
        if not name.startswith("mtp.")
    )
    return {"total": model.size, "active": active}


def flops_per_token(model: Transformer, tokens: int, training: bool) -> float:
    """Multiply-adds × 2 a token at sequence length ``tokens``; ×3 with the backward pass. Embedding look-up is free.

    Attention counts the causal half: 2 · 2 · (T/2) · heads · (qk + v) / 2 a layer.
    """
    config = model.config
    active_share = config.num_experts_per_tok / config.n_routed_experts
    matrices = 0.0
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or name.startswith("embed_tokens") or (not training and name.startswith("mtp.")):
            continue
        matrices += parameter.numel() * (active_share if ".experts." in name else 1.0)
    heads_out = 1 + (1 if training and model.mtp is not None else 0)
    matrices += model.head.numel() * (heads_out - (1 if model.lm_head is not None else 0))
    layers = config.num_hidden_layers + (1 if training and model.mtp is not None else 0)
    width = (config.qk_head_dim + config.v_head_dim) if config.is_deepseek else 2 * config.attention_head_dim
    attention = layers * config.num_attention_heads * width * tokens / 2
    return (2 * matrices + 2 * attention) * (3 if training else 1)


def build(config: ModelConfig, seed: int, **factory: Any) -> Transformer:
    """A new model, initialised for training."""
    model = Transformer(config).to(**factory) if factory else Transformer(config)
    initialise(model, seed)
    return model
