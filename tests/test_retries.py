"""A skill that has run out of time is begun again: from where it starts, within the task's horizon, paid once."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from helpers import goal_of, hybrid_of

import reinforcegen_envs  # noqa: F401 (registers the ids)
from reinforcegen_envs import evaluate
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.evaluation.play import Episode
from reinforcegen_envs.evaluation.summary import read_csv, report, summarise, write_csv
from reinforcegen_envs.models.nuts import NUT_HALF_THICKNESS
from reinforcegen_envs.perception import PoseErrors
from reinforcegen_envs.planning.motion import Plan
from reinforcegen_envs.poses import distance, matrix_from, rotation, rotvec_to_matrix, to_pose7, translation
from reinforcegen_envs.wrappers.counters import STALLED
from reinforcegen_envs.wrappers.hybrid import REST
from reinforcegen_envs.wrappers.retries import PATIENCE

ID = "ReinforceGen/D0-Threading-Residual-v0"
ZERO = np.zeros(7, np.float32)
STAY = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0], np.float32)
DOWN = np.array([0.0, 0.0, -0.5, 0.0, 0.0, 0.0, -1.0], np.float32)
UP = np.array([0.0, 0.0, 0.5, 0.0, 0.0, 0.0, -1.0], np.float32)

DROPPED = translation(0.0, 0.0, 0.08)  # in the hand's frame


def make(weights, **kwargs: Any) -> Any:
    return gym.make(ID, weights=weights, disable_env_checker=True, **kwargs)


def wander(step):
    """Up and down, so that the hand does not count as stuck."""
    return UP if step // 5 % 2 else DOWN


def spoil(env, steps):
    """Steps that lead nowhere; the last step's answer."""
    for step in range(steps):
        answer = env.step(wander(step))
        assert not answer[2] and answer[4]["success"] is False
    return answer


def time_of(env):
    """Control steps that the current skill may take before it is begun again."""
    hybrid = hybrid_of(env)
    horizon = env.unwrapped.task.stages[hybrid.engine.stage].horizon
    if not hybrid._retries.count:
        return horizon
    return min(horizon, int(hybrid.skeleton.lengths[hybrid.counters.source, hybrid.engine.stage]) + PATIENCE)


@pytest.fixture
def hybrid_env(weights):
    """Makes a hybrid environment in whose first skill the hand has wandered up and down until its time is nearly up."""

    def make_one(**kwargs: Any) -> Any:
        env: Any = gym.make("ReinforceGen/D0-Threading-Hybrid-v0", weights=weights, disable_env_checker=True, **kwargs)
        _, info = env.reset(seed=3)
        assert info["failure"] == "" and info["retries"] == 0
        spoil(env, time_of(env) - 1)
        return env

    return make_one


def test_without_retries_a_late_skill_is_the_end(hybrid_env):
    *_, terminated, truncated, info = hybrid_env().step(STAY)
    assert truncated and not terminated and (info["failure"], info["retries"]) == ("skill timeout", 0)


def test_the_hand_backs_out_and_the_skill_starts_again(hybrid_env):
    env = hybrid_env(retries=1)
    hybrid, before = hybrid_of(env), hybrid_of(env).counters.source
    _, _, terminated, truncated, info = env.step(STAY)
    assert info["failure"] == "" and info["stage"] == 0 and not terminated and not truncated
    assert info["retries"] == 1 and info["planner"]["status"] in ("line", "lift", "birrt") and info["sim_steps"] > 5
    assert hybrid.counters.source != before  # another start may lead elsewhere
    metres, radians = distance(env.unwrapped.sim.eef_pose(), goal_of(hybrid))
    assert metres < 0.01 and radians < 0.1 and env.unwrapped.sim.gripper_opening() > 0.9
    horizon = env.unwrapped.task.stages[0].horizon
    spoil(env, horizon - 1)
    *_, truncated, info = env.step(STAY)
    assert truncated and info["failure"] == "skill timeout"  # there was one retry


def test_the_task_s_horizon_stays(hybrid_env):
    env = hybrid_env(retries=10)
    hybrid, done, step = hybrid_of(env), False, 0
    while not done:
        *_, terminated, done, info = env.step(wander(step))
        step += 1
        assert not terminated
    assert env.unwrapped.task.horizon <= hybrid.counters.steps < env.unwrapped.task.horizon + 200
    assert info["failure"] == "skill timeout" and 1 <= info["retries"] < 10


