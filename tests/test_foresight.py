"""Foresight: the reward of a skill is how likely the later stages succeed, where that is asked for."""

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.observations import ObservationLayout
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.mlp import MLP, WeightsError, load_mlps
from reinforcegen_envs.policies.predictors import foresight_features
from reinforcegen_envs.registration import make_env
from reinforcegen_envs.tasks import TASKS, ThreadingTask

LAYOUT = ObservationLayout.of(ThreadingTask)
SIZE = len(foresight_features(LAYOUT))


def network(seed=0):
    weights = np.random.default_rng(seed).normal(0, 0.5, (1, SIZE)).astype(np.float32)
    return MLP([weights], [np.zeros(1, np.float32)])


@pytest.fixture
def folder(weights, tmp_path):
    """A copy of Threading's shipped weights, with a predictor that was not trained."""
    shutil.copytree(weights, tmp_path / "weights")
    bundle = Bundle.open(ThreadingTask, tmp_path / "weights")
    bundle.save("foresight", {"grasp": network()}, {})
    return bundle.folder


def episode(seed=0, **kwargs: Any):
    """The base policy's episode of a Residual environment: (observation, reward, success) of every step."""
    env = make_env("Threading", "D2", "Residual", **kwargs)
    env.reset(seed=seed)
    steps, done = [], False
    while not done:
        obs, reward, terminated, truncated, info = env.step(np.zeros(7))
        steps.append((obs, reward, info["success"]))
        done = terminated or truncated
    return steps


# --- the predictor ---


def test_probabilities_of_each_stage_alone_and_in_batches(folder):
    predictor = Bundle.open(ThreadingTask, folder).foresight()
    observations = np.random.default_rng(0).normal(0, 0.5, (6, LAYOUT.size)).astype(np.float32)
    observations[:, LAYOUT.slices["stage"]] = np.eye(2)[[0, 1, 0, 0, 1, 0]]
    found = predictor.act(observations)
    assert found.dtype == np.float64 and found.shape == (6,)
    assert (found[[1, 4]] == 1.0).all(), "after the last stage nothing is left to fail"
    logits = network().batch(observations[:, foresight_features(LAYOUT)])[:, 0]
    np.testing.assert_allclose(found[[0, 2, 3, 5]], 1 / (1 + np.exp(-logits[[0, 2, 3, 5]])), rtol=1e-5)
    np.testing.assert_array_equal(found, [predictor.act(row[None])[0] for row in observations])


def test_a_bundle_holds_one_network_for_every_stage_but_the_last(folder):
    bundle = Bundle.open(ThreadingTask, folder)
    bundle.check()
    assert "foresight" in [part.name for part in bundle.list()]
    with pytest.raises(InvalidArgument, match=r"\['grasp', 'insert'\].*foresight has \['grasp'\]"):
        bundle.save("foresight", {"grasp": network(), "insert": network()}, {})
    few = MLP([np.zeros((1, 3), np.float32)], [np.zeros(1, np.float32)])
    bundle.save("foresight", {"grasp": few}, {})
    with pytest.raises(WeightsError, match="maps 3 numbers"):
        bundle.check()
    bundle.remove("foresight")
    bundle.check()


def test_features_are_of_every_task():
    for task in TASKS.values():
        layout = ObservationLayout.of(task)
        features = foresight_features(layout)
        assert len(np.unique(features)) == len(features)
        stage, velocity = layout.indices("stage"), layout.indices("eef_vel_in_ref")
        assert set(features) == set(range(layout.size)) - set(stage) - set(velocity)


# --- the reward ---


