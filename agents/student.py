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

from reinforcegen_envs.agents.common import input_statistics
from reinforcegen_envs.agents.guide import Guide
from reinforcegen_envs.agents.pixel_policy import STATE_CLIP, make_head
from reinforcegen_envs.agents.runs import to_mlp
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.observations import ACTION_SIZE, to_reference, to_world
from reinforcegen_envs.perception.camera import output_size, proprio, proprio_size, requirements
from reinforcegen_envs.perception.network import load_estimator
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.mlp import MLP
from reinforcegen_envs.sim.cameras import CAMERAS
from reinforcegen_envs.typing import Array, Observations


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
        self._own = proprio_size(task) - self._stages  # numbers of `proprio` before the stage
        self.phases, self.sources = 2 * self._stages, len(bundle.skeleton().tools)
        size = output_size(task) + self._own + self.phases + self.sources
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (ACTION_SIZE + self.phases + self.sources,), np.float32)
        self._phase, self._source = 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """See the environment; the note is blank: the first phase, the first source."""
        observation, info = super().reset(seed=seed, options=options)
        self._phase, self._source = 0, 0
        return self._seen(observation), info

    def step(self, action: Any):
        """See the environment; ``action`` is (7 + phases + sources,)."""
        action = np.asarray(action, np.float64)
        self._phase = int(np.argmax(action[ACTION_SIZE : ACTION_SIZE + self.phases]))
        self._source = int(np.argmax(action[ACTION_SIZE + self.phases :]))
        in_world = to_world(action[:ACTION_SIZE], self._hand())
        observation, *rest = super().step(np.clip(in_world, -1.0, 1.0).astype(np.float32))
        return self._seen(observation), *rest

    def label(self, guide: Guide) -> Array:
        """What a guide would do now and note, as an action of this environment; it goes to the noted source's start if it can."""
        guide.follow(self._source)
        action = to_reference(guide(), self._hand())
        notes = np.full(self.phases + self.sources, -1.0)
        notes[[guide.phase, self.phases + guide.source]] = 1.0
        return np.concatenate([np.clip(action, -1.0, 1.0), notes])

    def _hand(self) -> Array:
        """(6,) first two columns of the hand's rotation, as `to_world` takes them."""
        return self._engine.sim.eef_pose()[:3, :2].T.ravel()

    def _seen(self, observation: Any) -> Observations:
        felt = proprio(self._engine.sim, self._stages, self._phase // 2)
        note = np.zeros(self.phases + self.sources, np.float32)
        note[[self._phase, self.phases + self._source]] = 1.0
        estimates = self._network(np.stack([observation[name] for name in CAMERAS]), felt)
        return np.concatenate([estimates, felt[: self._own], note])


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
        return torch.tanh(self.head(((seen - self.mean) / self.std).clamp(-STATE_CLIP, STATE_CLIP)))

    def fix_statistics(self, numbers: np.ndarray) -> None:
        """Normalise with mean and std of (n, numbers) observations from now on; constant entries keep std 1."""
        mean, std = input_statistics(numbers)
        self.mean.copy_(torch.from_numpy(mean))
        self.std.copy_(torch.from_numpy(std))

    def mlp(self) -> MLP:
        """The same function without torch."""
        return to_mlp(self.head, self.mean, self.std, "relu", "tanh")
