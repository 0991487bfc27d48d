"""The student of a whole task that sees through the task's estimator, and takes notes; see `dagger`.

What it sees is what the network of `perceive` says of one control step's pictures, with its doubts, and running means of that
(`Recall`): no belief, which would know what is held and what cannot be. It acts in the hand's frame, where what to do beside an
object looks alike wherever both are. Which stage it is, whether the skill has begun and which source's start the hand is on its
way to cannot be seen; so an action ends with a note of these, which the next observation shows. The teacher says what the note
should be, whatever the student has written; of sources it takes the student's, else it would call a hand that is at one source's
start back to another's, and where the student has begun a skill near its start, it has begun.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
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
from reinforcegen_envs.perception.camera import output_size, proprio, proprio_size, requirements, split
from reinforcegen_envs.perception.fusion import CENTRE, HAND, UNIT, WORLD, carry, evidence
from reinforcegen_envs.perception.network import load_estimator
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.mlp import MLP, WeightsError, load_mlps, save_mlps
from reinforcegen_envs.sim.cameras import CAMERAS
from reinforcegen_envs.typing import Array, Observations

FADINGS = (0.06, 0.015)  # of what is remembered, in a control step (ours; beliefs of what stands still: 0.015)
ENOUGH = 200  # observations of a phase that tell its mean and spread; fewer do not


class Recall:
    """Running means of where objects were seen: of each as if it stood still, and as if it moved with the hand.

    One picture's estimate is off by a millimetre or two, which is as much room as an insertion has. Of each mean there is one
    that soon follows what has moved, and one that is more exact of what has not. Which of them holds is for the student to know;
    all are shown in the hand's frame.

    Args:
        objects: how many.
    """

    def __init__(self, objects: int):
        self._objects, self.size = objects, len(FADINGS) * objects * 2 * 9
        self._left = 1.0 - np.array(FADINGS)[:, None, None, None, None]
        self.reset()

    def reset(self) -> None:
        """Remember nothing."""
        # Fading, object, carrier, vector; see `fusion.evidence`.
        self._precisions = np.zeros((len(FADINGS), self._objects, 2, 3, 3, 3))
        self._weighted = np.zeros((len(FADINGS), self._objects, 2, 3, 3))

    def __call__(self, outputs: Observations, hand: Array) -> Observations:
        """Take in a network's outputs, seen from the hand's pose (4x4, world frame); returns all means, (size,)."""
        seen = split(outputs, self._objects)
        position, rotation = (hand[:3, 3] - CENTRE) / UNIT, np.ascontiguousarray(hand[:3, :3])
        self._precisions *= self._left[..., None]
        self._weighted *= self._left
        for i in range(self._objects):
            for carrier in (WORLD, HAND):
                means, precisions = evidence(seen.mean[i], seen.variance[i], position, rotation, carrier)
                self._precisions[:, i, carrier] += precisions
                self._weighted[:, i, carrier] += (precisions @ means[..., None])[..., 0]
        shown = np.linalg.solve(self._precisions, self._weighted[..., None])[..., 0]
        for memory in range(len(FADINGS)):
            for i in range(self._objects):
                precisions = self._precisions[memory, i, WORLD].copy()
                carry(shown[memory, i, WORLD], precisions, position, rotation, HAND)
        return shown.ravel().astype(np.float32)


class Notes(gym.Wrapper[Any, Any, Any, Any]):
    """A plain environment that shows estimates instead of pictures, and the last action's note.

    Observations are a network's outputs, their running means, what the robot knows of itself, and the note; actions (7,) in
    [-1, 1] in the hand's frame, then a note: the largest of ``phases`` numbers, and of ``sources`` numbers, is remembered.

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
        self._recall = Recall(len(task.objects))
        begin = output_size(task) + self._recall.size + self._own
        self.noted_phase = slice(begin, begin + self.phases)
        size = self.noted_phase.stop + self.sources
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (ACTION_SIZE + self.phases + self.sources,), np.float32)
        self._phase, self._source = 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """See the environment; the note is blank: the first phase, the first source."""
        observation, info = super().reset(seed=seed, options=options)
        self._phase, self._source = 0, 0
        self._recall.reset()
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
        """What a guide would do now and note, as an action of this environment; it agrees with the note where it can."""
        guide.follow(self._phase, self._source)
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
        recalled = self._recall(estimates, self._engine.sim.eef_pose())
        return np.concatenate([estimates, recalled, felt[: self._own], note])