def test_success_is_worth_the_probability_and_nothing_else_changes(folder):
    predictor = Bundle.open(ThreadingTask, folder).foresight()
    for seed in range(20):
        plain = episode(seed, stage="grasp", weights=str(folder))
        if plain[-1][2]:
            break
    seen = episode(seed, stage="grasp", weights=str(folder), foresight=True)
    assert len(plain) == len(seen)
    for (obs, reward, success), (other, foreseen, also) in zip(plain, seen, strict=True):
        np.testing.assert_array_equal(obs, other)
        assert success is also and (success or reward == foreseen == 0.0)
    assert plain[-1][1:] == (1.0, True)
    expected = float(predictor.act(seen[-1][0][None, : LAYOUT.size])[0])
    assert seen[-1][1] == expected and 0.0 < expected < 1.0
    path = shutil.copy(folder / "foresight.safetensors", folder.parent / "other.safetensors")
    assert episode(seed, stage="grasp", foresight=str(path))[-1][1] == expected
    assert episode(seed, stage="grasp", foresight=False)[-1][1] == 1.0


def test_the_last_stage_is_worth_one(folder):
    steps = [episode(seed, stage="insert", weights=str(folder), foresight=True)[-1] for seed in range(3)]
    assert any(success for _, _, success in steps)
    assert all(reward == float(success) for _, reward, success in steps)


def test_gymnasium_and_copies(folder):
    for mode in ("Skill", "Residual"):
        name = f"ReinforceGen/D2-Threading-{mode}-v0"
        env = gym.make(name, stage="grasp", weights=str(folder), foresight=True)
        check_env(env.unwrapped, skip_render_check=True)
        json.dumps(env.spec.to_json() if env.spec else "")


def test_what_is_wrong_is_said(folder, weights, tmp_path):
    with pytest.raises(
        WeightsError, match=r"no foresight weights .*agents\.foresight --task Threading.*leave foresight"
    ):
        make_env("Threading", "D2", "Residual", stage="grasp", weights=str(weights), foresight=True)
    with pytest.raises(WeightsError, match="no foresight weights .*nowhere"):
        make_env("Threading", "D2", "Skill", stage="grasp", foresight=str(tmp_path / "nowhere.safetensors"))
    with pytest.raises(WeightsError, match="made for kind 'base'"):
        make_env("Threading", "D2", "Skill", stage="grasp", foresight=str(Path(weights) / "base.safetensors"))
    with pytest.raises(InvalidArgument, match=r"\['foresight'\] belong to one stage's skill"):
        make_env("Threading", "D2", "Residual", weights=str(folder), foresight=True)
    with pytest.raises(InvalidArgument, match="foresight 1 must be"):
        make_env("Threading", "D2", "Residual", stage="grasp", weights=str(folder), foresight=1)
    make_env("Threading", "D2", "Residual", foresight=False)


# --- training ---


def test_trainers_pass_it_on_only_where_it_is_asked_for(folder):
    from reinforcegen_envs.agents.arguments import RunArgs
    from reinforcegen_envs.agents.common import env_factory

    args = {"stage": "grasp", "weights": folder}
    plain, seeing = (env_factory(RunArgs(**args, foresight=flag))() for flag in (False, True))  # type: ignore[arg-type]
    assert plain.spec and seeing.spec
    assert "foresight" not in plain.spec.kwargs and seeing.spec.kwargs["foresight"] is True
    env_factory(RunArgs("Pendulum-v1"))()
    with pytest.raises(InvalidArgument, match="takes no argument 'foresight'; leave out --foresight"):
        env_factory(RunArgs("Pendulum-v1", foresight=True))()


