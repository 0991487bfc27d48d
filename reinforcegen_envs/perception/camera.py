"""Perception from the two cameras: a network's estimates with their uncertainty, fused in time into a belief."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.models.scene import load_scene
from reinforcegen_envs.perception import fusion, seats
from reinforcegen_envs.perception.base import Belief, Perception
from reinforcegen_envs.perception.network import LOG_VARIANCES, PER_OBJECT, EstimatorNetwork, load_estimator
from reinforcegen_envs.perception.vectors import UNIQUE, aligned, decode, rotated, turns_of
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.policy import Memory
from reinforcegen_envs.poses import invert, matrix_from, to_pose7
from reinforcegen_envs.sim.cameras import CAMERAS, SIZE, Cameras
from reinforcegen_envs.sim.kernel import GRIPPER
from reinforcegen_envs.sim.simulation import EMPTY, INITIAL_JOINTS, CellState, Simulation
from reinforcegen_envs.tasks.base import Task
from reinforcegen_envs.typing import Array, Integers, Observations

# An object that nothing has moved yet stands on the table as resets leave it, unless it is seen so many metres higher or lower,
# or its z axis leaning so far (cosine): then it was toppled. What was put down stands upright too, at whatever height.
STANDING = 0.02
SETTLING = 20  # control steps until objects lie still
UPRIGHT = 0.985
LIFTED = 0.01  # metres that a hand has risen since it closed on an object, beyond which its height is no longer taken for known
THIN = 0.2  # such an opening below which what is held swings about the fingers (a nut's bars: 0.25)
CLOSING = 0.03  # part of the fingers' stroke a control step beyond which they close on nothing yet; they move by 0.1
STARTING = 3  # control steps that they may take to begin to move
FALLING = 20  # control steps for which what was let go of may fall, or slide into place
JOINT_FADING = 0.4  # part of a joint's precision that is left after a control step: a lid is shut in twenty
# Parts of a joint's range: a lid or drawer that is seen so near to a stop rests there, until it is seen so far away from there;
# before it first moves it rests where resets leave it. An open lid was believed 0.1 to 0.5 rad from its stop with the hand
# before it, which did not find it, and a shut one as far open.
AT_STOP, LEFT_STOP = 0.15, 0.2
JOINT_SURPRISE = 6.6  # squared Mahalanobis distance of one number (p = 0.01) beyond which it fades twice as fast


@dataclass(frozen=True)
class Estimate:
    """What a network says of one control step's pictures.

    Args:
        mean, variance: (objects, 2, 3, 3): frame (world, hand), vector, number; see `fusion.evidence`.
        joints, joint_variance: (joints,) position as a part of the joint's range.
    """

    mean: Array
    variance: Array
    joints: Array
    joint_variance: Array


def output_size(task: type[Task] | Task) -> int:
    """Number of a network's outputs: means and log variances of all objects' vectors in both frames, and of all joints."""
    return len(task.objects) * PER_OBJECT + 2 * len(task.joints)


def split(outputs: Observations, objects: int) -> Estimate:
    """A network's outputs by what they say."""
    vectors = outputs[: objects * PER_OBJECT].astype(np.float64).reshape(objects, 2, 2, 3, 3)
    joints = outputs[objects * PER_OBJECT :].astype(np.float64).reshape(-1, 2)
    return Estimate(
        np.ascontiguousarray(vectors[:, 0]),
        np.exp(np.clip(vectors[:, 1], *LOG_VARIANCES)),
        joints[:, 0],
        np.exp(np.clip(joints[:, 1], *LOG_VARIANCES)),
    )


def proprio_size(task: type[Task] | Task) -> int:
    """Length of `proprio`."""
    return 18 + len(task.stages)


