"""ROC curves and the area under them."""

import csv

import numpy as np
import pytest

from reinforcegen_envs.agents.roc import Roc, auc, plot_rocs, write_rocs


def test_area_is_the_part_of_pairs_that_are_in_order():
    rng = np.random.default_rng(0)
    for n in (2, 5, 40):
        for _ in range(20):
            scores, positive = rng.integers(0, 6, n).astype(float), rng.random(n) < 0.4  # with ties
            pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
            area = auc(scores, positive)
            assert area == pytest.approx(np.mean(pairs)) if pairs else area is None


def test_curves_of_what_is_told_apart_and_of_what_is_not():
    scores = np.array([0.1, 0.2, 0.3, 0.4])
    positive = np.array([False, False, True, True])
    assert (auc(scores, positive), auc(-scores, positive), auc(0 * scores, positive)) == (1.0, 0.0, 0.5)
    roc = Roc.of(scores, positive)
    assert roc is not None
    assert roc.thresholds.tolist() == [np.inf, 0.4, 0.3, 0.2, 0.1]
    assert roc.tpr.tolist() == [0, 0.5, 1, 1, 1] and roc.fpr.tolist() == [0, 0, 0, 0.5, 1]
    assert Roc.of(scores, np.ones(4, bool)) is None


def test_files_hold_the_ends_of_every_curve(tmp_path):
    rng = np.random.default_rng(1)
    positive = rng.random(5000) < 0.3
    scores = rng.normal(size=5000) + positive
    roc = Roc.of(scores, positive)
    assert roc is not None
    thin = roc.thinned(50)
    assert 40 < len(thin.tpr) <= 50
    assert np.sum(np.diff(thin.fpr) * (thin.tpr[1:] + thin.tpr[:-1]) / 2) == pytest.approx(
        auc(scores, positive), abs=0.01
    )
    curves = {("grasp", "before"): roc, ("grasp", "after"): thin}
    write_rocs(tmp_path / "roc.csv", curves)
    with open(tmp_path / "roc.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["stage", "when", "threshold", "tpr", "fpr"] and len(rows) <= 250
    for when in ("before", "after"):
        mine = [row for row in rows if row["when"] == when]
        assert (float(mine[0]["tpr"]), float(mine[0]["fpr"]), float(mine[0]["threshold"])) == (0, 0, np.inf)
        assert (float(mine[-1]["tpr"]), float(mine[-1]["fpr"])) == (1, 1)
    pytest.importorskip("matplotlib")
    plot_rocs(tmp_path / "roc.png", curves, ["grasp", "never"], {key: 0.9 for key in curves})
    assert (tmp_path / "roc.png").read_bytes()[:4] == b"\x89PNG"
