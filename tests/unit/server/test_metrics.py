"""/metrics: Prometheus' text format, and numbers that are those of what was asked."""

import asyncio
import json
import re
from pathlib import Path

import httpx
import pytest
from tests.unit.server.serving import served

from moreseek.server.app import build_app
from moreseek.server.metrics import Counter, Histogram

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = re.compile(r'(moreseek:\w+)\{((?:\w+="(?:[^"\\\n]|\\["\\n])*",?)*)\} (\S+)')


@pytest.fixture(scope="module")
def llm(make_llm):
    return make_llm(["hello world, how are you"] * 5, 290, 256)


def read(text):
    """{(name, labels): value}, every line checked."""
    found, kinds = {}, {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.removeprefix("# TYPE ").split(" ")
            assert name not in kinds
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            name, labels, value = SAMPLE.fullmatch(line).groups()
            family = re.sub(r"_(bucket|sum|count)$", "", name) if name not in kinds else name
            assert family in kinds
            assert (kinds[family] == "counter") == name.endswith("_total")
            assert (name, labels) not in found
            found[name, labels] = float(value)
    return found


def of(found, name, **labels):
    shown = ",".join(f'{key}="{value}"' for key, value in ({"model_name": "tiny"} | labels).items())
    return found[f"moreseek:{name}", shown]


def scraped(llm, *requests):
    async def go():
        transport = httpx.ASGITransport(build_app(served(llm)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            answers = [await http.post("/v1/completions", json=body) for body in requests]
            scrape = await http.get("/metrics")
            assert scrape.headers["content-type"].startswith("text/plain; version=0.0.4")
            return [answer.json() for answer in answers], read(scrape.text)

    return asyncio.run(go())


def test_what_was_asked_is_counted(llm):
    prompt = llm.tokenizer.encode("hello you are a world, how?" * 9)[:40]  # whole blocks, which are found again
    asked = {"model": "tiny", "prompt": prompt, "max_tokens": 7, "ignore_eos": True, "temperature": 0}
    wrong = {"model": "other", "prompt": "a"}
    answers, found = scraped(llm, asked, asked | {"n": 2}, wrong, {"model": "tiny", "prompt": [10**6]})
    assert of(found, "requests_total", status="200") == 2
    assert of(found, "requests_total", status="400") == 1
    assert of(found, "requests_total", model_name="", status="404") == 1  # a made-up name makes no series
    assert of(found, "request_success_total", finished_reason="length") == 3
    assert of(found, "generation_tokens_total") == 21
    assert of(found, "prompt_tokens_total") == 120
    cached = answers[0]["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert of(found, "prompt_tokens_cached_total") >= cached + 16
    assert of(found, "time_to_first_token_seconds_count") == 3
    assert of(found, "inter_token_latency_seconds_count") == 18
    assert of(found, "e2e_request_latency_seconds_bucket", le="+Inf") == 3
    assert of(found, "num_requests_running") == of(found, "num_requests_waiting") == 0
    blocks = llm.engine.scheduler.blocks
    assert of(found, "kv_cache_blocks_free") == blocks.count - 1
    assert of(found, "kv_cache_blocks_used") == of(found, "kv_cache_usage_perc") == 0
    assert of(found, "prefix_cache_hits_total") == llm.engine.scheduler.hits > 0
    assert of(found, "num_preemptions_total") == 0


def test_buckets_add_up_and_bounds_belong_to_theirs():
    times = Histogram("seconds", "how long", (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 3.0):
        times.observe("m", value)
    assert list(times.lines()) == [
        'moreseek:seconds_bucket{model_name="m",le="0.1"} 2',
        'moreseek:seconds_bucket{model_name="m",le="1.0"} 3',
        'moreseek:seconds_bucket{model_name="m",le="+Inf"} 4',
        'moreseek:seconds_sum{model_name="m"} 3.65',
        'moreseek:seconds_count{model_name="m"} 4',
    ]


def test_strange_names_are_escaped():
    counter = Counter("things_total", "things")
    counter.add('a"b\\c\nd')
    assert list(counter.lines()) == ['moreseek:things_total{model_name="a\\"b\\\\c\\nd"} 1']


def test_the_dashboard_asks_for_what_there_is(llm):
    dashboard = json.loads((ROOT / "examples" / "deploy" / "grafana.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(queries) >= 12
    asked = {"model": "tiny", "prompt": "hello", "max_tokens": 3, "ignore_eos": True}
    _, found = scraped(llm, asked)
    names = {name for name, _ in found}
    assert {name for query in queries for name in re.findall(r"moreseek:\w+", query)} <= names