def test_the_base_policy_succeeds_after_a_retry_and_replays(weights):
    """The return is 1, the needle is taken the second time; from a snapshot before the retry the rest is the same."""
    runs = []
    env = make(weights, retries=1, residual_scale=1.0)
    for attempt in range(2):
        if attempt == 0:
            env.reset(seed=5)
            spoil(env, time_of(env) - 1)
            state = env.get_wrapper_attr("get_state")()
        else:
            env.get_wrapper_attr("set_state")(state)
        rewards, info, done = [], {}, False
        while not done:
            obs, reward, terminated, truncated, info = env.step(ZERO)
            done = terminated or truncated
            rewards.append((reward, obs.tobytes(), info["retries"]))
        runs.append(rewards)
        assert info["success"] and info["retries"] == 1 and sum(r for r, *_ in rewards) == pytest.approx(1.0)
    assert runs[0] == runs[1]


def test_a_stage_is_paid_once(weights):
    """A grasp that nobody ends is finished, runs out of time, and is finished again."""
    env = make(weights, retries=1, termination=lambda observation: False)
    env.reset(seed=5)
    rewards, truncated = [], False
    while not truncated:
        _, reward, terminated, truncated, info = env.step(ZERO)
        assert not terminated
        rewards.append(reward)
    assert info["retries"] == 1 and np.count_nonzero(rewards) == 1 and sum(rewards) == 0.5


def test_where_no_plan_leads_out_the_hand_goes_back_as_it_came(hybrid_env, monkeypatch):
    env = hybrid_env(retries=1)
    hybrid, engine = hybrid_of(env), env.unwrapped.engine
    plan, retrace = engine.connector.plan, engine.retrace
    begun = engine.connector.planner._kinematics.forward(hybrid.counters.trail[0])
    back = []

    def retraced(trail, gripper):
        steps = retrace(trail, gripper)
        back.append((steps, engine.sim.eef_pose()))
        return steps

    monkeypatch.setattr(engine, "retrace", retraced)
    monkeypatch.setattr(engine.connector, "plan", lambda *a: plan(*a) if back else Plan("start_collision"))
    before = hybrid.counters.steps
    *_, truncated, info = env.step(UP)
    assert not truncated and info["failure"] == "" and info["retries"] == 1
    ((steps, pose),) = back
    assert steps > 3 and distance(pose, begun)[0] < 0.01
    assert info["sim_steps"] == hybrid.counters.steps - before >= steps


def test_where_no_plan_leads_back_the_skill_goes_on(hybrid_env, monkeypatch):
    env = hybrid_env(retries=1)
    hybrid, engine = hybrid_of(env), env.unwrapped.engine
    monkeypatch.setattr(engine.connector, "plan", lambda *a: Plan("start_collision"))
    *_, terminated, truncated, info = env.step(UP)
    assert not terminated and not truncated and (info["failure"], info["stage"], info["retries"]) == ("", 0, 1)
    spoil(env, env.unwrapped.task.stages[0].horizon - 1)
    *_, truncated, info = env.step(STAY)
    assert truncated and info["failure"] == "skill timeout" and hybrid.counters.retries == 1


@pytest.mark.parametrize("retries", [0, 1])
def test_a_grasp_whose_end_was_announced_in_vain(retries, weights):
    """The needle still stands on the table: it is taken anew, not carried."""
    calls = []
    env = make(weights, retries=retries, termination=lambda observation: calls.append(0) or len(calls) == 1)
    env.reset(seed=5)
    source = hybrid_of(env).counters.source
    *_, terminated, _, info = env.step(ZERO)
    counters = hybrid_of(env).counters
    if retries:
        assert not terminated and (info["stage"], info["retries"], counters.tried) == (0, 1, (source,))
        assert counters.source != source
    else:
        assert info["stage"] == 1


def test_what_cannot_be_carried_is_taken_otherwise(weights, monkeypatch):
    env = make(weights, retries=1)
    engine = env.unwrapped.engine
    env.reset(seed=5)
    plan = engine.connector.plan
    monkeypatch.setattr(
        engine.connector, "plan", lambda goal, held, *a: Plan("goal_collision") if held else plan(goal, held, *a)
    )
    while not (info := env.step(ZERO)[4])["retries"]:
        assert info["stage"] == 0 and info["failure"] == ""
    assert info["stage"] == 0 and hybrid_of(env).counters.retries == 1
    monkeypatch.undo()
    done = False
    while not done:
        *_, terminated, truncated, info = env.step(ZERO)
        done = terminated or truncated
    assert info["success"] and info["failure"] == ""


