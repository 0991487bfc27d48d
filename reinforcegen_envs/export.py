"""Copy a task's weights into a folder with a model card, ready for the Hugging Face hub; nothing is uploaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reinforcegen_envs import cli
from reinforcegen_envs.arguments import checked
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.model_card import export
from reinforcegen_envs.tasks import TASKS


@dataclass
class Args:
    """Copy a task's weights into a folder with a model card, for the Hugging Face hub. Nothing is uploaded."""

    task: str = "Threading"
    """task name"""
    out: Path = Path("export")
    """folder to write: new, empty, or an earlier export"""
    weights: Path | None = None
    """folder of weights; default: the shipped one"""
    title: str = ""
    """heading of the model card; default: the task's name"""
    license: str = ""
    """the hub's short name of a licence, e.g. apache-2.0; default: mit for the shipped weights, none for others"""


def main(args: Args) -> Path:
    """Export, and say where to; returns the folder.

    Raises:
        InvalidArgument: unknown task, or a folder that cannot be used.
        WeightsError: unusable weights.
    """
    args = checked(args)
    if args.task not in TASKS:
        raise InvalidArgument(f"unknown task {args.task!r}; choose one of {sorted(TASKS)}")
    folder = export(Bundle.open(TASKS[args.task], args.weights), args.out, args.title, args.license)
    print(f"written: {folder}; upload it with: hf upload NAME/REPOSITORY {folder}")
    return folder


def command() -> None:
    """The command line."""
    cli.run(main, Args, example="--task Threading --out threading")


if __name__ == "__main__":
    command()
