"""Hybrid, Skill and Residual: arithmetic, exact repetition, resets, rewards, pools, planning and failures."""

import dataclasses
import inspect
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from helpers import goal_of, hybrid_of

import reinforcegen_envs  # noqa: F401 (registers the ids)
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.observations import ObservationLayout, to_reference, to_world
from reinforcegen_envs.perception import PoseErrors
from reinforcegen_envs.planning.motion import Plan
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.mlp import WeightsError
from reinforcegen_envs.policies.policy import MemorylessPolicy, act_one
from reinforcegen_envs.policies.predictors import CONSECUTIVE
from reinforcegen_envs.poses import distance, invert, matrix_to_rotvec
from reinforcegen_envs.tasks import ThreadingTask
from reinforcegen_envs.wrappers import PoolError, StartPool, combine, fill_pool
from reinforcegen_envs.wrappers.hybrid import REST, TERMINATIONS
from reinforcegen_envs.wrappers.reference import ReferenceActions
from reinforcegen_envs.wrappers.replanning import goal_doubt
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv

ZERO = np.zeros(7, np.float32)
CONTROL_STEP = 0.05  # seconds
NOISE = (0.01, 0.05)
INFO_KEYS = {
    "success",
    "is_success",
    "stage",
    "stage_name",
    "predicates",
    "sim_steps",
    "planner",
    "reference_success",
    "failure",
    "failure_stage",
    "failure_segment",
    "retries",
}


def make(mode, weights, variant="D2", **kwargs: Any) -> Any:
    name = f"ReinforceGen/{variant}-Threading-{mode}-v0"
    return gym.make(name, weights=weights, disable_env_checker=True, **kwargs)


def skill_policy(weights):
    """The base policy as a function: observation -> action in the world frame."""
    policy = Bundle.open(ThreadingTask, weights).base()
    rotation = ObservationLayout.of(ThreadingTask).slices["ref_rot6d_world"]

    def act(obs):
        action = policy.act(obs[None])[0].astype(np.float64)
        return np.clip(to_world(action, obs[rotation].astype(np.float64)), -1.0, 1.0)

    return act


def without_clock(info):
    planner = {key: value for key, value in info["planner"].items() if key != "milliseconds"}
    return {**info, "planner": planner}


def play(env, policy, seed=None, steps=10_000):
    """One episode: a list of (obs, reward, terminated, truncated, info), the reset first."""
    obs, info = env.reset(seed=seed)
    trajectory = [(obs, 0.0, False, False, without_clock(info))]
    while len(trajectory) <= steps:
        obs, reward, terminated, truncated, info = env.step(policy(obs))
        trajectory.append((obs, reward, terminated, truncated, without_clock(info)))
        if terminated or truncated:
            break
    return trajectory


def assert_same(a, b, size=None):
    """Equal bit for bit; ``size`` compares only the first numbers of observations."""
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x[0][:size], y[0][:size])
        assert x[1:] == y[1:]


@pytest.fixture(scope="module")
def episodes(weights):
    """Seed -> whole-task episode of the base policy alone (zero residual)."""
    env = make("Residual", weights)
    return {seed: play(env, lambda _: ZERO, seed) for seed in range(12)}


@pytest.fixture(scope="module")
def good_seed(episodes):
    """A seed with which the base policy alone succeeds."""
    good = [seed for seed, episode in episodes.items() if episode[-1][4]["success"]]
    assert good, "the base policy never succeeds"
    return good[0]


# --- residual arithmetic and observation ---


def test_residual_observation_is_the_state_and_the_base_action(weights, good_seed):
    """The last 7 numbers are the base action in the reference frame, on the final observation too."""
    env = make("Residual", weights)
    core, layout = env.unwrapped, env.unwrapped.layout
    base = skill_policy(weights)
    assert list(layout.slices)[-1] == "base_action" and layout.size == len(layout.names) == 53
    obs, _ = env.reset(seed=good_seed)
    done, stages = False, set()
    while True:
        assert obs.shape == (layout.size,) and obs.dtype == np.float32 and env.observation_space.contains(obs)
        state = core.observe()
        np.testing.assert_array_equal(obs[:46], state)
        reference = core.task.object_pose(core.sim, core.task.stages[core.engine.stage].reference)[:3, :3]
        action = base(state)
        expected = np.concatenate([reference.T @ action[:3], reference.T @ action[3:6], action[6:]])
        np.testing.assert_allclose(obs[layout.slices["base_action"]], expected, atol=1e-6)
        stages.add(core.engine.stage)
        if done:
            break
        obs, _, terminated, truncated, _ = env.step(ZERO)
        done = terminated or truncated
    assert stages == {0, 1}


def test_combine():
    rng = np.random.default_rng(0)
    base, residual = rng.uniform(-1, 1, (2, 7))
    rot6d = np.array([0.0, 1.0, 0.0, -1.0, 0.0, 0.0])  # the reference frame is turned by 90 degrees about z
    np.testing.assert_array_equal(combine(base, np.zeros(7), 0.1, rot6d), base)
    x, y, z, rx, ry, rz, gripper = residual
    turned = np.array([-y, x, z, -ry, rx, rz, gripper])
    np.testing.assert_allclose(combine(base, residual, 0.1, rot6d), np.clip(base + 0.1 * turned, -1, 1))
    assert np.abs(combine(np.ones(7), np.ones(7), 1.0, rot6d)).max() <= 1.0
    np.testing.assert_allclose(to_world(to_reference(base, rot6d), rot6d), base)


def test_the_agents_action_moves_the_hand_in_the_reference_frame(weights):
    """+x of the action is +x of the reference object, whatever its yaw; larger actions are cut."""
    for scale in (0.1, 0.5):
        settings = {"residual_scale": scale, "base_policy": lambda obs: np.zeros(7)}
        env = make("Residual", weights, stage="grasp", **settings)
        assert env.get_wrapper_attr("residual_scale") == scale
        env.reset(seed=2)
        core = env.unwrapped
        start = core.sim.eef_pose()
        frame = core.task.object_pose(core.sim, "needle")[:3, :3]
        for _ in range(10):
            env.step(np.array([9.0, 0, 0, 0, 0, 0, -1.0]))
        moved = frame.T @ (core.sim.eef_pose() - start)[:3, 3]
        assert moved[0] > 0.05 * scale and np.abs(moved[1:]).max() < 0.3 * moved[0]


