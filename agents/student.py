"""The student of a whole task that sees through the task's estimator, and takes notes; see `dagger`.

What it sees is what the network of `perceive` says of one control step's pictures, with its doubts: no belief, nothing fused. It
acts in the hand's frame, where what to do beside an object looks alike wherever both are. Which stage it is, whether the skill
has begun and which source's start the hand is on its way to cannot be seen; so an action ends with a note of these, which the
next observation shows. The teacher says what the note should be, whatever the student has written; of sources it takes the
student's, else it would call a hand that is at one source's start back to another's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from reinforcegen_envs.agents.common import Transition, space_sizes
from reinforcegen_envs.agents.guide import Guide
from reinforcegen_envs.agents.pixel_policy import make_head
from reinforcegen_envs.agents.replay import Replay
from reinforcegen_envs.agents.runs import to_mlp
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.perception.camera import output_size, proprio, requirements
from reinforcegen_envs.perception.network import load_estimator
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.mlp import MLP
from reinforcegen_envs.sim.cameras import CAMERAS
from reinforcegen_envs.typing import Array, Observations
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv

OWN = 18  # numbers of `proprio` before the stage
ACTIONS = 7


class Notes(gym.Wrapper[Any, Any, Any, Any]):
    """A plain environment that shows estimates instead of pictures, and the last action's note.

    Observations are a network's outputs, what the robot knows of itself, and the note; actions (7,) in [-1, 1] in the hand's
    frame, then a note: the largest of ``phases`` numbers, and of ``sources`` numbers, is remembered.

    Args:
        env: of no mode, with ``obs_mode="rgb"``.
        weights: folder with the estimator and the skeleton; None: the shipped one.

    Raises:
        InvalidArgument: the pictures are not of the estimator's size.
        WeightsError: no estimator, or one for another task or other cameras.
    """

    def __init__(self, env: gym.Env[Any, Any], weights: Path | None = None):
        super().__init__(env)
        self._engine = env.get_wrapper_attr("engine")
        task = type(self._engine.task)
        bundle = Bundle.open(task, weights)
        spaces: Any = env.observation_space
        self._network, card = load_estimator(bundle.path("estimator"), **requirements(task))
        if (size := spaces[next(iter(CAMERAS))].shape[0]) != card["size"]:
            raise InvalidArgument(f"image_size is {size}; the estimator sees pictures of {card['size']} pixels a side")
        self._stages = len(task.stages)
        self.phases, self.sources = 2 * self._stages, len(bundle.skeleton().tools)
        size = output_size(task) + OWN + self.phases + self.sources
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (ACTIONS + self.phases + self.sources,), np.float32)
        self._phase, self._source = 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """See the environment; the note is blank: the first phase, the first source."""
        observation, info = super().reset(seed=seed, options=options)
        self._phase, self._source = 0, 0
        return self._seen(observation), info

    def step(self, action: Any):
        """See the environment; ``action`` is (7 + phases + sources,)."""
        action = np.asarray(action, np.float64)
        self._phase = int(np.argmax(action[ACTIONS : ACTIONS + self.phases]))
        self._source = int(np.argmax(action[ACTIONS + self.phases :]))
        turned = self._turned(action[:ACTIONS], self._hand())
        observation, *rest = super().step(np.clip(turned, -1.0, 1.0).astype(np.float32))
        return self._seen(observation), *rest

    def label(self, guide: Guide) -> Array:
        """What a guide would do now and note, as an action of this environment; it goes to the noted source's start if it can."""
        guide.follow(self._source)
        action = self._turned(guide(), self._hand().T)
        notes = np.full(self.phases + self.sources, -1.0)
        notes[[guide.phase, self.phases + guide.source]] = 1.0
        return np.concatenate([np.clip(action, -1.0, 1.0), notes])

    def _hand(self) -> Array:
        return self._engine.sim.eef_pose()[:3, :3]

    @staticmethod
    def _turned(action: Array, rotation: Array) -> Array:
        """An action's translation and rotation, turned."""
        return np.concatenate([rotation @ action[:3], rotation @ action[3:6], action[6:]])

    def _seen(self, observation: Any) -> Observations:
        felt = proprio(self._engine.sim, self._stages, self._phase // 2)
        note = np.zeros(self.phases + self.sources, np.float32)
        note[[self._phase, self.phases + self._source]] = 1.0
        estimates = self._network(np.stack([observation[name] for name in CAMERAS]), felt)
        return np.concatenate([estimates, felt[:OWN], note])


class Student(nn.Module):
    """Estimates, the robot's own state and a note to an action with the next note.

    Args:
        numbers, actions: of an observation and of an action.
        hidden: units in both hidden layers.
    """

    def __init__(self, numbers: int, actions: int, hidden: int):
        super().__init__()
        self.head = make_head(numbers, hidden, actions)
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("std", torch.ones(numbers))
        self.mean: torch.Tensor
        self.std: torch.Tensor

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """(n, numbers) to (n, actions) in [-1, 1]."""
        return torch.tanh(self.head(((seen - self.mean) / self.std).clamp(-10.0, 10.0)))

    def mlp(self) -> MLP:
        """The same function without torch."""
        return to_mlp(self.head, self.mean, self.std, "relu", "tanh")


class NotesLearner:
    """DAgger's network, data and update, of a student that takes notes.

    Args:
        args: of `dagger`.
        envs: of `Notes`.
    """

    def __init__(self, args: Any, envs: ThreadVectorEnv):
        self._numbers, actions = space_sizes(envs)
        self.student = Student(self._numbers, actions, args.hidden)
        self._optimiser = torch.optim.Adam(self.student.parameters(), args.learning_rate)
        self._replay = Replay(args.buffer_size, self._numbers + actions)

    @property
    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"policy": self.student, "optimiser": self._optimiser, "replay": self._replay}

    @property
    def policy(self) -> MLP:
        """What is evaluated and kept."""
        return self.student.mlp()

    @property
    def size(self) -> int:
        """States that were labelled."""
        return self._replay.size

    @torch.no_grad()
    def act(self, observations: Observations) -> Array:
        """(n, actions)."""
        return self.student(torch.from_numpy(observations)).numpy()

    def add(self, step: Transition, label: Array) -> None:
        """Keep a state of every environment, and what the teacher said there."""
        self._replay.add(list(np.concatenate([step.obs, label], 1, dtype=np.float32)))

    def begin(self) -> None:
        """Normalise with the statistics of what was kept."""
        rows = self._replay.rows[: self._replay.size, : self._numbers]
        std = rows.std(0, dtype=np.float64)
        self.student.mean.copy_(torch.from_numpy(rows.mean(0, dtype=np.float64)))
        self.student.std.copy_(torch.from_numpy(np.where(std < 1e-3, 1.0, std)))

    def update(self, rng: np.random.Generator, size: int, rate: float) -> float:
        """One step towards the labels of ``size`` states; returns the mean absolute difference before."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        rows = torch.from_numpy(self._replay.sample(rng, size))
        loss = (self.student(rows[:, : self._numbers]) - rows[:, self._numbers :]).abs().mean()
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return loss.item()
