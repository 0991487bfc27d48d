"""Learning curves as PNG, from the CSV files that the trainers write."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

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
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

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
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