def proprio(cell: CellState, stages: int, stage: int) -> Observations:
    """What the robot knows of itself, about 1 in size, float32.

    Grip site's position from `fusion.CENTRE` (in `fusion.HAND_UNIT`) and first two axes, world frame; finger opening; joints
    (7, radians); last gripper command; current stage, one-hot.
    """
    position, rotation = cell.data.site_xpos[cell.grip_site], cell.data.site_xmat[cell.grip_site].reshape(3, 3)
    out = np.zeros(18 + stages, np.float32)
    out[:3] = (position - fusion.CENTRE) / fusion.HAND_UNIT
    out[3:6], out[6:9] = rotation[:, 0], rotation[:, 1]
    out[9] = cell.gripper_opening()
    out[10:17] = cell.joints
    out[17] = cell.controller[GRIPPER]
    out[18 + stage] = 1.0
    return out


def joint_ranges(model: mujoco.MjModel, task: Task) -> tuple[Array, Array]:
    """Lowest position of every observed joint of objects, and how far it can go up from there, (joints,) rad or m."""
    ranges = np.array([task.joint_stops.get(name, model.joint(name).range) for name in task.joints]).reshape(-1, 2)
    return ranges[:, 0], ranges[:, 1] - ranges[:, 0]


class Carriers:
    """Which objects move with the hand, as far as the robot itself can tell: what it holds, or has closed on to take it.

    What a stage begins with in the hand is not in it any more once the hand has opened, though it may close again, on a lid.

    Args:
        task: a task.
    """

    def __init__(self, task: Task):
        taken = {stage.held for stage in task.stages} - {None}
        self._candidates: list[int | None] = []  # by stage: index of the object that a closed hand has
        self.brought = [stage.held is not None for stage in task.stages]  # whether it is there from the beginning
        for stage in task.stages:
            name = stage.held or (stage.reference if stage.reference in taken else None)
            self._candidates.append(None if name is None else task.objects.index(name))
        self._count = len(task.objects)

    def of(self, stage: int, gripper: float, opening: float, opened: bool = False) -> Integers:
        """Carrier of every object, (objects,) int64.

        Args:
            stage: index.
            gripper: its command; positive closes.
            opening: of the fingers, a part of their stroke.
            opened: whether the hand has opened since the stage began.
        """
        carriers = np.full(self._count, fusion.WORLD, np.int64)
        candidate = self._candidates[stage]
        if candidate is not None and gripper > 0 and opening > EMPTY and not (opened and self.brought[stage]):
            carriers[candidate] = fusion.HAND
        return carriers

    def let_go(self, stage: int) -> NDArray[np.bool_]:
        """(objects,) whether an object is what a stage begins with in the hand."""
        out = np.zeros(self._count, bool)
        out[self._candidates[stage]] = self.brought[stage]
        return out


