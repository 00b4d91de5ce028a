"""Rollouts from an outside engine: what is asked of it, what is made of its answers, and the correction in the loss."""

import asyncio
import json
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import uvicorn
from tests.unit.server.serving import served as served_by

from moreseek.config import parse
from moreseek.engine.engine import Engine
from moreseek.engine.llm import LLM
from moreseek.engine.sampling import Completion, SamplingParams
from moreseek.errors import FaultError, InputError
from moreseek.model.weights import load_model, save_model
from moreseek.server.app import build_app
from moreseek.text.prompts import encode_problem, message_text
from moreseek.text.tokenizer import Tokenizer
from moreseek.training import endpoint
from moreseek.training.endpoint import EndpointSampler
from moreseek.training.objectives import sampler_ratios
from moreseek.training.sampler import open_sampler
from moreseek.training.settings import GRPOSettings, SamplerSettings

PARAMS = SamplingParams(max_tokens=4)


@contextmanager
def answering(answer) -> Iterator[tuple[str, list]]:
    """A server on this machine whose POSTs get ``answer(path, body)`` → (status, JSON or None); what was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append((self.path, body, self.headers.get("authorization")))
            status, found = answer(self.path, body)
            raw = b"" if found is None else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(endpoint, "_FIRST_WAIT_S", 0.0)


def sampler(address, tokenizer, folder, **settings):
    table = {"engine": "endpoint", "url": f"{address}/v1", "model": "m", "renew_every_steps": 0} | settings
    return EndpointSampler(SamplerSettings.model_validate(table), tokenizer, folder)


def one(address, tokenizer, tmp_path, **settings) -> Completion:
    return sampler(address, tokenizer, tmp_path, **settings).generate([[9, 10]], PARAMS, [7])[0]


# ------------------------------------------------------------------------------------------------- over the network


def test_a_request_has_ids_seed_and_key_and_the_answers_come_in_order(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("KEY_OF_TEST", "secret")

    def answer(path, body):
        ids = [body["prompt"][0], tokenizer.eos_ids[0]]
        told = {"tokens": ["a", "b"], "token_logprobs": [-0.5, -0.25]}
        return 200, {"choices": [{"text": "a", "finish_reason": "stop", "token_ids": ids, "logprobs": told}]}

    with answering(answer) as (address, asked):
        outside = sampler(address, tokenizer, tmp_path, api_key_env="KEY_OF_TEST", at_once=3)
        found = outside.generate([[20 + i, 9] for i in range(8)], PARAMS, range(2**63, 2**63 + 8))
    assert [completion.token_ids[0] for completion in found] == list(range(20, 28))
    assert found[0].logprobs == [-0.5, -0.25]
    assert found[0].finish_reason == "stop"
    path, body, key = next(item for item in asked if item[1]["prompt"] == [20, 9])
    assert (path, key) == ("/v1/completions", "Bearer secret")
    assert body == {
        "model": "m", "prompt": [20, 9], "max_tokens": 4, "temperature": 1.0, "seed": 0, "logprobs": 1,
        "return_token_ids": True, "skip_special_tokens": False,
    }  # fmt: skip


def test_without_ids_the_text_is_cut_into_tokens_again(tokenizer, tmp_path):
    choice = {"text": "1+2", "finish_reason": "stop"}
    logprobs = {"tokens": ["1", "+", "2", ""], "token_logprobs": [-1.0, -2.0, -3.0, -4.0]}
    with answering(lambda path, body: (200, {"choices": [choice | {"logprobs": logprobs}]})) as (address, _):
        found = one(address, tokenizer, tmp_path)
    assert found.token_ids == [*tokenizer.encode("1+2"), tokenizer.eos_ids[0]]
    assert found.logprobs == [-1.0, -2.0, -3.0, -4.0]


@pytest.mark.parametrize("logprobs", [None, {"tokens": ["1+", "2"], "token_logprobs": [-1.0, -2.0]}])
def test_log_probabilities_of_other_tokens_count_as_unknown(tokenizer, tmp_path, logprobs):
    choice = {"text": "1+2", "finish_reason": "length", "logprobs": logprobs}
    with answering(lambda path, body: (200, {"choices": [choice]})) as (address, _):
        found = one(address, tokenizer, tmp_path)
    assert found.token_ids == tokenizer.encode("1+2")
    assert all(math.isnan(value) for value in found.logprobs)
    assert found.finish_reason == "length"


def test_ids_may_come_as_the_names_of_tokens(tokenizer, tmp_path):
    logprobs = {"tokens": ["token_id:11", "token_id:12"], "token_logprobs": [-1.0, None]}
    choice = {"text": "?", "finish_reason": "length", "logprobs": logprobs}
    with answering(lambda path, body: (200, {"choices": [choice]})) as (address, _):
        found = one(address, tokenizer, tmp_path)
    assert found.token_ids == [11, 12]
    assert math.isnan(found.logprobs[1])


def test_what_may_pass_is_tried_again(tokenizer, tmp_path):
    statuses = iter([503, 429, 200])
    choice = {"text": "1", "finish_reason": "length"}
    with answering(lambda path, body: (next(statuses), {"choices": [choice]})) as (address, asked):
        assert one(address, tokenizer, tmp_path).text == "1"
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("status", "answer", "message", "tries"),
    [
        (400, {"error": {"message": "no such thing"}}, "400: .*no such thing", 1),
        (500, {"error": "broken"}, "500: .*broken", 4),
        (200, {"choices": []}, "is not a completion", 1),
        (200, [], "is not a completion", 1),
        (200, {"choices": [{"text": "", "finish_reason": "length"}]}, "no tokens", 1),
        (200, {"choices": [{"text": "a", "token_ids": [10_000]}]}, "outside the 264 of the tokenizer", 1),
        (200, {"choices": [{"text": "a", "token_ids": ["a"]}]}, "outside the 264 of the tokenizer", 1),
        (200, {"choices": [{"text": "a", "token_ids": [9] * 99}]}, "99 tokens where 4 were asked for", 1),
    ],
)
def test_a_bad_answer_stops_the_run_with_the_address(tokenizer, tmp_path, status, answer, message, tries):
    with answering(lambda path, body: (status, answer)) as (address, asked):
        with pytest.raises(FaultError, match=message) as caught:
            one(address, tokenizer, tmp_path)
        assert f"{address}/v1" in str(caught.value)
        assert len(asked) == tries


def test_an_endpoint_that_is_not_there_stops_the_run(tokenizer, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(FaultError, match=r"refused.*start the same command again"):
            one(address, tokenizer, tmp_path)


def test_a_missing_key_is_said_before_the_first_step(tokenizer, tmp_path):
    with pytest.raises(InputError, match="no NO_SUCH_KEY"):
        sampler("http://127.0.0.1:1", tokenizer, tmp_path, api_key_env="NO_SUCH_KEY")


# ------------------------------------------------------------------------------------------------------ the weights


def test_weights_are_saved_and_the_calls_made_every_so_many_steps(make_grpo, tokenizer, tmp_path):
    model = make_grpo(lambda problem, text: 0.0).model
    seen = []

    def answer(path, body):
        if path == "/load":
            seen.append(load_model(body["kwargs"]["path"]).embed_tokens.weight[0, 0].item())
        return 200, None

    with answering(answer) as (address, asked):
        calls = [{"url": f"{address}/load", "body": {"kwargs": {"path": "{folder}"}, "keep": [1]}},
                 {"url": f"{address}/forget"}]  # fmt: skip
        outside = sampler(address, tokenizer, tmp_path / "weights", renew_every_steps=2, reload=calls)
        written = []
        for step in (5, 6, 7, 8):  # a run that was resumed: the engine is told at once
            with torch.no_grad():
                model.embed_tokens.weight[0, 0] = step
            outside.renew(model, step)
            written.append(len(seen))
    assert written == [1, 1, 2, 2]
    assert seen == [5.0, 7.0]
    assert [path for path, _, _ in asked] == ["/load", "/forget"] * 2
    assert asked[0][1]["keep"] == [1]
    assert Tokenizer.load(tmp_path / "weights").encode("1+2") == tokenizer.encode("1+2")


def test_a_call_that_fails_stops_the_run(make_grpo, tokenizer, tmp_path):
    model = make_grpo(lambda problem, text: 0.0).model
    with answering(lambda path, body: (404, {"detail": "Not Found"})) as (address, _):
        outside = sampler(address, tokenizer, tmp_path, renew_every_steps=1, reload=[{"url": f"{address}/load"}])
        with pytest.raises(FaultError, match=r"/load: 404"):
            outside.renew(model, 1)


GRPO = {"method": "grpo", "name": "zero", "start_from": "base", "steps": 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": {"engine": "endpoint"}}, "needs url"),
        ({"sampler": {"engine": "endpoint", "url": "file:///x", "model": "m"}}, "sampler.url"),
        ({"sampler": {"engine": "endpoint", "url": "http://x/v1", "model": "m"}}, "renew_every_steps = 0"),
        (
            {"temperature": 0.7, "sampler": {"engine": "endpoint", "url": "http://x", "model": "m",
                                             "renew_every_steps": 0}},
            "before the temperature",
        ),
        ({"sampler": {"engine": "vllm", "ratio_cup": 2.0}}, "ratio_cap"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        parse(GRPOSettings, GRPO | settings, "recipe.toml")


def test_vllm_that_is_not_installed_is_named_with_the_other_way(tokenizer, tmp_path):
    with pytest.raises(InputError, match=r"vLLM is not installed.*engine = 'endpoint'"):
        open_sampler(SamplerSettings(engine="vllm"), tokenizer, tmp_path)


# --------------------------------------------------------------------------------------------------- the correction


def test_the_ratio_is_the_trainers_probability_over_the_samplers():
    old = torch.tensor([0.5, 0.2, 0.1, 1e-30]).log()
    sampled = torch.tensor([0.25, 0.4, math.nan, 1.0]).log()
    assert torch.allclose(sampler_ratios(old, sampled), torch.tensor([2.0, 0.5, 1.0, 0.0]))
    assert sampler_ratios(torch.tensor([0.0]), torch.tensor([-9999.0])).isfinite().all()


@pytest.fixture
def served():
    """served(folder): the address of `moreseek serve` of that folder, in this process."""
    running = []

    def start(folder):
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(build_app(served_by(LLM(folder), name="m")), log_level="error"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join()


def checksum(problem, text):
    """A reward that differs much between tokens."""
    return sum(text.encode()) % 7 / 6


@pytest.fixture
def trained_on(make_grpo, tokenizer, tmp_path, served):
    """GRPO on single tokens from a perturbed copy of the model: one update's batches, and the true gradient."""
    options = {"objective": "dr_grpo", "count": 1, "prompts_per_step": 1, "group_size": 768}
    grpo = make_grpo(checksum, max_completion_tokens=1, **options)
    head = grpo.model.head
    with torch.no_grad():
        prompt = encode_problem(tokenizer, grpo.problems[0], None, "{prompt}")
        head *= 2.5 / grpo.model(torch.tensor([prompt]))[0, -1].std()  # some twenty tokens have the probability
        before = head.clone()
        head += 0.3 * head.std() * torch.randn(head.shape, generator=torch.Generator().manual_seed(1))
        save_model(grpo.model, tmp_path / "perturbed")
        head.copy_(before)
    tokenizer.save(tmp_path / "perturbed")
    grpo.outside = grpo.collector.sampler = sampler(served(tmp_path / "perturbed"), tokenizer, tmp_path)
    [update] = list(grpo.updates(1))
    probabilities = grpo.model(torch.tensor([prompt]))[0, -1].softmax(-1)
    rewards = torch.tensor([checksum(None, message_text(tokenizer, [id])) for id in range(len(probabilities))])
    (-(probabilities * rewards).sum()).backward()
    return grpo, update, gradient(grpo)


