"""Skills turned and mirrored: what a task's symmetry makes of a demonstration, and how its variants are chosen."""

import dataclasses

import numpy as np
import pytest

from reinforcegen_envs.demos.generate import Adapter, make_adapter
from reinforcegen_envs.demos.generate import Args as GenerateArgs
from reinforcegen_envs.demos.hdf5 import read_demos
from reinforcegen_envs.demos.segments import cut, cut_all, skeleton_of, variants
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.planning.skeleton import Skeleton
from reinforcegen_envs.poses import rotation
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.wrappers.approach import COMFORT
from reinforcegen_envs.wrappers.hybrid import Hybrid

MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])
COUNT = 16  # of a nut: mirrored or not, the hand half a turn on or not, four turns on the peg


@pytest.fixture(scope="module")
def demos():
    return read_demos(source_file("Square"), "Square")


@pytest.fixture(scope="module")
def skeleton(demos):
    return skeleton_of(cut_all(demos, TASKS["Square"]))


@pytest.fixture(scope="module")
def env():
    return ManipulationEnv("Square", "D2")


def margins(skeleton, env, stage=0):
    return skeleton.margins(env.engine.belief, env.task, env.engine.connector.checker.kinematics, stage)


def single(skeleton, source):
    """The key poses of one source alone."""
    return Skeleton(*(getattr(skeleton, f.name)[source : source + 1] for f in dataclasses.fields(skeleton)))


# --- variants ---


def test_a_task_without_symmetry_shows_what_its_demonstrations_show(source_demos):
    stages = TASKS["Threading"].stages
    for demo in source_demos[:3]:
        segments = cut(demo, TASKS["Threading"])
        assert variants(segments, stages) == [segments]


def test_the_first_variant_is_the_demonstration(demos):
    for demo in demos:
        segments = cut(demo, TASKS["Square"])
        first, *others = variants(segments, TASKS["Square"].stages)
        assert first == segments and len(others) == COUNT - 1


def test_variants_are_rigid_and_differ(demos, skeleton):
    tools = skeleton.tools.reshape(-1, 4, 4)
    np.testing.assert_allclose(np.linalg.det(tools[:, :3, :3]), 1.0, atol=1e-6)
    assert len({source.tobytes() for source in skeleton.tools}) == COUNT * len(demos)
    # 4 grasps and, of each image, 4 insertions.
    own = skeleton.tools[:COUNT]
    assert len({tools.tobytes() for tools in own[:, 0]}) == 4
    assert len({tools.tobytes() for tools in own[:, 1]}) == 8