class Grip:
    """What the hand carries, and what it has put down, from one control step to the next.

    Args:
        task: a task.

    Attributes:
        stage: index.
        opened: how many control steps ago the hand opened first in that stage; 0: it has not.
        closed: for how many control steps the hand has been told to close.
        gripping: whether its fingers have come to something since then: until they have, the hand rises without it.
        put_down: (objects,) bool: let go of where it was brought to, and not taken up again.
    """

    def __init__(self, task: Task):
        self._carriers = Carriers(task)
        self._objects = len(task.objects)
        self.reset()

    def reset(self) -> None:
        """Begin with a new scene."""
        self.stage, self.opened, self.closed = 0, 0, 0
        self.gripping, self._opening = False, 1.0
        self.put_down = np.zeros(self._objects, bool)

    def update(self, truth: Simulation, stage: int) -> Integers:
        """One control step; returns the carrier of every object, see `Carriers.of`."""
        gripper = float(truth.controller[GRIPPER])
        if stage != self.stage:
            self.stage, self.opened = stage, 0
        self.opened += self.opened > 0 or gripper <= 0
        self.closed = self.closed + 1 if gripper > 0 else 0
        opening = truth.gripper_opening()
        still = self.closed > STARTING and self._opening - opening < CLOSING
        self.gripping = self.closed > 0 and (self.gripping or self.brings or still)
        self._opening = opening
        carriers = self._carriers.of(stage, gripper if self.gripping else 0.0, opening, self.opened > 0)
        if self.released:
            self.put_down |= self._carriers.let_go(stage)
        self.put_down &= carriers != fusion.HAND
        return carriers

    @property
    def brings(self) -> bool:
        """Whether the current stage begins with an object in the hand."""
        return self._carriers.brought[self.stage]

    @property
    def released(self) -> bool:
        """Whether what the current stage began with in the hand was let go of."""
        return self.opened > 0 and self.brings

    @property
    def falling(self) -> NDArray[np.bool_]:
        """(objects,) whether the hand has just let go of an object."""
        return self._carriers.let_go(self.stage) & (0 < self.opened <= FALLING)

    @property
    def settled(self) -> NDArray[np.bool_]:
        """(objects,) whether an object was put down, and has had the time to slide into its seat."""
        return self.put_down & ~(self._carriers.let_go(self.stage) & (0 < self.opened <= seats.DROP))

    def get_memory(self) -> Memory:
        """What it goes on from."""
        return {
            "stage": self.stage,
            "opened": self.opened,
            "closed": self.closed,
            "gripping": self.gripping,
            "opening": self._opening,
            "put_down": self.put_down.copy(),
        }

    def set_memory(self, memory: Memory) -> None:
        """Go on from what `get_memory` gave."""
        self.stage, self.opened, self.closed = int(memory["stage"]), int(memory["opened"]), int(memory["closed"])
        self.gripping, self._opening = bool(memory["gripping"]), float(memory["opening"])
        self.put_down = np.array(memory["put_down"], bool)