def gradient(grpo):
    flat = torch.cat([p.grad.flatten() for p in grpo.model.parameters() if p.grad is not None])
    grpo.model.zero_grad()
    return flat


def test_the_corrected_gradient_is_closer_to_the_true_one(trained_on):
    grpo, update, true = trained_on
    found = {}
    for cap in (0.0, 5.0):
        grpo.outside.ratio_cap = cap
        sums = {}
        for batch in update:
            loss, parts = grpo.loss(batch)
            loss.backward()
            sums = {key: sums.get(key, 0.0) + value for key, value in parts.items()}
        found[cap] = gradient(grpo), sums
    error = {cap: float((estimate - true).norm() / true.norm()) for cap, (estimate, _) in found.items()}
    print(f"relative error of the gradient: {error[0.0]:.2f} as it is, {error[5.0]:.2f} corrected")
    assert error[5.0] < 0.5 * error[0.0]
    metrics = grpo.step_metrics({"loss": 0.0, **found[5.0][1]})
    assert 0.8 < metrics["sampler_ratio"] < 1.25, "its mean is 1 where sampler and trainer cover the same tokens"
    assert 0 <= metrics["sampler_capped"] < 0.2
    assert metrics["sampler_unknown"] == 0
    assert metrics["logprob_gap"] > 0.1


