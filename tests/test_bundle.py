"""A folder of weights: what it holds, whether it fits together, and what its cards say."""

import json
import shutil
import warnings
from dataclasses import fields

import mujoco
import numpy as np
import pytest

from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError
from reinforcegen_envs.observations import ObservationLayout
from reinforcegen_envs.perception import PoseErrors
from reinforcegen_envs.planning.skeleton import Skeleton
from reinforcegen_envs.policies import weights_file
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.mlp import CARD_VERSION, MLP, WeightsError, load_mlps, save_mlps
from reinforcegen_envs.policies.policy import act_one
from reinforcegen_envs.policies.predictors import initiation_features
from reinforcegen_envs.policies.skill import SkillPolicy
from reinforcegen_envs.registration import make_env
from reinforcegen_envs.tasks import TASKS, CoffeeTask, SquareTask, ThreadingTask

SIZE = ObservationLayout.of(ThreadingTask, base_action=True).size


def residual_mlp(size=SIZE):
    return MLP([np.full((7, size), 0.01)], [np.zeros(7)], output="tanh")


@pytest.fixture
def bundle(tmp_path):
    """A copy of Threading's shipped weights."""
    folder = tmp_path / "weights"
    shutil.copytree(Bundle.open(ThreadingTask).folder, folder)
    return Bundle.open(ThreadingTask, folder)


@pytest.mark.parametrize("task", TASKS.values())
def test_shipped_weights_fit_together(task):
    bundle = Bundle.open(task)
    bundle.check()
    parts = {part.name: part for part in bundle.list()}
    assert {"base", "termination", "initiation", "skeleton", "estimator", "evaluation"} <= set(parts)
    assert {part.path for part in parts.values()} >= set(bundle.folder.glob("camera/*.safetensors"))
    assert parts["skeleton"].card["sources"] % 10 == 0  # ten demonstrations, each in all its symmetric variants
    for row in parts["evaluation"].results.values():
        low, high = row["interval"]
        assert 0.0 <= low <= row["success"] <= high <= 1.0 and row["episodes"] >= 100
        assert "reinforcegen_envs.evaluate" in row["command"]
    assert bundle.deployed() == parts["evaluation"].results
    for name, part in parts.items():
        if part.path.suffix == ".safetensors":
            assert (part.card["version"], part.card["mujoco"]) == (CARD_VERSION, "3.9.0"), name
            assert part.card == json.loads(part.path.with_suffix(".json").read_text())
        if part.card.get("note", "").startswith("zero"):
            assert not any(network.weights[-1].any() for network in load_mlps(part.path)[0].values())
        elif "residual-" in name:
            result = part.results["as trained"]
            low, high = result["interval"]
            assert low <= result["success"] <= high and result["episodes"] >= 100


def test_a_list_needs_no_card_beside_a_file_and_leaves_alone_what_is_no_part(bundle):
    names = [part.name for part in bundle.list()]
    assert "estimator" in names and "camera/termination" in names
    bundle.path("estimator").with_suffix(".json").unlink()
    (bundle.folder / "runs").mkdir()
    (bundle.folder / "runs" / "actor.safetensors").write_bytes(b"of something else")
    assert [part.name for part in bundle.list()] == names


def test_no_such_folder(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="no weights folder .*nowhere.*agents.bc") as error:
        Bundle.open(ThreadingTask, tmp_path / "nowhere")
    assert isinstance(error.value, ReinforceGenError)
    monkeypatch.setattr("reinforcegen_envs.policies.bundle.SHIPPED", tmp_path)
    (tmp_path / "coffee").mkdir()
    with pytest.raises(WeightsError, match=r"no weights are shipped for Square \(there are some for \['coffee'\]\)"):
        Bundle.open(SquareTask)