@pytest.mark.parametrize("stage", [None, "grasp", "insert"])
def test_zero_residual_is_the_base_policy_alone_bit_for_bit(stage, weights, episodes):
    """Against the full-action environment driven by the same policy, through every connect."""
    base = skill_policy(weights)
    if stage is None:
        env, alone = make("Residual", weights), make("Hybrid", weights)
    else:
        env, alone = make("Residual", weights, stage=stage), make("Skill", weights, stage=stage)
    for seed in range(4):
        expected = play(alone, base, seed)
        assert_same(play(env, lambda _: ZERO, seed), expected, size=46)
        np.testing.assert_array_equal(env.unwrapped.data.qpos, alone.unwrapped.data.qpos)
        if stage is None:
            assert_same(episodes[seed], expected, size=46)


def test_a_residual_changes_the_trajectory(weights):
    env = make("Residual", weights, stage="grasp")
    first = play(env, lambda _: ZERO, 0, steps=5)
    second = play(env, lambda _: np.full(7, 0.5, np.float32), 0, steps=5)
    assert np.abs(first[-1][0] - second[-1][0]).max() > 1e-3


class Base:
    """A base policy with memory: its action depends on how many observations it saw since the skill began."""

    def __init__(self):
        self.seen = 0

    def reset(self):
        self.seen = 0

    def __call__(self, obs):
        assert obs.shape == (46,)
        self.seen += 1
        return np.full(7, 0.01 * self.seen)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_base_policy_is_reset_with_every_episode(mode, weights, pool_file):
    """The first observation's base action is the first one's of an episode, in every autoreset mode."""
    settings = {"stage": "insert", "pool": str(pool_file), "base_policy": Base()}  # one object, a copy an environment
    fns = [lambda: make("Residual", weights, **settings)] * 2
    envs = SyncVectorEnv(fns, autoreset_mode=mode)
    down = np.tile(np.array([0, 0, 0, 0, 0, 0, -10], np.float32), (2, 1))  # drops the needle: short episodes
    layout = fns[0]().unwrapped.layout

    def gripper(obs):
        return obs[:, layout.slices["base_action"]][:, 6]

    obs, _ = envs.reset(seed=0)
    np.testing.assert_allclose(gripper(obs), 0.01)
    ends = 0
    previous = np.zeros(2, bool)
    for _ in range(150):
        obs, _, terminated, truncated, infos = envs.step(down)
        done = terminated | truncated
        ends += done[0]
        fresh = previous if mode == AutoresetMode.NEXT_STEP else done
        if mode == AutoresetMode.DISABLED and done.any():
            obs, _ = envs.reset(options={"reset_mask": done})
        np.testing.assert_allclose(gripper(obs)[fresh], 0.01)
        assert (gripper(obs)[~fresh] > 0.015).all()
        if mode == AutoresetMode.SAME_STEP and done[0]:
            assert infos["final_obs"][0][layout.slices["base_action"]][6] > 0.015
        previous = done
    assert ends >= 2


def test_a_base_policys_action_is_cut_and_checked(weights):
    env = make("Residual", weights, stage="grasp", base_policy=lambda obs: np.full(7, 5.0))
    obs, _ = env.reset(seed=0)
    assert obs[-1] == 1.0 and np.linalg.norm(obs[-7:-4]) == pytest.approx(np.sqrt(3))
    for bad, message in (
        (np.zeros(3), r"base policy's action.*\(3,\).*\(7,\)"),
        (np.full(7, np.nan), "base policy's.*NaN"),
    ):
        env = make("Residual", weights, stage="grasp", base_policy=lambda obs, bad=bad: bad)
        with pytest.raises(ValueError, match=message):
            env.reset(seed=0)


# --- rewards, infos, ends ---


@pytest.mark.parametrize("termination", TERMINATIONS)
@pytest.mark.parametrize(
    ("mode", "stage"), [("Hybrid", None), ("Skill", "grasp"), ("Skill", "insert"), ("Residual", "grasp")]
)
def test_rewards_infos_and_simulated_time(mode, stage, termination, weights):
    """Rewards sum to 1 exactly with success; keys never change; sim_steps add up to the simulated time."""
    kwargs = {} if stage is None else {"stage": stage}
    env = make(mode, weights, termination=termination, pose_noise=NOISE, replan=True, **kwargs)
    base = skill_policy(weights)
    core, results = env.unwrapped, []
    for seed in range(6):
        obs, info = env.reset(seed=seed)
        steps, total, done = info["sim_steps"], 0.0, False
        while not done:
            assert set(info) == INFO_KEYS and set(info["predicates"]) == set(core.predicates())
            assert set(info["planner"]) == {"status", "milliseconds", "collision_checks"}
            assert info["stage_name"] == core.task.stages[info["stage"]].name
            assert info["success"] is info["is_success"] and total < 1
            assert termination != "predicate" or not info["success"]
            assert core.data.time == pytest.approx(steps * CONTROL_STEP)
            action = ZERO if mode == "Residual" else base(obs)
            obs, reward, terminated, truncated, info = env.step(action)
            steps, total, done = steps + info["sim_steps"], total + reward, terminated or truncated
            if info["sim_steps"] == 1:  # no connect in this step
                assert info["planner"]["status"] == "none" and info["planner"]["milliseconds"] == 0
            else:
                assert stage is None
        assert set(info) == INFO_KEYS
        assert core.data.time == pytest.approx(steps * CONTROL_STEP)
        assert not (terminated and truncated)
        assert total == 1.0 if info["success"] else total in (0.0, 0.5)
        assert info["success"] or info["failure"]
        if mode == "Hybrid" and info["success"]:
            assert all(info["predicates"].values()) and info["reference_success"]
        results.append(info["success"])
    assert any(results)


