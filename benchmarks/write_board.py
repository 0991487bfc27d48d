"""Writes this package's own submissions anew from the tables in results/, and docs/board.html from all submissions.

python benchmarks/write_board.py
python benchmarks/write_board.py --check        # fails when they are not what the tables and submissions give
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from own_submissions import AUTHORS, FOLDER, submissions

from reinforcegen_envs import cli
from reinforcegen_envs.errors import ReinforceGenError
from reinforcegen_envs.evaluation.submission import EPISODES, SEEDS, Run, Submission, read_all
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.tasks import TASKS

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "board.html"
TEMPLATE = HERE / "board_template.html"
WRITE = "python benchmarks/write_board.py"
UNKNOWN = "–"
# Columns: key, heading, whether numbers are sorted (largest first) or words.
COLUMNS = (
    ("method", "Method", False),
    ("task", "Task", False),
    ("variant", "Resets", False),
    ("observation", "Sees", False),
    ("status", "Status", False),
    ("success", "Strict success", True),
    ("reference", "Reference", True),
    ("episodes", "Episodes", True),
    ("demonstrations", "Demos", True),
    ("training", "RL steps", True),
    ("steps", "Steps", True),
)
FILTERS = ("task", "variant", "observation", "status")
WIDTH, HEIGHT = 132, 21  # of a row's chart, pixels


class StaleBoard(ReinforceGenError, RuntimeError):
    """What was written is not what the tables and submissions give."""


@dataclass
class Args:
    """Write submissions and board."""

    check: bool = False
    """write nothing, and fail if they are not what the tables and submissions give"""


def chart(submission: Submission) -> str:
    """Interval and rates on a line from 0 to 1, as SVG: bar and dot are strict, a triangle below the reference check."""

    def x(rate: float) -> float:
        return round(4 + rate * (WIDTH - 8), 1)

    run = submission.run
    reference = run.reference_success if run is not None else submission.stated
    assert reference is not None
    parts = [f'<path class="axis" d="M{x(0)} 8H{x(1)}M{x(0)} 3v10M{x(0.5)} 5v6M{x(1)} 3v10"/>']
    if run is not None:
        low, high = (x(end) for end in run.interval)
        parts.append(f'<rect class="interval" x="{low}" y="4" width="{round(high - low, 1)}" height="8" rx="2"/>')
        parts.append(f'<circle class="strict" cx="{x(run.success)}" cy="8" r="3"/>')
        text = f"strict {run.success:.3f}, 95% interval {run.interval[0]:.3f} to {run.interval[1]:.3f}; "
    else:
        text = "strict success unknown; "
    parts.append(f'<path class="reference" d="M{x(reference)} 13l4 7h-8z"/>')
    title = f"{text}reference {reference:.3f}"
    return f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{title}">{"".join(parts)}</svg>'


def details(name: str, submission: Submission) -> str:
    """What a row has to tell beside its columns."""
    facts, run = submission.facts, submission.run
    lines = [("by", facts.authors), ("note", facts.note)]
    if facts.weights:
        lines.append(("weights", facts.weights))
    if run is not None:
        lines += [("command", run.command), ("played", played(run))]
    if submission.reproduction is not None:
        again = submission.reproduction
        low, high = again.interval
        rate = f"{again.success:.3f} [{low:.3f}, {high:.3f}]"
        lines.append(("reproduced", f"{rate} by {submission.reproduced_by}; {again.command}; {played(again)}"))
    lines.append(("file", f"benchmarks/submissions/{name}"))
    terms = "".join(f"<dt>{term}</dt><dd>{html.escape(text)}</dd>" for term, text in lines if text)
    if facts.link:
        link = html.escape(facts.link)
        terms += f'<dt>link</dt><dd><a href="{link}">{link}</a></dd>'
    return f"<details><summary>{html.escape(facts.method)}</summary><dl>{terms}</dl></details>"


def played(run: Run) -> str:
    """Where and when."""
    words = [
        f"seeds from {run.first_seed}",
        run.date,
        f"commit {run.commit[:10]}" if run.commit else "",
        f"package {run.package}" if run.package else "",
        f"MuJoCo {run.mujoco}" if run.mujoco else "",
        f"Python {run.python}" if run.python else "",
    ]
    return ", ".join(word for word in words if word)


def row(name: str, submission: Submission) -> str:
    """A row of the table."""
    facts, run = submission.facts, submission.run
    reference = run.reference_success if run is not None else submission.stated
    strict = f'<span class="rate">{UNKNOWN}</span>'
    episodes = UNKNOWN
    if run is not None:
        low, high = run.interval
        strict = f'<span class="rate">{run.success:.3f} <small>[{low:.3f}, {high:.3f}]</small></span>'
        mark = "" if run.full else ' <span class="less" title="less than the protocol">not full protocol</span>'
        episodes = f"{run.seeds} × {run.episodes_per_seed}{mark}"
    cells: dict[str, tuple[object, str]] = {
        "method": (facts.method, details(name, submission)),
        "task": (facts.task, facts.task),
        "variant": (facts.variant, facts.variant),
        "observation": (facts.observation, facts.observation),
        "status": (submission.status, f'<span class="{submission.status}">{submission.status}</span>'),
        "success": (None if run is None else f"{run.success:.6f}", strict + chart(submission)),
        "reference": (f"{reference:.6f}", f"{reference:.3f}"),
        "episodes": (None if run is None else run.episodes, episodes),
        "demonstrations": (facts.demonstrations, number(facts.demonstrations)),
        "training": (facts.training_steps, number(facts.training_steps)),
        "steps": (
            None if run is None else f"{run.control_steps:.1f}",
            UNKNOWN if run is None else f"{run.control_steps:.0f} <small>({run.connect_steps:.0f})</small>",
        ),
    }
    text = "".join(
        f'<td data-key="{key}" data-value="{"" if value is None else html.escape(str(value))}">{shown}</td>'
        for key, (value, shown) in cells.items()
    )
    return f"<tr>{text}</tr>"


def number(value: int | None) -> str:
    """With separators of thousands, or a dash."""
    return UNKNOWN if value is None else f"{value:,}"


def heading(key: str, title: str, numeric: bool) -> str:
    """A column's head; the button is alive only with JavaScript."""
    kind = "number" if numeric else "word"
    return f'<th scope="col" data-key="{key}" data-kind="{kind}"><button type="button">{title}</button></th>'


