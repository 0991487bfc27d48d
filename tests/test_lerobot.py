"""Export to LeRobot's format; what LeRobot itself makes of it where it is installed (LIBRARIES=1 .ci/run)."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_hdf5 import ENV_ARGS, make_demo

from reinforcegen_envs.demos import lerobot
from reinforcegen_envs.demos.hdf5 import DemoFileError, read_demos, write_demos
from reinforcegen_envs.demos.lerobot import export_lerobot
from reinforcegen_envs.errors import InvalidArgument

pandas = pytest.importorskip("pandas", reason="pandas is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")

STEPS = (9, 6, 7)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "demos.hdf5"
    write_demos(path, [make_demo(steps=n, seed=n) for n in STEPS], ENV_ARGS)
    return path


def data(folder):
    return pandas.concat([pandas.read_parquet(path) for path in sorted(folder.glob("data/*/*.parquet"))])


def rows(demos, name):
    """One array of all demonstrations, one below the other."""
    return np.concatenate([np.asarray(getattr(demo, name)) for demo in demos])


def test_every_row_is_a_frame(file, tmp_path):
    folder = export_lerobot(file, tmp_path / "out")
    frames = data(folder)
    demos = read_demos(file)
    np.testing.assert_array_equal(
        np.stack(frames["observation.state"]), np.concatenate([demo.obs["state"] for demo in demos])
    )
    np.testing.assert_array_equal(np.stack(frames["action"]), rows(demos, "actions"))
    np.testing.assert_array_equal(frames["next.reward"], rows(demos, "rewards"))
    np.testing.assert_array_equal(frames["next.done"], rows(demos, "dones").astype(bool))
    assert frames["index"].tolist() == list(range(sum(STEPS)))
    assert frames["frame_index"].tolist() == [i for n in STEPS for i in range(n)]
    assert frames["episode_index"].tolist() == [k for k, n in enumerate(STEPS) for _ in range(n)]
    np.testing.assert_allclose(frames["timestamp"], 0.05 * frames["frame_index"], rtol=1e-6)
    assert [path.name for path in tmp_path.glob("*") if path != file] == ["out"]  # nothing temporary is left


def test_the_facts_are_those_of_the_data(file, tmp_path):
    folder = export_lerobot(file, tmp_path / "out", instruction="thread the needle")
    info = json.loads((folder / "meta/info.json").read_text())
    frames = data(folder)
    assert info["codebase_version"] == "v3.0" and info["fps"] == 20 and info["splits"] == {"train": "0:3"}
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, sum(STEPS), 1)
    assert set(info["features"]) == set(frames.columns)
    assert info["features"]["observation.state"]["shape"] == [46]
    statistics = json.loads((folder / "meta/stats.json").read_text())
    states = np.stack(frames["observation.state"]).astype(np.float64)
    np.testing.assert_allclose(statistics["observation.state"]["mean"], states.mean(axis=0))
    np.testing.assert_allclose(statistics["observation.state"]["q90"], np.quantile(states, 0.9, axis=0))
    assert statistics["action"]["count"] == [sum(STEPS)]
    tasks = pandas.read_parquet(folder / "meta/tasks.parquet")
    assert tasks.index.tolist() == ["thread the needle"] and tasks["task_index"].tolist() == [0]
    episodes = pandas.read_parquet(folder / "meta/episodes/chunk-000/file-000.parquet")
    assert episodes["length"].tolist() == list(STEPS)
    assert episodes["dataset_from_index"].tolist() == [0, 9, 15] and episodes["dataset_to_index"].tolist() == [
        9,
        15,
        22,
    ]


def test_large_data_goes_into_several_files(file, tmp_path, monkeypatch):
    whole = data(export_lerobot(file, tmp_path / "whole"))
    monkeypatch.setattr(lerobot, "FILE_MB", 1e-4)  # less than an episode
    monkeypatch.setattr(lerobot, "FILES_PER_CHUNK", 2)
    folder = export_lerobot(file, tmp_path / "parts")
    names = sorted(str(path.relative_to(folder)) for path in folder.glob("data/*/*.parquet"))
    assert names == [f"data/chunk-{c:03d}/file-{f:03d}.parquet" for c, f in ((0, 0), (0, 1), (1, 0))]
    np.testing.assert_array_equal(np.stack(data(folder)["action"]), np.stack(whole["action"]))
    episodes = pandas.read_parquet(folder / "meta/episodes/chunk-000/file-000.parquet")
    assert episodes["data/chunk_index"].tolist() == [0, 0, 1] and episodes["data/file_index"].tolist() == [0, 1, 0]


def test_actions_without_noise_on_demand(file, tmp_path):
    with pytest.raises(DemoFileError, match="no datagen_info/label_action"):
        export_lerobot(file, tmp_path / "out", label=True)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    demo = make_demo()
    label = np.zeros((len(demo), 7))
    write_demos(file, [make_demo(datagen_info={**demo.datagen_info, "label_action": label})], ENV_ARGS)
    assert not np.stack(data(export_lerobot(file, tmp_path / "out", label=True))["action"]).any()


def test_what_it_cannot_do_is_said_and_loses_nothing(file, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("kept")
    with pytest.raises(InvalidArgument, match="holds something"):
        export_lerobot(file, full)
    assert (full / "mine.txt").read_text() == "kept"
    with pytest.raises(InvalidArgument, match="is a file"):
        export_lerobot(file, file / "out")
    write_demos(file, [make_demo(obs={}, next_obs={})], ENV_ARGS)
    with pytest.raises(DemoFileError, match="no obs/state"):
        export_lerobot(file, tmp_path / "out")
    with pytest.raises(DemoFileError, match="none.hdf5"):
        export_lerobot(tmp_path / "none.hdf5", tmp_path / "out")


def test_lerobot_loads_it(file, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets = pytest.importorskip("lerobot.datasets.lerobot_dataset", reason="lerobot is not installed")
    folder = export_lerobot(file, tmp_path / "out", instruction="thread the needle")
    demos = read_demos(file)
    dataset = datasets.LeRobotDataset("reinforcegen/threading", root=folder, delta_timestamps={"action": [0.0, 0.05]})
    assert dataset.num_episodes == 3 and dataset.num_frames == sum(STEPS) and dataset.fps == 20
    frame = dataset[10]  # the second row of the second episode
    np.testing.assert_array_equal(frame["observation.state"].numpy(), demos[1].obs["state"][1])
    np.testing.assert_array_equal(frame["action"].numpy(), demos[1].actions[1:3].astype(np.float32))
    assert frame["task"] == "thread the needle" and int(frame["episode_index"]) == 1
    last = dataset[8]  # nothing comes after it in its episode
    assert last["action_is_pad"].tolist() == [False, True] and bool(last["next.done"])
    only = datasets.LeRobotDataset("reinforcegen/threading", root=folder, episodes=[2])
    assert only.num_frames == STEPS[2]
    np.testing.assert_array_equal(only[0]["observation.state"].numpy(), demos[2].obs["state"][0])
