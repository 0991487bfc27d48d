"""Replay buffers of n-step transitions, for off-policy trainers."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reinforcegen_envs.files import atomic_path


class NStep:
    """Turns single steps into rows [obs, action, n-step return, discount of the value then, obs then].

    The sum stops at an episode's end. There the discount is 0 after a termination; after a truncation the
    value of the true last observation still counts.
    """

    def __init__(self, num_envs: int, n: int, gamma: float):
        self.n, self.gamma = n, gamma
        self.windows: list[deque] = [deque() for _ in range(num_envs)]

    def add(
        self,
        env: int,
        obs: np.ndarray,
        action: np.ndarray,
        reward: float,
        after: np.ndarray,
        terminated: bool,
        done: bool,
    ) -> list[np.ndarray]:
        """Take one step of one environment; return the rows that are complete now."""
        window, rows = self.windows[env], []
        window.append((obs, action, reward))
        while len(window) == self.n or (done and window):
            total = sum(self.gamma**k * r for k, (_, _, r) in enumerate(window))
            discount = 0.0 if terminated else self.gamma ** len(window)
            first_obs, first_action, _ = window.popleft()
            rows.append(np.concatenate([first_obs, first_action, [total, discount], after], dtype=np.float32))
        return rows


class Replay:
    """The newest ``capacity`` rows."""

    def __init__(self, capacity: int, width: int):
        self.rows = np.zeros((capacity, width), np.float32)  # memory is only taken as rows are written
        self.size = self.head = 0

    def add(self, rows: list[np.ndarray]) -> None:
        """Append rows, over the oldest ones if full."""
        for row in rows:
            self.rows[self.head] = row
            self.head = (self.head + 1) % len(self.rows)
            self.size = min(self.size + 1, len(self.rows))

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """(count, width) rows drawn with replacement."""
        return self.rows.take(rng.integers(self.size, size=count), axis=0)


def sample_mixed(
    rng: np.random.Generator, replay: Replay, successes: Replay, count: int, fraction: float
) -> np.ndarray:
    """(count, width) rows, a ``fraction`` of them from ``successes`` unless that is empty."""
    of_successes = int(count * fraction) if successes.size else 0
    rows = replay.sample(rng, count - of_successes)
    return np.concatenate([rows, successes.sample(rng, of_successes)]) if of_successes else rows


def save_replays(path: Path, buffers: Sequence[Replay]) -> Path:
    """Write buffers to one .npz file; return its path."""
    with atomic_path(path) as temporary:
        arrays = {f"rows{i}": buffer.rows[: buffer.size] for i, buffer in enumerate(buffers)}
        np.savez(temporary, heads=np.array([buffer.head for buffer in buffers]), **arrays)
    return path


def load_replays(path: Path, buffers: Sequence[Replay]) -> None:
    """Fill empty buffers of the same capacity from a file that `save_replays` wrote."""
    with np.load(path) as arrays:
        for i, buffer in enumerate(buffers):
            rows = arrays[f"rows{i}"]
            buffer.rows[: len(rows)], buffer.size, buffer.head = rows, len(rows), int(arrays["heads"][i])
