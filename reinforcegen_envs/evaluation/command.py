"""Evaluate a policy: success with its interval, stage by stage, and where episodes failed.

The default setting is deployment: skills start where the learned initiation predictor says and end when the learned
termination predictor says; object poses are the only simulator truth used. Success itself is judged by the simulator.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import tyro
from tqdm import tqdm

import reinforcegen_envs  # noqa: F401  (registers the ids)
from reinforcegen_envs import cli
from reinforcegen_envs.arguments import Count, CountOrZero, NotNegative, Range, checked
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.evaluation import video
from reinforcegen_envs.evaluation.play import Agent, Episode, RandomPolicy, play
from reinforcegen_envs.evaluation.summary import read_csv, report, summarise, write_csv
from reinforcegen_envs.files import check_output
from reinforcegen_envs.observations import ObservationLayout
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.mlp import WeightsError
from reinforcegen_envs.policies.policy import act_one
from reinforcegen_envs.policies.residual import ResidualPolicy
from reinforcegen_envs.ray_workers import open_workers
from reinforcegen_envs.registration import MODES, NAMESPACE, VARIANTS, env_id
from reinforcegen_envs.shards import Shard
from reinforcegen_envs.sim.simulation import CONTROL_PERIOD
from reinforcegen_envs.statistics import EVALUATION_SEED
from reinforcegen_envs.tasks import TASKS

_NOT_SETTINGS = ("csv", "video", "video_every", "json", "quiet", "workers", "shard", "ray")  # do not change the result


@dataclass
class Args:
    """Evaluate a policy on an environment with hybrid control (mode Residual, Hybrid or Skill)."""

    env_id: str = "ReinforceGen/D2-Threading-Residual-v0"
    """a Residual, Hybrid or Skill id"""
    policy: str = "tuned"
    """"tuned" (the base policy and the residual in the folder of weights), "base" (base alone), "random", "shipped" (the tuned
    policy that comes with the package), or residual weights: a file written by a trainer
    (runs/NAME/actor.safetensors), or several separated by commas"""
    episodes: Count = 100
    """episodes a seed"""
    seeds: Count = 3
    """number of evaluation seeds"""
    first_seed: Annotated[int, Range(0), tyro.conf.arg(aliases=["--seed"])] = EVALUATION_SEED
    """episode i of seed k is reset with first_seed + k * episodes + i"""
    termination: str = "predictor"
    """"predictor" (learned) or "predicate" (simulator truth) ends skills"""
    initiation: str = "student"
    """"student" (learned) or "teacher" (kinematic reach of the whole skill) chooses initiation poses"""
    pose_noise: tuple[NotNegative, NotNegative] = (0.0, 0.0)
    """standard deviations of the noise on initiation poses, metres and radians per axis"""
    perception: str = "truth"
    """"truth" (object poses are known), "camera" (they are estimated from pictures; needs OpenGL) or "camera_errors" (they are as
    wrong as those, without pictures)"""
    replan: bool = False
    """look at the goal of a connect on the way, and plan again when it is elsewhere than was believed"""
    retries: CountOrZero = 0
    """how often in an episode a skill that has run out of time, come to rest or ended in vain is begun again, within the task's
    horizon"""
    randomize_visuals: bool = False
    """every episode looks different to the cameras: colours, lights, and where the cameras stand"""
    stage: str | None = None
    """evaluate this stage's skill alone"""
    weights: Path | None = None
    """folder of weights; default: the shipped one"""
    shard: str | None = None
    """i/n: play the i-th of n parts of the episodes; reinforcegen merge puts their --csv together"""
    workers: CountOrZero = 0
    """processes; 0: one for every core that this process may use"""
    ray: str | None = None
    """address of a Ray cluster that does the work instead (HOST:PORT, ray://HOST:PORT; --ray alone: the one that this machine
    belongs to); `workers` is then how many jobs are done at the same time, 0: as many as the cluster has CPUs"""
    csv: Path | None = None
    """write one line an episode here"""
    video: Path | None = None
    """write a video of the first episode, connects included, here (needs imageio-ffmpeg and OpenGL)"""
    video_every: Count = 1
    """draw one of so many control steps; the video's speed stays real"""
    json: bool = False
    """print the result as JSON in one last line"""
    quiet: bool = False
    """no progress bar and no table"""


