"""Grouped-query attention and multi-head latent attention (naive for training, absorbed for decoding)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from moreseek.model.branches import Branches
from moreseek.model.cache import CacheView
from moreseek.model.config import ModelConfig, rope_type
from moreseek.model.layers import RMSNorm, rotate, yarn_mscale
from moreseek.model.linear import Linear
from moreseek.model.scores import attend
from moreseek.native.attention import Heads, Layout, attention_latent, attention_q_k_v, attention_qkv

LATENT_EPS = 1e-6  # transformers fixes the eps of the two latent norms, whatever rms_norm_eps is


@dataclass
class Pass:
    """What the layers of one forward pass share."""

    phases: Tensor  # complex (B or 1, T, 1, rope_dim / 2)
    mask: Tensor | None = None  # additive (B, 1, T, T), or None for plain causal
    cache: CacheView | None = None
    branches: Branches | None = None  # the tokens lie flat in one row, as it says
    layout: Layout | None = None  # the same facts for the native kernel, where there is one
    real: Tensor | None = None  # (B, T) bool: the tokens that are not padding; None: all
    balance_weight: float = 0.0  # alpha of the sequence-wise balance loss; 0 skips it
    balance_losses: list[Tensor] = field(default_factory=list)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Attention of this pass's own tokens. q: (B, T, H, D), k: (B, T, Hkv, D), v: (B, T, Hkv, Dv)."""
        if self.branches is not None:
            return self.branches.attend(q, k, v, scale)
        return attend(q, k, v, scale, self.mask)


