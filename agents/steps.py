"""Commands that are run one after the other, or as one graph of jobs on a Ray cluster; what is finished is not done again."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from reinforcegen_envs import ray_workers
from reinforcegen_envs.errors import ReinforceGenError
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.registration import task_modules

STOP_TIMEOUT = 1.5  # seconds
SPREAD = (
    "demos.generate",
    "evaluate",
    "agents.perceive",
)  # commands that take --ray: their work is jobs of the cluster
MANY = (
    "agents.bc",
    "agents.termination",
    "agents.foresight",
    "agents.measure",
    "wrappers.fill_pool",
)  # commands that take --workers


class StepError(ReinforceGenError, RuntimeError):
    """A step failed; the same command goes on from it."""


class Steps:
    """Runs commands, times them, and remembers which are done.

    Args:
        out: folder of their logs and times.
    """

    def __init__(self, out: Path):
        self.out = out
        self.file, self._commands_file = out / "timing.json", out / "commands.json"
        self.seconds: dict[str, float] = json.loads(self.file.read_text()) if self.file.is_file() else {}
        known = self._commands_file
        self._commands: dict[str, list[str]] = json.loads(known.read_text()) if known.is_file() else {}

    def run(self, name: str, command: list[str], after: Sequence[str] = ()) -> None:
        """Run a command, unless it was.

        Args:
            name: of the step.
            command: words after ``python``.
            after: steps that it needs, which were run before.

        Raises:
            StepError: it failed, or was done with other words.
        """
        if self._known(name, command):
            return
        print(f"== {name}: {shlex.join(['python', *command])}", flush=True)
        outcome = perform(command, str(self.out / f"{name}.log"), task_modules())
        if isinstance(outcome, str):
            raise StepError(f"step {name} failed; {outcome}")
        self.done(name, outcome)

    def done(self, name: str, seconds: float) -> None:
        """Remember that a step is finished."""
        self.seconds[name] = seconds
        for file, content in ((self._commands_file, self._commands), (self.file, self.seconds)):
            with atomic_path(file) as temporary:
                temporary.write_text(json.dumps(content, indent=2) + "\n")
        print(f"== {name}: {seconds:.0f} s", flush=True)

    def _known(self, name: str, command: Sequence[str]) -> bool:
        """Whether a step is done; notes its words if not."""
        out = self.out.absolute()
        words = []
        for word in command:  # a folder may be moved, and named from elsewhere
            path = Path(word).absolute()
            words.append(str(Path("{out}") / path.relative_to(out)) if path.is_relative_to(out) else word)
        if name not in self.seconds:
            self._commands[name] = words
            return False
        if (before := self._commands.get(name, words)) != words:  # folders of before hold no words
            raise StepError(
                f"step {name} in {self.out} was done with other settings:\n  {shlex.join(before)}\nand is asked for with\n"
                f"  {shlex.join(words)}\nname another folder for these, or leave the settings as they were"
            )
        print(f"== {name}: done before, {self.seconds[name]:.0f} s", flush=True)
        return True


class Cluster:
    """A Ray cluster on which steps of several tasks run, each as soon as those are done that it needs; a context manager.

    Commands whose work can be cut make it jobs of the same cluster; each other command is a job that asks for ``cpus``.

    Args:
        address: as `ray_workers.RayWorkers` has it.
        cpus: processes of a command whose work stays on one node.

    Raises:
        MissingPackage: Ray is not installed; from ``with``, as the next.
        InvalidArgument: no cluster answers at the address.
    """

    def __init__(self, address: str, cpus: int = 1):
        self._address, self._cpus = address, cpus
        self._under_way: dict[Any, tuple[ClusterSteps, str]] = {}  # reference -> whose step it is

    def __enter__(self) -> Cluster:
        self._ray, self._own = ray_workers.connect(self._address)
        self._task = self._ray.remote(max_retries=ray_workers.RETRIES)(_step)
        return self

    def __exit__(self, *_: object) -> None:
        for reference in self._under_way:
            with contextlib.suppress(Exception):
                self._ray.cancel(reference)  # interrupts it: its command may clean up
        if self._under_way:
            self._ray.wait(list(self._under_way), num_returns=len(self._under_way), timeout=2 * STOP_TIMEOUT)
        if self._own:
            self._ray.shutdown()

    def steps(self, out: Path) -> ClusterSteps:
        """Steps with logs in a folder."""
        return ClusterSteps(out, self)

    def submit(self, steps: ClusterSteps, name: str, command: list[str], before: Sequence[Any]) -> Any:
        """Let the cluster run a command when the references in ``before`` are there; returns its own reference."""
        kind = command[1].removeprefix("reinforcegen_envs.")
        cpus = 0 if kind in SPREAD else self._cpus  # what only hands out jobs takes nobody's place
        words = ["--ray", self._ray.get_runtime_context().gcs_address] if kind in SPREAD else []
        words += ["--workers", str(cpus)] if kind in MANY else []
        place = os.getcwd(), ray_workers.versions(), task_modules()
        reference = self._task.options(num_cpus=cpus).remote(
            [*command, *words], str(steps.out / f"{name}.log"), place, *before
        )
        self._under_way[reference] = steps, name
        return reference

    def wait(self) -> None:
        """Return when all steps are done.

        Raises:
            StepError: some failed; those that do not need them are done.
        """
        failures: list[str] = []
        while self._under_way:
            ready, _ = self._ray.wait(list(self._under_way))
            for reference in ready:
                steps, name = self._under_way.pop(reference)
                try:
                    outcome = self._ray.get(reference)
                except self._ray.exceptions.RayError as error:
                    outcome = " ".join(str(error).split())
                if isinstance(outcome, str):
                    failures.append(f"step {name} in {steps.out} failed; {outcome}")
                elif outcome is not None:
                    steps.done(name, outcome)
        if failures:
            raise StepError("\n".join(failures))


class ClusterSteps(Steps):
    """Steps that `Cluster` runs: ``run`` returns at once, `Cluster.wait` when all are done."""

    def __init__(self, out: Path, cluster: Cluster):
        super().__init__(out)
        self._cluster, self._references = cluster, dict[str, Any]()

    def run(self, name: str, command: list[str], after: Sequence[str] = ()) -> None:
        """Run a command as soon as the steps are done that it needs, unless it was run."""
        if not self._known(name, command):
            before = [self._references[step] for step in after if step in self._references]
            self._references[name] = self._cluster.submit(self, name, command, before)


def perform(command: list[str], log: str, modules: Sequence[str]) -> float | str:
    """Run ``python COMMAND`` with output to a log; returns the seconds that it took, or how the log of its failure ends."""
    began = time.time()
    with open(log, "w") as file:
        words = [*command, *resumed(command), *(["--task-module", *modules] if modules else [])]
        status = call([sys.executable, *words], file)
    return f"{log} ends with:\n{Path(log).read_text()[-2000:]}" if status else time.time() - began


def resumed(command: Sequence[str]) -> list[str]:
    """What makes a trainer go on from its checkpoint, if it was stopped after one."""
    given = dict(pairwise(command))
    there = "--run-name" in given and (Path(given["--runs-dir"]) / given["--run-name"] / "checkpoint.pt").is_file()
    return ["--resume"] if there else []


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


def _step(
    command: list[str], log: str, place: tuple[str, dict[str, str], Sequence[str]], *before: float | str | None
) -> float | str | None:
    """On a node: run a command; returns what `perform` does, or None where one failed that it needs."""
    if not all(isinstance(outcome, float) for outcome in before):
        return None
    folder, expected, modules = place
    try:
        ray_workers.settle(folder, expected)
        return perform(command, log, modules)
    except Exception as error:
        return str(error)
