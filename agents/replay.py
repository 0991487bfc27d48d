"""Replay buffers of n-step transitions, for off-policy trainers."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from reinforcegen_envs.agents.common import Transition


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

    def state_dict(self) -> dict[str, Any]:
        """The rows, not copied, and where the next one goes; for a checkpoint."""
        return {"rows": torch.from_numpy(self.rows[: self.size]), "head": self.head}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Fill an empty buffer of the same capacity and width from what `state_dict` gave."""
        rows = state["rows"].numpy()
        self.rows[: len(rows)], self.size, self.head = rows, len(rows), state["head"]


class Experience:
    """What an off-policy learner learns from: the newest transitions, and those of the newest successful episodes.

    Args:
        num_envs: environments that transitions come from.
        capacity: transitions kept, in each of the two buffers.
        width: numbers in a row of `NStep`.
        n, gamma: rewards summed before bootstrapping, and their discount.
    """

    def __init__(self, num_envs: int, capacity: int, width: int, n: int, gamma: float):
        self.replay, self.successes = Replay(capacity, width), Replay(capacity, width)
        self.n_step = NStep(num_envs, n, gamma)
        self._episodes: list[list[np.ndarray]] = [[] for _ in range(num_envs)]  # rows of the running ones

    def add(self, step: Transition) -> None:
        """Take one control step of every environment."""
        for i, done in enumerate(step.done):
            rows = self.n_step.add(
                i,
                step.obs[i],
                step.action[i],
                float(step.reward[i]),
                step.after[i],
                bool(step.terminated[i]),
                bool(done),
            )
            self.replay.add(rows)
            self._episodes[i] += rows
            if done:
                if step.succeeded[i]:
                    self.successes.add(self._episodes[i])
                self._episodes[i] = []

    def sample(self, rng: np.random.Generator, count: int, fraction: float) -> np.ndarray:
        """(count, width) rows, a ``fraction`` of them of successful episodes as soon as there are any."""
        of_successes = int(count * fraction) if self.successes.size else 0
        rows = self.replay.sample(rng, count - of_successes)
        return np.concatenate([rows, self.successes.sample(rng, of_successes)]) if of_successes else rows

    def state_dict(self) -> dict[str, Any]:
        """Both buffers; episodes that were running end with the process."""
        return {"replay": self.replay.state_dict(), "successes": self.successes.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Fill empty buffers of the same size from what `state_dict` gave."""
        self.replay.load_state_dict(state["replay"])
        self.successes.load_state_dict(state["successes"])
