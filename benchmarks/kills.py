"""Commands that are killed at random moments, started again, and compared with runs that nobody killed.

    python benchmarks/kills.py --kills 20

Every command runs once undisturbed, at a small budget, which says what it writes and how long it takes. Then, again and again,
the older results are put in place, the command starts, and it and its workers get SIGKILL at a moment drawn from that time:
- what had been there must still be there, or what is new, whole: every file can be read, none is half written;
- the same command (with ``--resume`` for residual RL) must end well, and leave what the undisturbed run left. Residual RL draws
  new episodes when it goes on, so of it only the steps in its log are compared, and that there is a policy.
Written: the figures, and a row a kill (JSON). Exits with 1 if anything was lost.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import csv
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import tyro
from report import Figure, write_report
from safetensors.numpy import load_file
from tqdm import trange

from reinforcegen_envs.arguments import Count, CountOrZero

TASK = "Threading"
SHIPPED = Path(__file__).parents[1] / "reinforcegen_envs" / "policies" / "weights" / TASK.lower()
KEPT = 0.0, 0.95  # of the time that an undisturbed run takes: when a kill may come
Check = Callable[[Path, Path], str]


@dataclass
class Args:
    """Kill commands, and see whether anything is lost."""

    kills: Count = 20
    """how many, of all commands in turn"""
    seed: CountOrZero = 0
    """of the moments"""
    commands: tuple[str, ...] = ("collect", "generate", "clone", "tune", "perceive")
    """which commands"""


@dataclass
class Command:
    """A command that writes into the folder in which it runs.

    Args:
        words: after ``python -m``.
        needs: what must lie in the folder before.
        again: further words of the second start.
        same: says in what the results in two folders differ; "" if in nothing.
    """

    words: list[str]
    needs: Callable[[Path], None]
    same: Check
    again: tuple[str, ...] = ()


def nothing(_: Path) -> None:
    """A command that needs no files."""


def weights(folder: Path) -> None:
    """The shipped policies, to be trained further."""
    shutil.copytree(SHIPPED, folder / "weights")


def demonstrations(folder: Path) -> None:
    """A few generated demonstrations; made once."""
    kept = folder.parent / "demonstrations.hdf5"
    if not kept.is_file():
        run(
            ["reinforcegen_envs.demos.generate", "--task", TASK, "--count", "12", "--out", kept.name, "--quiet"],
            kept.parent,
        )
    shutil.copy(kept, folder / "data.hdf5")


def same_bytes(*names: str) -> Check:
    """Files are the same, byte for byte."""

    def same(one: Path, other: Path) -> str:
        return ", ".join(name for name in names if (one / name).read_bytes() != (other / name).read_bytes())

    return same


def same_tensors(pattern: str) -> Check:
    """Files of weights hold the same numbers; their cards may hold times."""

    def same(one: Path, other: Path) -> str:
        differing: list[str] = []
        names = sorted(str(path.relative_to(one)) for path in one.glob(pattern))
        for name in names:
            first, second = load_file(one / name), load_file(other / name)
            equal = first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)
            differing += [] if equal else [name]
        return ", ".join(differing) if names else f"no {pattern}"

    return same


def same_run(one: Path, other: Path) -> str:
    """A residual run has all rows of its log once, in order, and leaves a policy."""
    rows = [list(csv.DictReader((folder / "runs" / "run" / "progress.csv").open())) for folder in (one, other)]
    steps = [[int(row["step"]) for row in table] for table in rows]
    if steps[0] != steps[1]:
        return f"steps {steps[1]} in progress.csv instead of {steps[0]}"
    load_file(other / "runs" / "run" / "actor.safetensors")
    return ""


COMMANDS = {
    "collect": Command(
        ["reinforcegen_envs.demos.collect", "--task", TASK, "--count", "3", "--out", "out.hdf5", "--quiet"],
        nothing, same_bytes("out.hdf5")
    ),
    "generate": Command(
        ["reinforcegen_envs.demos.generate", "--task", TASK, "--count", "60", "--out", "out.hdf5", "--quiet"],
        nothing, same_bytes("out.hdf5")
    ),
    "clone": Command(
        ["reinforcegen_envs.agents.bc", "--data", "data.hdf5", "--steps", "600", "--out", "weights", "--quiet"],
        demonstrations, same_tensors("weights/*.safetensors"),
    ),
    "tune": Command(
        ["reinforcegen_envs.agents.td3_residual", "--env-id", f"ReinforceGen/D2-{TASK}-Residual-Insert-v0",
         "--weights", "weights", "--total-steps", "6000", "--checkpoint-every", "1000", "--eval-every", "3000",
         "--eval-episodes", "10", "--final-episodes", "10",
         "--run-name", "run", "--quiet"],
        weights, same_run, ("--resume",),
    ),
    "perceive": Command(
        ["reinforcegen_envs.agents.perceive", "--task", TASK, "--weights", "weights", "--out", "run", "--episodes", "2",
         "--own-episodes", "2", "--frames", "400", "--passes", "2", "--batch-size", "32",
         "--warm-start", "--learning-rate", "1e-5", "--quiet"],
        weights, same_tensors("weights/estimator.safetensors"),
    ),
}  # fmt: skip


def start(words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a command in a folder, in a process group of its own."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    with open(folder / "log.txt", "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *words], cwd=folder, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip


def run(words: list[str], folder: Path) -> str:
    """Run a command; returns the end of what it printed if it failed, else ""."""
    failed = start(words, folder).wait()
    return (folder / "log.txt").read_text()[-1000:] if failed else ""


def broken(folder: Path) -> list[str]:
    """Files of results that cannot be read."""
    found: list[str] = []
    for path in sorted(folder.rglob("*")):
        if any(part.endswith(".parts") for part in path.relative_to(folder).parts) or path.name.startswith("."):
            continue  # what is under way, by its name
        try:
            if path.suffix == ".hdf5":
                with h5py.File(path) as file:
                    len(file["data"])  # pyright: ignore[reportArgumentType]
            elif path.suffix == ".safetensors":
                load_file(path)
            elif path.suffix == ".npz":
                with np.load(path) as file:
                    [file[name] for name in file.files]
        except Exception as error:  # each library has classes of its own
            found.append(f"{path.name}: {type(error).__name__} {error}")
    return found


def kill(command: Command, reference: Path, seconds: float, rng: np.random.Generator) -> tuple[float, str] | None:
    """Run a command, kill it, run it to its end; returns when it was killed, and what was lost ("" if nothing).

    None if it had come to its end before it could be killed.
    """
    folder = Path(tempfile.mkdtemp(dir=reference.parent))
    command.needs(folder)
    older = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    process, moment = start(command.words, folder), float(rng.uniform(*KEPT)) * seconds
    time.sleep(moment)
    if process.poll() is not None:
        shutil.rmtree(folder)
        return None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    lost = broken(folder) + [f"{path.name} is gone" for path in older if not path.is_file()]
    again = command.again
    if again and not (folder / "runs" / "run" / "checkpoint.pt").is_file():
        again = ()  # nothing was reached to go on from
    failure = run([*command.words, *again], folder)
    lost += [f"it does not go on: {failure}"] if failure else []
    if not lost and (difference := command.same(reference, folder)):
        lost.append(f"differs: {difference}")
    shutil.rmtree(folder)
    return moment, "; ".join(lost)


def main(args: Args) -> None:
    """Kill them in turn, write the table."""
    root = Path(tempfile.mkdtemp(prefix="kills-"))
    rng = np.random.default_rng(args.seed)
    undisturbed: dict[str, tuple[Path, float]] = {}
    for name in args.commands:
        for attempt in ("cold", "warm"):  # compiled code is kept; what counts is how long the second run takes
            folder = root / f"{name}-{attempt}"
            folder.mkdir()
            COMMANDS[name].needs(folder)
            began = time.monotonic()
            if failure := run(COMMANDS[name].words, folder):
                raise SystemExit(f"{name} fails undisturbed: {failure}")
            undisturbed[name] = folder, time.monotonic() - began
        print(f"{name}: {undisturbed[name][1]:.0f} s undisturbed", flush=True)
    table: list[dict[str, object]] = []
    for i in trange(args.kills, unit="kill"):
        name = args.commands[i % len(args.commands)]
        folder, seconds = undisturbed[name]
        while (killed := kill(COMMANDS[name], folder, seconds, rng)) is None:
            seconds *= 0.8  # the machine was busier before
        moment, lost = killed
        table.append({"command": name, "killed_after_s": round(moment, 2), "of_s": round(seconds, 2), "lost": lost})
        if lost:
            print(f"{name} after {moment:.1f} s: {lost}", flush=True)
    losses = sum(bool(row["lost"]) for row in table)
    figures = [
        Figure("kills", len(table), "", ">= 20"),
        Figure("kills after which something was lost", losses, "", "<= 0"),
    ]
    write_report("kills", figures, rows=table)
    shutil.rmtree(root)
    if losses:
        raise SystemExit(1)


if __name__ == "__main__":
    main(tyro.cli(Args))
