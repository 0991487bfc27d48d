"""What the experiments share: a table that is filled cell by cell, episodes over worker processes, and plots by task.

A cell is a frozen dataclass that says what was varied. Its outcome is one line of a CSV, appended as soon as the cell is done.
A cell whose line is there, with the same weights and the same first seed, plays the episodes that it lacks: an experiment goes
on where it was stopped, may begin with few episodes and go on to more, and after a training plays the tuned cells anew.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar, get_type_hints

import gymnasium as gym
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from tqdm import tqdm

from reinforcegen_envs import evaluate
from reinforcegen_envs.arguments import Count, CountOrZero
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.evaluation import Episode, play
from reinforcegen_envs.evaluation.play import Agent
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.policies.bundle import TRUTH, Bundle
from reinforcegen_envs.registration import VARIANTS, env_id
from reinforcegen_envs.statistics import EVALUATION_SEED, wilson_interval
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.workers import Workers

RESULTS = Path(__file__).with_name("results")
POLICIES = ("base", "tuned")
LEGEND_COLUMNS = 3  # wider ones leave the picture
PIECE = 5  # episodes a job

CellType = TypeVar("CellType")


@dataclass
class PlayArgs:
    """Arguments of every experiment that plays whole tasks in a table of cells."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """task names"""
    variant: str = "D2"
    """reset range"""
    episodes: Count = 100
    """episodes a cell"""
    first_seed: CountOrZero = EVALUATION_SEED
    """episode i is reset with first_seed + i"""
    weights: str | None = None
    """folder of weights, with {task} for the task's name in lower case; default: the shipped ones"""
    workers: CountOrZero = 0
    """processes; 0 means one a core"""


@dataclass(frozen=True)
class Outcome:
    """What episodes of a cell came to."""

    episodes: int
    first_seed: int
    """episode i was reset with first_seed + i"""
    weights: str
    """`fingerprint` of what was played"""
    successes: int
    success: float
    """strict"""
    low: float
    """Wilson's 95% interval of success"""
    high: float
    reference_success: float
    control_steps: float
    """mean of an episode, connects included"""
    failures: str
    """JSON: "stage: reason" -> episodes"""

    @classmethod
    def of(cls, episodes: Sequence[Episode], weights: str) -> Outcome:
        """Sum up a cell's episodes."""
        return cls._summed(
            len(episodes),
            min(episode.seed for episode in episodes),
            weights,
            sum(episode.success for episode in episodes),
            sum(episode.reference_success for episode in episodes),
            sum(episode.control_steps for episode in episodes),
            Counter(episode.failure or "truncated" for episode in episodes if not episode.success),
        )

    def __add__(self, other: Outcome) -> Outcome:
        """With the episodes that follow."""
        return self._summed(
            self.episodes + other.episodes,
            self.first_seed,
            self.weights,
            self.successes + other.successes,
            self.episodes * self.reference_success + other.episodes * other.reference_success,
            self.episodes * self.control_steps + other.episodes * other.control_steps,
            Counter(json.loads(self.failures)) + Counter(json.loads(other.failures)),
        )

    @classmethod
    def _summed(
        cls,
        episodes: int,
        first_seed: int,
        weights: str,
        successes: int,
        reference_successes: float,
        control_steps: float,
        failures: Counter[str],
    ) -> Outcome:
        """From sums over all episodes."""
        low, high = wilson_interval(successes, episodes)
        return cls(
            episodes=episodes,
            first_seed=first_seed,
            weights=weights,
            successes=successes,
            success=round(successes / episodes, 4),
            low=round(low, 4),
            high=round(high, 4),
            reference_success=round(reference_successes / episodes, 4),
            control_steps=round(control_steps / episodes, 1),
            failures=json.dumps(dict(failures.most_common())),
        )