def test_what_is_saved_is_read_again(bundle, tmp_path):
    new = Bundle(ThreadingTask, tmp_path / "new" / "folder")
    for kind in ("base", "termination", "initiation"):
        networks, card = load_mlps(bundle.path(kind))
        new.save(kind, networks, {"command": "test", "seed": 3, "threshold": card.get("threshold", 0.5)})
    new.save_skeleton(bundle.skeleton())
    new.check()
    obs = np.random.default_rng(0).normal(0, 1, (5, SIZE - 7)).astype(np.float32)
    np.testing.assert_array_equal(new.base().act(obs), bundle.base().act(obs))
    np.testing.assert_array_equal(new.initiation().act(obs), bundle.initiation().act(obs))
    card = new.list()[0].card
    expected = {"task": "Threading", "kind": "base", "version": CARD_VERSION, "mujoco": mujoco.__version__, "seed": 3}
    assert expected.items() <= card.items() and card["observation_size"] == SIZE - 7
    assert new.deployed() is None and new.residual_files() == []
    with pytest.raises(WeightsError, match="no residual weights in .*train some, or use the policy base"):
        new.tuned()
    path = new.save_residual("insert", residual_mlp(), {"residual_scale": 0.2})
    assert path.name == "residual-insert.safetensors"
    _, scale = new.residual()
    assert scale == 0.2 and new.tuned().act(obs).shape == (5, 7)
    new.save_residual(None, residual_mlp(), {"residual_scale": 0.2})
    assert [path.stem for path in new.residual_files()] == ["residual-all", "residual-insert"]
    rows = {"D2 tuned": {"success": 0.5, "interval": [0.2, 0.8], "episodes": 10}}
    new.save_evaluation(rows)
    assert new.deployed() == rows
    new.check()
    for wrong, message in (
        (lambda: new.save("student", {}, {}), "unknown kind 'student'; choose one of .*'base'"),
        (
            lambda: new.save("base", {"grasp": residual_mlp()}, {}),
            r"stages \['grasp'\]; Threading has \['grasp', 'insert'\]",
        ),
        (
            lambda: new.save_residual("polish", residual_mlp(), {"residual_scale": 1}),
            "no stage 'polish'; Threading has",
        ),
        (lambda: new.save_residual("grasp", residual_mlp(), {}), 'lacks "residual_scale"'),
    ):
        with pytest.raises(InvalidArgument, match=message):
            wrong()


def test_installing_a_residual(bundle, tmp_path):
    """A trainer's file goes to its stage's name, with its card; nothing is written when it does not fit."""
    actor = tmp_path / "run" / "actor.safetensors"
    card = {"kind": "residual", "task": "Threading", "observation_size": SIZE, "residual_scale": 0.1, "steps": 7}
    contents = lambda: {path: path.read_bytes() for path in bundle.folder.rglob("*") if path.is_file()}  # noqa: E731
    before = contents()

    def refuse(message, networks=None, **changes):
        save_mlps(actor, networks or {"grasp": residual_mlp()}, {**card, **changes})
        with pytest.raises(WeightsError, match=message):
            bundle.install(actor)
        assert contents() == before

    refuse("for task 'Coffee'", task="Coffee")
    refuse("for kind 'base'", kind="base")
    refuse("for version 1, but 0 is needed", version=1)
    refuse("residual scale 0.3, the other stages' .* have 0.1", residual_scale=0.3)
    refuse(r"stages \['polish'\]", {"polish": residual_mlp()})
    refuse("maps 46 numbers", {"grasp": residual_mlp(46)})
    refuse(r"networks for \['grasp', 'insert'\]; one stage", {"grasp": residual_mlp(), "insert": residual_mlp()})
    save_mlps(actor, {"grasp": residual_mlp()}, card)
    target = bundle.install(actor)
    assert target == bundle.path("residual-grasp") and target.read_bytes() == actor.read_bytes()
    assert json.loads(target.with_suffix(".json").read_text())["steps"] == 7
    assert bundle.install(target) == target  # where it is already
    bundle.check()
    # The last stage's may change its scale.
    bundle.remove("residual-insert")
    save_mlps(actor, {"grasp": residual_mlp()}, {**card, "residual_scale": 0.3})
    bundle.install(actor)
    assert bundle.residual()[1] == 0.3


