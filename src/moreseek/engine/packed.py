"""A model's weights as the native step reads them: packed, with a part of the cache for each layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from moreseek.model.attention import LATENT_EPS, GroupedQueryAttention, LatentAttention
from moreseek.model.cache import Cache
from moreseek.model.moe import MoE
from moreseek.model.swiglu import MLP
from moreseek.model.transformer import MTP, Block, Transformer
from moreseek.native import step
from moreseek.native.pages import fresh_pages
from moreseek.native.step import Precision

SENSITIVE = 3
"""The first token's massive activations (Sun et al. 2024) come out of an early down projection, and what they miss is
missed by every later token: in int8 these layers alone cost SmolLM2-135M 0.6 % of perplexity, all others 0.1 %."""

SLAB = 64 << 20
"""Bytes that matrices share, so that they lie in large pages. Only what is written takes memory."""
LINE = 64  # bytes of a cache line, where each matrix begins
KINDS = [step.PACKED[precision] for precision in step.FORMATS]  # by their places in enum Format


class PackedModel:
    """Structures for ``step.run``. Packed copies are as old as the last ``refresh``; norms and embeddings are read in
    place. Buffers and structures live as long as this object does.

    ``precision``: of the matrices, but for routers and MLA's small matrices a head, which stay exact. "int8": bytes
    with a scale for 32 inputs of an output, and activations likewise; the first SENSITIVE layers' down projections
    stay exact too.
    """

    def __init__(self, model: Transformer, cache: Cache, drafting: bool, precision: Precision = "fp32") -> None:
        self.source, self.cache = model, cache
        self.precision: Precision = precision
        self.mtp = step.Model() if drafting else None
        self.vocabulary = model.config.vocab_size
        self._panels: dict[str, Tensor] = {}
        self._free = torch.empty(0, dtype=torch.uint8)  # of the newest slab
        self._kept: list[object] = []
        self.model = step.Model()
        self.refresh()

    def refresh(self) -> None:
        """Pack the weights as they are now."""
        with torch.no_grad():
            self._kept = []
            layers = enumerate(self.source.layers_in_turn())
            blocks = [self._layer(f"{place}", layer, place) for place, layer in layers]
            self.model = self._model(blocks)
            if self.mtp is not None:
                assert self.source.mtp is not None
                with self.source.at_hand(self.source.mtp):
                    self.mtp = self._mtp(self.model, self.source.mtp)

    def _mtp(self, main: step.Model, module: MTP) -> step.Model:
        """The MTP module as a model of one layer, with the embeddings and the head of the main one."""
        made = step.Model.from_buffer_copy(main)
        layers = (step.Layer * 1)(self._layer("mtp", module.block, self.source.config.num_hidden_layers))
        self._kept.append(layers)
        made.layers, made.layer = 1, layers
        made.norm = module.norm.weight.data_ptr()
        made.embedding_norm, made.state_norm = module.enorm.weight.data_ptr(), module.hnorm.weight.data_ptr()
        made.joint = self._matrix("mtp.joint", module.eh_proj.weight)
        return made

    def _model(self, blocks: list[step.Layer]) -> step.Model:
        source, config = self.source, self.source.config
        first = source.layers[0].self_attn
        assert isinstance(first, LatentAttention | GroupedQueryAttention)
        layers = (step.Layer * len(blocks))(*blocks)
        self._kept.append(layers)
        rank = config.kv_lora_rank if config.is_deepseek else 0
        return step.Model(
            layers=len(blocks), hidden=config.hidden_size, heads=config.num_attention_heads,
            kv_heads=config.kv_heads, head=0 if config.is_deepseek else config.attention_head_dim,
            nope=config.qk_nope_head_dim, rope=config.rope_dim, value=config.v_head_dim, rank=rank,
            q_rank=config.q_lora_rank or 0, width=self.cache.width,
            cache_block=self.cache.tensors[0].stride(1), experts=config.n_routed_experts,
            top_k=config.num_experts_per_tok, groups=config.n_group, top_groups=config.topk_group,
            normalise=int(config.norm_topk_prob), latent=int(config.is_deepseek), eps=config.rms_norm_eps,
            latent_eps=LATENT_EPS, scale=first.scale, scaling=config.routed_scaling_factor, layer=layers,
            embedding=source.embeddings.data_ptr(), embedding_format=KINDS.index(source.embeddings.dtype),
            norm=source.norm.weight.data_ptr(), head_matrix=self._head(),
        )  # fmt: skip

    def _layer(self, name: str, block: Block, place: int) -> step.Layer:
        made = step.Layer(
            input_norm=block.input_layernorm.weight.data_ptr(),
            post_norm=block.post_attention_layernorm.weight.data_ptr(),
        )
        for field, tensor in zip(("k_cache", "v_cache"), self.cache.tensors, strict=False):
            setattr(made, field, tensor[place].data_ptr())
        attention = block.self_attn
        made.out = self._linear(f"{name}.o", attention.o_proj)
        if isinstance(attention, LatentAttention):
            self._latent(name, attention, made)
        else:
            self._grouped(name, attention, made)
        if isinstance(block.mlp, MoE):
            self._experts(name, block.mlp, made)
        else:
            made.dense = self._mlp(f"{name}.mlp", block.mlp, exact_down=self.precision == "int8" and place < SENSITIVE)
        return made

    def _grouped(self, name: str, attention: GroupedQueryAttention, made: step.Layer) -> None:
        made.qkv = self._linear(f"{name}.qkv", attention.qkv_proj)
        if attention.qk_norm:
            made.q_norm, made.k_norm = attention.q_norm.weight.data_ptr(), attention.k_norm.weight.data_ptr()

    def _latent(self, name: str, attention: LatentAttention, made: step.Layer) -> None:
        made.qkv = self._linear(f"{name}.qkv", attention.qkv_a_proj)
        made.latent_norm = attention.kv_a_layernorm.weight.data_ptr()
        if attention.q_rank is not None:
            made.q_up = self._linear(f"{name}.q_up", attention.q_b_proj)
            made.q_latent_norm = attention.q_a_layernorm.weight.data_ptr()
        up = attention.kv_b_proj.weight.view(attention.heads, attention.nope + attention.value, attention.rank)
        up_k = [self._matrix(f"{name}.up_k{h}", head[: attention.nope].t(), exact=True) for h, head in enumerate(up)]
        up_v = [self._matrix(f"{name}.up_v{h}", head[attention.nope :], exact=True) for h, head in enumerate(up)]
        made.up_k, made.up_v = self._array(step.Matrix, up_k), self._array(step.Matrix, up_v)

    def _experts(self, name: str, moe: MoE, made: step.Layer) -> None:
        pairs = zip(moe.experts.gate_up_proj, moe.experts.down_proj, strict=True)
        experts = [
            step.FeedForward(self._matrix(f"{name}.gate_up{e}", gate_up), self._matrix(f"{name}.down{e}", down))
            for e, (gate_up, down) in enumerate(pairs)
        ]
        made.experts = self._array(step.FeedForward, experts)
        made.router = self._array(step.Matrix, [self._matrix(f"{name}.router", moe.gate.weight, exact=True)])
        made.router_bias = moe.gate.bias.data_ptr()
        if moe.shared_experts is not None:
            made.dense = self._mlp(f"{name}.shared", moe.shared_experts)

    def _mlp(self, name: str, mlp: MLP, exact_down: bool = False) -> step.FeedForward:
        gate_up = self._matrix(f"{name}.gate_up", mlp.gate_up_proj.weight)
        return step.FeedForward(gate_up, self._matrix(f"{name}.down", mlp.down_proj.weight, exact=exact_down))

    def _linear(self, name: str, linear: nn.Linear) -> step.Matrix:
        return self._matrix(name, linear.weight, linear.bias)

    def _head(self) -> step.Matrix:
        """Piece by piece, since a model that stays in its file has no more of it at hand."""
        outputs, inputs = self.source.config.vocab_size, self.source.config.hidden_size
        panels, scales = self._rooms("head", self.precision, outputs, inputs)
        row = 0
        for piece in self.source.head_in_turn():
            number, scale = step.sizes(self.precision, row, inputs)
            step.pack(self.precision, piece.detach(), panels[number:], scales[scale:])
            row += len(piece)
        return step.matrix(self.precision, outputs, inputs, panels, scales)

    def _matrix(self, name: str, weight: Tensor, bias: Tensor | None = None, exact: bool = False) -> step.Matrix:
        """weight: (outputs, inputs). ``exact``: as floats, whatever the precision."""
        kind: Precision = "fp32" if exact else self.precision
        outputs, inputs = weight.shape
        panels, scales = self._rooms(name, kind, outputs, inputs)
        step.pack(kind, weight.detach(), panels, scales)
        return step.matrix(kind, outputs, inputs, panels, scales, bias)

    def _rooms(self, name: str, kind: Precision, outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
        """Buffers for a matrix and its scales that are used again at the next refresh."""
        numbers, scales = step.sizes(kind, outputs, inputs)
        return self._room(name, numbers, step.PACKED[kind]), self._room(f"{name}.scales", scales, torch.float32)

    def _room(self, name: str, size: int, dtype: torch.dtype) -> Tensor:
        if name not in self._panels:
            wanted = -(-size * dtype.itemsize // LINE) * LINE
            if wanted > len(self._free):
                self._free = fresh_pages(max(wanted, SLAB))
            taken, self._free = self._free.split([wanted, len(self._free) - wanted])
            self._panels[name] = taken.view(dtype)[:size]
        return self._panels[name]

    def _array(self, kind: Any, items: list[Any]) -> Any:
        array = (kind * len(items))(*items)
        self._kept.append(array)
        return array
