"""Connects: from where the hand is to where a skill starts, as a timed joint path.

A straight joint line is tried first, then one over the top, then a sampling-based search (`search`). All draw from a generator
the caller hands in: the same state and seed give the same path.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reinforcegen_envs.planning.collision import CollisionChecker
from reinforcegen_envs.planning.ik import ArmKinematics, IKSolution
from reinforcegen_envs.planning.search import Problem, search
from reinforcegen_envs.poses import translation
from reinforcegen_envs.sim.simulation import CONTROL_PERIOD
from reinforcegen_envs.typing import Array

# Franka's joint velocity limits, rad/s (Franka Control Interface, "Limits for Panda"), of which connects use a part.
VELOCITY_LIMITS = np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61])
SPEED_PART = 0.8
# robosuite's finger tips weigh 10 g with the inertia of a 2 m box, so MuJoCo's air drag grows with the square of how fast the
# hand turns, and at 1.33 rad/s about its own axis takes all that joint 7 has.
WRIST = slice(5, 7)
WRIST_TORQUE = 12.0  # Nm (robosuite's panda/robot.xml)
DRAG_PART = 0.8  # of it that drag may take (ours)
DRAG_RESOLUTION = 0.1  # radians of the fastest joint between two looks at the drag
ACCELERATION = 6.0  # rad/s^2 of the fastest joint; keeps torques inside the 80 and 12 Nm limits (ours)
FINE_RESOLUTION = 0.02  # radians between the collision checks that a path must pass before it is followed
LIFTS = (0.08, 0.16)  # metres a connect may rise to pass over something
# Metres, world frame, along which the hand may back out of what it starts too near to, and what it may come nearer by.
RETREATS = ((0.0, 0.0, 0.08), (-0.08, 0.0, 0.03), (0.0, -0.08, 0.03), (0.0, 0.08, 0.03), (0.08, 0.0, 0.03))
BACK = (0.04, 0.08, 0.12)  # metres along the hand's own axis that it may back out by where none of these will do
RETREAT_SLACK = 5e-4
SEARCHES = 3  # how often a search is run before a connect counts as unsolved

SOLVED = ("line", "lift", "birrt")


@dataclass(frozen=True)
class Plan:
    """A connect.

    Args:
        status: "line", "lift" or "birrt" when solved; else "unreachable" (no inverse kinematics), "goal_collision",
            "start_collision" or "no_path".
        path: (T, 7) joint targets, one a control step, the first being where the arm starts; empty if not solved.
        milliseconds: wall-clock time of planning.
        collision_checks: postures checked.
    """

    status: str
    path: Array = field(default_factory=lambda: np.empty((0, 7)))
    milliseconds: float = 0.0
    collision_checks: int = 0

    @property
    def solved(self) -> bool:
        """Whether there is a path."""
        return self.status in SOLVED

    def info(self) -> dict[str, Any]:
        """What goes into ``info["planner"]``."""
        return {
            "status": self.status,
            "milliseconds": self.milliseconds,
            "collision_checks": self.collision_checks,
        }


def time_parameterise(waypoints: Array, kinematics: ArmKinematics) -> Array:
    """Joint targets every control step along a polyline, at rest at every corner.

    Args:
        waypoints: (K, 7) radians.
        kinematics: of the arm: says what drag costs.

    Returns:
        (T, 7), from the first waypoint to the last, within ``SPEED_PART`` of the velocity limits, ``DRAG_PART`` of the
        wrist's torque and ``ACCELERATION``.
    """
    targets = [waypoints[0]]
    for start, goal in zip(waypoints[:-1], waypoints[1:], strict=True):
        delta = np.abs(goal - start)
        if delta.max() < 1e-9:
            continue
        # Largest speed and acceleration of the path parameter s in [0, 1].
        speed = float((SPEED_PART * VELOCITY_LIMITS / np.maximum(delta, 1e-9)).min())
        looks = int(np.ceil(delta.max() / DRAG_RESOLUTION)) + 1
        drag = np.abs([kinematics.drag(q, goal - start)[WRIST] for q in np.linspace(start, goal, looks)]).max()
        speed = min(speed, float(np.sqrt(DRAG_PART * WRIST_TORQUE / max(drag, 1e-9))))
        acceleration = ACCELERATION / float(delta.max())
        ramp = min(speed / acceleration, np.sqrt(1.0 / acceleration))
        peak = acceleration * ramp
        cruise = max(0.0, (1.0 - peak * ramp) / peak)
        duration = 2 * ramp + cruise
        count = int(np.ceil(duration / CONTROL_PERIOD))
        for t in np.linspace(0.0, duration, count + 1)[1:]:
            if t < ramp:
                s = 0.5 * acceleration * t * t
            elif t < ramp + cruise:
                s = peak * (t - 0.5 * ramp)
            else:
                s = 1.0 - 0.5 * acceleration * max(duration - t, 0.0) ** 2
            targets.append(start + s * (goal - start))
    return np.array(targets)


class ConnectPlanner:
    """Plans connects in one simulation.

    Args:
        checker: collision checker of that simulation.
    """

    def __init__(self, checker: CollisionChecker):
        self._checker = checker
        self._kinematics = checker.kinematics

    def plan(
        self,
        start: Array,
        goal_pose: Array,
        posture: Array,
        held: str | None,
        rng: np.random.Generator,
        lookahead: tuple[Array, ...] = (),
    ) -> Plan:
        """Plan from the simulation's present state.

        Args:
            start: (7,) present joints, radians.
            goal_pose: 4x4 pose of the grip site, world frame, where the skill starts.
            posture: (7,) joints the controller's null space will pull to.
            held: object in the hand, or None.
            rng: the environment's generator.
            lookahead: further poses of the skill to come; of several inverse-kinematics branches, the one with the best
                joint-limit margin over all of them is taken.
        """
        began = time.perf_counter()
        self._checker.checks = 0
        self._checker.update(held)
        status, waypoints = self._search(np.asarray(start), goal_pose, posture, rng, lookahead)
        path = time_parameterise(np.array(waypoints), self._kinematics) if waypoints else np.empty((0, 7))
        return Plan(status, path, 1e3 * (time.perf_counter() - began), self._checker.checks)

    def _search(self, start, goal_pose, posture, rng, lookahead) -> tuple[str, list[Array]]:
        goals = self._kinematics.solutions(goal_pose, [posture, start], rng, posture)
        if not goals:
            return "unreachable", []
        goals.sort(key=lambda goal: -self._skill_margin(goal, lookahead, posture))
        free = [goal.joints for goal in goals if not self._checker.collides(goal.joints)]
        if not free:
            return "goal_collision", []
        for goal in free:
            if not self._checker.line_collides(start, goal, FINE_RESOLUTION):
                return "line", [start, goal]
        before: list[Array] = []
        if self._checker.collides(start):
            # A reset may put the hand beside something, or a skill may end there: back out first.
            out = self._retreat(start, posture)
            if out is None:
                return "start_collision", []
            before, start = [start], out
            for goal in free:
                if not self._checker.line_collides(start, goal, FINE_RESOLUTION):
                    return "line", [*before, start, goal]
        for goal in free:
            if (waypoints := self._lift_over(start, goal, goal_pose, posture)) is not None:
                return "lift", [*before, *waypoints]
        for goal in free:
            if (waypoints := self._birrt(start, goal, rng)) is not None:
                return "birrt", [*before, *waypoints]
        return "no_path", []

    def _retreat(self, start, posture) -> Array | None:
        """Joints clear of everything, reached on a straight joint line that leads away from what is near."""
        nearest = self._checker.clearance(start)
        assert nearest is not None
        pose = self._kinematics.forward(start)
        goals = [translation(*move) @ pose for move in RETREATS] + [
            pose @ translation(0.0, 0.0, -back) for back in BACK
        ]
        for goal in goals:
            end = self._kinematics.solve(goal, start, posture)
            if not end.reached or self._checker.collides(end.joints):
                continue
            count = int(np.ceil(np.abs(end.joints - start).max() / FINE_RESOLUTION))
            way = [self._checker.clearance(start + i / count * (end.joints - start)) for i in range(1, count)]
            if all(distance is None or distance > nearest - RETREAT_SLACK for distance in way):
                return end.joints
        return None

    def _skill_margin(self, goal: IKSolution, lookahead, posture) -> float:
        margin, seed = goal.margin, goal.joints
        for pose in lookahead:
            solution = self._kinematics.solve(pose, seed, posture)
            margin = min(margin, solution.margin if solution.reached else -1.0)
            seed = solution.joints
        return margin

    def _lift_over(self, start, goal, goal_pose, posture) -> list[Array] | None:
        start_pose = self._kinematics.forward(start)
        for height in LIFTS:
            up = translation(0.0, 0.0, height)
            above_start = self._kinematics.solve(up @ start_pose, start, posture)
            above_goal = self._kinematics.solve(up @ goal_pose, goal, posture)
            waypoints = [start]
            waypoints += [s.joints for s in (above_start, above_goal) if s.reached]
            waypoints.append(goal)
            if len(waypoints) > 2 and not any(
                self._checker.line_collides(a, b, FINE_RESOLUTION)
                for a, b in zip(waypoints[:-1], waypoints[1:], strict=True)
            ):
                return waypoints
        return None

    def _birrt(self, start, goal, rng) -> list[Array] | None:
        low, high = self._kinematics.joint_range[:, 0] + 0.05, self._kinematics.joint_range[:, 1] - 0.05
        # Connects are local: sampling a box around both ends finds a way round sooner than the whole joint space.
        low = np.maximum(low, np.minimum(start, goal) - 0.8)
        high = np.minimum(high, np.maximum(start, goal) + 0.8)
        problem = Problem(start, goal, low, high, self._checker.collides)
        # The search and its smoothing may cut corners between their checks: what comes out is checked finely.
        for _ in range(SEARCHES):
            path = search(problem, rng)
            if path is None:
                continue
            waypoints = _corners(path)
            if not any(
                self._checker.line_collides(a, b, FINE_RESOLUTION)
                for a, b in zip(waypoints[:-1], waypoints[1:], strict=True)
            ):
                return waypoints
        return None


def _corners(path: list[Array]) -> list[Array]:
    """Drop points that lie on the line between their neighbours: every corner costs a stop."""
    corners = [path[0]]
    for previous, point, following in zip(path[:-2], path[1:-1], path[2:], strict=True):
        before, after = point - previous, following - point
        cosine = before @ after / max(np.linalg.norm(before) * np.linalg.norm(after), 1e-12)
        if cosine < 1 - 1e-6:
            corners.append(point)
    corners.append(path[-1])
    return corners
