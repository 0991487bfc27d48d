"""Networks that run without torch, and behaviour cloning, which trains them."""

import csv
import dataclasses
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest

import reinforcegen_envs  # noqa: F401 (registers the ids)
from reinforcegen_envs.demos.generate import Args as GenerateArgs
from reinforcegen_envs.demos.generate import generate
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.observations import ObservationLayout, to_world
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.mlp import ACTIVATIONS, MLP, OUTPUTS, WeightsError, load_mlps, save_mlps
from reinforcegen_envs.policies.policy import act_one
from reinforcegen_envs.tasks import ThreadingTask

torch = pytest.importorskip("torch")

from reinforcegen_envs.agents import bc, termination  # noqa: E402


def random_mlp(rng, sizes, **kwargs) -> Any:
    weights = [rng.normal(0, 1 / np.sqrt(m), (n, m)) for m, n in zip(sizes[:-1], sizes[1:], strict=True)]
    biases = [rng.normal(0, 0.5, n) for n in sizes[1:]]
    mean, std = rng.normal(0, 1, sizes[0]), rng.uniform(0.1, 2, sizes[0])
    return MLP(weights, biases, mean, std, **kwargs)


def torch_forward(mlp, x):
    hidden = torch.clamp((torch.from_numpy(x) - torch.from_numpy(mlp.mean)) / mlp.std, -mlp.clip, mlp.clip)
    for i, (weight, bias) in enumerate(zip(mlp.weights, mlp.biases, strict=True)):
        weight, bias = torch.as_tensor(weight).float(), torch.as_tensor(bias).float()
        hidden = torch.nn.functional.linear(hidden.float(), weight, bias)
        if i < len(mlp.weights) - 1:
            hidden = torch.relu(hidden) if mlp.activation == "relu" else torch.tanh(hidden)
    return {"linear": lambda y: y, "tanh": torch.tanh, "clip": lambda y: y.clamp(-1, 1)}[mlp.output](hidden)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("sizes", [(5, 3), (53, 64, 7), (21, 256, 256, 7)])
def test_equals_torch(activation, output, sizes):
    rng = np.random.default_rng(0)
    mlp = random_mlp(rng, sizes, activation=activation, output=output, clip=3.0)
    inputs = rng.normal(0, 3, (50, sizes[0])).astype(np.float32)
    got = np.array([mlp(x) for x in inputs])
    assert got.dtype == np.float32 and mlp.input_size == sizes[0]
    np.testing.assert_allclose(got, torch_forward(mlp, inputs).numpy(), atol=1e-5)
    assert (np.abs((inputs - mlp.mean) / mlp.std) > 3).any()  # the clipping was needed


def test_without_statistics_inputs_are_taken_as_they_are():
    mlp = MLP([np.eye(3)], [np.zeros(3)])
    np.testing.assert_array_equal(mlp(np.array([1.0, -2.0, 3.0])), [1, -2, 3])
    np.testing.assert_array_equal(mlp(np.array([50, 0, -50])), [10, 0, -10])


