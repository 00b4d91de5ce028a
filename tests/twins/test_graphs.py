"""Recorded decode steps against the plain ones. There is no GPU here: what would be recorded is run again instead, and
once with torch's fake tensors, which hold no numbers, so that a step that asks for one cannot pass.
"""

from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode

from moreseek.engine import graphs
from moreseek.engine.engine import Drafting, Engine
from moreseek.engine.graphs import GraphRunner, Graphs
from moreseek.engine.runner import make_runner
from moreseek.engine.sampling import SamplingParams
from moreseek.engine.scheduler import Step
from moreseek.engine.torch_runner import TorchRunner

KINDS = ["llama", "qwen2", "qwen3", "v3"]
PROMPTS = [[1, 5, 9, 4], [7], [3, 3, 8], [2, 6, 1, 1, 9, 30]]
GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)


class Recorder:
    """Runs again what it recorded, in the same place, as a graph does. It counts."""

    def __init__(self):
        self.recorded = self.replayed = 0

    def __call__(self, run):
        self.recorded += 1
        result = run()

        def replay():
            self.replayed += 1
            result.copy_(run())

        return replay, result


@pytest.fixture
def by_torch(monkeypatch):
    """Engines run the model's own code, by the runner that the test gives."""
    monkeypatch.setattr("moreseek.native.bindings.why_not", lambda: "switched off by a test")

    def use(runner):
        monkeypatch.setattr(
            "moreseek.engine.engine.make_runner", lambda model, blocks, drafting, _: runner(model, blocks, drafting)
        )

    return use


def texts(model, params=GREEDY, **options):
    return [c.token_ids for c in Engine(model, **options).generate(PROMPTS, params)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("params", [GREEDY, SamplingParams(temperature=1, max_tokens=24, seed=3, ignore_eos=True)])
def test_it_writes_what_the_plain_steps_write(make_model, by_torch, kind, params):
    model, recorder = make_model(kind), Recorder()
    by_torch(TorchRunner)
    plain = texts(model, params)
    by_torch(partial(GraphRunner, recorder=recorder))
    assert texts(model, params) == plain
    assert recorder.replayed >= 20
    assert recorder.recorded == 1  # four rows, few tokens


def test_rows_come_and_go_and_texts_grow(make_model, by_torch, monkeypatch):
    monkeypatch.setattr(graphs, "SHORTEST", 16)
    model, recorder = make_model("v3"), Recorder()
    lengths = [3, 40, 9, 21, 5, 33]
    params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in lengths]

    def run():
        engine = Engine(model, max_rows=3)
        started = [engine.add([1 + i, 2, 3], p, seed=i) for i, p in enumerate(params)]
        while engine.scheduler.busy:
            engine.step()
        return [sequence.output for sequence in started]

    by_torch(TorchRunner)
    plain = run()
    by_torch(partial(GraphRunner, recorder=recorder))
    assert run() == plain
    assert recorder.recorded > 3


