"""How well a score tells two kinds of things apart, whatever the threshold: ROC curves and the area under them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reinforcegen_envs.files import atomic_path

COLUMNS = ("stage", "when", "threshold", "tpr", "fpr")
POINTS = 200  # of a curve in a file, at most


@dataclass(frozen=True)
class Roc:
    """A ROC curve, from the strictest threshold, which nothing reaches, to the one that everything reaches.

    Args:
        thresholds: (n,) falling; a score counts as positive from its threshold on. The first is infinite.
        tpr: (n,) part of the positive ones that are called positive, rising from 0 to 1.
        fpr: (n,) part of the others that are, rising from 0 to 1.
    """

    thresholds: np.ndarray
    tpr: np.ndarray
    fpr: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, positive: np.ndarray) -> Roc | None:
        """The curve of scores (N,) of which some are ``positive`` (N,); None unless there are both kinds."""
        positive = np.asarray(positive, bool)
        if positive.all() or not positive.any():
            return None
        order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
        sorted_scores, hits = np.asarray(scores, np.float64)[order], positive[order]
        ends = np.append(np.flatnonzero(np.diff(sorted_scores)), len(hits) - 1)  # ties pass a threshold together
        true, false = np.cumsum(hits)[ends], np.cumsum(~hits)[ends]
        return cls(
            np.append(np.inf, sorted_scores[ends]),
            np.append(0.0, true / true[-1]),
            np.append(0.0, false / false[-1]),
        )

    def thinned(self, points: int = POINTS) -> Roc:
        """At most so many of its points, evenly along the curve, the first and the last among them."""
        if len(self.tpr) <= points:
            return self
        along = self.tpr + self.fpr
        keep = np.unique(np.append(np.searchsorted(along, np.linspace(0.0, 2.0, points - 1)), len(along) - 1))
        keep = keep[keep < len(along)]
        return Roc(self.thresholds[keep], self.tpr[keep], self.fpr[keep])


def auc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """How likely a positive one scores higher than another, a tie counting half; None unless there are both kinds.

    Args:
        scores: (N,).
        positive: (N,) bool.
    """
    roc = Roc.of(scores, positive)
    if roc is None:
        return None
    return float(np.sum(np.diff(roc.fpr) * (roc.tpr[1:] + roc.tpr[:-1]) / 2.0))


Curves = Mapping[tuple[str, str], Roc]
"""stage and what it is a curve of, e.g. ("grasp", "before") -> the curve"""


def write_rocs(path: Path, curves: Curves) -> None:
    """Write curves as CSV: stage, when, threshold, tpr, fpr."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for (stage, when), roc in curves.items():
            thin = roc.thinned()
            for row in zip(thin.thresholds, thin.tpr, thin.fpr, strict=True):
                writer.writerow([stage, when, *(f"{number:.6g}" for number in row)])


def plot_rocs(path: Path, curves: Curves, stages: Sequence[str], areas: Mapping[tuple[str, str], float | None]) -> None:
    """Draw curves as PNG, one picture a stage, false positives on a logarithmic axis.

    Args:
        path: the file.
        curves: see `Curves`.
        stages: in the order in which they are drawn.
        areas: what the legend gives for each curve.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(stages), figsize=(3.4 * len(stages), 3.4), sharey=True, squeeze=False)
    for axis, stage in zip(axes[0], stages, strict=True):
        for (of_stage, when), roc in curves.items():
            if of_stage == stage:
                label = f"{when} {areas[stage, when]:.4f}"
                axis.plot(np.maximum(roc.fpr, 1e-4), roc.tpr, label=label, drawstyle="steps-post")
        axis.set(xscale="log", xlim=(1e-4, 1.0), ylim=(0.0, 1.02), xlabel="false positive rate", title=stage)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(loc="lower right", title="area")
    axes[0][0].set(ylabel="true positive rate")
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