def test_what_can_be_foreseen_is_learned_and_calibrated():
    pytest.importorskip("torch")
    from reinforcegen_envs.agents import foresight

    rng = np.random.default_rng(0)

    def examples(n):
        features = rng.normal(0, 1, (n, SIZE)).astype(np.float32)
        probability = 1 / (1 + np.exp(-(2.0 + 2.0 * features[:, 0])))
        return foresight.Examples(features, (rng.random(n) < probability).astype(np.float32)), probability

    args = foresight.Args(steps=400)
    (training, _), (held_out, probability) = examples(2000), examples(2000)
    learned = foresight.fit(training, args)
    predicted = 1 / (1 + np.exp(-learned.batch(held_out.features)[:, 0].astype(np.float64)))
    report = foresight.judged(predicted, held_out.succeeded)
    assert report["auc"] > 0.75 and report["brier"] < report["brier_of_mean"]
    assert np.corrcoef(predicted, probability)[0, 1] > 0.8
    assert all(abs(part["predicted"] - part["success"]) < 0.12 for part in report["calibration"])
    assert sum(part["ends"] for part in report["calibration"]) == report["ends"] == 2000

    always = foresight.Examples(training.features[:8], np.ones(8, np.float32))
    constant = foresight.fit(always, args).batch(held_out.features[:3])[:, 0]
    np.testing.assert_allclose(1 / (1 + np.exp(-constant)), 0.9, rtol=1e-5)
    assert foresight.judged(np.zeros(0), np.zeros(0))["success"] is None


def test_logits_that_say_too_much_are_damped():
    pytest.importorskip("torch")
    from reinforcegen_envs.agents.foresight import calibration

    rng = np.random.default_rng(0)
    logits = rng.normal(1.0, 1.0, 4000)
    succeeded = (rng.random(4000) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    slope, shift = calibration((4.0 * logits).astype(np.float32), succeeded)
    assert slope == pytest.approx(0.25, abs=0.03) and shift == pytest.approx(0.0, abs=0.15)
    assert calibration((-logits).astype(np.float32), succeeded)[0] == 0.0, "never the wrong way round"
    slope, shift = calibration(np.ones(1, np.float32), np.zeros(1, np.float32))
    assert 0.0 <= slope <= 1.0 and -1.0 < shift < 0.0


def test_the_command_writes_predictors_and_what_they_are_worth(folder, capsys):
    pytest.importorskip("torch")
    from reinforcegen_envs.agents import foresight

    Bundle.open(ThreadingTask, folder).remove("foresight")
    args = foresight.Args(weights=folder, episodes=8, held_out=4, steps=20, workers=1, quiet=True)
    foresight.main(args)
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"grasp"} and 0 < report["grasp"]["ends"] <= 4
    networks, card = load_mlps(folder / "foresight.safetensors", kind="foresight", task="Threading")
    assert set(networks) == {"grasp"} and card["held_out"] == report
    assert (card["rollouts"], card["held_out_rollouts"], card["variant"]) == (8, 4, ["D2"])
    assert (folder / "foresight-roc.csv").is_file() and (folder / "foresight-roc.png").is_file()
    Bundle.open(ThreadingTask, folder).check()
    rewards = [episode(seed, stage="grasp", weights=str(folder), foresight=True)[-1][1] for seed in range(2)]
    assert max(rewards) > 0.3
    for wrong, message in (
        ({"task": "Origami"}, "Origami"),
        ({"termination": "soon"}, "soon"),
        ({"variant": ("D2", "D9")}, "D9"),
        ({"steps": 0}, "steps is 0"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            foresight.main(foresight.Args(weights=folder, **wrong))


def test_ends_are_seen_in_the_frame_of_the_skill_that_ended(folder):
    pytest.importorskip("torch")
    from reinforcegen_envs.agents import foresight

    player = foresight.Player(foresight.Args(weights=folder))
    found = [player.play(seed) for seed in range(6)]
    ends = [end for ends, _ in found for end in ends]
    assert len(ends) >= 4 and any(success for _, success in found)
    for stage, obs in ends:
        assert stage == 0 and obs.shape == (LAYOUT.size,)
        assert obs[LAYOUT.slices["stage"]].tolist() == [1, 0]
        np.testing.assert_allclose(obs[LAYOUT.slices["needle_pos_in_ref"]], 0, atol=1e-6)
    again = [player.play(seed) for seed in range(2)]
    for (before, success), (after, also) in zip(found[:2], again, strict=True):
        assert success is also
        np.testing.assert_array_equal([obs for _, obs in before], [obs for _, obs in after])
