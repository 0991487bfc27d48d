"""The plain environment: every control step is the agent's. The other modes are wrappers around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from reinforcegen_envs.engine import Engine, Failure, Snapshot, SnapshotError
from reinforcegen_envs.errors import InvalidArgument, checked_flag, is_one_of
from reinforcegen_envs.observations import ObservationLayout, ProprioLayout, to_world
from reinforcegen_envs.perception import Perception, as_perception
from reinforcegen_envs.perception.ghosts import believed_ghosts
from reinforcegen_envs.policies.policy import Policy
from reinforcegen_envs.poses import to_pose7
from reinforcegen_envs.sim.cameras import CAMERAS, MAX_DEPTH, SIZE, Cameras, check_image_size
from reinforcegen_envs.sim.rendering import SceneRenderer, check_camera
from reinforcegen_envs.sim.simulation import CONTROL_PERIOD, Simulation
from reinforcegen_envs.tasks import TASKS, Task
from reinforcegen_envs.typing import Array, Observations

PIXEL_MODES = ("rgb", "rgbd", "segmentation")
OBS_MODES = ("state", "state_dict", *PIXEL_MODES)
LARGEST_PLACE = 2.0  # metres from the world's origin within which reset options may place objects (ours)
NO_PLAN = {"status": "none", "milliseconds": 0.0, "collision_checks": 0}


class ManipulationEnv(gym.Env[Any, Any]):
    """One robot cell with one task.

    Args:
        task: name of the task, e.g. "Threading".
        variant: "D0", "D1" or "D2": how widely objects are reset.
        obs_mode: "state", a flat vector; "state_dict", the same as a dictionary, one entry a term; "rgb", pictures of the
            true state from the cameras "front" and "wrist", and "proprio", what the robot knows of itself; "rgbd", distances
            as well; "segmentation", pictures and what is seen where.
        image_size: pixels a side of these pictures.
        randomize_visuals: draw colours, textures, lights and camera poses anew in every reset (`sim.looks.Look`); layouts
            and everything else stay as they are for the same seed.
        perception: what the robot knows of object poses: "truth", "camera" (estimates from pictures), "camera_errors" (as wrong
            as those, without pictures), a `Perception`, or a function that makes one.
        controller: "osc_pose" (robosuite 1.5's OSC_POSE) or "osc_pose_v1_4" (robosuite 1.4's, for old demonstrations).
        render_mode: None or "rgb_array".
        camera: camera of `render`; None means the one that shows all of the task.
        width, height: pixels of `render`.

    Attributes:
        engine: everything that happens; Gymnasium apart.
        layout: of flat observations of the state.
        proprio_layout: of "proprio".

    Raises:
        InvalidArgument: an argument is not one of the allowed values; the message lists them.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / CONTROL_PERIOD)}

    def __init__(
        self,
        task: str,
        variant: str = "D0",
        obs_mode: str = "state",
        image_size: int = SIZE,
        randomize_visuals: bool = False,
        perception: str | Perception | Callable[[], Perception] = "truth",
        controller: str = "osc_pose",
        render_mode: str | None = None,
        camera: str | None = None,
        width: int = 512,
        height: int = 512,
    ):
        if not is_one_of(task, TASKS):
            raise InvalidArgument(f"unknown task {task!r}; choose one of {sorted(TASKS)}")
        task_class = TASKS[task]
        if not is_one_of(variant, task_class.variants):
            raise InvalidArgument(f"unknown variant {variant!r} of {task}; choose one of {sorted(task_class.variants)}")
        if not is_one_of(obs_mode, OBS_MODES):
            raise InvalidArgument(f"unknown obs_mode {obs_mode!r}; choose one of {OBS_MODES}")
        check_image_size("image_size", image_size)
        checked_flag(randomize_visuals, "randomize_visuals")
        if render_mode is not None and not is_one_of(render_mode, self.metadata["render_modes"]):
            raise InvalidArgument(
                f"unknown render_mode {render_mode!r}; choose None or one of {self.metadata['render_modes']} "
                "(gym.make adds Gymnasium's wrappers for 'human' and 'rgb_array_list')"
            )
        self.render_mode = render_mode
        self.obs_mode = obs_mode
        self.engine = Engine(task_class, variant, controller, as_perception(perception), randomize_visuals)
        camera = task_class.camera if camera is None else camera
        check_camera(self.model, camera, width, height)
        self.layout = self.engine.layout  # Residual puts a longer one in its place
        self._image_size = image_size
        self.observation_space = self.space_of(self.layout)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (7,), np.float32)
        self._camera = (camera, width, height)
        self._renderer = None
        self._cameras = None
        self._needs_reset = True

    @property
    def sim(self) -> Simulation:
        """The simulation."""
        return self.engine.sim

    @property
    def task(self) -> Task:
        """The task, bound to the scene."""
        return self.engine.task

    @property
    def variant(self) -> str:
        """How widely objects are reset."""
        return self.engine.variant

    @property
    def model(self):
        """The compiled scene (MjModel), shared by all environments of this task in the process: do not write to it."""
        return self.sim.model

    @property
    def data(self):
        """The simulated state (MjData). After writing to it, call ``refresh()``."""
        return self.sim.data

    @property
    def proprio_layout(self) -> ProprioLayout:
        """What the numbers of "proprio" are, in the obs_modes with pictures."""
        return self.engine.proprio_layout

    @property
    def sees_pixels(self) -> bool:
        """Whether observations are pictures."""
        return self.obs_mode in PIXEL_MODES

    def space_of(self, layout: ObservationLayout) -> gym.Space[Any]:
        """The observation space of a layout, in this environment's obs_mode."""
        if not self.sees_pixels:
            return layout.flat_space if self.obs_mode == "state" else layout.dict_space
        size, depth, labels = self._image_size, self.obs_mode == "rgbd", self.obs_mode == "segmentation"
        spaces: dict[str, gym.Space[Any]] = {"proprio": self.proprio_layout.flat_space}
        for name in CAMERAS:
            spaces[name] = gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
            if depth:
                spaces[f"{name}_depth"] = gym.spaces.Box(0.0, MAX_DEPTH, (size, size, 1), np.float32)
            if labels:
                spaces[f"{name}_segmentation"] = gym.spaces.Box(0, 255, (size, size, 1), np.uint8)
        spaces |= {term.name: term.space for term in layout.terms if term.name == "base_action"}
        return gym.spaces.Dict(spaces)

    def present(self, layout: ObservationLayout, observation: Observations) -> Any:
        """A flat observation in this environment's obs_mode: as it is, as a dictionary of arrays, or as pictures instead.

        Raises:
            RenderingError: pictures are asked for, and no OpenGL library can be loaded.
        """
        if self.sees_pixels:
            return self._photograph(layout, observation)
        return observation if self.obs_mode == "state" else layout.split(observation)

    def _photograph(self, layout: ObservationLayout, observation: Observations) -> dict[str, Any]:
        """Pictures of the state as it truly is, proprio, and of the flat observation the base action alone, if it has one."""
        if self._cameras is None:
            objects = None if self.obs_mode == "rgb" else self.task.objects
            self._cameras = Cameras(self.task.scene, self._image_size, objects)
        depth, labels = self.obs_mode == "rgbd", self.obs_mode == "segmentation"
        pictures = self._cameras.pictures(self.sim.data, self.sim.look, depth, labels)
        seen: dict[str, Any] = {"proprio": self.engine.proprio()}
        for k, name in enumerate(CAMERAS):
            seen[name] = pictures.colour[k]
            if pictures.depth is not None:
                seen[f"{name}_depth"] = pictures.depth[k]
            if pictures.labels is not None:
                seen[f"{name}_segmentation"] = pictures.labels[k]
        if "base_action" in layout.slices:
            seen["base_action"] = observation[layout.slices["base_action"]].copy()
        return seen

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Place arm and objects anew.

        Args:
            seed: starts the environment's random generator anew.
            options: ``{"layout": {object: pose (7,)}, "joints": (7,)}`` fixes what it names instead of drawing it.

        Raises:
            InvalidArgument: an unknown option or object, or a pose or joints that the cell cannot have.
            RenderingError: observations are pictures, and no OpenGL library can be loaded.
        """
        self.begin(seed, options)
        return self.observe(), self.info(0)

    def begin(self, seed: int | None = None, options: Mapping[str, Any] | None = None) -> None:
        """`reset` without a look at what is there now."""
        layout, joints = self._checked_options(reset_options(options))
        super().reset(seed=seed)
        self.engine.rng = self.np_random
        self.engine.reset(joints, layout)
        self._needs_reset = False

    def _checked_options(self, options: Mapping[str, Any]) -> tuple[dict[str, Array], Array | None]:
        """Layout and joints of the reset options."""
        if unknown := set(options) - {"layout", "joints"}:
            raise InvalidArgument(
                f"unknown reset options {sorted(map(repr, unknown))}; choose from 'joints' and 'layout' (a state of get_state() "
                "is for set_state())"
            )
        poses = options.get("layout", {})
        if not isinstance(poses, Mapping):
            raise InvalidArgument(f"layout {poses!r} must be a dictionary: object name -> pose (7,)")
        layout = {}
        for name, pose7 in poses.items():
            if name not in self.task.objects:
                raise InvalidArgument(f"layout has unknown object {name!r}; choose from {sorted(self.task.objects)}")
            layout[name] = _finite(f"layout entry {name!r} (x, y, z, qw, qx, qy, qz)", pose7)
            if not np.isclose(np.linalg.norm(layout[name][3:]), 1.0, atol=1e-3):
                raise InvalidArgument(f"layout entry {name!r}: quaternion {layout[name][3:]} must have length 1")
            if np.abs(layout[name][:3]).max() > LARGEST_PLACE:
                raise InvalidArgument(
                    f"layout entry {name!r}: position {layout[name][:3]} is out of the cell; every coordinate must be "
                    f"within {LARGEST_PLACE} m of the world's origin (the table is at x, y = 0)"
                )
        if options.get("joints") is None:
            return layout, None
        joints = _finite("joints (radians)", options["joints"])
        low, high = self.sim.joint_range.T
        if (joints < low).any() or (joints > high).any():
            raise InvalidArgument(f"joints {joints} exceed the arm's limits: low {low}, high {high}, radians")
        return layout, joints

    def step(self, action: Any):
        """One control step (0.05 s).

        Args:
            action: (7,) in [-1, 1] (cut to it): OSC_POSE delta in the world frame, gripper (+1 closes).

        Raises:
            InvalidArgument: an action of another shape, or with NaN.
            SimulationError: the simulation diverged.
            RenderingError: observations are pictures, and no OpenGL library can be loaded.
            gymnasium.error.ResetNeeded: before the first reset.
        """
        if self._needs_reset:
            raise gym.error.ResetNeeded("call reset() before step()")
        engine = self.engine
        engine.act(checked_action(action))
        judge = engine.judge
        terminated = judge.success
        reward = judge.finished / len(engine.task.stages)
        if judge.finished and not terminated:
            engine.enter_stage(engine.stage + 1)
        return self.observe(), reward, terminated, False, self.info(1)

    def observe(self) -> Any:
        """The observation of the current state, without base action."""
        return self.present(self.engine.layout, self.engine.observe())

    def info(
        self, sim_steps: int, planner: Mapping[str, Any] | None = None, failure: Failure | None = None
    ) -> dict[str, Any]:
        """The info dictionary; the same keys after reset and step, in every mode."""
        engine, judge = self.engine, self.engine.judge
        return {
            "success": judge.success,
            "is_success": judge.success,
            "stage": engine.stage,
            "stage_name": engine.task.stages[engine.stage].name,
            "predicates": dict(judge.predicates),
            "sim_steps": sim_steps,
            "planner": dict(planner or NO_PLAN),
            "reference_success": judge.reference_success(),
            "failure": "" if failure is None else str(failure),
            "failure_stage": "" if failure is None else failure.stage,
            "failure_segment": "" if failure is None else failure.segment,
        }

    def refresh(self) -> None:
        """Bring contacts, poses, belief and predicates up to date after ``data`` was written to."""
        self.engine.refresh()

    def get_state(self) -> Snapshot:
        """Everything that a bit-exact replay needs, of this environment and of the wrappers and policies around it.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
        """
        if self._needs_reset:
            raise gym.error.ResetNeeded("call reset() before get_state(): there is no state yet")
        return self.engine.snapshot()

    def set_state(self, state: Snapshot) -> None:
        """Return to a state of `get_state`, of this or of another environment of the same task, mode and arguments.

        Raises:
            SnapshotError: a part is missing, or the state belongs to something else; nothing changes.
        """
        if type(state) is not Snapshot:
            raise SnapshotError(f"{type(state).__name__} is not a Snapshot; use one that get_state() returned")
        self.engine.rng = self.np_random  # Gymnasium makes it when it is first asked for
        self.engine.restore(state)
        self._needs_reset = False

    def start_from(self, draw: Callable[[np.random.Generator, int | None], Snapshot], seed: int | None) -> None:
        """Go to a drawn snapshot, as a reset would; the generator, and what policies in play remember, stay; looks are drawn,
        and so are errors of perception to come.

        Args:
            draw: gives a snapshot, with the environment's generator and ``seed``.
            seed: starts that generator anew.

        Raises:
            SnapshotError: see `set_state`.
        """
        if seed is not None:
            self.begin(seed)
        self.engine.rng = self.np_random
        self.engine.restore(draw(self.engine.rng, seed), parts={"counters"})
        self.engine.perceive_otherwise()
        self.engine.draw_look()
        self._needs_reset = False

    def object_poses(self) -> dict[str, Array]:
        """Object name -> (x, y, z, qw, qx, qy, qz), world frame, as they truly are."""
        return {name: to_pose7(self.task.object_pose(self.sim, name)) for name in self.task.objects}

    def believed_poses(self) -> dict[str, Array]:
        """The same as the robot believes them to be."""
        return {name: to_pose7(self.task.object_pose(self.engine.belief, name)) for name in self.task.objects}

    def eef_pose(self) -> Array:
        """Pose (7,) of the grip site, world frame."""
        return to_pose7(self.sim.eef_pose())

    def predicates(self) -> dict[str, bool]:
        """The named predicates of the current state; strict success is their conjunction, held for some steps."""
        return dict(self.engine.judge.predicates)

    def render(self):
        """An RGB frame (height, width, 3) uint8, or None without a render mode.

        Where perception is not truth, objects are drawn green where they are believed to be, too, and red ellipsoids of two
        standard deviations of their positions, where perception knows those.

        Raises:
            RenderingError: no OpenGL library can be loaded; the message says what to install.
        """
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = SceneRenderer(self.task.scene, *self._camera)
        return self._renderer.frame(
            self.sim.data, believed_ghosts(self.engine.perception, self.engine.belief, self.task)
        )

    def __getstate__(self) -> dict[str, Any]:
        # OpenGL contexts cannot be copied; a copy opens its own when it first draws.
        return {**self.__dict__, "_renderer": None, "_cameras": None}

    def close(self):
        """Free what draws, for pictures that are observed, looked at by perception, or rendered."""
        self.engine.perception.close()
        for drawing in (self._renderer, self._cameras):
            if drawing is not None:
                drawing.close()
        self._renderer = self._cameras = None


def reset_options(options: object) -> Mapping[str, Any]:
    """The options of a reset; None are none.

    Raises:
        InvalidArgument: they are no dictionary.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise InvalidArgument(f"reset options {options!r} must be a dictionary with 'joints', 'layout', or both")
    return options


