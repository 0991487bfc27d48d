"""The engine without Gymnasium: events, belief and perception, snapshots in files, copies and pickles."""

import copy
import pickle
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from helpers import hybrid_of

import reinforcegen_envs  # noqa: F401 (registers the ids)
from reinforcegen_envs import evaluate
from reinforcegen_envs.engine import Engine, Snapshot, SnapshotError
from reinforcegen_envs.engine.engine import BACK_STEPS, EASED, PRESSED
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.perception import ApproachErrors, PoseErrors, Truth
from reinforcegen_envs.planning.connect import Connector
from reinforcegen_envs.poses import distance, translation
from reinforcegen_envs.sim.kernel import GRIPPER
from reinforcegen_envs.tasks import ThreadingTask

HYBRID = "ReinforceGen/D2-Threading-Hybrid-v0"
RESIDUAL = "ReinforceGen/D2-Threading-Residual-v0"


def engine_of(seed=0, perception=None, variant="D0"):
    engine = Engine(ThreadingTask, variant, perception=perception)
    engine.rng = np.random.default_rng(seed)
    engine.reset()
    return engine


def core_of(env: Any) -> ManipulationEnv:
    return env.unwrapped


def actions(steps, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (steps, 7))


# --- events ---


def test_listeners_hear_what_happens():
    env = core_of(gym.make(HYBRID))
    hybrid = gym.make(HYBRID)
    engine = core_of(hybrid).engine
    heard = []
    for event in ("connect_begun", "connect_ended", "stage_entered", "stage_finished"):
        engine.events.subscribe(event, lambda *arguments, event=event: heard.append((event, *arguments)))
    steps = []
    unsubscribe = engine.events.subscribe("control_step", lambda: steps.append(engine.sim.data.time))
    _, info = hybrid.reset(seed=6)
    assert [name for name, *_ in heard] == ["stage_entered", "connect_begun", "connect_ended"]
    assert heard[0][1] == 0 and heard[1][1].solved and heard[2][1].steps == info["sim_steps"] == len(steps)
    hybrid.step(np.zeros(7))
    assert len(steps) == info["sim_steps"] + 1 and np.all(np.diff(steps) > 0)
    unsubscribe()
    hybrid.step(np.zeros(7))
    assert len(steps) == info["sim_steps"] + 1
    with pytest.raises(InvalidArgument, match="unknown event 'lunch'.*control_step"):
        env.engine.events.subscribe("lunch", print)


# --- belief ---


def test_truth_is_the_simulation_itself():
    engine = engine_of()
    assert engine.belief is engine.sim and isinstance(engine.perception, Truth)


@pytest.mark.parametrize("env_id", ["ReinforceGen/D2-NutAssembly-Residual-v0", RESIDUAL])
def test_perception_without_error_changes_no_bit(env_id):
    """A belief of its own, filled with what is true: planner, policies and observations cannot tell."""
    runs = []
    for perception in ("truth", PoseErrors()):
        env = gym.make(env_id, perception=perception, initiation="student", termination="predictor")
        run = []
        for seed in (1, 2):
            obs, info = env.reset(seed=seed)
            run.append(obs)
            for action in actions(40, seed):
                obs, reward, terminated, truncated, info = env.step(action)
                run += [obs, np.array([reward, terminated, truncated, info["sim_steps"]])]
                if terminated or truncated:
                    break
            run.append(core_of(env).data.qpos.copy())
        runs.append(run)
    assert len(runs[0]) == len(runs[1])
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_errors_are_as_large_as_asked_and_constant_in_an_episode():
    metres, radians = [], []
    engine = Engine(ThreadingTask, "D0", perception=PoseErrors(metres=0.002, radians=0.02))
    engine.rng = np.random.default_rng(0)
    for _ in range(60):
        engine.reset()
        errors = []
        for _ in range(2):
            for name in engine.task.objects:
                errors.append(
                    distance(engine.task.object_pose(engine.belief, name), engine.task.object_pose(engine.sim, name))
                )
            engine.act(np.zeros(7))
        np.testing.assert_allclose(errors[:2], errors[2:], atol=1e-9)
        metres += [m for m, _ in errors[:2]]
        radians += [r for _, r in errors[:2]]
    # The length of a vector of three normal numbers has a mean square of three variances.
    assert np.sqrt(np.mean(np.square(metres)) / 3) == pytest.approx(0.002, rel=0.15)
    assert np.sqrt(np.mean(np.square(radians)) / 3) == pytest.approx(0.02, rel=0.15)


