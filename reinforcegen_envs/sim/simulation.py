"""One simulated robot cell: an MjData over a shared MjModel, its controller state, and exact snapshots of both."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np

from reinforcegen_envs.sim import kernel

# Panda and rethink mount in robosuite: initial joints, gripper opening, and their noise.
INITIAL_JOINTS = np.array([0.0, np.pi / 16, 0.0, -np.pi / 2 - np.pi / 3, 0.0, np.pi - 0.2, np.pi / 4])
INITIAL_JOINT_NOISE = 0.02  # standard deviation, radians
INITIAL_FINGERS = (0.020833, -0.020833)  # metres
FINGER_STROKE = 0.08  # metres between the pads, fully open
PHYSICS_STEPS = 25  # in one control step of 0.05 s
CONTROLLERS = ("osc_pose", "osc_pose_v1_4")
TRACKING_KP, TRACKING_KD = 400.0, 40.0  # joint tracking of connects; critically damped (ours)

_SNAPSHOT = int(mujoco.mjtState.mjSTATE_INTEGRATION)


class Simulation:
    """Steps one MjData.

    ``on_control_step``, if set, is called after every control step, those of connects included: to draw frames, say. It may
    read ``data`` and must not write to it.

    Args:
        model: a compiled scene; shared, never written to.
        controller: "osc_pose" (robosuite 1.5) or "osc_pose_v1_4" (robosuite 1.4, for old demonstrations).

    Raises:
        ValueError: unknown controller.
    """

    def __init__(self, model: mujoco.MjModel, controller: str = "osc_pose"):
        if controller not in CONTROLLERS:
            raise ValueError(f"unknown controller {controller!r}; choose one of {CONTROLLERS}")
        self.model = model
        self.data = mujoco.MjData(model)
        self.controller_name = controller
        self._v1_4 = controller == "osc_pose_v1_4"
        self.controller = np.zeros(kernel.STATE_SIZE)
        joint = model.joint("robot0_joint1")
        self.grip_site = model.site("gripper0_right_grip_site").id
        fingers = [model.joint(f"gripper0_right_finger_joint{i}") for i in (1, 2)]
        self.arm_qpos = slice(joint.qposadr[0], joint.qposadr[0] + kernel.ARM_DOF)
        self.arm_dof = slice(joint.dofadr[0], joint.dofadr[0] + kernel.ARM_DOF)
        self.finger_qpos = np.array([f.qposadr[0] for f in fingers])
        self.joint_range = model.jnt_range[joint.id : joint.id + kernel.ARM_DOF].copy()
        self.ids = np.array(
            [
                joint.id,
                joint.dofadr[0],
                self.grip_site,
                joint.qposadr[0],
                model.actuator("robot0_torq_j1").id,
                model.actuator("gripper0_right_gripper_finger_joint1").id,
                model.actuator("gripper0_right_gripper_finger_joint2").id,
            ],
            np.int64,
        )
        self.views = array_views(model, self.data)
        self._snapshot_size = mujoco.mj_stateSize(model, _SNAPSHOT)
        self._model_address, self._data_address = model._address, self.data._address
        self.on_control_step: Callable[[], None] | None = None

    @property
    def joints(self) -> np.ndarray:
        """(7,) arm joint positions, radians; a live view."""
        return self.data.qpos[self.arm_qpos]

    def reset(self, joints: np.ndarray) -> None:
        """Put the arm at ``joints`` (7,), everything else at the model's defaults; objects are the caller's to place.

        Call `refresh` when everything is placed.
        """
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self.arm_qpos] = joints
        self.data.qpos[self.finger_qpos] = INITIAL_FINGERS
        self.controller[:] = 0.0
        self.controller[kernel.NULL_JOINTS :] = joints

    def refresh(self, new_goal: bool = True) -> None:
        """Evaluate positions, velocities and contacts after qpos, qvel or mocap poses were written."""
        mujoco.mj_step1(self.model, self.data)
        if new_goal:
            self.hold_orientation()

    def step(self, action: np.ndarray) -> None:
        """One control step of the end-effector controller; ``action`` (7,) float64 in [-1, 1]."""
        kernel.osc_control_step(
            self._model_address,
            self._data_address,
            self.views,
            self.ids,
            self.controller,
            action,
            PHYSICS_STEPS,
            self._v1_4,
        )
        if self.on_control_step is not None:
            self.on_control_step()

    def track_joints(self, start: np.ndarray, goal: np.ndarray, gripper: float) -> None:
        """One control step of joint tracking from target ``start`` (7,) to ``goal`` (7,), radians."""
        kernel.joint_control_step(
            self._model_address,
            self._data_address,
            self.views,
            self.ids,
            self.controller,
            start,
            goal,
            gripper,
            TRACKING_KP,
            TRACKING_KD,
            PHYSICS_STEPS,
        )
        if self.on_control_step is not None:
            self.on_control_step()

    def get_state(self) -> np.ndarray:
        """Everything physics and controller need for a bit-exact replay, as one float64 vector."""
        state = np.empty(self._snapshot_size + kernel.STATE_SIZE)
        mujoco.mj_getState(self.model, self.data, state[: self._snapshot_size], _SNAPSHOT)
        state[self._snapshot_size :] = self.controller
        return state

    def set_state(self, state: np.ndarray) -> None:
        """Return to a state of `get_state`.

        Raises:
            ValueError: a vector of another size: it comes from another scene.
        """
        state = np.asarray(state, np.float64)
        if state.shape != (self._snapshot_size + kernel.STATE_SIZE,):
            raise ValueError(
                f"simulation state has shape {state.shape}, this scene needs "
                f"({self._snapshot_size + kernel.STATE_SIZE},); use a state taken from the same task"
            )
        mujoco.mj_setState(self.model, self.data, state[: self._snapshot_size], _SNAPSHOT)
        self.controller[:] = state[self._snapshot_size :]
        self.refresh(new_goal=False)

    def hold_orientation(self) -> None:
        """Make the present orientation the latched goal; needed after the hand was moved by joint tracking."""
        self.controller[kernel.GOAL_ROTATION : kernel.GOAL_ROTATION + 9] = self.data.site_xmat[self.grip_site]

    def gripper_opening(self) -> float:
        """Distance between the fingers as a part of the full stroke, 0 closed to 1 open."""
        return float(self.data.qpos[self.finger_qpos[0]] - self.data.qpos[self.finger_qpos[1]]) / FINGER_STROKE

    def eef_pose(self) -> np.ndarray:
        """4x4 pose of the grip site, world frame."""
        pose = np.eye(4)
        pose[:3, :3] = self.data.site_xmat[self.grip_site].reshape(3, 3)
        pose[:3, 3] = self.data.site_xpos[self.grip_site]
        return pose

    def body_pose(self, body: int) -> np.ndarray:
        """4x4 pose of a body, by index, world frame."""
        pose = np.eye(4)
        pose[:3, :3] = self.data.xmat[body].reshape(3, 3)
        pose[:3, 3] = self.data.xpos[body]
        return pose


def array_views(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[np.ndarray, ...]:
    """The arrays the kernel reads and writes, in its order; live views into ``data`` and ``model``."""
    return (
        data.qpos,
        data.qvel,
        data.ctrl,
        data.qfrc_bias,
        data.site_xpos,
        data.site_xmat,
        data.xaxis,
        data.xanchor,
        data.qM,
        model.dof_Madr,
        model.dof_parentid,
        model.actuator_ctrlrange,
    )
