"""The compiled kernel against robosuite 1.5's own controllers: same model, 200 random control steps.

The robot touches nothing, not even one finger the other: contacts turn the last bit of rounding into 1e-7
at once and into 1e-3 soon, and no tolerance means anything then. So random actions are mixed with a pull
back to the first pose, have at most half their full size (at full size the arm itself amplifies rounding to
about 1e-8 in 200 steps), and never close the gripper altogether. Every comparison checks that nothing was
touched.
"""

import mujoco
import numpy as np
import pytest
import robosuite
from robosuite.controllers import load_composite_controller_config
from robosuite.models.grippers import PandaGripper

from reinforcegen_envs.poses import matrix_to_rotvec
from reinforcegen_envs.sim import kernel
from reinforcegen_envs.sim.simulation import PHYSICS_STEPS, Simulation

STEPS = 200
TOLERANCE = 1e-8  # radians
JOINT_KP = 50.0


def arm_config(**arm):
    config = load_composite_controller_config(robot="Panda")
    assert config is not None
    config["body_parts"]["right"].update(arm)
    return config


def make(controller="osc_pose", **arm):
    """robosuite's environment, and a Simulation of ours in exactly its state after reset."""
    env = robosuite.make(
        "NutAssemblySquare",
        robots="Panda",
        controller_configs=arm_config(**arm),
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        ignore_done=True,
        seed=3,
    )
    env.reset()
    arm_controller = env.robots[0].composite_controller.part_controllers["right"]
    arm_controller.update(force=True)  # its mass matrix is still that of the model's default posture
    model = env.sim.model._model
    sim = Simulation(model, controller)
    mujoco.mj_copyData(sim.data, model, env.sim.data._data)
    sim.controller[kernel.NULL_JOINTS :] = arm_controller.initial_joint
    sim.refresh()
    return env, sim


def touched_by_robot(sim):
    """Pairs of bodies in contact of which at least one is the robot's."""
    names = [[sim.model.body(sim.model.geom_bodyid[i]).name for i in pair] for pair in sim.data.contact.geom]
    return [pair for pair in names if any(name.startswith(("robot0", "gripper0")) for name in pair)]


def random_grip(sim, rng):
    """A random gripper action that leaves the fingers apart."""
    return rng.choice([-1.0, 1.0]) if sim.controller[kernel.GRIPPER] < -0.3 else -1.0


def compare(label, env, sim, next_action, play):
    """Step robosuite with ``next_action()``, ours with ``play`` of it; check the largest difference."""
    parts = np.append(np.arange(sim.arm_qpos.start, sim.arm_qpos.stop), sim.finger_qpos)
    start = sim.joints.copy()
    differences, travelled, touched = [], [], []
    for _ in range(STEPS):
        action = next_action()
        env.step(action)
        play(action)
        differences.append(np.abs(env.sim.data.qpos[parts] - sim.data.qpos[parts]))
        travelled.append(np.abs(sim.joints - start).max())
        touched += touched_by_robot(sim)
    joints, fingers = np.max(differences, axis=0)[:7].max(), np.max(differences, axis=0)[7:].max()
    print(f"{label}: largest difference {joints:.1e} rad, fingers {fingers:.1e} m")
    assert not touched, "the robot touched something, so this comparison means nothing; choose other actions"
    assert max(travelled) > 0.2, "the arm hardly moved, so this comparison means nothing"
    assert joints <= TOLERANCE
    assert fingers <= TOLERANCE


def random_actions(sim, rng, still=0.0):
    """A function that draws OSC_POSE actions around the present pose.

    Args:
        sim: gives the pose.
        rng: source of the actions.
        still: chance that an action does not turn the hand at all.
    """
    home = sim.eef_pose()

    def draw():
        pose = sim.eef_pose()
        action = rng.uniform(-1.0, 1.0, 7)
        action[:3] += (home[:3, 3] - pose[:3, 3]) / kernel.POSITION_SCALE
        turn = matrix_to_rotvec(np.ascontiguousarray(home[:3, :3] @ pose[:3, :3].T))
        action[3:6] += turn / kernel.ROTATION_SCALE
        if rng.random() < still:
            action[3:6] = 0.0
        action = 0.5 * np.clip(action, -1.0, 1.0)
        action[6] = random_grip(sim, rng)
        return action

    return draw


def test_osc_pose():
    env, sim = make()
    compare("OSC_POSE", env, sim, random_actions(sim, np.random.default_rng(0)), sim.step)


def test_joint_position_with_absolute_input():
    # Targets beyond [-1, 1] pass: absolute input is neither scaled nor cut.
    env, sim = make(type="JOINT_POSITION", input_type="absolute", kp=JOINT_KP, damping_ratio=1)
    rng = np.random.default_rng(1)
    # Each target stands for five control steps: the arm cannot follow faster.
    targets = iter(np.repeat(sim.joints + rng.uniform(-0.3, 0.3, (STEPS // 5, 7)), 5, axis=0))

    def draw():
        return np.append(next(targets), random_grip(sim, rng))

    def track(action):
        kernel.joint_control_step(
            sim.model._address,
            sim.data._address,
            *sim.packed,
            sim.controller,
            action[:7],
            action[:7],
            action[7],
            JOINT_KP,
            2.0 * np.sqrt(JOINT_KP),
            PHYSICS_STEPS,
        )

    compare("JOINT_POSITION, absolute", env, sim, draw, track)


class SlowGripper(PandaGripper):
    """The gripper of robosuite 1.4: its command moves in every physics step, by less."""

    @property
    def speed(self):
        return 0.01


def restore_1_4(env):
    """Give robosuite 1.5 the two habits of 1.4: a latched orientation goal, and the gripper's stroke."""
    robot = env.robots[0]
    composite = robot.composite_controller
    arm, hand = composite.part_controllers["right"], composite.part_controllers["right_gripper"]
    gripper = robot.gripper["right"]
    gripper.__class__ = SlowGripper
    rebase, run, set_goal = arm.compute_goal_ori, composite.run_controller, composite.set_goal
    latest = {}

    def compute_goal_ori(delta, goal_update_mode=None):
        return rebase(delta, goal_update_mode) if np.any(delta != 0.0) else arm.goal_ori

    def set_goal_once(action):
        latest["gripper"], latest["new"] = action[-1:], True
        set_goal(action)  # moves the gripper's command for the first physics step

    def run_controller(enabled_parts):
        if not latest["new"]:
            hand.set_goal(gripper.format_action(latest["gripper"]))
        latest["new"] = False
        return run(enabled_parts)

    arm.goal_ori = arm.ref_ori_mat.copy()  # the base frame is not turned
    arm.compute_goal_ori = compute_goal_ori
    composite.set_goal, composite.run_controller = set_goal_once, run_controller


def test_osc_pose_of_robosuite_1_4():
    env, sim = make("osc_pose_v1_4")
    restore_1_4(env)
    actions = random_actions(sim, np.random.default_rng(2), still=0.5)
    compare("OSC_POSE of 1.4", env, sim, actions, sim.step)


@pytest.mark.parametrize("controller, gripper_steps", [("osc_pose", 10), ("osc_pose_v1_4", 8)])
def test_variants_differ_where_they_should(controller, gripper_steps):
    """From open to closed takes 10 control steps in robosuite 1.5 and 8 in 1.4."""
    env, sim = make(controller)
    sim.controller[kernel.GRIPPER] = -1.0
    counted = 0
    while sim.controller[kernel.GRIPPER] < 1.0 - 1e-9:
        sim.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
        counted += 1
    assert counted == gripper_steps