def test_step_errors_are_drawn_anew_and_the_robot_is_known_exactly():
    engine = engine_of(perception=PoseErrors(step_metres=0.003))
    seen = []
    for action in actions(5):
        engine.act(action)
        seen.append(engine.task.object_pose(engine.belief, "needle")[:3, 3].copy())
        np.testing.assert_array_equal(engine.belief.eef_pose(), engine.sim.eef_pose())
        np.testing.assert_array_equal(engine.belief.joints, engine.sim.joints)
    assert len({tuple(place) for place in seen}) == 5


def test_errors_shrink_as_the_hand_comes_nearer():
    engine = engine_of(perception=ApproachErrors(metres=0.03, near=0.1, far=0.3))

    def error_at(metres):
        """Of the needle, when the centre of its nearest geom is this far from the grip site."""
        for _ in range(50):  # which one is nearest changes on the way
            hand = engine.sim.eef_pose()[:3, 3]
            centres = engine.sim.data.geom_xpos[engine.task.object_geoms["needle"]]
            nearest = centres[np.linalg.norm(centres - hand, axis=1).argmin()]
            pose = engine.task.root_pose7(engine.sim, "needle").copy()
            pose[:3] += hand + [metres, 0.0, 0.0] - nearest
            engine.task.write_pose7(engine.sim, "needle", pose)
            engine.sim.evaluate()
        engine.perception.update(engine.sim, engine.belief, engine.task)
        engine.belief.evaluate()
        true, believed = (engine.task.object_pose(state, "needle") for state in (engine.sim, engine.belief))
        return believed[:3, 3] - true[:3, 3]

    whole = error_at(0.4)
    assert np.linalg.norm(whole) > 0.005
    np.testing.assert_allclose(error_at(0.3), whole, atol=1e-6)
    np.testing.assert_allclose(error_at(0.2), whole / 2, atol=1e-6)
    np.testing.assert_array_equal(error_at(0.09), np.zeros(3))


def test_errors_leave_the_environments_own_draws_alone():
    truth, errors = engine_of(3), engine_of(3, PoseErrors(metres=0.01, step_metres=0.01))
    for engine in (truth, errors):
        engine.act(np.zeros(7))
    assert truth.rng.bit_generator.state == errors.rng.bit_generator.state
    np.testing.assert_array_equal(truth.sim.data.qpos, errors.sim.data.qpos)


def test_bad_errors_are_refused():
    with pytest.raises(InvalidArgument, match="radians is nan"):
        PoseErrors(radians=float("nan"))
    with pytest.raises(InvalidArgument, match="far beyond near"):
        ApproachErrors(near=0.3, far=0.2)
    with pytest.raises(InvalidArgument, match="unknown perception 'smell'.*truth"):
        gym.make("ReinforceGen/D0-Threading-v0", perception="smell")


def test_the_planner_plans_to_where_an_object_is_believed_to_be():
    """It goes there; the judge goes by where things are, and the checker keeps away from what is believed."""
    engine = engine_of(6, PoseErrors(), "D2")
    moved = translation(0.0, 0.0, 0.06)
    needle = engine.task.object_pose(engine.sim, "needle")
    pose = engine.task.root_pose7(engine.belief, "needle").copy()
    pose[2] += 0.06
    engine.perception.update = lambda truth, belief, task, stage=0: _keep(belief, truth, task, pose)  # type: ignore[method-assign]
    engine.perception.update(engine.sim, engine.belief, engine.task)
    engine.belief.evaluate()
    tool = np.linalg.inv(needle) @ engine.sim.eef_pose()
    believed = engine.connector.goal(0, tool)
    true = Connector(engine.sim, engine.task).goal(0, tool)
    np.testing.assert_allclose(believed, moved @ true, atol=1e-9)
    observed = engine.observe()[engine.layout.slices["ref_pos_world"]]
    np.testing.assert_allclose(observed, needle[:3, 3] + [0, 0, 0.06], atol=1e-6)
    engine.connector.checker.update(None)
    np.testing.assert_allclose(
        engine.connector.checker.data.qpos[engine.task.object_qpos["needle"] + 2], needle[2, 3] + 0.06, atol=1e-9
    )
    assert engine.judge.failure() is None


def _keep(belief, truth, task, pose):
    belief.follow(truth)
    task.write_pose7(belief, "needle", pose)


