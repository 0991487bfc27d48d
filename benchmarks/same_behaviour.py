"""Whether two versions of this project behave the same, bit for bit, on this machine.

    git worktree add ../before COMMIT
    python benchmarks/same_behaviour.py --before ../before

Three things are compared, each version in processes of its own:
- *trajectories* of every id of the version before: a seeded reset and random actions (small ones where they are residuals), on
  over the ends of episodes; observations, rewards, ends, and the entries of info but the planner's milliseconds;
- trajectories of every task with *settings* that the ids' defaults leave out: learned predictors, noise on initiation poses,
  replanning, sustained termination, and the last stage's skill with all stages before it in the reset;
- *outcomes* of fixed episodes of every task's base policy on D2, as deployed.
No results are kept to compare with: bits differ between processors, so both versions run here. Each builds its scenes and
compiles its kernels at its first run. Exits with 1 if anything differs.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import csv
import fnmatch
import hashlib
import json
import queue
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from reinforcegen_envs import cli
from reinforcegen_envs.arguments import CountOrZero, checked
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.workers import usable_cores

PLAYER = Path(__file__).with_name("behaviour_player.py")
FIRST_SEED = 1_000_000  # of evaluation episodes
PIECE = 5  # episodes a job
RESIDUAL = 0.3  # size of random residuals: the base policy still gets on
DEPLOYED = {"termination": "predictor", "initiation": "student"}
SETTINGS: tuple[dict[str, Any], ...] = (
    {"mode": "Residual", "variant": "D1", "kwargs": {**DEPLOYED, "pose_noise": [0.01, 0.05], "residual_scale": 0.2}},
    {"mode": "Residual", "variant": "D0", "kwargs": {"termination": "sustained", "replan": True}},
    {"mode": "Residual", "variant": "D2", "kwargs": {"pose_noise": [0.005, 0.03]}, "last_stage": True},
    {"mode": "Skill", "variant": "D2", "kwargs": {}, "last_stage": True},
    {"mode": None, "variant": "D2", "kwargs": {"controller": "osc_pose_v1_4"}},
)


@dataclass
class Args:
    """Compare the behaviour of two checkouts, bit for bit: python benchmarks/same_behaviour.py --before ../before"""

    before: Path
    """a checkout of the project: the version to compare with"""
    after: Path = Path(__file__).resolve().parents[1]
    """a checkout of the project; default: the one that this script is in"""
    episodes: CountOrZero = 50
    """episodes of every task's base policy; 0 leaves them out"""
    steps: int = 200
    """random actions of every id"""
    ids: str = "*"
    """only ids that match this pattern, e.g. "*-Coffee-*"; a task's outcomes belong to its D2 Residual id"""
    seed: int = 0
    """seed of trajectories"""
    workers: CountOrZero = 0
    """jobs side by side; 0 means one a core"""
    csv: Path | None = None
    """write the table here"""


@dataclass
class Job:
    """What a player is asked to do; see `behaviour_player.py`."""

    kind: str
    id: str = ""
    kwargs: dict[str, Any] = field(default_factory=dict)
    last_stage: bool = False
    seed: int = 0
    steps: int = 0
    action_size: float = 1.0
    episodes: int = 0

    @property
    def row(self) -> tuple[str, str]:
        """The row of the table that the job belongs to."""
        if self.kind != "trajectory" or not (self.kwargs or self.last_stage):
            return self.kind, self.id
        settings = self.kwargs | ({"stage": "last"} if self.last_stage else {})
        return "settings", f"{self.id} {', '.join(f'{name}={value}' for name, value in settings.items())}"


class PlayerError(RuntimeError):
    """A version of the project could not be run."""


