"""One robot cell: its state as readers see it, the simulation that steps it, and exact snapshots."""

from __future__ import annotations

from typing import Any, TypeVar

import mujoco
import numpy as np

from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError, is_one_of
from reinforcegen_envs.models.scene import Scene, load_scene, scene_of
from reinforcegen_envs.sim import kernel
from reinforcegen_envs.sim.looks import Look
from reinforcegen_envs.sim.views import Indices, Views
from reinforcegen_envs.typing import Array

# Panda and rethink mount in robosuite: initial joints, gripper opening, and their noise.
INITIAL_JOINTS = np.array([0.0, np.pi / 16, 0.0, -np.pi / 2 - np.pi / 3, 0.0, np.pi - 0.2, np.pi / 4])
INITIAL_JOINT_NOISE = 0.02  # standard deviation, radians
INITIAL_FINGERS = (0.020833, -0.020833)  # metres
FINGER_STROKE = 0.08  # metres between the pads, fully open
# Opening of closed fingers, as a part of their stroke, below which nothing is between them (a mug's wall: 0.12; ours).
EMPTY = 0.08
PHYSICS_STEPS = 25  # in one control step
CONTROL_PERIOD = 0.05  # seconds of one control step (robosuite: control_freq 20)
LEAST_ADVANCE = CONTROL_PERIOD - 0.001  # of the clock in a control step, short of it by less than a physics step
CONTROLLERS = ("osc_pose", "osc_pose_v1_4")
TRACKING_KP, TRACKING_KD = 400.0, 40.0  # joint tracking of connects; critically damped (ours)

_SNAPSHOT = int(mujoco.mjtState.mjSTATE_INTEGRATION)
_BAD_STATE = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)


class SimulationError(ReinforceGenError, RuntimeError):
    """MuJoCo met numbers that it cannot simulate, and reset itself."""


CellType = TypeVar("CellType", bound="CellState")


