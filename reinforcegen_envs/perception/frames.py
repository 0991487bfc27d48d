"""What estimators learn from: states that the running system visits, objects moved a little or far, pictures, labels.

Physics is what costs, so few states are visited and many pictures are taken: objects are moved in a recorded state, alone or
together with what they touch, and keep heights and leans that really occur. How far and how often is ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import mujoco
import numpy as np

from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.perception import fusion
from reinforcegen_envs.perception.camera import joint_owners, joint_ranges, proprio
from reinforcegen_envs.perception.vectors import encode, turns_of
from reinforcegen_envs.poses import from_pose7, invert, matrix_from, rotation, to_pose7, translation
from reinforcegen_envs.sim.cameras import SIZE, Cameras
from reinforcegen_envs.sim.kernel import GRIPPER
from reinforcegen_envs.sim.simulation import CellState, Simulation
from reinforcegen_envs.tasks.base import Placement, Task
from reinforcegen_envs.typing import Array, Flags, Integers, Observations, Pixels

FAR, NEAR = 0.3, 0.35  # part of the pictures in which what stands free is put elsewhere, and moved a little
# The same for a skill's reference object: pictures with the hand at it are the ones that count.
FAR_AT_WORK, NEAR_AT_WORK = 0.1, 0.6
MARGIN = 0.02, 0.1  # metres and radians beyond the reset ranges
NUDGE = 0.012, 0.1  # standard deviations of a small move: metres along x and y, radians of yaw
HELD = 0.5  # part of the pictures in which what is held is moved in the hand, by deviations of:
# Along and about the hand's axes; fingers close along x, and what is held slides along their pads and turns about x.
HELD_METRES, HELD_RADIANS = (0.001, 0.006, 0.004), (0.06, 0.03, 0.03)
# Part of the pictures in which joints of what the robot does not touch are anywhere in their range, hinges of what stands free
# alone, and slides of a skill's reference object: else a drawer is taken to be as far out as the hand has gone, whether it came
# along or not. Lids behind the hand cannot be seen, and where the hand is does tell.
JOINTS, SLIDES_AT_WORK = 0.15, 0.3
# Part of the pictures in which what stands free leans, tipped over an edge by up to so many radians, and of a skill's reference
# object: skills that go well hardly ever show how it leans.
LEANING, LEANING_AT_WORK, LEAN = 0.03, 0.1, 0.6
# The same of what stands on another object without a seat there, as a mug on its plate: else it is believed upright, and where
# policies mostly put it, when it was put down too far out and leans over the edge.
NEAR_PLACED, LEANING_PLACED, LEAN_PLACED = 0.3, 0.12, 0.4
HAND_CLEARANCE = 0.14  # metres between the grip site and what is put elsewhere
TRIES = 10
ROBOT = 0  # group of what touches the robot, directly or through others; other groups are numbered from 1


@dataclass
class States:
    """States of a cell at control steps, one a row.

    Args:
        qpos, mocap_pos, mocap_quat: MuJoCo's.
        gripper: gripper command.
        stage: index.
        connecting: whether a connect was under way.
        groups: (n, objects) objects that touch one another, directly or through others, have the same number; see `ROBOT`.
        seed: of the episode.
    """

    qpos: Array
    mocap_pos: Array
    mocap_quat: Array
    gripper: Array
    stage: Integers
    connecting: Flags
    groups: Integers
    seed: Integers

    def __len__(self) -> int:
        return len(self.qpos)

    def __getitem__(self, rows: Integers | slice) -> States:
        return States(*(getattr(self, field.name)[rows] for field in fields(self)))

    @classmethod
    def joined(cls, parts: Iterable[States]) -> States:
        """One after the other."""
        parts = list(parts)
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def save(self, path: Path) -> None:
        """Write to an ``.npz`` file."""
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> States:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(*(file[field.name] for field in fields(cls)))


def touching_groups(sim: Simulation, task: Task) -> Integers:
    """Which objects touch one another now, see `States.groups`; the table does not count."""
    model, contact = sim.model, sim.data.contact
    roots = model.body_rootid[model.geom_bodyid]
    bodies = task.bodies
    robot = model.body_rootid[model.site_bodyid[sim.grip_site]]
    node = np.full(model.nbody, -1)  # body -> 0 robot, 1.. objects
    node[robot] = 0
    node[bodies] = np.arange(1, len(bodies) + 1)
    label = np.arange(len(bodies) + 1)
    for first, second in contact.geom[: sim.data.ncon]:
        a, b = node[roots[first]], node[roots[second]]
        if a >= 0 and b >= 0 and label[a] != label[b]:
            low, high = sorted((label[a], label[b]))
            label[label == high] = low
    return label[1:]


class Frames:
    """Takes pictures of states with objects moved, and writes down what is to be estimated.

    Args:
        task: the task class.
        model: the physics form of its scene.
        size: pixels a side.
    """

    def __init__(self, task: type[Task], model: mujoco.MjModel, size: int = SIZE):
        self.cell = CellState(model)
        self.task = task(model)
        self.cameras = Cameras(task.scene, size)
        self._turns = [turns_of(task.symmetries.get(name))[0] for name in task.objects]
        self._joint_low, self._joint_span = joint_ranges(model, self.task)
        self._joint_object = joint_owners(model, self.task)
        self._joint_ids = [model.joint(name).id for name in task.joints]

    def load(self, states: States, row: int) -> None:
        """Put the cell into a recorded state."""
        cell = self.cell
        cell.data.qpos[:], cell.controller[GRIPPER] = states.qpos[row], states.gripper[row]
        cell.data.mocap_pos[:], cell.data.mocap_quat[:] = states.mocap_pos[row], states.mocap_quat[row]
        cell.evaluate()

    def take(self, stage: int) -> tuple[Pixels, Observations, Observations]:
        """Pictures (cameras, size, size, 3) uint8, `proprio`, and `labels` of the cell as it is."""
        return self.cameras.frames(self.cell.data), proprio(self.cell, len(self.task.stages), stage), self.labels()

    def labels(self) -> Observations:
        """(objects x 2 x 9 + joints,) float32: all objects' vectors in world and hand frame, as `fusion` has them; joints."""
        cell, task = self.cell, self.task
        hand = cell.eef_pose()
        origin, turned = (hand[:3, 3] - fusion.CENTRE) / fusion.UNIT, hand[:3, :3]
        out = np.empty((len(task.objects), 2, 3, 3))
        for n, (body, turns) in enumerate(zip(task.bodies, self._turns, strict=True)):
            vectors = encode(cell.data.xpos[body], cell.data.xmat[body].reshape(3, 3), turns)
            vectors[0] = (vectors[0] - fusion.CENTRE) / fusion.UNIT
            out[n, 0] = vectors
            vectors[0] -= origin
            out[n, 1] = vectors @ turned
        joints = (cell.data.qpos[task.joint_qpos] - self._joint_low) / self._joint_span
        return np.concatenate([out.ravel(), joints]).astype(np.float32)

    def move(self, groups: Integers, stage: int, connecting: bool, rng: np.random.Generator) -> None:
        """Move objects of the loaded state, as the constants of this module say.

        Args:
            groups: (objects,) see `States.groups`.
            stage, connecting: of the state.
            rng: what is drawn.
        """
        task = self.task
        names = list(task.objects)
        at_work = None if connecting else names.index(task.stages[stage].reference)
        held = [n for n in range(len(names)) if groups[n] == ROBOT]
        for group in sorted(set(groups.tolist()) - {ROBOT}):
            members = [n for n in range(len(names)) if groups[n] == group]
            far, near = (FAR_AT_WORK, NEAR_AT_WORK) if at_work in members else (FAR, NEAR)
            kind = rng.random()
            if kind < far:
                self._put_elsewhere(members, rng)
            elif kind < far + near:
                self._nudge(members, rng)
            if len(members) == 1 and rng.random() < (LEANING_AT_WORK if at_work in members else LEANING):
                self._lean(members[0], LEAN, rng)
            for n in self._placed(members):
                if rng.random() < NEAR_PLACED:
                    self._nudge([n], rng)
                if rng.random() < LEANING_PLACED:
                    self._lean(n, LEAN_PLACED, rng)
        if len(held) == 1 and names[held[0]] in task.object_qpos and self.cell.controller[GRIPPER] > 0:
            if rng.random() < HELD:
                self._slip(names[held[0]], rng)
        self.cell.evaluate()
        for number, owner in enumerate(self._joint_object):
            touching = [n for n in range(len(names)) if groups[n] == groups[owner] and n != owner]
            slides = self.cell.model.jnt_type[self._joint_ids[number]] == mujoco.mjtJoint.mjJNT_SLIDE
            part = SLIDES_AT_WORK if slides and owner == at_work else JOINTS
            if groups[owner] != ROBOT and (slides or not touching) and rng.random() < part:
                self._set_joint(number, touching, rng)
        self.cell.evaluate()

    def _set_joint(self, number: int, touching: Sequence[int], rng: np.random.Generator) -> None:
        """Put a joint anywhere in its range. What slides, a drawer, takes along what touches it."""
        data, address = self.cell.data, self.task.joint_qpos[number]
        joint = self._joint_ids[number]
        before = data.qpos[address]
        data.qpos[address] = self._joint_low[number] + self._joint_span[number] * rng.random()
        self._move_rigidly(touching, translation(*(data.xaxis[joint] * (data.qpos[address] - before))))

    def _placed(self, members: Sequence[int]) -> list[int]:
        """Those of some objects that touch one another which stand on another one, and may stand elsewhere on it."""
        task, names = self.task, self.task.objects
        others = [n for n in members if n != self._largest(members)]
        return [n for n in others if names[n] in task.object_qpos and names[n] not in task.seats]

    def _largest(self, members: Sequence[int]) -> int:
        """The one of some objects that touch one another on which the others stand."""
        return max(members, key=lambda n: self.task.shapes[self.task.objects[n]].radius)

    def _lean(self, n: int, most: float, rng: np.random.Generator) -> None:
        """Tip an object by up to ``most`` radians over a point of what it stands on, beneath its rim."""
        name = self.task.objects[n]
        if name not in self.task.object_qpos:
            return  # it is fixed to the table
        root = self.task.root_pose7(self.cell, name)[:3]
        towards, angle = rng.uniform(-np.pi, np.pi), rng.uniform(0.0, most)
        out = 0.5 * self.task.shapes[name].radius * np.array([np.cos(towards), np.sin(towards)])
        edge = translation(root[0] + out[0], root[1] + out[1], root[2] - self.task.shapes[name].height)
        over = rotation(angle * np.array([-np.sin(towards), np.cos(towards), 0.0]))
        self._move_rigidly([n], edge @ over @ invert(edge))

    def _move_rigidly(self, members: Sequence[int], motion: Array) -> None:
        """Apply a motion (4x4, world frame) to some objects."""
        for n in members:
            name = self.task.objects[n]
            pose = from_pose7(self.task.root_pose7(self.cell, name))
            self.task.write_pose7(self.cell, name, to_pose7(motion @ pose))

    def _about(self, anchor: Array, x: float, y: float, yaw: float) -> Array:
        """The motion that turns by ``yaw`` about the upright axis at ``anchor`` (3,), and shifts."""
        there = translation(*anchor)
        return translation(x, y, 0.0) @ there @ rotation(np.array([0.0, 0.0, yaw])) @ invert(there)

    def _nudge(self, members: Sequence[int], rng: np.random.Generator) -> None:
        x, y = rng.normal(size=2) * NUDGE[0]
        anchor = self.task.root_pose7(self.cell, self.task.objects[members[0]])[:3]
        self._move_rigidly(members, self._about(anchor, x, y, rng.normal() * NUDGE[1]))

    def _put_elsewhere(self, members: Sequence[int], rng: np.random.Generator) -> None:
        """Put objects where a reset of some variant could have put the largest of them, if there is room."""
        task, cell = self.task, self.cell
        anchor = self._largest(members)
        name = task.objects[anchor]
        variants = sorted(task.variants)
        hand = cell.data.site_xpos[cell.grip_site]
        others = [n for n in range(len(task.objects)) if n not in members]
        pose = from_pose7(task.root_pose7(cell, name))
        yaw_now = np.arctan2(pose[1, 0], pose[0, 0])
        centres = {n: task.root_pose7(cell, task.objects[n])[:3] for n in range(len(task.objects))}
        for _ in range(TRIES):
            place = task.variants[variants[rng.integers(len(variants))]][name]
            x, y, yaw = _drawn(place, rng)
            motion = self._about(pose[:3, 3], x - pose[0, 3], y - pose[1, 3], yaw - yaw_now)
            moved = {n: (motion @ np.append(centres[n], 1.0))[:3] for n in members}
            clear = all(
                np.hypot(*(moved[n] - centres[m])[:2]) > self._radius(n) + self._radius(m)
                for n in members
                for m in others
            ) and all(
                np.linalg.norm(moved[n] - hand) > HAND_CLEARANCE
                and (np.hypot(*(moved[n] - hand)[:2]) > self._radius(n) + 0.05 or hand[2] > moved[n][2] + 0.2)
                for n in members
            )
            if clear:
                self._move_rigidly(members, motion)
                return

    def _radius(self, n: int) -> float:
        # Circles are drawn wide, and near misses are to be seen, too.
        return 0.8 * self.task.shapes[self.task.objects[n]].radius

    def _slip(self, name: str, rng: np.random.Generator) -> None:
        hand = self.cell.eef_pose()
        motion = matrix_from(
            rotation(rng.normal(size=3) * HELD_RADIANS)[:3, :3], rng.normal(size=3) * np.array(HELD_METRES)
        )
        pose = from_pose7(self.task.root_pose7(self.cell, name))
        self.task.write_pose7(self.cell, name, to_pose7(hand @ motion @ invert(hand) @ pose))


def _drawn(place: Placement, rng: np.random.Generator) -> tuple[float, float, float]:
    """x, y and yaw of a placement, a little beyond its ranges."""
    metres, radians = MARGIN
    return (
        rng.uniform(place.x[0] - metres, place.x[1] + metres),
        rng.uniform(place.y[0] - metres, place.y[1] + metres),
        rng.uniform(place.yaw[0] - radians, place.yaw[1] + radians),
    )