@pytest.mark.parametrize("retries", [0, 5])
def test_what_is_believed_to_be_done_is_done(retries, weights):
    """The last skill has come to rest with success, and nobody ends it: hands went on, and did not keep what they had done."""
    env = make(weights, retries=retries, termination=lambda observation: ends.pop() if ends else False)
    ends: list[bool] = []
    engine = env.unwrapped.engine
    env.reset(seed=5)
    over = False
    while not over:
        if engine.stage == 0 and engine.judge.finished:
            ends = [True]
        *_, terminated, truncated, info = env.step(ZERO)
        over = terminated or truncated
    assert info["success"] and info["retries"] == 0 and terminated == (retries > 0)
    assert hybrid_of(env).counters.still == (STALLED if retries else 0)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_task_that_was_said_to_be_done_in_vain(retries, weights):
    """The needle is still in the hand when the insertion is said to be over: with retries that is not the end of it."""
    env = make(weights, retries=retries, termination=lambda observation: ends.pop() if ends else engine.judge.finished)
    ends: list[bool] = []
    engine = env.unwrapped.engine
    env.reset(seed=5)
    while engine.stage == 0:
        env.step(ZERO)
    ends = [True]
    *_, terminated, truncated, info = env.step(ZERO)
    assert not truncated and terminated == (not retries)
    assert (info["failure"], info["stage"], info["retries"]) == ("" if retries else "termination", 1, retries)
    while not (terminated or truncated):
        *_, terminated, truncated, info = env.step(ZERO)
    assert info["success"] == bool(retries) and not ends


def test_what_cannot_be_taken_anew_is_worked_on_where_it_is(weights, monkeypatch):
    """What the hand has let go of is out of its reach, but the skill's start is not."""
    env = make(weights, retries=1)
    hybrid, engine = hybrid_of(env), env.unwrapped.engine
    env.reset(seed=5)
    while engine.stage == 0:
        env.step(ZERO)
    plan = engine.connector.plan
    monkeypatch.setattr(hybrid._retries, "lost", lambda: 0)
    monkeypatch.setattr(
        engine.connector, "plan", lambda goal, held, *a: plan(goal, held, *a) if held else Plan("goal_collision")
    )
    monkeypatch.setattr(engine, "open_hand", lambda: 0)
    monkeypatch.setattr(hybrid.counters, "still", STALLED)
    monkeypatch.setattr(hybrid.counters, "watch", lambda *_: None)
    before = hybrid.counters.steps
    *_, terminated, truncated, info = env.step(ZERO)
    assert not terminated and not truncated and info["failure"] == ""
    assert (info["stage"], info["retries"], info["sim_steps"]) == (1, 1, hybrid.counters.steps - before)


@pytest.mark.parametrize("retries", [0, 3])
def test_a_hand_that_no_longer_moves_is_not_waited_for(retries, weights):
    env: Any = gym.make(
        "ReinforceGen/D0-Threading-Hybrid-v0", weights=weights, disable_env_checker=True, retries=retries
    )
    env.reset(seed=3)
    horizon = env.unwrapped.task.stages[0].horizon
    info: dict[str, Any] = {"retries": 0}
    steps = 0
    while not info["retries"] and steps < horizon:
        *_, truncated, info = env.step(STAY)
        steps += 1
    assert (steps < 45, truncated, info["retries"]) == ((True, False, 1) if retries else (False, True, 0))


def test_the_hand_backs_out_of_where_only_its_own_axis_leads(weights, monkeypatch):
    """Leaning in a narrow pit."""
    env: Any = gym.make("ReinforceGen/D0-Threading-Hybrid-v0", weights=weights, disable_env_checker=True)
    env.reset(seed=3)
    planner = env.unwrapped.engine.connector.planner
    checker, kinematics = planner._checker, planner._kinematics
    posture = env.unwrapped.sim.posture.copy()
    leaning = kinematics.forward(env.unwrapped.sim.joints) @ matrix_from(
        rotvec_to_matrix(np.array([0.6, 0.0, 0.0])), np.zeros(3)
    )
    start = kinematics.solve(leaning, env.unwrapped.sim.joints.copy(), posture).joints
    pose = kinematics.forward(start)

    def depth(joints):
        return pose[:3, 2] @ (pose[:3, 3] - kinematics.forward(joints)[:3, 3])  # along the hand's axis, outwards

    def beside(joints):
        moved = kinematics.forward(joints)[:3, 3] - pose[:3, 3]
        return np.linalg.norm(moved + depth(joints) * pose[:3, 2])

    monkeypatch.setattr(checker, "collides", lambda joints: beside(joints) > 0.01 or depth(joints) < 0.03)
    monkeypatch.setattr(checker, "clearance", lambda joints: -beside(joints))
    assert abs(pose[2, 2]) < 0.9  # it leans
    out = planner._retreat(start, posture)
    assert out is not None and depth(out) > 0.03 and beside(out) < 0.001