class Player:
    """A process that plays with one checkout's version.

    Raises:
        NotADirectoryError: ``root`` is no checkout.
    """

    def __init__(self, root: Path):
        if not (root / "reinforcegen_envs" / "__init__.py").is_file():
            raise NotADirectoryError(f"{root} is no checkout of this project: it has no reinforcegen_envs/__init__.py")
        self.root = root
        path = os.pathsep.join(filter(None, [str(root.resolve()), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, str(PLAYER), str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def play(self, job: Job) -> list[Any]:
        """What the job found.

        Raises:
            PlayerError: the job failed, or the process ended; the message holds the traceback.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(asdict(job)) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise PlayerError(f"{self.root}: the process ended with {self._process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise PlayerError(f"{self.root}, {job.id}: {reply['error']}")
        return reply["found"]

    def stop(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()


@dataclass
class Row:
    """One row of the table."""

    kind: str
    what: str
    records: int = 0
    """calls of reset and step, or episodes"""
    note: str = ""
    before: str = ""
    """sha256 of everything that is compared"""
    after: str = ""
    difference: str = ""
    """where the versions part first"""


def jobs_of(ids: list[str], args: Args) -> list[Job]:
    """All jobs, those that take longest first."""
    deployed = [name for name in ids if re.search(r"/D2-\w+-Residual-", name)]
    jobs = [
        Job("outcomes", name, DEPLOYED, seed=FIRST_SEED + first, episodes=min(PIECE, args.episodes - first))
        for name in deployed
        for first in range(0, args.episodes, PIECE)
    ]
    trajectories = [(name, {}, False) for name in ids]
    for setting in SETTINGS:
        pattern = rf"/{setting['variant']}-[A-Za-z]+{'-' + setting['mode'] if setting['mode'] else ''}-v"
        wanted = [name for name in ids if re.search(pattern, name)]
        trajectories += [(name, setting["kwargs"], setting.get("last_stage", False)) for name in wanted]
    for name, kwargs, last_stage in trajectories:
        size = RESIDUAL if "-Residual-" in name else 1.0
        jobs.append(Job("trajectory", name, kwargs, last_stage, args.seed, args.steps, size))
    return jobs


def digest(records: list[Any]) -> str:
    """sha256 of records: the text of floats gives them back exactly, and tells -0 from 0."""
    return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()


def first_difference(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str:
    """Where two lists of records part, and in what; "" if nowhere."""
    for old, new in zip_longest(before, after):
        if old is None or new is None:
            return f"{len(before)} records against {len(after)}"
        parted = [name for name in old if digest(old[name]) != digest(new[name])]
        if parted:
            also = f"; also {', '.join(parted[1:])}" if parted[1:] else ""
            return f"{old['at']}, {parted[0]}: {contrast(old[parted[0]], new[parted[0]])}{also}"
    return ""


def contrast(old: Any, new: Any) -> str:
    """How two values differ, in words."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return f"{old!r} against {new!r}"
    if "bytes" not in old or "bytes" not in new:
        names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
        return ", ".join(f"{name} {old.get(name)!r} against {new.get(name)!r}" for name in names)
    left, right = (np.frombuffer(bytes.fromhex(x["bytes"]), x["dtype"]).reshape(x["shape"]) for x in (old, new))
    if left.shape != right.shape or left.dtype != right.dtype:
        return f"{left.dtype}{left.shape} against {right.dtype}{right.shape}"
    apart = np.flatnonzero(left.view(np.uint8).reshape(left.size, -1) != right.view(np.uint8).reshape(left.size, -1))
    indices = np.unique(apart // left.itemsize)
    i = int(indices[np.argmax(np.abs(left.flat[indices] - right.flat[indices]))])
    return f"{len(indices)} of {left.size} numbers, most at {i}: {left.flat[i]!r} against {right.flat[i]!r}"


def compare(jobs: list[Job], pairs: list[tuple[Player, Player]]) -> list[Row]:
    """Do all jobs with both versions, as many side by side as there are pairs of players."""
    idle: queue.Queue[tuple[Player, Player]] = queue.Queue()
    for pair in pairs:
        idle.put(pair)

    def play(job: Job) -> tuple[list[Any], list[Any]] | PlayerError:
        pair = idle.get()
        try:
            return pair[0].play(job), pair[1].play(job)
        except PlayerError as error:
            return error
        finally:
            idle.put(pair)

    pool = ThreadPoolExecutor(len(pairs))
    try:
        futures = [pool.submit(play, job) for job in jobs]
        different = 0
        with tqdm(total=len(jobs), unit="job", disable=None) as bar:
            for future in as_completed(futures):
                found = future.result()
                if isinstance(found, PlayerError):
                    tqdm.write(str(found), file=sys.stderr)
                different += isinstance(found, PlayerError) or digest(found[0]) != digest(found[1])
                bar.update()
                bar.set_postfix(different=different)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    groups: dict[tuple[str, str], list[tuple[list[Any], list[Any]] | PlayerError]] = {}
    for job, future in zip(jobs, futures, strict=True):
        groups.setdefault(job.row, []).append(future.result())
    return [row_of(*names, found) for names, found in groups.items()]


def row_of(kind: str, what: str, found: list[tuple[list[Any], list[Any]] | PlayerError]) -> Row:
    """The table's row of jobs that belong together."""
    for piece in found:
        if isinstance(piece, PlayerError):
            return Row(kind, what, difference=f"error: {str(piece).strip().splitlines()[-1]}")
    before, after = ([record for piece in found for record in piece[version]] for version in (0, 1))  # type: ignore[index]
    if kind == "outcomes":
        note = "success " + " against ".join(
            str(sum(episode["success"] for episode in side)) for side in (before, after)
        )
    else:
        note = f"{sum(record['at'].startswith('reset') for record in before) - 1} ends"
        note += f", {sum(record['planner status'] != 'none' for record in before)} connects"
    return Row(kind, what, len(before), note, digest(before), digest(after), first_difference(before, after))


def report(rows: list[Row], args: Args) -> None:
    """Print the table, and write it if that is asked for."""
    width = max(len(row.what) for row in rows)
    print(f"{'':10}  {'':{width}}  {'records':>7}  {'':24}  {'before':12}  {'after':12}")
    for row in sorted(rows, key=lambda row: row.kind):
        numbers = f"{row.records:7}  {row.note:24}  {row.before[:12]:12}  {row.after[:12]:12}"
        print(f"{row.kind:10}  {row.what:{width}}  {numbers}  {row.difference or 'equal'}")
    if args.csv is not None:
        with atomic_path(args.csv) as path, open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(asdict(rows[0])), lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)


def main(args: Args) -> None:
    """Compare and print the table.

    Raises:
        SystemExit: something differs.
        InvalidArgument: no id matches.
        NotADirectoryError: what is to be compared is no checkout.
    """
    args = checked(args)
    workers = args.workers or usable_cores()
    players: list[Player] = []
    try:
        for _ in range(workers):
            players += [Player(args.before), Player(args.after)]
        known = set(players[1].play(Job("ids")))
        ids = [name for name in players[0].play(Job("ids")) if fnmatch.fnmatch(name, args.ids)]
        if not ids:
            raise InvalidArgument(f"no id of {args.before} matches {args.ids!r}; a pattern is e.g. *-Coffee-*")
        pairs = list(zip(players[::2], players[1::2], strict=True))
        rows = compare(jobs_of([name for name in ids if name in known], args), pairs)
    finally:
        for player in players:
            player.stop()
    rows += [Row("id", name, difference="not registered after") for name in ids if name not in known]
    report(rows, args)
    different = sum(bool(row.difference) for row in rows)
    print(f"{len(ids)} ids, {len(rows)} comparisons: {f'{different} DIFFER' if different else 'all equal'}")
    if different:
        raise SystemExit(1)


if __name__ == "__main__":
    cli.run(main, Args)
