"""Demonstration files: what goes in comes out, and every damaged or foreign file gets one clear line."""

# h5py's items are unions of group and dataset; tests know which they have.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false

import dataclasses
import json

import gymnasium as gym
import h5py
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from reinforcegen_envs.demos.export import export_minari
from reinforcegen_envs.demos.hdf5 import (
    Demo,
    DemoFileError,
    DemoWriter,
    iter_demos,
    read_attrs,
    read_demos,
    task_name,
    write_demos,
)
from reinforcegen_envs.errors import InvalidArgument

ENV_ARGS = {"env_name": "ReinforceGen/D0-Threading-v0", "env_version": "1.5.2", "type": 2, "env_kwargs": {}}


def poses(rng, steps):
    result = np.tile(np.eye(4), (steps, 1, 1))
    result[:, :3, 3] = rng.normal(size=(steps, 3))
    return result


def make_demo(name="", steps=9, seed=0, **changes):
    rng = np.random.default_rng(seed)
    demo = Demo(
        name=name,
        actions=rng.uniform(-1, 1, (steps, 7)).astype(np.float32),
        states=rng.normal(size=(steps, 44)),
        eef_pose=poses(rng, steps),
        object_poses={"needle": poses(rng, steps), "tripod": poses(rng, steps)},
        subtask_term_signals={"grasp": (np.arange(steps) > 4).astype(np.int64)},
        target_pose=poses(rng, steps),
        gripper_action=rng.choice([-1.0, 1.0], (steps, 1)),
        obs={"state": rng.normal(size=(steps, 46)).astype(np.float32)},
        next_obs={"state": rng.normal(size=(steps, 46)).astype(np.float32)},
        rewards=0.5 * np.isin(np.arange(steps), [4, steps - 1]),
        dones=(np.arange(steps) == steps - 1).astype(np.int64),
        datagen_info={"stage": np.zeros(steps, np.int64), "is_skill": np.ones(steps, bool)},
        attrs={
            "seed": 7,
            "noise": 0.05,
            "success": True,
            "model_file": "<mujoco/>",
            "initial_state": rng.normal(size=44),
            "options": json.dumps({"scale": 1}),
        },
    )
    return dataclasses.replace(demo, **changes)