class CellState:
    """The state of a robot cell, as planner, policies and predicates read it: the simulation's, or what is believed of it.

    A copy (``copy.deepcopy``) shares the model and has a state of its own; a pickle names the scene instead of holding it.

    Args:
        model: a compiled scene; shared, never written to.
    """

    def __init__(self, model: mujoco.MjModel):
        self.model = model
        self.data = mujoco.MjData(model)
        self.controller = np.zeros(kernel.STATE_SIZE)
        self.ids = Indices.of(model)
        self.grip_site = self.ids.grip_site
        fingers = [model.joint(f"gripper0_right_finger_joint{i}") for i in (1, 2)]
        self.arm_qpos = slice(self.ids.qpos, self.ids.qpos + kernel.ARM_DOF)
        self.arm_dof = slice(self.ids.dof, self.ids.dof + kernel.ARM_DOF)
        self.finger_qpos = np.array([f.qposadr[0] for f in fingers])
        self.finger_dof = np.array([f.dofadr[0] for f in fingers])
        self.joint_range = model.jnt_range[self.ids.joint : self.ids.joint + kernel.ARM_DOF].copy()
        self.views = Views.of(model, self.data)
        self.packed = (tuple(self.views), tuple(self.ids))  # for compiled code, see `views`
        self._snapshot_size = mujoco.mj_stateSize(model, _SNAPSHOT)

    @property
    def joints(self) -> Array:
        """(7,) arm joint positions, radians; a live view."""
        return self.data.qpos[self.arm_qpos]

    @property
    def outside_torques(self) -> Array:
        """(7,) torques on the arm's joints from contacts, limits and friction, Nm, as joints' sensors tell; a live view."""
        return self.data.qfrc_constraint[self.arm_dof]

    @property
    def posture(self) -> Array:
        """(7,) joints that the controller's null space pulls to, radians; a live view."""
        return self.controller[kernel.NULL_JOINTS :]

    def gripper_opening(self) -> float:
        """Distance between the fingers as a part of the full stroke, 0 closed to 1 open."""
        return float(self.data.qpos[self.finger_qpos[0]] - self.data.qpos[self.finger_qpos[1]]) / FINGER_STROKE

    def eef_pose(self) -> Array:
        """4x4 pose of the grip site, world frame."""
        pose = np.eye(4)
        pose[:3, :3] = self.data.site_xmat[self.grip_site].reshape(3, 3)
        pose[:3, 3] = self.data.site_xpos[self.grip_site]
        return pose

    def body_pose(self, body: int) -> Array:
        """4x4 pose of a body, by index, world frame."""
        pose = np.eye(4)
        pose[:3, :3] = self.data.xmat[body].reshape(3, 3)
        pose[:3, 3] = self.data.xpos[body]
        return pose

    def evaluate(self) -> None:
        """Bring everything that is read up to date with qpos, qvel and mocap poses."""
        mujoco.mj_kinematics(self.model, self.data)

    def get_state(self) -> Array:
        """Everything physics and controller need for a bit-exact replay, as one float64 vector."""
        state = np.empty(self._snapshot_size + kernel.STATE_SIZE)
        mujoco.mj_getState(self.model, self.data, state[: self._snapshot_size], _SNAPSHOT)
        state[self._snapshot_size :] = self.controller
        return state

    def check_state(self, state: Array) -> Array:
        """``state`` as float64, if it can be one of this scene.

        Raises:
            InvalidArgument: a vector of another size: it comes from another scene.
        """
        state = np.asarray(state, np.float64)
        if state.shape != (self._snapshot_size + kernel.STATE_SIZE,):
            raise InvalidArgument(
                f"simulation state has shape {state.shape}, this scene needs "
                f"({self._snapshot_size + kernel.STATE_SIZE},); use a state taken from the same task"
            )
        return state

    def set_state(self, state: Array) -> None:
        """Return to a state of `get_state`.

        Raises:
            InvalidArgument: a vector of another size: it comes from another scene.
        """
        state = self.check_state(state)
        mujoco.mj_setState(self.model, self.data, state[: self._snapshot_size], _SNAPSHOT)
        self.controller[:] = state[self._snapshot_size :]
        self.evaluate()

    def __deepcopy__(self: CellType, memo: dict[int, Any]) -> CellType:
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        twin.__setstate__({**self.__getstate__(), "model": self.model})
        return twin

    def __getstate__(self) -> dict[str, Any]:
        # Compiled code is handed addresses and views of MjData: a copy must not take them along.
        return {"model": scene_of(self.model) or self.model, "state": self.get_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        model = state["model"]
        self._make(load_scene(model) if isinstance(model, Scene) else model, state)
        self.set_state(state["state"])

    def _make(self, model: mujoco.MjModel, state: dict[str, Any]) -> None:
        """Initialise a copy; subclasses with more arguments find them in ``state``."""
        CellState.__init__(self, model)


class Simulation(CellState):
    """Steps one MjData.

    Args:
        model: a compiled scene; shared, never written to.
        controller: "osc_pose" (robosuite 1.5) or "osc_pose_v1_4" (robosuite 1.4, for old demonstrations).

    Attributes:
        look: how it looks in the cameras' pictures; None means as the scene is. It moves nothing, and is not in `get_state`.

    Raises:
        InvalidArgument: unknown controller.
    """

    def __init__(self, model: mujoco.MjModel, controller: str = "osc_pose"):
        if not is_one_of(controller, CONTROLLERS):
            raise InvalidArgument(f"unknown controller {controller!r}; choose one of {CONTROLLERS}")
        super().__init__(model)
        self.controller_name = controller
        self.look: Look | None = None
        self._v1_4 = controller == "osc_pose_v1_4"
        self._model_address, self._data_address = model._address, self.data._address

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "controller_name": self.controller_name, "look": self.look}

    def _make(self, model: mujoco.MjModel, state: dict[str, Any]) -> None:
        Simulation.__init__(self, model, state["controller_name"])
        self.look = state["look"]

    def reset(self, joints: Array) -> None:
        """Put the arm at ``joints`` (7,), everything else at the model's defaults; objects are the caller's to place.

        Call `refresh` when everything is placed.
        """
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self.arm_qpos] = joints
        self.data.qpos[self.finger_qpos] = INITIAL_FINGERS
        self.controller[:] = 0.0
        self.controller[kernel.NULL_JOINTS :] = joints

    def evaluate(self) -> None:
        """Evaluate positions, velocities and contacts after qpos, qvel or mocap poses were written.

        Raises:
            SimulationError: they hold numbers that MuJoCo cannot simulate.
        """
        for kind in _BAD_STATE:
            self.data.warning[kind].number = 0
        mujoco.mj_step1(self.model, self.data)
        if any(self.data.warning[kind].number for kind in _BAD_STATE):
            raise SimulationError(
                "MuJoCo cannot simulate these positions or velocities (NaN, or far too large) and has reset itself; "
                "reset the environment, and place arm and objects in the cell"
            )

    def refresh(self) -> None:
        """`evaluate`, and let the controller hold the hand's present orientation."""
        self.evaluate()
        self.hold_orientation()

    def step(self, action: Array) -> None:
        """One control step of the end-effector controller; ``action`` (7,) float64 in [-1, 1]."""
        before = self.data.time
        kernel.osc_control_step(
            self._model_address,
            self._data_address,
            *self.packed,
            self.controller,
            action,
            PHYSICS_STEPS,
            self._v1_4,
        )
        self._check_time(before)

    def track_joints(self, start: Array, goal: Array, gripper: float) -> None:
        """One control step of joint tracking from target ``start`` (7,) to ``goal`` (7,), radians."""
        before = self.data.time
        kernel.joint_control_step(
            self._model_address,
            self._data_address,
            *self.packed,
            self.controller,
            start,
            goal,
            gripper,
            TRACKING_KP,
            TRACKING_KD,
            PHYSICS_STEPS,
        )
        self._check_time(before)

    def hold_orientation(self) -> None:
        """Make the present orientation the latched goal; needed after the hand was moved by joint tracking."""
        self.controller[kernel.GOAL_ROTATION : kernel.GOAL_ROTATION + 9] = self.data.site_xmat[self.grip_site]

    def _check_time(self, before: float) -> None:
        """Notice that MuJoCo has reset itself: its clock began anew."""
        if self.data.time < before + LEAST_ADVANCE:
            raise SimulationError(
                "the simulation diverged, and MuJoCo reset itself; reset the environment. Something was placed inside "
                "something else, or given a speed that no robot has"
            )
