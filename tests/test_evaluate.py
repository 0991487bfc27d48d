"""The evaluation command: what it counts, prints and writes, and that workers and seeds change nothing."""

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from reinforcegen_envs import evaluate
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.policies.mlp import MLP, WeightsError, save_mlps
from reinforcegen_envs.statistics import wilson_interval
from reinforcegen_envs.workers import WorkerError, Workers

FIRST_SEED = 1_000_000


def arguments(weights, **kwargs):
    defaults = {"policy": "base", "episodes": 3, "seeds": 2, "workers": 1, "quiet": True}
    return evaluate.Args(**{**defaults, "weights": weights, **kwargs})


@pytest.fixture(scope="module")
def result(weights):
    """Six episodes of the base policy as deployed, in this process."""
    return evaluate.evaluate(arguments(weights))


def test_the_default_setting_is_deployment():
    args = evaluate.Args()
    assert (args.termination, args.initiation, args.first_seed) == ("predictor", "student", FIRST_SEED)
    assert args.env_id == "ReinforceGen/D2-Threading-Residual-v0" and args.stage is None


def test_replanning_and_looks_reach_the_environment(weights):
    for value in (False, True):
        env, _ = evaluate.make(arguments(weights, replan=value, randomize_visuals=value))
        env.reset(seed=0)
        engine: Any = env.unwrapped.engine  # type: ignore[attr-defined]
        assert (env.get_wrapper_attr("_approach").replan is not None) is value and (
            engine.sim.look is not None
        ) is value
        env.close()


def test_what_is_counted(result):
    each = result["each"]
    assert [episode.seed for episode in each] == list(range(FIRST_SEED, FIRST_SEED + 6))
    successes = sum(episode.success for episode in each)
    assert result["episodes"] == 6 and result["success"] == successes / 6
    assert result["interval"] == wilson_interval(successes, 6)
    assert result["reference_success"] >= result["success"]
    assert all(episode.reference_success for episode in each if episode.success)
    assert np.mean(result["per_seed"]) == pytest.approx(result["success"]) and len(result["per_seed"]) == 2
    assert list(result["stages"]) == ["grasp", "insert"]
    entered = [sum(episode.entered[i] for episode in each) for i in (0, 1)]
    assert entered[0] == 6 - sum("connect" in e.failure and "grasp" in e.failure for e in each)
    for stage, count in zip(result["stages"].values(), entered, strict=True):
        assert stage["entered"] == count >= stage["finished"]
        assert stage["interval"] == wilson_interval(stage["finished"], count)
    assert result["stages"]["insert"]["finished"] == successes
    assert sum(result["failures"].values()) == 6 - successes
    for episode in each:
        assert episode.success == (episode.failure == "")
        assert 0 < episode.connect_steps < episode.control_steps <= 400 + 100
        if episode.failure:
            assert episode.failure.split(": ")[0] in ("grasp", "insert")
    assert result["control_steps"] == np.mean([episode.control_steps for episode in each])
    assert result["settings"]["policy"] == "base" and result["settings"]["first_seed"] == FIRST_SEED


def test_two_workers_give_the_same(result, weights):
    parallel = evaluate.evaluate(arguments(weights, workers=2))
    assert parallel == result


def test_episodes_depend_on_their_seed_alone(result, weights):
    """Seed k's episode i is reset with first_seed + k * episodes + i, whatever was played before."""
    part = evaluate.evaluate(arguments(weights, first_seed=FIRST_SEED + 4, episodes=1, seeds=2))
    assert part["each"] == result["each"][4:]


def test_one_stage_alone(weights):
    args = arguments(weights, stage="grasp", episodes=4, seeds=1, termination="predicate", initiation="teacher")
    result = evaluate.evaluate(args)
    stages = result["stages"]
    assert stages["insert"]["entered"] == 0 and stages["insert"]["interval"] == (0.0, 1.0)
    assert stages["grasp"]["entered"] == 4
    assert stages["grasp"]["finished"] == 4 * result["success"] > 0


def test_pose_noise_and_terminations_reach_the_environment(weights):
    settings = {"pose_noise": (0.01, 0.05), "termination": "predicate", "initiation": "teacher"}
    env, _ = evaluate.make(arguments(weights, **settings))
    assert env.spec is not None
    assert {key: env.spec.kwargs[key] for key in settings} == settings


@pytest.mark.parametrize("mode", ["Hybrid", "Skill", "Residual"])
def test_random_actions_on_every_mode(mode, weights):
    args = arguments(weights, env_id=f"ReinforceGen/D0-Threading-{mode}-v0", policy="random", episodes=2, seeds=1)
    result = evaluate.evaluate(args)
    assert result["each"][0].control_steps > 0
    second = dataclasses.replace(args, episodes=1, first_seed=args.first_seed + 1)
    assert evaluate.evaluate(second)["each"] == result["each"][1:]  # on the episode's seed alone
    if mode != "Residual":
        with pytest.raises(ValueError, match="acts on a Residual id"):
            evaluate.make(arguments(weights, env_id=args.env_id))