def assert_equal(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    else:
        assert type(one) is type(other) and one == other


@pytest.fixture
def path(tmp_path):
    return tmp_path / "demos" / "demo.hdf5"


@pytest.fixture
def file(path):
    """A good file of three demonstrations, for a test to damage."""
    write_demos(path, [make_demo(steps=n, seed=n) for n in (9, 6, 7)], ENV_ARGS)
    return path


def test_round_trip(path):
    demos = [make_demo(f"demo_{i}", steps=5 + i, seed=i) for i in range(11)]
    write_demos(path, demos[::-1], ENV_ARGS, {"command": "generate", "source_seeds": np.arange(3)})
    back = read_demos(path, "Threading")
    assert [demo.name for demo in back] == [f"demo_{i}" for i in range(11)]  # demo_10 comes last
    for one, other in zip(demos, back, strict=True):
        for field in dataclasses.fields(Demo):
            assert_equal(getattr(one, field.name), getattr(other, field.name))
    attrs = read_attrs(path)
    assert attrs["env_args"] == ENV_ARGS
    assert attrs["total"] == sum(map(len, demos))
    assert attrs["command"] == "generate"
    assert_equal(attrs["source_seeds"], np.arange(3))


def test_optional_parts_may_be_absent(path):
    bare = make_demo(
        states=None, rewards=None, dones=None, obs={}, next_obs={}, datagen_info={}, attrs={}, subtask_term_signals={}
    )
    write_demos(path, [bare], ENV_ARGS)
    (back,) = read_demos(path, "Threading")
    assert back.states is None and back.rewards is None and back.dones is None
    assert back.obs == back.next_obs == back.datagen_info == back.attrs == back.subtask_term_signals == {}


def test_a_file_can_be_copied_with_its_attributes(file, path):
    copy = path.with_name("copy.hdf5")
    write_demos(copy, iter_demos(file), read_attrs(file)["env_args"], read_attrs(file))
    assert read_attrs(copy) == read_attrs(file)
    assert [len(demo) for demo in read_demos(copy)] == [9, 6, 7]


def test_layout_is_robomimics(file):
    with h5py.File(file) as f:
        assert f["data"].attrs["total"] == 22
        assert json.loads(f["data"].attrs["env_args"])["type"] == 2
        demo = f["data/demo_0"]
        assert demo.attrs["num_samples"] == 9
        assert demo["obs/state"].compression == "gzip"
        assert demo["rewards"].shape == demo["dones"].shape == (9,)
        assert dict(demo["datagen_info"].attrs) == {
            "env_interface_name": "MG_Threading",
            "env_interface_type": "robosuite",
        }


def test_filters(path):
    with DemoWriter(path, ENV_ARGS) as writer:
        names = [writer.add(make_demo()) for _ in range(3)]
        writer.add_filter("train", names[1:])
        with pytest.raises(DemoFileError, match="'valid' names demo_9"):
            writer.add_filter("valid", ["demo_9"])
    assert [demo.name for demo in read_demos(path, filter_key="train")] == ["demo_1", "demo_2"]
    with pytest.raises(DemoFileError, match="no filter 'valid'; it has: train"):
        read_demos(path, filter_key="valid")


def test_mimicgens_prepared_source_file(path):
    """Written as MimicGen's own scripts leave it: no obs, other key types, an extra next_obs-like dataset."""
    rng = np.random.default_rng(0)
    path.parent.mkdir()
    with h5py.File(path, "w") as f:
        data = f.create_group("data")
        data.attrs["total"] = 24
        data.attrs["env_args"] = json.dumps(
            {
                "env_name": "Threading_D0",
                "env_version": "1.4.1",
                "type": 1,
                "env_kwargs": {"control_freq": 20},
            }
        )
        for name in ("demo_0", "demo_10", "demo_2"):
            demo = data.create_group(name)
            demo.attrs["num_samples"] = 8
            demo.attrs["model_file"] = "<mujoco>" + " " * 100_000 + "</mujoco>"
            demo["actions"] = rng.uniform(-1, 1, (8, 7))
            demo["states"] = rng.normal(size=(8, 44))
            info = demo.create_group("datagen_info")
            info.attrs["env_interface_name"] = np.bytes_("MG_Threading")
            info.attrs["env_interface_type"] = "robosuite"
            info["eef_pose"] = poses(rng, 8)
            info["target_pose"] = poses(rng, 8)
            info["gripper_action"] = np.ones((8, 1))
            for obj in ("needle", "tripod"):
                info[f"object_poses/{obj}"] = poses(rng, 8)
            info["subtask_term_signals/grasp"] = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    demos = read_demos(path, "Threading")
    assert [demo.name for demo in demos] == ["demo_0", "demo_2", "demo_10"]
    assert demos[0].obs == {} and demos[0].rewards is None
    assert demos[0].states is not None and demos[0].states.shape == (8, 44)
    assert demos[0].subtask_term_signals["grasp"].sum() == 5
    assert demos[0].attrs["model_file"].endswith("</mujoco>")
    assert task_name(read_attrs(path)["env_args"]["env_name"]) == "Threading"


@pytest.mark.parametrize(
    ("env_name", "task"),
    [
        ("ReinforceGen/D2-Threading-v0", "Threading"),
        ("ReinforceGen/D2-CoffeePreparation-Residual-v3", "CoffeePreparation"),
        ("ThreePieceAssembly_D1", "ThreePieceAssembly"),
        ("Square", "Square"),
    ],
)
def test_task_name(env_name, task):
    assert task_name(env_name) == task


def error(path, *args, reader=read_demos, **kwargs):
    """The message that reading gives: one line, naming the file."""
    with pytest.raises(DemoFileError) as info:
        reader(path, *args, **kwargs)
    message = str(info.value)
    assert "\n" not in message and str(path) in message
    return message


@pytest.mark.parametrize("reader", [read_demos, read_attrs])
def test_missing_file(path, reader):
    assert "no demonstration file" in error(path, reader=reader)


@pytest.mark.parametrize("reader", [read_demos, read_attrs])
def test_truncated_at_any_length(file, reader):
    whole = file.read_bytes()
    for share in (0.0, 0.01, 0.3, 0.7, 0.999):
        file.write_bytes(whole[: int(share * len(whole))])
        assert "not a complete HDF5 file" in error(file, reader=reader)


def test_not_hdf5(path):
    path.parent.mkdir()
    path.write_text("<html>404</html>" * 100)
    assert "not a complete HDF5 file" in error(path)


def test_damaged_bytes_never_escape_as_another_error(file):
    rng = np.random.default_rng(0)
    whole = np.frombuffer(file.read_bytes(), np.uint8)
    for _ in range(150):
        damaged = whole.copy()
        start = rng.integers(len(damaged) - 16)
        damaged[start : start + 16] = rng.integers(0, 256, 16)
        file.write_bytes(damaged.tobytes())
        try:
            read_demos(file, "Threading")
            read_attrs(file)
        except DemoFileError as damage:
            assert "\n" not in str(damage)


def damage(change):
    """Parametrize helper: (how an open file is changed, what reading it for Threading then says)."""
    return pytest.param(*change[1:], id=change[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        damage(("no-data", lambda f: f.move("data", "other"), "no group 'data'")),
        damage(("no-demos", lambda f: f["data"].clear(), "holds no demonstrations")),
        damage(("no-actions", lambda f: f["data/demo_1"].pop("actions"), "demo_1 has no actions")),
        damage(
            (
                "no-info",
                lambda f: f["data/demo_1"].pop("datagen_info"),
                r"demo_1 has no datagen_info; MimicGen's",
            )
        ),
        damage(
            (
                "no-target",
                lambda f: f["data/demo_1/datagen_info"].pop("target_pose"),
                r"demo_1 has no datagen_info/target_pose; MimicGen's prepare step .*prepare_src_dataset",
            )
        ),
        damage(
            (
                "other-task",
                lambda f: f["data/demo_0/datagen_info"].attrs.update(env_interface_name="MG_Stack"),
                "demo_0 is for MG_Stack, but MG_Threading is needed",
            )
        ),
        damage(
            (
                "other-objects",
                lambda f: f["data/demo_0/datagen_info/object_poses"].move("tripod", "cup"),
                "no poses of 'tripod', only of cup, needle",
            )
        ),
        damage(("not-a-group", lambda f: f["data"].create_dataset("demo_9", data=1), "demo_9 is not a group")),
    ],
)
def test_missing_or_foreign_parts(file, change, message):
    with h5py.File(file, "a") as f:
        change(f)
    with pytest.raises(DemoFileError, match=message) as info:
        read_demos(file, "Threading")
    assert "\n" not in str(info.value) and str(file) in str(info.value)


def test_interface_name_may_be_absent_if_the_objects_are_there(file):
    with h5py.File(file, "a") as f:
        for demo in f["data"].values():
            del demo["datagen_info"].attrs["env_interface_name"]
    assert len(read_demos(file, "Threading")) == 3
    assert "no poses of 'coffee_pod', only of needle, tripod" in error(file, "Coffee")


def test_unknown_task(file):
    with pytest.raises(DemoFileError, match="unknown task 'Treading'; the tasks are Threading, Square"):
        read_demos(file, "Treading")


def test_env_args_missing_or_no_json(file):
    with h5py.File(file, "a") as f:
        f["data"].attrs["env_args"] = "{"
    assert "env_args" in error(file, reader=read_attrs)
    with h5py.File(file, "a") as f:
        del f["data"].attrs["env_args"]
    assert "env_args" in error(file, reader=read_attrs)


WRONG_ARRAYS = {
    "actions/size": (lambda d: {"actions": d.actions[:, :6]}, r"actions has shape \(9, 6\), not \(T, 7\)"),
    "actions/flat": (lambda d: {"actions": d.actions[:, 0]}, r"actions has shape \(9,\), not \(T, 7\)"),
    "actions/nan": (
        lambda d: {"actions": d.actions * np.nan},
        "actions holds something that is not a finite",
    ),
    "actions/text": (
        lambda d: {"actions": d.actions.astype("S")},
        "actions holds something that is not a finite",
    ),
    "actions/length": (lambda d: {"actions": d.actions[:8]}, "eef_pose has 9 steps, but actions has 8"),
    "eef_pose": (
        lambda d: {"eef_pose": d.eef_pose[:, :3]},
        r"eef_pose has shape \(9, 3, 4\), not \(T, 4, 4\)",
    ),
    "states": (lambda d: {"states": d.states[1:]}, "states has 8 steps, but actions has 9"),
    "gripper": (lambda d: {"gripper_action": d.gripper_action[:, 0]}, r"gripper_action has shape \(9,\)"),
    "signal": (
        lambda d: {"subtask_term_signals": {"grasp": np.zeros(3)}},
        "subtask_term_signals/grasp has 3 steps",
    ),
    "object": (
        lambda d: {"object_poses": {**d.object_poses, "needle": np.zeros((4, 4, 4))}},
        "object_poses/needle has 4 steps, but actions has 9",
    ),
    "obs": (lambda d: {"obs": {"state": np.zeros((5, 2))}}, "obs/state has 5 steps"),
    "rewards": (lambda d: {"rewards": np.zeros((9, 1))}, r"rewards has shape \(9, 1\), not \(T\)"),
}


@pytest.mark.parametrize("case", WRONG_ARRAYS)
def test_wrong_arrays_are_refused_when_written(path, case):
    change, message = WRONG_ARRAYS[case]
    demo = make_demo()
    with pytest.raises(DemoFileError, match=f"demo_0: {message}"):
        write_demos(path, [dataclasses.replace(demo, **change(demo))], ENV_ARGS)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("case", WRONG_ARRAYS)
def test_wrong_arrays_are_refused_when_read(path, case, monkeypatch):
    change, message = WRONG_ARRAYS[case]
    demo = make_demo()
    with monkeypatch.context() as patch:
        patch.setattr("reinforcegen_envs.demos.hdf5._check", lambda *_: None)
        write_demos(path, [dataclasses.replace(demo, **change(demo))], ENV_ARGS)
    with pytest.raises(DemoFileError, match=f"demo_0: {message}"):
        read_demos(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "first"}, "first: a name must be demo_<number>"),
        ({"object_poses": {}}, "no poses of 'needle', only of nothing"),
        ({"attrs": {"options": {"scale": 1}}}, "attribute 'options' is a dict; give a string"),
        ({"attrs": {"seed": None}}, "attribute 'seed' is a NoneType"),
        ({"attrs": {"path": np.zeros(10_000)}}, "attribute 'path' has 80000 bytes"),
    ],
)
def test_what_cannot_be_stored(path, change, message):
    with pytest.raises(DemoFileError, match=message):
        write_demos(path, [make_demo(**change)], ENV_ARGS)
    assert list(path.parent.iterdir()) == []


