"""The console script ``reinforcegen``: every command of the package under one name.

A command's module is imported when it is chosen: whoever lists or evaluates needs no torch.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from reinforcegen_envs.cli import SCRIPT, one_line_errors
from reinforcegen_envs.errors import InvalidArgument

# Name -> module, whose ``command()`` is called, and what it does.
COMMANDS = {
    "list": ("reinforcegen_envs.inventory", "tasks, stages, ids, and which weights there are"),
    "doctor": ("reinforcegen_envs.doctor", "whether this machine has what it takes, and what to do if not"),
    "collect": ("reinforcegen_envs.demos.collect", "source demonstrations, by the scripted operator"),
    "generate": ("reinforcegen_envs.demos.generate", "demonstrations from source demonstrations"),
    "clone": ("reinforcegen_envs.agents.bc", "base policies and predictors from demonstrations"),
    "merge": ("reinforcegen_envs.merge", "shards of generate or evaluate, made on many machines, into one file"),
    "pool": ("reinforcegen_envs.wrappers.fill_pool", "start states of one stage's skill"),
    "tune": ("", "a residual policy by reinforcement learning (--algorithm td3 or ppo; drqv2 from pixels)"),
    "distill": (
        "reinforcegen_envs.agents.dagger",
        "a skill's policy that acts on pictures alone, by DAgger: the direct route",
    ),
    "termination": ("reinforcegen_envs.agents.termination", "termination predictors again, on what policies do"),
    "foresight": ("reinforcegen_envs.agents.foresight", "how likely later stages succeed, for tune --foresight"),
    "perceive": ("reinforcegen_envs.agents.perceive", "an estimator that tells from two cameras where objects are"),
    "measure": (
        "reinforcegen_envs.agents.measure",
        "how wrong an estimator is, and a model of its errors to train under",
    ),
    "evaluate": ("reinforcegen_envs.evaluation.command", "a policy's success, with its interval"),
    "submit": ("reinforcegen_envs.evaluation.submit", "the benchmark's protocol, as a submission for its board"),
    "export": ("reinforcegen_envs.export", "weights as a folder with a model card, for the Hugging Face hub"),
    "pipeline": ("reinforcegen_envs.agents.pipeline", "everything from source demonstrations to a tuned policy"),
}
ALGORITHMS = ("td3", "ppo", "drqv2")


def usage() -> str:
    """The commands, a line each."""
    lines = [f"usage: {SCRIPT} COMMAND [arguments], or {SCRIPT} COMMAND --help", "", "commands:"]
    return "\n".join(lines + [f"  {name:<12} {text}" for name, (_, text) in COMMANDS.items()])


def main() -> None:
    """Run the command that is named first on the command line.

    Raises:
        SystemExit: always after an error; 2 for an unknown command.
    """
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return
    name, rest = words[0], words[1:]
    with one_line_errors():
        if name not in COMMANDS:
            raise InvalidArgument(f"unknown command {name!r}; choose one of {', '.join(COMMANDS)}")
        module = COMMANDS[name][0]
        if name == "tune":
            algorithm, rest = _algorithm(rest)
            module = f"reinforcegen_envs.agents.{algorithm}_residual"
            name += f" --algorithm {algorithm}"
        sys.argv = [f"{SCRIPT} {name}", *rest]
        importlib.import_module(module).command()


def _algorithm(words: list[str]) -> tuple[str, list[str]]:
    """The algorithm that a command line names, and the rest of the line; before help it prints which ones there are.

    Raises:
        InvalidArgument: an unknown one.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--algorithm", nargs="?", default=ALGORITHMS[0])
    known, rest = parser.parse_known_args(words)
    if known.algorithm not in ALGORITHMS:
        raise InvalidArgument(f"unknown algorithm {known.algorithm!r}; choose one of {ALGORITHMS}")
    if {"-h", "--help"} & set(rest):
        print(f"--algorithm {{{','.join(ALGORITHMS)}}} chooses whose arguments follow (default: {ALGORITHMS[0]})\n")
    return known.algorithm, rest
