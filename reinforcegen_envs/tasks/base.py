"""What a task is: objects, variants, stages, and named predicates on the simulated state."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import mujoco
import numpy as np

from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError, is_one_of
from reinforcegen_envs.models.scene import Scene
from reinforcegen_envs.poses import yaw_quat
from reinforcegen_envs.sim.simulation import CellState, Simulation
from reinforcegen_envs.tasks.checks import pinched
from reinforcegen_envs.tasks.recipe import Keyframe
from reinforcegen_envs.typing import Array

BASE_X = -0.56  # metres, world frame: the robot's base axis, at y = 0 (robosuite's Panda before its 0.8 m table)
ROOM_TRIES = 200
STANDING = 0.01  # metres from an object's height on the table (ours)
MAX_PLACEMENT_TRIES = 5000  # robosuite's placement sampler
OFF_TABLE = 0.05  # metres that an object's root must have sunk below the table's top to be off it (ours)


class PlacementError(ReinforceGenError, RuntimeError):
    """No collision-free layout was found."""


@dataclass(frozen=True)
class Placement:
    """Where resets put an object: uniform and independent in x, y (metres from the table centre) and yaw (radians)."""

    x: tuple[float, float]
    y: tuple[float, float]
    yaw: tuple[float, float]


@dataclass(frozen=True)
class Shape:
    """What the placement sampler knows of an object (metres): root height above the table, xy radius."""

    height: float
    radius: float


@dataclass(frozen=True)
class Symmetry:
    """An object that looks the same when it is turned about its z axis; its yaw is then known up to such turns only.

    Args:
        turns: equal turns in a full one that leave it looking the same; 0 for every turn.
        yaw: radians; which of the yaws that look the same is meant when nothing else tells: the one from here on, upwards.
    """

    turns: int
    yaw: float = 0.0


@dataclass(frozen=True)
class Seat:
    """Where an object comes to lie in another one that it is let go of in, whose walls hide it.

    Args:
        reference: the other object.
        position: metres, in that one's frame, of the object's origin.
        slack: metres by which most lie off it in x and y.
        turns: yaws that it can have in it, relative to the other one: multiples of this part of a full turn; 0 for any.
        fall: metres above it from which the object falls to it by itself, and once there stays until it is taken up, as on a peg;
            0: it is taken to be there while it is seen to be near.
    """

    reference: str
    position: tuple[float, float, float]
    slack: float
    turns: int = 0
    fall: float = 0.0


@dataclass(frozen=True)
class Stage:
    """One connect segment followed by one skill segment.

    Args:
        name: e.g. "grasp".
        reference: object in whose frame the skill is expressed.
        held: object in the hand during the skill, or None; its pose in the hand corrects the skill's targets.
        horizon: control steps after which a skill segment is given up.
        signal: name of the stage's end signal in datagen_info/subtask_term_signals; the last stage has none.
        skill_radius: metres; in a demonstration without annotated skill segments, the skill starts when the hand last
            comes this near to where it is at the end signal.
        end_offset: control steps that the skill goes on after the end signal, in such a demonstration.
        new_source: whether this stage, and those after it, may copy another source demonstration than those before.
        turns: the skill may be turned about the reference's z axis by every multiple of this part of a full turn: 4 for a
            square peg; for a round one, any number stands for every angle.
        mirrored: the reference, and what is held, are symmetric under y -> -y in their frames, as the hand is in its own:
            the skill may be mirrored. A mirror image is of all stages that copy one source, so all of them must say so.
        half_turn: the empty hand may be turned by half a turn about its approach axis: its fingers change places.
    """

    name: str
    reference: str
    held: str | None
    horizon: int
    signal: str | None
    skill_radius: float
    end_offset: int
    new_source: bool = False
    turns: int = 1
    mirrored: bool = False
    half_turn: bool = False


def source_run(stages: Sequence[Stage], index: int) -> range:
    """Indices of the stages that copy one source demonstration with stage ``index``: from one with ``new_source`` to the next."""
    first, end = index, index + 1
    while first > 0 and not stages[first].new_source:
        first -= 1
    while end < len(stages) and not stages[end].new_source:
        end += 1
    return range(first, end)


class Task(ABC):
    """A task reads and places objects in a `Simulation`; it holds no state of its own.

    Class attributes declare it: ``name``, ``scene``, ``objects`` (body names, in observation order and as demonstration files
    call them), ``shapes``, ``joints`` (joints of objects that are observed, with their reset positions), ``joint_stops``
    (lowest and highest position of those that something stops before their range ends), ``symmetries`` (of objects that look
    the same when turned: cameras cannot tell), ``seats`` (of objects that end in another one, see `Seat`), ``variants``
    (variant -> object -> Placement), ``stages``, ``horizon`` (control steps), ``success_steps`` (consecutive control steps for
    which the predicates must hold), ``camera`` (the one that shows all of it), ``sources`` (file of the source demonstrations
    that come with it; None if they are in the package's folder, or not there), ``styles`` (how many ways the scripted
    teleoperator has) and ``reference_speed`` (control steps a second published of the same task in MimicGen on robosuite 1.4.1,
    one thread, no rendering; None if there is no such). What the scripted teleoperator does is its `recipe`.

    Its docstring is the prose of its page in docs/tasks, see docs/generate.py: every stage and predicate is described there.
    `registration.register_task` makes the ids.
    """

    name: ClassVar[str]
    scene: ClassVar[Scene]
    objects: ClassVar[tuple[str, ...]]
    joints: ClassVar[Mapping[str, float]] = {}
    joint_stops: ClassVar[Mapping[str, tuple[float, float]]] = {}
    symmetries: ClassVar[Mapping[str, Symmetry]] = {}
    seats: ClassVar[Mapping[str, Seat]] = {}
    shapes: ClassVar[Mapping[str, Shape]]
    variants: ClassVar[Mapping[str, Mapping[str, Placement]]]
    stages: ClassVar[tuple[Stage, ...]]
    horizon: ClassVar[int]
    success_steps: ClassVar[int] = 5
    camera: ClassVar[str] = "agentview"
    reference_speed: ClassVar[float | None] = None
    sources: ClassVar[str | os.PathLike[str] | None] = None
    styles: ClassVar[int] = 1

    def __init__(self, model: mujoco.MjModel):
        # By object name: body, geoms (of its parts too) as indices and as a mask, mocap index or addresses of the free joint.
        self.bodies = np.array([model.body(name).id for name in self.objects], np.int64)
        self.object_body = dict(zip(self.objects, (int(b) for b in self.bodies), strict=True))
        self.object_mocap = {
            name: int(model.body_mocapid[body])
            for name, body in self.object_body.items()
            if model.body_mocapid[body] >= 0
        }
        free = [name for name in self.objects if name not in self.object_mocap]
        self.object_qpos = {name: int(model.joint(f"{name}_joint").qposadr[0]) for name in free}
        self.object_dof = {name: int(model.joint(f"{name}_joint").dofadr[0]) for name in free}
        root = model.body_rootid[model.geom_bodyid]
        self.object_geoms = {name: np.flatnonzero(root == body) for name, body in self.object_body.items()}
        self.object_mask = {name: root == body for name, body in self.object_body.items()}
        self._pads = np.array([model.geom(f"gripper0_right_finger{i}_pad_collision").id for i in (1, 2)], np.int64)
        self.joint_qpos = np.array([model.joint(name).qposadr[0] for name in self.joints], np.int64)

    @classmethod
    def stage_index(cls, name: str) -> int:
        """Index of a stage by name.

        Raises:
            InvalidArgument: no such stage.
        """
        names = [stage.name for stage in cls.stages]
        if not is_one_of(name, names):
            raise InvalidArgument(f"{cls.name} has no stage {name!r}; choose one of {names}")
        return names.index(name)

    def sample_layout(self, variant: str, rng: np.random.Generator) -> dict[str, Array]:
        """Draw a collision-free layout: object name -> pose (7,) in the world frame.

        Objects are placed in order; one whose circle overlaps an earlier one's is drawn again (robosuite's rule).

        Raises:
            PlacementError: no free place after 5000 tries.
        """
        return self.place_apart(self.variants[variant], variant, rng)

    def layout_with(self, fixed: Mapping[str, Array], variant: str, rng: np.random.Generator) -> dict[str, Array]:
        """Draw a layout in which some objects are where somebody has put them: again, until the others are clear of them.

        What was put higher than on the table, as a pod into the machine's holder, keeps nothing away. Circles are wider than
        objects: if there is no room (200 tries), the first draw is taken, with a warning.

        Args:
            fixed: object name -> pose (7,) in the world frame; whether these overlap each other is not asked.
            variant, rng: as in `sample_layout`, which is what this is if nothing is fixed.

        Raises:
            PlacementError: see `sample_layout`.
        """
        table = self.scene.table_height
        standing = [n for n, pose7 in fixed.items() if abs(pose7[2] - table - self.shapes[n].height) < STANDING]
        first: dict[str, Array] = {}
        near: list[str] = []
        for _ in range(ROOM_TRIES):
            layout = self.put(fixed, self.sample_layout(variant, rng))
            near = [n for n in layout if n not in fixed and any(self.overlap(layout, n, there) for there in standing)]
            if not near:
                return layout
            first = first or layout
        warnings.warn(
            f"{near} may touch {standing}, as these were placed: no layout of {variant} has room for both in {ROOM_TRIES} tries; "
            "place them too",
            RuntimeWarning,
            stacklevel=2,
        )
        return first

    def put(self, fixed: Mapping[str, Array], layout: dict[str, Array]) -> dict[str, Array]:
        """A layout with some objects put elsewhere, and what they hold with them."""
        return layout | dict(fixed)

    def overlap(self, layout: Mapping[str, Array], first: str, second: str) -> bool:
        """Whether two objects' circles overlap (robosuite's rule)."""
        apart = np.hypot(*(layout[first][:2] - layout[second][:2]))
        return bool(apart <= self.shapes[first].radius + self.shapes[second].radius)

    def place_apart(self, places: Mapping[str, Placement], variant: str, rng: np.random.Generator) -> dict[str, Array]:
        """Draw poses for some objects, in order, such that no two circles overlap.

        Raises:
            PlacementError: no free place after 5000 tries.
        """
        layout: dict[str, Array] = {}
        for name, place in places.items():
            shape = self.shapes[name]
            for _ in range(MAX_PLACEMENT_TRIES):
                x, y, yaw = rng.uniform(*place.x), rng.uniform(*place.y), rng.uniform(*place.yaw)
                clear = all(
                    np.hypot(x - other[0], y - other[1]) > shape.radius + self.shapes[other_name].radius
                    for other_name, other in layout.items()
                )
                if clear:
                    break
            else:
                raise PlacementError(f"no free place for {name} in {variant} after {MAX_PLACEMENT_TRIES} tries")
            z = self.scene.table_height + shape.height
            layout[name] = np.concatenate([[x, y, z], yaw_quat(yaw)])
        return layout

    def place(self, sim: Simulation, layout: Mapping[str, Array]) -> None:
        """Write object poses, and the joints' reset positions, into the simulation (call ``sim.refresh()`` afterwards)."""
        for name, pose7 in layout.items():
            self.write_pose7(sim, name, pose7)
            if name in self.object_dof:
                sim.data.qvel[self.object_dof[name] : self.object_dof[name] + 6] = 0.0
        for address, name in zip(self.joint_qpos, self.joints, strict=True):
            sim.data.qpos[address] = self.joints[name]

    def root_pose7(self, cell: CellState, name: str) -> Array:
        """The numbers (7,) that say where an object's root is; a live view of qpos, or a copy for what has no joint."""
        if (mocap := self.object_mocap.get(name)) is not None:
            return np.concatenate([cell.data.mocap_pos[mocap], cell.data.mocap_quat[mocap]])
        return cell.data.qpos[self.object_qpos[name] : self.object_qpos[name] + 7]

    def write_pose7(self, cell: CellState, name: str, pose7: Array) -> None:
        """Put an object's root at a pose (7,), world frame; poses that are read follow when the cell is evaluated."""
        if (mocap := self.object_mocap.get(name)) is not None:
            cell.data.mocap_pos[mocap] = pose7[:3]
            cell.data.mocap_quat[mocap] = pose7[3:]
        else:
            cell.data.qpos[self.object_qpos[name] : self.object_qpos[name] + 7] = pose7

    def object_pose(self, cell: CellState, name: str) -> Array:
        """4x4 pose of an object's root body, world frame: where it is, or where a belief has it."""
        return cell.body_pose(self.object_body[name])

    def height(self, sim: Simulation, name: str) -> float:
        """Height of an object's root above the table, metres."""
        return float(sim.data.xpos[self.object_body[name], 2] - self.scene.table_height)

    def upright(self, sim: Simulation, name: str, cosine: float) -> bool:
        """Whether an object's z axis leans less than the angle with this cosine."""
        return bool(sim.data.xmat[self.object_body[name], 8] > cosine)

    def off_table(self, sim: Simulation, names: Iterable[str]) -> bool:
        """Whether one of some objects has fallen off the table."""
        return any(self.height(sim, name) < -OFF_TABLE for name in names)

    def grasped(self, sim: Simulation, name: str) -> bool:
        """Whether both finger pads touch the object."""
        return pinched(sim.data.contact.geom, self._pads, self.object_mask[name])

    @abstractmethod
    def predicates(self, sim: Simulation) -> dict[str, bool]:
        """The named conditions whose conjunction, held for ``success_steps``, is strict success."""

    @abstractmethod
    def reference_success(self, sim: Simulation) -> bool:
        """MimicGen's check, for comparison with the literature; implied by the strict predicates."""

    def looks_done(self, sim: Simulation) -> bool:
        """`reference_success` as far as believed poses and joints tell, which have no contacts and are some millimetres off."""
        return self.reference_success(sim)

    def looks_placed(self, sim: Simulation, stage: int) -> bool:
        """Whether what stage ``stage`` begins with in the hand is where it belongs, as far as believed poses tell; True where
        they tell no more than how near it is to where sources leave it."""
        return True

    @abstractmethod
    def stage_done(self, sim: Simulation, stage: int) -> bool:
        """Whether stage ``stage`` is finished in this state (held for some steps by the caller)."""

    @abstractmethod
    def failure(self, sim: Simulation, stage: int) -> str:
        """A short reason why stage ``stage`` can no longer be finished, or ""."""

    @classmethod
    def recipe(cls, rng: np.random.Generator, style: int = 0) -> list[Keyframe]:
        """What the scripted teleoperator does in one demonstration; what is not told is drawn from ``rng``.

        Args:
            rng: the demonstration's generator.
            style: which of ``styles`` ways; a task with only one need not take it.

        Raises:
            InvalidArgument: the task has no recipe.
        """
        raise InvalidArgument(
            f"{cls.name} has no recipe for the scripted teleoperator; give {cls.__name__} a classmethod recipe(rng) that "
            "returns keyframes, or bring source demonstrations of your own"
        )