@pytest.mark.parametrize("opened", [False, True])
def test_a_skill_that_came_with_something(opened, weights, monkeypatch):
    """It is begun again with what is in the hand; what was let go is grasped anew, which is not paid again."""
    env = make(weights, retries=1)
    engine = env.unwrapped.engine
    env.reset(seed=5)
    paid = 0.0
    while engine.stage == 0:
        paid += env.step(ZERO)[1]
    lifted = engine.snapshot()
    hybrid = hybrid_of(env)
    while hybrid.counters.still < STALLED - 1:
        engine.restore(lifted, set())  # nothing gets on
        *_, truncated, info = env.step(ZERO)
        assert not truncated
    assert hybrid._retries.lost() is None
    if opened:
        before = engine.snapshot()
        engine.sim.data.qpos[engine.task.object_qpos["needle"]] += 0.05
        engine.sim.evaluate()
        assert hybrid._retries.lost() == 0
        engine.restore(before)
        engine.open_hand()
        assert hybrid._retries.lost() == 0
        engine.restore(before)
    engine.restore(lifted, set())
    with monkeypatch.context() as context:
        if opened:
            context.setattr(hybrid._retries, "lost", lambda: 0)
        *_, truncated, info = env.step(ZERO)
    assert not truncated and info["stage"] == (0 if opened else 1) and info["retries"] == 1
    done = False
    while not done:
        _, reward, terminated, truncated, info = env.step(ZERO)
        paid += reward
        done = terminated or truncated
    assert info["failure"] == "" and info["success"] and paid == pytest.approx(1.0)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_hand_that_has_gone_astray_is_fetched_back(retries, weights):
    """Imitation that begins outside of what it has seen may carry a nut a metre up; there the nut slips."""
    env: Any = gym.make("ReinforceGen/D0-Threading-Hybrid-v0", weights=weights, retries=retries)
    env.reset(seed=5)
    hybrid = hybrid_of(env)
    sim = hybrid.engine.sim
    needle, step, highest = hybrid.engine.task.object_pose(sim, "needle")[2, 3], 0, 0.0
    while step < PATIENCE and not hybrid.counters.retries:
        env.step(2 * UP)
        step, highest = step + 1, max(highest, sim.eef_pose()[2, 3] - needle)
    assert hybrid.counters.retries == retries and (highest < 0.3) == (step < PATIENCE) == bool(retries)


def test_what_is_lost_from_the_hand_is_noticed_at_once():
    """A mug that had slipped from the fingers cost the 200 control steps of its skill."""
    env: Any = gym.make("ReinforceGen/D2-CoffeePreparation-Residual-v0", retries=1)
    engine = env.unwrapped.engine
    env.reset(seed=1)
    standing = to_pose7(engine.task.object_pose(engine.sim, "mug"))
    while engine.stage == 0:
        env.step(ZERO)
    engine.task.write_pose7(engine.sim, "mug", standing)
    engine.refresh()
    info: dict[str, Any] = {"retries": 0}
    steps = 0
    while not info["retries"] and steps < 30:
        *_, terminated, truncated, info = env.step(ZERO)
        steps += 1
        assert not terminated and not truncated
    assert (info["retries"], info["stage"]) == (1, 0) and steps < 20