class CameraPerception(Perception):
    """Objects are where a network sees them in the pictures of front and wrist camera, fused in time.

    The pictures are all that it takes from the simulation, besides what a robot knows of itself.

    Args:
        weights: folder with ``estimator.safetensors``; None means the shipped one.
        every: control steps between two looks.

    Raises:
        WeightsError: when it is put to use: no estimator, or one for another task or other cameras.
        RenderingError: when it first looks: no OpenGL on this machine.
    """

    name = "camera"

    def __init__(self, weights: str | os.PathLike[str] | None = None, every: int = 1):
        if not (isinstance(every, int) and every >= 1):
            raise InvalidArgument(f"every is {every!r}; it must be a number of control steps, at least 1")
        self._weights = weights
        self._every = every
        self._cameras: Cameras | None = None
        self._network: EstimatorNetwork | None = None
        self.estimate: Estimate | None = None

    def believe(self, truth: Simulation, task: Task) -> CellState:
        """Load the estimator of a task."""
        path = Bundle.open(type(task), self._weights).path("estimator")
        self._network, card = load_estimator(path, **requirements(type(task)))
        self._size = int(card["size"])
        self._grip = Grip(task)
        symmetries = [turns_of(task.symmetries.get(name)) for name in task.objects]
        self._turns = [turns for turns, _ in symmetries]
        self._lowest = [lowest for _, lowest in symmetries]
        self._joint_low, self._joint_span = joint_ranges(truth.model, task)
        self._reset_joints = (np.array(list(task.joints.values())) - self._joint_low) / self._joint_span
        owners = [task.objects[n] for n in joint_owners(truth.model, task)]
        references = [stage.reference for stage in task.stages]
        # By joint: the first stage that is about its object; until then it is as resets leave it.
        self._moves_first = np.array([references.index(owner) for owner in owners], np.int64)
        self._heights = standing_heights(type(task))
        self._forget(len(task.objects), len(task.joints))
        return Belief(truth.model)

    def _forget(self, objects: int, joints: int) -> None:
        self._means, self._precisions = np.zeros((objects, 3, 3)), np.zeros((objects, 3, 3, 3))
        self._carrier = np.full(objects, fusion.NONE, np.int64)
        self._yaws = np.full(objects, np.nan)
        # Of objects whose yaw nobody can see: believed rotation in the carrier's frame, and whether that is the hand.
        self._rotations, self._carried = np.full((objects, 3, 3), np.nan), np.zeros(objects, bool)
        self._joints, self._joint_precision = np.zeros(joints), np.zeros(joints)
        self._joint_rests = self._reset_joints.copy()  # where it rests, a part of its range; NaN while it moves
        self._hand = np.eye(3)  # its rotation at the last look
        self._grip.reset()
        self._moved = np.zeros(objects, bool)  # carried to another place, or something was put on it
        self._fallen = np.full((objects, 4, 4), np.nan)  # pose in its seat's object of what has fallen there, and stays
        self._taken_at = np.full(objects, np.nan)  # least height of the hand since it closed on an object
        self._count = 0

    def reset(self, truth: Simulation, belief: CellState, task: Task, rng: np.random.Generator) -> None:
        """Look at a new scene."""
        self._forget(len(task.objects), len(task.joints))
        self.update(truth, belief, task, 0)

    def update(self, truth: Simulation, belief: CellState, task: Task, stage: int = 0) -> None:
        """Look, and believe what is seen together with what was known."""
        assert isinstance(belief, Belief)
        belief.follow_robot(truth)
        carriers = self._grip.update(truth, stage)
        rotation = truth.data.site_xmat[truth.grip_site].reshape(3, 3).copy()
        position = (truth.data.site_xpos[truth.grip_site] - fusion.CENTRE) / fusion.UNIT
        if self._count % self._every == 0:
            thin = np.full(len(carriers), truth.gripper_opening() < THIN)
            self._fuse(self.look(truth, task, stage), position, rotation, carriers, thin)
        self._count += 1
        held = carriers == fusion.HAND
        self._taken_at[~held] = np.nan
        height = truth.data.site_xpos[truth.grip_site, 2]
        self._taken_at[held] = np.fmin(self._taken_at[held], height)
        rise = np.where(held, height - self._taken_at, 0.0)
        if self._grip.brings:
            self._moved[task.objects.index(task.stages[stage].reference)] = True
            self._moved |= held
        for n in np.flatnonzero(~self._moved & (rise <= LIFTED)):
            self._stand(n, float(self._heights[n] + rise[n]), position, rotation)
        poses = []
        for n in range(len(task.objects)):
            vectors = fusion.in_world(self._means[n], position, rotation, self._carrier[n])
            # Shown so, and not written into what is known: a lean that grows by little a step has to add up.
            if self._grip.put_down[n] and self._stands(n, vectors):
                self._put_upright(n, vectors)
            poses.append(matrix_from(self._turned(n, vectors, rotation), vectors[0]))
        self._seat(task, poses)
        for name, pose in zip(task.objects, poses, strict=True):
            task.write_pose7(belief, name, to_pose7(pose))
        belief.data.qpos[task.joint_qpos] = self._joint_low + self._joint_span * self._shown_joints()

    def _seat(self, task: Task, poses: list[Array]) -> None:
        """Put what was let go of in its seat there, in a list of all objects' poses; what has fallen there stays."""
        settled = self._grip.settled
        self._fallen[~settled] = np.nan
        for n in np.flatnonzero(settled):
            if (seat := task.seats.get(task.objects[n])) is None:
                continue
            reference, seen = poses[task.objects.index(seat.reference)], poses[n]
            if not np.isnan(self._fallen[n, 0, 0]):
                poses[n] = reference @ self._fallen[n]
                continue
            poses[n] = seats.seated(seen, reference, seat)
            if seat.fall and poses[n] is not seen:
                self._fallen[n] = invert(reference) @ poses[n]

    def _shown_joints(self) -> Array:
        """(joints,) believed positions, parts of the range."""
        return np.where(np.isnan(self._joint_rests), np.clip(self._joints, 0.0, 1.0), self._joint_rests)

    def _stand(self, n: int, height: float, hand_position: Array, hand_rotation: Array) -> None:
        """Put what is known of an object upright at a known height (metres), if that is near: cameras see heights and lean
        worst."""
        held = self._carrier[n] == fusion.HAND
        means = self._means[n]
        if held:
            means = means @ hand_rotation.T
            means[0] += hand_position
        height = (height - fusion.CENTRE[2]) / fusion.UNIT
        if not self._stands(n, means) or abs(means[0, 2] - height) * fusion.UNIT > STANDING:
            return
        means[0, 2] = height
        self._put_upright(n, means)
        if held:
            means[0] -= hand_position
            self._means[n] = means @ hand_rotation

    def _stands(self, n: int, vectors: Array) -> bool:
        """Whether an object with such vectors, world frame, is about upright."""
        return decode(vectors, self._turns[n], self._lowest[n], self._yaws[n])[0][2, 2] >= UPRIGHT

    def _put_upright(self, n: int, vectors: Array) -> None:
        """Take the lean out of an object's vectors, world frame, in place."""
        if self._turns[n] == UNIQUE:
            vectors[1:, 2] = 0.0
        else:
            vectors[1] = [0.0, 0.0, 1.0]
            vectors[2] = vectors[1] if self._turns[n] == 0 else [vectors[2, 0], vectors[2, 1], 0.0]

    def _turned(self, n: int, vectors: Array, hand: Array) -> Array:
        """An object's rotation (3, 3), world frame, with a hand that is turned so."""
        turned, self._yaws[n] = decode(vectors, self._turns[n], self._lowest[n], self._yaws[n])
        if self._turns[n] != 0:
            return turned
        # Nobody sees its yaw, but it moves with what carries it: policies know held objects that turn with the hand.
        carried = self._carrier[n] == fusion.HAND
        frame = hand if carried else np.eye(3)
        if not np.isnan(self._rotations[n, 0, 0]):
            last = self._rotations[n]
            if carried != self._carried[n]:
                last = hand.T @ last if carried else hand @ last
            turned = aligned(np.ascontiguousarray(frame @ last), vectors[1] + vectors[2])
        self._rotations[n], self._carried[n] = frame.T @ turned, carried
        return turned

    @property
    def released(self) -> bool:
        """Whether what the current stage began with in the hand was let go of."""
        return self._grip.released

    def look(self, truth: Simulation, task: Task, stage: int) -> Estimate:
        """What one pair of pictures says."""
        assert self._network is not None
        if self._cameras is None:
            self._cameras = Cameras(task.scene, self._size)
        outputs = self._network(self._cameras.frames(truth.data, truth.look), proprio(truth, len(task.stages), stage))
        self.estimate = split(outputs, len(task.objects))
        return self.estimate

    def _fuse(
        self, estimate: Estimate, position: Array, rotation: Array, carriers: Integers, swinging: NDArray[np.bool_]
    ) -> None:
        for n in np.flatnonzero(self._carrier == fusion.HAND):
            if self._turns[n] > UNIQUE:  # else its directions stay as they are in the hand's frame
                directions = np.ascontiguousarray(self._means[n, 1:] @ self._hand.T)
                directions = rotated(directions, self._turns[n], rotation @ self._hand.T)
                self._means[n, 1:] = directions @ rotation
        self._hand = rotation
        fusion.fuse(
            self._means,
            self._precisions,
            self._carrier,
            estimate.mean,
            estimate.variance,
            position,
            rotation,
            carriers,
            self._grip.falling,
            swinging,
            ~self._moved & (carriers != fusion.HAND),
        )
        # What contradicts what was known makes it fade faster, as with vectors: a lid that falls shut under the hand is hard to
        # see, and would be believed late against clear pictures of it open.
        known = np.maximum(self._joint_precision * (1.0 - JOINT_FADING), 1e-9)
        away = (estimate.joints - self._joints) ** 2 / (estimate.joint_variance + 1.0 / known)
        left = np.where(away > JOINT_SURPRISE, 0.5 * JOINT_FADING, JOINT_FADING)
        kept, new = left * self._joint_precision, 1.0 / estimate.joint_variance
        self._joints = (kept * self._joints + new * estimate.joints) / (kept + new)
        self._joint_precision = kept + new
        resting = self._grip.stage < self._moves_first
        self._joints[resting] = self._reset_joints[resting]
        self._joint_rests[np.abs(self._joints - self._joint_rests) > LEFT_STOP] = np.nan
        moving = np.isnan(self._joint_rests)
        self._joint_rests[moving & (self._joints > 1.0 - AT_STOP)] = 1.0
        self._joint_rests[moving & (self._joints < AT_STOP)] = 0.0

    def doubt(self, belief: CellState, task: Task, name: str) -> tuple[float, float]:
        """Of all axes together; a direction's where the object looks the same after fewer turns is that of the object's."""
        n = task.objects.index(name)
        covariance = self._covariance(n, 0) * fusion.UNIT**2
        turned = max(np.trace(self._covariance(n, 1)), np.trace(self._covariance(n, 2)) / max(self._turns[n], 1) ** 2)
        return float(np.sqrt(np.trace(covariance))), float(np.sqrt(turned))

    def _covariance(self, n: int, vector: int) -> Array:
        """(3, 3) of one of an object's vectors, in its carrier's frame and its units.

        Errors of consecutive pictures are alike, so the fused precision counts as no more than that of one picture.
        """
        fading = fusion.FADING[max(int(self._carrier[n]), 0), min(vector, 1)]
        return np.linalg.inv(self._precisions[n, vector] * (1.0 - fading))

    def spread(self, belief: CellState) -> Array:
        """(objects, 3, 3) covariance of every object's believed position, square metres, world frame."""
        covariance = np.array([self._covariance(n, 0) for n in range(len(self._carrier))]) * fusion.UNIT**2
        hand = belief.data.site_xmat[belief.grip_site].reshape(3, 3)
        covariance[self._carrier == fusion.HAND] = hand @ covariance[self._carrier == fusion.HAND] @ hand.T
        return covariance

    def get_memory(self) -> Memory:
        """What is known, and how well."""
        return {
            "means": self._means.copy(),
            "precisions": self._precisions.copy(),
            "carrier": self._carrier.copy(),
            "yaws": self._yaws.copy(),
            "rotations": self._rotations.copy(),
            "carried": self._carried.copy(),
            "joints": self._joints.copy(),
            "joint_precision": self._joint_precision.copy(),
            "joint_rests": self._joint_rests.copy(),
            "hand": self._hand.copy(),
            **self._grip.get_memory(),
            "moved": self._moved.copy(),
            "fallen": self._fallen.copy(),
            "taken_at": self._taken_at.copy(),
            "count": self._count,
        }

    def set_memory(self, memory: Memory) -> None:
        """Go on from what `get_memory` gave."""
        self._means[:], self._precisions[:] = memory["means"], memory["precisions"]
        self._carrier[:], self._yaws[:] = memory["carrier"], memory["yaws"]
        self._rotations[:], self._carried[:] = memory["rotations"], memory["carried"]
        self._joints[:], self._joint_precision[:] = memory["joints"], memory["joint_precision"]
        self._joint_rests = np.array(memory["joint_rests"], np.float64)
        self._hand = np.array(memory["hand"], np.float64)
        self._grip.set_memory(memory)
        self._moved = np.array(memory["moved"], bool)
        self._fallen = np.array(memory["fallen"], np.float64)
        self._taken_at = np.array(memory["taken_at"], np.float64)
        self._count = int(memory["count"])

    def close(self) -> None:
        """Close its OpenGL context; the next look opens another."""
        if self._cameras is not None:
            self._cameras.close()
            self._cameras = None

    def __getstate__(self) -> dict[str, Any]:
        # OpenGL contexts cannot be copied; a copy opens its own when it first looks.
        return {**self.__dict__, "_cameras": None}


