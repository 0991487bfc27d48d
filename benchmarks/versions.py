"""Success of the base policies under other versions of MuJoCo than the one that their weights were made with.

    python benchmarks/versions.py

Every version is installed into a folder of its own and put in front of the one that is installed; every cell is a command that
is printed. Finished cells are kept in ``--out``, and not run again.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from report import Figure, write_report

from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.tasks import TASKS

MADE_WITH = "3.9.0"
ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Args:
    """Evaluate base policies under several versions of MuJoCo."""

    versions: tuple[str, ...] = ("3.4.0", "3.6.0", "3.9.0", "3.11.0", "3.12.0", "3.17.0")
    """versions of MuJoCo"""
    tasks: tuple[str, ...] = ("Threading", "Coffee")
    """names of tasks, played on D2"""
    episodes: int = 100
    """episodes a cell, the same ones under every version"""
    out: Path = Path("runs/versions")
    """folder for the versions and the finished cells"""


def cell(args: Args, task: str, version: str) -> dict:
    """One evaluation, run now or kept from before."""
    file = args.out / f"{task}-{version}.json"
    if not file.is_file():
        folder = args.out / version
        if not folder.is_dir():
            install = ["pip", "install", "--quiet", "--no-deps", "--target", str(folder), f"mujoco=={version}"]
            subprocess.run([sys.executable, "-m", *install], check=True)
        command = [
            *(
                "-m",
                "reinforcegen_envs.evaluate",
                "--env-id",
                f"ReinforceGen/D2-{task}-Residual-v0",
                "--policy",
                "base",
            ),
            *("--episodes", str(args.episodes), "--seeds", "1", "--json", "--quiet"),
        ]
        paths = f"{folder.resolve()}:{ROOT}"
        print(f"PYTHONPATH={paths} python {shlex.join(command)}", flush=True)
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        run = subprocess.run([sys.executable, *command], env=environment, stdout=subprocess.PIPE, text=True, check=True)
        with atomic_path(file) as temporary:
            temporary.write_text(run.stdout.strip().splitlines()[-1] + "\n")
    return json.loads(file.read_text())


def main(args: Args) -> None:
    """Run all cells, write the table."""
    unknown = set(args.tasks) - set(TASKS)
    if unknown:
        raise SystemExit(f"unknown tasks {sorted(unknown)}; choose from {sorted(TASKS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    figures = []
    for task in args.tasks:
        made_with = cell(args, task, MADE_WITH)["success"]
        for version in args.versions:
            result = cell(args, task, version)
            interval = "[{:.3f}, {:.3f}]".format(*result["interval"])
            figures.append(
                Figure(f"{task}, MuJoCo {version}", result["success"], "", f">= {made_with - 0.03:.2f}", interval)
            )  # fmt: skip
    write_report("versions", figures)


if __name__ == "__main__":
    main(tyro.cli(Args))
