"""What an engine does in a packed precision, whichever it is."""

import pytest
import torch

from moreseek.engine.engine import Engine
from moreseek.engine.sampling import SamplingParams
from moreseek.errors import InputError
from moreseek.native.bindings import why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason="no native kernels here")

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
both = pytest.mark.parametrize("precision", ["bf16", "int8"])


@both
@pytest.mark.parametrize("kind", ["llama", "qwen3", "v3"])
def test_a_batch_equals_single_requests_to_the_bit(make_model, kind, precision):
    model = make_model(kind)
    prompts = [[1, 5, 9, 4], [7], [3, 3, 8], [2, 6, 1, 1, 9, 30]]
    together = Engine(model, precision=precision).generate(prompts, GREEDY)
    for prompt, completion in zip(prompts, together, strict=True):
        alone = Engine(model, precision=precision).generate([prompt], GREEDY)[0]
        assert alone.token_ids == completion.token_ids
        assert alone.logprobs == completion.logprobs


@pytest.mark.parametrize(
    ("precision", "kind", "most"),
    [("bf16", "llama", 0.08), ("bf16", "qwen2", 0.08), ("bf16", "v3", 0.08), ("int8", "llama", 0.1)],
)
def test_it_is_used_and_close(make_model, precision, kind, most):
    model = make_model(kind)
    prompt = [[1, 5, 9, 4, 8, 33, 2]]
    exact, coarse = (
        Engine(model, precision=name).generate(prompt, SamplingParams(max_tokens=1, prompt_logprobs=True))[0]
        for name in ("fp32", precision)
    )
    pairs = [
        (mine[token], theirs[token])
        for token, mine, theirs in zip(prompt[0], exact.prompt_logprobs, coarse.prompt_logprobs, strict=True)
        if mine is not None
    ]
    assert any(mine != theirs for mine, theirs in pairs)
    assert all(mine == pytest.approx(theirs, abs=most) for mine, theirs in pairs)


@both
@pytest.mark.parametrize("norm", [1.0, -1.5])  # norms are read in place, matrices are packed
def test_training_is_seen_too(make_model, precision, norm):
    model = make_model("llama", seed=7)
    engine = Engine(model, precision=precision)
    before = engine.generate([[1, 5, 9]], GREEDY)[0]
    with torch.no_grad():
        model.norm.weight.mul_(norm)
        for block in model.layers:
            block.mlp.down_proj.weight.mul_(-1.5)
    after = engine.generate([[1, 5, 9]], GREEDY)[0]
    assert after.logprobs != before.logprobs
    assert after.logprobs == Engine(model, precision=precision).generate([[1, 5, 9]], GREEDY)[0].logprobs


@both
def test_without_the_kernels_it_is_refused_with_the_reason(make_model, monkeypatch, precision):
    monkeypatch.setattr("moreseek.engine.runner.usable", lambda *tensors: False)
    with pytest.raises(InputError, match=f"{precision} needs the native kernels"):
        Engine(make_model("llama"), precision=precision).generate([[1]], GREEDY)