class LateCamera(CameraPerception):
    """Like `CameraPerception`, whose belief counts from some stage on; until then objects are where they are.

    Args:
        weights: see the base class.
        first_stage: index.
    """

    def __init__(self, weights: str | os.PathLike[str] | None = None, first_stage: int = 0):
        super().__init__(weights)
        self.first_stage = first_stage

    def update(self, truth: Simulation, belief: CellState, task: Task, stage: int = 0) -> None:
        """Look; see the base class."""
        super().update(truth, belief, task, stage)
        if stage < self.first_stage:
            belief.data.qpos[:] = truth.data.qpos
            belief.data.mocap_pos[:], belief.data.mocap_quat[:] = truth.data.mocap_pos, truth.data.mocap_quat


@functools.cache
def standing_heights(task: type[Task]) -> Array:
    """(objects,) metres, world frame: where the roots of a task's objects are in height once they have settled after a reset."""
    sim = Simulation(load_scene(task.scene))
    rules = task(sim.model)
    sim.reset(INITIAL_JOINTS)
    rules.place(sim, rules.sample_layout(next(iter(task.variants)), np.random.default_rng(0)))
    sim.refresh()
    for _ in range(SETTLING):
        sim.step(np.array([0.0] * 6 + [-1.0]))
    heights = np.array([rules.root_pose7(sim, name)[2] for name in task.objects])
    heights.setflags(write=False)
    return heights