def _finite(name: str, numbers: Any) -> Array:
    """``numbers`` as float64 (7,), all finite."""
    try:
        array = np.array(numbers, np.float64)
    except (TypeError, ValueError):
        raise InvalidArgument(f"{name} {numbers!r} must be 7 numbers") from None
    if array.shape != (7,) or not np.isfinite(array).all():
        raise InvalidArgument(f"{name} has shape {array.shape}, {array}; it must be (7,) finite numbers")
    return array


def checked_action(action: Any, name: str = "action") -> Array:
    """``action`` as float64 (7,), cut to [-1, 1] as robosuite does.

    Raises:
        InvalidArgument: not numbers, another shape, or a number that is not finite; the message calls it ``name``.
    """
    try:
        array = np.array(action, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{name} {action!r} must be 7 numbers: position, rotation, gripper") from error
    if array.shape != (7,):
        raise InvalidArgument(f"{name} has shape {array.shape}; it must be (7,): position, rotation, gripper")
    # Between physics the interpreter is cold: plain comparisons of seven floats are faster than two array functions.
    if all([-1.0 <= number <= 1.0 for number in array.tolist()]):
        return array
    if not np.isfinite(array).all():
        raise InvalidArgument(f"{name} {array} holds NaN or infinity; every number must be finite (range [-1, 1])")
    return np.clip(array, -1.0, 1.0)


def ask(policy: Policy, observation: Observations, layout: ObservationLayout, name: str) -> Array:
    """A policy's action on a flat observation of the state, as it is executed: (7,) float64 in [-1, 1], world frame.

    Args:
        policy: whom to ask.
        observation: (layout.size,), or longer.
        layout: of a plain environment's observations.
        name: what messages call the action.

    Raises:
        InvalidArgument: it is not 7 finite numbers.
    """
    action = policy.act(observation[None])[0]
    if policy.frame == "reference":
        frame = observation[layout.slices["ref_rot6d_world"]].astype(np.float64)
        action = to_world(np.asarray(action, np.float64), frame)
    return checked_action(action, name)
