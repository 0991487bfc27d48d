"""Writes RESULTS.md and reproduce.sh from the tables in results/.

    python benchmarks/write_results.py
    python benchmarks/write_results.py --check        # fails when they are not what the tables give
    python benchmarks/write_results.py --record runs/square --task Square    # what a pipeline's training took

A cell of the tables is a file ``evaluate_TASK_VARIANT_METHOD-METRES.csv`` of ``reinforcegen_envs.evaluate``, with a line an
episode; METRES is the noise on initiation poses, with 3 degrees for every centimetre.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from report import RESULTS

from reinforcegen_envs import cli
from reinforcegen_envs.arguments import Count, checked
from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.registration import VARIANTS, env_id
from reinforcegen_envs.statistics import wilson_interval
from reinforcegen_envs.tasks import TASKS

HERE = Path(__file__).parent
WRITE = "python benchmarks/write_results.py"
METHODS = {
    "base": "imitation", "tuned": "+ residual TD3", "ppo": "+ residual PPO", "camera": "tuned, from cameras",
    "basecamera": "imitation, from cameras", "baseretry": "imitation, with retries", "retry": "tuned, with retries",
    "cameraretry": "tuned, from cameras, with retries",
    "camerarandomretry": "from cameras that see random colours and lights, with retries",
}  # fmt: skip
RETRIES = 5  # about as many as the horizons leave room for
PPO_WEIGHTS = "runs/ppo/{task}/weights"
ROUND = 100  # episodes of an evaluation seed
RADIANS = math.radians(3.0) / 0.01  # of noise, a metre of it

# Success in per cent as published, of visuomotor policies from human demonstrations, best checkpoint: not the same setting.
# MimicGen (CoRL 2023): BC-RNN, images, 1000 demonstrations. SkillMimicGen (CoRL 2024): best hybrid variant.
MIMICGEN = {
    ("Threading", "D0"): 98.0, ("Threading", "D1"): 60.7, ("Threading", "D2"): 38.0,
    ("Square", "D0"): 90.7, ("Square", "D1"): 73.3, ("Square", "D2"): 49.3,
    ("NutAssembly", "D0"): 53.3,
    ("Coffee", "D0"): 100.0, ("Coffee", "D1"): 90.7, ("Coffee", "D2"): 77.3,
    ("ThreePieceAssembly", "D0"): 82.0, ("ThreePieceAssembly", "D1"): 62.7, ("ThreePieceAssembly", "D2"): 13.3,
    ("CoffeePreparation", "D0"): 97.3, ("CoffeePreparation", "D1"): 42.0,
}  # fmt: skip
SKILLGEN = {
    ("Square", "D2"): 94.0, ("Coffee", "D2"): 100.0, ("ThreePieceAssembly", "D2"): 84.0,
    ("NutAssembly", "D1"): 78.0, ("CoffeePreparation", "D2"): 84.0,
}  # fmt: skip
REINFORCEGEN = 80.0  # "on all tasks", D2
OUR_RANGES = {("NutAssembly", "D1"), ("NutAssembly", "D2"), ("CoffeePreparation", "D2")}

OTHERS = (
    ("Experiments of the paper", [
        "python benchmarks/paper/pose_noise.py",
        "python benchmarks/paper/replanning.py",
        "python benchmarks/paper/full_rl.py",
        'python benchmarks/paper/ablation.py --imitation "runs/{task}/imitation" --foresight "runs/{task}/foresight"',
        "python benchmarks/paper/transfer.py",
    ]),
    ("Everything else in results/", [
        "python benchmarks/pose_errors.py",
        "python benchmarks/planner.py",
        "python benchmarks/reach.py",
        "python benchmarks/strict_implies_reference.py",
        "python benchmarks/batch_policy.py",
        "python benchmarks/speed.py",
        "python benchmarks/speed_tasks.py",
    ]),
)  # fmt: skip


INTRODUCTION = f"""\
<!-- Written by `{WRITE}` from the tables in results/. Do not edit. -->
# Results

