"""A model that is read part by part while it is packed, against the same model held in memory."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from moreseek.cli.bench import decode_limit
from moreseek.engine.engine import Drafting, Engine
from moreseek.engine.llm import LLM
from moreseek.engine.sampling import SamplingParams
from moreseek.engine.torch_runner import TorchRunner
from moreseek.errors import FaultError, InputError
from moreseek.model.stored import StoredTransformer, open_stored
from moreseek.model.transformer import Transformer
from moreseek.model.weights import load_model, save_model
from moreseek.native.bindings import why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason="no native kernels here")

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
PROMPTS = [[1, 5, 9, 4], [7], [2, 6, 1, 1, 9, 30]]


@pytest.fixture
def folder(any_model, tmp_path):
    save_model(any_model, tmp_path / "model")
    return tmp_path / "model"


def texts(model, precision="fp32", by=""):
    engine = Engine(model, frozen=True, precision=precision, drafting=Drafting(by))
    return [(completion.token_ids, completion.logprobs) for completion in engine.generate(PROMPTS, GREEDY)]


def matrices(model):
    return [p for p in model.parameters() if p.numel() and p.dim() > 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_it_writes_the_same_to_the_bit_and_holds_no_matrix(any_model, tmp_path, monkeypatch, precision, dtype):
    monkeypatch.setattr("moreseek.model.stored.ROWS", 64)  # so that the head comes in pieces
    save_model(any_model, tmp_path, dtype)
    stored = open_stored(tmp_path)
    assert isinstance(stored, StoredTransformer)
    assert stored.config.vocab_size % 64 != 0 or stored.config.vocab_size > 64
    assert texts(stored, precision) == texts(load_model(tmp_path), precision)
    assert not matrices(stored)


def test_embeddings_stay_as_short_as_they_are_and_are_no_part_of_the_file(make_model, tmp_path):
    for dtype, kept in ((torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)):
        save_model(make_model("llama"), tmp_path, dtype)
        stored = open_stored(tmp_path)
        before = stored.embeddings.clone()
        assert stored.embeddings.dtype == kept
        assert torch.equal(stored.embeddings.float(), load_model(tmp_path).embed_tokens.weight)
        save_model(make_model("llama", seed=9), tmp_path, dtype)  # over what is being served
        assert torch.equal(stored.embeddings, before)


def test_its_mtp_module_guesses_the_same(make_model, tmp_path):
    save_model(make_model("v3"), tmp_path)
    assert texts(open_stored(tmp_path), by="mtp") == texts(load_model(tmp_path), by="mtp")


def test_the_model_itself_can_be_asked(folder):
    stored, ids = open_stored(folder), torch.tensor(PROMPTS[-1:])
    with torch.no_grad():
        assert torch.equal(stored(ids), load_model(folder)(ids))
    assert not matrices(stored)


def test_where_a_number_is_none_is_looked_for_one_layer_at_a_time(make_model, tmp_path):
    model = make_model("llama")
    with torch.no_grad():
        model.layers[1].mlp.down_proj.weight[3] = float("nan")
    save_model(model, tmp_path)
    stored = open_stored(tmp_path)
    at_once = []
    plain = stored._read
    stored._read = lambda part, room: at_once.append(stored._size(part)) or plain(part, room)
    with pytest.raises(FaultError, match=r"first in layers\.1\.mlp"):
        texts(stored)
    assert max(at_once) == max(map(stored._size, stored.layers))
    assert not matrices(stored)


def test_it_counts_and_knows_its_weights_without_reading_them(make_model, tmp_path):
    for seed in (1, 2):
        save_model(make_model("llama", seed=seed), tmp_path / str(seed))
    stored, again, other = (open_stored(tmp_path / name) for name in ("1", "1", "2"))
    assert stored.size == load_model(tmp_path / "1").size
    assert list(stored.samples()) == list(again.samples()) != list(other.samples())


def test_a_matrix_of_a_type_that_is_no_float_is_refused_and_nothing_is_kept(make_model, tmp_path):
    save_model(make_model("llama"), tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.1.mlp.up_proj.weight"
    save_file(tensors | {name: tensors[name].to(torch.int8)}, file, metadata={"format": "pt"})
    stored = open_stored(tmp_path)
    with pytest.raises(InputError, match=r"up_proj.weight has the type I8"):
        texts(stored)
    assert not matrices(stored)


def test_in_bf16_it_scores_alike_with_the_kernels_and_without_them(make_folder, monkeypatch):
    folder = make_folder(["hello world, how are you"] * 5, 290, 64)
    score = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=True)
    plain, short = (LLM(folder, precision=precision) for precision in ("fp32", "bf16"))
    monkeypatch.setattr("moreseek.engine.llm.why_not", lambda: "switched off by a test")
    whole = LLM(folder, precision="bf16")
    assert not matrices(short.model)
    assert isinstance(whole.engine.runner, TorchRunner)
    one, *others = (llm.generate(["hello world, how"], score)[0].prompt_logprobs for llm in (plain, short, whole))
    for other in others:
        pairs = zip(one, other, strict=True)
        scored = [(mine[token], theirs[token]) for mine, theirs in pairs if mine for token in mine]
        assert scored
        assert all(mine == pytest.approx(theirs, abs=0.05) for mine, theirs in scored)
        assert any(mine != theirs for mine, theirs in scored)
    for llm in (plain, short, whole):
        llm.loop.close()


def test_without_the_kernels_it_is_loaded_whole(make_model, tmp_path, monkeypatch):
    save_model(make_model("llama"), tmp_path)
    monkeypatch.setattr("moreseek.native.bindings.why_not", lambda: "switched off by a test")
    assert len(matrices(open_stored(tmp_path))) > 5


def test_bench_takes_its_limit_from_the_shapes_whatever_is_held(make_model, tmp_path):
    model = make_model("v3")
    save_model(model, tmp_path)
    config = open_stored(tmp_path).config
    with torch.device("meta"):
        shapes = Transformer(config)
    args = ("int8", 4, 32, 1e9, 1e9)
    assert decode_limit(shapes, *args) == pytest.approx(decode_limit(model, *args))