def make(args: Args, render_mode: str | None = None, **more: Any) -> tuple[gym.Env, Agent]:
    """The environment and the policy that ``args`` name.

    Args:
        args: the command's.
        render_mode: of the environment.
        more: further arguments of the environment, over the command's, e.g. replan.

    Raises:
        InvalidArgument: an id or a policy that this command cannot evaluate.
        WeightsError: unusable weights.
    """
    task, _, mode, own_stage = _hybrid_id(args.env_id)
    if args.stage is not None and own_stage not in (None, args.stage):
        raise InvalidArgument(
            f"{args.env_id} is of stage {own_stage!r}, and stage names {args.stage!r}; give one of them"
        )
    stage = args.stage or own_stage
    kwargs: dict[str, Any] = {
        "termination": args.termination,
        "initiation": args.initiation,
        "perception": args.perception,
        "pose_noise": tuple(args.pose_noise),
        "replan": args.replan,
        "retries": args.retries,
        "randomize_visuals": args.randomize_visuals,
        "weights": None if args.weights is None else str(args.weights),
        "render_mode": render_mode,
        **more,
    }
    if stage is not None or mode == "Skill":
        kwargs["stage"] = stage
    if own_stage is not None:
        kwargs.setdefault("pool", None)  # such an id starts from one, of scenes that others may have trained on
    policy: Agent
    if args.policy == "random":
        policy = RandomPolicy()
    elif mode != "Residual":
        raise InvalidArgument(
            f"policy {args.policy!r} acts on a Residual id; {args.env_id} takes full actions (use random)"
        )
    else:
        residual, scale = _residual(args, task)
        policy = partial(act_one, residual)
        if scale is not None:
            kwargs["residual_scale"] = scale
    return gym.make(args.env_id, disable_env_checker=True, **kwargs), policy


def _hybrid_id(name: str) -> tuple[str, str, str, str | None]:
    """Task, variant, mode, and stage if it is of one alone, of an id of this package with hybrid control."""
    allowed = "choose {} with variant {}, task {}, mode {}".format(
        env_id("TASK", "VARIANT", "MODE"),
        *(", ".join(filter(None, names)) for names in (VARIANTS, sorted(TASKS), MODES)),
    )
    try:
        spec = gym.spec(name)
    except gym.error.Error as error:
        raise InvalidArgument(f"unknown id {name!r} ({error}); {allowed}") from error
    mode = spec.kwargs.get("mode")
    if spec.namespace != NAMESPACE or mode is None:
        raise InvalidArgument(f"{name} has no hybrid control; {allowed}")
    return spec.kwargs["task"], spec.kwargs["variant"], mode, spec.kwargs.get("stage")


def _residual(args: Args, task_name: str) -> tuple[ResidualPolicy, float | None]:
    """The residual policy that ``args`` name, and its scale if it has one."""
    task = TASKS[task_name]
    if args.policy == "base":
        return ResidualPolicy(task, {}), None
    if args.policy == "shipped" and args.weights is not None:
        raise InvalidArgument(
            f"policy 'shipped' is the package's own, and weights names a folder, {args.weights}; use tuned for its policy"
        )
    if args.policy in ("tuned", "shipped"):
        bundle = Bundle.open(task, args.weights, args.perception)
        if not bundle.residual_files() and args.weights is None:
            raise WeightsError(f"no residual weights are shipped for {task.name}; use --policy base")
        return bundle.residual()
    paths = [Path(path) for path in args.policy.split(",")]
    return ResidualPolicy.load(paths, task, ObservationLayout.of(task, base_action=True).size)


def _play(setting: tuple[gym.Env, Agent], seed: int) -> Episode:
    return play(*setting, seed)