Whole tasks as deployed from state: learned initiation and termination, the objects' poses the only simulator truth, and, where
a row says "from cameras", not even these but what the shipped estimator sees in two pictures of 84 x 84 pixels. Last
checkpoint, evaluation seeds from 1,000,000 that neither training nor any choice has seen, every draw counted, those out of reach
too. Not quite unseen: some rules of beliefs from cameras and of retries were made after failures among these seeds.
"With retries": a skill that takes too long, rests, has lost what it carried or ended in vain is begun again, within the
task's horizon. Strict success with Wilson's 95% interval; "reference" is MimicGen's check, passed at any step.
Control steps and core-minutes are those of training: with generation of demonstrations, without evaluations.
Every row's command is a line of [reproduce.sh](reproduce.sh), its episodes are
a file in [results/](results/README.md), where all other numbers are.

## D2 beside what is published

Figures marked * are *not the same setting*: visuomotor policies from human demonstrations, best of several checkpoints.
MimicGen: BC-RNN on 1000 demonstrations. SkillMimicGen: the best of its hybrid variants. ReinforceGen: 80% stated for all tasks,
and a relative gain of tuning of 89%. † Nobody's code of this reset range is public; it is our own, and layouts differ too."""

REPRODUCE = f"""\
#!/usr/bin/env bash
# Written by `{WRITE}` from the tables in results/. Do not edit.
# One line a cell of RESULTS.md: run one of them, or all, from the root of the checkout. On the same machine every seed ends as
# it did; another processor rounds differently, and an episode or two of a hundred may end otherwise.
set -euo pipefail
export OMP_NUM_THREADS=1"""


class StaleResults(ReinforceGenError, RuntimeError):
    """What was written is not what the tables give."""


@dataclass
class Args:
    """Write RESULTS.md and reproduce.sh from the tables."""

    check: bool = False
    """write nothing, and fail if they are not what the tables give"""
    record: Path | None = None
    """folder of a pipeline whose training is to be noted in training.csv; a method's row takes the place of the one before"""
    task: str | None = None
    """whose pipeline that is"""
    method: str = "tuned"
    """what it trained: "tuned" or "ppo" """
    cores: Count = 2
    """cores of the machine, if the pipeline's timing holds wall clock alone"""


@dataclass(frozen=True)
class Evaluation:
    """One cell: what was evaluated, and its episodes as lines of its file."""

    task: str
    variant: str
    method: str
    metres: float
    path: Path
    lines: list[dict[str, str]]

    @classmethod
    def of(cls, path: Path) -> Evaluation:
        """Read a file.

        Raises:
            InvalidArgument: its name does not say what it is.
        """
        match = re.fullmatch(r"evaluate_([a-z]+)_(d\d)_([a-z]+)-([\d.]+)\.csv", path.name)
        names = {task.lower(): task for task in TASKS}
        if match is None or match[1] not in names or match[2].upper() not in VARIANTS or match[3] not in METHODS:
            raise InvalidArgument(
                f"{path.name}: name it evaluate_TASK_VARIANT_METHOD-METRES.csv, METHOD one of {sorted(METHODS)}"
            )
        with open(path, newline="") as file:
            lines = list(csv.DictReader(file))
        return cls(names[match[1]], match[2].upper(), match[3], float(match[4]), path, lines)

    @property
    def successes(self) -> int:
        """Episodes of strict success."""
        return sum(line["success"] == "True" for line in self.lines)

    @property
    def reference(self) -> float:
        """Part of the episodes that pass the literature's check."""
        return sum(line["reference_success"] == "True" for line in self.lines) / len(self.lines)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, 95%."""
        return wilson_interval(self.successes, len(self.lines))

    @property
    def failures(self) -> Counter[str]:
        """Where episodes failed."""
        return Counter(line["failure"] or "truncated" for line in self.lines if line["success"] != "True")

    @property
    def policy(self) -> str:
        """As `evaluate` calls it."""
        return "base" if self.method.startswith("base") else "tuned"

    @property
    def from_cameras(self) -> bool:
        """Whether objects' poses were estimated."""
        return "camera" in self.method

    @property
    def randomised(self) -> bool:
        """Whether every episode looked different to the cameras."""
        return "random" in self.method

    @property
    def retries(self) -> int:
        """How often a skill was begun again at most."""
        return RETRIES if self.method.endswith("retry") else 0

    @property
    def command(self) -> str:
        """What makes the file."""
        words = ["python -m reinforcegen_envs.evaluate --env-id", env_id(self.task, self.variant, "Residual")]
        words += ["--policy", self.policy]
        if self.from_cameras:
            words += ["--perception camera"]
        if self.randomised:
            words += ["--randomize-visuals"]
        if self.retries:
            words += [f"--retries {self.retries}"]
        if self.method == "ppo":
            words += ["--weights", PPO_WEIGHTS.format(task=self.task.lower())]
        seeds, rest = divmod(len(self.lines), ROUND)
        episodes, seeds = (len(self.lines), 1) if rest else (ROUND, seeds)
        words += [f"--episodes {episodes} --seeds {seeds}"]
        if self.metres:
            words += [f"--pose-noise {self.metres:g} {self.metres * RADIANS:.6g}"]
        return " ".join([*words, "--csv", f"benchmarks/results/{self.path.name}"])