def test_residual_weights_act(result, weights, tmp_path):
    """Zero networks leave the base policy as it is; others do not; one file serves one stage or all."""

    def weights_file(name, stage, value, scale=0.1):
        card = {"kind": "residual", "task": "Threading", "observation_size": 53, "residual_scale": scale}
        network = MLP([np.zeros((7, 53))], [np.full(7, value)], output="clip")
        save_mlps(tmp_path / f"{name}.safetensors", {stage: network}, card)
        return str(tmp_path / f"{name}.safetensors")

    zero = weights_file("zero", "all", 0.0)
    assert evaluate.evaluate(arguments(weights, policy=zero))["each"] == result["each"]
    up, none = weights_file("up", "insert", 1.0, 1.0), weights_file("none", "grasp", 0.0, 1.0)
    lifted = evaluate.evaluate(arguments(weights, policy=f"{up},{none}"))
    assert lifted["stages"]["grasp"] == result["stages"]["grasp"]
    assert lifted["success"] == 0.0 and lifted["stages"]["insert"]["entered"] > 0


def test_the_command_prints_json_last_and_writes_a_line_an_episode(result, weights, tmp_path):
    table = tmp_path / "new" / "episodes.csv"
    command = [sys.executable, "-m", "reinforcegen_envs.evaluate", "--policy", "base", "--weights", weights]
    command += ["--episodes", "3", "--seeds", "2", "--workers", "1", "--json", "--csv", str(table)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.strip().splitlines()
    printed = json.loads(lines[-1])
    assert {"success", "reference_success", "stages", "interval"} <= set(printed)
    expected = {key: value for key, value in result.items() if key != "each"}
    assert printed == json.loads(json.dumps(expected, default=str))
    assert f"success (strict)    {result['success']:.3f}" in run.stdout and "stage insert" in run.stdout
    assert "100%" in run.stderr and "success=" in run.stderr
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and list(rows[0])[:3] == ["seed", "success", "reference_success"]
    for row, episode in zip(rows, result["each"], strict=True):
        assert row["seed"] == str(episode.seed) and row["success"] == str(episode.success)
        assert row["entered"] == "".join(str(int(x)) for x in episode.entered)
        assert row["failure"] == episode.failure
    assert [path.name for path in table.parent.iterdir()] == ["episodes.csv"]


def test_videos_draw_at_least_every_step(weights, tmp_path):
    with pytest.raises(ValueError, match="video_every is 0"):
        evaluate.write_video(arguments(weights, video=tmp_path / "episode.mp4", video_every=0))


def test_quiet_prints_the_json_alone(weights, capsys):
    evaluate.main(arguments(weights, episodes=1, seeds=1, json=True))
    captured = capsys.readouterr()
    assert len(captured.out.strip().splitlines()) == 1 and captured.err == ""
    assert json.loads(captured.out)["episodes"] == 1


# --- videos ---


@pytest.mark.parametrize("stage", [None, "insert"])
def test_a_recording_has_a_frame_a_control_step(stage, result, weights, monkeypatch):
    """Connects and, for a stage's skill, the stages before it included; drawing changes nothing."""
    env, policy = evaluate.make(arguments(weights, stage=stage))
    core: Any = env.unwrapped
    monkeypatch.setattr(core, "render", lambda: core.data.time)
    played, frames = evaluate.record(env, policy, FIRST_SEED)
    assert played.connect_steps > 20 and len(frames) == played.control_steps
    assert np.diff(frames, prepend=0.0) == pytest.approx(0.05)
    assert evaluate.record(env, policy, FIRST_SEED, every=7) == (played, frames[::7])
    assert stage is not None or played == result["each"][0]
    drawn = len(frames)
    env.reset(seed=0)
    assert len(frames) == drawn  # nobody listens any more


def record(path, weights, **environment):
    command = [sys.executable, "-m", "reinforcegen_envs.evaluate", "--policy", "base", "--weights", weights]
    command += ["--episodes", "1", "--seeds", "1", "--workers", "1", "--quiet", "--video", str(path)]
    command += ["--stage", "grasp", "--termination", "predicate", "--video-every", "8"]
    variables = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MUJOCO_GL")}
    return subprocess.run(command, capture_output=True, text=True, env=variables | environment)


@pytest.mark.parametrize("backend", [None, "disabled"])
def test_a_video_without_opengl_is_refused_at_once(backend, weights, tmp_path):
    run = record(tmp_path / "episode.mp4", weights, **({} if backend is None else {"MUJOCO_GL": backend}))
    lines = [line for line in run.stderr.splitlines() if "GLFW" not in line and "warnings.warn" not in line]
    assert run.returncode == 2 and len(lines) == 1, run.stderr
    assert lines[0].startswith("error: cannot open an OpenGL context with MUJOCO_GL=")
    assert "MUJOCO_GL=egl" in lines[0] and "libosmesa6" in lines[0]
    assert run.stdout == "" and not list(tmp_path.iterdir())


def test_a_video_is_an_mp4(weights, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    run = record(tmp_path / "episode.mp4", weights, MUJOCO_GL="osmesa")
    if run.returncode and "OpenGL library" in run.stderr:
        pytest.skip("libosmesa6 is not installed")
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "episode.mp4").read_bytes()[4:8] == b"ftyp"
    assert [path.name for path in tmp_path.iterdir()] == ["episode.mp4"]


def test_a_missing_video_library_is_named(weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio", None)
    with pytest.raises(ImportError, match=r"imageio.*pip install reinforcegen-envs\[render\]"):
        evaluate.main(arguments(weights, video=tmp_path / "episode.mp4"))


def test_tuned_is_what_the_folder_holds_and_shipped_what_the_package_does(weights, tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    shutil.copytree(weights, folder)
    alike = {"episodes": 1, "seeds": 1}
    shipped = evaluate.evaluate(arguments(None, policy="shipped", **alike))
    assert evaluate.evaluate(arguments(None, policy="tuned", **alike))["each"] == shipped["each"]
    assert evaluate.evaluate(arguments(folder, policy="tuned", **alike))["each"] == shipped["each"]
    with pytest.raises(InvalidArgument, match=r"'shipped' is the package's own, and weights names .*; use tuned"):
        evaluate.make(arguments(folder, policy="shipped"))
    for file in folder.glob("residual-*"):
        file.unlink()
    with pytest.raises(WeightsError, match=f"no residual weights in {folder}.*base"):
        evaluate.make(arguments(folder, policy="tuned"))
    monkeypatch.setattr("reinforcegen_envs.policies.bundle.SHIPPED", tmp_path)
    folder.rename(tmp_path / "threading")
    with pytest.raises(WeightsError, match="no residual weights are shipped for Threading; use --policy base"):
        evaluate.make(evaluate.Args(env_id="ReinforceGen/D0-Threading-Residual-v0"))


def test_failures_are_counted_by_stage_and_reason(weights):
    """Where the policies throw their objects about."""
    args = arguments(weights, env_id="ReinforceGen/D0-Threading-Residual-v0", policy="random", episodes=6, seeds=1)
    result = evaluate.evaluate(args)
    failed = [episode for episode in result["each"] if not episode.success]
    assert sum(result["failures"].values()) == len(failed) > 0
    for episode in failed:
        stage, _, reason = episode.failure.partition(": ")
        assert episode.failure == "" or (stage in ("grasp", "insert") and reason)


@pytest.mark.parametrize("output", ["csv", "video"])
def test_output_paths_are_checked_before_the_first_episode(output, weights, tmp_path, monkeypatch):
    def never(*_):
        raise AssertionError("an episode was played")

    monkeypatch.setattr("reinforcegen_envs.evaluation.command.make", never)
    (tmp_path / "file").touch()
    wrong: list[tuple[Path, str]] = [
        (tmp_path, "is a folder; name a file"),
        (tmp_path / "file" / "x.mp4", "is a file, not"),
    ]
    if output == "video":
        wrong.append((tmp_path / "x.txt", r"suffix '.txt'; choose one of \['.mkv', '.mov', '.mp4'\]"))
    for path, message in wrong:
        with pytest.raises(InvalidArgument, match=message):
            evaluate.main(arguments(weights, **{output: path}))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_killed_worker_is_an_error_not_a_wait(weights, monkeypatch):
    """Whoever kills one of the workers, as the system does when memory runs out."""
    started: list[Any] = []
    spawn = Workers._spawn

    def spawn_and_note(self):
        spawn(self)
        started[:] = self._processes.values()

    monkeypatch.setattr(Workers, "_spawn", spawn_and_note)
    monkeypatch.setattr("reinforcegen_envs.evaluation.command.tqdm", lambda **_: Killer(started))
    with pytest.raises(WorkerError, match="was ended by SIGKILL"):
        evaluate.evaluate(arguments(weights, workers=2, episodes=40))
    assert not any(process.is_alive() for process in started)


class Killer:
    """A progress bar that kills a worker at its first step."""

    def __init__(self, processes):
        self._processes = processes

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self):
        os.kill(self._processes[0].pid, signal.SIGKILL)

    def set_postfix(self, **_):
        pass


def test_ids_of_other_packages_are_refused(weights):
    with pytest.raises(ValueError, match="Pendulum-v1 has no hybrid control; choose"):
        evaluate.make(arguments(weights, env_id="Pendulum-v1"))
    assert "Pendulum-v1" in gym.registry


def test_another_shards_table_is_left_alone_and_nothing_is_recorded(weights, tmp_path):
    table, film = tmp_path / "episodes.csv", tmp_path / "film.mp4"
    evaluate.main(arguments(weights, shard="1/6", csv=table))
    before = table.read_bytes()
    with pytest.raises(InvalidArgument, match=f"not of shard 2/6, such as seed {FIRST_SEED}; give every shard a file"):
        evaluate.main(arguments(weights, shard="2/6", csv=table, video=film))
    assert table.read_bytes() == before and not film.exists()
