"""How good termination classifiers are on rollouts: control step by control step, and skill by skill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reinforcegen_envs.agents.roc import Roc, auc, plot_rocs, write_rocs
from reinforcegen_envs.policies.mlp import MLP
from reinforcegen_envs.policies.predictors import CONSECUTIVE

Judged = dict[str, dict[str, float | int | None]]
""""STAGE WHEN" -> what `judged` gives"""


@dataclass
class Rollouts:
    """Steps of one stage: classifier features (N, F), whether the stage was finished (N,), and of which episode (N,).

    An episode's steps stand together, in their order.
    """

    features: np.ndarray
    finished: np.ndarray
    episode: np.ndarray

    def skills(self) -> list[slice]:
        """Where the steps of each episode are."""
        edges = np.flatnonzero(np.diff(self.episode)) + 1
        starts, ends = [0, *edges.tolist()], [*edges.tolist(), len(self.episode)]
        return [slice(start, end) for start, end in zip(starts, ends, strict=True) if end > start]


def scores(network: MLP, rollouts: Rollouts) -> np.ndarray:
    """The classifier's logit (N,) at every step, float64."""
    return network.batch(rollouts.features)[:, 0].astype(np.float64)


def judged(logits: np.ndarray, rollouts: Rollouts, threshold: float) -> dict[str, float | int | None]:
    """How good a stage's classifier is, step by step and skill by skill; None where there is nothing to tell from.

    Args:
        logits: (N,) what it says at every step.
        rollouts: the steps.
        threshold: probability above which it counts as positive.

    Returns:
        steps: how many there are; auc: see `roc.auc`; true_positive, false_positive: parts of the finished steps, and of the
        others, at which it is positive. Of skills, which it ends after `CONSECUTIVE` positive steps: skills, how many;
        premature, part of them that it would end while the stage is not finished; missed, part of the finished ones that
        it would not end within the steps that were played on; delay, mean control steps from finished to ended.
    """
    positive, finished = logits > np.log(threshold / (1.0 - threshold)), rollouts.finished > 0
    skills = [_ended(positive[part], finished[part]) for part in rollouts.skills()]
    delays = [ended - first for first, ended, right in skills if first is not None and ended is not None and right]
    premature = [ended is not None and not right for _, ended, right in skills]
    missed = [ended is None for first, ended, _ in skills if first is not None]
    return {
        "steps": len(finished),
        "auc": auc(logits, finished),
        "true_positive": _mean(positive[finished]),
        "false_positive": _mean(positive[~finished]),
        "skills": len(skills),
        "premature": _mean(premature),
        "missed": _mean(missed),
        "delay": _mean(delays),
    }


def _ended(positive: np.ndarray, finished: np.ndarray) -> tuple[int | None, int | None, bool]:
    """Of one skill: the step at which it was finished first, the one at which it would end, whether it is finished there."""
    first = int(np.argmax(finished)) if finished.any() else None
    runs = np.convolve(positive, np.ones(CONSECUTIVE), "valid") >= CONSECUTIVE if len(positive) >= CONSECUTIVE else ()
    if not np.any(runs):
        return first, None, False
    ended = int(np.argmax(runs)) + CONSECUTIVE - 1
    return first, ended, bool(finished[ended])


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None


def compare(
    names: Sequence[str],
    held_out: Sequence[Rollouts],
    whose: Mapping[str, tuple[Mapping[str, MLP], float]],
    out: Path | None,
) -> Judged:
    """Judge classifiers on the same rollouts, and write and draw their ROC curves.

    Args:
        names: of the stages.
        held_out: one a stage.
        whose: "before", "after" or "now" -> stage name -> network, and the threshold.
        out: folder for termination-roc.csv and termination-roc.png, or None.

    Returns:
        "STAGE WHEN" -> see `judged`.
    """
    report: Judged = {}
    curves, areas = {}, {}
    for stage, rollouts in zip(names, held_out, strict=True):
        for when, (networks, threshold) in whose.items():
            logits = scores(networks[stage], rollouts)
            report[f"{stage} {when}"] = judged(logits, rollouts, threshold)
            areas[stage, when] = report[f"{stage} {when}"]["auc"]
            if (roc := Roc.of(logits, rollouts.finished > 0)) is not None:
                curves[stage, when] = replace(roc, thresholds=1.0 / (1.0 + np.exp(-roc.thresholds)))
    if out is not None:
        write_rocs(out / "termination-roc.csv", curves)
        plot_rocs(out / "termination-roc.png", curves, names, areas)
    return report
