"""A result as a file: one method's success on one task and reset range, and whether it was reproduced. This is the schema.

A file is an object with the entries of `Facts`, and ``run``, a `Run`: what was played; or else ``stated``, a rate that somebody
published without one. ``reproduction``, another `Run`, is there once somebody has played the same seeds again and found the
rate stated within the interval of what they got; ``reproduced_by`` says who. ``format``, ``status`` and ``interval`` are
written for readers, and must agree with the rest.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import mujoco
import numpy as np

import reinforcegen_envs
from reinforcegen_envs.arguments import Count, CountOrZero, NotNegative, checked
from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError
from reinforcegen_envs.evaluation.play import Episode
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.provenance import commit
from reinforcegen_envs.statistics import EVALUATION_SEED, wilson_interval
from reinforcegen_envs.tasks import TASKS

FORMAT = 1
SEEDS, EPISODES = 3, 100  # of the full protocol: evaluation seeds, and episodes of each
OBSERVATIONS = ("state", "camera")
SHIPPED = "shipped"
ROUNDING = 1e-4  # within which an interval must be the one that the counts give

Kind = TypeVar("Kind")


class SubmissionError(ReinforceGenError, ValueError):
    """A submission is not what the protocol asks for; the message names the file and the entries."""


@dataclass(frozen=True)
class Facts:
    """What is said of a method.

    Args:
        method, authors: names, as the board shows them.
        task, variant: what it was played on.
        observation: "state" (object poses are known) or "camera" (pictures are all that is known of objects).
        link: address of a paper or of code; "" for none.
        policy: what ``evaluate --policy`` calls it: "tuned", "base" ...; "" for a policy that the command cannot load.
        weights: "shipped", or where its folder of weights can be had; "" for nowhere.
        demonstrations: that it was trained on, generated ones included; None if that is not known.
        training_steps: control steps of reinforcement learning, of all stages together; None if that is not known.
        note: what else a reader must know to compare it.
        retries: ``evaluate --retries``: how often a skill was begun again at most.
    """

    method: str
    authors: str
    task: str
    variant: str
    observation: str = "state"
    link: str = ""
    policy: str = ""
    weights: str = ""
    demonstrations: CountOrZero | None = None
    training_steps: CountOrZero | None = None
    note: str = ""
    retries: CountOrZero = 0

    @property
    def name(self) -> str:
        """What the submission's file is called, without suffix."""
        words = f"{self.method} {self.task} {self.variant} {self.observation}"
        return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


@dataclass(frozen=True)
class Run:
    """Episodes that were played, and with what.

    Args:
        seeds, episodes_per_seed: how many.
        first_seed: episode i of seed k was reset with first_seed + k * episodes_per_seed + i.
        strict_successes, reference_successes: of all episodes.
        control_steps: mean of an episode, all connects included, hidden ones too.
        connect_steps: mean of those of connects.
        command: that plays them; "" if there is none.
        commit, date: of the source tree; day, YYYY-MM-DD. "" if unknown.
        mujoco, package, python: versions; "" if unknown.
    """

    seeds: Count
    episodes_per_seed: Count
    first_seed: CountOrZero
    strict_successes: CountOrZero
    reference_successes: CountOrZero
    control_steps: NotNegative
    connect_steps: NotNegative
    command: str = ""
    commit: str = ""
    date: str = ""
    mujoco: str = ""
    package: str = ""
    python: str = ""

    @property
    def episodes(self) -> int:
        """Of all seeds."""
        return self.seeds * self.episodes_per_seed

    @property
    def success(self) -> float:
        """Strict success rate."""
        return self.strict_successes / self.episodes

    @property
    def reference_success(self) -> float:
        """Rate of the literature's check."""
        return self.reference_successes / self.episodes

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the strict success rate."""
        return wilson_interval(self.strict_successes, self.episodes)

    @property
    def full(self) -> bool:
        """Whether these are the protocol's episodes, all of them."""
        return (self.seeds, self.episodes_per_seed, self.first_seed) == (SEEDS, EPISODES, EVALUATION_SEED)

    @property
    def plays(self) -> tuple[int, int, int]:
        """What another run must play to be compared: seeds, episodes of each, first seed."""
        return self.seeds, self.episodes_per_seed, self.first_seed

    def confirms(self, stated: Run) -> bool:
        """Whether a rate that was stated lies within this run's interval, of the same episodes."""
        low, high = self.interval
        return self.plays == stated.plays and low <= stated.success <= high


