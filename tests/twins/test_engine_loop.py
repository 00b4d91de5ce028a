"""Requests from threads and event loops, against the plain calls."""

import asyncio
import itertools
import threading

import pytest
import torch

from moreseek.engine.engine import Engine
from moreseek.engine.loop import CLOSED, MOST_DELIVERED, EngineLoop, Post, Token
from moreseek.engine.sampling import SamplingParams
from moreseek.engine.sequence import Sequence
from moreseek.errors import FaultError, InputError

PARAMS = SamplingParams(max_tokens=30, ignore_eos=True)


@pytest.fixture
def loop(make_model):
    made = EngineLoop(Engine(make_model("v3"), frozen=True))
    yield made
    made.close()
    assert made.engine.scheduler.blocks.free == made.engine.scheduler.blocks.count - 1


def prompts(count):
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(89, (1 + i % 13,), generator=generator).tolist() for i in range(count)]


def alone(loop, prompt, seed):
    return Engine(loop.engine.model).generate([prompt], PARAMS, [seed])[0].token_ids


def test_streams_of_many_threads_are_those_of_each_alone(loop):
    found = {}

    def read(index, prompt):
        found[index] = [item.id for item in loop.stream(prompt, PARAMS, index) if isinstance(item, Token)]

    threads = [threading.Thread(target=read, args=item) for item in enumerate(prompts(24))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {index: alone(loop, prompt, index) for index, prompt in enumerate(prompts(24))}


def test_streams_of_one_event_loop_are_those_of_each_alone(loop):
    async def read(index, prompt):
        items = [item async for item in loop.astream(prompt, PARAMS, index)]
        assert isinstance(items[-1], Sequence)
        assert items[-1].finish_reason == "length"
        return [item.id for item in items[:-1]]

    async def all_of_them():
        return await asyncio.gather(*(read(*item) for item in enumerate(prompts(24))))

    assert asyncio.run(all_of_them()) == [alone(loop, prompt, index) for index, prompt in enumerate(prompts(24))]


def test_a_reader_who_leaves_frees_his_blocks(loop):
    for item in loop.stream([1, 2, 3], SamplingParams(max_tokens=200, ignore_eos=True)):
        assert isinstance(item, Token)
        break

    async def cancelled():
        async def read():
            async for _ in loop.astream([1, 2, 3], SamplingParams(max_tokens=200, ignore_eos=True)):
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancelled())
    assert len([*loop.stream([1], SamplingParams(max_tokens=1))]) == 2  # the loop has seen both by now
    assert not loop.engine.scheduler.busy


def test_what_cannot_run_is_refused_in_the_caller_s_thread(loop):
    with pytest.raises(InputError, match="empty"):
        next(loop.stream([], PARAMS))
    assert len([*loop.stream([1], PARAMS)]) == 31


def test_a_failing_step_reaches_its_readers_and_no_later_one(loop, monkeypatch):
    good = [*loop.stream([1, 2], PARAMS)]
    with monkeypatch.context() as patch:
        patch.setattr(loop.engine.runner, "logits", lambda step: 1 / 0)
        with pytest.raises(FaultError, match="ZeroDivisionError"):
            list(loop.stream([1, 2], PARAMS))
    assert loop.failures == 1
    assert [*loop.stream([1, 2], PARAMS)][:-1] == good[:-1]


def test_a_closed_loop_ends_its_requests_and_takes_no_more(make_model):
    loop = EngineLoop(Engine(make_model("llama"), frozen=True))
    ended = []
    loop.submit([1, 2], SamplingParams(max_tokens=250, ignore_eos=True), 0, None, ended.append)
    loop.close()
    assert [(sequence.finish_reason, sequence.fault) for sequence in ended] == [("abort", CLOSED)]
    with pytest.raises(FaultError, match="closed"):
        loop.submit([1, 2], PARAMS, 0, None, ended.append)


def test_an_event_loop_looks_at_its_sockets_between_the_readers_of_one_step():
    """A step brings a token to each of many readers; who asks for something else waits for a few of them only."""

    async def main():
        events, reads, seen = asyncio.get_running_loop(), [], []
        queues = [asyncio.Queue() for _ in range(5 * MOST_DELIVERED + 1)]

        async def read(number, queue):
            while True:
                reads.append((number, await queue.get()))

        tasks = [asyncio.create_task(read(number, queue)) for number, queue in enumerate(queues)]
        await asyncio.sleep(0)
        post = Post(events)

        def step():
            for token in range(2):
                for queue in queues:
                    post.put(queue, token)

        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
        while not seen or seen[-1] < 2 * len(queues):
            seen.append(len(reads))
            await asyncio.sleep(0)
        assert sorted(reads) == sorted((number, token) for number in range(len(queues)) for token in range(2))
        assert max(later - earlier for earlier, later in itertools.pairwise(seen)) <= MOST_DELIVERED
        for task in tasks:
            task.cancel()

    asyncio.run(asyncio.wait_for(main(), 10))
