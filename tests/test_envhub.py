"""examples/envhub/env.py, loaded by its path as LeRobot loads it."""

import importlib.util
import types
from typing import Any

import numpy as np
import pytest
from drawing import does_not_draw, draws, run_what_draws
from gymnasium.vector import SyncVectorEnv
from helpers import EXAMPLES

from reinforcegen_envs.ids import VARIANTS
from reinforcegen_envs.tasks import PACKAGE_TASKS

FOLDER = EXAMPLES / "envhub"


@pytest.fixture(scope="module")
def hub() -> Any:
    """The module; LeRobot gives it such a name, and does not keep it in sys.modules."""
    spec = importlib.util.spec_from_file_location("hub_env_user_reinforcegen-envs", FOLDER / "env.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config(task):
    return types.SimpleNamespace(task=task)


@does_not_draw
def test_what_draws():
    """The tests below that draw, where this process has no back-end."""
    run_what_draws(__file__, "rollout or side_by_side")


def test_every_task_is_in_a_suite_of_its_reset_range(hub):
    suites = hub.make_env(n_envs=1, use_async_envs=False)
    assert list(suites) == [f"reinforcegen-{variant}" for variant in VARIANTS]
    for suite, tasks in suites.items():
        assert list(tasks) == list(range(len(PACKAGE_TASKS)))
        for index, envs in tasks.items():
            assert isinstance(envs, SyncVectorEnv) and envs.num_envs == 1
            assert envs.get_attr("task") == (PACKAGE_TASKS[index].name,)
            assert envs.get_attr("variant") == (suite.removeprefix("reinforcegen-"),)
            assert envs.call("_max_episode_steps") == (PACKAGE_TASKS[index].horizon,)
            (sentence,) = envs.call("task_description")
            assert sentence.endswith(".") and "\n" not in sentence
            envs.close()


@pytest.mark.parametrize(("task", "count"), [("Square", 3), ("D1", 6), ("D2-Coffee", 1), (None, 18)])
def test_a_configuration_chooses(hub, task, count):
    suites = hub.make_env(n_envs=1, cfg=config(task))
    assert sum(len(tasks) for tasks in suites.values()) == count


def test_an_unknown_task_is_named(hub):
    with pytest.raises(ValueError, match="unknown task 'Knitting'; choose one of .*'Square'.* or e.g. D2-Square"):
        hub.make_env(cfg=config("Knitting"))


@draws
def test_a_rollout_has_what_lerobot_reads(hub):
    envs = hub.make_env(n_envs=2, cfg=config("D0-Threading"))["reinforcegen-D0"][0]
    observation, _ = envs.reset(seed=[3, 4], options={"lerobot_new_rollout": True})
    assert set(observation) == {"pixels", "agent_pos"} and set(observation["pixels"]) == {"front", "wrist"}
    for picture in observation["pixels"].values():
        assert picture.shape == (2, 128, 128, 3) and picture.dtype == np.uint8 and picture.std() > 5
    assert observation["agent_pos"].shape == (2, 33) and envs.observation_space.contains(observation)
    # All arms' places and objects' are the seeds' own: the mark of a rollout changes nothing.
    again, _ = envs.reset(seed=[3, 4])
    np.testing.assert_array_equal(again["agent_pos"], observation["agent_pos"])
    assert not (again["agent_pos"][0] == again["agent_pos"][1]).all()
    _, _, _, _, info = envs.step(envs.action_space.sample())
    assert "final_info" not in info
    for env in envs.envs:
        env.set_wrapper_attr("_elapsed_steps", 399)
    _, _, terminated, truncated, info = envs.step(np.zeros((2, 7), np.float32))
    assert truncated.all() and not terminated.any()
    assert info["final_info"]["is_success"].tolist() == [False, False]
    assert envs.envs[0].render().shape == (512, 512, 3)
    envs.close()


@draws
def test_side_by_side_gives_the_same(hub):
    played = []
    for side_by_side in (False, True):
        envs = hub.make_env(n_envs=2, use_async_envs=side_by_side, cfg=config("D0-Threading"))["reinforcegen-D0"][0]
        assert side_by_side or envs.num_threads == 1
        envs.reset(seed=[3, 4])
        played.append(envs.step(np.full((2, 7), 0.5, np.float32))[0])
        envs.close()
    np.testing.assert_array_equal(played[0]["agent_pos"], played[1]["agent_pos"])
    np.testing.assert_array_equal(played[0]["pixels"]["wrist"], played[1]["pixels"]["wrist"])


def test_the_card_has_what_the_hub_reads():
    text = (FOLDER / "README.md").read_text()
    head = text.split("---\n")[1]
    assert "library_name: lerobot\n" in head and "pipeline_tag: robotics\n" in head and "license: mit\n" in head
    for index, task in enumerate(PACKAGE_TASKS):
        assert f"{index} {task.name}" in text
