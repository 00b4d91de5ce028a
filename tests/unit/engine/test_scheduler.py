"""Scheduler and blocks against a model that is a hash of the text as it finds it in its cache: whoever reads a block
that is not his, or not yet written, goes another way than his single-request twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moreseek.engine.block_manager import BlockManager
from moreseek.engine.sampling import SamplingParams
from moreseek.engine.scheduler import Scheduler, Step
from moreseek.engine.sequence import Sequence
from moreseek.errors import InputError

VOCABULARY, STOP, SIZE, UNWRITTEN = 11, 0, 4, 99


class HashModel:
    """A cache that holds the tokens themselves, and a next token that depends on every one of them."""

    def __init__(self, blocks: int) -> None:
        self.cache = np.full((blocks, SIZE), UNWRITTEN)
        self.computed = 0
        self.at_once = 0  # calls of several steps that made more than one

    def __call__(self, step: Step) -> np.ndarray:
        ends = step.start + step.count
        for row in range(len(step.count)):
            for place in range(int(step.start[row]), int(ends[row])):
                token = step.ids[step.first[row] + place - step.start[row]]
                self.cache[step.table[row, place // SIZE], place % SIZE] = token
        self.computed += len(step.ids)
        ends_at = {int(step.first[row] + step.count[row]) - 1: row for row in np.flatnonzero(step.count)}
        chosen = []
        for output in step.output.tolist():  # of a follower, its leader's last token
            row = ends_at[output]
            blocks = step.table[row, : -(-int(ends[row]) // SIZE)]
            chosen.append(next_token(self.cache[blocks].ravel()[: int(ends[row])].tolist()))
        for source, target in step.copies:
            self.cache[target] = self.cache[source]
        return np.array(chosen, np.int64)

    def several(self, scheduler: Scheduler, most: int) -> int:
        """As native/csrc/multi_step.cpp: tokens behind those known, step by step, until a row ends."""
        n = len(scheduler.running)
        for made in range(most):
            ends = False
            for row in range(n):
                known = int(scheduler.known[row]) + made
                table = scheduler.table[row]
                self.cache[table[(known - 1) // SIZE], (known - 1) % SIZE] = scheduler.tokens[row, known - 1]
                token = next_token(self.cache[table[: -(-known // SIZE)]].ravel()[:known].tolist())
                scheduler.tokens[row, known] = token
                ends |= token == STOP or known + 1 >= scheduler.limit[row]
            self.computed += n
            if ends:
                break
        self.at_once += made > 0
        return made + 1


def next_token(text):
    assert UNWRITTEN not in text
    value = 7
    for token in text:
        value = (value * 31 + token + 1) % 10007
    return value % VOCABULARY


def alone(prompt, params):
    text = list(prompt)
    while len(text) < len(prompt) + params.max_tokens:
        text.append(next_token(text))
        if text[-1] == STOP:
            return text[len(prompt) :], "stop"
    return text[len(prompt) :], "length"


def request(prompt, max_tokens, arrival=0):
    return Sequence(tuple(prompt), SamplingParams(max_tokens=max_tokens), seed=0, stops=(STOP,), arrival=arrival)


def step_once(scheduler, model, random=None):
    """A step; with ``random`` several where they can be, of which some are not made, as when time is up."""
    if random is not None and (most := scheduler.several()) > 1:
        free = scheduler.blocks.free
        step, cut = scheduler.catch_up(model.several(scheduler, int(random.integers(1, most + 1))))
        assert scheduler.blocks.free == free
        rows = step.output_rows
        at = scheduler.known[rows]
        return scheduler.commit(step, scheduler.tokens[rows, at], np.zeros(len(rows), np.float32), cut=cut)[0]
    step = scheduler.schedule()
    if step is None:
        return []
    assert len(step.ids) <= scheduler.budget
    return scheduler.commit(step, model(step), np.zeros(len(step.output), np.float32))[0]


class Listener:
    """Has enough after so many tokens."""

    def __init__(self, enough: int) -> None:
        self.enough, self.tokens = enough, []

    def hear(self, token: int, logprob: float) -> bool:
        self.tokens.append(token)
        return len(self.tokens) >= self.enough


def check(sequence):
    """It is what its single-request twin is, or where it was aborted the beginning of that."""
    tokens, reason = alone(sequence.prompt, sequence.params)
    if sequence.finish_reason == "abort":
        assert sequence.output == tokens[: len(sequence.output)]
    elif sequence.on_token is not None:
        heard = sequence.on_token.__self__
        assert heard.tokens == sequence.output == tokens[: heard.enough], "it hears each token once, and no more"
    else:
        assert (sequence.output, sequence.finish_reason) == (tokens, reason)


def run_randomly(seed, requests, rows, blocks, budget, context, abort_share, crowd=10**6):
    """Requests come, run and are dropped at random; some prompts are equal, some continue others. None comes while
    ``crowd`` are there.
    """
    random = np.random.default_rng(seed)
    scheduler, model = Scheduler(BlockManager(blocks, SIZE), rows, context, budget), HashModel(blocks)
    alive, ended, seen = [], [], [[1, 2, 3]]
    made = 0
    while made < requests or scheduler.busy:
        come = made < requests and len(alive) < crowd
        for _ in range(int(random.integers(0, min(6, crowd + 1))) if come else 0):
            most = min(context, (blocks - 1) * SIZE) - 1
            prompt = list(seen[random.integers(len(seen))]) if random.random() < 0.6 else []
            prompt = (prompt + random.integers(1, VOCABULARY, random.integers(0, 9)).tolist())[:most] or [5]
            sequence = request(prompt, int(random.integers(1, min(30, most - len(prompt) + 2))), made)
            if random.random() < 0.2:
                sequence.on_token = Listener(int(random.integers(1, 20))).hear
            scheduler.add(sequence)
            alive.append(sequence)
            seen = [*seen[-8:], prompt, list(sequence.prompt) + alone(prompt, sequence.params)[0]]
            made += 1
        if alive and random.random() < abort_share:
            scheduler.abort(alive[random.integers(len(alive))])
        step_once(scheduler, model, random)
        ended += [sequence for sequence in alive if sequence.finish_reason]
        alive = [sequence for sequence in alive if not sequence.finish_reason]
    for sequence in ended:
        check(sequence)
    assert len(ended) == made
    assert scheduler.blocks.free == blocks - 1
    return scheduler, ended, model


SHAPES = {
    "roomy": (64, 2000, 256, 120),
    "few-blocks": (16, 40, 64, 120),
    "one-row": (1, 60, 16, 120),
    "small-chunks": (8, 200, 8, 120),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_ten_thousand_requests_and_random_aborts_leak_no_block_and_change_no_token(shape):
    scheduler, ended, _ = run_randomly(3, 2500, *shape, abort_share=0.15)
    assert sum(sequence.finish_reason == "abort" for sequence in ended) > 50
    assert scheduler.hits > 0
    if shape == SHAPES["few-blocks"]:
        assert scheduler.preemptions > 100


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 9),
    blocks=st.integers(4, 50),
    budget=st.integers(1, 40),
    context=st.integers(4, 90),
    abort_share=st.sampled_from([0.0, 0.3, 0.9]),
    crowd=st.sampled_from([1, 3, 10**6]),
)
def test_any_shape_serves_every_request_as_its_twin(seed, rows, blocks, budget, context, abort_share, crowd):
    run_randomly(seed, 60, rows, blocks, budget, context, abort_share, crowd)


@pytest.mark.parametrize("crowd", [1, 2, 4])
def test_a_few_rows_make_several_steps_at_once_and_every_request_is_its_twin(crowd):
    _, ended, model = run_randomly(5, 600, *SHAPES["roomy"], abort_share=0.05, crowd=crowd)
    assert model.at_once > 50
    assert sum(sequence.on_token is not None and sequence.finish_reason == "stop" for sequence in ended) > 50


def test_a_group_reads_its_prompt_once():
    scheduler, model = Scheduler(BlockManager(400, SIZE), 16, 200, 512), HashModel(400)
    group = [request([3, 1, 4, 1, 5, 9, 2, 6, 5, 3], 5, i) for i in range(16)]
    for sequence in group:
        scheduler.add(sequence)
    step_once(scheduler, model)
    assert model.computed == 10
    assert len(scheduler.running) + sum(s.finish_reason is not None for s in group) == 16


def test_a_conversation_s_next_turn_reads_only_what_is_new():
    scheduler, model = Scheduler(BlockManager(400, SIZE), 4, 200, 512), HashModel(400)
    first = request(range(1, 10), 8)
    scheduler.add(first)
    while scheduler.busy:
        step_once(scheduler, model)
    text = [*first.prompt, *first.output, 7, 7, 7]
    before, second = model.computed, request(text, 1)
    scheduler.add(second)
    while scheduler.busy:
        step_once(scheduler, model)
    written = len(first.prompt) + len(first.output) - 1  # the last token of an answer is never computed
    assert second.reused == written // SIZE * SIZE
    assert model.computed - before == len(text) - second.reused
    check(second)


def test_what_a_request_left_itself_before_it_made_room_is_no_saving_of_its_prompt():
    for blocks in range(14, 40, 2):
        room = (blocks - 1) * SIZE
        scheduler, model = Scheduler(BlockManager(blocks, SIZE), 8, room), HashModel(blocks)
        old = request([1, *[2] * (room // 2)], room // 2 - room // 8, 0)
        young = request([3, 4, 5], room - 3 - SIZE, 1)
        for sequence in (old, young):
            scheduler.add(sequence)
        while scheduler.busy:
            step_once(scheduler, model)
        assert young.reused <= len(young.prompt)
        assert scheduler.queries == len(old.prompt) + len(young.prompt)
        assert scheduler.hits == 0


def test_changed_weights_reuse_nothing():
    blocks = BlockManager(400, SIZE)
    scheduler, model = Scheduler(blocks, 4, 200, 512), HashModel(400)
    for turn in range(2):
        sequence = request(range(1, 10), 1)
        scheduler.add(sequence)
        step_once(scheduler, model)
        assert sequence.reused == 0, turn
        blocks.forget()


def test_the_oldest_go_on_when_blocks_run_out():
    scheduler, model = Scheduler(BlockManager(12, SIZE, reuse=False), 8, 200, 64), HashModel(12)
    old, young = (Sequence((5, i), SamplingParams(max_tokens=38), seed=0, arrival=i) for i in (1, 2))
    scheduler.add(old)
    scheduler.add(young)
    order = []
    while scheduler.busy:
        order += step_once(scheduler, model)
    assert order == [old, young]
    assert scheduler.preemptions == 1


def test_long_prompts_are_read_in_chunks_beside_those_who_decode():
    scheduler, model = Scheduler(BlockManager(400, SIZE), 4, 400, 8), HashModel(400)
    talker = Sequence((1, 2), SamplingParams(max_tokens=60), seed=0)
    scheduler.add(talker)
    step_once(scheduler, model)
    scheduler.add(request([1 + i % 9 for i in range(100)], 3, 1))
    for turn in range(10):
        known = int(scheduler.known[talker.row])
        step_once(scheduler, model)
        assert int(scheduler.known[talker.row]) == known + 1, turn


@pytest.mark.parametrize(
    ("prompt", "most", "message"), [([], 4, "empty"), ([1] * 30, 11, "30 tokens; with max_tokens 11 .* 40")]
)
def test_what_could_never_run_is_refused(prompt, most, message):
    with pytest.raises(InputError, match=message):
        Scheduler(BlockManager(11, SIZE), 4, 200).add(request(prompt, most))


def test_uniforms_come_from_the_seed_alone():
    one, other = request([1], 500), request([2, 3], 500)
    straight = np.concatenate([one.uniforms(piece) for piece in range(5)])
    assert (other.uniforms(3) == straight[3 * 64 : 4 * 64]).all()
    assert (other.uniforms(1) == straight[64 : 2 * 64]).all()  # a preempted request goes back
    assert len(set(straight)) == len(straight)
