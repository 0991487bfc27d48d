"""The estimators' network, which runs without torch."""

import copy
import json
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.perception.network import FORMAT, EstimatorNetwork, load_estimator, save_estimator
from reinforcegen_envs.policies.mlp import MLP, WeightsError, load_mlps, save_mlps

PROPRIO, OUTPUTS = 11, 9


def random_arrays(rng, size, channels, cameras=2, features=128, hidden=256, proprio=PROPRIO) -> dict[str, Any]:
    """Parameters by torch's names, scaled so that numbers keep their size from layer to layer."""
    arrays = {}

    def add(name, *shape):
        arrays[f"{name}.weight"] = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        arrays[f"{name}.bias"] = rng.normal(0, 0.1, shape[0]).astype(np.float32)

    for camera in range(cameras):
        side, before = size, 3
        for i, after in enumerate(channels):
            kernel = 3 if i else 5
            add(f"encoders.{camera}.convs.{i}", after, before, kernel, kernel)
            side, before = (side + 1) // 2, after
        add(f"encoders.{camera}.linear", features, before * side * side)
        arrays[f"encoders.{camera}.norm.weight"] = rng.uniform(0.5, 1.5, features).astype(np.float32)
        arrays[f"encoders.{camera}.norm.bias"] = rng.normal(0, 0.2, features).astype(np.float32)
    add("proprio", 64, proprio)
    joined = cameras * features + 64
    add("trunk.0", hidden, joined)
    add("trunk.1", hidden, hidden)
    add("head", OUTPUTS, hidden + joined)
    return arrays


def random_inputs(rng, size, cameras=2):
    return rng.integers(0, 256, (cameras, size, size, 3), np.uint8), rng.normal(0, 1, PROPRIO).astype(np.float32)


def torch_estimator(arrays, cameras=2):
    """What trains: a module whose parameters have the names of ``arrays``."""
    torch = pytest.importorskip("torch")
    nn, relu = torch.nn, torch.relu

    def linear(name):
        return nn.Linear(*reversed(arrays[f"{name}.weight"].shape))

    class Encoder(nn.Module):
        def __init__(self, name):
            super().__init__()
            shapes = [a.shape for key, a in arrays.items() if key.startswith(f"{name}.convs") and "weight" in key]
            self.convs = nn.ModuleList(nn.Conv2d(i, o, k, stride=2, padding=k // 2) for o, i, k, _ in shapes)
            self.linear = linear(f"{name}.linear")
            self.norm = nn.LayerNorm(len(arrays[f"{name}.norm.bias"]))

        def forward(self, frame):
            x = frame.permute(2, 0, 1).float()[None] / 255 - 0.5
            for conv in self.convs:
                x = relu(conv(x))
            return relu(self.norm(self.linear(x.flatten())))

    class Estimator(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoders = nn.ModuleList(Encoder(f"encoders.{k}") for k in range(cameras))
            self.proprio, self.head = linear("proprio"), linear("head")
            self.trunk = nn.ModuleList([linear("trunk.0"), linear("trunk.1")])

        def forward(self, frames, proprio):
            z = torch.cat([*(e(f) for e, f in zip(self.encoders, frames, strict=True)), relu(self.proprio(proprio))])
            h = relu(self.trunk[1](relu(self.trunk[0](z))))
            return self.head(torch.cat([h, z]))

    module = Estimator()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})

    def run(frames, proprio):
        with torch.inference_mode():
            return module(torch.from_numpy(frames), torch.from_numpy(proprio)).numpy()

    return run


@pytest.fixture(scope="module")
def arrays():
    return random_arrays(np.random.default_rng(0), 84, (16, 32, 64, 64))


@pytest.fixture(scope="module")
def small():
    """Of a network that is quick, whose channels fill no blocks."""
    return random_arrays(np.random.default_rng(1), 9, (5, 7, 6, 4), features=12, hidden=10)


@pytest.mark.parametrize(
    ("size", "channels", "cameras"),
    [(84, (16, 32, 64, 64), 2), (64, (16, 32, 64, 64), 2), (64, (8, 24, 40, 20), 2), (33, (6, 17), 1)],
)
def test_equals_torch(size, channels, cameras):
    rng = np.random.default_rng(size)
    arrays = random_arrays(rng, size, channels, cameras)
    network, reference = EstimatorNetwork(arrays, size), torch_estimator(arrays, cameras)
    assert (network.cameras, network.size, network.proprio_size, network.output_size) == (cameras, size, 11, 9)
    outputs = []
    for _ in range(5):
        inputs = random_inputs(rng, size, cameras)
        outputs.append(network(*inputs))
        assert outputs[-1].dtype == np.float32 and outputs[-1].shape == (OUTPUTS,)
        np.testing.assert_allclose(outputs[-1], reference(*inputs), atol=1e-4)
    assert np.std(outputs, 0).min() > 0.01
    black = np.zeros_like(inputs[0])  # the padding is grey, not black
    np.testing.assert_allclose(network(black, inputs[1]), reference(black, inputs[1]), atol=1e-4)


def test_cameras_keep_their_order(arrays):
    rng = np.random.default_rng(2)
    network = EstimatorNetwork(arrays)
    frames, proprio = random_inputs(rng, 84)
    assert np.abs(network(frames, proprio) - network(frames[::-1], proprio)).max() > 0.01
    swapped = {re.sub(r"(?<=^encoders\.)\d", lambda k: str(1 - int(k[0])), name): a for name, a in arrays.items()}
    for name in ("trunk.0.weight", "head.weight"):
        weight = swapped[name].copy()
        seen = weight[:, -320:-64]  # 128 numbers a camera, before 64 of proprioception
        seen[:] = np.roll(seen, 128, axis=1)
        swapped[name] = weight
    np.testing.assert_allclose(EstimatorNetwork(swapped)(frames[::-1], proprio), network(frames, proprio), atol=1e-4)


def test_the_same_bits_every_time(arrays, tmp_path):
    """In this process, from a copy, from views and read-only arrays, and in a fresh process."""
    network = EstimatorNetwork(arrays)
    frames, proprio = random_inputs(np.random.default_rng(3), 84)
    expected = network(frames, proprio).tobytes()
    upside_down = np.ascontiguousarray(frames[:, ::-1])[:, ::-1]
    frozen = frames.copy()
    frozen.setflags(write=False)
    for given in (frames, upside_down, frozen):
        assert network(given, proprio).tobytes() == expected
    assert network(frames, proprio.astype(np.float64)).tobytes() == expected
    assert copy.deepcopy(network)(frames, proprio).tobytes() == expected
    assert pickle.loads(pickle.dumps(network))(frames, proprio).tobytes() == expected
    (tmp_path / "call").write_bytes(pickle.dumps((network, frames, proprio)))
    program = (
        "import pickle, sys; network, *inputs = pickle.load(open(sys.argv[1], 'rb')); "
        "assert 'torch' not in sys.modules; print(network(*inputs).tobytes().hex())"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "call")], capture_output=True, text=True)
    assert done.stdout.strip() == expected.hex(), done.stderr