def test_many_experts_are_copied_and_few_are_not(make_model):
    experts = make_model("v3").layers[-1].mlp.experts
    count, hidden = experts.down_proj.shape[:2]
    for tokens in (1, 2, 9):
        x = torch.randn(tokens, hidden)
        for top_k in (1, 2):
            chosen = torch.stack([torch.randperm(count)[:top_k] for _ in range(tokens)])
            weights = torch.rand(tokens, top_k)
            whole = experts(x, weights, chosen)
            for copying in (0, 10**6):  # always by copies, never
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("moreseek.model.moe.COPYING", copying)
                    assert torch.allclose(experts.at_once(x, weights, chosen), whole, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_recorded_step_asks_the_device_for_nothing(make_model, by_torch, kind):
    rows, none = np.arange(3), np.zeros(0, np.int64)
    step = Step(
        ids=np.array([5, 6, 7]), first=rows, count=np.ones(3, np.int64), start=np.array([3, 0, 40]),
        table=np.ones((3, 4), np.int32), output=rows, output_rows=rows, ahead=np.zeros(3, np.int64), scored=none,
        scored_rows=none, copies=[], settled=3,
    )  # fmt: skip
    runner = GraphRunner(make_model(kind), 64, recorder=lambda run: (lambda: None, run()))
    with FakeTensorMode(allow_non_fake_inputs=True):
        logits, states = runner.logits(step)
        assert runner._recorder is not None
        assert isinstance(logits, FakeTensor)
        assert logits.shape == (3, runner.model.config.vocab_size)
        assert states is None
        step.settled = 2  # a plain pass, which does ask
        with pytest.raises(DataDependentOutputException):
            runner.logits(step)


def test_where_nothing_can_be_recorded_it_says_so_once_and_goes_on(make_model, by_torch, capsys):
    def refuse(run):
        run()
        raise RuntimeError("this device records nothing\nand more")

    model = make_model("llama")
    by_torch(TorchRunner)
    plain = texts(model)
    by_torch(partial(GraphRunner, recorder=refuse))
    assert texts(model) == plain
    assert capsys.readouterr().err.count("it could not be recorded: this device records nothing") == 1


def test_what_would_read_too_much_is_not_recorded(make_model, by_torch, monkeypatch):
    monkeypatch.setattr(graphs, "MOST_PLACES", 2 * graphs.SHORTEST)
    model, recorder = make_model("llama"), Recorder()
    by_torch(partial(GraphRunner, recorder=recorder))
    texts(model)  # four rows
    assert recorder.recorded == 0
    Engine(model).generate(PROMPTS[:2], GREEDY)
    assert recorder.recorded == 1


class FakeModule:
    """torch.cuda, as far as recording needs it; ``calls`` in their order."""

    def __init__(self):
        self.calls, self.pools = [], []

    def device(self, device):
        self.calls.append(f"on {device}")
        return nullcontext()

    def Stream(self):  # noqa: N802
        return "a stream"

    def stream(self, stream):
        self.calls.append("beside")
        return nullcontext()

    def synchronize(self):
        self.calls.append("wait")

    def CUDAGraph(self):  # noqa: N802
        return SimpleNamespace(pool=lambda: "a pool", replay=lambda: self.calls.append("replay"))

    def graph(self, graph, pool, stream, mode):
        self.calls.append(f"record in {pool} on {stream}, {mode}")
        return nullcontext()


def test_recordings_share_memory_and_a_stream_of_their_own_gpu(monkeypatch):
    module = FakeModule()
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    record = Graphs(torch.device("cuda:1"))
    run = lambda: module.calls.append("run") or torch.ones(1)  # noqa: E731
    replay, result = record(run)
    assert torch.equal(result, torch.ones(1))
    replay()
    first = ["on cuda:1", "wait", "beside", "run", "wait", "record in None on a stream, thread_local", "run", "replay"]
    assert module.calls == first
    record(run)
    assert module.calls[-2:] == ["record in a pool on a stream, thread_local", "run"]


def test_a_device_without_graphs_says_so():
    with pytest.raises(RuntimeError, match="records nothing on cpu"):
        Graphs(torch.device("cpu"))(lambda: torch.ones(1))


def test_guesses_and_scores_take_the_plain_way(make_model, by_torch):
    model, recorder = make_model("llama"), Recorder()
    by_torch(partial(GraphRunner, recorder=recorder))
    texts(model, drafting=Drafting("text"))
    scored = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=True)
    assert Engine(model).generate([[1, 2, 3, 4]], scored)[0].prompt_logprobs


def test_on_a_cpu_nothing_is_recorded(make_model, monkeypatch):
    monkeypatch.setattr("moreseek.native.bindings.why_not", lambda: "switched off by a test")
    assert type(make_runner(make_model("llama"), 8)) is TorchRunner
