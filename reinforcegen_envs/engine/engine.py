"""One workcell with one task: everything that an environment does, without Gymnasium.

The *simulation* is true; the *judge* reads it. The *belief* is what the robot takes to be true: everything that acts reads
it, and with truth as perception it is the simulation itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from reinforcegen_envs.engine.events import Events
from reinforcegen_envs.engine.judge import Judge
from reinforcegen_envs.engine.snapshot import Snapshot, SnapshotError
from reinforcegen_envs.models.scene import load_scene
from reinforcegen_envs.observations import ObservationLayout, ProprioLayout, fill_proprio, fill_state
from reinforcegen_envs.perception import Perception, Truth
from reinforcegen_envs.planning.connect import ARRIVED, CLOSE, MAX_SETTLE_STEPS, OPEN, SETTLED, Connect, Connector
from reinforcegen_envs.planning.motion import Plan
from reinforcegen_envs.policies.policy import Memory, Policy
from reinforcegen_envs.poses import distance
from reinforcegen_envs.sim.kernel import GRIPPER
from reinforcegen_envs.sim.looks import Look
from reinforcegen_envs.sim.simulation import INITIAL_JOINT_NOISE, INITIAL_JOINTS, Simulation
from reinforcegen_envs.tasks.base import Task
from reinforcegen_envs.typing import Array, Observations

LOOKS = 1  # the stream of random numbers that looks are drawn from, apart from perception's
# Nm from outside on a joint of the arm with which the hand presses against something, and below which it does not any more, and
# how many control steps it goes back by what it came by in between. Skills end with 1 Nm, but for one that pushes a lid against
# its stop: 30 to 50 (ours).
PRESSED, EASED, BACK_STEPS = 15.0, 2.0, 15
OPEN_ENOUGH = 0.95  # of the stroke, for a hand that is to start a skill empty


class Remembers(Protocol):
    """Something in play whose memory belongs to snapshots: a policy, or a wrapper's counters."""

    def get_memory(self) -> Memory: ...

    def set_memory(self, memory: Memory) -> None: ...


class _KeptLook:
    """The simulation's look, as a part of snapshots."""

    def __init__(self, sim: Simulation):
        self._sim = sim

    def get_memory(self) -> Memory:
        return {} if self._sim.look is None else self._sim.look.to_memory()

    def set_memory(self, memory: Memory) -> None:
        self._sim.look = Look.from_memory(memory) if memory else None


