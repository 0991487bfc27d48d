"""The estimators' network, which runs without torch."""

import copy
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.perception.fusion import CENTRE, UNIT
from reinforcegen_envs.perception.network import (
    FORMAT,
    GEOMETRY,
    PER_OBJECT,
    WINDOWS,
    EstimatorNetwork,
    load_estimator,
    save_estimator,
)
from reinforcegen_envs.policies.mlp import MLP, WeightsError, load_mlps, save_mlps

PROPRIO, OBJECTS, JOINTS = 11, 2, 1
OUTPUTS = OBJECTS * PER_OBJECT + 2 * JOINTS
# Front, looking down at the table from the other side of it; wrist, looking along the fingers.
VIEWS = np.array(
    [
        [0.55, 0.0, 1.5, 0.0, -0.758419, 0.651767, 1.0, 0.0, 0.0, 0.0, 0.651767, 0.758419, 1.3],
        [0.0, 0.05, -0.097, -1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.65],
    ]
)


def random_arrays(rng, size, whole, windows, features=(48, 64), hidden=128, proprio=PROPRIO) -> dict[str, Any]:
    """Parameters by torch's names, scaled so that numbers keep their size from layer to layer."""
    arrays = {}

    def add(name, *shape):
        arrays[f"{name}.weight"] = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        arrays[f"{name}.bias"] = rng.normal(0, 0.1, shape[0]).astype(np.float32)

    def layers(name, inputs, outputs):
        add(f"{name}.0", hidden, inputs)
        add(f"{name}.1", hidden, hidden)
        add(f"{name}.2", outputs, hidden + inputs)

    for kind, channels, sides, width in (
        ("whole", whole, (size // 2, size // 2), features[0]),
        ("windows", windows, WINDOWS, features[1]),
    ):
        for camera, side in enumerate(sides):
            before = 3
            for i, after in enumerate(channels):
                kernel = 3 if i else 5
                add(f"{kind}.{camera}.convs.{i}", after, before, kernel, kernel)
                side, before = (side + 1) // 2, after
            add(f"{kind}.{camera}.linear", width, before * side * side)
            arrays[f"{kind}.{camera}.norm.weight"] = rng.uniform(0.5, 1.5, width).astype(np.float32)
            arrays[f"{kind}.{camera}.norm.bias"] = rng.normal(0, 0.2, width).astype(np.float32)
    add("proprio", 64, proprio)
    joined = 2 * features[0] + 64
    layers("rough", joined, OBJECTS * PER_OBJECT)
    joined += 2 * features[1] + GEOMETRY
    layers("objects.0", joined, PER_OBJECT)
    layers("objects.1", joined, PER_OBJECT + 2 * JOINTS)
    return arrays


def random_inputs(rng, size):
    frames = rng.integers(0, 256, (2, size, size, 3), np.uint8)
    proprio = rng.normal(0, 1, PROPRIO).astype(np.float32)
    proprio[3:9] = np.linalg.qr(rng.normal(size=(3, 3)))[0].T[:2].ravel()  # two axes of the hand
    return frames, proprio


@pytest.fixture(scope="module")
def arrays():
    return random_arrays(np.random.default_rng(0), 84, (16, 32, 64), (16, 48, 64))


@pytest.fixture(scope="module")
def small():
    """Of a network that is quick, whose channels fill no blocks."""
    return random_arrays(np.random.default_rng(1), 9, (5, 7), (3, 4), features=(6, 5), hidden=10)


@pytest.mark.parametrize("size", [84, 64, 33])
def test_equals_torch(size):
    """What is run is what was trained, wherever windows lie: inside the pictures, at their edges, outside."""
    torch = pytest.importorskip("torch")
    from reinforcegen_envs.agents import estimator as trained

    rng = np.random.default_rng(size)
    arrays = random_arrays(rng, size, trained.WHOLE_CHANNELS, trained.WINDOW_CHANNELS)
    network = EstimatorNetwork(arrays, VIEWS, size)
    assert (network.size, network.proprio_size, network.objects, network.joints) == (size, PROPRIO, OBJECTS, JOINTS)
    assert network.output_size == OUTPUTS
    model = trained.Estimator(size, PROPRIO, OBJECTS, [1], VIEWS.tolist()).eval()
    trained.load_arrays(model, arrays)
    given = trained.arrays(model)
    assert all(np.array_equal(given[name], array) for name, array in arrays.items())
    outputs = []
    for k in range(8):
        frames, proprio = random_inputs(rng, size)
        frames[:] = 0 if k == 7 else frames  # the padding is grey, not black
        with torch.inference_mode():
            expected = model(torch.from_numpy(frames)[None], torch.from_numpy(proprio)[None])[0][0].numpy()
        outputs.append(network(frames, proprio))
        assert outputs[-1].dtype == np.float32 and outputs[-1].shape == (OUTPUTS,)
        np.testing.assert_allclose(outputs[-1], expected, atol=1e-4)
    assert np.std(outputs, 0).min() > 0.01


def test_windows_follow_their_object(small):
    """A network that says of every object that it is where its windows are, and roughly where, puts them on the ray."""
    arrays = {name: np.zeros_like(array) for name, array in small.items()}
    rough = np.zeros((OBJECTS, 2, 2, 3, 3))
    rough[:, 1, 0], rough[:, 1, 1] = -12.0, 4.0  # all that is known is known in the world's frame
    places = np.array([[0.05, 0.1, 0.9], [-0.1, -0.05, 1.0]])
    rough[:, 0, 0, 0] = (places - CENTRE) / UNIT
    arrays["rough.2.bias"] = rough.ravel().astype(np.float32)
    for n in range(OBJECTS):  # also by the looks that are not the last
        arrays[f"objects.{n}.2.bias"][18:36] = arrays["rough.2.bias"][36 * n + 18 : 36 * n + 36]
    for size in (84, 9):
        arrays["whole.0.linear.weight"] = arrays["whole.1.linear.weight"] = np.zeros(
            (6, 7 * ((size // 2 + 3) // 4) ** 2), np.float32
        )
        frames, proprio = random_inputs(np.random.default_rng(2), size)
        outputs = EstimatorNetwork(arrays, VIEWS, size)(frames, proprio)
        found = outputs[: OBJECTS * PER_OBJECT].reshape(OBJECTS, 2, 2, 3, 3)[:, 0, 0, 0] * UNIT + CENTRE
        # They are as deep, and aside by at most half a pixel's diagonal.
        eye, axes = VIEWS[0, :3], VIEWS[0, 3:12].reshape(3, 3)
        wanted: Any = (places - eye) @ axes
        got: Any = (found - eye) @ axes
        np.testing.assert_allclose(got[:, 2], wanted[:, 2], atol=1e-5)
        pixel = -wanted[:, 2] / (VIEWS[0, 12] * size)
        aside = np.linalg.norm((got - wanted)[:, :2], np.inf, axis=1)
        assert np.all(aside <= 0.5 * pixel + 1e-5) and aside.max() > 0.01 * pixel.max()


def test_cameras_keep_their_order(arrays):
    frames, proprio = random_inputs(np.random.default_rng(2), 84)
    network = EstimatorNetwork(arrays, VIEWS)
    assert np.abs(network(frames, proprio) - network(frames[::-1], proprio)).max() > 0.01


def test_the_same_bits_every_time(arrays, tmp_path):
    """In this process, from a copy, from views and read-only arrays, and in a fresh process."""
    network = EstimatorNetwork(arrays, VIEWS)
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
    first = EstimatorNetwork(arrays, VIEWS)
    networks = [first, first if shared else copy.deepcopy(first)]
    rng = np.random.default_rng(4)
    inputs = [[random_inputs(rng, 84) for _ in range(20)] for _ in networks]

    def run(network, calls):
        return [network(*call).tobytes() for call in calls]

    serial = [run(*pair) for pair in zip(networks, inputs, strict=True)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, networks, inputs)) == serial


def test_bad_inputs(small):
    network = EstimatorNetwork(small, VIEWS, 9)
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
            EstimatorNetwork(changed, VIEWS, size)

    EstimatorNetwork(small, VIEWS, 9)
    for name, array in small.items():
        refuse(r"shape|missing|kernel of 0", drop=name)
        refuse(r"has shape .* needed is|kernel of 0", **{name: array[..., None]})
        refuse(r"has shape .* needed is|kernel of 0", **{name: array[:-1]})
        refuse(rf"{name} has numbers that are not finite", **{name: array * np.nan})
    refuse(r"whole.0.linear.weight has shape \(6, 7\).*frames of 84 x 84 pixels; needed is \(6, 847\)", 84)
    refuse(r"missing \[\], or unknown \['rough.3.weight'\]", rough__3__weight=np.zeros(3))
    refuse(r"missing \['rough.2.bias'\]", drop="rough.2.bias")
    refuse("kernel of 2; it must be odd", whole__0__convs__1__weight=np.zeros((7, 5, 2, 2)))
    odd = {f"objects.1.2.{part}": small[f"objects.1.2.{part}"][:-1] for part in ("weight", "bias")}
    refuse("36 outputs and two for each of its joints", **odd)
    for size in (0, "84", 9.5):
        refuse("size is .*whole number of pixels", size)
    for views in (VIEWS[:1], VIEWS[:, :12], VIEWS * np.nan):
        with pytest.raises(WeightsError, match=r"views have shape \(.*\); needed are 2 x 13 finite numbers"):
            EstimatorNetwork(small, views, 9)
    with pytest.raises(WeightsError, match="there are no objects"):
        EstimatorNetwork({}, VIEWS)


def test_training_goes_on_as_if_it_had_not_stopped(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    from reinforcegen_envs.agents import estimating
    from reinforcegen_envs.agents.estimator import Estimator

    rng = np.random.default_rng(8)
    frames: Any = rng.integers(0, 256, (40, 2, 16, 16, 3), np.uint8)
    proprio: Any = rng.normal(size=(40, PROPRIO)).astype(np.float32)
    labels: Any = rng.normal(size=(40, OBJECTS * 18 + JOINTS)).astype(np.float32)
    data = estimating.Data([frames], proprio, labels)
    monkeypatch.setattr(estimating, "CHECKPOINT_SECONDS", 0.0)

    def trained(stop=None):
        torch.manual_seed(0)
        model = Estimator(16, PROPRIO, OBJECTS, [1], VIEWS.tolist())
        pictures, taken = estimating.Data.pictures, []

        def interrupted(self, rows):
            taken.append(rows)
            if len(taken) == stop:
                raise KeyboardInterrupt
            return pictures(self, rows)

        monkeypatch.setattr(estimating.Data, "pictures", interrupted)
        try:
            arguments = (np.arange(40), OBJECTS, 12, 8, 0.02, 3, tmp_path / "checkpoint.pt", True, lambda *_: None)
            return estimating.train(model, data, *arguments).state_dict(), len(taken)
        finally:
            monkeypatch.setattr(estimating.Data, "pictures", pictures)

    whole, _ = trained()
    with pytest.raises(KeyboardInterrupt):
        trained(stop=8)
    rest, steps = trained()
    assert steps == 12 - 7 and not (tmp_path / "checkpoint.pt").exists()
    assert all(torch.equal(rest[name], value) for name, value in whole.items())


# --- files ---

CARD: dict[str, Any] = {
    "task": "Threading", "kind": "estimator", "cameras": ["front", "wrist"], "views": VIEWS.tolist(), "seeds": [1, 2],
}  # fmt: skip


def test_save_and_load(arrays, tmp_path):
    path = tmp_path / "new" / "estimator.safetensors"
    save_estimator(path, arrays, CARD)
    assert sorted(p.name for p in path.parent.iterdir()) == ["estimator.json", "estimator.safetensors"]
    assert path.stat().st_size < 2e6
    network, card = load_estimator(path, task="Threading", cameras=("front", "wrist"), size=84, version=0)
    assert card == json.loads(path.with_suffix(".json").read_text())
    assert card["format"] == FORMAT and card["seeds"] == [1, 2]
    half = EstimatorNetwork({name: array.astype(np.float16) for name, array in arrays.items()}, VIEWS)
    inputs = random_inputs(np.random.default_rng(6), 84)
    np.testing.assert_array_equal(network(*inputs), half(*inputs))


def test_what_cannot_be_loaded_is_not_saved(small, tmp_path):
    path = tmp_path / "estimator.safetensors"
    with pytest.raises(WeightsError, match="rough.2.bias has numbers that are not finite, or too large"):
        save_estimator(path, {**small, "rough.2.bias": np.full(OBJECTS * PER_OBJECT, 1e6)}, {**CARD, "size": 9})
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