def test_sustained_ends_when_success_has_lasted(weights, good_seed):
    """It ends a skill as much later as the learned termination takes to be sure, if success lasts, and not if it does not."""
    short, long = (
        play(make("Residual", weights, stage="grasp", termination=termination), lambda _: ZERO, good_seed)
        for termination in ("predicate", "sustained")
    )
    assert len(long) == len(short) + CONSECUTIVE
    for ended, going_on in zip(short[:-1], long, strict=False):
        np.testing.assert_array_equal(ended[0], going_on[0])
    assert [step[4]["success"] for step in long[-CONSECUTIVE - 1 :]] == [True] * (CONSECUTIVE + 1)
    assert sum(step[1] for step in long) == 1.0
    env = make("Residual", weights, stage="grasp", termination="sustained")
    core = env.unwrapped
    env.reset(seed=good_seed)
    while not core.engine.judge.finished:
        env.step(ZERO)
    core.task.stage_done = lambda sim, stage: False  # lost again
    assert [env.step(ZERO)[2] for _ in range(2 * CONSECUTIVE)] == [False] * 2 * CONSECUTIVE


def test_a_success_that_is_lost_before_the_predicted_end_pays_nothing(weights, good_seed):
    """The learned termination may come late; what counts is the end."""
    ends = Ends()
    env = make("Residual", weights, stage="grasp", termination=ends)
    core = env.unwrapped
    for lost in (False, True):
        ends.over = lambda: False
        _, info = env.reset(seed=good_seed)
        total = 0.0
        while not core.engine.judge.finished:
            _, reward, _, _, info = env.step(ZERO)
            total += reward
        if lost:
            core.task.stage_done = lambda sim, stage: False
        ends.over = lambda: True
        _, reward, terminated, _, info = env.step(ZERO)
        assert terminated and info["success"] is not lost and total + reward == float(not lost)
        assert info["failure"] == ("termination" if lost else "")


def test_a_stage_ended_too_early_still_gives_a_return_of_one_with_success(weights, good_seed):
    ends = Ends()
    env = make("Residual", weights, termination=ends)
    core = env.unwrapped
    env.reset(seed=good_seed)
    while not (core.engine.stage == 0 and core.task.stage_done(core.sim, 0)):  # lifted, but not yet for long enough
        env.step(ZERO)
    ends.over = lambda: True
    _, reward, _, _, info = env.step(ZERO)
    assert (reward, info["failure"], info["stage"]) == (0.0, "termination", 1)
    ends.over = lambda: core.engine.judge.finished
    core.task.predicates = lambda sim: {"done": True}
    total, done = 0.0, False
    while not done:
        _, reward, terminated, truncated, info = env.step(ZERO)
        total, done = total + reward, terminated or truncated
    assert info["success"] and total == 1.0


@pytest.mark.parametrize("moving", [False, True])
def test_what_still_moves_when_the_end_is_announced_may_come_to_rest(moving, weights, good_seed):
    """The predicates hold, but not yet for long enough; the hand waits, for a while."""
    ends = Ends()
    env = make("Residual", weights, termination=ends)
    core = env.unwrapped
    ends.over = lambda: (
        core.engine.judge.finished if core.engine.stage == 0 else all(core.task.predicates(core.sim).values())
    )
    env.reset(seed=good_seed)
    total, done, hand = 0.0, False, core.sim.eef_pose()
    while not done:
        if moving and core.engine.stage == 1:
            core.task.predicates = lambda sim: {"done": False}
            ends.over = lambda: True
        hand = core.sim.eef_pose()
        _, reward, done, truncated, info = env.step(ZERO)
        total += reward
        assert not truncated
    if moving:
        assert not info["success"] and info["failure"] == "termination" and info["sim_steps"] == 1 + REST
    else:
        assert info["success"] and total == 1.0 and info["sim_steps"] == core.task.success_steps
        assert distance(core.sim.eef_pose(), hand)[0] < 0.01 and core.sim.gripper_opening() < 0.9


class Ends(MemorylessPolicy):
    """A termination that says what it is told to; environments share what has no memory."""

    def __init__(self):
        self.over: Callable[[], bool] = lambda: False

    def act(self, observations, env_indices=None):
        return np.array([self.over()])


@pytest.mark.parametrize(("mode", "stage"), [("Hybrid", None), ("Skill", "grasp"), ("Residual", None)])
def test_step_needs_a_reset_first_and_after_the_end(mode, stage, weights):
    kwargs = {} if stage is None else {"stage": stage}
    env = make(mode, weights, **kwargs)
    for candidate in (env, env.env):  # with and without Gymnasium's own guard
        with pytest.raises(gym.error.ResetNeeded, match="reset"):
            candidate.step(ZERO)
    env.reset(seed=0)
    done, steps = False, 0
    while not done:
        _, _, terminated, truncated, info = env.step(np.array([0, 0, 0.1, 0, 0, 0, -1.0]))
        done, steps = terminated or truncated, steps + 1
    if mode != "Residual":  # there the base policy goes on to succeed, whatever a small residual does
        # A hand that only goes up is truncated at the first stage's horizon.
        assert truncated and steps == ThreadingTask.stages[0].horizon and info["failure"] == "skill timeout"
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.step(ZERO)
    env.reset()
    env.step(ZERO)


def test_the_tasks_horizon_truncates(weights, monkeypatch):
    monkeypatch.setattr(ThreadingTask, "horizon", 40)
    env = make("Hybrid", weights)
    _, info = env.reset(seed=0)
    steps, truncated = info["sim_steps"], False
    while not truncated:
        _, _, terminated, truncated, info = env.step(np.array([0, 0, 0.1, 0, 0, 0, -1.0]))
        steps += info["sim_steps"]
        assert not terminated
    assert steps == 40


# --- exact repetition ---

