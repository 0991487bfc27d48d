"""Evaluate a policy: success with its interval, stage by stage, and where episodes failed.

    python -m reinforcegen_envs.evaluate --env-id ReinforceGen/D2-Threading-Residual-v0 --policy shipped --episodes 100 --seeds 3

The default setting is deployment: skills start where the learned initiation predictor says and end when the learned
termination predictor says; object poses are the only simulator truth used. Success itself is judged by the simulator.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

import reinforcegen_envs  # noqa: F401  (registers the ids)
from reinforcegen_envs import cli
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.mlp import WeightsError
from reinforcegen_envs.policies.residual import ResidualPolicy
from reinforcegen_envs.registration import MODES, NAMESPACE, VARIANTS, env_id
from reinforcegen_envs.statistics import wilson_interval
from reinforcegen_envs.tasks import TASKS

FIRST_SEED = 1_000_000  # training uses seeds below
_ALLOWED_IDS = "choose {} with variant {}, task {}, mode {}".format(
    env_id("TASK", "VARIANT", "MODE"), *(", ".join(filter(None, names)) for names in (VARIANTS, sorted(TASKS), MODES))
)


@dataclass
class Args:
    """Evaluate a policy on an environment with hybrid control (mode Residual, Hybrid or Skill)."""

    env_id: str = "ReinforceGen/D2-Threading-Residual-v0"
    """a Residual, Hybrid or Skill id"""
    policy: str = "shipped"
    """"shipped" (base and residual that come with the package), "base" (base alone), "random", or residual weights: a
    file written by a trainer (runs/NAME/actor.safetensors), or several separated by commas"""
    episodes: int = 100
    """episodes a seed"""
    seeds: int = 3
    """number of evaluation seeds"""
    first_seed: int = FIRST_SEED
    """episode i of seed k is reset with first_seed + k * episodes + i"""
    termination: str = "predictor"
    """"predictor" (learned) or "predicate" (simulator truth) ends skills"""
    initiation: str = "student"
    """"student" (learned) or "teacher" (kinematic reach of the whole skill) chooses initiation poses"""
    pose_noise: tuple[float, float] = (0.0, 0.0)
    """standard deviations of the noise on initiation poses, metres and radians per axis"""
    stage: str | None = None
    """evaluate this stage's skill alone"""
    weights: str | None = None
    """folder of base weights and predictors; default: the shipped one"""
    workers: int = 0
    """processes; 0 means one a core"""
    csv: Path | None = None
    """write one line an episode here"""
    video: Path | None = None
    """write an MP4 of the first episode, connects included, here (needs imageio-ffmpeg and OpenGL)"""
    video_every: int = 1
    """draw one of so many control steps; the video's speed stays real"""
    json: bool = False
    """print the result as JSON in one last line"""
    quiet: bool = False
    """no progress bar and no table"""


@dataclass
class Episode:
    """What happened in one episode."""

    seed: int
    success: bool
    reference_success: bool
    entered: list[bool] = field(default_factory=list)
    finished: list[bool] = field(default_factory=list)
    failure: str = ""
    control_steps: int = 0
    connect_steps: int = 0


class RandomPolicy:
    """Uniform actions, drawn anew for every episode from its seed: which process plays it does not matter."""

    def reset(self, seed: int) -> None:
        """Begin the episode of ``seed``."""
        self._rng = np.random.default_rng(seed)

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """The next action (7,); the observation does not matter."""
        return self._rng.uniform(-1.0, 1.0, 7)