@pytest.mark.parametrize("shared", [False, True])
def test_threads_do_not_disturb_each_other(arrays, shared):
    first = EstimatorNetwork(arrays)
    networks = [first, first if shared else copy.deepcopy(first)]
    rng = np.random.default_rng(4)
    inputs = [[random_inputs(rng, 84) for _ in range(20)] for _ in networks]

    def run(network, calls):
        return [network(*call).tobytes() for call in calls]

    serial = [run(*pair) for pair in zip(networks, inputs, strict=True)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, networks, inputs)) == serial


def test_bad_inputs(small):
    network = EstimatorNetwork(small, 9)
    frames, proprio = random_inputs(np.random.default_rng(5), 9)
    needed = r"needed is uint8 of shape \(2, 9, 9, 3\)"
    for wrong in (frames.astype(np.float32), frames[:1], frames[0], frames[:, :8], frames[..., :1], frames.tolist()):
        with pytest.raises(InvalidArgument, match=rf"frames are u?\w+ of shape \(.*\); {needed}"):
            network(wrong, proprio)
    for wrong in (proprio[:-1], proprio[None], np.array(1.0)):
        with pytest.raises(InvalidArgument, match=r"proprio has shape \(.*\); this network takes \(11,\)"):
            network(frames, wrong)
    for number in (np.nan, np.inf):
        wrong = proprio.copy()
        wrong[3] = number
        with pytest.raises(InvalidArgument, match=r"proprio has numbers that are not finite at \[3\]"):
            network(frames, wrong)


