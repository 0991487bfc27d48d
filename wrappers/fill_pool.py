"""Fill a reset pool: run the stages before a skill, connect to it, and keep the state.

python -m reinforcegen_envs.wrappers.fill_pool --variant D2 --stage insert --count 600 --out pool.npz
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from reinforcegen_envs import cli
from reinforcegen_envs.arguments import Count, CountOrZero, NotNegative, checked
from reinforcegen_envs.engine import Snapshot
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.files import check_output
from reinforcegen_envs.perception import as_perception
from reinforcegen_envs.perception.camera import LateCamera
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.workers import Workers
from reinforcegen_envs.wrappers.pool import StartPool
from reinforcegen_envs.wrappers.skill import Skill

EARLIER_POLICIES = ("base", "tuned")


@dataclass
class Args:
    """Fill a reset pool for one stage's skill."""

    task: str = "Threading"
    """task name"""
    variant: tuple[str, ...] = ()
    """reset ranges, in turn: snapshot i is of the (i modulo their number)-th; one named twice comes twice as often. None named:
    D2, or those of `earlier_pool`"""
    stage: str = "insert"
    """stage whose skill starts are collected"""
    count: Count = 600
    """snapshots"""
    pose_noise: tuple[NotNegative, NotNegative] = (0.0, 0.0)
    """standard deviations of the noise on initiation poses, metres and radians per axis"""
    seed: CountOrZero = 0
    """snapshot i is made from seed + i and its reset range, or the earlier pool, alone; keep below 1,000,000, where evaluation
    begins"""
    weights: Path | None = None
    """folder of base weights and predictors; default: the shipped one"""
    earlier_policy: str = "base"
    """who plays the stages before: "base", or "tuned", which adds the residual weights that are in the weights' folder"""
    earlier_pool: Path | None = None
    """file of starts of an earlier stage to play on from, which is cheaper than a new scene every time"""
    perception: str = "truth"
    """"truth"; "camera": beliefs from pictures, which the snapshots hold; "camera_errors": beliefs that are as wrong as those"""
    believe_from: str | None = None
    """with "camera": stage from which on beliefs count. Before it objects are where they are: a long task's last stages are else
    begun from those scenes alone that cameras see best"""
    initiation: str = "teacher"
    """"teacher" or "student" chooses initiation poses"""
    out: Path = Path("pool.npz")
    """file to write"""
    workers: CountOrZero = 0
    """processes; 0: one for every core that this process may use"""
    quiet: bool = False
    """no progress bar"""


def make(args: Args) -> dict[str, Skill]:
    """Reset range -> the environment whose resets are what is asked for.

    Raises:
        InvalidArgument: unknown task, variant, stage or earlier policy, or a stage to believe from without a camera.
        WeightsError: unusable weights.
    """
    if args.earlier_policy not in EARLIER_POLICIES:
        raise InvalidArgument(f"unknown earlier_policy {args.earlier_policy!r}; choose one of {EARLIER_POLICIES}")
    if args.task not in TASKS:
        raise InvalidArgument(f"unknown task {args.task!r}; choose one of {sorted(TASKS)}")
    task = TASKS[args.task]
    bundle = Bundle.open(task, args.weights, args.perception)
    perception = as_perception(args.perception, args.weights)
    if args.believe_from is not None:
        if args.perception != LateCamera.name:
            raise InvalidArgument(
                f"believe_from {args.believe_from!r} has no effect with perception {args.perception!r}; choose 'camera'"
            )
        perception = LateCamera(args.weights, task.stage_index(args.believe_from))
    return {
        variant: Skill(
            ManipulationEnv(args.task, variant, perception=perception),
            stage=args.stage,
            pose_noise=args.pose_noise,
            weights=args.weights,
            initiation=args.initiation,
            earlier_policy=bundle.tuned() if args.earlier_policy == "tuned" else None,
            earlier_pool=args.earlier_pool,
        )
        for variant in dict.fromkeys(ranges(args))
    }


def ranges(args: Args) -> tuple[str, ...]:
    """Reset ranges of the environments to use in turn; those of an earlier pool all serve its starts, so one is enough.

    Raises:
        InvalidArgument: some are named with an earlier pool, which has its own.
        PoolError: the earlier pool is unusable.
    """
    if args.earlier_pool is None:
        return args.variant or ("D2",)
    if args.variant:
        raise InvalidArgument(
            f"variant {args.variant} has no effect with an earlier_pool, whose starts have theirs; leave it out"
        )
    return tuple(StartPool.load(args.earlier_pool, task=args.task).variants[:1])


def _work(envs: dict[str, Skill], job: tuple[str, int]) -> Snapshot:
    variant, seed = job
    env = envs[variant]
    env.reset(seed=seed)
    return env.get_state()


def fill(args: Args) -> StartPool:
    """Make the pool and write it.

    Raises:
        InvalidArgument: unknown task, variant or stage, a number out of its range.
        SkillResetError: the stages before the skill hardly ever succeed.
        WorkerError: a worker died.
    """
    args = checked(args)
    check_output(args.out)
    envs = make(args)  # complain before any process starts
    in_turn = args.variant or tuple(envs)
    drawn = [(in_turn[i % len(in_turn)], args.seed + i) for i in range(args.count)]
    with Workers(args.workers, make, (args,), jobs=args.count) as workers:
        snapshots = list(tqdm(workers.map(_work, drawn), total=args.count, unit="snapshot", disable=args.quiet))
    manifest = {k: v for k, v in asdict(args).items() if k not in ("out", "workers", "quiet")}
    earlier = None if args.earlier_pool is None else StartPool.load(args.earlier_pool)
    manifest["variant"] = list(dict.fromkeys(in_turn)) if earlier is None else earlier.variants
    pool = StartPool.of(snapshots, manifest)
    pool.save(args.out)
    return pool


def command() -> None:
    """The command line."""
    cli.run(fill, Args, example="--task Threading --stage insert --count 600 --out insert.npz")


if __name__ == "__main__":
    command()
