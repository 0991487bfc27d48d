"""Everything for one task, from the 10 source demonstrations to the tuned policy, by one command, with its wall clock.

Generation, behaviour cloning with predictors, evaluation, residual RL stage after stage, termination trained again on what
the tuned policy does, evaluation again. Each step is a command of the package, printed before it runs; a finished step is
skipped when the script is started again.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from reinforcegen_envs import cli
from reinforcegen_envs.arguments import Count, CountOrZero, NotNegative, checked
from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError
from reinforcegen_envs.files import atomic_path, check_output_folder
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.registration import env_id, task_modules
from reinforcegen_envs.tasks import TASKS

STOP_TIMEOUT = 1.5  # seconds
NOISE = ("0.01", "0.0523599")  # 1 cm and 3 degrees, per axis


@dataclass
class Args:
    """From source demonstrations to a tuned policy."""

    task: str = "Threading"
    """task name"""
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
    td3_steps: CountOrZero = 60_000
    """control steps of residual RL, every stage; 0 stops after imitation"""
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
    foresight: bool = False
    """reward a skill by how likely the later stages succeed from its end, as a predictor says, trained before residual RL"""


class StepError(ReinforceGenError, RuntimeError):
    """A step of the pipeline failed; the same command goes on from it."""


class Steps:
    """Runs commands, times them, and remembers which are done."""

    def __init__(self, out: Path):
        self.out = out
        self.file = out / "timing.json"
        self.seconds: dict[str, float] = json.loads(self.file.read_text()) if self.file.is_file() else {}

    def run(self, name: str, command: list[str]) -> None:
        """Run a command.

        Raises:
            StepError: it failed.
        """
        if name in self.seconds:
            print(f"== {name}: done before, {self.seconds[name]:.0f} s", flush=True)
            return
        began = time.time()
        print(f"== {name}: {shlex.join(['python', *command])}", flush=True)
        path = self.out / f"{name}.log"
        with open(path, "w") as log:
            modules = task_modules()
            status = call([sys.executable, *command, *(["--task-module", *modules] if modules else [])], log)
        if status:
            raise StepError(f"step {name} failed; {path} ends with:\n{path.read_text()[-2000:]}")
        self.seconds[name] = time.time() - began
        with atomic_path(self.file) as temporary:
            temporary.write_text(json.dumps(self.seconds, indent=2) + "\n")
        print(f"== {name}: {self.seconds[name]:.0f} s", flush=True)


def call(command: list[str], log: IO[str]) -> int:
    """Run a command, which is given time to clean up if this one is stopped; returns its exit status."""
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log)
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
        raise


def evaluation(
    args: Args, weights: Path, policy: str, noise: tuple[str, str], name: str, variant: str | None = None,
    perception: str = "truth",
) -> list[str]:  # fmt: skip
    """The command that evaluates as deployed; its JSON line ends up in the step's log."""
    return [
        "-m", "reinforcegen_envs.evaluate", "--env-id", env_id(args.task, variant or args.variant, "Residual"),
        "--policy", policy, "--weights", str(weights), "--episodes", str(args.episodes), "--seeds", str(args.seeds),
        "--pose-noise", *noise, "--perception", perception, "--csv", str(args.out / f"{name}.csv"), "--json", "--quiet",
    ]  # fmt: skip


def others(args: Args) -> list[str]:
    """The other reset ranges that the policies are to serve."""
    return [variant for variant in TASKS[args.task].variants if variant != args.variant and args.other_demos]


def in_turn(args: Args) -> list[str]:
    """Reset ranges of what is played for training, in turn: half is of the one that is asked for, the rest of the others."""
    return [name for other in others(args) for name in (args.variant, other)] or [args.variant]


