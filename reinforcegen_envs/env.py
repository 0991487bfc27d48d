"""The plain environment: every control step is the agent's. The other modes are wrappers around it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from reinforcegen_envs.models.scene import load_scene
from reinforcegen_envs.observations import ObservationLayout, fill_state
from reinforcegen_envs.poses import to_pose7
from reinforcegen_envs.sim.rendering import SceneRenderer, check_camera
from reinforcegen_envs.sim.simulation import INITIAL_JOINT_NOISE, INITIAL_JOINTS, Simulation
from reinforcegen_envs.tasks import TASKS

OBS_MODES = ("state",)
STAGE_STEPS = 3  # consecutive control steps for which an intermediate stage must look finished (ours)
MAX_FLOAT = float(np.finfo(np.float32).max)
STILL = 0.005  # metres that no object may have moved within the steps for which strict success is held (ours)
NO_PLAN = {"status": "none", "milliseconds": 0.0, "collision_checks": 0}


class ManipulationEnv(gym.Env):
    """One robot cell with one task.

    Args:
        task: name of the task, e.g. "Threading".
        variant: "D0", "D1" or "D2": how widely objects are reset.
        obs_mode: "state".
        controller: "osc_pose" (robosuite 1.5's OSC_POSE) or "osc_pose_v1_4" (robosuite 1.4's, for old demonstrations).
        render_mode: None or "rgb_array".
        camera: camera of `render`.
        width, height: pixels of `render`.

    Raises:
        ValueError: an argument is not one of the allowed values; the message lists them.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        task: str,
        variant: str = "D0",
        obs_mode: str = "state",
        controller: str = "osc_pose",
        render_mode: str | None = None,
        camera: str = "agentview",
        width: int = 512,
        height: int = 512,
    ):
        if task not in TASKS:
            raise ValueError(f"unknown task {task!r}; choose one of {sorted(TASKS)}")
        task_class = TASKS[task]
        if variant not in task_class.variants:
            raise ValueError(f"unknown variant {variant!r} of {task}; choose one of {sorted(task_class.variants)}")
        if obs_mode not in OBS_MODES:
            raise ValueError(f"unknown obs_mode {obs_mode!r}; choose one of {OBS_MODES}")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(
                f"unknown render_mode {render_mode!r}; choose None or one of {self.metadata['render_modes']} "
                "(gym.make adds Gymnasium's wrappers for 'human' and 'rgb_array_list')"
            )
        self.render_mode = render_mode
        self.variant = variant
        self.sim = Simulation(load_scene(task_class.scene), controller)
        check_camera(self.sim.model, camera, width, height)
        self.task = task_class(self.sim.model)
        self.layout = ObservationLayout.of(self.task)
        self._state_size = self.layout.size  # Residual puts a longer layout in place of this one
        self._reference_bodies = [self.task.object_body[stage.reference] for stage in self.task.stages]
        # Nothing bounds positions and velocities; Gymnasium's checker takes infinite bounds for a mistake, though.
        self.observation_space = gym.spaces.Box(-MAX_FLOAT, MAX_FLOAT, (self.layout.size,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (7,), np.float32)
        self._camera = (camera, width, height)
        self._renderer = None
        self.stage = 0
        self._steady = 0  # consecutive control steps for which the current stage has looked finished
        self._held: list[np.ndarray] = []  # of those, in the last stage, where the objects were
        self.stage_finished = False
        self._success = False
        self._predicates: dict[str, bool] = {}
        self._needs_reset = True

    @property
    def model(self):
        """The compiled scene (MjModel), shared by all environments of this task in the process: do not write to it."""
        return self.sim.model

    @property
    def data(self):
        """The simulated state (MjData). After writing to it, call ``refresh()``."""
        return self.sim.data

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Place arm and objects anew.

        Args:
            seed: starts the environment's random generator anew.
            options: ``{"layout": {object: pose (7,)}, "joints": (7,)}`` fixes what it names instead of drawing it.

        Raises:
            ValueError: an unknown option or object, or a pose or joints that are not 7 finite numbers.
        """
        layout_option, joints_option = self._checked_options(options or {})
        super().reset(seed=seed)
        joints = INITIAL_JOINTS + INITIAL_JOINT_NOISE * self.np_random.standard_normal(7)
        layout = self.task.sample_layout(self.variant, self.np_random) | layout_option
        self.sim.reset(joints if joints_option is None else joints_option)
        self.task.place(self.sim, layout)
        self.sim.refresh()
        self.enter_stage(0)
        self._needs_reset = False
        self.judge_predicates()
        return self.observe(), self.info(0)

    def _checked_options(self, options: dict[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """Layout and joints of the reset options."""
        if unknown := set(options) - {"layout", "joints"}:
            raise ValueError(f"unknown reset options {sorted(unknown)}; choose from ['joints', 'layout']")
        layout = {}
        for name, pose7 in options.get("layout", {}).items():
            if name not in self.task.objects:
                raise ValueError(f"layout has unknown object {name!r}; choose from {sorted(self.task.objects)}")
            layout[name] = _finite(f"layout entry {name!r} (x, y, z, qw, qx, qy, qz)", pose7)
            if not np.isclose(np.linalg.norm(layout[name][3:]), 1.0, atol=1e-3):
                raise ValueError(f"layout entry {name!r}: quaternion {layout[name][3:]} must have length 1")
        joints = options.get("joints")
        return layout, None if joints is None else _finite("joints (radians)", joints)

    def step(self, action):
        """One control step (0.05 s).

        Args:
            action: (7,) in [-1, 1] (cut to it): OSC_POSE delta in the world frame, gripper (+1 closes).

        Raises:
            ValueError: an action of another shape, or with NaN.
            gymnasium.error.ResetNeeded: before the first reset.
        """
        if self._needs_reset:
            raise gym.error.ResetNeeded("call reset() before step()")
        self.control_step(checked_action(action))
        terminated = self._success
        reward = self.stage_finished / len(self.task.stages)
        if self.stage_finished and not terminated:
            self.enter_stage(self.stage + 1)
        return self.observe(), reward, terminated, False, self.info(1)

    def control_step(self, action: np.ndarray) -> None:
        """Step the simulation once with a checked float64 action; the stage stays, `stage_finished` tells."""
        self.sim.step(action)
        self.judge()

    def judge(self) -> None:
        """Evaluate the predicates of the present state, one control step after the last time."""
        self.judge_predicates()
        if not self._last_stage:
            self._steady = self._steady + 1 if self.task.stage_done(self.sim, self.stage) else 0
        elif all(self._predicates.values()):
            # Success must be held still: speeds jitter with the actions, so what counts is how far objects have got.
            positions = self.sim.data.xpos[self.task.bodies]
            self._held = [p for p in self._held if np.abs(positions - p).max() <= STILL][1 - self.task.success_steps :]
            self._held.append(positions)
            self._steady = len(self._held)
        else:
            self._held, self._steady = [], 0
        self._conclude()

    @property
    def _last_stage(self) -> bool:
        return self.stage == len(self.task.stages) - 1

    def _conclude(self) -> None:
        """What follows from how long the stage has looked finished."""
        self.stage_finished = self._steady >= (self.task.success_steps if self._last_stage else STAGE_STEPS)
        self._success = self._last_stage and self.stage_finished

    def judge_predicates(self) -> None:
        """Evaluate the predicates without counting a control step: for connects, and after a reset."""
        self._predicates = self.task.predicates(self.sim)

    def enter_stage(self, stage: int) -> None:
        """Make ``stage`` the current one: its reference object is the observation's frame from now on."""
        self.stage = stage
        self._held, self._steady = [], 0
        self.stage_finished = self._success = False

    @property
    def success(self) -> bool:
        """Strict success: in the last stage, all predicates have held for the required steps."""
        return self._success

    def observe(self) -> np.ndarray:
        """The observation of the current state, (layout.size,) float32."""
        out = np.empty(self._state_size, np.float32)
        fill_state(
            out,
            self.sim.views,
            self.sim.data.xpos,
            self.sim.data.xmat,
            self.sim.ids,
            self.sim.finger_qpos,
            self.sim.controller,
            self.task.bodies,
            self._reference_bodies[self.stage],
            self.task.joint_qpos,
            self.stage,
            len(self.task.stages),
        )
        return out

    def info(self, sim_steps: int, planner: dict | None = None, failure: str = "") -> dict[str, Any]:
        """The info dictionary; the same keys after reset and step, in every mode."""
        return {
            "success": self._success,
            "is_success": self._success,
            "stage": self.stage,
            "stage_name": self.task.stages[self.stage].name,
            "predicates": dict(self._predicates),
            "sim_steps": sim_steps,
            "planner": dict(planner or NO_PLAN),
            "reference_success": self.task.reference_success(self.sim),
            "failure": failure,
        }

    def refresh(self) -> None:
        """Bring contacts, poses and predicates up to date after ``data`` was written to."""
        self.sim.refresh()
        self._steady = 0
        self.judge()

    def get_state(self) -> dict[str, Any]:
        """Everything that a bit-exact replay needs: physics, controller, stage, counters, random generator."""
        return {
            "simulation": self.sim.get_state(),
            "stage": self.stage,
            "steady": self._steady,
            "held": np.array(self._held).reshape(-1, len(self.task.bodies), 3),
            "rng": self.np_random.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state of `get_state`, of this or of another environment of the same task.

        Raises:
            ValueError: keys are missing, or the state belongs to another scene; nothing changes.
        """
        if missing := {"simulation", "stage", "steady"} - set(state):
            raise ValueError(f"state lacks {sorted(missing)}; use a dictionary made by get_state()")
        if not 0 <= int(state["stage"]) < len(self.task.stages):
            raise ValueError(f"state has stage {state['stage']}; {self.task.name} has {len(self.task.stages)}")
        self.sim.set_state(state["simulation"])
        if state.get("rng") is not None:
            self.np_random.bit_generator.state = state["rng"]
        self.stage = int(state["stage"])
        self._steady = int(state["steady"])
        self._held = [np.array(positions, np.float64) for positions in state.get("held", ())]
        self.judge_predicates()
        self._conclude()
        self._needs_reset = False

    def object_poses(self) -> dict[str, np.ndarray]:
        """Object name -> (x, y, z, qw, qx, qy, qz), world frame."""
        return {name: to_pose7(self.task.object_pose(self.sim, name)) for name in self.task.objects}

    def eef_pose(self) -> np.ndarray:
        """Pose (7,) of the grip site, world frame."""
        return to_pose7(self.sim.eef_pose())

    def predicates(self) -> dict[str, bool]:
        """The named predicates of the current state; strict success is their conjunction, held for some steps."""
        return dict(self._predicates)

    def render(self):
        """An RGB frame (height, width, 3) uint8, or None without a render mode.

        Raises:
            RenderingError: no OpenGL library can be loaded; the message says what to install.
        """
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = SceneRenderer(self.task.scene, *self._camera)
        return self._renderer.frame(self.sim.data)

    def close(self):
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _finite(name: str, numbers) -> np.ndarray:
    """``numbers`` as float64 (7,), all finite."""
    array = np.asarray(numbers, np.float64)
    if array.shape != (7,) or not np.isfinite(array).all():
        raise ValueError(f"{name} has shape {array.shape}, {array}; it must be (7,) finite numbers")
    return array


def checked_action(action, name: str = "action") -> np.ndarray:
    """``action`` as float64 (7,), cut to [-1, 1] as robosuite does.

    Raises:
        ValueError: not numbers, another shape, or a number that is not finite; the message calls it ``name``.
    """
    try:
        array = np.array(action, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} {action!r} must be 7 numbers: position, rotation, gripper") from error
    if array.shape != (7,):
        raise ValueError(f"{name} has shape {array.shape}; it must be (7,): position, rotation, gripper")
    # Between physics the interpreter is cold: plain comparisons of seven floats are faster than two array functions.
    if all([-1.0 <= number <= 1.0 for number in array.tolist()]):
        return array
    if not np.isfinite(array).all():
        raise ValueError(f"{name} {array} holds NaN or infinity; every number must be finite (range [-1, 1])")
    return np.clip(array, -1.0, 1.0)