def make(args: Args, render_mode: str | None = None) -> tuple[gym.Env, Callable[[np.ndarray], np.ndarray]]:
    """The environment and the policy that ``args`` name.

    Raises:
        ValueError: an id or a policy that this command cannot evaluate.
    """
    try:
        spec = gym.spec(args.env_id)
    except gym.error.Error as error:
        raise ValueError(f"unknown id {args.env_id!r} ({error}); {_ALLOWED_IDS}") from error
    mode = spec.kwargs.get("mode")
    if spec.namespace != NAMESPACE or mode is None:
        raise ValueError(f"{args.env_id} has no hybrid control; {_ALLOWED_IDS}")
    task = TASKS[spec.kwargs["task"]]
    kwargs: dict[str, Any] = {
        "termination": args.termination,
        "initiation": args.initiation,
        "pose_noise": tuple(args.pose_noise),
        "weights": args.weights,
        "render_mode": render_mode,
    }
    if args.stage is not None or mode == "Skill":
        kwargs["stage"] = args.stage
    if args.policy == "random":
        return gym.make(args.env_id, disable_env_checker=True, **kwargs), RandomPolicy()
    if mode != "Residual":
        raise ValueError(f"policy {args.policy!r} acts on a Residual id; {args.env_id} takes full actions (use random)")
    policy: Callable[[np.ndarray], np.ndarray]
    if args.policy == "base":
        policy = ResidualPolicy(task, {})
    else:
        if args.policy == "shipped":
            paths = Bundle.open(task, args.weights).residual_files()
            if not paths:
                raise WeightsError(f"no residual weights are shipped for {task.name}; use --policy base")
        else:
            paths = [Path(path) for path in args.policy.split(",")]
        size = gym.make(args.env_id, disable_env_checker=True, **kwargs).observation_space.shape
        assert size is not None
        policy, kwargs["residual_scale"] = ResidualPolicy.load(paths, task, size[0])
    return gym.make(args.env_id, disable_env_checker=True, **kwargs), policy


def play(env: gym.Env, policy: Callable[[np.ndarray], np.ndarray], seed: int) -> Episode:
    """Play one episode to its end."""
    stages = len(env.unwrapped.task.stages)  # type: ignore[attr-defined]
    if isinstance(policy, RandomPolicy):
        policy.reset(seed)
    obs, info = env.reset(seed=seed)
    episode = Episode(seed, False, False, [False] * stages, [False] * stages)
    episode.connect_steps = episode.control_steps = info["sim_steps"]
    done = bool(info["failure"])
    episode.failure = f"{info['stage_name']}: {info['failure']}" if done else ""
    while not done:
        stage, name = info["stage"], info["stage_name"]
        episode.entered[stage] = True
        obs, reward, terminated, truncated, info = env.step(policy(obs))
        episode.control_steps += info["sim_steps"]
        episode.connect_steps += max(info["sim_steps"] - 1, 0)
        episode.finished[stage] |= float(reward) > 0
        episode.reference_success |= info["reference_success"]
        done = terminated or truncated
        if info["failure"] and not episode.failure:
            where = info["stage_name"] if info["failure"].startswith("connect") else name
            episode.failure = f"{where}: {info['failure']}"
    episode.success = bool(info["success"])
    episode.reference_success |= episode.success
    if episode.success:
        episode.failure = ""
    return episode


_worker: tuple[gym.Env, Callable[[np.ndarray], np.ndarray]] | None = None


def _start_worker(args: Args) -> None:
    global _worker
    _worker = make(args)


def _work(seed: int) -> Episode:
    assert _worker is not None
    return play(*_worker, seed)


def evaluate(args: Args) -> dict[str, Any]:
    """Play all episodes and summarise them.

    Returns:
        success, reference_success, interval (95%, Wilson, strict), per_seed, stages (name -> success given that it was
        entered, with counts), failures (count by place and reason), and the settings.

    Raises:
        ValueError: an id or a policy that this command cannot evaluate.
    """
    cli.at_least(1, args, "episodes", "seeds")
    cli.at_least(0, args, "workers", "first_seed")
    env, policy = make(args)  # complain before any process starts
    task = env.unwrapped.task  # type: ignore[attr-defined]
    seeds = range(args.first_seed, args.first_seed + args.episodes * args.seeds)
    workers = min(args.workers or os.cpu_count() or 1, len(seeds))
    episodes: list[Episode] = []
    with tqdm(total=len(seeds), unit="episode", disable=args.quiet) as bar:

        def note(episode: Episode) -> None:
            episodes.append(episode)
            bar.update()
            bar.set_postfix(
                success=f"{np.mean([e.success for e in episodes]):.1%}",
                steps=sum(e.control_steps for e in episodes),
            )

        if workers == 1:
            for seed in seeds:
                note(play(env, policy, seed))
        else:
            with multiprocessing.get_context("spawn").Pool(workers, _start_worker, (args,)) as pool:
                for episode in pool.imap(_work, seeds, chunksize=5):
                    note(episode)
    env.close()
    successes = sum(e.success for e in episodes)
    per_seed = [
        sum(e.success for e in episodes[k * args.episodes : (k + 1) * args.episodes]) / args.episodes
        for k in range(args.seeds)
    ]
    stages = {}
    for index, stage in enumerate(task.stages):
        entered = sum(e.entered[index] for e in episodes)
        finished = sum(e.finished[index] for e in episodes)
        stages[stage.name] = {
            "success": finished / max(entered, 1),
            "interval": wilson_interval(finished, entered),
            "entered": entered,
            "finished": finished,
        }
    return {
        "success": successes / len(episodes),
        "interval": wilson_interval(successes, len(episodes)),
        "reference_success": sum(e.reference_success for e in episodes) / len(episodes),
        "episodes": len(episodes),
        "per_seed": per_seed,
        "stages": stages,
        "failures": dict(Counter(e.failure for e in episodes if not e.success).most_common()),
        "control_steps": float(np.mean([e.control_steps for e in episodes])),
        "settings": {
            k: v
            for k, v in asdict(args).items()
            if k not in ("csv", "video", "video_every", "json", "quiet", "workers")
        },
        "each": episodes,
    }


