"""Nonsense is refused with this package's errors (`benchmarks/fuzz.py`), and what it found stays mended."""

import dataclasses

import numpy as np
import pytest
from helpers import benchmark

from reinforcegen_envs.engine.snapshot import SnapshotError
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.files import as_path
from reinforcegen_envs.registration import make_env

ARRAY = np.arange(7)


@pytest.fixture(scope="module")
def fuzz():
    """The script, as a module."""
    return benchmark("fuzz")


def test_nonsense_is_refused(fuzz, tmp_path):
    inputs = fuzz.Fuzz(tmp_path)
    outcomes = {number: fuzz.feed(inputs, 1, number) for number in range(240)}
    assert {number: o for number, o in outcomes.items() if o[1] not in ("accepted", "refused")} == {}
    assert {kind for kind, outcome in outcomes.values() if outcome == "refused"} == set(inputs.kinds())


def test_a_defect_would_be_seen(fuzz, tmp_path, monkeypatch):
    inputs = fuzz.Fuzz(tmp_path)
    monkeypatch.setattr(inputs, "kinds", lambda: {"broken": lambda rng: {}["key"]})
    assert fuzz.feed(inputs, 0, 0) == ("broken", "KeyError: 'key'")


@pytest.mark.parametrize(
    ("mode", "kwargs"),
    [
        (None, {"obs_mode": ARRAY}),
        (None, {"controller": ARRAY}),
        (None, {"camera": ARRAY}),
        (None, {"perception": len}),
        ("Hybrid", {"termination": ARRAY}),
        ("Hybrid", {"replan": ARRAY}),
        ("Hybrid", {"weights": 3.0}),
        ("Hybrid", {"weights": "x" * 1000}),
        ("Skill", {"stage": ARRAY}),
        ("Skill", {"earlier_pool": 3.0}),
        ("Skill", {"foresight": "x" * 1000}),
    ],
)
def test_arguments_that_cannot_be_compared_or_are_no_paths(mode, kwargs):
    with pytest.raises(InvalidArgument, match=next(iter(kwargs)).removeprefix("earlier_")):
        make_env("Threading", "D1", mode, **kwargs)


@pytest.mark.parametrize("options", [ARRAY, 3.0, 0, "layout"])
def test_options_that_are_no_dictionary(options):
    env = make_env("Threading", "D1")
    with pytest.raises(InvalidArgument, match="reset options .* must be a dictionary"):
        env.reset(seed=0, options=options)


@pytest.mark.parametrize("name", ["verdict", "parts", "format", "task", "perception", "simulation", "rng"])
def test_snapshots_with_an_entry_of_another_kind(name):
    env = make_env("Threading", "D1")
    env.reset(seed=0)
    state = env.get_wrapper_attr("get_state")()
    with pytest.raises(SnapshotError):
        env.get_wrapper_attr("set_state")(dataclasses.replace(state, **{name: ARRAY}))
    np.testing.assert_array_equal(env.get_wrapper_attr("get_state")().simulation, state.simulation)


@pytest.mark.parametrize("given", [None, 3, b"bytes", "nul\0", "x" * 1000])
def test_what_is_no_path(given):
    with pytest.raises(InvalidArgument, match="^pool .*(not a path|cannot be looked at)"):
        as_path(given, "pool")
