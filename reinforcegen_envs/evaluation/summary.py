"""Many episodes in a few numbers."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.evaluation.play import Episode
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.statistics import wilson_interval


def summarise(episodes: Sequence[Episode], stage_names: Sequence[str], seeds: int = 1) -> dict[str, Any]:
    """Success of all and by seed, stage by stage, and where episodes failed.

    Args:
        episodes: those of the first seed first; as many of each.
        stage_names: of the task.
        seeds: number of evaluation seeds.

    Returns:
        success, interval (95%, Wilson, strict), reference_success, episodes, per_seed, stages (name -> success given that it
        was entered, with counts), failures (count by place and reason), control_steps (mean), retries (of all episodes).
    """
    successes = np.array([e.success for e in episodes])
    stages = {}
    for index, name in enumerate(stage_names):
        entered = sum(e.entered[index] for e in episodes)
        finished = sum(e.finished[index] for e in episodes)
        stages[name] = {
            "success": finished / max(entered, 1),
            "interval": wilson_interval(finished, entered),
            "entered": entered,
            "finished": finished,
        }
    return {
        "success": int(successes.sum()) / len(episodes),
        "interval": wilson_interval(int(successes.sum()), len(episodes)),
        "reference_success": sum(e.reference_success for e in episodes) / len(episodes),
        "episodes": len(episodes),
        "per_seed": successes.reshape(seeds, -1).mean(axis=1).tolist(),
        "stages": stages,
        "failures": dict(Counter(e.failure for e in episodes if not e.success).most_common()),
        "control_steps": float(np.mean([e.control_steps for e in episodes])),
        "retries": sum(e.retries for e in episodes),
    }


def report(title: str, summary: dict[str, Any]) -> str:
    """The summary as lines to read."""
    low, high = summary["interval"]
    lines = [
        title,
        f"  success (strict)    {summary['success']:.3f}  [{low:.3f}, {high:.3f}]",
        f"  success (reference) {summary['reference_success']:.3f}",
        "  by seed             " + "  ".join(f"{rate:.2f}" for rate in summary["per_seed"]),
    ]
    for name, stage in summary["stages"].items():
        low, high = stage["interval"]
        lines.append(
            f"  stage {name:<13} {stage['success']:.3f}  [{low:.3f}, {high:.3f}]  of {stage['entered']} entered"
        )
    if summary["retries"]:
        lines.append(f"  skills begun again  {summary['retries']}")
    lines += [f"  failed: {failure:<40} {count}" for failure, count in summary["failures"].items()]
    return "\n".join(lines)


def write_csv(path: str | os.PathLike[str], episodes: Sequence[Episode]) -> None:
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


def read_csv(path: str | os.PathLike[str]) -> list[Episode]:
    """The episodes of a table that `write_csv` wrote.

    Raises:
        InvalidArgument: the file is no such table.
    """
    names = [field.name for field in fields(Episode)]
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and "retries" not in rows[0]:  # tables of before there were any
        rows = [{**row, "retries": "0"} for row in rows]
    if not rows or list(rows[0]) != names:
        raise InvalidArgument(f"{path} is no table of episodes; it must have the columns {', '.join(names)}")

    def value(name: str, text: str) -> Any:
        if name == "failure":
            return text
        if name in ("entered", "finished"):
            return [digit == "1" for digit in text]
        return text == "True" if name.endswith("success") else int(text)

    try:
        return [Episode(**{name: value(name, row[name]) for name in names}) for row in rows]
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{path} is damaged ({error}); evaluate again") from error
