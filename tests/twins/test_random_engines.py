"""Engines of any shape under random requests: whatever is preempted, guessed, cut into chunks, shared or aborted, each
request's tokens and log-probabilities are, to the bit, those that it gets alone in an engine with room."""

import random
from functools import cache

import pytest

from moreseek.engine.engine import Drafting, Engine
from moreseek.engine.sampling import SamplingParams
from moreseek.model.cache import bytes_per_token
from moreseek.native.bindings import why_not
from moreseek.native.step import BLOCK_SIZE

pytestmark = pytest.mark.skipif(why_not() is not None, reason="no native kernels here")

KINDS = ("v3", "llama", "qwen3", "v3-whole-vectors", "qwen2")
VOCABULARY, CONTEXT = 89, 512


def prompt_of(rnd, base):
    if rnd.random() < 0.3:
        return [rnd.randrange(VOCABULARY) for _ in range(rnd.randrange(1, 60))]
    begun = base[: rnd.choice([1, 3, 15, 16, 17, 31, 32, 33, 48, 64, 80])]
    return [*begun, rnd.randrange(3)] if rnd.random() < 0.2 else begun


def params_of(rnd, most):
    asked = {"temperature": rnd.choice([0, 0, 0.7, 1.5]), "max_tokens": most}
    for share, more in (
        (0.3, {"stop_token_ids": [rnd.randrange(VOCABULARY) for _ in range(rnd.randrange(1, 5))]}),
        (0.15, {"logprobs": 2}),
        (0.15, {"prompt_logprobs": True}),
        (0.1, {"top_k": 5}),
        (0.1, {"repetition_penalty": 1.3}),
        (0.1, {"min_tokens": min(most, 4)}),
    ):
        if rnd.random() < share:
            asked |= more
    return SamplingParams(**asked)


class Request:
    """One that runs, and who listens to it: ``enough`` tokens end it."""

    def __init__(self, engine, rnd, prompt, params):
        self.prompt, self.params, self.seed = prompt, params, rnd.randrange(6)
        self.heard = []
        self.enough = rnd.randrange(1, 30) if rnd.random() < 0.1 else None
        listens = self.enough is not None or rnd.random() < 0.5
        self.sequence = engine.add(prompt, params, self.seed, self.hear if listens else None)

    def hear(self, token, logprob):
        self.heard.append((token, logprob))
        return len(self.heard) == self.enough

    @property
    def runs(self):
        return self.sequence.finish_reason is None

    def check(self, alone):
        mine = self.sequence
        count = len(mine.output)
        assert mine.fault is None
        assert (mine.output, mine.logprobs) == (alone.output[:count], alone.logprobs[:count])
        if self.params.logprobs is not None:
            assert mine.top_logprobs == alone.top_logprobs[:count]
        if mine.finish_reason != "abort":
            cut = self.enough is not None and self.enough <= len(alone.output)
            assert count == (self.enough if cut else len(alone.output))
            assert cut or mine.finish_reason == alone.finish_reason
            assert not self.params.prompt_logprobs or mine.prompt_logprobs == alone.prompt_logprobs
            assert mine.reused <= len(self.prompt)
        if mine.on_token is not None:
            assert self.heard == list(zip(mine.output, mine.logprobs, strict=True))


@pytest.mark.parametrize("case", range(200))
def test_each_request_is_its_lone_twin(make_model, case):
    rnd = random.Random(case)
    model = model_of(make_model, rnd.choice(KINDS))
    precision = rnd.choice(["fp32", "fp32", "int8", "bf16"])
    by = rnd.choice(["", "", "text", "mtp" if model.mtp is not None else ""])
    token_bytes = bytes_per_token(model.config, 4, model.config.num_hidden_layers + (by == "mtp"))
    engine = Engine(
        model, rnd.choice([1, 2, 3, 5, 8, 33]), frozen=True, precision=precision,
        budget=rnd.choice([1, 7, 16, 40, 2048]), cache_bytes=token_bytes * BLOCK_SIZE * rnd.choice([9, 12, 14, 20, 60]),
        drafting=Drafting(by, rnd.choice([1, 2, 4]), rnd.choice([2, 8])),
    )  # fmt: skip
    blocks = engine.scheduler.blocks
    room, base = min(CONTEXT, (blocks.count - 1) * BLOCK_SIZE), [rnd.randrange(VOCABULARY) for _ in range(200)]
    wanted = []
    for _ in range(rnd.randrange(1, 14)):
        prompt = prompt_of(rnd, base)
        most = min(rnd.choice([1, 2, 5, 16, 17, 40, 70, 100]), room - len(prompt))
        wanted.append((prompt, params_of(rnd, most)))
    requests = []
    while wanted or any(request.runs for request in requests):
        while wanted and (rnd.random() < 0.5 or not requests):
            requests.append(Request(engine, rnd, *wanted.pop()))
        running = [request for request in requests if request.runs]
        if running and rnd.random() < 0.03:
            engine.abort(rnd.choice(running).sequence)
        engine.step()
    for request in requests:
        request.check(alone(model, precision, tuple(request.prompt), request.params, request.seed))
    assert blocks.free == blocks.count - 1
    assert not any(blocks.owned(block) for block in range(blocks.count))
    assert not any(
        part[:, 0].any() for part in engine.runner.cache.tensors
    )  # what belongs to nobody is written nowhere


_models = {}


def model_of(make_model, kind):
    if kind not in _models:
        _models[kind] = make_model(kind, max_position_embeddings=CONTEXT).eval()
    return _models[kind]


@cache
def alone(model, precision, prompt, params, seed):
    engine = Engine(model, 1, frozen=True, precision=precision, cache_bytes=1 << 22)
    sequence = engine.add(prompt, params, seed)
    while sequence.finish_reason is None:
        engine.step()
    return sequence
