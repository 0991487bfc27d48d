"""robomimic's own scripts on a generated file: train, play back, roll out; and its policy as a base policy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from reinforcegen_envs.demos import hdf5
from reinforcegen_envs.demos.generate import Args, generate
from reinforcegen_envs.registration import make_env

pytest.importorskip("robomimic", reason="robomimic is not installed")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with two generated demonstrations and the shipped configuration, made short."""
    folder = tmp_path_factory.mktemp("robomimic")
    generate(Args(variant="D0", count=2, out=folder / "d0.hdf5", workers=1, quiet=True))
    config = json.loads(Path(hdf5.__file__).with_name("robomimic_bc.json").read_text())
    config["experiment"] |= {"epoch_every_n_steps": 3, "rollout": {"n": 1, "horizon": 5, "rate": 1}}
    config["experiment"]["save"]["every_n_epochs"] = 1
    config["train"] |= {"num_epochs": 1, "batch_size": 16, "output_dir": str(folder / "runs")}
    (folder / "bc.json").write_text(json.dumps(config))
    return folder


def script(folder, *words):
    """What one of the scripts prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    run = subprocess.run(
        [sys.executable, "-m", "reinforcegen_envs.robomimic", *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return run.stdout


@pytest.fixture(scope="module")
def checkpoint(folder):
    """Trained by robomimic's script, a few gradient steps."""
    script(folder, "prepare", "--data", "d0.hdf5", "--out", "prepared.hdf5")
    said = script(folder, "train", "--config", "bc.json", "--dataset", "prepared.hdf5")
    assert "finished run successfully!" in said and "Success_Rate" in said, said[-2000:]
    return next((folder / "runs").rglob("*.pth"))


def test_the_file_holds_what_robomimic_reads(folder):
    with h5py.File(folder / "d0.hdf5") as file:
        env_args = json.loads(file["data"].attrs["env_args"])  # type: ignore[arg-type]
        assert env_args["env_name"] == "ReinforceGen/D0-Threading-Hybrid-v0" and env_args["type"] == 2
        assert "skills" in file["data"].attrs["rows"]  # type: ignore[operator]
        assert {"actions", "states", "rewards", "dones", "obs", "next_obs"} <= set(file["data/demo_0"])  # type: ignore[arg-type]


def test_prepared_actions_are_the_labels_in_the_frame_of_the_observations(folder, checkpoint):
    (plain, _), (demo, _) = (hdf5.read_demos(folder / name) for name in ("d0.hdf5", "prepared.hdf5"))
    labels = plain.datagen_info["label_action"]
    length, expected = (np.linalg.norm(a[:, :3].astype(float), axis=1) for a in (demo.actions, labels))
    inside = np.abs(demo.actions[:, :6]).max(axis=1) < 1  # the others are cut
    np.testing.assert_allclose(length[inside], expected[inside], atol=1e-5)
    assert inside.mean() > 0.5 and not np.allclose(demo.actions[:, :3], labels[:, :3])
    assert (demo.actions[:, 6] >= labels[:, 6]).mean() > 0.9  # fingers close no later
    assert "reference object" in hdf5.read_attrs(folder / "prepared.hdf5")["actions"]


def test_it_plays_back_states_and_actions(folder):
    for words in ((), ("--use-actions",)):
        said = script(folder, "playback", "--dataset", "d0.hdf5", "--n", "1", *words)
        assert "Playing back episode: demo_0" in said


def test_it_rolls_out(folder, checkpoint):
    said = script(folder, "rollout", "--agent", str(checkpoint), "--n_rollouts", "1", "--horizon", "5", "--seed", "0")
    assert "Success_Rate" in said


def test_it_is_a_base_policy(checkpoint):
    from reinforcegen_envs.robomimic import CheckpointPolicy

    policy = CheckpointPolicy(checkpoint)
    assert policy.frame == "reference"
    env = make_env("Threading", "D0", "Residual", base_policy=policy)
    env.reset(seed=0)
    rows = [env.step(np.zeros(7))[0][-7:] for _ in range(3)]
    assert np.isfinite(rows).all() and not np.array_equal(rows[0], rows[1])


def test_states_are_gone_to_exactly(folder):
    from reinforcegen_envs.robomimic import GymnasiumEnv

    env = GymnasiumEnv("ReinforceGen/D0-Threading-Hybrid-v0", termination="sustained")
    env.reset()
    state = env.get_state()
    ahead = [env.step(np.full(7, 0.1))[0]["state"] for _ in range(3)]
    env.reset_to(state)
    np.testing.assert_array_equal([env.step(np.full(7, 0.1))[0]["state"] for _ in range(3)], ahead)
    demo = hdf5.read_demos(folder / "d0.hdf5")[0]
    assert demo.states is not None
    observation = env.reset_to({"states": demo.states[0]})["state"]
    np.testing.assert_allclose(observation[:9], demo.obs["state"][0][:9], atol=1e-5)