class OurEngineOutside:
    """Our engine in the place of another one: the same weights, so nothing is to be corrected."""

    ratio_cap = 2.0

    def __init__(self, model):
        self.engine, self.steps = Engine(model), []

    def renew(self, model, step):
        self.steps.append(step)

    def generate(self, prompts, params, seeds):
        return self.engine.generate(prompts, params, seeds)


@pytest.mark.parametrize("settings", [{}, {"minibatches": 2, "epochs": 2}])
def test_with_the_same_weights_nothing_is_corrected(make_grpo, settings):
    found = []
    for outside in (False, True):
        grpo = make_grpo(checksum, max_completion_tokens=3, **settings)
        if outside:
            grpo.outside = grpo.collector.sampler = OurEngineOutside(grpo.model)
        sums = {}
        for update in grpo.updates(4):
            for batch in update:
                loss, parts = grpo.loss(batch)
                loss.backward()
                sums = {key: sums.get(key, 0.0) + value for key, value in parts.items()}
        found.append((gradient(grpo), grpo.step_metrics({"loss": 0.0, **sums})))
    (own, _), (other, metrics) = found
    assert torch.allclose(own, other, atol=1e-6)
    assert grpo.outside.steps == [4]
    assert metrics["sampler_ratio"] == pytest.approx(1.0, abs=1e-4)
    assert metrics["sampler_capped"] == metrics["sampler_unknown"] == 0


