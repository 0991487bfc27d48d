"""A folder of weights for the hub: what is in it, what its card says, and that it does what the original does."""

import json
import shutil

import gymnasium as gym
import numpy as np
import pytest

from reinforcegen_envs import export as command
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.evaluation import command as evaluation
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.mlp import WeightsError
from reinforcegen_envs.policies.model_card import export, model_card
from reinforcegen_envs.tasks import TASKS, NutAssemblyTask, ThreadingTask

SHIPPED = Bundle.open(ThreadingTask)


def front_matter(text):
    """Entries of a card's front matter, whose values are JSON."""
    head = text.split("---\n")[1]
    return {key: json.loads(value) for key, value in (line.split(": ", 1) for line in head.splitlines())}


def test_a_folder_that_was_exported_acts_the_same(tmp_path):
    folder = command.main(command.Args(out=tmp_path / "hub" / "threading"))
    assert {path.name for path in folder.iterdir()} == {path.name for path in SHIPPED.folder.iterdir()} | {"README.md"}
    copied = Bundle.open(ThreadingTask, folder)
    copied.check()
    observations = np.random.default_rng(0).normal(0, 1, (20, 46)).astype(np.float32)
    np.testing.assert_array_equal(copied.tuned().act(observations), SHIPPED.tuned().act(observations))
    played = []
    for weights in (None, folder):
        env, policy = evaluation.make(evaluation.Args(weights=weights))
        observation, _ = env.reset(seed=5)
        actions = []
        for _ in range(30):
            actions.append(policy(observation))
            observation, *_, info = env.step(actions[-1])
            actions.append(observation)
            if info["success"]:
                break
        env.close()
        played.append(np.concatenate(actions))
    np.testing.assert_array_equal(*played)


def test_the_documented_environment_is_made(tmp_path):
    folder = export(SHIPPED, tmp_path / "threading")
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    space = {"FOLDER": str(folder)}
    exec(code, space)
    env = space["env"]
    assert isinstance(env, gym.Env) and env.spec is not None and env.spec.id == "ReinforceGen/D2-Threading-Residual-v0"
    env.close()


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_cards_say_what_was_measured(task):
    bundle = Bundle.open(task)
    text = model_card(bundle)
    head = front_matter(text)
    assert (head["library_name"], head["pipeline_tag"], head["license"]) == ("reinforcegen-envs", "robotics", "mit")
    assert "robotics" in head["tags"]
    (model,) = head["model-index"]
    results = bundle.deployed()
    assert results is not None and len(model["results"]) == len(results)
    for (setting, row), result in zip(results.items(), model["results"], strict=True):
        assert result["dataset"]["name"] == f"{task.name} {setting}"
        assert result["metrics"][0]["value"] == row["success"]
        assert f"| {setting} | {row['success']:.3f} | [{row['interval'][0]:.3f}, " in text
    policy = "tuned" if bundle.residual_files() else "base"
    assert f"reinforcegen evaluate --task {task.name} --policy {policy} --weights FOLDER" in text


def test_a_title_and_a_licence_of_ones_own(tmp_path):
    own = Bundle(ThreadingTask, export(SHIPPED, tmp_path / "own"))
    assert "license" not in front_matter(model_card(own))  # not ours to say
    text = model_card(own, "My needle", "apache-2.0")
    assert front_matter(text)["license"] == "apache-2.0" and "\n# My needle\n" in text
    own.remove("evaluation")
    assert "Not evaluated yet." in model_card(own) and "model-index" not in front_matter(model_card(own))


def test_only_these_weights_are_in_the_folder(tmp_path):
    folder = export(SHIPPED, tmp_path / "threading")
    (folder / ".git").mkdir()
    assert export(SHIPPED, folder) == folder  # again
    with pytest.raises(InvalidArgument, match=r"holds \['residual-grasp.json', .* which are not these weights'"):
        export(Bundle.open(NutAssemblyTask), folder)
    with pytest.raises(InvalidArgument, match="holds these weights already"):
        export(Bundle.open(ThreadingTask, folder), folder)
    with pytest.raises(InvalidArgument, match="is a file, not a folder"):
        export(SHIPPED, folder / "README.md")


def test_what_belongs_to_a_perception_goes_with_them(tmp_path):
    weights = tmp_path / "weights"
    shutil.copytree(SHIPPED.folder, weights)
    (weights / "camera").mkdir(exist_ok=True)
    for path in weights.glob("residual-insert.*"):
        shutil.copy(path, weights / "camera")
    (weights / "camera" / "notes.txt").touch()
    folder = export(Bundle.open(ThreadingTask, weights), tmp_path / "hub")
    assert export(Bundle.open(ThreadingTask, weights), folder) == folder  # over an earlier export
    assert {path.name for path in (folder / "camera").iterdir()} >= {
        "residual-insert.json",
        "residual-insert.safetensors",
    }
    assert not (folder / "camera" / "notes.txt").exists()
    assert Bundle.open(ThreadingTask, folder, "camera").path("residual-insert").parent == folder / "camera"
    assert "`camera/residual-insert.safetensors`" in (folder / "README.md").read_text()


def test_unusable_weights_are_not_exported(tmp_path):
    folder = export(SHIPPED, tmp_path / "threading")
    (folder / "skeleton.npz").unlink()
    with pytest.raises(WeightsError, match="skeleton"):
        export(Bundle.open(ThreadingTask, folder), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(InvalidArgument, match="unknown task 'Knitting'"):
        command.main(command.Args(task="Knitting", out=tmp_path / "new"))