def test_perceptions_memory_and_belief_belong_to_the_snapshot():
    env = ManipulationEnv("Threading", "D1", perception=PoseErrors(metres=0.002, step_metres=0.001))
    env.reset(seed=5)
    for action in actions(5):
        env.step(action)
    state = env.get_state()
    expected = [env.step(action)[0] for action in actions(10, 1)]
    other = ManipulationEnv("Threading", "D1", perception=PoseErrors(metres=0.002, step_metres=0.001))
    other.reset(seed=99)
    other.set_state(state)
    for action, obs in zip(actions(10, 1), expected, strict=True):
        np.testing.assert_array_equal(other.step(action)[0], obs)
    truth = ManipulationEnv("Threading", "D1")
    truth.reset(seed=0)
    with pytest.raises(SnapshotError, match="perception 'pose_errors'.*'truth'"):
        truth.set_state(state)


# --- snapshots in files ---


def test_a_snapshot_goes_through_arrays(tmp_path):
    env = gym.make(RESIDUAL, perception=PoseErrors(metres=0.001), termination="predictor")
    env.reset(seed=3)
    for action in actions(8):
        env.step(action)
    state = env.get_wrapper_attr("get_state")()
    assert set(state.parts) == {"counters", "termination", "base_policy", "pending"}
    np.savez(tmp_path / "state.npz", **state.to_arrays())
    with np.load(tmp_path / "state.npz", allow_pickle=False) as file:
        read = Snapshot.from_arrays(dict(file))
    expected = [env.step(action)[0] for action in actions(10, 1)]
    env.get_wrapper_attr("set_state")(read)
    for action, obs in zip(actions(10, 1), expected, strict=True):
        np.testing.assert_array_equal(env.step(action)[0], obs)
    with pytest.raises(SnapshotError, match="not a complete snapshot"):
        Snapshot.from_arrays({"document": np.array("{}")})


def test_parts_that_play_here_must_be_in_the_snapshot():
    hybrid, residual = gym.make(HYBRID), gym.make(RESIDUAL)
    hybrid.reset(seed=3)
    residual.reset(seed=3)
    before = core_of(residual).get_state()
    with pytest.raises(SnapshotError, match="lacks.*base_policy"):
        core_of(residual).set_state(core_of(hybrid).get_state())
    assert core_of(residual).get_state().to_arrays()["document"] == before.to_arrays()["document"]
    core_of(hybrid).set_state(before)  # what plays nowhere here is left alone


def test_setting_the_state_beneath_a_residual_environment_takes_the_base_action_along():
    env = gym.make(RESIDUAL)
    env.reset(seed=3)
    state = core_of(env).get_state()
    expected = [env.step(action)[0] for action in actions(5)]
    env.reset(seed=4)
    env.step(np.zeros(7))
    core_of(env).set_state(state)
    for action, obs in zip(actions(5), expected, strict=True):
        np.testing.assert_array_equal(env.step(action)[0], obs)


# --- copies ---

MODES = [
    ("ReinforceGen/D2-Threading-v0", {}),
    (HYBRID, {"termination": "sustained"}),
    ("ReinforceGen/D2-Threading-Skill-v0", {"stage": "grasp"}),
    (RESIDUAL, {"termination": "predictor", "perception": PoseErrors(metres=0.001)}),
]


