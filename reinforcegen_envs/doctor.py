"""Whether this machine has what the package needs, line by line, and what to do where it has not.

Versions, cores, folders for compiled things, weights; a scene is loaded and stepped, one connect planned and followed, and
one frame drawn.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import gymnasium as gym
import mujoco
import numpy as np

import reinforcegen_envs  # noqa: F401 (registers the ids)
from reinforcegen_envs import caching, cli
from reinforcegen_envs.errors import ReinforceGenError
from reinforcegen_envs.ids import env_id
from reinforcegen_envs.models.scene import load_scene
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.workers import usable_cores

DISTRIBUTION = "reinforcegen-envs"
EXTRAS = {  # optional packages, and what needs them
    "train": "training",
    "render": "videos and plots",
    "planning": "plans of pybullet-planning, instead of our own search's,",
    "robosuite": "frames as robosuite draws them",
}
BACKENDS = ("egl", "osmesa")  # of OpenGL, for machines without a screen
TRY_TASK = "Threading"
TIMEOUT = 300.0  # seconds for a frame; the rendered scene may have to be built first


@dataclass
class Args:
    """Check versions, cores, cache folders, planning and rendering; exit with 1 if something needed is missing."""

    json: bool = False
    """print the findings as JSON in one line"""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        name: of the check.
        status: "ok", "warning" (something does not work that not everybody needs), or "failed".
        text: what was found.
        advice: what to do about it; "" if it is ok.
    """

    name: str
    status: Literal["ok", "warning", "failed"]
    text: str
    advice: str = ""


def satisfies(version: str, specifier: str) -> bool:
    """Whether a version lies in a range such as ">=1.2,<2" or "==1.5.*"; pre-releases count as what they lead to."""
    numbers = _numbers(version)
    for clause in filter(None, specifier.replace(" ", "").split(",")):
        match = re.fullmatch(r"(>=|<=|==|!=|<|>)([0-9.]+?)(\.\*)?", clause)
        if match is None:
            continue  # a kind of clause that setup.cfg does not use
        operator, bound = match[1], _numbers(match[2])
        length = len(bound) if match[3] else max(len(numbers), len(bound))
        ours, theirs = ((*part, *[0] * length)[:length] for part in (numbers, bound))
        holds = {
            ">=": ours >= theirs, "<=": ours <= theirs, "==": ours == theirs,
            "!=": ours != theirs, "<": ours < theirs, ">": ours > theirs,
        }  # fmt: skip
        if not holds[operator]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"[0-9]+(\.[0-9]+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def check_versions() -> Iterator[Finding]:
    """Python and all packages, against what this package declares."""
    try:
        metadata = importlib.metadata.metadata(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        yield Finding("versions", "failed", f"{DISTRIBUTION} is not installed", "pip install -e . in its checkout")
        return
    python, allowed = ".".join(map(str, sys.version_info[:3])), metadata["Requires-Python"] or ""
    good = satisfies(python, allowed)
    yield Finding("python", "ok" if good else "failed", python, "" if good else f"use Python {allowed}")
    needed = {}  # by name: some belong to more than one extra
    for requirement in metadata.get_all("Requires-Dist") or []:
        name, allowed, extra = _parts(requirement)
        if (extra is None or extra in EXTRAS) and _for_this_python(requirement):
            needed.setdefault(name, (allowed, extra))
    for name, (allowed, extra) in needed.items():
        yield check_package(name, allowed, extra)


def _parts(requirement: str) -> tuple[str, str, str | None]:
    """Name, range and extra of a requirement such as ``torch<3,>=2.2; extra == "train"``."""
    what, _, marker = requirement.partition(";")
    match = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*\(?([^)]*)\)?", what)
    assert match is not None, requirement
    extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", marker)
    return match[1], match[2].strip(), extra[1] if extra else None


def _for_this_python(requirement: str) -> bool:
    """Whether a requirement's marker, ``python_version < "3.12"`` at most, lets it count here."""
    match = re.search(r"python_version\s*([<>=!]+)\s*['\"]([0-9.]+)['\"]", requirement)
    return match is None or satisfies(f"{sys.version_info.major}.{sys.version_info.minor}", match[1] + match[2])


