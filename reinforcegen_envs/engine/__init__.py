"""One workcell with one task, without Gymnasium."""

from reinforcegen_envs.engine.engine import Engine
from reinforcegen_envs.engine.events import EVENTS, Events
from reinforcegen_envs.engine.failure import Failure
from reinforcegen_envs.engine.judge import Judge, Verdict
from reinforcegen_envs.engine.snapshot import Snapshot, SnapshotError

__all__ = ["EVENTS", "Engine", "Events", "Failure", "Judge", "Snapshot", "SnapshotError", "Verdict"]