def test_removing_parts(bundle):
    bundle.remove("residual-grasp")
    bundle.remove("evaluation")
    names = {path.name for path in bundle.folder.iterdir()}
    assert not {name for name in names if name.startswith(("residual-grasp", "evaluation"))}
    assert "residual-insert.json" in names and bundle.deployed() is None
    with pytest.raises(InvalidArgument, match="no part 'residual-grasp'.*'base'.*'skeleton'"):
        bundle.remove("residual-grasp")
    with pytest.raises(InvalidArgument, match="no part '../weights/base'"):
        bundle.remove("../weights/base")


def test_parts_that_do_not_fit_together(bundle):
    skeleton = bundle.skeleton()
    bundle.save_skeleton(Skeleton(**{field.name: getattr(skeleton, field.name)[:9] for field in fields(skeleton)}))
    with pytest.raises(WeightsError, match="ranks 10 source demonstrations, the skeleton has 9"):
        bundle.check()
    bundle.save_skeleton(Bundle.open(CoffeeTask).skeleton())
    bundle.check()  # of two stages as well
    bundle.save_skeleton(Bundle.open(TASKS["NutAssembly"]).skeleton())
    with pytest.raises(WeightsError, match=r"shape \(160, 4, 3, 4, 4\); Threading has 2 stages"):
        bundle.check()
    bundle.path("skeleton").write_bytes(b"bones")
    with pytest.raises(WeightsError, match="not a complete skeleton file"):
        bundle.check()
    bundle.save_skeleton(skeleton)
    bundle.save_residual("grasp", residual_mlp(), {"residual_scale": 0.5})
    with pytest.raises(WeightsError, match="different scales"):
        bundle.check()
    bundle.remove("residual-grasp")
    for damaged in ("{", "[1]", '{"D2": 3}'):
        bundle.path("evaluation").write_text(damaged)
        with pytest.raises(WeightsError, match="evaluation.json is not a complete evaluation"):
            bundle.check()
    bundle.remove("evaluation")
    networks, _ = load_mlps(bundle.path("initiation"))
    few = {
        name: MLP([*m.weights[:-1], m.weights[-1][:3]], [*m.biases[:-1], m.biases[-1][:3]])
        for name, m in networks.items()
    }
    bundle.save("initiation", few, {})
    with pytest.raises(WeightsError, match="ranks 3 source"):
        bundle.check()
    assert few["grasp"].input_size == len(initiation_features(ObservationLayout.of(ThreadingTask)))
    with pytest.raises(WeightsError, match="for task 'Threading', but 'Square'"):
        Bundle(SquareTask, bundle.folder).check()
    with pytest.raises(WeightsError, match="for task 'Threading', but 'Square'"):
        Bundle(SquareTask, bundle.folder).list()


def test_a_skeleton_without_left_is_refused(bundle, tmp_path):
    with np.load(bundle.path("skeleton")) as arrays:
        np.savez(tmp_path / "old.npz", tools=arrays["tools"], in_hand=arrays["in_hand"])
    with pytest.raises(ValueError, match="old.npz is not a complete skeleton file .*left.*agents.bc"):
        Skeleton.load(tmp_path / "old.npz")


def test_a_skeleton_from_before_retries_knew_more_is_read(bundle, tmp_path):
    whole = bundle.skeleton()
    np.savez(tmp_path / "old.npz", tools=whole.tools, in_hand=whole.in_hand, left=whole.left)
    old = Skeleton.load(tmp_path / "old.npz")
    assert np.array_equal(old.freed, whole.tools[:, :, 2])
    assert old.lengths.shape == whole.lengths.shape
    assert old.lengths.min() > max(stage.horizon for stage in ThreadingTask.stages) >= whole.lengths.max()