class Table(Generic[CellType]):
    """Cells and their outcomes, in a CSV file.

    Args:
        path: the file; it may not be there yet.
        cell: the cells' dataclass, with fields of types str, int and float.
        outcome: the outcomes' dataclass, likewise.

    Raises:
        InvalidArgument: the file is another table.
    """

    def __init__(self, path: Path, cell: type[CellType], outcome: type[Any] = Outcome):
        self.path, self._cell, self._outcome = path, cell, outcome
        self.columns = [field.name for kind in (cell, outcome) for field in fields(kind)]  # type: ignore[arg-type]
        self.rows: dict[CellType, Any] = {}
        if path.is_file():
            with open(path, newline="") as file:
                lines = csv.DictReader(file)
                if lines.fieldnames != self.columns:
                    raise InvalidArgument(f"{path} has columns {lines.fieldnames}, not {self.columns}; remove it")
                for line in lines:  # of several lines of a cell the last one counts
                    self.rows[_parsed(cell, line)] = _parsed(outcome, line)

    def add(self, cell: CellType, outcome: Any) -> None:
        """Append a line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        begun = self.path.is_file()
        with open(self.path, "a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if not begun:
                writer.writerow(self.columns)
            writer.writerow(astuple(cell) + astuple(outcome))  # type: ignore[call-overload]
        self.rows[cell] = outcome

    def tidy(self, keys: Callable[[CellType], Any] = lambda cell: ()) -> None:
        """Write the file anew: a line a cell, task by task, then by ``keys``."""
        tasks = list(TASKS)

        def order(cell: Any) -> Any:
            return tasks.index(cell.task), keys(cell)

        with atomic_path(self.path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns)
            for cell in sorted(self.rows, key=order):
                writer.writerow(astuple(cell) + astuple(self.rows[cell]))  # type: ignore[call-overload]

    def of(self, task: str) -> dict[CellType, Any]:
        """The rows of a task."""
        return {cell: outcome for cell, outcome in self.rows.items() if cell.task == task}  # type: ignore[attr-defined]


def _parsed(kind: type[Any], line: Mapping[str, str]) -> Any:
    types = get_type_hints(kind)
    return kind(**{field.name: types[field.name](line[field.name]) for field in fields(kind)})


def checked_names(tasks: Sequence[str], policies: Sequence[str] = (), variant: str = "D2") -> None:
    """Whether there are such tasks, policies and such a variant.

    Raises:
        InvalidArgument: there are not.
    """
    for what, given, allowed in (
        ("task", tasks, TASKS),
        ("policy", policies, POLICIES),
        ("variant", [variant], VARIANTS),
    ):
        if unknown := sorted(set(given) - set(allowed)):
            raise InvalidArgument(f"unknown {what} {unknown[0]!r}; choose from {sorted(allowed)}")


def weights_of(pattern: str | None, task: str) -> Path | None:
    """A task's folder of weights: ``pattern`` with the task's name, in lower case, for {task}; None for the shipped one."""
    return None if pattern is None else Path(pattern.format(task=task.lower()))


def policies_of(task: str, policies: Sequence[str], pattern: str | None) -> list[str]:
    """The policies that there are: "tuned" needs residual weights."""
    tuned = bool(Bundle.open(TASKS[task], weights_of(pattern, task)).residual_files())
    if not tuned and "tuned" in policies:
        print(f"{task}: no residual weights, so nothing is tuned")
    return [policy for policy in policies if tuned or policy != "tuned"]


def fingerprint(task: str, policy: str, pattern: str | None, perception: str = TRUTH) -> str:
    """Eight letters that tell weights apart: of everything that is played."""
    bundle = Bundle.open(TASKS[task], weights_of(pattern, task), perception)
    names = ("base", "termination", "initiation", "skeleton", *(("estimator",) if perception == "camera" else ()))
    files = [bundle.path(name) for name in names]
    digest = hashlib.sha256()
    for path in [*files, *(bundle.residual_files() if policy == "tuned" else ())]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def deployed(task: str, variant: str, policy: str, pattern: str | None, **settings: Any) -> tuple[gym.Env, Agent]:
    """Environment and policy as deployed: learned initiation and termination.

    Args:
        task, variant, policy: what is played.
        pattern: see `weights_of`.
        settings: further arguments of `evaluate.Args`, or of the environment.
    """
    known = {field.name for field in fields(evaluate.Args)}
    if not isinstance(settings.get("perception", ""), str):
        known.remove("perception")  # a perception that is made already is the environment's alone
    known.discard("replan")  # the command knows no thresholds
    args = evaluate.Args(
        env_id=env_id(task, variant, "Residual"),
        policy=policy,
        weights=weights_of(pattern, task),
        **{name: value for name, value in settings.items() if name in known},
    )
    return evaluate.make(args, **{name: value for name, value in settings.items() if name not in known})


class Player:
    """A worker's state: what the last job's cell needs; jobs of a cell come one after the other."""

    def __init__(self, make: Callable[[Any, str | None], tuple[gym.Env, Agent]], pattern: str | None):
        self._make, self._pattern = make, pattern
        self._made: tuple[Any, tuple[gym.Env, Agent]] | None = None

    def play(self, cell: Any, seeds: range) -> list[Episode]:
        """The episodes of some seeds."""
        if self._made is None or self._made[0] != cell:
            self._made = cell, self._make(cell, self._pattern)
        return [play(*self._made[1], seed) for seed in seeds]


def _play(player: Player, job: tuple[Any, range]) -> list[Episode]:
    return player.play(*job)


def fill(
    table: Table[CellType],
    cells: Sequence[CellType],
    make: Callable[[CellType, str | None], tuple[gym.Env, Agent]],
    pattern: str | None,
    episodes: int,
    first_seed: int,
    workers: int,
) -> None:
    """Play what is missing in a table.

    Args:
        table: where outcomes go, one by one.
        cells: with fields ``task`` and ``policy``, and ``perception`` where it is not the truth.
        make: an importable function: cell and ``pattern`` -> environment and policy.
        pattern: see `weights_of`.
        episodes: of a cell.
        first_seed: of a cell.
        workers: processes; 0 means one a core.

    Raises:
        WeightsError: unusable weights.
        WorkerError: a worker died.
    """
    played_with = {c: (c.task, c.policy, pattern, getattr(c, "perception", TRUTH)) for c in cells}  # type: ignore[attr-defined]
    known = {which: fingerprint(*which) for which in set(played_with.values())}
    prints = {cell: known[which] for cell, which in played_with.items()}

    def there(cell: Any) -> Outcome | None:
        """What was played of a cell and still holds."""
        row = table.rows.get(cell)
        holds = row is not None and (row.first_seed, row.weights) == (first_seed, prints[cell])
        return row if holds else None

    end = first_seed + episodes
    begin = {cell: first_seed + (row.episodes if (row := there(cell)) else 0) for cell in cells}
    todo = [cell for cell in begin if begin[cell] < end]
    jobs = [(cell, range(i, min(i + PIECE, end))) for cell in todo for i in range(begin[cell], end, PIECE)]
    total = sum(len(seeds) for _, seeds in jobs)
    print(f"{len(todo)} of {len(begin)} cells to play, {total} episodes", flush=True)
    played: list[Episode] = []
    with (
        tqdm(total=total, unit="episode", disable=None) as bar,
        Workers(workers, Player, (make, pattern), jobs=len(jobs)) as pool,
    ):
        for (cell, seeds), found in zip(jobs, pool.map(_play, jobs), strict=True):
            played += found
            bar.update(len(found))
            if seeds.stop == end:
                outcome = Outcome.of(played, prints[cell])  # type: ignore[attr-defined]
                if (before := there(cell)) is not None:
                    outcome = before + outcome
                table.add(cell, outcome)
                numbers = f"{outcome.success:.3f} [{outcome.low:.3f}, {outcome.high:.3f}]"
                values = asdict(cell).items()  # type: ignore[call-overload]
                bar.write(f"{numbers}  {' '.join(f'{name} {value}' for name, value in values)}")
                played = []


def line(axis: Axes, points: Mapping[float, Outcome], label: str, shift: float = 0.0, **style: Any) -> None:
    """Draw success with its interval against a number.

    Args:
        axis: where to draw.
        points: x -> outcome.
        label: of the line.
        shift: what x is moved by, so that bars of two lines do not cover each other.
        style: of `Axes.errorbar`.
    """
    xs = sorted(points)
    success = [points[x].success for x in xs]
    bars = [[points[x].success - points[x].low for x in xs], [points[x].high - points[x].success for x in xs]]
    style = {"ms": 4, "lw": 1.3, "elinewidth": 0.8, "capsize": 2, **style}
    axis.errorbar([x + shift for x in xs], success, bars, label=label, **style)


def save_panels(
    path: Path, rows: Sequence[str], columns: Sequence[str], draw: Callable[[Axes, int, int], object], title: str
) -> None:
    """Write a PNG of small panels that share the axis of success.

    Args:
        path: the file.
        rows: name -> label of the x axes of a row.
        columns: titles of the columns: tasks.
        draw: gets a panel and its row and column.
        title: above all.
    """
    size = (2.6 * len(columns) + 1.0, 2.4 * len(rows) + 1.0)
    figure, axes = plt.subplots(len(rows), len(columns), figsize=size, sharey=True, squeeze=False)
    for i, label in enumerate(rows):
        for j, name in enumerate(columns):
            axis: Axes = axes[i, j]
            axis.set(xlabel=label, ylim=(-0.03, 1.03), title=name if i == 0 else "")
            draw(axis, i, j)  # may choose another title
            axis.grid(alpha=0.3)
        axes[i, 0].set_ylabel("success")
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        handles |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.suptitle(title)
    lines = -(-len(handles) // LEGEND_COLUMNS)
    if handles:
        width = -(-len(handles) // lines)
        figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=width, fontsize="small")
    figure.tight_layout(rect=(0, 0.05 * max(lines, 1), 1, 1))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
    print(f"written: {path}")