TWO_PROCESSES = """
import hashlib
import numpy as np

def block(planner):
    '''Something invisible in the middle of every joint line: only the sampling-based search gets past.'''
    checker, collides = planner._checker, planner._checker.collides
    def blocked(start, goal_pose, posture, rng, lookahead):
        goals = planner._kinematics.solutions(goal_pose, [posture, start], rng, posture)
        if not goals:
            return "unreachable", []
        middle = (start + goals[0].joints) / 2
        size = 0.3 * np.abs(goals[0].joints - start).max()
        checker.collides = lambda q: np.abs(q - middle).max() < size or collides(q)
        path = planner._birrt(start, goals[0].joints, rng)
        return ("no_path", []) if path is None else ("birrt", path)
    planner._search = blocked

def trajectory(mode, weights):
    env = make(mode, weights, pose_noise=NOISE)
    block(hybrid_of(env).engine.connector.planner)
    env.reset(seed=5)
    rng = np.random.default_rng(1)
    base = skill_policy(weights)
    digest, statuses = hashlib.sha256(), []
    obs, info = env.reset(seed=6)
    for _ in range(200):
        statuses.append(info["planner"]["status"])
        action = rng.uniform(-0.2, 0.2, 7) + (0 if mode == "Residual" else base(obs))
        obs, reward, terminated, truncated, info = env.step(action)
        digest.update(obs.tobytes() + repr((reward, without_clock(info))).encode())
        digest.update(env.unwrapped.data.qpos.tobytes())
        if terminated or truncated:
            obs, info = env.reset()
    assert statuses.count("birrt") >= 2, statuses
    return digest.hexdigest()
"""


def test_trajectories_are_equal_bit_for_bit_in_two_processes(weights):
    """Residual and Hybrid, connects by sampling-based search included."""
    shared = [inspect.getsource(f) for f in (make, skill_policy, hybrid_of, without_clock)]
    imports = (
        "from typing import Any\nimport gymnasium as gym, reinforcegen_envs\n"
        "import numpy as np\n"
        "from reinforcegen_envs.observations import ObservationLayout, to_world\n"
        "from reinforcegen_envs.policies.bundle import Bundle\n"
        "from reinforcegen_envs.tasks import ThreadingTask\n"
        f"NOISE = {NOISE}\n"
    )
    script = imports + "\n".join(shared) + TWO_PROCESSES
    space: dict = {}
    exec(script, space)
    here = [space["trajectory"](mode, weights) for mode in ("Residual", "Hybrid")]
    script += f"\nfor mode in ('Residual', 'Hybrid'): print(trajectory(mode, {weights!r}))"
    there = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert there.stdout.split() == here, there.stderr
    assert here[0] != here[1]


