"""The command that trains camera estimators, at a budget that teaches nothing."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from drawing import draws

pytest.importorskip("torch")
from reinforcegen_envs.agents import measure, perceive
from reinforcegen_envs.agents.perceive import Args, NothingPlayedError, weights_of
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.perception.camera_errors import load_model
from reinforcegen_envs.perception.frames import States
from reinforcegen_envs.perception.network import load_estimator
from reinforcegen_envs.policies.bundle import SHIPPED
from reinforcegen_envs.policies.weights_file import WeightsError
from reinforcegen_envs.tasks import TASKS

pytestmark = draws  # test_what_draws runs them where this process cannot


@pytest.fixture
def args(tmp_path):
    """Arguments of a tiny run."""
    weights = tmp_path / "weights"
    shutil.copytree(SHIPPED / "threading", weights)
    return Args(
        weights=weights, out=tmp_path / "run", variant=("D0",), episodes=2, own_episodes=2, frames=64, passes=1.0, batch_size=16,
        warm_start=True, learning_rate=1e-6, workers=1, quiet=True,
    )  # fmt: skip


def test_rounds_leave_an_estimator_and_are_not_run_again(args, capsys):
    perceive.main(args)
    network, card = load_estimator(args.weights / "estimator.safetensors", task="Threading", kind="estimator")
    _, shipped = load_estimator(SHIPPED / "threading" / "estimator.safetensors", task="Threading", kind="estimator")
    before = shipped["round"]
    assert network.size == 84 and card["round"] == before + 2 and card["frames"] > 100
    first, second = (json.loads((args.out / f"round-{i}.json").read_text()) for i in (0, 1))
    # What goes on from an estimator plays with it from the first round on.
    for summary in (first, second):
        assert {line["object"] for line in summary["accuracy"]} == {"needle", "tripod"}
    assert set(second["coverage"]) == {"0.5", "0.9", "0.99"}
    states = States.load(args.out / "states-0.npz")
    assert set(states.seed) <= set(
        range(perceive.FIRST_SEED + 10_000 * (before + 1), perceive.FIRST_SEED + 10_000 * (before + 2))
    )
    assert len(states) > 20 and weights_of(states).sum() == pytest.approx(1.0)
    assert (args.out / "progress.csv").read_text().startswith("round,step,nll,seconds")
    pictures = {path.name for path in args.out.glob("*.png")}
    assert pictures == {"progress.png", "calibration-0.png", "calibration-1.png"}
    assert "round 1: played with success" in capsys.readouterr().out
    written = os.stat(args.weights / "estimator.safetensors").st_mtime_ns
    perceive.main(args)
    assert os.stat(args.weights / "estimator.safetensors").st_mtime_ns == written


def test_a_folder_with_rounds_of_other_settings_is_not_gone_on_with(args):
    """It would take Threading's accuracy for Coffee's, and train nothing."""
    args.out.mkdir()
    settings = {name: str(value) for name, value in vars(args).items() if name not in perceive.NOT_SETTINGS}
    (args.out / "settings.json").write_text(json.dumps(settings | {"task": "Coffee"}))
    (args.out / "states-0.npz").touch()
    for i in range(2):
        (args.out / f"round-{i}.json").write_text(json.dumps({"success": 1.0, "accuracy": []}))
    with pytest.raises(InvalidArgument, match=r"holds rounds of other settings, see its settings\.json"):
        perceive.main(args)
    (args.out / "settings.json").unlink()  # as older versions left it
    perceive.main(args)
    perceive.main(Args(**{**vars(args), "workers": 2}))
    with pytest.raises(InvalidArgument, match="other settings"):
        perceive.main(Args(**{**vars(args), "frames": 128}))


def test_numbers_are_told_apart_by_what_they_are():
    task = TASKS["CoffeePreparation"]
    objects = len(task.objects)
    labels = np.zeros((objects, 2, 3, 3))
    labels[:, 0, 0], labels[:, 1, 0], labels[:, 0, 1:], labels[:, 1, 1:] = 1, 2, 3, 4
    row = np.concatenate([labels.ravel(), np.full(len(task.joints), 5)])
    kinds = perceive.by_kind(np.array([row, row]), objects)
    assert [np.unique(part).tolist() for part in kinds.values()] == [[1], [2], [3], [4], [5]]
    assert "joints" not in perceive.by_kind(np.zeros((2, 18)), 1)


def test_own_episodes_begin_to_believe_pictures_at_every_stage_in_turn(args):
    player, cycle = perceive.Player(args, cameras=True), len(perceive.SETTINGS)
    for index, first in ((0, 0), (cycle, 1), (2 * cycle, 0)):
        _, rows, _ = player.play((perceive.FIRST_SEED, index))
        assert min((row.stage for row in rows), default=first) == first
        assert all(row.metres > 0.0 for row in rows)  # none of truth


def test_an_estimator_that_knows_nothing_is_told_of(args, monkeypatch):
    play = perceive.Player.play

    def nothing_within_reach(player, job):
        return (None, [], False) if job[0] >= perceive.FIRST_SEED + 10_000 else play(player, job)

    monkeypatch.setattr(perceive.Player, "play", nothing_within_reach)
    with pytest.raises(NothingPlayedError, match="round 1.*within reach.*more frames"):
        perceive.main(Args(**{**vars(args), "warm_start": False, "size": 32, "own_episodes": 1}))


def test_what_it_cannot_do_is_said_at_once(args, tmp_path):
    for changes, error, message in (
        ({"task": "Knitting"}, InvalidArgument, "unknown task"),
        ({"variant": ("D9",)}, InvalidArgument, "unknown variants"),
        ({"weights": tmp_path / "none"}, WeightsError, "no weights folder"),
    ):
        with pytest.raises(error, match=message):
            perceive.main(Args(**{**vars(args), **changes}))


def test_measuring_leaves_a_model_of_errors_and_a_table(args, tmp_path, capsys):
    out = tmp_path / "measured"
    measured = measure.main(
        measure.Args(weights=args.weights, out=out, variant="D0", episodes=2, workers=1, quiet=True)
    )
    assert json.loads((out / "accuracy.json").read_text()) == measured and measured["episodes"] == 2
    arrived = {(row["stage"], row["object"]): row for row in measured["accuracy"] if row["phase"] == "arrived"}
    assert arrived["grasp", "needle"]["mm"] < 10
    model = load_model(args.weights / "camera_errors.json", TASKS["Threading"])
    # Heights of what stands on the table are known.
    assert (
        0 <= model.lasting.min() and 0 < np.median(model.lasting) and model.lasting.max() < 0.5 and 0 < model.memory < 1
    )
    assert "end of the connect to grasp: needle" in capsys.readouterr().out
    with pytest.raises(InvalidArgument, match="unknown task"):
        measure.main(measure.Args(task="Knitting", out=out))