def fine_tune(args: Args, steps: Steps, weights: Path, data: list[str], perception: str = "truth") -> None:
    """Residual RL stage by stage, from starts that are off and come from the tuned stages before; evaluation of the whole."""
    mark = "" if perception == "truth" else f"{perception}-"  # of the steps' names
    seeing = ["--perception", perception]
    begin = ["--variant", *in_turn(args)]
    earlier: dict[str, str] = {}
    if args.foresight and perception == "truth":
        steps.run(
            "foresight",
            ["-m", "reinforcegen_envs.agents.foresight", "--task", args.task, *begin, "--weights", str(weights),
             "--pose-noise", *NOISE],
        )  # fmt: skip
    for stage in (stage.name for stage in TASKS[args.task].stages):
        pools = {kind: str(args.out / f"{mark}pool-{stage}-{kind}.npz") for kind in ("train", "held-out")}
        for kind, count, seed in (("train", args.pool, 0), ("held-out", max(1, args.pool // 4), 500_000)):
            steps.run(
                f"{mark}pool-{stage}-{kind}",
                ["-m", "reinforcegen_envs.wrappers.fill_pool", "--task", args.task, "--stage", stage,
                 *(["--earlier-pool", earlier[kind], "--earlier-policy", "tuned"] if earlier else begin),
                 "--count", str(count), "--pose-noise", *NOISE, "--initiation", "student", "--seed", str(seed),
                 *seeing, "--weights", str(weights), "--out", pools[kind]],
            )  # fmt: skip
        steps.run(
            f"{mark}td3-{stage}",
            ["-m", "reinforcegen_envs.agents.td3_residual",
             "--env-id", env_id(args.task, args.variant, "Residual"), "--stage", stage,
             "--termination", "sustained", *seeing, "--weights", str(weights), "--pool", pools["train"],
             "--eval-pool", pools["held-out"], "--total-steps", str(args.td3_steps), "--num-threads", "1",
             "--eval-every", "20000", *(["--foresight"] if args.foresight else []),
             "--seed", str(args.seed), "--runs-dir", str(args.out), "--run-name", f"{mark}td3-{stage}"],
        )  # fmt: skip
        earlier = pools
    steps.run(
        f"{mark}termination",
        ["-m", "reinforcegen_envs.agents.termination", "--weights", str(weights), "--data", *data,
         "--pose-noise", *NOISE, *seeing],
    )  # fmt: skip
    for suffix, noise, variant in tuned_evaluations(args):
        name = f"{mark}tuned{suffix}"
        steps.run(f"evaluate-{name}", evaluation(args, weights, "tuned", noise, name, variant, perception))


def tuned_evaluations(args: Args) -> list[tuple[str, tuple[str, str], str]]:
    """What tuned policies are evaluated on: end of the result's name, start-pose noise, variant."""
    without = ("0", "0")
    own = [("", without, args.variant), ("-noise", NOISE, args.variant)]
    return own + [(f"-{variant}", without, variant) for variant in others(args)]


def with_cameras(args: Args, steps: Steps, weights: Path, data: list[str]) -> None:
    """An estimator, and residual and termination under what it makes the robot believe."""
    steps.run(
        "perceive",
        ["-m", "reinforcegen_envs.agents.perceive", "--task", args.task, "--weights", str(weights), "--variant", *in_turn(args),
         "--out", str(args.out / "perceive")],
    )  # fmt: skip
    fine_tune(args, steps, weights, data, "camera")


def main(args: Args) -> None:
    """Run all steps, print the results.

    Raises:
        InvalidArgument: unknown task or variant, or a number out of its range.
        StepError: a step failed; what it printed stands in its log.
    """
    args = checked(args)
    if args.task not in TASKS:
        raise InvalidArgument(f"unknown task {args.task!r}; choose one of {sorted(TASKS)}")
    variants = TASKS[args.task].variants
    if args.variant not in variants:
        raise InvalidArgument(f"unknown variant {args.variant!r} of {args.task}; choose one of {list(variants)}")
    check_output_folder(args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    source = [] if args.source is None else ["--source", str(args.source)]
    steps = Steps(args.out)
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
    steps.run("bc", ["-m", "reinforcegen_envs.agents.bc", "--data", *data, *source, "--out", str(weights)])
    steps.run("evaluate-base", evaluation(args, weights, "base", ("0", "0"), "base"))
    steps.run("evaluate-base-noise", evaluation(args, weights, "base", NOISE, "base-noise"))
    rows = ["base", "base-noise"]
    if args.td3_steps:
        fine_tune(args, steps, weights, data)
        rows += [f"tuned{suffix}" for suffix, _, _ in tuned_evaluations(args)]
        if args.cameras:
            with_cameras(args, steps, weights, data)
            rows += [f"camera-tuned{suffix}" for suffix, _, _ in tuned_evaluations(args)]

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
    Bundle.open(TASKS[args.task], weights).save_evaluation(results)  # goes with the weights wherever they go
    with atomic_path(args.out / "result.json") as temporary:
        temporary.write_text(json.dumps({"seconds": steps.seconds, "results": results}, indent=2) + "\n")


def command() -> None:
    """The command line."""
    cli.run(main, Args, __doc__, "--task Threading --out runs/pipeline")


if __name__ == "__main__":
    command()
