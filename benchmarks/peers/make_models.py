"""Writes the two random-weight Hugging Face models that the benchmarks measure: `dense` and `tiny_v3`.

    .venv/bin/python benchmarks/peers/make_models.py FOLDER [--seed 1]

A benchmark of speed needs the shapes of a model, not what it has learned, so the weights are drawn:
every matrix from normal(0, 0.02), every norm one. The tokenizer has one made-up word per id
(`w17` is id 17), so that a prompt of exactly 32 tokens is 32 words.
"""

import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

VOCAB_SIZE = 4096
SPECIAL_TOKENS = ["<pad>", "<bos>", "<eos>", "<unk>"]  # ids 0 to 3
STD = 0.02

# No pad_token_id: with one, nn.Embedding zeroes that row and drops its gradient, which is work that
# the other side of a benchmark would not do.
SHARED = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 256,
    "num_attention_heads": 8,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "attention_bias": False,
    "attention_dropout": 0.0,
    "tie_word_embeddings": False,
    "initializer_range": STD,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "dtype": "float32",
}


def dense() -> PreTrainedModel:
    """8.5M parameters: 2.1M in the two embeddings, 6.4M in 8 layers of GQA and SwiGLU."""
    config = LlamaConfig(
        **SHARED,
        num_hidden_layers=8,
        num_key_value_heads=4,
        head_dim=32,
        intermediate_size=784,
        mlp_bias=False,
    )
    return LlamaForCausalLM(config)


def tiny_v3() -> PreTrainedModel:
    """12.6M parameters (6.8M of them active): MLA, one dense layer, 5 layers of 8 routed experts and a shared one."""
    config = DeepseekV3Config(
        **SHARED,
        num_hidden_layers=6,
        num_key_value_heads=8,
        intermediate_size=512,
        moe_intermediate_size=256,
        first_k_dense_replace=1,
        n_routed_experts=8,
        n_shared_experts=1,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        norm_topk_prob=True,
        routed_scaling_factor=1.0,
        q_lora_rank=None,
        kv_lora_rank=64,
        qk_nope_head_dim=32,
        qk_rope_head_dim=16,
        v_head_dim=32,
        rope_interleave=True,
        num_mtp_layers=0,
    )
    return DeepseekV3ForCausalLM(config)


@torch.no_grad()
def draw_weights(model: PreTrainedModel, seed: int) -> None:
    """Draws every parameter here rather than trusting the library's init, which has left experts unset before."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0)  # the norms; no layer here has a bias
        else:
            parameter.normal_(0.0, STD, generator=generator)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.zero_()


def check_weights(model: PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise SystemExit(f"{name}: not finite")
        if parameter.ndim > 1 and abs(parameter.std().item() / STD - 1) > 0.1:
            raise SystemExit(f"{name}: std {parameter.std().item():.4f}, expected {STD}")


def make_tokenizer() -> PreTrainedTokenizerFast:
    words = SPECIAL_TOKENS + [f"w{i}" for i in range(len(SPECIAL_TOKENS), VOCAB_SIZE)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=SHARED["max_position_embeddings"],
    )


def write(model: PreTrainedModel, folder: Path, seed: int) -> int:
    draw_weights(model, seed)
    check_weights(model)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    check_weights(type(model).from_pretrained(folder, dtype=torch.float32))  # what was written is what is read
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    sizes = {make.__name__: write(make(), args.folder / make.__name__, args.seed) for make in (dense, tiny_v3)}
    print(json.dumps({"folder": str(args.folder), "parameters": sizes}))


if __name__ == "__main__":
    main()