def test_what_was_brought_is_not_taken_anew():
    """A lid that did not open: the hand goes back to where it had let go of the mug, open, and as another source does it."""
    env = gym.make("ReinforceGen/D2-CoffeePreparation-Residual-v0", retries=1)
    env.reset(seed=1)
    hybrid = hybrid_of(env)
    engine, skeleton, retries = hybrid.engine, hybrid.skeleton, hybrid._retries
    engine.enter_stage(1)
    machine = engine.task.object_pose(engine.sim, "coffee_machine")

    def put(offset):
        engine.task.write_pose7(engine.sim, "mug", to_pose7(machine @ offset @ skeleton.left[0, 1]))
        engine.refresh()

    put(translation(0.0, 0.03, 0.0))
    hybrid.counters.opened = True
    assert not retries.brought() and retries.lost() == 0
    put(np.eye(4))
    hybrid.counters.opened = False
    assert not retries.brought()
    hybrid.counters.opened, hybrid.counters.source = True, 0
    assert retries.brought() and retries.lost() is None
    assert retries.once_more() is None
    source = hybrid.counters.source
    assert source not in (0, None) and engine.stage == 1 and hybrid.counters.retries == 1
    goal = machine @ skeleton.freed[source, 1] @ np.linalg.inv(skeleton.in_hand[source, 0])
    metres, radians = distance(engine.sim.eef_pose(), goal)
    assert metres < 0.01 and radians < 0.1 and engine.sim.gripper_opening() > 0.9
    assert hybrid.counters.opened and np.linalg.norm(engine.sim.eef_pose()[:3, 3] - machine[:3, 3]) > 0.1


@pytest.mark.parametrize("lean", [0.1, 0.3])
def test_what_leans_where_it_was_put_is_taken_again(lean, monkeypatch):
    """A mug that leaned by 20 degrees against the plate: its stage was said to be over, and a coffee was made beside it."""
    env = gym.make("ReinforceGen/D2-CoffeePreparation-Residual-v0", retries=1, termination=lambda observation: True)
    env.reset(seed=1)
    hybrid = hybrid_of(env)
    engine = hybrid.engine
    engine.enter_stage(1)
    placed = engine.task.object_pose(engine.sim, "coffee_machine") @ hybrid.skeleton.left[0, 1]
    engine.task.write_pose7(engine.sim, "mug", to_pose7(placed @ rotation([lean, 0.0, 0.0])))
    engine.refresh()
    assert not hybrid._retries.in_vain()  # it is in the hand, or on its way there
    hybrid.counters.opened = True
    leans = lean > 0.2
    assert hybrid._retries.in_vain() == leans and hybrid._retries.brought() != leans
    monkeypatch.setattr(engine, "act", lambda action: None)  # nothing comes to rest otherwise
    *_, info = env.step(ZERO)
    assert (info["stage"], info["retries"]) == ((0, 1) if leans else (2, 0))


@pytest.mark.parametrize("height", [0.0, 0.12])
def test_a_nut_that_is_not_round_its_peg_is_taken_again(height, monkeypatch):
    """A square nut lay on its peg's top; its stage was said to be over, and the round nut was fetched."""
    env = gym.make("ReinforceGen/D2-NutAssembly-Residual-v0", retries=1, termination=lambda observation: True)
    env.reset(seed=1)
    hybrid = hybrid_of(env)
    engine, atop, acts = hybrid.engine, height > 0, []
    engine.enter_stage(1)
    pose = engine.task.object_pose(engine.sim, "square_peg")
    pose[2, 3] = engine.task.scene.table_height + NUT_HALF_THICKNESS + height
    engine.task.write_pose7(engine.sim, "square_nut", to_pose7(pose))
    engine.refresh()
    hybrid.counters.opened = True
    assert hybrid._retries.in_vain() == atop
    monkeypatch.setattr(engine, "act", acts.append)  # there it stays; in the simulation it falls
    *_, info = env.step(ZERO)
    assert (info["stage"], info["retries"]) == ((0, 1) if atop else (2, 0))
    assert len(acts) == (1 + REST if atop else 1)  # it is waited for


def test_a_hand_that_rests_where_sources_let_go_lets_go(monkeypatch):
    """A pod in the mouth of its holder was carried back to the skill's start, and came to rest there again."""
    env: Any = gym.make("ReinforceGen/D2-Coffee-Residual-v0", retries=1)
    env.reset(seed=1)
    hybrid = hybrid_of(env)
    engine, retries = hybrid.engine, hybrid._retries
    while engine.stage == 0 or not retries.arrived():
        env.step(ZERO)
        assert engine.stage == 0 or not hybrid.counters.opened
    machine, pod = (engine.task.object_pose(engine.sim, name)[:3, 3] for name in ("coffee_machine", "coffee_pod"))
    left = hybrid.skeleton.left[:, 1, 2, 3]
    assert left.min() - 0.005 < (pod - machine)[2] < left.max() + 0.003
    before = hybrid.counters.steps
    monkeypatch.setattr(retries, "hopeless", lambda: True)
    *_, info = env.step(ZERO)
    assert info["failure"] == "" and info["sim_steps"] == hybrid.counters.steps - before > 5
    assert hybrid.counters.opened and hybrid.counters.retries == 1 and hybrid.counters.skill_steps == 0
    assert hybrid._approach.last is None  # there is no connect
    assert engine.task.object_pose(engine.sim, "coffee_pod")[2, 3] < pod[2] - 0.01  # it has fallen in
    assert engine.task.predicates(engine.sim)["pod_in_holder"] and retries.brought() and not retries.arrived()