@functools.cache
def views_of(task: type[Task]) -> list[list[float]]:
    """Where the cameras are, front in the world and wrist in the hand (the grip site), as `EstimatorNetwork` takes it."""
    light, cell = load_scene(task.scene, "light"), CellState(load_scene(task.scene))
    cell.evaluate()
    hand, views = cell.eef_pose(), []
    data = mujoco.MjData(light)
    mujoco.mj_kinematics(light, data)
    mujoco.mj_camlight(light, data)
    mujoco.mj_camlight(cell.model, cell.data)
    for k, (name, model, seen) in enumerate(zip(CAMERAS.values(), (light, cell.model), (data, cell.data), strict=True)):
        i = model.camera(name).id
        pose = matrix_from(seen.cam_xmat[i].reshape(3, 3), seen.cam_xpos[i])
        pose = invert(hand) @ pose if k else pose
        focal = 0.5 / np.tan(0.5 * np.radians(model.cam_fovy[i]))
        # Rounded: weights' cards hold them, and are compared.
        views.append([round(float(x), 6) for x in (*pose[:3, 3], *pose[:3, :3].ravel(), focal)])
    return views


@functools.cache
def joint_ranges_of(task: type[Task]) -> list[list[float]]:
    """Lowest and highest position of every observed joint, rad or m: what a network's joints are parts of."""
    model = load_scene(task.scene)
    lowest, span = joint_ranges(model, task(model))
    # Rounded: weights' cards hold them, and are compared.
    return [[round(float(low), 6), round(float(low + way), 6)] for low, way in zip(lowest, span, strict=True)]


def joint_owners(model: mujoco.MjModel, task: Task) -> list[int]:
    """By observed joint: index of the object that it belongs to; in ascending order, as networks give joints object by object."""
    roots = [int(model.body_rootid[model.joint(name).bodyid[0]]) for name in task.joints]
    owners = [list(task.bodies).index(root) for root in roots]
    assert owners == sorted(owners), f"list the joints of {task.name} in the order of its objects"
    return owners


def requirements(task: type[Task]) -> dict[str, Any]:
    """Entries that an estimator's card must have to serve a task: what it sees, and what it says of which objects."""
    return {
        "task": task.name,
        "kind": "estimator",
        "cameras": tuple(CAMERAS),
        "views": views_of(task),
        "objects": task.objects,
        "joints": tuple(task.joints),
        **({"joint_ranges": joint_ranges_of(task)} if task.joints else {}),
        "proprio_size": proprio_size(task),
        "output_size": output_size(task),
    }


def card_of(task: type[Task], size: int = SIZE) -> dict[str, Any]:
    """The entries of an estimator's card that say what it is for."""
    return {**requirements(task), "size": size}
