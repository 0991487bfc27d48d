"""The id table: every id makes, keeps Gymnasium's contract, is plain data, and loads no more than it needs."""

import os
import pickle
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

import reinforcegen_envs
from reinforcegen_envs.registration import MODES, env_id, make_env, parse_stage, register_envs
from reinforcegen_envs.tasks import TASKS

VARIANTS = ("D0", "D1", "D2")
SUFFIXES = ("", "-Hybrid", "-Skill", "-Residual")
# Ids of one stage, which test_stage_ids.py is about, are not among these.
IDS = [f"ReinforceGen/{variant}-{task}{suffix}-v0" for task in TASKS for variant in VARIANTS for suffix in SUFFIXES]
# What a make does not need: scene building, search, training, plotting, rendering, data files, command lines.
UNNEEDED = ("robosuite", "pybullet", "torch", "matplotlib", "OpenGL", "h5py", "imageio", "tyro", "minari")


def test_the_registry_holds_the_whole_family_and_registers_once():
    found = [name for name in gym.registry if name.startswith("ReinforceGen/") and parse_stage(name) is None]
    assert sorted(found) == sorted(IDS) and len(IDS) == 12 * len(TASKS)
    before = dict(gym.registry)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_envs()
        gym.register_envs(reinforcegen_envs)
    assert dict(gym.registry) == before
    assert [env_id("Threading", "D1", mode) for mode in MODES] == [n for n in IDS if "/D1-Threading" in n]


@pytest.mark.parametrize("name", IDS)
def test_check_env_without_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The modes are wrappers, which is all that this one says.
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        env = gym.make(name)
        check_env(env, skip_render_check=True)
        obs, _ = env.reset(seed=0)
        over = False
        for _ in range(5):
            if over:  # a layout out of reach ends with the first step
                env.reset()
            obs, _, terminated, truncated, _ = env.step(env.action_space.sample())
            over = terminated or truncated
        assert obs.dtype == np.float32 and env.action_space == gym.spaces.Box(-1, 1, (7,), np.float32)
    env.close()


@pytest.mark.parametrize("name", IDS)
def test_specs_are_plain_data(name):
    """Through JSON and pickle, and made again from what came out."""
    spec = gym.spec(name)
    assert EnvSpec.from_json(spec.to_json()) == spec and pickle.loads(pickle.dumps(spec)) == spec
    assert spec.namespace == "ReinforceGen" and spec.version == 0
    kwargs: dict = {"termination": "predictor", "pose_noise": (0.001, 0.002)} if spec.kwargs["mode"] else {}
    env = gym.make(name, **kwargs)
    assert env.spec is not None
    first, _ = env.reset(seed=5)
    for again in (
        gym.make(env.spec),
        gym.make(EnvSpec.from_json(env.spec.to_json())),
        gym.make(pickle.loads(pickle.dumps(env.spec))),
    ):
        assert again.spec is not None and again.spec.kwargs.keys() == env.spec.kwargs.keys()
        np.testing.assert_array_equal(again.reset(seed=5)[0], first)
        again.close()


def test_modes_nest_as_wrappers(weights):
    """Each mode is made of the same wrappers that a user may put together."""
    from reinforcegen_envs.env import ManipulationEnv
    from reinforcegen_envs.wrappers import Hybrid, Residual, Skill

    by_hand = Residual(Skill(ManipulationEnv("Threading", "D2"), "grasp", weights=weights))
    made = gym.make("ReinforceGen/D2-Threading-Residual-v0", stage="grasp", weights=weights)
    np.testing.assert_array_equal(by_hand.reset(seed=1)[0], made.reset(seed=1)[0])
    for mode, kinds in (
        (None, [ManipulationEnv]),
        ("Hybrid", [Hybrid, ManipulationEnv]),
        ("Skill", [Skill, ManipulationEnv]),
        ("Residual", [Residual, Hybrid, ManipulationEnv]),
    ):
        env = make_env("Threading", "D0", mode, **({"weights": weights} if mode else {}))
        for kind in kinds:
            assert type(env) is kind
            env = getattr(env, "env", None)


def test_without_shipped_weights_the_error_says_how_to_train_some(monkeypatch, tmp_path):
    from reinforcegen_envs.policies.mlp import WeightsError

    monkeypatch.setattr("reinforcegen_envs.policies.bundle.SHIPPED", tmp_path)
    with pytest.raises(WeightsError, match="agents.bc"):
        make_env("Square", "D2", "Residual")


def run_python(code, *arguments):
    """Standard output of ``python -c code arguments`` in a fresh interpreter."""
    # robosuite, imported by another test of this process, sets MUJOCO_GL, with which mujoco imports OpenGL.
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_module_prefix_registers_and_making_needs_little(weights):
    """``gym.make("module:id")`` without importing the package; all modes reset and step without heavy modules."""
    code = f"""
import sys
import gymnasium as gym
assert "reinforcegen_envs" not in sys.modules
env = gym.make("reinforcegen_envs:ReinforceGen/D2-Threading-v0")
for suffix in {SUFFIXES}:
    kwargs = {{"weights": sys.argv[1]}} if suffix else {{}}
    env = gym.make(f"ReinforceGen/D2-Threading{{suffix}}-v0", disable_env_checker=True, **kwargs)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    print(suffix or "plain", *[name for name in {UNNEEDED} if name in sys.modules], sep=",")
"""
    assert run_python(code, weights).split() == ["plain", *SUFFIXES[1:]]