def test_no_steps(path):
    with pytest.raises(DemoFileError, match="no steps"):
        write_demos(path, [make_demo(steps=0, attrs={})], ENV_ARGS)


def test_a_name_is_used_once(path):
    with DemoWriter(path, ENV_ARGS) as writer:
        assert writer.add(make_demo("demo_4")) == "demo_4"
        with pytest.raises(DemoFileError, match="demo_4 is there already"):
            writer.add(make_demo("demo_4"))
        assert len(writer) == 1


def test_unknown_environment_name(path):
    with pytest.raises(DemoFileError, match="'Threeding_D0' is of none of the tasks Threading, Square"):
        DemoWriter(path, {"env_name": "Threeding_D0"})


def test_nothing_added_writes_nothing(path):
    with pytest.raises(DemoFileError, match="no demonstration was added"):
        write_demos(path, [], ENV_ARGS)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_interrupted_write_leaves_what_was_there(file, path, interruption):
    before = path.read_bytes()
    with pytest.raises(interruption):
        with DemoWriter(path, ENV_ARGS) as writer:
            writer.add(make_demo())
            raise interruption
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == before


def test_a_demonstration_cut_short_is_not_kept(path, monkeypatch):
    with DemoWriter(path, ENV_ARGS) as writer:
        writer.add(make_demo(seed=0))
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

            def interrupt(self, *args, **kwargs):
                raise KeyboardInterrupt

            patch.setattr(h5py.Group, "create_dataset", interrupt)
            writer.add(make_demo(seed=1))
        assert len(writer) == 1
        writer.add(make_demo(seed=2))
    assert [demo.name for demo in read_demos(path)] == ["demo_0", "demo_1"]


