"""Bad input to ids, environments, weights and commands: one clear error that names what is allowed."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import reinforcegen_envs  # noqa: F401 (registers the ids)
from reinforcegen_envs import evaluate
from reinforcegen_envs.policies.mlp import MLP, WeightsError, load_mlps, save_mlps
from reinforcegen_envs.registration import make_env

NAMES = ("Threading", "Threading-Hybrid", "Threading-Skill", "Threading-Residual")


def make(name, weights, **kwargs: Any) -> Any:
    if "-" in name:
        kwargs.setdefault("weights", weights)
    return gym.make(f"ReinforceGen/D2-{name}-v0", disable_env_checker=True, **kwargs)


# --- ids and arguments ---


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("D2-Threadin-v0", ["doesn't exist in namespace ReinforceGen", "Did you mean: `D2-Threading`"]),
        ("D7-Threading-v0", ["doesn't exist in namespace ReinforceGen", "Did you mean"]),
        ("D2-Threading-Hybird-v0", ["doesn't exist in namespace ReinforceGen", "Did you mean"]),
        ("D2-Threading-Skill-v7", ["`v7`", "`v0`"]),
    ],
)
def test_unknown_ids(name, parts):
    with pytest.raises(gym.error.Error) as info:
        gym.make(f"ReinforceGen/{name}")
    assert all(part in str(info.value) for part in parts)


def test_unknown_mode():
    with pytest.raises(ValueError, match=r"unknown mode 'Teleport'.*Hybrid.*Skill.*Residual"):
        make_env("Threading", "D2", "Teleport")


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("Threading", {"stage": "grasp"}, r"D2-Threading-v0 got an unexpected keyword argument 'stage'.*obs_mode"),
        ("Threading-Hybrid", {"stage": "grasp"}, r"got an unexpected keyword argument 'stage'.*termination"),
        (
            "Threading-Hybrid",
            {"residual_scale": 0.1},
            r"got an unexpected keyword argument 'residual_scale'.*pose_noise",
        ),
        ("Threading-Skill", {"base_policy": "x"}, r"got an unexpected keyword argument 'base_policy'.*earlier_policy"),
        ("Threading-Residual", {"scale": 0.1}, r"got an unexpected keyword argument 'scale'.*residual_scale"),
        ("Threading-Skill", {"stage": "polish"}, r"no stage 'polish'.*\['grasp', 'insert'\]"),
        ("Threading-Residual", {"stage": 1}, r"no stage 1;.*\['grasp', 'insert'\]"),
        ("Threading-Residual", {"pool": "pool.npz"}, r"\['pool'\] belong to one stage.*stage="),
        ("Threading-Hybrid", {"termination": "soon"}, "'soon'.*'predicate', 'sustained', 'predictor'"),
        ("Threading-Residual", {"initiation": "guess"}, "'guess'.*'teacher', 'student'"),
        ("Threading-Hybrid", {"obs_mode": "smell"}, "'smell'.*'state'"),
        ("Threading-Residual", {"residual_scale": 0}, r"residual_scale 0 .*\(0, 1\]"),
        ("Threading-Residual", {"residual_scale": 2}, r"residual_scale 2 .*\(0, 1\]"),
        ("Threading-Residual", {"residual_scale": float("nan")}, r"residual_scale nan .*\(0, 1\]"),
        ("Threading-Residual", {"residual_scale": "big"}, r"residual_scale 'big' .*\(0, 1\]"),
        ("Threading-Residual", {"base_policy": 3}, "base_policy 3 must be None, a path.*callable"),
        ("Threading-Hybrid", {"pose_noise": (-0.01, 0.0)}, "pose_noise.*metres, radians.*at least 0"),
        ("Threading-Hybrid", {"pose_noise": (0.0, float("inf"))}, "pose_noise.*metres, radians"),
        ("Threading-Skill", {"pose_noise": (0.0, 0.0, 0.0)}, "pose_noise.*metres, radians"),
        ("Threading-Skill", {"pose_noise": 0.01}, "pose_noise.*metres, radians"),
        ("Threading-Skill", {"pose_noise": ("a", "b")}, "pose_noise.*metres, radians"),
    ],
)
def test_arguments_that_are_not_allowed(name, kwargs, message, weights):
    with pytest.raises(ValueError, match=message):
        make(name, weights, **kwargs)


@pytest.mark.parametrize("name", NAMES)
def test_bad_actions_are_refused_and_change_nothing(name, weights):
    env = make(name, weights)
    env.reset(seed=0)
    get_state = env.get_wrapper_attr("get_state")
    before = get_state().simulation
    for action, message in (
        (np.zeros(6), r"shape \(6,\).*\(7,\)"),
        (np.zeros((1, 7)), r"shape \(1, 7\).*\(7,\)"),
        (0.0, r"shape \(\).*\(7,\)"),
        (np.full(7, np.nan), "NaN"),
        ([0, 0, np.inf, 0, 0, 0, 0], "finite"),
        ("up", "'up' must be 7 numbers"),
        (None, r"\(7,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            env.step(action)
        np.testing.assert_equal(get_state().simulation, before)
    env.step(np.zeros(7))


@pytest.mark.parametrize("name", NAMES)
def test_actions_out_of_range_are_cut(name, weights):
    observations = []
    for size in (1.0, 50.0):
        env = make(name, weights)
        env.reset(seed=0)
        observations.append(env.step(size * np.array([1.0, -1, 1, -1, 1, -1, 1]))[0])
    np.testing.assert_array_equal(*observations)


@pytest.mark.parametrize("name", NAMES)
def test_bad_reset_options_are_refused(name, weights):
    env = make(name, weights)
    for options, message in (
        ({"speed": 2}, "speed.*joints.*layout"),
        ({"layout": {"cup": np.zeros(7)}}, "cup.*needle.*tripod"),
        ({"joints": np.zeros(6)}, r"joints.*\(6,\).*\(7,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            env.reset(seed=0, options=options)


# --- weights ---


@pytest.fixture
def folder(weights, tmp_path):
    """A copy of the weights, to be damaged."""
    path = tmp_path / "weights"
    shutil.copytree(weights, path)
    return path


def refuse(folder, message, **kwargs):
    """The Residual id with everything learned must name the file and what is wrong with it."""
    learned = {"termination": "predictor", "initiation": "student"}
    with pytest.raises(ValueError, match=message) as info:
        make("Threading-Residual", str(folder), **learned, **kwargs)
    assert str(folder) in str(info.value)


FILES = ("base", "termination", "initiation")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("task", "Coffee", "for task 'Coffee', but 'Threading' is needed"),
        ("version", 99, "for version 99, but 0 is needed"),
        ("observation_size", 12, r"for observation_size 12, but \d+ is needed"),
        ("kind", "sauce", "for kind 'sauce', but '.*' is needed"),
    ],
)
def test_weights_for_something_else(file, key, value, message, folder):
    networks, card = load_mlps(folder / f"{file}.safetensors")
    save_mlps(folder / f"{file}.safetensors", networks, {**card, key: value})
    refuse(folder, rf"{file}.safetensors was made {message}")


@pytest.mark.parametrize("file", FILES)
def test_weights_with_other_networks(file, folder):
    path = folder / f"{file}.safetensors"
    networks, card = load_mlps(path)
    save_mlps(path, {"grasp": networks["grasp"]}, card)
    refuse(folder, rf"{file}.safetensors lacks network 'insert'")
    save_mlps(path, {**networks, "grasp": MLP([np.zeros((7, 5))], [np.zeros(7)])}, card)
    refuse(folder, rf"{file}.safetensors: network 'grasp' maps 5 numbers to 7, needed are \d+ to \d+")


@pytest.mark.parametrize("file", FILES)
def test_damaged_weights(file, folder):
    path = folder / f"{file}.safetensors"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:20], b"", b"weights go here"):
        path.write_bytes(content)
        refuse(folder, f"{file}.safetensors is not a complete safetensors file.*again")
    path.unlink()
    refuse(folder, f"no weights file .*{file}.safetensors")


def test_files_of_other_programs(folder):
    from safetensors.numpy import save_file

    path = folder / "base.safetensors"
    save_file({"a": np.zeros(3)}, str(path))
    refuse(folder, "format None, not 'reinforcegen-mlp-1'; it was not written by this package")
    save_file({"a": np.zeros(3)}, str(path), metadata={"card": "{not json"})
    refuse(folder, "it was not written by this package")
    card = '{"format": "reinforcegen-mlp-1", "networks": {"grasp": {"clip": 1}}}'
    save_file({"a": np.zeros(3)}, str(path), metadata={"card": card})
    with pytest.raises(WeightsError, match="does not hold the networks that its card names"):
        load_mlps(path)


def test_damaged_skeleton(folder):
    path = folder / "skeleton.npz"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"bones"):
        path.write_bytes(content)
        refuse(folder, "skeleton.npz is not a complete skeleton file.*agents.bc")
    path.unlink()
    refuse(folder, "skeleton.npz is not a complete skeleton file.*No such file")


def test_missing_weights(tmp_path, weights):
    refuse(tmp_path / "nowhere", "no weights folder .*nowhere.*agents.bc")
    with pytest.raises(WeightsError, match="no weights file nowhere.safetensors"):
        make("Threading-Residual", weights, base_policy="nowhere.safetensors")


def test_residual_weights_for_something_else(tmp_path, weights):
    path = tmp_path / "residual.safetensors"
    network = MLP([np.zeros((7, 53))], [np.zeros(7)])
    good = {"kind": "residual", "task": "Threading", "observation_size": 53, "residual_scale": 0.1}

    def refuse_residual(message, networks, policy=None, **changes):
        save_mlps(path, networks, {**good, **changes})
        with pytest.raises(WeightsError, match=message):
            evaluate.make(evaluate.Args(policy=policy or str(path), weights=weights))

    refuse_residual("for task 'Coffee'", {"all": network}, task="Coffee")
    refuse_residual("for observation_size 46, but 53", {"all": network}, observation_size=46)
    refuse_residual("for kind 'base', but 'residual'", {"all": network}, kind="base")
    refuse_residual(r"for stages \['polish'\]; Threading has \['grasp', 'insert'\]", {"polish": network})
    small = MLP([np.zeros((7, 46))], [np.zeros(7)])
    refuse_residual("'grasp' maps 46 numbers to 7, needed are 53 to 7", {"grasp": small})
    other = tmp_path / "other.safetensors"
    save_mlps(other, {"insert": network}, {**good, "residual_scale": 0.3})
    refuse_residual("different scales", {"grasp": network}, policy=f"{path},{other}")
    save_mlps(path, {"grasp": network}, good)
    env, _ = evaluate.make(evaluate.Args(policy=str(path), weights=weights))
    assert env.get_wrapper_attr("residual_scale") == 0.1


# --- commands ---

COMMANDS = (
    "reinforcegen_envs.evaluate",
    "reinforcegen_envs.demos.generate",
    "reinforcegen_envs.demos.collect",
    "reinforcegen_envs.wrappers.fill_pool",
    "reinforcegen_envs.agents.bc",
    "reinforcegen_envs.agents.td3_residual",
    "reinforcegen_envs.agents.ppo_residual",
    "reinforcegen_envs.agents.termination",
    "reinforcegen_envs.agents.foresight",
)


def command(monkeypatch, capsys, module, *options):
    """Run ``python -m module options`` in this process; returns exit status, standard output and error."""
    monkeypatch.setattr(sys, "argv", [module, *map(str, options)])
    monkeypatch.delitem(sys.modules, module, raising=False)  # else runpy warns that it is imported already
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    captured = capsys.readouterr()
    return exit_info.value.code, captured.out, captured.err


@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_has_help(module, monkeypatch, capsys):
    code, out, _ = command(monkeypatch, capsys, module, "--help")
    assert code == 0 and "--seed" in out


@pytest.mark.parametrize(
    ("module", "options", "parts"),
    [
        (
            "evaluate",
            ["--env-id", "ReinforceGen/D9-Threading-Hybrid-v0"],
            ["D9-Threading-Hybrid", "unknown id", "D0, D1, D2"],
        ),
        (
            "evaluate",
            ["--env-id", "ReinforceGen/D2-Threading-v0"],
            ["no hybrid control", "D0, D1, D2", "Threading", "Hybrid, Skill, Residual"],
        ),
        ("evaluate", ["--policy", "nowhere.safetensors"], ["no weights file nowhere.safetensors"]),
        ("evaluate", ["--policy", "base", "--stage", "polish"], ["'polish'", "['grasp', 'insert']"]),
        ("evaluate", ["--policy", "base", "--termination", "soon"], ["'soon'", "predicate", "predictor"]),
        ("evaluate", ["--policy", "base", "--episodes", "0"], ["episodes is 0", "at least 1"]),
        ("evaluate", ["--policy", "base", "--workers", "-1"], ["workers is -1", "at least 0"]),
        ("evaluate", ["--policy", "base", "--first-seed", "-1"], ["first_seed is -1", "at least 0"]),
        ("evaluate", ["--policy", "base", "--pose-noise", "nan", "0"], ["pose_noise is", "nan", "at least 0"]),
        ("evaluate", ["--policy", "base", "--video-every", "0"], ["video_every is 0", "at least 1"]),
        ("evaluate", ["--policy", "base", "--csv", "."], ["is a folder", "name a file"]),
        ("evaluate", ["--policy", "base", "--video", "x.txt"], ["'.txt'", "'.mp4'"]),
        ("evaluate", ["--policy", "base", "--task", "Origami"], ["Origami", "unknown id", "Threading"]),
        ("evaluate", ["--policy", "shipped"], ["'shipped'", "use tuned"]),
        ("evaluate", ["--task-module", "nowhere"], ["no module 'nowhere'", "register_task"]),
        ("demos.generate", ["--task", "Origami"], ["'Origami'", "'Threading', 'ThreePieceAssembly'"]),
        ("demos.generate", ["--variant", "D9"], ["'D9'", "['D0', 'D1', 'D2']"]),
        ("demos.generate", ["--source", "nowhere.hdf5"], ["nowhere.hdf5", "name a file that exists"]),
        ("demos.generate", ["--count", "0"], ["count is 0", "at least 1"]),
        ("demos.generate", ["--seed", "-1"], ["seed is -1", "at least 0"]),
        ("demos.generate", ["--action-noise", "nan"], ["action_noise is nan", "at least 0"]),
        ("demos.generate", ["--noise-memory", "2"], ["noise_memory is 2", "at most 1"]),
        ("demos.generate", ["--start-noise", "-1", "0"], ["start_noise is", "-1", "at least 0"]),
        ("demos.generate", ["--max-attempts", "0", "--workers", "-2"], ["max_attempts is 0", "workers is -2"]),
        ("demos.generate", ["--out", "."], ["is a folder", "name a file"]),
        ("demos.collect", ["--task", "Origami"], ["'Origami'", "'Threading', 'ThreePieceAssembly'"]),
        ("demos.collect", ["--count", "0"], ["count is 0", "at least 1"]),
        ("demos.collect", ["--seed", "-1"], ["seed is -1", "at least 0"]),
        ("demos.collect", ["--out", "."], ["is a folder", "name a file"]),
        ("wrappers.fill_pool", ["--stage", "polish"], ["'polish'", "['grasp', 'insert']"]),
        ("wrappers.fill_pool", ["--count", "0"], ["count is 0", "at least 1"]),
        ("wrappers.fill_pool", ["--seed", "-1"], ["seed is -1", "at least 0"]),
        ("wrappers.fill_pool", ["--pose-noise", "inf", "0"], ["pose_noise is", "inf", "at least 0"]),
        ("wrappers.fill_pool", ["--believe-from", "insert"], ["'insert'", "'truth'", "choose 'camera'"]),
        (
            "wrappers.fill_pool",
            ["--perception", "camera", "--believe-from", "polish"],
            ["'polish'", "['grasp', 'insert']"],
        ),
        ("wrappers.fill_pool", ["--earlier-policy", "best"], ["'best'", "'base', 'tuned'"]),
        ("wrappers.fill_pool", ["--out", "."], ["is a folder", "name a file"]),
        ("agents.bc", ["--data", "nowhere.hdf5"], ["nowhere.hdf5", "name a file that exists"]),
        ("agents.bc", ["--data", "x", "--learning-rate", "nan"], ["learning_rate is nan"]),
        ("agents.bc", ["--data", "x", "--steps", "0"], ["steps is 0", "at least 1"]),
        ("agents.td3_residual", ["--env-id", "ReinforceGen/D2-Threading-Residal-v0"], ["doesn't exist"]),
        ("agents.ppo_residual", ["--stage", "polish"], ["'polish'", "['grasp', 'insert']"]),
        ("agents.td3_residual", ["--resume"], ["no checkpoint", "without --resume"]),
    ],
)
def test_a_command_says_in_one_line_what_is_wrong(module, options, parts, weights, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    if module in ("evaluate", "wrappers.fill_pool") or module.endswith("_residual"):
        options = [*options, "--weights", weights]
    code, _, err = command(monkeypatch, capsys, f"reinforcegen_envs.{module}", *options)
    lines = err.strip().splitlines()
    assert code == 2 and len(lines) == 1 and lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]
    assert not list(tmp_path.iterdir()), "something was written"


def test_the_environment_has_one_name(monkeypatch, capsys):
    options = ["--env-id", "ReinforceGen/D0-Threading-Residual-v0", "--task", "Coffee"]
    code, _, err = command(monkeypatch, capsys, "reinforcegen_envs.evaluate", *options)
    assert code == 2 and "give one of them" in err and err.count("\n") == 1


def test_a_users_error_is_no_traceback_in_a_real_process():
    command = [sys.executable, "-m", "reinforcegen_envs.evaluate", "--env-id", "Pendulum-v1"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2 and run.stdout == ""
    assert re.fullmatch(r"error: Pendulum-v1 has no hybrid control; choose .*Residual\n", run.stderr)


def test_a_defect_keeps_its_traceback(monkeypatch):
    from reinforcegen_envs import cli

    def defect(args):
        np.add(np.zeros(3), np.zeros(4))

    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(ValueError, match="broadcast"):
        cli.run(defect, evaluate.Args)
    assert Path(str(cli.__file__)).is_file()
