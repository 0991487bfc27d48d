"""The contract of all tasks, one brought along from outside the package included: what it is declared to do, it does."""

import dataclasses
import importlib
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from helpers import play, registrations_undone, visit

from reinforcegen_envs.demos.collect import Args, collect
from reinforcegen_envs.demos.hdf5 import read_attrs, read_demos
from reinforcegen_envs.demos.replay import replay, restore_first_state
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.engine.judge import STAGE_STEPS
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.registration import load_task_module
from reinforcegen_envs.tasks import PACKAGE_TASKS, TASKS, Task
from reinforcegen_envs.tasks.contract import check_task

ROOT = Path(__file__).parents[1]
OWN = "Stack"  # of examples/own_task.py
NAMES = [*(task.name for task in PACKAGE_TASKS), OWN]
LAYOUTS = 300  # drawn of every variant
NEAR_GOAL = 400  # states


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Task name -> file of source demonstrations; the outside task is registered, and its demonstrations collected."""
    with registrations_undone():
        load_task_module(ROOT / "examples" / "own_task.py")
        path = tmp_path_factory.mktemp("sources") / "own.hdf5"
        collect(Args(task=OWN, count=3, out=path))
        yield {name: path if name == OWN else source_file(name) for name in NAMES}


@pytest.fixture(scope="module", params=NAMES)
def name(request, sources):
    return request.param


@pytest.fixture(scope="module")
def env(name):
    return ManipulationEnv(name, "D0")


@pytest.fixture(scope="module")
def demos(name, sources):
    return read_demos(sources[name], name)


@pytest.fixture(scope="module")
def visited(env, demos):
    return visit(env, demos[0])


@pytest.fixture(scope="module")
def benchmark():
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module("strict_implies_reference")
    sys.path.remove(folder)


# --- declarations and resets ---


def test_it_is_declared_as_tasks_must_be(name):
    check_task(TASKS[name])


def test_layouts_are_in_range_and_nothing_overlaps(env):
    """Of every object that is placed on the table by the common rule; `test_resets` holds the package's to the fact sheet."""
    task = env.task
    common = type(task).sample_layout is Task.sample_layout
    for variant, places in task.variants.items():
        rng = np.random.default_rng(0)
        layouts = [task.sample_layout(variant, rng) for _ in range(LAYOUTS)]
        for layout in layouts:
            assert set(layout) == set(task.objects)
            for name, place in places.items():
                pose7, height = layout[name], task.scene.table_height + task.shapes[name].height
                np.testing.assert_allclose(np.linalg.norm(pose7[3:]), 1.0)
                if pose7[2] != pytest.approx(height):
                    assert not common  # it lies in another object
                    continue
                assert place.x[0] - 1e-9 <= pose7[0] <= place.x[1] + 1e-9
                assert place.y[0] - 1e-9 <= pose7[1] <= place.y[1] + 1e-9
                yaw, middle = 2 * np.arctan2(pose7[6], pose7[3]), np.mean(place.yaw)
                away = (yaw - middle + np.pi) % (2 * np.pi) - np.pi
                assert abs(away) <= (place.yaw[1] - place.yaw[0]) / 2 + 1e-9
            if common:
                for one, other in combinations(task.objects, 2):
                    apart = np.hypot(*(layout[one] - layout[other])[:2])
                    assert apart > task.shapes[one].radius + task.shapes[other].radius


def test_reset_puts_objects_where_the_layout_says(name, monkeypatch):
    for variant in TASKS[name].variants:
        env = ManipulationEnv(name, variant)
        layouts = []
        sample = env.task.sample_layout
        monkeypatch.setattr(env.task, "sample_layout", lambda *a: layouts.append(sample(*a)) or layouts[-1])  # noqa: B023
        for seed in range(5):
            env.reset(seed=seed)
            poses = env.object_poses()
            assert set(poses) == set(layouts[-1])
            for thing, pose7 in layouts[-1].items():
                sign = np.sign(poses[thing][3:] @ pose7[3:])
                np.testing.assert_allclose(poses[thing], [*pose7[:3], *(sign * pose7[3:])], atol=1e-9, err_msg=thing)
            for joint, value in env.task.joints.items():
                assert env.data.joint(joint).qpos[0] == value
            assert not env.data.qvel.any()
            assert env.task.failure(env.sim, 0) == "" and not env.engine.judge.success
        assert len(layouts) == 5


# --- source demonstrations ---


def test_source_demonstrations_replay_from_file(env, demos, name):
    assert len(demos) == (3 if name == OWN else 10)
    assert [replay(env, demo) for demo in demos] == [True] * len(demos)


