"""Learning curves: what is read from progress.csv, and that a picture comes out."""

import numpy as np
import pytest

from reinforcegen_envs.agents.plotting import plot_curves, read_progress
from reinforcegen_envs.errors import InvalidArgument

CSV = "step,seconds,charts/success,eval/success\n0,0.1,,0.5\n100,0.2,0.25,\n"


def test_empty_cells_are_nan(tmp_path):
    path = tmp_path / "progress.csv"
    path.write_text(CSV)
    columns = read_progress(path)
    np.testing.assert_array_equal(columns["step"], [0, 100])
    np.testing.assert_array_equal(columns["charts/success"], [np.nan, 0.25])


def test_a_run_that_has_logged_nothing(tmp_path):
    path = tmp_path / "progress.csv"
    path.write_text(CSV.splitlines()[0])
    with pytest.raises(InvalidArgument, match="progress.csv holds no rows"):
        read_progress(path)


def test_curves_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "progress.csv"
    path.write_text(CSV)
    plot_curves(tmp_path / "curve.png", {"a": [path], "b": [path, path]}, "title")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