def test_parameters_that_do_not_fit_are_refused(small):
    def refuse(message, size: Any = 9, drop="", **changes):
        changed = {**small, **{name.replace("__", "."): array for name, array in changes.items()}}
        changed.pop(drop, None)
        with pytest.raises(WeightsError, match=message):
            EstimatorNetwork(changed, size)

    EstimatorNetwork(small, 9)
    for name, array in small.items():
        refuse(r"shape|missing|kernel of 0", drop=name)
        refuse(r"has shape .* needed is|kernel of 0", **{name: array[..., None]})
        refuse(r"has shape .* needed is|kernel of 0", **{name: array[:-1]})
        refuse(rf"{name} has numbers that are not finite", **{name: array * np.nan})
    refuse(r"encoders.0.linear.weight has shape \(12, 4\).*frames of 84 x 84 pixels; needed is \(12, 144\)", 84)
    refuse(r"missing \[\], or unknown \['trunk.2.weight'\]", trunk__2__weight=np.zeros(3))
    refuse(r"missing \['head.bias'\]", drop="head.bias")
    refuse("kernel of 2; it must be odd", encoders__0__convs__1__weight=np.zeros((7, 5, 2, 2)))
    for size in (0, "84", 9.5):
        refuse("size is .*whole number of pixels", size)
    with pytest.raises(WeightsError, match="there is no encoder"):
        EstimatorNetwork({})


# --- files ---

CARD: dict[str, Any] = {"task": "Threading", "kind": "estimator", "cameras": ["front", "wrist"], "seeds": [1, 2]}


def test_save_and_load(arrays, tmp_path):
    path = tmp_path / "new" / "estimator.safetensors"
    save_estimator(path, arrays, CARD)
    assert sorted(p.name for p in path.parent.iterdir()) == ["estimator.json", "estimator.safetensors"]
    assert path.stat().st_size < 2e6
    network, card = load_estimator(path, task="Threading", cameras=("front", "wrist"), size=84, version=0)
    assert card == json.loads(path.with_suffix(".json").read_text())
    assert card["format"] == FORMAT and card["seeds"] == [1, 2]
    half = EstimatorNetwork({name: array.astype(np.float16) for name, array in arrays.items()})
    inputs = random_inputs(np.random.default_rng(6), 84)
    np.testing.assert_array_equal(network(*inputs), half(*inputs))
    np.testing.assert_allclose(network(*inputs), EstimatorNetwork(arrays)(*inputs), atol=0.02)


def test_what_cannot_be_loaded_is_not_saved(small, tmp_path):
    path = tmp_path / "estimator.safetensors"
    with pytest.raises(WeightsError, match="head.bias has numbers that are not finite, or too large"):
        save_estimator(path, {**small, "head.bias": np.full(OUTPUTS, 1e6)}, {**CARD, "size": 9})
    with pytest.raises(WeightsError, match="frames of 84 x 84 pixels"):
        save_estimator(path, small, CARD)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("task", "Coffee", "for task 'Threading', but 'Coffee' is needed"),
        ("version", 99, "for version 0, but 99 is needed"),
        ("size", 84, "for size 9, but 84 is needed"),
        ("cameras", ("front", "side"), r"for cameras \['front', 'wrist'\], but \('front', 'side'\) is needed"),
    ],
)
def test_made_for_something_else(small, tmp_path, key, value, message):
    path = tmp_path / "estimator.safetensors"
    save_estimator(path, small, {**CARD, "size": 9})
    with pytest.raises(WeightsError, match=rf"estimator.safetensors was made {message}"):
        load_estimator(path, **{key: value})


def test_damaged_and_foreign_files(small, tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "estimator.safetensors"

    def refuse(message):
        with pytest.raises(WeightsError, match=message):
            load_estimator(path)

    refuse("no weights file .*estimator.safetensors")
    save_estimator(path, small, {**CARD, "size": 9})
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:20], b"", b"weights go here"):
        path.write_bytes(content)
        refuse("estimator.safetensors is not a complete safetensors file.*again")
    save_file({"a": np.zeros(3)}, str(path))
    refuse(f"format None, not '{FORMAT}'; it was not written by this package")
    for card in ({"size": 9}, {"size": "nine"}, {}):
        save_file({"a": np.zeros(3)}, str(path), metadata={"card": json.dumps({"format": FORMAT, **card})})
        refuse("does not hold the network that its card names.*train it again")
    save_mlps(path, {"all": MLP([np.zeros((2, 3))], [np.zeros(2)])}, CARD)
    refuse("is of format 'reinforcegen-mlp-1'")
    save_estimator(path, small, {**CARD, "size": 9})
    with pytest.raises(WeightsError, match=f"is of format '{FORMAT}'"):
        load_mlps(path)