def test_a_mirror_image_is_one_of_hand_nut_and_peg_together(demos):
    """The hand's path over the peg is the mirror image of the one shown, after the nut was let go too."""
    segments = cut(demos[1], TASKS["Square"])
    grasp, insert = segments
    mirrored_grasp, mirrored_insert = variants(segments, TASKS["Square"].stages)[COUNT // 2]
    hand, mirrored = insert.tool @ grasp.tool[-1], mirrored_insert.tool @ mirrored_grasp.tool[-1]
    np.testing.assert_allclose(mirrored, MIRROR @ hand @ MIRROR, atol=1e-9)


def test_runs_of_stages_go_through_their_own_variants(demos):
    square = TASKS["Square"]
    segments = cut(demos[0], square)
    grasp, insert = square.stages
    once = dataclasses.replace(grasp, mirrored=False, half_turn=True)
    twice = (once, dataclasses.replace(insert, turns=1), once, dataclasses.replace(insert, turns=3))
    found = variants([*segments, *segments], twice)
    assert len(found) == 6
    for i in (0, 2, 4):
        assert found[i][0] is segments[0] and found[i + 1][0] is not segments[0]
        np.testing.assert_array_equal(found[i][1].tool, segments[1].tool)
    turn = rotation([0, 0, 2 * np.pi / 3])
    np.testing.assert_allclose(found[1][3].tool, turn @ segments[1].tool)
    np.testing.assert_array_equal(found[3][2].tool, found[4][2].tool)


def test_only_an_empty_hand_is_turned(demos):
    square = TASKS["Square"]
    grasp, insert = square.stages
    held = (dataclasses.replace(grasp, half_turn=False, mirrored=False), dataclasses.replace(insert, half_turn=True))
    assert len(variants(cut(demos[0], square), held)) == 4


# --- what is within reach ---


def test_sources_judged_together_are_judged_as_if_alone(skeleton, env):
    for seed in (0, 3):
        env.reset(seed=seed)
        together = margins(skeleton, env)
        some = range(0, len(together), 7)
        alone = [margins(single(skeleton, source), env)[0] for source in some]
        np.testing.assert_array_equal(together[list(some)], alone)


@pytest.mark.parametrize("task", ["Square", "NutAssembly"])
@pytest.mark.parametrize("variant", ["D0", "D1", "D2"])
def test_nuts_are_within_reach(task, variant):
    env = ManipulationEnv(task, variant)
    skeleton = skeleton_of(cut_all(read_demos(source_file(task), task), TASKS[task]))
    for seed in range(1000, 1012):
        env.reset(seed=seed)
        for stage in range(0, len(env.task.stages), 2):
            assert margins(skeleton, env, stage).max() > 0.1, (seed, stage)


def test_sources_alike_are_those_that_grasp_alike(skeleton, env):
    for source in (0, 37, 159):
        alike = np.flatnonzero(skeleton.alike(source, env.task, 1))
        assert len(alike) == 4 and source in alike and set(alike // COUNT) == {source // COUNT}
        for other in alike:
            np.testing.assert_array_equal(skeleton.tools[other, 0], skeleton.tools[source, 0])
        assert len({skeleton.tools[other, 1].tobytes() for other in alike}) == 4
    assert skeleton.alike(0, env.task, 0).all()  # nothing was done yet


# --- how they are chosen ---


@pytest.mark.parametrize("number", range(0, COUNT, 5))
def test_every_variant_can_be_played(demos, number):
    """A bar opposite the handle: mirrored, with the fingers changed round, at every yaw on the peg."""
    sources = variants(cut(demos[1], TASKS["Square"]), TASKS["Square"].stages)
    adapter = Adapter(ManipulationEnv("Square", "D1"), [sources[number]])
    outcomes = [adapter.attempt((7, i))[0] for i in range(12)]
    played = [outcome for outcome in outcomes if outcome != "grasp: unreachable"]
    assert len(played) >= 2 and played.count("success") >= 0.6 * len(played), outcomes


def test_an_insertion_out_of_reach_is_turned(monkeypatch):
    """Where the nut came to lie otherwise in the hand, the peg is approached at another quarter turn."""
    adapter = make_adapter(GenerateArgs(task="Square", variant="D2"))
    outcome, demo = adapter.attempt((0, 0))
    assert outcome == "success" and demo is not None
    grasped, inserted = demo.attrs["sources"]
    assert grasped == inserted
    measured = Skeleton.margins

    def unreachable(self, cell, task, kinematics, stage):
        found = measured(self, cell, task, kinematics, stage)
        if stage == 1:
            found[grasped] = -1.0
        return found

    monkeypatch.setattr(Skeleton, "margins", unreachable)
    outcome, demo = adapter.attempt((0, 0))
    if demo is not None:  # the other quarter turns may be worse
        assert demo.attrs["sources"][0] == grasped != demo.attrs["sources"][1]
    alike = adapter._alike(grasped, 1)
    assert set(alike) <= set(np.flatnonzero(adapter._skeleton.alike(grasped, adapter.engine.task, 1)))


def test_the_student_prefers_what_is_comfortably_within_reach(weights, monkeypatch):
    env = Hybrid(ManipulationEnv("Threading", "D2"), initiation="student", weights=weights)
    assert env.initiation is not None
    count = len(env.skeleton.tools)
    found = np.full(count, 0.3)
    found[:3] = 0.08, -1.0, 0.5
    monkeypatch.setattr(Skeleton, "margins", lambda *args: found)
    monkeypatch.setattr(env.initiation, "act", lambda obs: np.arange(count)[None])
    env.unwrapped.reset(seed=0)
    assert COMFORT > 0.08
    assert env._approach.ranked_sources() == [*range(2, count), 0]