class GroupedQueryAttention(nn.Module):
    """Llama / Qwen attention with q, k and v as one matrix.

    In memory the rope pairs are interleaved (2i, 2i+1) as in DeepSeek-V3, so that both families share one rope;
    weights.py permutes rows when it reads and writes Hugging Face files.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.width = config.num_attention_heads, config.kv_heads, config.attention_head_dim
        rows = (self.heads + 2 * self.kv_heads) * self.width
        self.qkv_proj = Linear(config.hidden_size, rows, bias=config.qkv_bias)
        self.o_proj = Linear(self.heads * self.width, config.hidden_size, bias=config.output_bias)
        if config.model_type == "qwen3":
            self.q_norm = RMSNorm(self.width, config.rms_norm_eps)
            self.k_norm = RMSNorm(self.width, config.rms_norm_eps)
        self.qk_norm = config.model_type == "qwen3"
        self.scale = self.width**-0.5
        self.sizes = Heads(self.heads, self.kv_heads, 0, self.width, self.width, self.scale)

    def forward(self, x: Tensor, shared: Pass) -> Tensor:
        batch, tokens, _ = x.shape
        qkv = self.qkv_proj(x).view(batch, tokens, self.heads + 2 * self.kv_heads, self.width)
        if shared.layout is not None:
            return self.o_proj(self._native(qkv.flatten(0, 1), shared.layout).view(batch, tokens, -1))
        if self.qk_norm:
            q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=2)
            q, k = rotate(self.q_norm(q), shared.phases), rotate(self.k_norm(k), shared.phases)
        else:
            qk, v = qkv.split([self.heads + self.kv_heads, self.kv_heads], dim=2)
            q, k = rotate(qk, shared.phases).split([self.heads, self.kv_heads], dim=2)
        if shared.cache is not None:
            shared.cache.write(0, self.layer, k)
            shared.cache.write(1, self.layer, v)
            if not shared.cache.fresh:
                return self.o_proj(self._decode(q, shared.cache))
        return self.o_proj(shared.attend(q, k, v, self.scale).reshape(batch, tokens, -1))

    def _native(self, qkv: Tensor, layout: Layout) -> Tensor:
        """qkv: (N, H + 2·Hkv, D), before the rotary embedding → (N, H·D)."""
        if not self.qk_norm:
            return attention_qkv(qkv.flatten(1), self.sizes, layout)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        q, k = self.q_norm(q).flatten(1), self.k_norm(k).flatten(1)
        return attention_q_k_v(q, k, v.flatten(1), self.sizes, layout)

    def _decode(self, q: Tensor, view: CacheView) -> Tensor:
        """Attend to the cache. q: (n, T, H, D) → (n, T, H·D)."""
        rows, tokens = q.shape[:2]
        groups = self.heads // self.kv_heads
        keys, values = view.read(0, self.layer, self.width), view.read(1, self.layer, self.width)  # (n·Hkv, span, D)
        q = q.view(rows, tokens, self.kv_heads, groups, self.width).permute(0, 2, 3, 1, 4)
        q = q.reshape(rows * self.kv_heads, groups * tokens, self.width) * self.scale
        scores = torch.bmm(q, keys.transpose(1, 2)).view(rows, self.kv_heads, groups, tokens, view.span)
        scores += view.mask[:, None, None]
        weights = scores.softmax(-1).view(rows * self.kv_heads, groups * tokens, view.span)
        out = torch.bmm(weights, values).view(rows, self.kv_heads, groups, tokens, self.width)
        return out.permute(0, 3, 1, 2, 4).reshape(rows, tokens, -1)


class LatentAttention(nn.Module):
    """Multi-head latent attention (DeepSeek-V2 §2.1, V3 §2.1.1).

    ``qkv_a_proj`` holds q_proj (or q_a_proj when q_lora_rank is set) above kv_a_proj_with_mqa, as one matrix.
    A whole sequence expands the latent into per-head keys and values; decoding absorbs kv_b_proj into the query
    and the output, so the cache is read as one shared head of width kv_lora_rank + rope.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.heads = layer, config.num_attention_heads
        self.nope, self.rope, self.value = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
        self.rank, self.q_rank = config.kv_lora_rank, config.q_lora_rank
        q_rows = self.heads * config.qk_head_dim
        self.first_rows = q_rows if self.q_rank is None else self.q_rank
        # with a q latent both halves carry attention_bias in HF; q_proj itself never does
        self.qkv_a_proj = Linear(config.hidden_size, self.first_rows + self.rank + self.rope, config.attention_bias)
        if self.q_rank is not None:
            self.q_a_layernorm = RMSNorm(self.q_rank, LATENT_EPS)
            self.q_b_proj = Linear(self.q_rank, q_rows, bias=False)
        self.kv_a_layernorm = RMSNorm(self.rank, LATENT_EPS)
        self.kv_b_proj = Linear(self.rank, self.heads * (self.nope + self.value), bias=False)
        self.o_proj = Linear(self.heads * self.value, config.hidden_size, bias=config.attention_bias)
        self.scale = config.qk_head_dim**-0.5 * _mla_scale(config)
        self.sizes = Heads(self.heads, self.heads, self.nope, self.rope, self.value, self.scale)

    def forward(self, x: Tensor, shared: Pass) -> Tensor:
        batch, tokens, _ = x.shape
        q, latent, k_rope = self.qkv_a_proj(x).split([self.first_rows, self.rank, self.rope], dim=-1)
        if self.q_rank is not None:
            q = self.q_b_proj(self.q_a_layernorm(q))
        if shared.layout is not None:
            kv = self.kv_b_proj(self.kv_a_layernorm(latent))
            q, kv, k_rope = q.flatten(0, 1), kv.flatten(0, 1), k_rope.flatten(0, 1)
            return self.o_proj(attention_latent(q, kv, k_rope, self.sizes, shared.layout).view(batch, tokens, -1))
        q = q.view(batch, tokens, self.heads, self.nope + self.rope)
        q = rotate(q, shared.phases)  # its last ``rope`` numbers
        k_rope = rotate(k_rope.unsqueeze(2), shared.phases)  # (B, T, 1, rope)
        latent = self.kv_a_layernorm(latent)
        if shared.cache is not None:
            shared.cache.write(0, self.layer, torch.cat([latent, k_rope.squeeze(2)], dim=-1))
            if not shared.cache.fresh:
                return self.o_proj(self._absorbed(q, shared.cache))
        kv = self.kv_b_proj(latent).view(batch, tokens, self.heads, self.nope + self.value)
        k_nope, v = kv.split([self.nope, self.value], dim=-1)
        k = torch.cat([k_nope, k_rope.expand(-1, -1, self.heads, -1)], dim=-1)
        return self.o_proj(shared.attend(q, k, v, self.scale).reshape(batch, tokens, -1))

    def _absorbed(self, q: Tensor, view: CacheView) -> Tensor:
        """q: (n, T, H, nope + rope) → (n, T, H·value)."""
        rows, tokens = q.shape[:2]
        q_nope, q_rope = q.split([self.nope, self.rope], dim=-1)
        up = self.kv_b_proj.weight.view(self.heads, self.nope + self.value, self.rank)
        q_heads = q_nope.permute(2, 0, 1, 3).reshape(self.heads, rows * tokens, self.nope)
        q_latent = torch.bmm(q_heads, up[:, : self.nope]).view(self.heads, rows, tokens, self.rank)
        q = torch.cat([q_latent.permute(1, 0, 2, 3), q_rope.transpose(1, 2)], dim=-1)  # (n, H, T, rank + rope)
        keys = view.read(
            0, self.layer, self.rank + self.rope
        )  # (n, span, rank + rope), values are its first rank columns
        scores = torch.bmm(q.flatten(1, 2) * self.scale, keys.transpose(1, 2))
        scores = scores.view(rows, self.heads, tokens, view.span)
        scores += view.mask[:, None]
        weights = scores.softmax(-1).flatten(1, 2)
        mixed = torch.bmm(weights, keys[..., : self.rank]).view(rows, self.heads, tokens, self.rank)
        mixed = mixed.permute(1, 0, 2, 3).reshape(self.heads, rows * tokens, self.rank)
        out = torch.bmm(mixed, up[:, self.nope :].transpose(1, 2))  # (H, n·T, value)
        return out.view(self.heads, rows, tokens, self.value).permute(1, 2, 0, 3).reshape(rows, tokens, -1)


def _mla_scale(config: ModelConfig) -> float:
    """m² with m = 0.1·mscale_all_dim·ln(factor) + 1 (YaRN's softmax scale in DeepSeek's code)."""
    scaling = config.rope_scaling or {}
    if rope_type(scaling) == "default" or not scaling.get("mscale_all_dim"):
        return 1.0
    return yarn_mscale(scaling["factor"], scaling["mscale_all_dim"]) ** 2