@pytest.mark.parametrize("name", ["policy.pt", "policy.pth", "policy.zip", "policy"])
def test_weights_of_other_libraries_are_refused_with_a_way_out(name, tmp_path):
    """robomimic's, Stable-Baselines3's and TorchScript's files are archives; they come in as callables."""
    path = tmp_path / name
    path.write_bytes(b"PK\x03\x04" + bytes(2000))
    with pytest.raises(
        WeightsError, match=rf"{name} is not a safetensors file of this package.*callable.*base_policy="
    ) as error:
        SkillPolicy.load(path, ThreadingTask)
    assert "complete" not in str(error.value)


def test_numbers_belong_to_a_mujoco_version(tmp_path, monkeypatch):
    """Loading says so once a process, when the minor version is another; patch versions do not matter."""
    path = tmp_path / "weights.safetensors"
    network = {"all": residual_mlp()}

    def warnings_of(version):
        save_mlps(path, network, {"task": "Threading", "kind": "residual", "mujoco": version})
        monkeypatch.setattr(weights_file, "_warned_of_mujoco", False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                load_mlps(path)
        return [str(warning.message) for warning in caught]

    major, minor, _ = mujoco.__version__.split(".")
    assert warnings_of(mujoco.__version__) == warnings_of(f"{major}.{minor}.99") == []
    (message,) = warnings_of(f"{major}.{int(minor) + 1}.0")
    assert f"made with MuJoCo {major}.{int(minor) + 1}.0, this is {mujoco.__version__}" in message


def test_the_shipped_tuned_policy_is_base_and_residual():
    bundle = Bundle.open(ThreadingTask)
    obs = np.random.default_rng(1).normal(0, 0.3, (6, SIZE - 7)).astype(np.float32)
    tuned = bundle.tuned()
    np.testing.assert_array_equal([act_one(tuned, row) for row in obs], tuned.act(obs))


def test_weights_of_a_perception_take_the_place_of_the_truths(bundle):
    """Residuals and termination do; what is not there is the truth's, and writing leaves the truth's alone."""
    shutil.rmtree(bundle.folder / "camera", ignore_errors=True)
    before = {path.name: path.read_bytes() for path in bundle.folder.iterdir()}
    seeing = Bundle.open(bundle.task, bundle.folder, "camera")
    assert seeing.residual_files() == bundle.residual_files()
    networks, _ = load_mlps(bundle.path("termination"))
    assert seeing.path("termination") == bundle.path("termination")
    assert (
        seeing.save("termination", networks, {"threshold": 0.25})
        == bundle.folder / "camera" / "termination.safetensors"
    )
    scale = bundle.residual()[1]
    seeing.save_residual("grasp", residual_mlp(), {"residual_scale": scale})
    assert {path.name: path.read_bytes() for path in bundle.folder.iterdir() if path.is_file()} == before
    assert [path.parent.name for path in seeing.residual_files()] == ["camera", bundle.folder.name]
    seeing.check()
    obs = np.random.default_rng(0).normal(0, 1, (4, SIZE)).astype(np.float32)
    assert not np.array_equal(seeing.residual()[0].act(obs), bundle.residual()[0].act(obs))
    assert seeing.path("base") == bundle.path("base")


def test_environments_use_the_weights_of_their_perception(bundle):
    networks, _ = load_mlps(bundle.path("termination"))
    Bundle.open(bundle.task, bundle.folder, "blurred").save("termination", networks, {"threshold": 0.25})

    class Blurred(PoseErrors):
        name = "blurred"

    def logit(perception):
        env = make_env(
            "Threading", "D0", "Hybrid", weights=bundle.folder, termination="predictor", perception=perception
        )
        return env.get_wrapper_attr("termination")._logit

    assert (logit(Blurred(metres=0.001)), logit("truth")) == (np.log(0.25 / 0.75), bundle.termination()._logit)


def test_a_task_may_be_named():
    assert Bundle.open("Coffee").task is TASKS["Coffee"]
    with pytest.raises(ValueError, match="unknown task 'Tea'; choose one of"):
        Bundle.open("Tea")
