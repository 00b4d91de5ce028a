"""The collector rests while modules load, and only then."""

import gc
import subprocess
import sys

import pytest

from moreseek.imports import collector_at_rest


def test_it_rests_and_wakes_again():
    assert gc.isenabled()
    with collector_at_rest():
        assert not gc.isenabled()
        with collector_at_rest():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="x"), collector_at_rest():
        raise ValueError("x")
    assert gc.isenabled()


def test_who_switched_it_off_keeps_it_off():
    gc.disable()
    try:
        with collector_at_rest():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_somebody_froze_stays_frozen():
    gc.freeze()
    try:
        with collector_at_rest():
            pass
        assert gc.get_freeze_count()
    finally:
        gc.unfreeze()


def test_what_was_there_can_still_be_collected():
    code = """
import gc, weakref
class Thing: pass
thing = Thing(); thing.me = thing; seen = weakref.ref(thing)
from moreseek import LLM
assert gc.get_freeze_count() == 0 and gc.isenabled()
import moreseek; assert "LLM" in vars(moreseek)  # the next time nothing is imported
del thing; gc.collect()
assert seen() is None
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
