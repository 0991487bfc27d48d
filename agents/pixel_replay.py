"""A replay buffer of pictures, for off-policy trainers that see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from reinforcegen_envs.agents.common import Transition, own_numbers
from reinforcegen_envs.agents.replay import NStep
from reinforcegen_envs.sim.cameras import CAMERAS

RING = ("seen", "state", "rows", "ready", "successful")  # arrays with an entry a place


class Pictures(NamedTuple):
    """A batch of `PixelReplay`: transitions from what was seen to what was seen n steps later, or at the episode's end.

    Args:
        seen, seen_then: (batch, 2, size, size, 3) uint8.
        state, state_then: (batch, numbers) float32.
        action: (batch, actions) float32.
        returns, discount: (batch,) float32; the discount is that of the value then.
    """

    seen: np.ndarray
    state: np.ndarray
    action: np.ndarray
    returns: np.ndarray
    discount: np.ndarray
    seen_then: np.ndarray
    state_then: np.ndarray


def _draw(rng: np.random.Generator, among: np.ndarray, count: int) -> np.ndarray:
    """Places drawn with replacement among those that are marked; none if none is."""
    marked = np.flatnonzero(among)
    return marked[rng.integers(len(marked), size=count)] if len(marked) else marked


class PixelReplay:
    """The newest observations of pictures, each kept once, and the n-step transitions between them.

    An observation has a place in a ring that all environments share; a transition stands at the place where it begins and names
    the place where it leads. The last observation of an episode has a place too, where nothing begins. A place takes 6 size^2
    bytes and some: 42.6 kB at 84 pixels, so that 45,000 places take 1.9 GB, taken from the system only as they fill.

    Args:
        num_envs: environments that transitions come from.
        capacity: places; more than ``least_capacity``.
        size: pixels a side.
        numbers: in proprio and, where there is one, base action.
        actions: numbers in an action.
        n, gamma: rewards summed before bootstrapping, and their discount.
    """

    def __init__(self, num_envs: int, capacity: int, size: int, numbers: int, actions: int, n: int, gamma: float):
        self.seen = np.zeros((capacity, len(CAMERAS), size, size, 3), np.uint8)
        self.state = np.zeros((capacity, numbers), np.float32)
        self.rows = np.zeros((capacity, actions + 3), np.float32)  # action, n-step return, discount then, place then
        self.ready = np.zeros(capacity, np.bool_)  # places where a transition begins that is complete
        self.successful = np.zeros(capacity, np.bool_)  # places of episodes that ended in success
        self.count = 0  # observations that were ever put in
        self.n_step = NStep(num_envs, n, gamma)
        self._episodes: list[list[int]] = [[] for _ in range(num_envs)]  # of the running ones: numbers of observations

    @staticmethod
    def least_capacity(num_envs: int, n: int) -> int:
        """Places that an n-step transition may span: every step puts in one observation an environment, or two at an end."""
        return 2 * num_envs * (n + 1)

    def _put(self, env: int, observations: Mapping[str, np.ndarray]) -> int:
        """Keep what an environment shows, over the oldest observation if full; returns its place."""
        place = self.count % len(self.seen)
        for k, name in enumerate(CAMERAS):
            self.seen[place, k] = observations[name][env]
        self.state[place] = own_numbers(observations, env)
        self.ready[place] = self.successful[place] = False
        self._episodes[env].append(self.count)
        self.count += 1
        return place

    def add(self, step: Transition) -> None:
        """Take one control step of every environment; ``step.after`` must be what the next step's ``obs`` is, but at ends."""
        for i, done in enumerate(step.done):
            episode = self._episodes[i]
            before = episode[-1] % len(self.seen) if episode else self._put(i, step.obs)
            after = self._put(i, step.after)
            for row in self.n_step.add(
                i,
                np.array([before]),  # places are exact in float32 up to 2^24, which is 700 GB of pictures
                step.action[i],
                float(step.reward[i]),
                np.array([after]),
                bool(step.terminated[i]),
                bool(done),
            ):
                self.rows[int(row[0])] = row[1:]
                self.ready[int(row[0])] = True
            if done:
                if step.succeeded[i]:
                    kept = [number % len(self.seen) for number in episode if number >= self.count - len(self.seen)]
                    self.successful[kept] = True
                self._episodes[i] = []

    @property
    def size(self) -> int:
        """Transitions that can be drawn."""
        return int(np.count_nonzero(self.ready))

    def sample(self, rng: np.random.Generator, count: int, fraction: float) -> Pictures:
        """Transitions drawn with replacement, a ``fraction`` of them of successful episodes as soon as there are any."""
        drawn = _draw(rng, self.ready & self.successful, int(count * fraction))
        places = np.concatenate([_draw(rng, self.ready, count - len(drawn)), drawn])
        rows = self.rows[places]
        then = rows[:, -1].astype(np.int64)
        return Pictures(
            self.seen[places], self.state[places], rows[:, :-3], rows[:, -3], rows[:, -2], self.seen[then], self.state[then]
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """What the ring holds, not copied; episodes that were running end with the process."""
        filled = min(self.count, len(self.seen))
        arrays = {name: torch.from_numpy(getattr(self, name)[:filled]) for name in RING}
        return {**arrays, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Fill an empty ring of the same size from what `state_dict` gave."""
        for name in RING:
            array = state[name].numpy()
            getattr(self, name)[: len(array)] = array
        self.count = state["count"]
