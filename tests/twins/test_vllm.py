"""vLLM opens the folders that we write, dense and DeepSeek-V3-shaped, and chooses the same tokens.

It computes in bfloat16, so a choice is compared only where our two likeliest tokens are clearly apart, and where no
expert was chosen by a hair: another expert is another model. The V3-shaped model has YaRN, as V3 itself: vLLM 0.32
rotates the queries of latent attention wrongly on a CPU where rope is plain (its rotary_embedding for CPUs takes heads
for tokens), and rightly by YaRN, which takes another way.
"""

import pytest
import torch
from tests.peers import VLLM, Peer
from tests.twins.conftest import scramble

from moreseek.model.config import ModelConfig
from moreseek.model.moe import Router
from moreseek.model.transformer import Transformer, build
from moreseek.model.weights import load_model, save_model
from moreseek.text.tokenizer import Tokenizer, train_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CLEAR = 0.05  # between the two likeliest logits
ROUNDING = 0.02  # of an expert's score, in bfloat16
SIZE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "max_position_embeddings": 512}
SHAPES = {
    "dense": SIZE | {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64},
    "v3": SIZE
    | {
        "model_type": "deepseek_v3", "num_attention_heads": 4, "q_lora_rank": 96, "kv_lora_rank": 512,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 8,
        "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 128, "first_k_dense_replace": 1,
        "n_group": 2, "topk_group": 1, "routed_scaling_factor": 2.5, "num_nextn_predict_layers": 1,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "beta_fast": 32,
                         "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0},
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
    for router in model.routers():
        router.bias.mul_(3)  # few experts are near one another
    save_model(model, folder, dtype=torch.bfloat16)
    tokenizer.save(folder)
    peer = Peer("vllm", environment=VLLM)
    peer.ask("open_folder", path=str(folder), dtype="bfloat16")
    yield load_model(folder).eval(), peer
    peer.close()


class Choices:
    """Our greedy choices, and which of them bfloat16 cannot turn: neither the token's nor an expert's is close."""

    def __init__(self, model: Transformer) -> None:
        self.model, self.steady = model, True
        for router in model.routers():
            router.register_forward_hook(self._look)

    def _look(self, router: Router, _: object, output: tuple[torch.Tensor, ...]) -> None:
        """Whether the same experts are chosen where scores are a little other."""
        biased = output[2] + router.bias
        chosen = router._choose(biased).sort().values
        for _ in range(16):
            again = router._choose(biased + ROUNDING * torch.randn(biased.shape))
            self.steady &= torch.equal(chosen, again.sort().values)

    @torch.no_grad()
    def after(self, ids: list[int]) -> tuple[int, bool]:
        """The likeliest token after ids, and whether that is clear."""
        self.steady = True
        top = self.model(torch.tensor([ids]))[0, -1].topk(2)
        return int(top.indices[0]), self.steady and float(top.values[0] - top.values[1]) > CLEAR


def test_its_first_tokens_are_ours(pair):
    model, peer = pair
    choices, generator = Choices(model), torch.Generator().manual_seed(7)
    prompts = [
        torch.randint(8, model.config.vocab_size, (length,), generator=generator).tolist()
        for length in [1, 2, 3, 5, 8, 17] * 16
    ]
    theirs = [answer["ids"][0] for answer in peer.ask("greedy", prompts=prompts, count=1)]
    compared = [(len(prompt), *choices.after(prompt), token) for prompt, token in zip(prompts, theirs, strict=True)]
    clear = [(length, ours, token) for length, ours, is_clear, token in compared if is_clear]
    print(f"{len(clear)} of {len(prompts)} choices are clear")
    assert len(clear) > len(prompts) / 4
    assert max(length for length, _, _ in clear) > 3
    assert not [(length, ours, token) for length, ours, token in clear if ours != token]


def test_it_goes_on_as_we_do(pair):
    """Its cache, too: each token is compared with ours after the text that vLLM wrote before it."""
    model, peer = pair
    choices, prompts = Choices(model), [[token] for token in range(20, 52)]
    compared = 0
    for prompt, answer in zip(prompts, peer.ask("greedy", prompts=prompts, count=6), strict=True):
        for place, token in enumerate(answer["ids"]):
            ours, is_clear = choices.after(prompt + answer["ids"][:place])
            compared += is_clear
            assert not is_clear or token == ours, f"token {place} after {prompt}"
    print(f"{compared} of {6 * len(prompts)} choices are clear")
    assert compared > 2 * len(prompts)
