"""What `benchmarks/soak.py` would notice."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
from helpers import benchmark


@pytest.fixture(scope="module")
def soak():
    """The script, as a module."""
    return benchmark("soak")


class Ill(gym.ObservationWrapper):
    """Sees NaN after a while."""

    seen = 0

    def observation(self, observation):
        self.seen += 1
        return np.full_like(observation, np.nan) if self.seen > 20 else observation


def test_what_is_not_finite_ends_it(soak):
    one = soak.Soak(soak.Args(), "Threading", 0)
    one._plain = Ill(one._plain)
    with pytest.raises(FloatingPointError, match="Threading.*observation"):
        one._episode(one._plain, 100)


def test_an_episode_that_changed_is_counted(soak, monkeypatch):
    args = dataclasses.replace(soak.Args(), steps=8, threads=2)
    digests = iter(["a", "a", "a", "b"])
    monkeypatch.setattr(soak.Soak, "same", lambda _: next(digests))
    monkeypatch.setattr(soak.Soak, "_episode", lambda *_: 4)
    steps, memory, files, changed = soak.soak(args, "Square")
    assert steps.value == 8 and steps.met and changed.value == 1 and not changed.met
    assert memory.unit == "MB" and files.met


def test_the_same_episode_is_the_same_after_others(soak):
    one = soak.Soak(soak.Args(), "Square", 1)
    first = one.same()
    one._episode(one._residual, 40)
    one._episode(one._plain, 40)
    assert one.same() == first