def evaluate(args: Args) -> dict[str, Any]:
    """Play all episodes and summarise them.

    Returns:
        what `summarise` gives, "settings", and "each", the episodes.

    Raises:
        InvalidArgument: arguments that are not allowed; an id or a policy that this command cannot evaluate.
        WeightsError: unusable weights.
        WorkerError: a worker died.
    """
    args = checked(args)
    seeds = seeds_of(args)
    env, _ = make(args)  # complain before any process starts
    stage_names = [stage.name for stage in env.unwrapped.task.stages]  # type: ignore[attr-defined]
    env.close()
    episodes: list[Episode] = []
    with (
        tqdm(total=len(seeds), unit="episode", disable=args.quiet) as bar,
        open_workers(args.ray, args.workers, make, (args,), jobs=len(seeds)) as workers,
    ):
        for episode in workers.map(_play, seeds):
            episodes.append(episode)
            bar.update()
            bar.set_postfix(
                success=f"{sum(e.success for e in episodes) / len(episodes):.1%}",
                steps=sum(e.control_steps for e in episodes),
            )
    settings = {name: value for name, value in asdict(args).items() if name not in _NOT_SETTINGS}
    summary = summarise(episodes, stage_names, args.seeds if args.shard is None else 1)
    return {**summary, "settings": settings, "each": episodes}


def seeds_of(args: Args) -> Sequence[int]:
    """The episodes to play, those of the shard alone if one is named.

    Raises:
        InvalidArgument: there are none, or they would be written over those of another shard.
    """
    shard = Shard.parse(args.shard)
    seeds = shard.of(range(args.first_seed, args.first_seed + args.episodes * args.seeds))
    if not seeds:
        raise InvalidArgument(f"shard {shard} has none of the {args.episodes * args.seeds} episodes; use fewer shards")
    if args.shard is not None and args.csv is not None:
        check_shard_table(args.csv, args.shard, seeds)
    return seeds


def check_shard_table(path: Path, shard: str, seeds: Sequence[int]) -> None:
    """Complain where a shard would be written over another one, whose episodes would be lost.

    Args:
        path: the table that is to be written.
        shard: i/n.
        seeds: its episodes.

    Raises:
        InvalidArgument: the file has other episodes.
    """
    if not path.exists():
        return
    try:
        there = [episode.seed for episode in read_csv(path)]
    except InvalidArgument:
        return  # no table, or half of one
    others = sorted(set(there) - set(seeds))
    if others:
        raise InvalidArgument(
            f"{path} has episodes that are not of shard {shard}, such as seed {others[0]}; give every shard a file of its own"
        )


def write_video(args: Args) -> None:
    """Record the first episode, connects included, at its real speed.

    Raises:
        RenderingError: no OpenGL on this machine.
        MissingPackage: imageio with ffmpeg is not installed.
    """
    args = checked(args)
    if args.video is None:
        raise InvalidArgument("video is None; name a file to write")
    check_output(args.video, video.SUFFIXES)
    video.check_packages()
    env, policy = make(args, render_mode="rgb_array")
    _, frames = video.record(env, policy, args.first_seed, args.video_every)
    env.close()
    video.save(args.video, frames, 1 / (CONTROL_PERIOD * args.video_every))


def main(args: Args) -> None:
    """Evaluate, and print and write what was asked for."""
    args = checked(args)
    if args.csv is not None:
        check_output(args.csv)
    if args.video is not None:
        seeds_of(args)  # complain before anything is recorded
        write_video(args)  # first: whoever has no OpenGL hears of it at once
    result = evaluate(args)
    episodes = result.pop("each")
    if not args.quiet:
        title = f"{args.env_id}, policy {args.policy}: {result['episodes']} episodes, seeds from {args.first_seed}"
        print(report(title, result))
    if args.csv is not None:
        write_csv(args.csv, episodes)
    if args.json:
        print(json.dumps(result, default=str))


def command() -> None:
    """The command line."""
    cli.run(main, Args, __doc__, "--task Threading --variant D2 --policy tuned --episodes 100 --seeds 3")