class Engine:
    """A workcell.

    Args:
        task: the task class.
        variant: how widely objects are reset.
        controller: see `Simulation`.
        perception: what fills the belief; None means truth. It must belong to this engine alone.
        randomize_visuals: draw how the scene looks in the cameras' pictures anew in every reset, see `Look`.

    Attributes:
        sim: the simulation: truth.
        belief: what is believed of it.
        judge: stage, predicates, success, failures.
        events: what can be listened to.
        rng: source of all randomness; the owner may replace it.
        layout: of `observe`.
        proprio_layout: of `proprio`.
    """

    def __init__(
        self,
        task: type[Task],
        variant: str,
        controller: str = "osc_pose",
        perception: Perception | None = None,
        randomize_visuals: bool = False,
    ):
        self.sim = Simulation(load_scene(task.scene), controller)
        self.task = task(self.sim.model)
        self.variant = variant
        self.perception = perception or Truth()
        self.belief = self.perception.believe(self.sim, self.task)
        self.judge = Judge(self.sim, self.task)
        self.events = Events()
        self.rng = np.random.default_rng()
        self.layout = ObservationLayout.of(task)
        self.proprio_layout = ProprioLayout(len(task.stages))
        self._offsets = tuple(self.layout.offsets)  # plain, for compiled code
        self._reference_bodies = [self.task.object_body[stage.reference] for stage in self.task.stages]
        self._parts: dict[str, Remembers] = {}
        self._connector: Connector | None = None
        self.restored = 0  # how often it was put into a state from outside
        self._randomize_visuals = randomize_visuals
        if randomize_visuals:
            self.keep("look", _KeptLook(self.sim))

    @property
    def stage(self) -> int:
        """Index of the current stage."""
        return self.judge.stage

    @property
    def connector(self) -> Connector:
        """Planner of connects, made when first needed."""
        if self._connector is None:
            self._connector = Connector(self.belief, self.task)
        return self._connector

    def reset(self, joints: Array | None = None, layout: Mapping[str, Array] | None = None) -> None:
        """Place arm and objects anew, in the first stage.

        Args:
            joints: (7,) radians; None draws them.
            layout: object -> pose (7,), world frame, of objects that are not to be drawn.

        Raises:
            PlacementError: no free place was found for an object.
            SimulationError: numbers that MuJoCo cannot simulate.
        """
        self.draw_look()
        drawn = INITIAL_JOINTS + INITIAL_JOINT_NOISE * self.rng.standard_normal(7)
        places = self.task.layout_with(layout or {}, self.variant, self.rng)
        self.sim.reset(drawn if joints is None else joints)
        self.task.place(self.sim, places)
        self.sim.refresh()
        self.perceive_anew()
        self.enter_stage(0)
        self.judge.look()

    def draw_look(self) -> None:
        """With ``randomize_visuals``, another look of the scene; whatever else is drawn stays the same."""
        if self._randomize_visuals:
            self.sim.look = Look.draw(self.task.scene, fork(self.rng, LOOKS))

    def act(self, action: Array) -> None:
        """One control step of the end-effector controller; the stage stays, ``judge.finished`` tells.

        Args:
            action: (7,) float64 in [-1, 1], world frame.

        Raises:
            SimulationError: the simulation diverged.
        """
        self.sim.step(action)
        self._perceive()
        finished = self.judge.finished
        self.judge.step()
        self.events.emit("control_step")
        if self.judge.finished and not finished:
            self.events.emit("stage_finished", self.stage)

    def track(self, start: Array, goal: Array, gripper: float) -> None:
        """One control step of joint tracking from target ``start`` (7,) to ``goal`` (7,), radians; nothing is judged."""
        self.sim.track_joints(start, goal, gripper)
        self._perceive()
        self.events.emit("control_step")

    def enter_stage(self, stage: int) -> None:
        """Make ``stage`` the current one: its reference object is the observation's frame from now on."""
        self.judge.enter(stage)
        self.events.emit("stage_entered", stage)

    def begin_skill(self) -> None:
        """A skill begins: the policies in play forget what they saw before."""
        for part in self._parts.values():
            if isinstance(part, Policy):
                part.reset()

    def plan(self, goal: Array, lookahead: tuple[Array, ...] = (), empty: bool = False) -> Plan:
        """Plan a connect to a grip-site pose (4x4, world), ``empty`` or with what the stage holds; see `Connector.plan`."""
        held = None if empty else self.task.stages[self.stage].held
        return self.connector.plan(goal, held, self.rng, lookahead)

    def follow(
        self, plan: Plan, goal: Array, stop: Callable[[], bool] | None = None, every: int = 1, empty: bool = False
    ) -> Connect:
        """Follow a plan with the hand open, or closed on what the current stage holds. The stage does not advance.

        Args:
            plan: what to follow; an unsolved one is reported, not followed.
            goal: 4x4 grip-site pose, world, at the plan's end.
            stop: asked every ``every`` control steps whether to stop and plan anew.
            every: see ``stop``.
            empty: open, whatever the stage holds.
        """
        self.events.emit("connect_begun", plan)
        empty = empty or self.task.stages[self.stage].held is None
        connect = self._follow(plan, goal, stop, every, empty) if plan.solved else Connect(plan, 0, plan.status)
        self.judge.look()
        self.events.emit("connect_ended", connect)
        return connect

    def open_hand(self) -> int:
        """Open the hand where it is, as far as what is about it allows; returns the control steps that it took."""
        return self._hold(self.sim.joints.copy(), OPEN, self._opened)

    def ease(self, way_back: Array) -> int:
        """Go back by joints (n, 7), radians, if the hand presses against something, until it does not; returns the control steps.

        A path from where the hand presses leads through what it presses against, and throws it when that gives way.
        """
        if np.abs(self.sim.outside_torques).max() < PRESSED:
            return 0
        steps = 0
        gripper = CLOSE if self.sim.controller[GRIPPER] > 0 else OPEN
        for target in way_back[:BACK_STEPS]:
            if np.abs(self.sim.outside_torques).max() < EASED:
                break
            self.track(self.sim.joints.copy(), target, gripper)
            steps += 1
        return steps

    def retrace(self, trail: Array, gripper: float) -> int:
        """Track joints (n, 7), radians, one point a control step, and come to rest; returns the control steps that it took."""
        points = [self.sim.joints.copy(), *trail]
        for start, target in zip(points[:-1], points[1:], strict=True):
            self.track(start, target, gripper)
        return len(trail) + self._hold(points[-1], gripper, lambda: self._settled(points[-1]))

    def _hold(self, joints: Array, gripper: float, until: Callable[[], bool]) -> int:
        """Track joints (7,) until something is so, or for a while; returns the control steps that it took."""
        steps = 0
        while steps < MAX_SETTLE_STEPS and not until():
            self.track(joints, joints, gripper)
            steps += 1
        self.sim.hold_orientation()
        return steps

    def _settled(self, joints: Array) -> bool:
        return bool(np.abs(self.sim.joints - joints).max() < SETTLED)

    def _opened(self) -> bool:
        return self.sim.gripper_opening() > OPEN_ENOUGH

    def _follow(self, plan: Plan, goal: Array, stop: Callable[[], bool] | None, every: int, empty: bool) -> Connect:
        gripper = OPEN if empty else CLOSE
        steps = 0
        for start, target in zip(plan.path[:-1], plan.path[1:], strict=True):
            self.track(start, target, gripper)
            steps += 1
            if stop is not None and steps % every == 0 and stop():
                self.sim.hold_orientation()
                return Connect(plan, steps, "", interrupted=True)
        end = plan.path[-1]
        steps += self._hold(end, gripper, lambda: self._settled(end) and (not empty or self._opened()))
        failure = self.judge.failure()
        metres, radians = distance(self.sim.eef_pose(), goal)
        if failure is None and (metres > ARRIVED[0] or radians > ARRIVED[1]):
            return Connect(plan, steps, "goal not reached")
        return Connect(plan, steps, "" if failure is None else failure.reason)

    def observe(self) -> Observations:
        """What is believed now, (layout.size,) float32."""
        layout, belief = self.layout, self.belief
        out = np.zeros(layout.size, np.float32)
        fill_state(
            out,
            self._offsets,
            layout.object_offsets,
            layout.bounds,
            *belief.packed,
            belief.data.xpos,
            belief.data.xmat,
            belief.finger_qpos,
            belief.controller,
            self.task.bodies,
            self._reference_bodies[self.stage],
            self.task.joint_qpos,
            self.stage,
        )
        return out

    def proprio(self) -> Observations:
        """What the robot knows of itself now, (proprio_layout.size,) float32; nothing of objects."""
        sim = self.sim
        out = np.zeros(self.proprio_layout.size, np.float32)
        fill_proprio(out, self.proprio_layout.bounds, *sim.packed, sim.finger_qpos, sim.controller, self.stage)
        return out

    def perceive_anew(self) -> None:
        """Look at a new scene; perception forgets the old one."""
        if self.belief is not self.sim:
            self.perception.reset(self.sim, self.belief, self.task, fork(self.rng))
            self.belief.evaluate()

    def perceive_otherwise(self) -> None:
        """What is believed stays, errors to come are drawn anew: for a state that is begun from more than once."""
        self.perception.reseed(fork(self.rng))

    def _perceive(self) -> None:
        if self.belief is not self.sim:
            self.perception.update(self.sim, self.belief, self.task, self.stage)
            self.belief.evaluate()

    def refresh(self) -> None:
        """Bring everything up to date after the simulation's state was written to."""
        self.sim.refresh()
        self._perceive()
        self.judge.restart()
        self.restored += 1

    def keep(self, name: str, part: Remembers) -> None:
        """Make something's memory a part of snapshots, under a name."""
        self._parts[name] = part

    def snapshot(self) -> Snapshot:
        """Everything that a bit-exact replay needs, of this engine and of all that plays in it."""
        return Snapshot(
            task=self.task.name,
            controller=self.sim.controller_name,
            perception=self.perception.name,
            simulation=self.sim.get_state(),
            verdict=self.judge.get_verdict(),
            rng=dict(self.rng.bit_generator.state),
            belief=None if self.belief is self.sim else self.belief.get_state(),
            perception_memory=self.perception.get_memory(),
            parts={name: part.get_memory() for name, part in self._parts.items()},
        )

    def restore(self, snapshot: Snapshot, parts: set[str] | None = None) -> None:
        """Return to a snapshot of this or of another engine of the same task.

        Args:
            snapshot: where to return to.
            parts: names of what goes on from the snapshot's memories; None means everything in play. The others keep
                theirs: they are the caller's to reset.

        Raises:
            SnapshotError: a part is missing, or the snapshot belongs to something else; nothing changes.
        """
        wanted = set(self._parts) if parts is None else parts
        snapshot.check(self.task.name, self.sim.controller_name, self.perception.name, wanted)
        if not 0 <= snapshot.verdict.stage < len(self.task.stages):
            raise SnapshotError(f"snapshot of stage {snapshot.verdict.stage}; the task has {len(self.task.stages)}")
        before = self.snapshot()
        try:
            self._restore(snapshot, wanted)
        except Exception as error:
            self._restore(before, set(self._parts))
            lacking = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise SnapshotError(f"snapshot holds what cannot be restored: {lacking}; take it again") from error
        self.restored += 1

    def _restore(self, snapshot: Snapshot, parts: set[str]) -> None:
        self.sim.set_state(snapshot.simulation)
        if snapshot.rng is not None:
            self.rng.bit_generator.state = snapshot.rng
        if self.belief is not self.sim:
            assert snapshot.belief is not None
            self.belief.set_state(snapshot.belief)
        self.perception.set_memory(snapshot.perception_memory)
        for name in parts:
            self._parts[name].set_memory(snapshot.parts[name])
        self.judge.set_verdict(snapshot.verdict)

    def __getstate__(self) -> dict[str, Any]:
        # The planner's scratch data is compiled code's too; it holds nothing that is not made anew.
        return {**self.__dict__, "_connector": None}


def fork(rng: np.random.Generator, *stream: int) -> np.random.Generator:
    """A generator that depends on another's present state, and on numbers that name it, and draws nothing from the other."""
    state: dict[str, Any] = rng.bit_generator.state["state"]  # PCG64's, which Gymnasium uses: two integers
    return np.random.default_rng([*(int(word) for word in state.values()), *stream])