@pytest.mark.parametrize("env_id, kwargs", MODES)
@pytest.mark.parametrize("how", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"])
def test_a_copy_goes_on_bit_for_bit_and_leaves_the_original_alone(env_id, kwargs, how):
    env = gym.make(env_id, **kwargs)
    env.reset(seed=6)
    for action in actions(5):
        env.step(action)
    twin = how(env)
    before = core_of(env).get_state()
    results = [twin.step(action)[0] for action in actions(20, 1)]
    assert core_of(env).get_state().to_arrays()["document"] == before.to_arrays()["document"]
    np.testing.assert_array_equal(core_of(env).get_state().simulation, before.simulation)
    for action, expected in zip(actions(20, 1), results, strict=True):
        np.testing.assert_array_equal(env.step(action)[0], expected)
    np.testing.assert_array_equal(env.reset()[0], twin.reset()[0])
    assert core_of(env).model is core_of(twin).model  # one MjModel a process, in copies too


UNPICKLE = """
import pickle, sys
import numpy as np
env = pickle.load(open(sys.argv[1], "rb"))
for _ in range(10):
    obs, *_ = env.step(np.full(7, 0.2))
print(obs.tobytes().hex(), env.reset()[0].tobytes().hex())
"""


def test_an_environment_goes_on_in_a_new_process(tmp_path):
    env = gym.make(RESIDUAL, termination="sustained")
    env.reset(seed=6)
    env.step(np.zeros(7))
    (tmp_path / "env.pkl").write_bytes(pickle.dumps(env))
    for _ in range(10):
        obs, *_ = env.step(np.full(7, 0.2))
    run = subprocess.run(
        [sys.executable, "-c", UNPICKLE, str(tmp_path / "env.pkl")], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == [obs.tobytes().hex(), env.reset()[0].tobytes().hex()]


# --- observations ---


def test_observations_as_a_dictionary():
    flat = gym.make(RESIDUAL)
    named = gym.make(RESIDUAL, obs_mode="state_dict")
    layout = core_of(flat).layout
    assert set(named.observation_space.spaces) == set(layout.slices)  # type: ignore[attr-defined]
    pairs = [(flat.reset(seed=2)[0], named.reset(seed=2)[0])]
    pairs += [(flat.step(action)[0], named.step(action)[0]) for action in actions(5)]
    for vector, dictionary in pairs:
        assert dictionary in named.observation_space
        for name, part in layout.slices.items():
            np.testing.assert_array_equal(dictionary[name], vector[part])


def test_bounds_are_finite_so_that_observations_can_be_rescaled():
    env = gym.wrappers.RescaleObservation(gym.make(RESIDUAL), np.float32(-1), np.float32(1))
    seen = [env.reset(seed=0)[0]] + [env.step(action)[0] for action in actions(15)]
    assert np.abs(seen).max() <= 1.0
    assert (np.std(seen, axis=0) > 1e-4).sum() > 20  # not constants


# --- what is put in between ---


def test_a_wrapper_between_ours_and_the_core_is_refused():
    from reinforcegen_envs.wrappers import Hybrid, Residual

    core = ManipulationEnv("Threading", "D0")
    between = gym.wrappers.ClipAction(core)
    with pytest.raises(InvalidArgument, match="plain environment itself"):
        Hybrid(between)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="Hybrid or Skill environment itself"):
        Residual(gym.wrappers.ClipAction(Hybrid(core)))  # type: ignore[arg-type]


def test_what_is_within_reach_does_not_depend_on_what_was_planned_before():
    """Bit for bit: a copy, or another process, has planned nothing yet."""
    hybrids = [gym.make(HYBRID) for _ in range(2)]
    margins = []
    for seeds, hybrid in zip([(3,), (8, 9, 3)], hybrids, strict=True):
        for seed in seeds:
            core_of(hybrid).reset(seed=seed)
            engine = core_of(hybrid).engine
            kinematics = engine.connector.checker.kinematics
            skeleton = hybrid.get_wrapper_attr("skeleton")
            margins.append(skeleton.margins(engine.belief, engine.task, kinematics, 0))
            engine.plan(engine.connector.goal(0, skeleton.tools[0, 0, 0]))
    np.testing.assert_array_equal(margins[0], margins[-1])


def test_a_hand_that_presses_goes_back_by_what_it_came_by():
    engine = engine_of()
    down = np.array([0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0])
    assert engine.ease(np.zeros((5, 7))) == 0  # it hangs in the air
    trail = []
    for _ in range(60):
        engine.act(down)
        trail.append(engine.sim.joints.copy())
        if np.abs(engine.sim.outside_torques).max() > PRESSED:
            break
    height = engine.sim.eef_pose()[2, 3]
    assert 0 < engine.ease(np.array(trail[::-1])) <= BACK_STEPS
    assert np.abs(engine.sim.outside_torques).max() < EASED and engine.sim.eef_pose()[2, 3] > height
    assert engine.sim.controller[GRIPPER] > 0  # what it holds it keeps
    assert engine.ease(np.array(trail[::-1])) == 0


def test_between_skills_a_hand_that_presses_gives_way_and_time_is_counted(monkeypatch):
    env, policy = evaluate.make(evaluate.Args(env_id=RESIDUAL, policy="base"))
    engine = core_of(env).engine
    asked = []

    def ease(way_back):
        asked.append((engine.stage, len(way_back), np.abs(engine.sim.joints - way_back[0]).max()))
        return 7

    monkeypatch.setattr(engine, "ease", ease)
    obs, info = env.reset(seed=1)
    length = 0
    while info["stage"] == 0:
        obs, *_, info = env.step(policy(obs))
        length += 1
    ((stage, points, apart),) = asked
    assert stage == 0 and 10 < points <= length and apart < 0.02
    assert info["sim_steps"] == 1 + 7 + hybrid_of(env)._approach.last.steps