class Student(nn.Module):
    """Estimates, their means, the robot's own state and a note to an action with the next note.

    A network a phase: the note says whose turn it is. Each sees its numbers by their mean and spread in its phase. By those of
    the whole task a millimetre before the hole would be a hundredth of a spread, and what a skill does there would not be
    learned.

    Args:
        numbers, actions: of an observation and of an action.
        phase: where an observation has the note's phase.
        hidden: units in both hidden layers.
    """

    def __init__(self, numbers: int, actions: int, phase: slice, hidden: int):
        super().__init__()
        phases = phase.stop - phase.start
        self.heads = nn.ModuleList([make_head(numbers, hidden, actions) for _ in range(phases)])
        self._actions, self._phase = actions, phase
        self.register_buffer("mean", torch.zeros(phases, numbers))
        self.register_buffer("std", torch.ones(phases, numbers))
        self.mean: torch.Tensor
        self.std: torch.Tensor

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """(n, numbers) to (n, actions) in [-1, 1]."""
        phase = seen[:, self._phase].argmax(1)
        out = seen.new_zeros(len(seen), self._actions)
        for i, head in enumerate(self.heads):
            its = torch.nonzero(phase == i).squeeze(1)
            if len(its):
                inputs = ((seen[its] - self.mean[i]) / self.std[i]).clamp(-STATE_CLIP, STATE_CLIP)
                out = out.index_copy(0, its, torch.tanh(head(inputs)))
        return out

    def fix_statistics(self, numbers: np.ndarray) -> None:
        """Normalise with mean and std of (n, numbers) observations, phase by phase, from now on; constant entries keep std 1."""
        phase = numbers[:, self._phase].argmax(1)
        for i in range(len(self.heads)):
            its = numbers[phase == i]
            mean, std = input_statistics(its if len(its) >= ENOUGH else numbers)
            self.mean[i].copy_(torch.from_numpy(mean))
            self.std[i].copy_(torch.from_numpy(std))

    def policy(self) -> StudentPolicy:
        """The same function without torch."""
        heads: Any = self.heads
        return StudentPolicy(
            [to_mlp(head, self.mean[i], self.std[i], "relu", "tanh", STATE_CLIP) for i, head in enumerate(heads)],
            self._phase,
        )


class StudentPolicy:
    """A trained student: one observation to one action.

    Args:
        networks: one a phase.
        phase: where an observation has the note's phase.
    """

    def __init__(self, networks: Sequence[MLP], phase: slice):
        self._networks, self._phase = list(networks), phase

    def __call__(self, seen: Observations) -> Array:
        """(numbers,) to (actions,) in [-1, 1]."""
        return self._networks[int(np.argmax(seen[self._phase]))](seen)

    def save(self, path: str | os.PathLike[str], card: Mapping[str, Any]) -> None:
        """Write one safetensors file with a JSON card."""
        size = self._networks[0].input_size
        more = {"observation_size": size, "phase": [self._phase.start, self._phase.stop]}
        save_mlps(path, {str(i): network for i, network in enumerate(self._networks)}, {**card, **more})

    @classmethod
    def load(cls, path: str | os.PathLike[str], **expected: Any) -> StudentPolicy:
        """Read what `save` wrote.

        Args:
            path: the file.
            expected: card entries that must match, e.g. ``task="Coffee"``.

        Raises:
            WeightsError: no such file, or one of something else.
        """
        networks, card = load_mlps(path, **expected)
        try:
            return cls([networks[str(i)] for i in range(len(networks))], slice(*card["phase"]))
        except (KeyError, TypeError) as error:
            raise WeightsError(f"{path} is not a student that takes notes ({error}); distil one again") from error