def evaluations() -> list[Evaluation]:
    """All cells, in the order of the tables."""
    found = [Evaluation.of(path) for path in RESULTS.glob("evaluate_*.csv")]
    tasks, methods = list(TASKS), list(METHODS)
    return sorted(found, key=lambda e: (e.metres, tasks.index(e.task), e.variant, methods.index(e.method)))


def training() -> dict[tuple[str, str], dict[str, str]]:
    """(task, method) -> a line of training.csv."""
    path = RESULTS / "training.csv"
    if not path.is_file():
        return {}
    with open(path, newline="") as file:
        return {(line["task"], line["method"]): line for line in csv.DictReader(file)}


def rate(cell: Evaluation) -> str:
    """Strict success with its interval."""
    low, high = cell.interval
    return f"{cell.successes / len(cell.lines):.3f} [{low:.3f}, {high:.3f}]"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return ["", *(f"| {' | '.join(line)} |" for line in lines), ""]


def published(figures: dict[tuple[str, str], float], task: str, variant: str) -> str:
    """A published figure, or a dash; our own reset ranges are no others'."""
    figure = figures.get((task, variant))
    mark = "†" if (task, variant) in OUR_RANGES else ""
    return "–" if figure is None else f"{figure / 100:.3f}{mark}"


def results() -> str:
    """RESULTS.md."""
    cells = evaluations()
    trained = training()
    lines = [INTRODUCTION]
    planned = {(c.task, c.variant, c.method): c for c in cells if not c.metres}
    methods = [method for method in METHODS if any((task, "D2", method) in planned for task in TASKS)]
    rows = []
    for task in TASKS:
        own = [planned.get((task, "D2", method)) for method in methods]
        mark = "†" if (task, "D2") in OUR_RANGES else ""
        rows.append(
            [
                task,
                *("–" if cell is None else rate(cell) for cell in own),
                published(MIMICGEN, task, "D2"),
                published(SKILLGEN, task, "D2"),
                f"{REINFORCEGEN / 100:.2f}{mark}",
            ]
        )
    means = [[c for task in TASKS if (c := planned.get((task, "D2", method))) is not None] for method in methods]
    mean = [
        f"{sum(c.successes / len(c.lines) for c in found) / len(found):.3f}" if len(found) == len(TASKS) else "–"
        for found in means
    ]
    rows.append(["mean", *mean, "", "", ""])
    lines += table(
        ["task", *(METHODS[method] for method in methods), "MimicGen*", "SkillMimicGen*", "ReinforceGen*"], rows
    )
    for metres in sorted({cell.metres for cell in cells}):
        here = [cell for cell in cells if cell.metres == metres]
        if metres:
            lines += [f"## Starts off by {100 * metres:g} cm and {300 * metres:g} degrees per axis"]
        else:
            lines += ["## Starts as planned"]
        rows = []
        for cell in here:
            line = trained.get((cell.task, cell.method), {})
            rows.append(
                [
                    cell.task,
                    cell.variant,
                    METHODS[cell.method],
                    rate(cell),
                    f"{cell.reference:.3f}",
                    str(len(cell.lines)),
                    f"{int(line['control_steps']):,}" if line else ("0" if cell.policy == "base" else "–"),
                    line.get("core_minutes", "–"),
                ]
            )
        head = ["task", "variant", "method", "strict", "reference", "episodes", "control steps", "core-minutes"]
        lines += table(head, rows)
    lines += ["## Where episodes fail", "", "Starts as planned, D2."]
    rows = []
    for (task, variant, method), cell in planned.items():
        if variant == "D2":
            failures = "; ".join(f"{name} ({count})" for name, count in cell.failures.most_common())
            rows.append(
                [task, METHODS[method], f"{len(cell.lines) - cell.successes}/{len(cell.lines)}", failures or "–"]
            )
    lines += table(["task", "method", "failed", "stage: reason (episodes)"], rows)
    return "\n".join(lines).rstrip() + "\n"


