"""vLLM opens the folders that we write, dense and DeepSeek-V3-shaped, and chooses the same tokens.

It computes in bfloat16, so a choice is compared only where our two likeliest tokens are clearly apart.
"""

import pytest
import torch
from tests.peers import VLLM, Peer
from tests.twins.conftest import scramble

from moreseek.model.config import ModelConfig
from moreseek.model.transformer import Transformer, build
from moreseek.model.weights import load_model, save_model
from moreseek.text.tokenizer import Tokenizer, train_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CLEAR = 0.05  # between the two likeliest logits
SIZE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "max_position_embeddings": 512}
SHAPES = {
    "dense": SIZE | {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64},
    "v3": SIZE
    | {
        "model_type": "deepseek_v3", "num_attention_heads": 4, "q_lora_rank": 96, "kv_lora_rank": 512,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 8,
        "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 128, "first_k_dense_replace": 1,
        "n_group": 2, "topk_group": 1, "routed_scaling_factor": 2.5, "num_nextn_predict_layers": 1,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["What is 12+34-5? It's 41, isn't it."] * 3, 320)


@pytest.fixture(scope="module", params=SHAPES)
def pair(request, tokenizer, tmp_path_factory):
    """Our model as it is read back from its bfloat16 folder, and vLLM with that folder."""
    folder = tmp_path_factory.mktemp(request.param)
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_ids[0], "pad_token_id": tokenizer.pad_id}
    config = SHAPES[request.param] | ids | {"vocab_size": tokenizer.vocab_size}
    model = build(ModelConfig.model_validate(config), seed=1)
    scramble(model, seed=1)
    save_model(model, folder, dtype=torch.bfloat16)
    tokenizer.save(folder)
    peer = Peer("vllm", environment=VLLM)
    peer.ask("open_folder", path=str(folder), dtype="bfloat16")
    yield load_model(folder).eval(), peer
    peer.close()


@torch.no_grad()
def two_likeliest(model: Transformer, ids: list[int]) -> tuple[int, float]:
    """The likeliest token after ids, and how far its logit is above the next."""
    top = model(torch.tensor([ids]))[0, -1].topk(2)
    return int(top.indices[0]), float(top.values[0] - top.values[1])


def test_its_first_tokens_are_ours(pair):
    model, peer = pair
    generator = torch.Generator().manual_seed(7)
    prompts = [
        torch.randint(8, model.config.vocab_size, (length,), generator=generator).tolist()
        for length in [1, 2, 15, 16, 17, 40] * 8
    ]
    ours = [two_likeliest(model, prompt) for prompt in prompts]
    theirs = [answer["ids"][0] for answer in peer.ask("greedy", prompts=prompts, count=1)]
    clear = [margin > CLEAR for _, margin in ours]
    wrong = [(len(p), o, t) for p, o, t, c in zip(prompts, ours, theirs, clear, strict=True) if c and o[0] != t]
    print(f"{sum(clear)} of {len(prompts)} choices are clear")
    assert sum(clear) > len(prompts) / 2
    assert not wrong


def test_it_goes_on_as_we_do(pair):
    """Its cache, too: each token is compared with ours after the text that vLLM wrote before it."""
    model, peer = pair
    prompt = list(range(20, 50))
    [answer] = peer.ask("greedy", prompts=[prompt], count=24)
    compared = 0
    for place, token in enumerate(answer["ids"]):
        ours, margin = two_likeliest(model, prompt + answer["ids"][:place])
        if margin > CLEAR:
            compared += 1
            assert token == ours, f"token {place}, margin {margin:.2f}"
    assert compared > 12