@dataclass(frozen=True)
class Submission:
    """One method's result on one task and reset range; see the module.

    Args:
        facts: what is said of the method.
        run: what was played; None if only a rate is known.
        stated: a published rate, in place of a run.
        reproduction: the same episodes, played again.
        reproduced_by: who did.

    Raises:
        SubmissionError: entries that are not allowed, or that do not fit together.
    """

    facts: Facts
    run: Run | None = None
    stated: float | None = None
    reproduction: Run | None = None
    reproduced_by: str = ""

    def __post_init__(self) -> None:
        if wrong := [*_of_facts(self.facts), *self._of_results()]:
            raise SubmissionError("; ".join(wrong))

    @property
    def status(self) -> str:
        """ "reproduced" or "reported"."""
        return "reported" if self.reproduction is None else "reproduced"

    @property
    def name(self) -> str:
        """What its file is called, without suffix."""
        return self.facts.name

    def _of_results(self) -> list[str]:
        """What is wrong with the results."""
        wrong = []
        if (self.run is None) == (self.stated is None):
            wrong.append("give either run, what was played, or stated, a published rate")
        if self.stated is not None and not 0.0 <= self.stated <= 1.0:
            wrong.append(f"stated is {self.stated}; it must be a rate from 0 to 1")
        for name in ("run", "reproduction"):
            if (run := getattr(self, name)) is not None:
                wrong += [f"{name}: {text}" for text in _of_run(run)]
        if (self.reproduction is None) != (not self.reproduced_by):
            wrong.append("reproduction and reproduced_by belong together")
        if wrong:
            return wrong  # counts that make no rates
        if self.reproduction is not None and (self.run is None or not self.reproduction.confirms(self.run)):
            wrong.append("reproduction must be of run's episodes, and run's rate within its interval")
        return wrong

    def entries(self) -> dict[str, Any]:
        """What the file holds."""
        facts = dataclasses.asdict(self.facts)
        if not self.facts.retries:
            del facts["retries"]  # files of before there were any stay as they are
        found: dict[str, Any] = {"format": FORMAT, **facts, "status": self.status}
        if self.run is None:
            return {**found, "stated": self.stated}
        found["interval"] = [round(end, 6) for end in self.run.interval]
        found["run"] = dataclasses.asdict(self.run)
        if self.reproduction is not None:
            found["reproduced_by"] = self.reproduced_by
            found["reproduction"] = dataclasses.asdict(self.reproduction)
        return found

    def text(self) -> str:
        """The file, as JSON."""
        return json.dumps(self.entries(), indent=2, ensure_ascii=False) + "\n"

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file."""
        with atomic_path(path) as temporary:
            temporary.write_text(self.text(), encoding="utf-8")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Submission:
        """Read a file.

        Raises:
            SubmissionError: it is not a submission; the message names what is wrong.
        """
        path = Path(path)
        try:
            return cls.of(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise SubmissionError(f"{path} cannot be read ({error.strerror})") from error
        except ValueError as error:  # json's and this module's
            raise SubmissionError(f"{path} is not a submission: {error}") from error

    @classmethod
    def of(cls, entries: object) -> Submission:
        """The submission that a file's entries are.

        Raises:
            SubmissionError: they are none; the message names the entries.
        """
        if not isinstance(entries, Mapping):
            raise SubmissionError("it must be an object, with entries")
        rest = dict(entries)
        if rest.pop("format", None) != FORMAT:
            raise SubmissionError(f"format is {entries.get('format')!r}; it must be {FORMAT}")
        status, interval = rest.pop("status", None), rest.pop("interval", None)
        results = {name: rest.pop(name) for name in ("run", "stated", "reproduction", "reproduced_by") if name in rest}
        for name in ("run", "reproduction"):
            if results.get(name) is not None:
                results[name] = _made(Run, results[name], f"{name}: ")
        stated = results.get("stated")
        if stated is not None and (isinstance(stated, bool) or not isinstance(stated, (int, float))):
            raise SubmissionError(f"stated is {stated!r}; it must be a rate from 0 to 1")
        if not isinstance(results.get("reproduced_by", ""), str):
            raise SubmissionError(f"reproduced_by is {results['reproduced_by']!r}; it must be a text")
        found = cls(_made(Facts, rest), **results)
        if status != found.status:
            raise SubmissionError(f"status is {status!r}; by the other entries it is {found.status!r}")
        if found.run is not None and not _same_interval(interval, found.run.interval):
            low, high = found.run.interval
            raise SubmissionError(f"interval is {interval!r}; the counts give [{low:.6f}, {high:.6f}]")
        return found


def _same_interval(given: object, interval: tuple[float, float]) -> bool:
    try:
        return bool(np.shape(given) == (2,) and np.abs(np.subtract(given, interval)).max() <= ROUNDING)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _made(kind: type[Kind], entries: object, where: str = "") -> Kind:
    """A dataclass from the entries of a file.

    Raises:
        SubmissionError: entries are missing, unknown, of another kind or out of range.
    """
    if not isinstance(entries, Mapping):
        raise SubmissionError(f"{where}it must be an object, with entries")
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    if unknown := sorted(set(entries) - {field.name for field in fields}):
        raise SubmissionError(f"{where}unknown entries {unknown}; there are {[field.name for field in fields]}")
    needed = [field.name for field in fields if field.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in entries]:
        raise SubmissionError(f"{where}entries {missing} are missing")
    try:
        return checked(kind(**entries))
    except InvalidArgument as error:
        raise SubmissionError(f"{where}{error}") from error


def _of_facts(facts: Facts) -> list[str]:
    """What is wrong with what is said of a method."""
    wrong = [f"{name} is empty; name one" for name in ("method", "authors") if not getattr(facts, name).strip()]
    if facts.link and not facts.link.startswith("https://"):
        wrong.append(f"link is {facts.link!r}; it must begin with https://, or be empty")
    if facts.task not in TASKS:
        wrong.append(f"task is {facts.task!r}; choose one of {sorted(TASKS)}")
    elif facts.variant not in TASKS[facts.task].variants:
        wrong.append(f"variant is {facts.variant!r}; choose one of {sorted(TASKS[facts.task].variants)}")
    if facts.observation not in OBSERVATIONS:
        wrong.append(f"observation is {facts.observation!r}; choose one of {list(OBSERVATIONS)}")
    return wrong


def _of_run(run: Run) -> list[str]:
    """What is wrong with what was played."""
    wrong = []
    if not run.strict_successes <= run.reference_successes <= run.episodes:
        wrong.append(
            f"strict_successes {run.strict_successes}, reference_successes {run.reference_successes} and episodes "
            f"{run.episodes} must not fall: strict success implies the reference's"
        )
    if run.connect_steps > run.control_steps:
        wrong.append(f"connect_steps {run.connect_steps} are more than control_steps {run.control_steps}, their sum")
    if run.first_seed < EVALUATION_SEED:
        wrong.append(f"first_seed is {run.first_seed}; evaluation seeds start at {EVALUATION_SEED}")
    try:
        if run.date:
            datetime.date.fromisoformat(run.date)
    except ValueError:
        wrong.append(f"date is {run.date!r}; write YYYY-MM-DD")
    return wrong


def run_of(episodes: Sequence[Episode], seeds: int = SEEDS, command: str = "") -> Run:
    """What was played just now, in this process, by this source tree.

    Args:
        episodes: those of the first seed first; as many of each, with seeds that follow each other.
        seeds: number of evaluation seeds.
        command: that plays them again.

    Raises:
        SubmissionError: the episodes are not such.
    """
    count, first = len(episodes), min((episode.seed for episode in episodes), default=0)
    if not count or seeds < 1 or count % seeds or [e.seed for e in episodes] != list(range(first, first + count)):
        raise SubmissionError(f"{count} episodes are not as many of each of {seeds} seeds, one after the other")
    return Run(
        seeds,
        count // seeds,
        first,
        sum(episode.success for episode in episodes),
        sum(episode.reference_success for episode in episodes),
        round(float(np.mean([episode.control_steps for episode in episodes])), 2),
        round(float(np.mean([episode.connect_steps for episode in episodes])), 2),
        command=command,
        commit=commit() or "",
        date=datetime.date.today().isoformat(),
        mujoco=mujoco.__version__,
        package=reinforcegen_envs.__version__,
        python=platform.python_version(),
    )


def read_all(folder: str | os.PathLike[str]) -> dict[str, Submission]:
    """The submissions in a folder, by file name.

    Raises:
        SubmissionError: a file is none, or is not called as it should be.
    """
    found = {}
    for path in sorted(Path(folder).glob("*.json")):
        found[path.name] = submission = Submission.read(path)
        if path.stem != submission.name:
            raise SubmissionError(f"{path} must be called {submission.name}.json, by its method, task and observation")
    return found
