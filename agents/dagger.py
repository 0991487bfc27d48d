"""The direct route from pictures to actions: a skill's policy distilled into one that sees, by DAgger (Ross et al. 2011).

The teacher is the tuned policy of a folder of weights, the base where a stage has no residual; it knows the objects' poses. The
student sees both cameras and the robot's own state, no poses and no base action. Episodes are played by the teacher, disturbed
(as in DART, Laskey et al. 2017), and more and more of them by the student; in every state the teacher says what it would do.

There is neither estimate nor belief in between: it is what `perceive` is to be compared with.

With an id of no mode the student learns the whole task, what is between skills included, from a `Guide`; it is not told which
stage it is, and once it has learned it needs neither planner nor poses. With `--through-estimator` it does not learn to see: it
reads what the task's estimator says of every pair of pictures, and takes notes (`student`). With `--perception camera` the
teacher acts on what it believes, and not on the truth: a student can learn to do what its own pictures tell.

    python -m reinforcegen_envs.agents.dagger --env-id ReinforceGen/D2-Threading-Skill-v0 --stage grasp --pool grasp.npz
    python -m reinforcegen_envs.agents.dagger --env-id ReinforceGen/D2-Threading-v0 --through-estimator --total-steps 200000
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from reinforcegen_envs import cli
from reinforcegen_envs.agents.arguments import checked
from reinforcegen_envs.agents.common import Collector, make_training_envs, training_seeds
from reinforcegen_envs.agents.guide import Guide, Unaided
from reinforcegen_envs.agents.learners import NotesLearner, PixelLearner
from reinforcegen_envs.agents.pixel_arguments import PixelArgs
from reinforcegen_envs.agents.runs import Run
from reinforcegen_envs.agents.student import Notes
from reinforcegen_envs.arguments import Count, CountOrZero, NotNegative, Positive
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.policy import Policy
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv

KIND, NOTES_KIND = "pixel_student", "student"
METRICS = ("charts/teacher_success", "charts/teacher_part", "losses/imitation", "losses/updates")


@dataclasses.dataclass
class Args(PixelArgs):
    """Arguments of this trainer, after those of every trainer (agents/common.py)."""

    env_id: str = "ReinforceGen/D2-Threading-Skill-v0"
    """environment id, of mode Skill"""
    weights: Path | None = None
    """folder of the teacher; None: the shipped one. The student stays in the run's folder"""
    lines: str = "joint"
    """whole tasks: how the teacher gets from skill to skill, along lines in "joint" space or "straight" ones"""

    through_estimator: bool = False
    """whole tasks: the student reads the estimates of the network in the folder of weights, instead of learning to see"""

    # Algorithm
    warmup_steps: CountOrZero = 4_000
    """control steps of the teacher alone, which fix the statistics of the robot's state"""
    mix_steps: Count = 20_000
    """control steps after the warm-up in which the part of episodes that the teacher plays falls from 1 to 0"""
    disturbance: NotNegative = 0.1
    """std of the noise on what the teacher executes"""
    updates_per_step: NotNegative = 0.125
    """updates per control step after the warm-up"""
    batch_size: Count = 64
    """states in a batch"""
    buffer_size: Count = 60_000
    """observations kept; each takes 6 image_size^2 bytes"""
    features: Count = 128
    """numbers made of what the encoder gives"""
    hidden: Count = 256
    """units in both hidden layers"""
    learning_rate: Positive = 5e-4
    """of Adam; falls to nothing, evenly, by the end of the run"""

    def numbers(self) -> tuple[str, ...]:
        """A base policy's action would tell where objects are."""
        return ("proprio",)

    def wrapped(self, env: gym.Env) -> gym.Env:
        """A whole task does not say which stage it is."""
        if not is_whole_task(env):
            if self.through_estimator:
                raise InvalidArgument(
                    f"through_estimator is for whole tasks, not for {self.env_id}; give an id of no mode"
                )
            return env
        return Notes(Unaided(env), self.weights) if self.through_estimator else Unaided(env)


def is_whole_task(env: gym.Env) -> bool:
    """Whether an environment is ours, and of no mode."""
    return env.has_wrapper_attr("engine") and not env.has_wrapper_attr("ask")