def test_the_same_bits_every_time_in_every_thread():
    rng = np.random.default_rng(1)
    mlp = random_mlp(rng, (46, 128, 128, 7))
    inputs = rng.normal(0, 1, (200, 46)).astype(np.float32)
    expected = [mlp(x).tobytes() for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        assert [y.tobytes() for y in pool.map(mlp, inputs)] == expected
    assert [mlp(x.astype(np.float64)).tobytes() for x in inputs] == expected


def test_save_and_load(tmp_path):
    rng = np.random.default_rng(2)
    mlps = {
        "grasp": random_mlp(rng, (9, 8, 7), activation="tanh", output="clip"),
        "insert.late": random_mlp(rng, (4, 2), clip=5.0, output="tanh"),
    }
    path = tmp_path / "new" / "weights.safetensors"
    save_mlps(path, mlps, {"task": "Threading", "kind": "base", "seeds": [1, 2]})
    loaded, card = load_mlps(path, task="Threading", version=0)
    assert loaded.keys() == mlps.keys()
    for name, mlp in mlps.items():
        x = rng.normal(0, 3, mlp.input_size).astype(np.float32)
        np.testing.assert_array_equal(loaded[name](x), mlp(x))
        assert (loaded[name].clip, loaded[name].activation) == (mlp.clip, mlp.activation)
    assert card == json.loads(path.with_suffix(".json").read_text())
    assert card["seeds"] == [1, 2] and card["format"] == "reinforcegen-mlp-1"
    assert sorted(p.name for p in path.parent.iterdir()) == ["weights.json", "weights.safetensors"]
    with pytest.raises(WeightsError, match="for kind 'base', but 'residual' is needed"):
        load_mlps(path, kind="residual")


def test_arrays_that_do_not_fit_are_refused():
    good: dict[str, Any] = {"weights": [np.zeros((4, 3)), np.zeros((2, 4))], "biases": [np.zeros(4), np.zeros(2)]}
    MLP(**good)
    for change in (
        {"biases": [np.zeros(4), np.zeros(3)]},
        {"biases": [np.zeros(4)]},
        {"weights": [np.zeros((4, 3)), np.zeros((2, 5))]},
        {"mean": np.zeros(4)},
        {"std": np.zeros(2)},
    ):
        with pytest.raises(WeightsError, match=r"do not fit together; layer sizes \[3, 4, 2\]"):
            MLP(**{**good, **change})
    with pytest.raises(WeightsError, match="'gelu' is not one of .*relu.*tanh"):
        MLP(**good, activation="gelu")
    with pytest.raises(WeightsError, match="'softmax' is not one of .*linear.*clip"):
        MLP(**good, output="softmax")
    for x in (np.zeros(4), np.zeros(2), np.zeros((1, 3)), np.array(0.0)):
        with pytest.raises(ValueError, match=r"input has shape .*; this network takes \(3,\)"):
            MLP(**good)(x)


# --- behaviour cloning ---


def test_without_dwell():
    """Commands change as soon as the hand is where it will change them, however long it waited there."""
    path = np.zeros((10, 3))
    path[:, 0] = [0, 0.01, 0.02, 0.03, 0.03, 0.031, 0.031, 0.031, 0.05, 0.06]
    gripper = np.array([-1.0, -1, -1, -1, -1, -1, -1, 1, 1, 1])
    np.testing.assert_array_equal(bc.without_dwell(gripper, path), [-1, -1, -1, 1, 1, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(gripper[:7], -1)  # the argument is as it was
    moving = np.arange(10)[:, None] * np.array([[0.01, 0, 0]])
    np.testing.assert_array_equal(bc.without_dwell(gripper, moving), gripper)
    # It opens again: both changes move.
    path[:, 0] = [0, 0, 0, 0.1, 0.2, 0.3, 0.3, 0.3, 0.4, 0.5]
    gripper = np.array([-1.0, -1, 1, 1, 1, 1, 1, -1, -1, -1])
    np.testing.assert_array_equal(bc.without_dwell(gripper, path), [1, 1, 1, 1, 1, -1, -1, -1, -1, -1])
    np.testing.assert_array_equal(bc.without_dwell(np.ones(3), np.zeros((3, 3))), np.ones(3))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six generated demonstrations of Threading D2."""
    path = tmp_path_factory.mktemp("bc") / "d2.hdf5"
    generate(GenerateArgs(count=6, out=path, workers=1, quiet=True))
    return path


@pytest.fixture(scope="module")
def trained(data):
    """Weights of a very short run."""
    out = data.parent / "weights"
    bc.main(bc.Args((data,), out, steps=400, batch_size=64, hidden=32, workers=1))
    return out


def test_far_from_the_demonstrations_a_base_policy_acts_as_at_their_edge(trained, data):
    task, networks = ThreadingTask, load_mlps(trained / "base.safetensors")[0]
    stages = bc.load_stages(bc.Args((data,)), task, ObservationLayout.of(task), source_count=10)
    for stage, seen in zip(task.stages, stages, strict=True):
        network = networks[stage.name]
        inside = np.abs((seen.features - network.mean) / network.std).max(1) <= network.clip
        assert network.clip >= 4.0 and inside.mean() >= 0.989  # what was shown is not cut
        off = np.random.default_rng(0).choice([-1.0, 1.0], network.input_size) * network.std
        near, far = (network((network.mean + sigmas * off).astype(np.float32)) for sigmas in (network.clip, 40.0))
        np.testing.assert_allclose(near, far, rtol=1e-4, atol=1e-5)


def test_a_short_run_writes_weights_that_load(trained):
    names = {f"{kind}.{end}" for kind in ("base", "termination", "initiation") for end in ("safetensors", "json")}
    assert {path.name for path in trained.iterdir()} == names | {"skeleton.npz", "losses.csv"}
    bundle = Bundle.open(ThreadingTask, trained)
    bundle.check()
    policy, sources = bundle.base(), len(bundle.skeleton().tools)
    settings: dict[str, Any] = {"termination": "predictor", "initiation": "student", "weights": str(trained)}
    env = gym.make("ReinforceGen/D2-Threading-Hybrid-v0", disable_env_checker=True, **settings)
    obs, _ = env.reset(seed=0)
    assert sorted(act_one(bundle.initiation(), obs)) == list(range(sources))
    assert act_one(bundle.termination(), obs).dtype == bool
    frame = env.unwrapped.layout.slices["ref_rot6d_world"]  # type: ignore[attr-defined]
    for _ in range(10):
        action = act_one(policy, obs)
        assert action.shape == (7,) and abs(action[6]) == 1
        obs, *_ = env.step(to_world(action, obs[frame].astype(np.float64)))
    card = json.loads((trained / "base.json").read_text())
    assert (card["task"], card["kind"], card["demonstrations"], card["seed"]) == ("Threading", "base", 6, 0)
    assert card["observation_size"] == len(obs) and card["version"] == 0
    assert card["command"].startswith("python -m reinforcegen_envs.agents.bc")
    with open(trained / "losses.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["network"] for row in rows} >= {"base grasp", "base insert"}


def test_the_clone_acts_like_its_demonstrations(trained, data):
    """Even a short run moves the hand the way the labels say, on average."""
    task = ThreadingTask
    stages = bc.load_stages(bc.Args((data,)), task, ObservationLayout.of(task), source_count=10)
    networks, _ = load_mlps(trained / "base.safetensors")
    for stage, part in zip(task.stages, stages, strict=True):
        assert len(part.features) == len(part.actions) == len(part.finished)
        assert set(np.unique(part.actions[:, 6])) <= {0.0, 1.0} and np.abs(part.actions[:, :3]).max() <= 1.8
        assert 0 < part.finished.mean() < 0.5 and len(part.initiation_features) == len(part.source) == 6
        clone = networks[stage.name].batch(part.features)
        spread = np.mean((part.actions[:, :6] - part.actions[:, :6].mean(0)) ** 2)
        assert np.mean((clone[:, :6] - part.actions[:, :6]) ** 2) < 0.6 * spread


def test_max_demos_and_the_seed(trained, data, tmp_path):
    args = bc.Args((data,), tmp_path / "a", max_demos=3, steps=40, batch_size=16, hidden=8, workers=1)
    bc.main(args)
    bc.main(dataclasses.replace(args, out=tmp_path / "b", workers=2))  # the result does not depend on the workers
    bc.main(dataclasses.replace(args, out=tmp_path / "c", seed=1))
    assert json.loads((tmp_path / "a" / "base.json").read_text())["demonstrations"] == 3
    first, same, other = (load_mlps(tmp_path / x / "base.safetensors")[0]["grasp"] for x in "abc")
    np.testing.assert_array_equal(first.weights[1], same.weights[1])
    assert np.abs(first.weights[1] - other.weights[1]).max() > 0


def test_termination_is_trained_again_on_rollouts(trained, data, tmp_path, capsys):
    """The new classifiers replace the old ones and load; what they were trained on holds finished steps of every stage."""
    weights = tmp_path / "weights"
    shutil.copytree(Bundle.open(ThreadingTask).folder, weights)
    before = load_mlps(weights / "termination.safetensors")[0]
    args = termination.Args(weights, (data,), variants=("D2",), episodes=6, held_out=6, steps=100, workers=1, after=7)
    rollouts = termination.collect(args, ThreadingTask)
    for part in rollouts:
        assert len(part.features) == len(part.finished) == len(part.episode) and 0 < part.finished.mean() < 0.6
        # A skill goes on after it was finished.
        finished = [part.finished[part.episode == e] for e in np.unique(part.episode)]
        assert max(f.sum() for f in finished) >= 5
    termination.main(args)
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {f"{stage} {when}" for stage in ("grasp", "insert") for when in ("before", "after")}
    assert all(judged["auc"] > 0.9 and judged["skills"] > 0 for judged in report.values())
    assert (weights / "termination-roc.csv").is_file() and (weights / "termination-roc.png").is_file()
    after, card = load_mlps(weights / "termination.safetensors", kind="termination", task="Threading")
    assert card["rollouts"] == 6 and card["held_out"] == report and card["threshold"] == bc.THRESHOLD
    assert any((a.weights[0].shape != b.weights[0].shape) or (a.weights[0] != b.weights[0]).any()
               for a, b in zip(before.values(), after.values(), strict=True))  # fmt: skip
    Bundle.open(ThreadingTask, weights).check()
    with pytest.raises(ValueError, match="episodes is 0"):
        termination.main(dataclasses.replace(args, episodes=0))

    # Judging alone finds the same, on the same episodes, and leaves the weights as they are.
    written = (weights / "termination.json").read_text()
    only = dataclasses.replace(args, data=(), evaluate_only=True, out=tmp_path / "roc")
    termination.main(only)
    assert json.loads(capsys.readouterr().out) == {
        f"{stage} now": report[f"{stage} after"] for stage in ("grasp", "insert")
    }
    assert {path.name for path in (tmp_path / "roc").iterdir()} == {"termination-roc.csv", "termination-roc.png"}
    assert (weights / "termination.json").read_text() == written
    with pytest.raises(ValueError, match="evaluate_only trains nothing"):
        termination.main(dataclasses.replace(only, data=(data,)))


def test_data_that_cannot_be_trained_on(data, tmp_path):
    def refuse(file, message, **kwargs):
        with pytest.raises(ValueError, match=message):
            bc.main(bc.Args((file,), tmp_path / "out", steps=1, **kwargs))
        assert not (tmp_path / "out").exists()

    refuse(source_file("Threading"), "no label_action; train on the output of demos.generate")
    damaged = tmp_path / "damaged.hdf5"
    damaged.write_bytes(data.read_bytes()[:5000])
    refuse(damaged, "damaged.hdf5 is not a complete HDF5 file")
    refuse(data, "damaged.hdf5", source=damaged)
    # Key poses and initiation would be of other demonstrations than the policies.
    refuse(data, "was generated from the shipped sources; leave out source", source=source_file("Threading"))
    for name, settings in (("own", {"source": "mine.hdf5"}), ("merged", [json.dumps({"source": "mine.hdf5"})])):
        own = tmp_path / f"{name}.hdf5"
        shutil.copyfile(data, own)
        with h5py.File(own, "r+") as file:
            file["data"].attrs["settings"] = json.dumps(settings)
        refuse(own, "was generated from mine.hdf5; name them, --source mine.hdf5")
    other = tmp_path / "other.hdf5"
    shutil.copy(data, other)
    with h5py.File(other, "r+") as file:
        attrs = json.loads(str(file["data"].attrs["env_args"]))
    for task in ("Origami",):
        with h5py.File(other, "r+") as file:
            name = f"ReinforceGen/D0-{task}-v0"
            file["data"].attrs["env_args"] = json.dumps({**attrs, "env_name": name})
        refuse(other, f"{task}.*Threading")
    with h5py.File(other, "r+") as file:
        file["data"].attrs["env_args"] = json.dumps(attrs)
        steps = file["data/demo_0"].attrs["num_samples"]
        del file["data/demo_0/obs/state"]
        file["data/demo_0/obs/state"] = np.zeros((int(str(steps)), 12), np.float32)
    refuse(other, "observations of 12 numbers.*generate again")
    for name in ("steps", "batch_size", "hidden"):
        with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
            bc.main(dataclasses.replace(bc.Args((data,), tmp_path / "out"), **{name: 0}))
