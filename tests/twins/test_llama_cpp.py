"""llama.cpp opens the .gguf files that we write, cuts text into the same ids, and continues it with the same words.

It is told to keep keys and values in float32, as we do; in its usual float16 a close choice of experts may turn out
otherwise, and then logits differ by far more than the rounding.
"""

import pytest
import torch
from tests.peers import Peer
from tests.twins.conftest import DEEPSEEK, DENSE, YARN

from moreseek.cli.convert import convert
from moreseek.model.config import ModelConfig
from moreseek.model.transformer import Transformer, build
from moreseek.model.weights import load_model, save_model
from moreseek.records import Message
from moreseek.text.chat import encode_chat
from moreseek.text.tokenizer import Tokenizer, train_tokenizer

pytest.importorskip("gguf", reason="pip install 'moreseek[gguf]'")
pytestmark = pytest.mark.slow

STORY = (
    "<|user|>What is 12+34-5?<|assistant|><think>12+34=46;46-5=41</think>It's 41, isn't it?<|end|>"
    "<|user|>Say 3 words.<|assistant|><think></think>naïve 你好 café\n\n  and 1234<|end|>"
)
TEXTS = [
    STORY,
    "12345 a1b22 3.14159 ½ ٣٤  two   spaces 7 and   8\n\n\n\ttab \r\n end  ",
    "naïve café cafe\u0301 你好 Ωmega — “quotes” 👩‍👩‍👧 🙂 $x_1+y!? 'S we'Ve",
]
YARN_V3 = {"rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}}
SHAPES = {
    "llama": DENSE | {"model_type": "llama"},
    "llama-yarn": DENSE | {"model_type": "llama", "rope_scaling": YARN, "tie_word_embeddings": True},
    "qwen2": DENSE | {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": DENSE | {"model_type": "qwen3", "num_key_value_heads": 4, "head_dim": 16},
    "v3": DEEPSEEK | {"num_nextn_predict_layers": 1},
    "v3-everything": DEEPSEEK | {"q_lora_rank": 20, "n_group": 4, "topk_group": 2, "n_shared_experts": 2} | YARN_V3,
    "v3-unnormalised-tied": DEEPSEEK | {"norm_topk_prob": False, "tie_word_embeddings": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([STORY, *TEXTS] * 3, 330)


@pytest.fixture(scope="module")
def peer():
    peer = Peer("llama")
    yield peer
    peer.close()


@pytest.fixture(scope="module", params=SHAPES)
def pair(request, tokenizer, tmp_path_factory, peer):
    """A model that was trained a little, and llama.cpp with the file that we made of it."""
    folder = tmp_path_factory.mktemp(request.param)
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_ids[0], "pad_token_id": tokenizer.pad_id}
    config = SHAPES[request.param] | ids | {"vocab_size": tokenizer.vocab_size + 6}
    model = trained(ModelConfig.model_validate(config), tokenizer)
    save_model(model, folder / "model")
    tokenizer.save(folder / "model")
    convert(str(folder / "model"), folder / "model.gguf", None, "f32")
    peer.ask("open_file", path=str(folder / "model.gguf"))
    return model, folder


def trained(config: ModelConfig, tokenizer: Tokenizer) -> Transformer:
    """Until it knows its story by heart, so that greedy choices are clear. Routing biases are moved as in training."""
    torch.manual_seed(0)
    model = build(config, seed=1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids = torch.tensor([tokenizer.encode(STORY)])
    for step in range(200):
        loss = torch.nn.functional.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        for router in model.routers() if step < 100 else ():  # then it may learn what goes with them
            router.update_bias(0.02)
    return model.eval()


@torch.no_grad()
def greedy(model: Transformer, ids: list[int], count: int) -> tuple[list[int], float]:
    """The continuation by the plain forward pass, and how far the chosen logit was above the next at least."""
    start, margin = len(ids), float("inf")
    for _ in range(count):
        logits = model(torch.tensor([ids]))[0, -1]
        top = logits.topk(2)
        margin = min(margin, float(top.values[0] - top.values[1]))
        ids = [*ids, int(top.indices[0])]
    return ids[start:], margin


def test_it_gives_the_same_logits(pair, peer):
    model, _ = pair
    ids = torch.randint(0, 320, (40,), generator=torch.Generator().manual_seed(5))
    theirs = torch.tensor(peer.ask("logits", ids=ids.tolist()))
    ours = model(ids.unsqueeze(0))[0].detach()
    difference = float((ours - theirs).abs().max())
    print(f"largest difference {difference:.1e}, logits up to {float(ours.abs().max()):.1f}")
    assert difference < 1e-4 * float(ours.abs().max())


def test_it_continues_a_chat_with_the_same_text(pair, peer, tokenizer):
    model, _ = pair
    prompt = encode_chat(tokenizer, [Message(role="user", content="What is 12+34-5?")], add_generation_prompt=True)
    expected, margin = greedy(model, prompt, 30)
    assert margin > 0.05, "the comparison needs clear choices"
    assert peer.ask("greedy", ids=prompt, count=30) == expected
    assert "12+34=46;46-5=41</think>It's 41" in tokenizer.decode(expected)
    answer = peer.ask("complete", ids=prompt, count=30)
    # It stops at the end token, and keeps <think> and </think> as they are text to it.
    assert answer["text"] == tokenizer.decode(expected[: expected.index(tokenizer.eos_ids[0])])
    assert answer["finish_reason"] == "stop"


@pytest.mark.usefixtures("pair")
def test_it_cuts_text_into_the_same_ids(peer, tokenizer):
    for text, ids in zip(TEXTS, peer.ask("tokenize", texts=TEXTS), strict=True):
        assert ids == tokenizer.encode(text), text
    [with_bos] = peer.ask("tokenize", texts=["a"], add_bos=True)
    assert with_bos[0] != tokenizer.bos_id, "our texts do not begin with <|begin|>"
    facts = peer.ask("facts")
    assert (facts["bos"], facts["eos"]) == (tokenizer.bos_id, tokenizer.eos_ids[0])
    assert facts["metadata"]["tokenizer.chat_template"] == tokenizer.chat_template


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
@pytest.mark.parametrize("pair", ["qwen3", "v3"], indirect=True)
def test_it_opens_every_type_that_we_write(pair, peer, kind, tokenizer):
    _, folder = pair
    path = folder / f"{kind}.gguf"
    convert(str(folder / "model"), path, None, kind)
    peer.ask("open_file", path=str(path))
    ids = tokenizer.encode(STORY)[:40]
    theirs = torch.tensor(peer.ask("logits", ids=ids))
    ours = load_model(path)(torch.tensor([ids]))[0].detach()
    # llama.cpp also rounds the activations to the type: this says that the file holds the same model, no more. Where a
    # token's experts are nearly equal, rounding may choose another.
    differences = (ours - theirs).abs().amax(-1) / ours.abs().max()
    print(f"differences {differences.sort().values[-4:].tolist()}, median {float(differences.median()):.1e}")
    assert differences.quantile(0.9) < 0.01


@pytest.mark.parametrize("pair", ["llama", "qwen2", "qwen3", "v3-everything"], indirect=True)
def test_transformers_opens_what_comes_back(pair, tokenizer):
    transformers = pytest.importorskip("transformers")
    model, folder = pair
    convert(str(folder / "model.gguf"), folder / "back", None, None)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder / "back", dtype=torch.float32)
    ids = tokenizer.encode(STORY)
    with torch.no_grad():
        assert torch.allclose(theirs(torch.tensor([ids])).logits, model(torch.tensor([ids])), atol=1e-4)
    assert transformers.AutoTokenizer.from_pretrained(folder / "back")(STORY).input_ids == ids