def reproduce() -> str:
    """reproduce.sh."""
    lines = [REPRODUCE]
    for metres in sorted({cell.metres for cell in evaluations()}):
        lines += ["", "# Starts as planned" if not metres else f"# Starts off by {100 * metres:g} cm"]
        lines += [cell.command for cell in evaluations() if cell.metres == metres]
    for title, commands in OTHERS:
        lines += ["", f"# {title}", *commands]
    lines += ["", f"{WRITE} # RESULTS.md and this file"]
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """File -> what it should hold."""
    return {HERE / "RESULTS.md": results(), HERE / "reproduce.sh": reproduce()}


def stale() -> list[str]:
    """Names of files that do not hold what the tables give."""
    return [path.name for path, text in pages().items() if not path.is_file() or path.read_text() != text]


def record(args: Args) -> None:
    """Note in training.csv what a pipeline's training took.

    Raises:
        InvalidArgument: no task is named, or the folder is no pipeline's.
    """
    assert args.record is not None
    if args.task not in TASKS or args.method not in METHODS:
        raise InvalidArgument(f"record needs --task, one of {sorted(TASKS)}, and --method, one of {sorted(METHODS)}")
    timing = args.record / "timing.json"
    if not timing.is_file():
        raise InvalidArgument(f"{timing} is not there; name the --out folder of a pipeline")
    seconds = {name: s for name, s in json.loads(timing.read_text()).items() if not name.startswith("evaluate")}
    cpu = args.record / "cpu.json"  # processor seconds of the steps, where the pipeline noted them
    spent = json.loads(cpu.read_text()) if cpu.is_file() else {}
    core = {name: spent.get(name, s * args.cores) for name, s in seconds.items()}
    imitation = sum(s for name, s in core.items() if name.startswith(("generate", "bc")))
    residuals = Bundle.open(TASKS[args.task], args.record / "weights").residual_files()
    steps = sum(int(json.loads(path.with_suffix(".json").read_text())["steps"]) for path in residuals)
    lines = training()
    for method, control_steps, minutes in (("base", 0, imitation), (args.method, steps, sum(core.values()))):
        line = {
            "task": args.task,
            "method": method,
            "control_steps": control_steps,
            "core_minutes": f"{minutes / 60:.0f}",
        }
        lines[args.task, method] = {name: str(value) for name, value in line.items()}
    with atomic_path(RESULTS / "training.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, ["task", "method", "control_steps", "core_minutes"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines[key] for key in sorted(lines))


def main(args: Args) -> None:
    """Write, or check, both files.

    Raises:
        StaleResults: asked to check, and they are not what the tables give.
        InvalidArgument: a table with another name, or nothing to record.
    """
    args = checked(args)
    if args.record is not None:
        record(args)
    if args.check:
        if names := stale():
            raise StaleResults(f"not what the tables give: {', '.join(names)}; run {WRITE}")
        return
    for path, text in pages().items():
        with atomic_path(path) as temporary:
            temporary.write_text(text)
        print(f"written: {path}")
    os.chmod(HERE / "reproduce.sh", 0o755)


if __name__ == "__main__":
    cli.run(main, Args)