@pytest.mark.parametrize("kind", ["sync", "threads", "processes"])
def test_vector_environments_repeat_single_ones(kind, weights):
    """Observations, rewards, ends and infos, connects and resets included."""
    fns = [lambda: make("Residual", weights, pose_noise=NOISE)] * 2
    if kind == "sync":
        envs = SyncVectorEnv(fns)
    elif kind == "threads":
        envs = ThreadVectorEnv(fns, num_threads=2)
    else:
        envs = AsyncVectorEnv(fns, context="forkserver")
    try:
        rng = np.random.default_rng(0)
        actions = rng.uniform(-0.3, 0.3, (130, 2, 7)).astype(np.float32)
        first, _ = envs.reset(seed=7)
        steps = [envs.step(action) for action in actions]
    finally:
        envs.close()
    for i, fn in enumerate(fns):
        env = fn()
        obs, info = env.reset(seed=7 + i)
        np.testing.assert_array_equal(first[i], obs)
        done, resets = False, 0
        for action, (got, reward, terminated, truncated, infos) in zip(actions, steps, strict=True):
            if done:
                obs, info = env.reset()
                expected = (obs, 0.0, False, False, info)
                resets += 1
            else:
                expected = env.step(action[i])
            np.testing.assert_array_equal(got[i], expected[0])
            assert (reward[i], terminated[i], truncated[i]) == expected[1:4]
            info = expected[4]
            for key in ("success", "stage", "stage_name", "sim_steps", "failure", "reference_success"):
                assert infos[key][i] == info[key]
            assert infos["planner"]["status"][i] == info["planner"]["status"]
            assert infos["planner"]["collision_checks"][i] == info["planner"]["collision_checks"]
            done = bool(expected[2] or expected[3])
        assert resets >= 1


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("Hybrid", {"termination": "predictor", "initiation": "student"}),
        ("Residual", {"replan": True}),
        ("Skill", {"stage": "insert"}),
        ("Residual", {"stage": "grasp", "termination": "predictor"}),
    ],
)
def test_replay_from_a_snapshot_is_equal_bit_for_bit(mode, settings, weights, good_seed):
    """From moments in every stage, in another environment, through connects and into the next episode."""
    env = make(mode, weights, pose_noise=(0.003, 0.01), **settings)
    other = make(mode, weights, pose_noise=(0.003, 0.01), **settings)
    get_state, set_state = (env.get_wrapper_attr(name) for name in ("get_state", "set_state"))
    base = skill_policy(weights)
    other.reset(seed=99)
    obs, _ = env.reset(seed=good_seed)
    states, actions, trajectory, done, stages = [], [], [], False, set()
    while not done:
        states.append(get_state())
        stages.add(env.unwrapped.engine.stage)
        actions.append(0.1 * np.ones(7, np.float32) if mode == "Residual" else base(obs))
        obs, reward, terminated, truncated, info = env.step(actions[-1])
        trajectory.append((obs, reward, terminated, truncated, without_clock(info)))
        done = terminated or truncated
    final = get_state()
    following, _ = env.reset()
    assert stages == ({0, 1} if "stage" not in settings else {env.unwrapped.engine.stage})
    moments = {0, 1, len(states) // 4, len(states) // 2, len(states) - 2, len(states) - 1}
    for moment in moments:
        other.get_wrapper_attr("set_state")(states[moment])
        replayed = []
        for action in actions[moment:]:
            obs, reward, terminated, truncated, info = other.step(action)
            replayed.append((obs, reward, terminated, truncated, without_clock(info)))
        assert_same(replayed, trajectory[moment:])
        state = other.get_wrapper_attr("get_state")()
        np.testing.assert_equal(state.to_arrays(), final.to_arrays())
    np.testing.assert_array_equal(other.reset()[0], following)
    set_state(final)
    with pytest.raises(gym.error.ResetNeeded):  # the end of an episode is part of the state
        env.step(ZERO)


# --- Skill: resets, live and from a pool ---


def test_insert_starts_with_the_needle_in_the_hand_near_the_ring(weights):
    env = make("Skill", weights, stage="insert")
    core, base = env.unwrapped, skill_policy(weights)
    ends = set()
    for seed in range(5):
        obs, info = env.reset(seed=seed)
        assert info["stage_name"] == "insert" and info["failure"] == "" and info["sim_steps"] > 20
        assert core.task.grasped(core.sim, "needle")
        needle, tripod = (core.task.object_pose(core.sim, name) for name in ("needle", "tripod"))
        shaft, ring = needle @ [0, -0.02, 0, 1], tripod @ [0, 0, 0.088, 1]
        assert np.linalg.norm(shaft - ring) < 0.2 and not info["predicates"]["through_ring"]
        done, steps = False, 0
        while not done:
            obs, _, terminated, truncated, info = env.step(base(obs))
            done, steps = terminated or truncated, steps + 1
        assert steps <= ThreadingTask.stages[1].horizon and info["stage_name"] == "insert"
        assert truncated == (steps == ThreadingTask.stages[1].horizon and not terminated)
        ends.add(info["success"])
    assert True in ends


def test_grasp_ends_with_the_stage(weights):
    env = make("Skill", weights, stage="grasp")
    core, base = env.unwrapped, skill_policy(weights)
    successes = 0
    for seed in range(5):
        last = play(env, base, seed)[-1]
        assert last[4]["stage_name"] == "grasp"
        if last[4]["success"]:
            successes += 1
            assert last[2] and last[1] == 1.0 and core.task.grasped(core.sim, "needle")
            assert not all(last[4]["predicates"].values())
    assert successes


def test_hopeless_earlier_stages_are_reported(weights):
    settings = {"stage": "insert", "earlier_policy": lambda obs: np.array([0, 0, 1.0, 0, 0, 0, -1])}
    env = make("Skill", weights, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reinforcegen_envs.wrappers.skill.MAX_RESETS", 2)
        with pytest.raises(RuntimeError, match="before 'insert' failed in 2 scenes.*pool"):
            env.reset(seed=0)
        with pytest.raises(gym.error.ResetNeeded):  # the scene that it failed in is no start of the skill
            env.step(ZERO)


def test_the_tuned_policy_is_base_and_residual_bit_for_bit(weights, good_seed):
    bundle = Bundle.open(ThreadingTask, weights)
    size = ObservationLayout.of(ThreadingTask, base_action=True).size
    residual, scale = bundle.residual()
    tuned = bundle.tuned()
    added = play(make("Residual", weights, residual_scale=scale), lambda obs: act_one(residual, obs), good_seed)
    whole = play(make("Hybrid", weights), lambda obs: act_one(tuned, obs), good_seed)
    assert_same(added, whole, size - 7)


def test_a_pool_from_the_tuned_policies(weights, tmp_path):
    args = fill_pool.Args(stage="insert", count=1, seed=20, weights=weights, out=tmp_path / "p.npz", workers=1)
    fill_pool.fill(dataclasses.replace(args, earlier_policy="tuned"))
    assert (
        StartPool.load(args.out, task="Threading", variant="D2", stage="insert").manifest["earlier_policy"] == "tuned"
    )
    with pytest.raises(ValueError, match="unknown earlier_policy 'best'"):
        fill_pool.fill(dataclasses.replace(args, earlier_policy="best"))
    with pytest.raises(WeightsError, match="no residual weights"):
        Bundle.open(ThreadingTask, tmp_path).tuned()


@pytest.fixture(scope="module")
def pool_file(weights, tmp_path_factory):
    """A pool of starts of Threading D2's insertion, made by the command's function."""
    path = tmp_path_factory.mktemp("pool") / "insert.npz"
    fill_pool.fill(fill_pool.Args(stage="insert", count=6, seed=20, weights=weights, out=path, workers=1))
    return path


def test_a_pools_snapshots_are_live_starts(pool_file, weights):
    pool = StartPool.load(pool_file, task="Threading", variant="D2", stage="insert")
    assert len(pool) == 6 and pool.manifest["seed"] == 20 and pool.manifest["count"] == 6
    env = make("Skill", weights, stage="insert")
    for i in (0, 3):  # snapshot i is made from seed + i alone, whatever came before
        env.reset(seed=20 + i)
        np.testing.assert_array_equal(env.get_wrapper_attr("get_state")().simulation, pool[i].simulation)


def test_drawing_from_a_pool(pool_file, weights):
    env = make("Residual", weights, stage="insert", pool=str(pool_file))
    pool = StartPool.load(pool_file)
    get_state = env.get_wrapper_attr("get_state")

    def draws(seed):
        firsts = [env.reset(seed=seed)[0], *(env.reset()[0] for _ in range(20))]
        return np.array(firsts)

    first = draws(0)
    np.testing.assert_array_equal(first, draws(0))
    assert not np.array_equal(first, draws(1))
    assert len(np.unique(first, axis=0)) > 3
    snapshots = [pool[i].simulation.tobytes() for i in range(len(pool))]
    seconds = []
    for _ in range(50):
        began = time.perf_counter()
        obs, info = env.reset()
        seconds.append(time.perf_counter() - began)
        assert get_state().simulation.tobytes() in snapshots
        assert set(info) == INFO_KEYS and info["sim_steps"] == 0 and info["stage_name"] == "insert"
    assert np.median(seconds) < 0.003
    # What follows from a start is what follows from the live one.
    index = snapshots.index(get_state().simulation.tobytes())
    live = make("Residual", weights, stage="insert")
    live.reset(seed=20 + index)
    for _ in range(20):
        a, b = env.step(ZERO), live.step(ZERO)
        np.testing.assert_array_equal(a[0], b[0])
        assert a[1:4] == b[1:4]
    with pytest.raises(ValueError, match="layout.*pool=None"):
        env.reset(options={"layout": {}, "joints": np.zeros(7)})


@pytest.mark.parametrize("mode", ["Hybrid", "Residual"])
def test_a_restored_state_can_be_observed(mode, weights):
    """By whoever plans ahead, or acts in the frame that observations are in; in an environment that was never reset too."""
    env, other, mine = make(mode, weights), make(mode, weights), make(mode, weights)
    env.reset(seed=0)
    for _ in range(3):
        obs = env.step(np.full(7, 0.3))[0]
    state = env.get_wrapper_attr("get_state")()
    other.reset(seed=5)
    for restored in (other, mine):
        restored.unwrapped.set_state(state)
        np.testing.assert_array_equal(restored.get_wrapper_attr("observe")(), obs)
        np.testing.assert_array_equal(hybrid_of(restored).observation, hybrid_of(env).observation)
    if mode == "Hybrid":
        actions = np.random.default_rng(0).uniform(-1, 1, (5, 7))
        results = []
        for each in (env, other):
            each.unwrapped.set_state(state)
            turned = ReferenceActions(each)
            results.append([turned.step(action)[0] for action in actions])
        np.testing.assert_array_equal(*results)


def test_seeds_one_after_the_other_are_different_starts(pool_file, weights):
    """Else an evaluation over seeds plays some starts twice and others never, and its interval is too narrow."""
    env = make("Residual", weights, stage="insert", pool=str(pool_file))
    firsts = np.array([env.reset(seed=1_000_000 + k)[0] for k in range(12)])
    assert len(np.unique(firsts[:6], axis=0)) == 6 == env.get_wrapper_attr("starts")
    np.testing.assert_array_equal(firsts[:6], firsts[6:])
    assert make("Residual", weights, stage="insert").get_wrapper_attr("starts") is None


@pytest.mark.parametrize("perception", ["camera_errors", "pose_errors"])
def test_a_start_from_a_pool_has_new_errors_of_perception_every_time(perception, weights, tmp_path):
    """What is believed at the start is its own; what comes after is drawn anew, with the environment's generator."""
    seen = perception if perception == "camera_errors" else PoseErrors(0.01, 0.05, 0.002, 0.01)
    start = make("Skill", weights, stage="grasp", perception=seen)
    start.reset(seed=3)
    snapshot = start.get_wrapper_attr("get_state")()
    manifest = {"task": "Threading", "variant": "D2", "stage": "grasp"}
    StartPool.of([snapshot], manifest).save(tmp_path / "p.npz")
    env = make("Skill", weights, stage="grasp", perception=seen, pool=str(tmp_path / "p.npz"))

    def beliefs(seed):
        first = env.reset(seed=seed)[0]
        return first, np.array([env.step(np.zeros(7, np.float32))[0] for _ in range(5)])

    (first, then), (again, others) = beliefs(0), beliefs(1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(then, others)
    np.testing.assert_array_equal(then, beliefs(0)[1])


def test_a_pool_of_several_reset_ranges(weights, tmp_path):
    """Starts come from the ranges in turn, each as if it were alone, and environments of each take the pool."""
    args = fill_pool.Args(stage="grasp", count=3, seed=20, weights=weights, out=tmp_path / "p.npz", workers=1)
    fill_pool.fill(dataclasses.replace(args, variant=("D2", "D0")))
    pool = StartPool.load(args.out, task="Threading", variant="D0", stage="grasp")
    assert pool.manifest["variant"] == ["D2", "D0"] and len(pool) == 3
    for i, variant in enumerate(("D2", "D0", "D2")):
        env = make("Skill", weights, variant=variant, stage="grasp")
        env.reset(seed=20 + i)
        np.testing.assert_array_equal(env.get_wrapper_attr("get_state")().simulation, pool[i].simulation)
        make("Skill", weights, variant=variant, stage="grasp", pool=str(args.out)).reset(seed=0)


def test_a_pool_that_plays_on_from_an_earlier_one(weights, tmp_path):
    """A start of an insertion is what the policy makes of a start of a grasp."""
    args = fill_pool.Args(stage="grasp", count=2, seed=20, weights=weights, out=tmp_path / "grasp.npz", workers=1)
    earlier = fill_pool.fill(args)
    later = dataclasses.replace(args, stage="insert", earlier_pool=args.out, out=tmp_path / "insert.npz")
    pool = fill_pool.fill(later)
    assert pool.variants == ["D2"] and len(pool) == 2
    env = make("Skill", weights, stage="insert", earlier_pool=str(args.out))
    task = env.unwrapped.task

    def tripod(snapshot):
        env.unwrapped.engine.restore(snapshot, parts=set())
        return env.unwrapped.object_poses()["tripod"][:2]

    begins = [tripod(snapshot) for snapshot in (earlier[0], earlier[1])]
    for i in range(2):
        assert pool[i].verdict.stage == task.stage_index("insert")
        assert min(np.abs(tripod(pool[i]) - begin).max() for begin in begins) < 1e-3
    env.reset(seed=20)  # snapshot i is made from seed + i and the earlier pool alone
    np.testing.assert_array_equal(env.get_wrapper_attr("get_state")().simulation, pool[0].simulation)
    with pytest.raises(ValueError, match="does not come before 'grasp'"):
        make("Skill", weights, stage="grasp", earlier_pool=str(args.out))
    with pytest.raises(ValueError, match="give one of them"):
        make("Skill", weights, stage="insert", earlier_pool=str(args.out), pool=str(args.out))
    with pytest.raises(ValueError, match="no effect with an earlier_pool"):
        fill_pool.fill(dataclasses.replace(later, variant=("D0",)))


def test_pools_for_something_else_are_refused(pool_file, weights, tmp_path):
    def refuse(path, message, stage="insert", variant="D2"):
        with pytest.raises(PoolError, match=message):
            make("Skill", weights, variant=variant, stage=stage, pool=str(path))

    refuse(pool_file, "for stage 'insert', but 'grasp' is needed", stage="grasp")
    refuse(pool_file, r"for variant \['D2'\], but 'D0' is needed", variant="D0")
    pool = StartPool.load(pool_file)
    other = tmp_path / "other.npz"

    def save(manifest, count=6):
        with np.load(pool_file) as file:
            arrays = {name: file[name][:count] for name in file.files if name != "manifest"}
        StartPool(arrays, {**pool.manifest, **manifest}).save(other)

    save({"task": "Coffee"})
    refuse(other, "for task 'Coffee', but 'Threading' is needed")
    save({}, count=0)
    refuse(other, "no snapshots.*at least one")
    save({"perception": "camera"})
    refuse(other, "for perception 'camera', but 'truth' is needed")
    save({"format": "other"})
    refuse(other, "format 'other'")
    with pytest.raises(PoolError, match="at least one"):
        StartPool.of([], {})
    refuse(tmp_path / "missing.npz", "no pool file.*fill_pool")
    whole = pool_file.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:10], b"", b"not a pool"):
        other.write_bytes(content)
        refuse(other, "not a complete pool file.*make it again")
    np.save(tmp_path / "array.npy", np.zeros(3))
    refuse(tmp_path / "array.npy", "not a complete pool file")
    np.savez(other, something=np.zeros(3))
    refuse(other, "not a complete pool file.*manifest")


# --- connects ---


@pytest.mark.parametrize("metres, radians", [(0.01, np.deg2rad(3.0)), (0.0, 0.05), (0.005, 0.0)])
def test_pose_noise_has_the_asked_spread(metres, radians, weights):
    env = make("Skill", weights, stage="grasp", pose_noise=(metres, radians))
    hybrid, core = hybrid_of(env), env.unwrapped
    offsets = []
    env.reset(seed=0)
    for _ in range(60):
        _, info = env.reset()
        assert info["failure"] == ""
        goal = goal_of(hybrid)
        offset = invert(goal) @ core.sim.eef_pose()
        offsets.append(np.concatenate([offset[:3, 3], matrix_to_rotvec(offset[:3, :3])]))
    spread = np.sqrt(np.mean(np.square(np.array(offsets).reshape(-1, 2, 3)), axis=(0, 2)))
    # The arm stops within some 2 mm and 0.01 rad of where the planner sends it.
    np.testing.assert_allclose(spread[0], metres, rtol=0.2, atol=0.0025)
    np.testing.assert_allclose(spread[1], radians, rtol=0.2, atol=0.012)


def move_during_connect(env, name, shift, at=8):
    """Shift an object, once, at the ``at``-th control step of connects from now on."""
    core = env.unwrapped
    count = 0

    def move():
        nonlocal count
        count += 1
        if count == at:
            address = core.task.object_qpos[name]
            core.data.qpos[address : address + 3] += shift
            core.sim.evaluate()

    in_connects(core.engine, move)
    return lambda: count


def in_connects(engine, do):
    """Call a function after every control step of connects from now on."""
    connecting = False

    def connect(begun):
        nonlocal connecting
        connecting = begun

    engine.events.subscribe("connect_begun", lambda plan: connect(True))
    engine.events.subscribe("connect_ended", lambda done: connect(False))
    engine.events.subscribe("control_step", lambda: do() if connecting else None)


@pytest.mark.parametrize("replan", [False, True])
@pytest.mark.parametrize("stage, name", [("grasp", "needle"), ("insert", "tripod")])
def test_replanning_follows_a_goal_that_is_moved_meanwhile(stage, name, replan, weights, good_seed):
    """Without replanning the hand goes to where the goal was."""
    env = make("Residual", weights, replan=replan)
    hybrid, core = hybrid_of(env), env.unwrapped
    shift = np.array([0.03, 0.0 if name == "needle" else 0.03, 0.0])
    if stage == "grasp":
        moved = move_during_connect(env, name, shift)
        _, info = env.reset(seed=good_seed)
    else:
        _, info = env.reset(seed=good_seed)
        moved = move_during_connect(env, name, shift)
        while core.engine.stage == 0:
            _, _, terminated, truncated, info = env.step(ZERO)
            assert not truncated and (core.engine.stage == 1 or not terminated)
    assert moved() > 8 and info["stage_name"] == stage and info["failure"] == ""
    goal = goal_of(hybrid)
    metres, radians = distance(core.sim.eef_pose(), goal)
    if replan:
        assert metres < 0.01 and radians < 0.1
    else:
        assert metres == pytest.approx(np.linalg.norm(shift), abs=0.01)


@pytest.mark.parametrize("from_the_end", [1, 2])
def test_replanning_follows_a_goal_moved_at_the_very_end(from_the_end, weights, good_seed):
    """No control step of the connect is too late, though the goal is looked at only now and then."""
    steps = make("Skill", weights, stage="grasp").reset(seed=good_seed)[1]["sim_steps"]
    env = make("Skill", weights, stage="grasp", replan=True)
    moved = move_during_connect(env, "needle", np.array([0.03, 0.0, 0.0]), at=steps - from_the_end)
    _, info = env.reset(seed=good_seed)
    hybrid = hybrid_of(env)
    assert moved() > steps and info["sim_steps"] == moved()
    goal = goal_of(hybrid)
    assert distance(env.unwrapped.sim.eef_pose(), goal)[0] < 0.01


def test_a_goal_that_never_rests_fails_the_connect(weights, good_seed):
    env = make("Hybrid", weights, replan=True)
    core, angle = env.unwrapped, 0.0

    def move():  # in a circle
        nonlocal angle
        angle += 0.3
        address = core.task.object_qpos["needle"]
        core.data.qpos[address : address + 2] += 0.015 * np.array([np.cos(angle), np.sin(angle)])
        core.sim.evaluate()

    in_connects(core.engine, move)
    _, info = env.reset(seed=good_seed)
    assert info["failure"] == "connect: goal keeps moving"
    assert core.data.time == pytest.approx(info["sim_steps"] * CONTROL_STEP)


class Unsure(PoseErrors):
    """Exact poses that may be off."""

    def doubt(self, belief, task, name):
        return 0.08, 0.0


@pytest.mark.parametrize("perception, followed", [(PoseErrors(), True), (Unsure(), False)])
@pytest.mark.parametrize("replan", [True, (0.01, 0.1, 0.5)])
def test_a_goal_that_moves_by_less_than_is_not_known_of_it_is_left(replan, perception, followed, weights, good_seed):
    env = make("Skill", weights, stage="grasp", replan=replan, perception=perception)
    moved = move_during_connect(env, "needle", np.array([0.03, 0.0, 0.0]))
    env.reset(seed=good_seed)
    assert moved() > 8
    metres, _ = distance(env.unwrapped.sim.eef_pose(), goal_of(hybrid_of(env)))
    assert metres < 0.01 if followed else metres == pytest.approx(0.03, abs=0.01)


def test_what_is_not_known_of_a_goal_grows_with_the_levers(weights, good_seed):
    class Turned(PoseErrors):
        def doubt(self, belief, task, name):
            return (0.0, 0.1) if name == "tripod" else (0.004, 0.0)

    env = make("Residual", weights, perception=Turned())
    env.reset(seed=good_seed)
    engine = env.unwrapped.engine
    pose = engine.task.object_pose(engine.belief, "needle")
    assert goal_doubt(engine, pose) == pytest.approx((0.004, 0.0))  # the grasp's reference is the needle
    engine.enter_stage(1)
    away = engine.task.object_pose(engine.belief, "tripod")
    away[:3, 3] += [0.0, 0.3, 0.0]
    assert goal_doubt(engine, away) == pytest.approx((np.hypot(0.03, 0.004), 0.1))


@pytest.mark.parametrize("replan", [1, "yes", "123", (0.01, 0.1), (0.01, 0.1, -1.0), (0.01, 0.1, np.nan), np.zeros(4)])
def test_replanning_takes_three_thresholds_or_a_truth_value(replan, weights):
    with pytest.raises(InvalidArgument, match="True, False or \\(metres, radians, standard deviations\\)"):
        make("Hybrid", weights, replan=replan)


@pytest.mark.parametrize("stage", [0, 1])
def test_a_failed_plan_is_reported_and_never_raised(stage, weights, good_seed):
    env = make("Residual", weights)
    core, connector = env.unwrapped, hybrid_of(env).engine.connector
    plan = connector.plan
    connector.plan = lambda *args: Plan("no_path") if core.engine.stage == stage else plan(*args)
    obs, info = env.reset(seed=good_seed)
    total, terminated = 0.0, False
    if stage == 0:
        assert info["failure"] == "connect: no_path" and info["planner"]["status"] == "no_path"
    while not terminated:
        assert info["failure"] == "" or stage == 0
        obs, reward, terminated, truncated, info = env.step(ZERO)
        total += reward
        assert not truncated
    assert info["failure"] == "connect: no_path"
    assert info["planner"]["status"] == ("no_path" if stage else "none")  # of this step's connect
    assert info["stage"] == stage and not info["success"] and total == 0.5 * stage
    assert env.observation_space.contains(obs)
    connector.plan = plan
    assert env.reset(seed=good_seed)[1]["failure"] == ""


def test_an_object_out_of_reach_is_a_failed_connect(weights):
    env = make("Hybrid", weights)
    far = {"needle": np.array([0.37, 0.37, 0.82, 1, 0, 0, 0])}
    _, info = env.reset(seed=0, options={"layout": far})
    assert info["failure"] == "connect: no source within reach" and info["planner"]["status"] == "none"
    _, reward, terminated, truncated, info = env.step(ZERO)
    assert terminated and not truncated and reward == 0 and info["failure"].startswith("connect")


# --- learned decisions ---


def test_the_termination_predictor_ends_skills_without_simulator_truth(weights, good_seed):
    """With predicates that lie, everything but the success accounting is the same bit for bit, until success would end it."""
    honest = play(make("Residual", weights, termination="predictor"), lambda _: ZERO, good_seed)
    env = make("Residual", weights, termination="predictor")
    env.unwrapped.task.predicates = lambda sim: {"never": False}
    env.unwrapped.task.stage_done = lambda sim, stage: False
    lying = play(env, lambda _: ZERO, good_seed)
    assert len(honest) == len(lying) and {step[4]["stage"] for step in honest} == {0, 1}
    for a, b in zip(honest, lying, strict=True):
        if not b[2]:  # success would have ended the wait for it at the very end
            np.testing.assert_array_equal(a[0], b[0])
        assert a[2:4] == b[2:4] and not b[4]["success"] and b[1] == 0
    assert lying[-1][4]["failure"] == "termination" and lying[-1][4]["sim_steps"] == 1 + REST


def test_the_termination_predictor_ends_skills_near_the_truth(weights):
    env = make("Residual", weights, stage="grasp", termination="predictor")
    core, late = env.unwrapped, []
    for seed in range(10):
        env.reset(seed=seed)
        finished, steps, done = 0, 0, False
        while not done:
            _, _, terminated, truncated, info = env.step(ZERO)
            steps, done = steps + 1, terminated or truncated
            if core.engine.judge.finished and not finished:
                finished = steps
        if terminated and info["success"]:
            late.append(steps - finished)
    assert late and np.median(late) <= 6


def test_the_student_chooses_initiation_poses(weights):
    """The source that the predictor ranks first is copied, unless it is out of reach."""
    env = make("Skill", weights, stage="grasp", initiation="student")
    hybrid = hybrid_of(env)
    sources = np.arange(len(hybrid.skeleton.tools))
    np.testing.assert_array_equal(np.sort(hybrid.initiation.act(env.unwrapped.observe()[None])[0]), sources)
    chosen = []
    for first in sources:
        hybrid.initiation.act = lambda obs, first=first: np.roll(sources, -first)[None]
        _, info = env.reset(seed=0)
        assert info["failure"] == ""
        chosen.append(hybrid.counters.source)
    assert len(set(chosen)) >= 3 and np.sum(chosen == sources) >= 3
