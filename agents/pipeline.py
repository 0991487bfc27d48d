"""Everything for one task, from the 10 source demonstrations to the tuned policy, by one command, with its wall clock.

Generation, behaviour cloning with predictors, evaluation, residual RL stage after stage, termination trained again on what
the tuned policy does, evaluation again. Each step is a command of the package, printed before it runs; a finished step is
skipped when the script is started again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reinforcegen_envs import cli
from reinforcegen_envs.agents.steps import Cluster, Steps
from reinforcegen_envs.arguments import Count, CountOrZero, Fraction, NotNegative, PositiveFraction, checked
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.files import atomic_path, check_output_folder
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.registration import env_id
from reinforcegen_envs.tasks import TASKS

NOISE = (0.01, 0.0523599)  # 1 cm and 3 degrees, per axis
QUIET = (
    "4"  # environments of TD3 that do not explore before the cameras: noise shakes a hand loose that would come to rest
)


@dataclass
class Args:
    """From source demonstrations to a tuned policy."""

    task: str = "Threading"
    """task name; "all": every task, in a folder of its own each"""
    source: Path | None = None
    """source demonstrations; default: the shipped ones"""
    variant: str = "D2"
    """reset range to train and evaluate on"""
    out: Path = Path("runs/pipeline")
    """folder for data, weights, runs and results"""
    demos: Count = 1500
    """demonstrations to generate"""
    other_demos: CountOrZero = 0
    """demonstrations to generate on each other variant, so that one set of weights serves all; the shipped sets of all tasks but
    Threading had 300 (Coffee Preparation 100)"""
    start_noise: tuple[NotNegative, NotNegative] = (0.005, 0.0262)
    """initiation augmentation in generation: metres and radians per axis"""
    noise: tuple[NotNegative, NotNegative] = NOISE
    """on the starts that residuals and termination are learned from, and that policies are evaluated with too: metres and radians
    per axis"""
    td3_steps: CountOrZero = 60_000
    """control steps of residual RL, every stage; 0 stops after imitation"""
    held_steps: Count | None = None
    """the same of stages that begin with an object in the hand, which exploration shakes loose at first; default: as of all"""
    residual_scale: PositiveFraction | None = None
    """how much of the action range residuals cover; default: the environment's 0.1, enough for starts off by 1 or 2 cm"""
    exploration_noise: NotNegative | None = None
    """of residual RL; default: td3_residual's"""
    noise_memory: Fraction | None = None
    """likewise"""
    pool: Count = 800
    """reset states, every stage"""
    episodes: Count = 100
    """evaluation episodes a seed"""
    seeds: Count = 3
    """evaluation seeds"""
    seed: CountOrZero = 1
    """training seed"""
    cameras: bool = False
    """then train an estimator of object poses from pictures, and the residual and termination again under what it makes the
    robot believe; evaluates with cameras and nothing else (needs OpenGL)"""
    camera_loop: bool = False
    """with `cameras`: learn those residuals before the cameras themselves, not under a model of their errors, which leaves out
    where skills come to rest; takes about five times as long"""
    retries: CountOrZero = 0
    """in evaluations: how often in an episode a skill that has come to rest or run out of time is begun again"""
    foresight: bool = False
    """reward a skill by how likely the later stages succeed from its end, as a predictor says, trained before residual RL"""
    ray: str | None = None
    """address of a Ray cluster that runs the steps instead, of all tasks side by side, each as soon as what it needs is there
    (HOST:PORT, ray://HOST:PORT; --ray alone: the one that this machine belongs to); all nodes must share the folders"""
    step_cpus: Count = 1
    """CPUs of a step that stays on one node of the cluster, such as behaviour cloning"""


def evaluation(
    args: Args, weights: Path, policy: str, noise: Sequence[float], name: str, variant: str | None = None,
    perception: str = "truth",
) -> list[str]:  # fmt: skip
    """The command that evaluates as deployed; its JSON line ends up in the step's log."""
    return [
        "-m", "reinforcegen_envs.evaluate", "--env-id", env_id(args.task, variant or args.variant, "Residual"),
        "--policy", policy, "--weights", str(weights), "--episodes", str(args.episodes), "--seeds", str(args.seeds),
        "--pose-noise", *map(str, noise), "--perception", perception, "--retries", str(args.retries),
        "--csv", str(args.out / f"{name}.csv"), "--json", "--quiet",
    ]  # fmt: skip


def others(args: Args) -> list[str]:
    """The other reset ranges that the policies are to serve."""
    return [variant for variant in TASKS[args.task].variants if variant != args.variant and args.other_demos]


def in_turn(args: Args) -> list[str]:
    """Reset ranges of what is played for training, in turn: half is of the one that is asked for, the rest of the others."""
    return [name for other in others(args) for name in (args.variant, other)] or [args.variant]


