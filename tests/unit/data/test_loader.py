import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moreseek.data.loader import IGNORE, PADDING, PackedLoader
from moreseek.data.shards import write_shards
from moreseek.errors import InputError


def make_shards(folder, lengths, shard_tokens=50):
    """Document i holds i*100, i*100+1, …: every token names its document and place."""
    documents = [[i * 100 + k for k in range(length)] for i, length in enumerate(lengths)]
    return write_shards(folder, documents, 60_000, "t", shard_tokens=shard_tokens)


@pytest.fixture
def shards(tmp_path):
    return make_shards(tmp_path / "s", [3, 7, 1, 12, 40, 5, 5, 9, 2, 16] * 3)


def same(a, b):
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("input_ids", "targets", "document_ids"))


def read_epochs(loader, tokens, epochs):
    """Batches until ``epochs`` epochs of tokens have come."""
    batches, seen = [], 0
    while seen < tokens * epochs:
        batches.append(loader.next_batch())
        seen += batches[-1].tokens
    return batches


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(2, 17), st.integers(1, 3))
def test_every_token_comes_once_an_epoch_and_targets_are_the_next_token_of_the_document(
    tmp_path_factory, lengths, sequence_length, batch_size
):
    shards = make_shards(tmp_path_factory.mktemp("x") / "s", lengths)
    loader = PackedLoader(shards, sequence_length, batch_size, seed=1)
    counts = Counter()
    for _ in range(3 + 4 * shards.tokens // (sequence_length * batch_size)):
        batch = loader.next_batch()
        assert batch.input_ids.shape == (batch_size, sequence_length)
        for ids, targets, documents in zip(batch.input_ids, batch.targets, batch.document_ids, strict=True):
            for t, (id, target, document) in enumerate(zip(ids, targets, documents, strict=True)):
                if document == PADDING:
                    assert (id, target) == (0, IGNORE)
                    continue
                counts[int(id)] += 1
                last = id % 100 == lengths[id // 100] - 1
                assert target == (IGNORE if last else id + 1)
                if t + 1 < sequence_length and documents[t + 1] == document:
                    assert ids[t + 1] == target
    state = loader.state_dict()
    for shard, document, start, length in itertools.chain.from_iterable(state["open"] + state["ready"]):
        counts.update(shards.document(shard, document)[start : start + length].tolist())
    assert set(counts.values()) <= {loader.epoch, loader.epoch + 1}
    assert len(counts) == shards.tokens or not loader.epoch
    assert len(state["open"]) <= max(1, shards.tokens // (8 * sequence_length))


def test_short_documents_are_never_cut(shards):
    loader = PackedLoader(shards, 16, 4, seed=1)
    for batch in read_epochs(loader, shards.tokens, 2):
        for ids, documents in zip(batch.input_ids, batch.document_ids, strict=True):
            for document in range(documents.max() + 1):
                piece = ids[documents == document]
                assert len(piece) == 16 or piece[0] % 100 in (0, 16, 32)


def test_padding_is_little(tmp_path):
    draw = np.random.default_rng(1)
    loader = PackedLoader(make_shards(tmp_path / "s", draw.integers(10, 40, 500).tolist(), 10**6), 128, 8, seed=1)
    used = [loader.next_batch().tokens / (8 * 128) for _ in range(20)]
    assert np.mean(used) > 0.95


def test_the_order_follows_from_the_seed_and_changes_with_the_epoch(shards):
    first, again, other = (PackedLoader(shards, 32, 2, seed=seed) for seed in (1, 1, 2))
    batches = [first.next_batch() for _ in range(30)]
    assert all(same(batch, again.next_batch()) for batch in batches)
    assert not all(same(batch, other.next_batch()) for batch in batches)
    assert first.epoch > 1
    assert not any(same(batches[0], batch) for batch in batches[1:])


@pytest.mark.parametrize("sequence_length", [8, 32])
def test_resume_continues_exactly_at_every_place_also_at_an_epochs_end(shards, sequence_length):
    whole = PackedLoader(shards, sequence_length, 2, seed=1)
    states, batches = [], []
    for _ in range(40):
        states.append(json.dumps(whole.state_dict()))
        batches.append(whole.next_batch())
    assert whole.epoch >= 1
    for place, state in enumerate(states):
        resumed = PackedLoader(shards, sequence_length, 2, seed=1)
        resumed.load_state_dict(json.loads(state))
        assert all(same(batch, resumed.next_batch()) for batch in batches[place : place + 10])


def test_ranks_read_disjoint_sequences_that_make_up_the_whole(shards):
    whole = PackedLoader(shards, 16, 4, seed=1)
    ranks = [PackedLoader(shards, 16, 2, seed=1, rank=rank, world_size=2) for rank in (0, 1)]
    for _ in range(20):
        batch = whole.next_batch()
        parts = [rank.next_batch() for rank in ranks]
        assert np.array_equal(batch.input_ids[0::2], parts[0].input_ids)
        assert np.array_equal(batch.input_ids[1::2], parts[1].input_ids)
    assert ranks[0].state_dict() == ranks[1].state_dict()


def test_a_state_of_other_data_is_refused(shards, tmp_path):
    state = PackedLoader(shards, 16, 2, seed=1).state_dict()
    with pytest.raises(InputError, match="another seed"):
        PackedLoader(shards, 16, 2, seed=2).load_state_dict(state)
    with pytest.raises(InputError, match="another data"):
        PackedLoader(make_shards(tmp_path / "o", [4]), 16, 2, seed=1).load_state_dict(state)


@pytest.mark.parametrize("sizes", [(1, 2), (16, 0)])
def test_impossible_sizes_are_refused(shards, sizes):
    with pytest.raises(InputError, match="sequence_length"):
        PackedLoader(shards, *sizes, seed=1)