def write_csv(path: Path, episodes: list[Episode]) -> None:
    """One line an episode."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        names = list(asdict(episodes[0]))
        writer.writerow(names)
        for episode in episodes:
            row = asdict(episode)
            writer.writerow(
                ["".join(str(int(x)) for x in row[n]) if isinstance(row[n], list) else row[n] for n in names]
            )


def record(
    env: gym.Env, policy: Callable[[np.ndarray], np.ndarray], seed: int, every: int = 1
) -> tuple[Episode, list[np.ndarray]]:
    """Play one episode and draw it.

    Args:
        env: an environment with render mode "rgb_array".
        policy: observation -> action.
        seed: of the episode.
        every: draw the first of so many control steps (0.05 s each), those of connects included.

    Returns:
        What happened, and the frames.
    """
    core: ManipulationEnv = env.unwrapped  # type: ignore[assignment]
    frames: list[np.ndarray] = []
    clock, steps = 0.0, 0

    def draw() -> None:
        nonlocal clock, steps
        if core.data.time <= clock:  # the reset of a stage's skill failed on its way and began anew, in another scene
            frames.clear()
            steps = 0
        if steps % every == 0:
            frames.append(core.render())  # type: ignore[arg-type]
        clock, steps = core.data.time, steps + 1

    core.sim.on_control_step = draw
    try:
        return play(env, policy, seed), frames
    finally:
        core.sim.on_control_step = None


def write_video(args: Args) -> None:
    """Record the first episode, connects included, at its real speed.

    Raises:
        RenderingError: no OpenGL on this machine.
        ImportError: imageio with ffmpeg is not installed.
    """
    assert args.video is not None
    cli.at_least(1, args, "video_every")
    try:
        import imageio
    except ImportError as error:
        raise ImportError("videos need imageio and imageio-ffmpeg: pip install reinforcegen-envs[render]") from error
    env, policy = make(args, render_mode="rgb_array")
    _, frames = record(env, policy, args.first_seed, args.video_every)
    env.close()
    with atomic_path(args.video) as temporary:
        imageio.mimwrite(temporary, frames, fps=20 / args.video_every, macro_block_size=8)  # type: ignore[arg-type]


def main(args: Args) -> None:
    """Evaluate, and print and write what was asked for."""
    if args.video is not None:
        write_video(args)  # first: whoever has no OpenGL hears of it at once
    result = evaluate(args)
    episodes = result.pop("each")
    low, high = result["interval"]
    if not args.quiet:
        print(f"{args.env_id}, policy {args.policy}: {result['episodes']} episodes, seeds from {args.first_seed}")
        print(f"  success (strict)    {result['success']:.3f}  [{low:.3f}, {high:.3f}]")
        print(f"  success (reference) {result['reference_success']:.3f}")
        print("  by seed             " + "  ".join(f"{rate:.2f}" for rate in result["per_seed"]))
        for name, stage in result["stages"].items():
            low, high = stage["interval"]
            print(f"  stage {name:<13} {stage['success']:.3f}  [{low:.3f}, {high:.3f}]  of {stage['entered']} entered")
        for failure, count in result["failures"].items():
            print(f"  failed: {failure:<40} {count}")
    if args.csv is not None:
        write_csv(args.csv, episodes)
    if args.json:
        print(json.dumps(result, default=str))


if __name__ == "__main__":
    cli.run(main, Args)