def fine_tune(args: Args, steps: Steps, weights: Path, data: list[str], perception: str = "truth") -> None:
    """Residual RL stage by stage, termination, and evaluation of the whole."""
    mark = mark_of(perception)
    behind = residuals(args, steps, weights, perception)
    steps.run(
        f"{mark}termination",
        ["-m", "reinforcegen_envs.agents.termination", "--weights", str(weights), "--data", *data,
         "--pose-noise", *map(str, args.noise), "--perception", perception],
        # It takes the place of what the base is evaluated with.
        after=[behind, "evaluate-base", "evaluate-base-noise"],
    )  # fmt: skip
    for suffix, noise, variant in tuned_evaluations(args):
        name = f"{mark}tuned{suffix}"
        command = evaluation(args, weights, "tuned", noise, name, variant, perception)
        steps.run(f"evaluate-{name}", command, after=[f"{mark}termination"])


def mark_of(perception: str) -> str:
    """What the names of steps under a perception begin with."""
    return "" if perception == "truth" else f"{perception}-"


def residuals(args: Args, steps: Steps, weights: Path, perception: str = "truth") -> str:
    """Residual RL stage by stage, from starts that are off and come from the tuned stages before.

    Args:
        args, steps: of the task.
        weights: folder with what imitation has learned; residuals are added to it.
        perception: that they act on.

    Returns:
        the last step's name.
    """
    mark = mark_of(perception)
    # From cameras, residuals are learned under a model of the camera's errors, at the speed of plain physics, or before them.
    modelled = perception == "camera" and not args.camera_loop
    learning = ["--perception", "camera_errors" if modelled else perception]
    settings = ["--quiet-envs", QUIET] if perception == "camera" and args.camera_loop else []
    for name in ("residual_scale", "exploration_noise", "noise_memory"):
        if (value := getattr(args, name)) is not None:
            settings += ["--" + name.replace("_", "-"), str(value)]
    begin = ["--variant", *in_turn(args)]
    noise = ["--pose-noise", *map(str, args.noise)]
    behind = "bc" if perception == "truth" else "measure"  # the step after which the next ones can begin
    earlier: dict[str, str] = {}
    if args.foresight and perception == "truth":
        steps.run(
            "foresight",
            ["-m", "reinforcegen_envs.agents.foresight", "--task", args.task, *begin, "--weights", str(weights), *noise],
            after=[behind],
        )  # fmt: skip
        behind = "foresight"
    for declared in TASKS[args.task].stages:
        stage = declared.name
        total = args.held_steps if declared.held and args.held_steps else args.td3_steps
        pools = {kind: str(args.out / f"{mark}pool-{stage}-{kind}.npz") for kind in ("train", "held-out")}
        for kind, count, seed in (("train", args.pool, 0), ("held-out", max(1, args.pool // 4), 500_000)):
            steps.run(
                f"{mark}pool-{stage}-{kind}",
                ["-m", "reinforcegen_envs.wrappers.fill_pool", "--task", args.task, "--stage", stage,
                 *(["--earlier-pool", earlier[kind], "--earlier-policy", "tuned"] if earlier else begin),
                 "--count", str(count), *noise, "--initiation", "student", "--seed", str(seed),
                 *learning, "--weights", str(weights), "--out", pools[kind]],
                after=[behind],
            )  # fmt: skip
        steps.run(
            f"{mark}td3-{stage}",
            ["-m", "reinforcegen_envs.agents.td3_residual",
             "--env-id", env_id(args.task, args.variant, "Residual"), "--stage", stage,
             "--termination", "sustained", *learning, "--weights", str(weights), "--pool", pools["train"],
             "--eval-pool", pools["held-out"], "--total-steps", str(total), "--num-threads", "1",
             "--eval-every", "20000", *settings, *(["--foresight"] if args.foresight else []),
             "--seed", str(args.seed), "--runs-dir", str(args.out), "--run-name", f"{mark}td3-{stage}"],
            after=[f"{mark}pool-{stage}-{kind}" for kind in pools],
        )  # fmt: skip
        earlier, behind = pools, f"{mark}td3-{stage}"
    return behind


def tuned_evaluations(args: Args) -> list[tuple[str, Sequence[float], str]]:
    """What tuned policies are evaluated on: end of the result's name, start-pose noise, variant."""
    without = (0, 0)
    own = [("", without, args.variant), ("-noise", args.noise, args.variant)]
    return own + [(f"-{variant}", without, variant) for variant in others(args)]


def with_cameras(args: Args, steps: Steps, weights: Path, data: list[str]) -> None:
    """An estimator, how wrong it is, and residual and termination under what it makes the robot believe."""
    steps.run(
        "perceive",
        ["-m", "reinforcegen_envs.agents.perceive", "--task", args.task, "--weights", str(weights), "--variant", *in_turn(args),
         "--out", str(args.out / "perceive")],
        after=["termination"],
    )  # fmt: skip
    steps.run(
        "measure",
        ["-m", "reinforcegen_envs.agents.measure", "--task", args.task, "--weights", str(weights), "--variant", args.variant,
         "--out", str(args.out / "measure")],
        after=["perceive"],
    )  # fmt: skip
    fine_tune(args, steps, weights, data, "camera")


def main(args: Args) -> None:
    """Run all steps, print the results.

    Raises:
        InvalidArgument: unknown task or variant, or a number out of its range.
        StepError: a step failed; what it printed stands in its log.
        MissingPackage: Ray is asked for and not installed.
    """
    args = checked(args)
    runs = [args]
    if args.task == "all":
        runs = [replace(args, task=task, out=args.out / task.lower()) for task in TASKS]
    for run in runs:
        if run.task not in TASKS:
            raise InvalidArgument(f"unknown task {run.task!r}; choose one of {sorted(TASKS)}, or all")
        variants = TASKS[run.task].variants
        if run.variant not in variants:
            raise InvalidArgument(f"unknown variant {run.variant!r} of {run.task}; choose one of {list(variants)}")
        check_output_folder(run.out)
    if args.camera_loop and not args.cameras:
        raise InvalidArgument("camera_loop is about what is learned for cameras; give --cameras too, or leave it out")
    if args.source is not None and args.task == "all":
        raise InvalidArgument(f"source {args.source} is of one task; name it instead of all")
    for run in runs:
        run.out.mkdir(parents=True, exist_ok=True)
    if args.ray is None:
        for run in runs:
            steps = Steps(run.out)
            report(run, steps, plan(run, steps))
        return
    planned: list[tuple[Args, Steps, list[str]]] = []
    with Cluster(args.ray, args.step_cpus) as cluster:
        for run in runs:
            steps = cluster.steps(run.out.absolute())
            planned.append((run, steps, plan(run, steps)))
        cluster.wait()
    for each in planned:
        report(*each)


def plan(args: Args, steps: Steps) -> list[str]:
    """All steps of a task; returns the names of the results."""
    source = [] if args.source is None else ["--source", str(args.source)]
    weights = args.out / "weights"
    counts = dict.fromkeys(others(args), args.other_demos) | {args.variant: args.demos}
    files = {variant: args.out / f"generated-{variant}.hdf5" for variant in counts}
    for variant, count in counts.items():
        steps.run(
            f"generate-{variant}",
            ["-m", "reinforcegen_envs.demos.generate", "--task", args.task, "--variant", variant, "--count", str(count),
             "--start-noise", *map(str, args.start_noise), *source, "--out", str(files[variant])],
        )  # fmt: skip
    data = [str(file) for file in files.values()]
    steps.run(
        "bc",
        ["-m", "reinforcegen_envs.agents.bc", "--data", *data, *source, "--out", str(weights)],
        after=[f"generate-{variant}" for variant in counts],
    )
    steps.run("evaluate-base", evaluation(args, weights, "base", (0, 0), "base"), after=["bc"])
    steps.run("evaluate-base-noise", evaluation(args, weights, "base", args.noise, "base-noise"), after=["bc"])
    results = ["base", "base-noise"]
    if args.td3_steps:
        fine_tune(args, steps, weights, data)
        results += [f"tuned{suffix}" for suffix, _, _ in tuned_evaluations(args)]
        if args.cameras:
            with_cameras(args, steps, weights, data)
            results += [f"camera-tuned{suffix}" for suffix, _, _ in tuned_evaluations(args)]
    return results


def report(args: Args, steps: Steps, rows: list[str]) -> None:
    """Print the results, and keep them."""
    results = {}
    for name in rows:
        line = (args.out / f"evaluate-{name}.log").read_text().strip().splitlines()[-1]
        results[name] = json.loads(line)
        low, high = results[name]["interval"]
        parts = "  ".join(f"{k} {v['success']:.3f}" for k, v in results[name]["stages"].items())
        print(
            f"{name:<18} {results[name]['success']:.3f} [{low:.3f}, {high:.3f}]  {parts}  {results[name]['failures']}"
        )
    total = sum(steps.seconds.values())
    print(f"wall clock {total / 60:.1f} min: " + ", ".join(f"{k} {v:.0f} s" for k, v in steps.seconds.items()))
    weights = Bundle.open(TASKS[args.task], args.out / "weights")
    weights.save_evaluation(results)  # goes with the weights wherever they go
    with atomic_path(args.out / "result.json") as temporary:
        temporary.write_text(json.dumps({"seconds": steps.seconds, "results": results}, indent=2) + "\n")


def command() -> None:
    """The command line."""
    cli.run(main, Args, __doc__, "--task Threading --out runs/pipeline")


if __name__ == "__main__":
    command()