def check_package(name: str, allowed: str, extra: str | None) -> Finding:
    """One package's version.

    Args:
        name: of the distribution.
        allowed: range of versions; "" means any.
        extra: the extra that it belongs to; None for packages that everybody needs.
    """
    wrong = "failed" if extra is None else "warning"
    target = DISTRIBUTION if extra is None else f"{DISTRIBUTION}[{extra}]"
    install = f"pip install '{name}{allowed}'"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        need = "" if extra is None else f"; {EXTRAS[extra]} need it"
        return Finding(name, wrong, f"not installed{need}", f"pip install '{target}'")
    if not satisfies(version, allowed):
        return Finding(name, wrong, f"{version}; {allowed} is needed", install)
    return Finding(name, "ok", version)


def check_cores() -> Iterator[Finding]:
    """How many processes and threads make sense."""
    cores, there = usable_cores(), os.cpu_count() or 1
    text = f"{cores} of {there} may be used" if cores < there else f"{cores}"
    yield Finding("cores", "ok", f"{text}; --workers 0 starts so many processes, of one thread each")
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is not None and (not threads.isdigit() or int(threads) > cores):
        yield Finding("threads", "warning", f"OMP_NUM_THREADS={threads}", f"set it to a number from 1 to {cores}")
    elif threads is None and cores < there:
        # Libraries count the machine's cores; more threads than a control group grants wait for each other.
        text = f"OMP_NUM_THREADS=(unset): libraries may start {there} threads for {cores} cores"
        yield Finding("threads", "warning", text, f"export OMP_NUM_THREADS={cores}")
    else:
        yield Finding("threads", "ok", f"OMP_NUM_THREADS={threads or '(unset)'}")


def check_caches() -> Iterator[Finding]:
    """Whether compiled scenes and compiled code are kept."""
    advice = f"make it writable, or set {caching.VARIABLE} to a folder that is"
    try:
        folder = caching.cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        yield Finding("scene cache", "ok", str(folder))
    except caching.CacheError as error:
        yield Finding("scene cache", "failed", str(error), f"set {caching.VARIABLE}")
    except OSError as error:
        yield Finding("scene cache", "failed", str(error), advice)
    if caching.compiled_code_is_kept():
        yield Finding("compiled code", "ok", "kept for the next process")
    else:
        text = "kept nowhere: every process compiles for some 30 seconds"
        yield Finding("compiled code", "warning", text, f"set {caching.VARIABLE} to a folder that can be written")


def check_scene() -> Iterator[Finding]:
    """Load a scene, which is built first where it is not cached."""
    began = time.perf_counter()
    load_scene(TASKS[TRY_TASK].scene)
    yield Finding("scene", "ok", f"{TRY_TASK} in {time.perf_counter() - began:.2f} s")


def check_steps(seconds: float = 1.0) -> Iterator[Finding]:
    """Step one environment for a while."""
    env = gym.make(env_id(TRY_TASK, "D0"), disable_env_checker=True, max_episode_steps=sys.maxsize)
    env.reset(seed=0)
    action = np.zeros(7)
    env.step(action)  # the first one compiles
    steps, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        env.step(action)
        steps += 1
    env.close()
    yield Finding("steps", "ok", f"{steps / passed:,.0f} control steps a second in one process")


def check_weights() -> Iterator[Finding]:
    """Whether the weights that come with the package are whole, and were made with the MuJoCo that is installed."""
    # The weights of a user's own task are elsewhere.
    ours = [task for task in TASKS.values() if task.__module__.startswith(f"{reinforcegen_envs.__name__}.")]
    good, others = 0, {}  # others: version of MuJoCo -> tasks
    for task in ours:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of another MuJoCo; said below, once for all tasks
                weights = Bundle.open(task)
                weights.check()
                versions = {part.card["mujoco"] for part in weights.list() if "mujoco" in part.card}
        except (ReinforceGenError, OSError) as error:
            advice = f"reinstall the package: pip install --force-reinstall --no-deps {DISTRIBUTION}"
            yield Finding("weights", "failed", f"{task.name}: {error}", advice)
            continue
        good += 1
        for version in sorted(versions - {mujoco.__version__}):
            others.setdefault(version, []).append(task.name)
    if good == len(ours):
        yield Finding("weights", "ok", f"of {good} tasks")
    if others:
        made = "; ".join(f"{version} made the weights of {', '.join(tasks)}" for version, tasks in others.items())
        text = f"{mujoco.__version__}, but {made}: success may differ from what is recorded"
        yield Finding("weights' MuJoCo", "warning", text, f"pip install mujoco=={max(others, key=_numbers)}")
    else:
        yield Finding("weights' MuJoCo", "ok", mujoco.__version__)