def test_what_swings_about_the_fingers_is_not_lost():
    """A mug that leans in the fingers by 23 degrees was taken anew: its middle is 4 cm from the rim by which it is held."""
    env = gym.make("ReinforceGen/D2-CoffeePreparation-Residual-v0", retries=1)
    env.reset(seed=1)
    hybrid = hybrid_of(env)
    engine = hybrid.engine
    engine.enter_stage(1)
    sim, hand = engine.sim, engine.sim.eef_pose()
    fingers = [sim.model.joint(f"gripper0_right_finger_joint{i}").qposadr[0] for i in (1, 2)]
    sim.data.qpos[fingers] = 0.0048, -0.0048
    for held in hybrid.skeleton.in_hand[:, 0]:
        for motion, lost in ((np.eye(4), None), *((rotation(0.4 * axis), None) for axis in np.eye(3)), (DROPPED, 0)):
            engine.task.write_pose7(sim, "mug", to_pose7(hand @ motion @ held))
            sim.evaluate()
            assert hybrid._retries.lost() == lost
    sim.data.qpos[fingers] = 0.0005, -0.0005  # they meet, and the mug is believed to be where they took it
    engine.task.write_pose7(sim, "mug", to_pose7(hand @ hybrid.skeleton.in_hand[0, 0]))
    sim.evaluate()
    assert hybrid._retries.lost() == 0


def test_a_brewed_coffee_is_left_alone_though_a_belief_has_no_contacts(monkeypatch):
    """A mug that touches the plate is a part of the check; lids were opened again that had been shut on the pod."""
    env = gym.make("ReinforceGen/D2-CoffeePreparation-Residual-v0", retries=1, perception=PoseErrors(metres=0.0))
    env.reset(seed=1)
    hybrid = hybrid_of(env)
    engine = hybrid.engine
    engine.enter_stage(4)
    assert hybrid._retries.allowed()
    monkeypatch.setattr(type(engine.task), "brewing_reference", lambda *_: True)
    assert not engine.task.reference_success(engine.belief) and not hybrid._retries.allowed()
    engine.enter_stage(3)
    assert hybrid._retries.allowed()


@pytest.mark.parametrize("retries", [-1, 1.0, True, "1", None])
def test_retries_that_are_no_number_are_refused(retries, weights):
    with pytest.raises(InvalidArgument, match="retries .* must be a whole number, at least 0"):
        make(weights, retries=retries)


def test_snapshots_from_before_there_were_retries_are_restored(weights):
    env = make(weights)
    env.reset(seed=0)
    counters = hybrid_of(env).counters
    memory = counters.get_memory()
    for name in ("retries", "tried", "reached", "still", "anchor", "trail"):
        del memory[name]
    counters.retries = 7
    counters.set_memory(memory)
    assert counters.retries == 0


def test_evaluation_counts_them(weights, tmp_path):
    args = evaluate.Args(env_id=ID, weights=weights, retries=2, episodes=1, workers=1)
    env, _ = evaluate.make(args)
    assert env.get_wrapper_attr("_retries").count == 2
    episodes = [
        Episode(0, True, True, [True, True], [True, True], retries=2),
        Episode(1, False, False, [True, False], [False, False]),
    ]
    summary = summarise(episodes, ("grasp", "insert"))
    assert summary["retries"] == 2 and "begun again  2" in report("", summary)
    write_csv(tmp_path / "a.csv", episodes)
    assert read_csv(tmp_path / "a.csv") == episodes
    lines = (tmp_path / "a.csv").read_text().splitlines()
    (tmp_path / "old.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines))
    assert [episode.retries for episode in read_csv(tmp_path / "old.csv")] == [0, 0]
