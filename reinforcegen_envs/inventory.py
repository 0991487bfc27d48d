"""List what there is: tasks, stages, ids, and weights with what is known of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reinforcegen_envs import cli
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.ids import MODES, STAGE_MODES, env_id, stage_word
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.mlp import WeightsError
from reinforcegen_envs.tasks import TASKS, Task

PLAIN = "plain"  # what the mode without a name is called here


@dataclass
class Args:
    """List tasks with their stages and ids, and the weights there are with their recorded success."""

    task: str | None = None
    """name of a task; default: all"""
    weights: Path | None = None
    """folder of weights of that task; default: the shipped ones"""
    json: bool = False
    """print everything as JSON in one line"""


def describe(task: type[Task], weights: Path | None = None) -> dict[str, Any]:
    """What there is of one task.

    Returns:
        variants, stages, horizon (control steps), ids (mode -> one a variant), stage_ids (mode -> stage -> one a
            variant), weights (name of a part ->
            what was evaluated -> success, interval, episodes).

    Raises:
        WeightsError: damaged weights, or none in a folder that was named.
    """
    try:
        bundle = Bundle.open(task, weights)
    except WeightsError:
        if weights is not None:
            raise
        parts = []  # none are shipped
    else:
        parts = bundle.list()
    return {
        "variants": list(task.variants),
        "stages": [stage.name for stage in task.stages],
        "horizon": task.horizon,
        "ids": {mode or PLAIN: [env_id(task.name, variant, mode) for variant in task.variants] for mode in MODES},
        "stage_ids": {
            mode: {
                stage.name: [env_id(task.name, variant, mode, stage.name) for variant in task.variants]
                for stage in task.stages
            }
            for mode in STAGE_MODES
        },
        "weights": {
            part.name: {
                setting: {key: result[key] for key in ("success", "interval", "episodes") if key in result}
                for setting, result in part.results.items()
            }
            for part in parts
        },
    }


def main(args: Args) -> dict[str, Any]:
    """Print the list; returns it.

    Raises:
        InvalidArgument: unknown task, or weights without a task.
    """
    if args.task is not None and args.task not in TASKS:
        raise InvalidArgument(f"unknown task {args.task!r}; choose one of {sorted(TASKS)}")
    if args.weights is not None and args.task is None:
        raise InvalidArgument("weights are one task's; name it with --task")
    names = list(TASKS) if args.task is None else [args.task]
    found = {name: describe(TASKS[name], args.weights) for name in names}
    if args.json:
        print(json.dumps(found))
        return found
    for name, task in found.items():
        print(
            f"{name}: {', '.join(task['variants'])}; {task['horizon']} control steps; stages {' > '.join(task['stages'])}"
        )
        variants = "{" + ",".join(task["variants"]) + "}"
        for mode in MODES:
            print(f"  {mode or PLAIN:<8} {env_id(name, variants, mode)}")
        stages = "{" + ",".join(map(stage_word, task["stages"])) + "}"
        for mode in STAGE_MODES:  # the braces are no words of an id, so they are put in afterwards
            print(f"  {mode:<8} {env_id(name, variants, mode, 'STAGE').replace('STAGE', stages)}")
        print(
            f"  weights  {', '.join(task['weights']) or 'none; train some (reinforcegen pipeline), or name a folder'}"
        )
        for part, results in task["weights"].items():
            for setting, result in results.items():
                if "interval" in result:
                    low, high = result["interval"]
                    where = setting if part == "evaluation" else f"{part}, {setting}"
                    print(f"    {where:<38} {result['success']:.3f} [{low:.3f}, {high:.3f}]")
    return found


def command() -> None:
    """The command line."""
    cli.run(main, Args, example="--task Threading")


if __name__ == "__main__":
    command()
