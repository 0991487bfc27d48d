"""What `dagger` teaches: a student's network, the states that were labelled, and one step towards the labels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import nn

from reinforcegen_envs.agents.common import Transition, space_sizes
from reinforcegen_envs.agents.pixel_policy import PixelPolicy
from reinforcegen_envs.agents.pixel_replay import PixelReplay
from reinforcegen_envs.agents.replay import Replay
from reinforcegen_envs.agents.student import Student, StudentPolicy
from reinforcegen_envs.typing import Observations
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv


class Learner(ABC):
    """A student and its data.

    Args:
        network: the student's.
        replay: where states with their labels are kept.
        learning_rate: of Adam, at first.

    Attributes:
        parts: what a checkpoint holds.
    """

    def __init__(self, network: nn.Module, replay: Any, learning_rate: float):
        self._optimiser, self._replay = torch.optim.Adam(network.parameters(), learning_rate), replay
        self.parts = {"policy": network, "optimiser": self._optimiser, "replay": replay}

    @property
    @abstractmethod
    def policy(self) -> Any:
        """What is evaluated and kept."""

    @property
    def size(self) -> int:
        """States that were labelled."""
        return self._replay.size

    @abstractmethod
    def act(self, observations: Any) -> np.ndarray:
        """(n, actions)."""

    @abstractmethod
    def add(self, step: Transition, label: np.ndarray) -> None:
        """Keep a state of every environment, and what the teacher said there."""

    @abstractmethod
    def begin(self) -> None:
        """Normalise with the statistics of what was kept."""

    @abstractmethod
    def _away(self, rng: np.random.Generator, size: int) -> torch.Tensor:
        """(size, actions) by how much the student's actions differ from labels, of states that are drawn."""

    def update(self, rng: np.random.Generator, size: int, rate: float) -> float:
        """One step at a learning rate towards the labels of ``size`` states; returns the mean absolute difference before."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        loss = self._away(rng, size).abs().mean()
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return loss.item()


class PixelLearner(Learner):
    """A student that sees pictures.

    Args:
        args: of `dagger`.
        envs: the training environments.
    """

    def __init__(self, args: Any, envs: ThreadVectorEnv):
        spaces: Any = envs.single_observation_space
        numbers, actions = spaces["proprio"].shape[0], math.prod(envs.single_action_space.shape or ())
        self._policy = PixelPolicy(
            args.image_size, numbers, actions, args.strides, args.channels, args.features, args.hidden
        )
        replay = PixelReplay(args.num_envs, args.buffer_size, args.image_size, numbers, actions, 1, 1.0)
        super().__init__(self._policy, replay, args.learning_rate)

    @property
    def policy(self) -> PixelPolicy:
        """See the base class."""
        return self._policy

    def act(self, observations: Any) -> np.ndarray:
        """See the base class."""
        return self._policy.act(observations)

    def add(self, step: Transition, label: np.ndarray) -> None:
        """See the base class."""
        self._replay.add(step._replace(action=label))

    def begin(self) -> None:
        """See the base class."""
        self._policy.fix_statistics(self._replay.state[self._replay.ready])

    def _away(self, rng: np.random.Generator, size: int) -> torch.Tensor:
        batch = self._replay.sample(rng, size, 0.0)
        seen, numbers, label = (torch.from_numpy(array) for array in (batch.seen, batch.state, batch.action))
        policy = self._policy
        return policy.action(policy.encode(seen), policy.normalise(numbers)) - label


class NotesLearner(Learner):
    """A student that sees through the estimator, and takes notes.

    Args:
        args: of `dagger`.
        envs: of `student.Notes`.
    """

    def __init__(self, args: Any, envs: ThreadVectorEnv):
        self._numbers, actions = space_sizes(envs)
        self.student = Student(self._numbers, actions, envs.get_attr("noted_phase")[0], args.hidden)
        super().__init__(self.student, Replay(args.buffer_size, self._numbers + actions), args.learning_rate)

    @property
    def policy(self) -> StudentPolicy:
        """See the base class."""
        return self.student.policy()

    @torch.no_grad()
    def act(self, observations: Observations) -> np.ndarray:
        """See the base class."""
        return self.student(torch.from_numpy(observations)).numpy()

    def add(self, step: Transition, label: np.ndarray) -> None:
        """See the base class."""
        self._replay.add(list(np.concatenate([step.obs, label], 1, dtype=np.float32)))

    def begin(self) -> None:
        """See the base class."""
        self.student.fix_statistics(self._replay.rows[: self._replay.size, : self._numbers])

    def _away(self, rng: np.random.Generator, size: int) -> torch.Tensor:
        rows = torch.from_numpy(self._replay.sample(rng, size))
        return self.student(rows[:, : self._numbers]) - rows[:, self._numbers :]