def check_connect() -> Iterator[Finding]:
    """Plan and follow one connect, with the weights that come with the package."""
    began = time.perf_counter()
    env = gym.make(env_id(TRY_TASK, "D0", "Hybrid"), disable_env_checker=True)
    _, info = env.reset(seed=0)
    env.close()
    seconds = time.perf_counter() - began
    planner = info["planner"]
    text = f"{planner['status']}, planned in {planner['milliseconds']:.0f} ms; {seconds:.1f} s with loading"
    if info["failure"]:
        yield Finding("connect", "failed", f"{text}; {info['failure']}", "reinstall the package: a shipped scene fails")
    else:
        yield Finding("connect", "ok", text)


def draw() -> None:
    """Draw one frame of a scene, in this process.

    Raises:
        RenderingError: no OpenGL on this machine.
    """
    env = gym.make(env_id(TRY_TASK, "D0"), disable_env_checker=True, render_mode="rgb_array", width=64, height=64)
    env.reset(seed=0)
    env.render()
    env.close()


def try_frame(backend: str | None = None) -> str:
    """Draw in a process of its own, which OpenGL may take down with it; returns "" or what went wrong.

    Args:
        backend: MUJOCO_GL; None leaves it as it is.
    """
    environment = {**os.environ, **({} if backend is None else {"MUJOCO_GL": backend})}
    command = [sys.executable, "-c", "from reinforcegen_envs.doctor import draw; draw()"]
    try:
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return f"no frame in {TIMEOUT:.0f} s"
    if run.returncode == 0:
        return ""
    lines = run.stderr.strip().splitlines()
    return lines[-1] if lines else f"exited with status {run.returncode}"


def check_frame() -> Iterator[Finding]:
    """Whether frames can be drawn, and if not, with which setting they could be."""
    current = f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '(unset)')}"
    if not (problem := try_frame()):
        yield Finding("frame", "ok", f"drawn with {current}")
        return
    works = next((backend for backend in BACKENDS if not try_frame(backend)), None)
    install = (
        "install libegl1 (GPU) or libosmesa6 (CPU) with your system's package manager, then set MUJOCO_GL=egl or osmesa"
    )
    advice = install if works is None else f"export MUJOCO_GL={works}"
    yield Finding("frame", "warning", f"none with {current}, only rendering needs it: {problem}", advice)


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_versions, check_cores, check_caches, check_scene, check_steps, check_weights, check_connect, check_frame
)  # fmt: skip


def findings() -> Iterator[Finding]:
    """All findings; a check that cannot be made is one of them."""
    for check in CHECKS:
        try:
            yield from check()
        except Exception as error:  # a broken installation breaks anywhere
            name = check.__name__.removeprefix("check_")
            text = f"{type(error).__name__}: {error}"
            yield Finding(
                name, "failed", text, f"do what the message says, or pip install --force-reinstall {DISTRIBUTION}"
            )


def main(args: Args) -> None:
    """Print the findings as they come.

    Raises:
        SystemExit: 1 if one of them is "failed".
    """
    found = []
    for finding in findings():
        found.append(finding)
        if not args.json:
            print(f"{finding.status:<8} {finding.name:<18} {finding.text}", flush=True)
            if finding.advice:
                print(f"{'':<27} -> {finding.advice}", flush=True)
    if args.json:
        print(json.dumps([asdict(finding) for finding in found]))
    if any(finding.status == "failed" for finding in found):
        raise SystemExit(1)


def command() -> None:
    """The command line."""
    cli.run(main, Args, __doc__, "--json")


if __name__ == "__main__":
    command()
