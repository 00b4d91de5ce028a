"""The queue before the engine: bounded, and fair between keys."""

import asyncio

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.server.serving import served

from moreseek.server.app import build_app
from moreseek.server.errors import RefusedError
from moreseek.server.turns import FairQueue


def admitted(turns):
    return [turn.admitted.is_set() for turn in turns]


def test_a_flood_of_one_key_delays_another_by_one_completion_only():
    queue = FairQueue(places=2, most_waiting=100)
    flood = [queue.join(0, 1) for _ in range(50)]
    other = queue.join(1, 1)
    third = queue.join(2, 1)
    flood[0].leave()  # the flooding key was first in the round, and then the others are
    assert admitted([flood[2], other, third]) == [True, False, False]
    flood[1].leave()
    assert admitted([flood[3], other, third]) == [False, True, False]
    flood[2].leave()
    assert admitted([flood[3], other, third]) == [False, True, True]


def test_keys_with_many_requests_get_the_same_share():
    queue, order = FairQueue(places=1, most_waiting=100), []
    last = queue.join(9, 1)
    turns = [(key, queue.join(key, 1)) for key in (0, 1, 2) for _ in range(5)]
    for _ in range(9):
        last.leave()
        [(key, last)] = [(key, turn) for key, turn in turns if turn.admitted.is_set()]
        turns.remove((key, last))
        order.append(key)
    assert order == [0, 1, 2] * 3


def test_who_has_one_key_comes_in_order():
    queue = FairQueue(places=1, most_waiting=10)
    turns = [queue.join(0, 1) for _ in range(5)]
    for place, turn in enumerate(turns):
        assert admitted(turns) == [at <= place for at in range(5)]
        turn.leave()
    assert (queue.running, queue.waiting) == (0, 0)


def test_many_completions_wait_until_all_of_them_fit_and_are_not_overtaken():
    queue = FairQueue(places=4, most_waiting=10)
    one, many, late = queue.join(0, 3), queue.join(1, 100), queue.join(2, 1)
    assert many.count == 4
    assert admitted([one, many, late]) == [True, False, False]
    one.leave()
    assert admitted([many, late]) == [True, False]


def test_a_full_queue_refuses_and_says_when_to_come_back():
    queue = FairQueue(places=1, most_waiting=2)
    turns = [queue.join(0, 1) for _ in range(3)]
    with pytest.raises(RefusedError, match="come back") as refused:
        queue.join(1, 1)
    assert (refused.value.status, refused.value.retry_s) == (429, 2)
    turns[1].leave()  # gives up waiting
    queue.join(1, 1)


def test_waiting_ends_when_room_is_made():
    async def go():
        queue = FairQueue(places=1, most_waiting=1)
        first, second = queue.join(0, 1), queue.join(0, 1)
        waiting = asyncio.create_task(second.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        first.leave()
        await waiting

    asyncio.run(go())


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(0, 30)), max_size=40))
def test_nothing_is_lost_whoever_comes_and_goes(steps):
    queue, turns = FairQueue(places=4, most_waiting=5), []
    for key, count, leaver in steps:
        try:
            turns.append(queue.join(key, count))
        except RefusedError:
            assert queue.waiting == 5
        if leaver < len(turns):
            turns.pop(leaver).leave()
        assert queue.running == sum(turn.count for turn in turns if turn.admitted.is_set()) <= 4
        assert queue.waiting == sum(not turn.admitted.is_set() for turn in turns)
        assert queue.running or not queue.waiting
    for turn in turns:
        turn.leave()
        turn.leave()
    assert (queue.running, queue.waiting, len(queue._keys)) == (0, 0, 0)


def test_the_requests_of_a_flooding_key_do_not_starve_another(make_llm):
    llm = make_llm(["hello world, how are you"] * 5, 290, 256)
    state, ended = served(llm, running=1, queue=40, keys=("flood", "other")), []
    queue = state.models.first.queue

    async def ask(http, key, **more):
        body = {"model": "tiny", "prompt": "hello", "max_tokens": 20, "ignore_eos": True} | more
        answer = await http.post("/v1/completions", json=body, headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == 200
        ended.append(key)

    async def go():
        transport = httpx.ASGITransport(build_app(state))
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as http:
            busy = queue.join(0, 1)
            asked = [asyncio.create_task(ask(http, "flood", stream=number % 2 == 0)) for number in range(20)]
            while queue.waiting < 20:
                await asyncio.sleep(0)
            asked += [asyncio.create_task(ask(http, "other", stream=number == 0)) for number in range(2)]
            while queue.waiting < 22:
                await asyncio.sleep(0)
            busy.leave()
            await asyncio.gather(*asked)

    asyncio.run(go())
    assert ended == ["flood", "other", "flood", "other", *["flood"] * 18]
    assert (queue.running, queue.waiting) == (0, 0)