def choice(key: str, values: Sequence[str]) -> str:
    """A filter."""
    title = next(title for name, title, _ in COLUMNS if name == key)
    options = "".join(f'<option value="{html.escape(value)}">{html.escape(value)}</option>' for value in values)
    return f'<label>{title} <select name="{key}"><option value="">all</option>{options}</select></label>'


def order(item: tuple[str, Submission]) -> tuple[object, ...]:
    """Tasks in the package's order, D2 first, best first, what states no strict success last."""
    submission = item[1]
    facts, run = submission.facts, submission.run
    rate = -1.0 if run is None else run.success
    return list(TASKS).index(facts.task), -int(facts.variant[1:]), -rate, -(submission.stated or 0.0), item[0]


def board(found: dict[str, Submission]) -> str:
    """The page."""
    items = sorted(found.items(), key=order)
    values: dict[str, list[str]] = {
        "task": list(TASKS),
        "variant": sorted({s.facts.variant for s in found.values()}),
        "observation": sorted({s.facts.observation for s in found.values()}),
        "status": ["reported", "reproduced"],
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        write=WRITE,
        seeds=SEEDS,
        episodes=EPISODES,
        count=len(items),
        filters="\n".join(choice(key, values[key]) for key in FILTERS),
        headings="".join(heading(*column) for column in COLUMNS),
        rows="\n".join(row(name, submission) for name, submission in items),
    )


def wanted() -> dict[Path, str | None]:
    """File -> what it should hold; None for one of this package's submissions that no table gives any more.

    Raises:
        SubmissionError: a file in submissions/ is none.
    """
    own = submissions()
    there = read_all(FOLDER)
    gone = [name for name, s in there.items() if s.facts.authors == AUTHORS and name not in own]
    all_of_them = {name: s for name, s in there.items() if name not in gone} | own
    files: dict[Path, str | None] = {FOLDER / name: s.text() for name, s in own.items()}
    return {**files, **{FOLDER / name: None for name in gone}, PAGE: board(all_of_them)}


def stale(files: dict[Path, str | None]) -> list[Path]:
    """Files that do not hold what they should."""
    return [p for p, text in files.items() if (p.read_text(encoding="utf-8") if p.is_file() else None) != text]


def main(args: Args) -> None:
    """Write, or check, submissions and board.

    Raises:
        StaleBoard: asked to check, and a file is not what it should be.
        SubmissionError: a file in submissions/ is none.
    """
    files = wanted()
    old = stale(files)
    if args.check:
        if old:
            raise StaleBoard(f"not what the tables and submissions give: {', '.join(p.name for p in old)}; run {WRITE}")
        return
    for path in old:
        text = files[path]
        if text is None:
            path.unlink()
        else:
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        print(f"{'removed' if text is None else 'written'}: {path}")


if __name__ == "__main__":
    cli.run(main, Args)