class StateEnv(gym.Env):
    """Stands in for an environment with 46 observations."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (46,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (7,), np.float32)


class TestMinari:
    @pytest.fixture(autouse=True)
    def datasets(self, tmp_path, monkeypatch):
        self.minari = pytest.importorskip("minari")
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
        monkeypatch.setitem(gym.registry, "StateEnv-v0", EnvSpec("StateEnv-v0", f"{__name__}:StateEnv"))
        return tmp_path / "minari"

    @pytest.mark.parametrize("env_id", [None, "StateEnv-v0"])
    def test_export(self, file, env_id):
        export_minari(file, "threading/generated-v0", env_id, author="somebody")
        dataset = self.minari.load_dataset("threading/generated-v0")
        assert dataset.total_episodes == 3 and dataset.total_steps == 22
        for demo, episode in zip(read_demos(file), dataset.iterate_episodes(), strict=True):
            np.testing.assert_array_equal(episode.observations[:-1], demo.obs["state"])
            np.testing.assert_array_equal(episode.observations[-1], demo.next_obs["state"][-1])
            np.testing.assert_array_equal(episode.actions, demo.actions)
            np.testing.assert_array_equal(episode.rewards, demo.rewards)
            np.testing.assert_array_equal(episode.terminations, demo.dones)
            assert not episode.truncations.any()
        if env_id:
            assert dataset.recover_environment().observation_space == StateEnv.observation_space

    def test_without_rewards_the_last_step_is_a_success(self, path):
        write_demos(path, [make_demo(rewards=None, dones=None)], ENV_ARGS)
        export_minari(path, "threading/generated-v0")
        (episode,) = self.minari.load_dataset("threading/generated-v0").iterate_episodes()
        assert episode.rewards.tolist() == episode.terminations.tolist() == [0.0] * 8 + [1.0]

    def test_without_next_observations_the_last_one_is_repeated(self, path):
        write_demos(path, [make_demo(next_obs={})], ENV_ARGS)
        export_minari(path, "threading/generated-v0")
        (episode,) = self.minari.load_dataset("threading/generated-v0").iterate_episodes()
        np.testing.assert_array_equal(episode.observations[-1], episode.observations[-2])

    def test_an_episode_has_the_seed_of_its_reset(self, path):
        """Generated demonstrations also have a pair of numbers, which is no seed of an environment."""
        demos = [make_demo(attrs={"seed": [0, 3], "reset_seed": 17}), make_demo(attrs={"seed": [0, 4]}), make_demo()]
        write_demos(path, demos, ENV_ARGS)
        export_minari(path, "threading/generated-v0")
        dataset = self.minari.load_dataset("threading/generated-v0")
        assert [m.get("seed") for m in dataset.storage.get_episode_metadata(range(3))] == [17, None, 7]

    def test_an_unfinished_demonstration_is_truncated(self, path):
        write_demos(path, [make_demo(rewards=np.zeros(9), dones=np.zeros(9))], ENV_ARGS)
        export_minari(path, "threading/failed-v0")
        (episode,) = self.minari.load_dataset("threading/failed-v0").iterate_episodes()
        assert not episode.terminations.any() and episode.truncations.tolist() == [False] * 8 + [True]

    def test_errors_leave_no_dataset(self, path, datasets):
        write_demos(path, [make_demo(), make_demo(obs={"state": np.zeros((9, 3))})], ENV_ARGS)
        with pytest.raises(DemoFileError, match="demo_1 has states of another size"):
            export_minari(path, "threading/generated-v0")
        write_demos(path, [make_demo(obs={"state": np.zeros((9, 3))})], ENV_ARGS)
        with pytest.raises(DemoFileError, match=r"states of size 3, but StateEnv-v0 observes \(46,\)"):
            export_minari(path, "threading/generated-v0", "StateEnv-v0")
        write_demos(path, [make_demo(obs={})], ENV_ARGS)
        with pytest.raises(DemoFileError, match="demo_0 has no obs/state"):
            export_minari(path, "threading/generated-v0")
        assert not list(datasets.rglob("*.hdf5"))

    @pytest.mark.parametrize("name", ["threading", "threading/Generated v0", "", "../threading-v0", "threading/x-v1/y"])
    def test_names_that_minari_does_not_take(self, name, file, datasets):
        with pytest.raises(InvalidArgument, match="not a name of a Minari dataset"):
            export_minari(file, name)
        assert not list(datasets.rglob("*.hdf5"))

    def test_where_it_goes_is_checked_before_the_work(self, tmp_path, datasets):
        """The demonstrations are not even opened."""
        datasets.mkdir()
        (datasets / "threading").touch()  # a file where the folder of the task's datasets should be
        with pytest.raises(InvalidArgument, match="threading is a file, not a folder"):
            export_minari(tmp_path / "nowhere.hdf5", "threading/generated-v0")

    def test_an_existing_dataset_is_kept(self, file):
        export_minari(file, "threading/generated-v0")
        with pytest.raises(ValueError, match="exists in .*; choose another name"):
            export_minari(file, "threading/generated-v0")
        assert self.minari.load_dataset("threading/generated-v0").total_episodes == 3