def test_several_updates_are_held_against_the_policy_before_the_first(make_grpo):
    grpo = make_grpo(checksum, max_completion_tokens=3, minibatches=2)
    grpo.outside = grpo.collector.sampler = OurEngineOutside(grpo.model)
    updates = grpo.updates(1)
    next(updates)
    with torch.no_grad():
        grpo.model.head.mul_(1.5)  # the first update
    [batch] = next(updates)
    assert torch.allclose(batch.old_logprobs, batch.sampler_logprobs, atol=1e-4)
    logprobs, _, _ = grpo._forward(grpo.model, batch)
    assert (logprobs - batch.old_logprobs).abs().max() > 0.01
    assert grpo.loss(batch)[1]["sampler_ratio"] == pytest.approx(len(batch.targets), abs=1e-2)


def test_in_bf16_the_policy_before_the_first_update_is_that_of_the_updates(make_grpo):
    grpo = make_grpo(checksum, max_completion_tokens=3, minibatches=2)
    grpo.outside = grpo.collector.sampler = OurEngineOutside(grpo.model)
    grpo.precision = torch.bfloat16
    updates = grpo.updates(1)
    next(updates)
    [batch] = next(updates)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(batch.old_logprobs, grpo._forward(grpo.model, batch)[0])
    assert not torch.equal(batch.old_logprobs, grpo._forward(grpo.model, batch)[0])
