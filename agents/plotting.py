"""Curves as PNG: learning, from the CSV files that the trainers write, and calibration."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.files import atomic_path


def read_progress(path: Path) -> dict[str, np.ndarray]:
    """Columns of a progress.csv; empty cells are NaN.

    Raises:
        FileNotFoundError: there is no such file.
        InvalidArgument: it holds no rows.
    """
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise InvalidArgument(f"{path} holds no rows; wait until the run has logged its first")
    return {name: np.array([float(row[name]) if row[name] else np.nan for row in rows]) for name in rows[0]}


def plot_curves(
    path: Path,
    groups: Mapping[str, Sequence[Path]],
    title: str,
    metrics: Sequence[str] = ("charts/success", "eval/success"),
) -> None:
    """Draw success against control steps (left) and wall clock (right); one colour a group, one line a run.

    Args:
        path: the PNG file.
        groups: label -> progress.csv files, e.g. one a seed.
        title: above the plot.
        metrics: columns to draw, the first thin, the second with markers.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for colour, (label, files) in zip(plt.rcParams["axes.prop_cycle"].by_key()["color"], groups.items(), strict=False):
        for i, file in enumerate(files):
            columns = read_progress(file)
            for axis, x, unit in ((axes[0], "step", 1e3), (axes[1], "seconds", 60.0)):
                for metric, style in zip(metrics, ({"alpha": 0.4, "lw": 1}, {"marker": "o", "ms": 3}), strict=True):
                    if metric not in columns:
                        continue
                    known = np.isfinite(columns[metric])
                    name = label if i == 0 and metric == metrics[-1] else None
                    axis.plot(columns[x][known] / unit, columns[metric][known], color=colour, label=name, **style)
    axes[0].set(xlabel="control steps / 1000", ylabel="success", ylim=(0, 1.02))
    axes[1].set(xlabel="wall clock / min")
    axes[0].legend(loc="lower right")
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    _save(figure, path)


def plot_rounds(path: Path, progress: Path, title: str) -> None:
    """Draw an estimator's negative log likelihood against its training's wall clock, a curve a round.

    Args:
        path: the PNG file.
        progress: progress.csv of `perceive`, with round, nll and seconds; a round that was done anew appears twice.
        title: above the plot.
    """
    columns = read_progress(progress)
    figure, axis = _pyplot().subplots(figsize=(6, 4))
    for number in np.unique(columns["round"]):
        mine = columns["round"] == number
        axis.plot(columns["seconds"][mine] / 60, columns["nll"][mine], label=f"round {number:.0f}")
    axis.set(xlabel="wall clock of the round / min", ylabel="negative log likelihood", title=title)
    axis.legend()
    axis.grid(alpha=0.3)
    _save(figure, path)


def plot_calibration(path: Path, errors: Mapping[str, np.ndarray], title: str) -> None:
    """Draw which part of the errors lies within the sets that predicted deviations give, against the part that should.

    Args:
        path: the PNG file.
        errors: label -> errors in predicted standard deviations, of any shape.
        title: above the plot.
    """
    levels = np.linspace(0.02, 0.99, 60)
    bounds = np.array([NormalDist().inv_cdf(0.5 + 0.5 * level) for level in levels])
    figure, axis = _pyplot().subplots(figsize=(5, 4.5))
    axis.plot([0, 1], [0, 1], color="grey", ls=":", lw=1)
    for label, away in errors.items():
        axis.plot(levels, [np.mean(np.abs(away) < bound) for bound in bounds], label=label)
    axis.set(xlabel="part predicted", ylabel="part found", title=title, xlim=(0, 1), ylim=(0, 1))
    axis.legend(loc="lower right")
    axis.grid(alpha=0.3)
    _save(figure, path)


def _pyplot() -> Any:
    """matplotlib's, without a window."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    _pyplot().close(figure)