def test_a_replay_is_the_same_every_time(env, demos, name):
    """Bit for bit, in another environment too; and it stays where the demonstration went, which was rounded for the file."""
    demo = demos[0]
    traces = []
    for player in (env, ManipulationEnv(name, "D0")):
        restore_first_state(player, demo)
        traces.append([player.data.qpos.copy()])
        for action in demo.actions.astype(np.float32):
            player.step(action)
            traces[-1].append(player.data.qpos.copy())
    np.testing.assert_array_equal(*traces)


def test_a_recipe_is_its_seed_s_alone(name):
    task = TASKS[name]
    one, other, another = (task.recipe(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert [k.stage for k in one] == sorted(k.stage for k in one)
    assert {k.stage for k in one if k.skill} == set(range(len(task.stages)))
    assert {k.frame for k in one} <= set(task.objects) and {k.tool for k in one} <= {"eef", *task.objects}
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first.pose, second.pose)
        assert dataclasses.replace(first, pose=second.pose) == second
    assert any((a.pose != b.pose).any() for a, b in zip(one, another, strict=False))


def test_files_name_the_task_and_its_objects(sources, demos, name):
    assert f"-{name}-" in read_attrs(sources[name])["env_args"]["env_name"]
    for demo in demos:
        assert set(demo.object_poses) == set(TASKS[name].objects)
        assert set(demo.subtask_term_signals) == {stage.signal for stage in TASKS[name].stages if stage.signal}


# --- stages, success, and what may be trusted ---


def test_stages_come_one_after_the_other_without_a_failure(visited, name):
    stages = [moment.stage for moment in visited]
    assert stages == sorted(stages) and set(stages) == set(range(len(TASKS[name].stages)))
    assert not any(moment.failure for moment in visited)
    assert sum(moment.reward for moment in visited) == pytest.approx(1.0)


def test_a_stage_ends_when_it_has_looked_finished_for_some_steps(visited, name):
    for index in range(len(TASKS[name].stages) - 1):
        first = next(i for i, moment in enumerate(visited) if moment.stage == index + 1)
        # The last of these steps is the one that entered the next stage.
        assert all(moment.done[index] for moment in visited[first - STAGE_STEPS + 1 : first + 1])
        assert not visited[first - STAGE_STEPS].done[index]


def test_success_needs_the_last_stage(env, visited):
    env.set_state(visited[-1].state)
    env.engine.enter_stage(0)
    # Long enough for strict success; Threading's needle is still in the hand, which after some more steps ends stage 0 anew.
    assert play(env, env.task.success_steps) == (False, True)
    env.set_state(visited[-1].state)
    assert env.engine.judge.success


def test_snapshots_replay_exactly_at_every_stage(env, visited, demos, name):
    """From the middle of every stage on, in this environment and in another."""
    actions = demos[0].actions.astype(np.float32)
    stages = np.array([moment.stage for moment in visited])
    for player in (env, ManipulationEnv(name, "D0")):
        for stage in range(len(TASKS[name].stages)):
            begin = int(np.flatnonzero(stages == stage).mean())
            end = min(begin + 20, len(visited) - 1)
            player.set_state(visited[begin].state)
            for action in actions[begin + 1 : end + 1]:
                player.step(action)
            state = player.get_state()
            np.testing.assert_array_equal(state.simulation, visited[end].state.simulation)
            np.testing.assert_array_equal(state.verdict.held, visited[end].state.verdict.held)
            assert state.verdict.steady == visited[end].state.verdict.steady
            assert state.verdict.stage == visited[end].stage


def test_strict_implies_reference_along_demonstrations_and_near_the_goal(benchmark, env, demos):
    """`benchmarks/strict_implies_reference.py` is the long form."""
    along, near = benchmark.Tally(), benchmark.Tally()
    snapshots = benchmark.replayed(env, demos[:2], along)
    states = benchmark.near_goal(env, snapshots, np.random.default_rng(0))
    for index in range(NEAR_GOAL):
        next(states)
        near.count(env.engine, str(index))
    assert not along.places and not near.places
    assert 0 < along.strict < 0.5 * along.states
    # It has met both: states that count, and states that fool the reference.
    assert near.strict > 5 and near.reference - near.strict > 5


def test_the_tally_finds_a_violation(benchmark, monkeypatch):
    """The reference check of a nut that is nowhere near its peg is false: strict predicates that all hold violate."""
    env = ManipulationEnv("Square", "D0")
    env.reset(seed=0)
    tally = benchmark.Tally()
    tally.count(env.engine, "reset")
    holds = dict.fromkeys(env.predicates(), True)
    monkeypatch.setattr(env.task, "predicates", lambda sim: holds)
    tally.count(env.engine, "made up")
    assert (tally.states, tally.strict, tally.reference, tally.places) == (2, 1, 0, ["made up"])
