"""The teacher of whole tasks that needs no planner, and the environment for who has pictures alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from blind import Blind  # noqa: E402

from reinforcegen_envs.agents.guide import ARRIVED, BEGUN, SLOWEST, Guide, Unaided  # noqa: E402
from reinforcegen_envs.errors import InvalidArgument  # noqa: E402
from reinforcegen_envs.planning.motion import ConnectPlanner  # noqa: E402
from reinforcegen_envs.policies.bundle import Bundle  # noqa: E402
from reinforcegen_envs.poses import distance  # noqa: E402
from reinforcegen_envs.registration import make_env  # noqa: E402
from reinforcegen_envs.tasks import TASKS  # noqa: E402


def guided(task: str, seed: int, lines: str = "joint") -> tuple[bool, float]:
    """Whether an episode of D2 succeeds, and the least distance of a joint from its limit on the way, radians."""
    env = make_env(task, "D2")
    core: Any = env.unwrapped
    guide = Guide(core.engine, Bundle.open(TASKS[task]), lines)
    low, high = core.sim.joint_range.T
    env.reset(seed=seed)
    margin, info = np.inf, {}
    for _ in range(core.task.horizon):
        action = guide()
        assert action.shape == (7,) and np.abs(action).max() <= 1.0
        *_, terminated, _, info = env.step(action.astype(np.float32))
        margin = min(margin, float(np.minimum(core.sim.joints - low, high - core.sim.joints).min()))
        if terminated:
            break
    return info["success"], margin


@pytest.mark.parametrize("task", ["Threading", "Coffee"])
def test_whole_tasks_without_a_planner(task, monkeypatch):
    monkeypatch.setattr(ConnectPlanner, "plan", None)
    assert [guided(task, seed)[0] for seed in (771301, 771302)] == [True, True]


def test_straight_lines_end_at_a_joint_s_limit():
    """The same layout: the last joint but one is at its limit, and the hand does not get there."""
    success, margin = guided("Threading", 771301, "straight")
    assert not success and margin < 0.02
    success, margin = guided("Threading", 771301)
    assert success and margin > 0.02


def test_who_is_taught_may_choose_another_source_that_is_within_reach():
    core: Any = make_env("Coffee", "D2").unwrapped
    guide = Guide(core.engine, Bundle.open(TASKS["Coffee"]))
    core.reset(seed=3)
    guide()
    chosen = guide.source
    ranked = guide._approach.ranked_sources()
    other = next(source for source in reversed(ranked) if source != chosen)
    before = guide()
    guide.follow(0, other)
    after = guide()
    assert guide.source == other and guide.phase == 0 and np.abs(after - before).max() > 1e-3
    guide.follow(0, 99)  # there is none, or it is out of reach
    assert guide.source == other


def test_unknown_lines_are_refused():
    core: Any = make_env("Threading", "D0").unwrapped
    with pytest.raises(InvalidArgument, match="unknown lines 'curved'.*joint"):
        Guide(core.engine, Bundle.open(TASKS["Threading"]), "curved")


def test_a_whole_task_s_student_is_not_told_the_stage():
    env = Unaided(Blind(make_env("Threading", "D0")))
    core: Any = env.unwrapped
    stage = core.proprio_layout.slices["stage"]
    observation, _ = env.reset(seed=1)
    assert core.engine.proprio()[stage].tolist() == [1.0, 0.0]
    assert not observation["proprio"][stage].any() and observation["proprio"].any()
    observation, *_, info = env.step(np.zeros(7, np.float32))
    assert not observation["proprio"][stage].any() and info["failure"] == ""


def test_what_cannot_succeed_any_more_ends():
    env = Unaided(Blind(make_env("Threading", "D0")))
    core: Any = env.unwrapped
    env.reset(seed=1)
    pose = core.object_poses()["needle"]
    pose[:3] = 2.0, 0.0, 0.1
    core.task.write_pose7(core.sim, "needle", pose)
    core.refresh()
    *_, terminated, truncated, info = env.step(np.zeros(7, np.float32))
    assert terminated and not truncated and not info["success"] and info["failure"]


def test_a_skill_is_begun_near_its_start_and_a_little_farther_off_by_who_is_taught():
    """On the way there the hand never slows down so much that it comes to rest."""
    core: Any = make_env("Threading", "D0").unwrapped
    guides = [Guide(core.engine, Bundle.open(TASKS["Threading"])) for _ in range(2)]
    core.reset(seed=771301)
    for guide in guides:
        guide.begin()
    begun: dict[int, float] = {}
    while len(begun) < 2:
        guides[1].follow(1, guides[1].source)
        action = guides[0]()
        guides[1]()
        start = core.engine.connector.goal(0, guides[0]._tools[0])
        metres, _ = distance(core.engine.sim.eef_pose(), start)
        for i, guide in enumerate(guides):
            if guide.phase == 1:
                begun.setdefault(i, metres)
        if not begun and metres > ARRIVED[0]:
            assert np.linalg.norm(action[:3]) > 0.99 * SLOWEST[0]
        core.step(action.astype(np.float32))
    assert begun[0] < ARRIVED[0] < begun[1] < BEGUN[0]