class Teacher:
    """Says what the policy that knows the poses would do in the environments' states.

    Args:
        envs: of mode Skill, or of none.
        weights: folder of the policy; None: the shipped one.
        lines: see `Guide`.

    Raises:
        InvalidArgument: unknown ``lines``.
        WeightsError: unusable weights.
    """

    def __init__(self, envs: ThreadVectorEnv, weights: Path | None, lines: str = "joint"):
        self._envs: list[gym.Env] = list(envs.envs)
        core: Any = self._envs[0].unwrapped
        bundle = Bundle.open(type(core.engine.task), weights, core.engine.perception.name)
        self._policy: Policy = bundle.tuned_or_base()
        self._guides = [
            Guide(env.get_wrapper_attr("engine"), bundle, lines) for env in self._envs if is_whole_task(env)
        ]

    def __call__(self) -> np.ndarray:
        """(num_envs, actions) float32: actions of the environments, (7,) in the world frame unless the student takes notes."""
        if self._guides:
            asked = zip(self._envs, self._guides, strict=True)
            return np.array([env.get_wrapper_attr("label")(guide) for env, guide in asked], np.float32)
        return np.array(
            [
                env.get_wrapper_attr("ask")(self._policy, env.get_wrapper_attr("observation"), "the teacher's action")
                for env in self._envs
            ],
            np.float32,
        )

    def begin(self, begun: np.ndarray) -> None:
        """New episodes have begun where ``begun`` (num_envs,) says."""
        for guide, new in zip(self._guides, begun, strict=False):
            if new:
                guide.begin()


def teacher_part(args: Args, step: int) -> float:
    """Part of the episodes that begin at a control step which the teacher plays."""
    return 1.0 - min(1.0, max(0, step - args.warmup_steps) / args.mix_steps)


def main(args: Args) -> dict[str, Any]:
    """Train; return what result.json holds.

    Raises:
        InvalidArgument: arguments that are not allowed, or not those of the run that is to be resumed.
        RunError: the run's folder holds another run, or no checkpoint that it can go on from.
        RenderingError: no OpenGL library can be loaded.
        WeightsError: unusable weights of the teacher.
    """
    args = checked(args)
    torch.set_num_threads(args.torch_threads)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    envs = make_training_envs(args)  # complain before the run's folder is made
    teacher = Teacher(envs, args.weights, args.lines)
    run = Run(args, "dagger", METRICS, envs, NOTES_KIND if args.through_estimator else KIND)
    learner = NotesLearner(args, envs) if args.through_estimator else PixelLearner(args, envs)
    run.begin(rng, **learner.parts)

    collector = Collector(envs, training_seeds(rng, args.num_envs))
    taught = rng.random(args.num_envs) < teacher_part(args, run.progress.step)  # whose episodes the teacher plays
    teacher_successes: list[bool] = []
    values: dict[str, float] = {}
    with ThreadPoolExecutor(1) as physics, run.bar() as bar:
        while run.unfinished:
            label = teacher()
            noise = rng.normal(0.0, args.disturbance, label.shape)
            action = np.clip(label + noise, -1.0, 1.0).astype(np.float32)
            if not taught.all():
                action[~taught] = learner.act(collector.obs)[~taught]
            pending = physics.submit(collector.step, action)
            progress = run.progress
            if progress.step >= args.warmup_steps and learner.size >= args.batch_size:
                if progress.updates == 0:
                    learner.begin()
                rate = args.learning_rate * (1.0 - progress.step / args.total_steps)
                while progress.updates < args.updates_per_step * (progress.step + args.num_envs - args.warmup_steps):
                    progress.updates += 1
                    values["losses/imitation"] = learner.update(rng, args.batch_size, rate)
            step = pending.result()
            teacher.begin(step.done)
            learner.add(step, label)
            own = step.done & ~taught
            teacher_successes = [*teacher_successes, *step.succeeded[step.done & taught].tolist()][-100:]
            run.advance(args.num_envs, step.succeeded[own].tolist())
            fresh = rng.random(args.num_envs) < teacher_part(args, run.progress.step)
            taught = np.where(step.done, fresh, taught)
            bar.update(args.num_envs)
            if run.due(args.log_every) or run.due(args.eval_every):
                if teacher_successes:
                    values["charts/teacher_success"] = float(np.mean(teacher_successes))
                values["charts/teacher_part"] = teacher_part(args, run.progress.step)
                values["losses/updates"] = run.progress.updates
                shown = run.report(learner.policy, values)
                bar.set_postfix(success=f"{shown.get('charts/success', 0.0):.2f}")
            if run.due(args.checkpoint_every):
                run.checkpoint()
                run.export(learner.policy)

    envs.close()
    return run.finish(learner.policy)


def command() -> None:
    """The command line."""
    cli.run(main, Args, __doc__, "--task Threading --stage grasp --pool grasp.npz --termination sustained")


if __name__ == "__main__":
    command()
