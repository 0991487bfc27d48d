"""Arguments of the trainers: ranges, numpy's numbers and paths, environments that are not in float32, foreign ids."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, get_type_hints

import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from offset_reach import EVERY_TRAINER, TRAINERS, OffsetReach, small  # noqa: E402

from reinforcegen_envs import cli  # noqa: E402
from reinforcegen_envs.agents import common, ppo_residual, td3_residual  # noqa: E402
from reinforcegen_envs.agents.arguments import RunArgs, checked  # noqa: E402
from reinforcegen_envs.arguments import Range  # noqa: E402
from reinforcegen_envs.errors import InvalidArgument  # noqa: E402
from reinforcegen_envs.policies.mlp import load_mlps  # noqa: E402

NAN, INF = float("nan"), float("inf")


# ------------------------------------------------------------------------------------------------- ranges


@pytest.mark.parametrize("name", EVERY_TRAINER)
def test_every_number_has_a_range_that_holds_its_default(name):
    args = EVERY_TRAINER[name].Args()
    plain = get_type_hints(type(args))
    kinds = get_type_hints(type(args), include_extras=True)
    for field in dataclasses.fields(args):
        if plain[field.name] in (int, float):
            (allowed,) = kinds[field.name].__metadata__
            assert isinstance(allowed, Range) and getattr(args, field.name) in allowed and NAN not in allowed
    assert checked(args) == args


@pytest.mark.parametrize("name", EVERY_TRAINER)
def test_what_is_outside_its_range_is_refused_before_anything_is_done(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gym, "make", lambda *_, **__: pytest.fail("made an environment"))
    module = EVERY_TRAINER[name]
    kinds = get_type_hints(module.Args, include_extras=True)
    for field in dataclasses.fields(module.Args):
        if not hasattr(kinds[field.name], "__metadata__"):
            continue
        (allowed,) = kinds[field.name].__metadata__
        beyond = [NAN, -INF if allowed.low < -1 else allowed.low - 1, "8", None, True]
        beyond += [allowed.high + 1] if allowed.high == 1 else []
        for value in beyond:
            with pytest.raises(InvalidArgument, match=rf"^{field.name} is .*it must be"):
                module.main(module.Args(**{field.name: value}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "kwargs", "message"),
    [
        (td3_residual, {"seed": -1}, "seed is -1; it must be at least 0"),
        (td3_residual, {"num_envs": 0, "gamma": 2.0}, r"num_envs is 0; .*at least 1; gamma is 2.0; .*at most 1$"),
        (td3_residual, {"exploration_noise": NAN}, "exploration_noise is nan; it must be at least 0"),
        (td3_residual, {"critic_lr": INF}, "critic_lr is inf; it must be above 0"),
        (td3_residual, {"batch_size": 2.5}, "batch_size is 2.5; it must be an integer"),
        (td3_residual, {"pose_noise": (0.01, -1)}, "pose_noise is .*2 numbers, each at least 0"),
        (td3_residual, {"pose_noise": 0.01}, "pose_noise is 0.01; it must be 2 numbers"),
        (td3_residual, {"residual_scale": 0.0}, "residual_scale is 0.0; it must be above 0 and at most 1"),
        (td3_residual, {"env_id": 3}, "env_id is 3; it must be a text"),
        (td3_residual, {"pool": 3}, "pool is 3; it must be a path"),
        (td3_residual, {"resume": "yes"}, "resume is 'yes'; it must be True or False"),
        (td3_residual, {"resume": True, "overwrite": True}, "resume goes on and overwrite starts anew"),
        (td3_residual, {"target_critics": 4}, "target_critics is 4; there are 2 critics"),
        (td3_residual, {"buffer_size": 100}, "batch_size is 256; it must be at most buffer_size, 100"),
        (td3_residual, {"q_low": 1.0}, "q_low is 1; it must be below q_high, 1"),
        (ppo_residual, {"target_kl": 0.0}, "target_kl is 0.0; it must be above 0, or inf for no limit"),
        (ppo_residual, {"num_envs": 1, "num_steps": 11}, "minibatches is 6; .* at least two of the 11 transitions"),
        (ppo_residual, {"initial_log_std": INF}, "initial_log_std is inf; it must be finite"),
    ],
)
def test_messages(module, kwargs, message):
    with pytest.raises(InvalidArgument, match=message):
        module.main(module.Args(**kwargs))


def test_infinity_where_it_means_no_limit():
    assert checked(ppo_residual.Args(target_kl=INF, max_grad_norm=INF)).target_kl == INF


@pytest.mark.parametrize("name", EVERY_TRAINER)
def test_a_command_line_gets_one_line(name, monkeypatch, capsys):
    module = EVERY_TRAINER[name]
    nan, allowed = ("disturbance", "at least 0") if name == "dagger" else ("gamma", "at least 0 and at most 1")
    monkeypatch.setattr(sys, "argv", ["trainer", "--seed", "-1", f"--{nan}", "nan"])
    with pytest.raises(SystemExit) as error:
        cli.run(module.main, module.Args, description=module.__doc__)
    lines = capsys.readouterr().err.splitlines()
    assert error.value.code == 2
    assert lines == [
        f"error: seed is -1; it must be at least 0 and at most 4294967295; {nan} is nan; it must be {allowed}"
    ]


@pytest.mark.parametrize("name", EVERY_TRAINER)
def test_help_shows_a_command(name, monkeypatch, capsys):
    module = EVERY_TRAINER[name]
    monkeypatch.setattr(sys, "argv", ["trainer", "--help"])
    with pytest.raises(SystemExit):
        cli.run(module.main, module.Args, description=module.__doc__)
    assert f"python -m reinforcegen_envs.agents.{name} --env-id ReinforceGen/" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------- paths and numpy


def test_what_is_checked_is_plain_python():
    given: dict[str, Any] = {
        "seed": np.int64(3),
        "num_envs": np.uint8(2),
        "residual_scale": np.float32(0.5),
        "pose_noise": np.array([0.0, 1.0]),
        "resume": np.bool_(True),
        "stage": np.str_("grasp"),
        "pool": "pool.npz",
    }
    plain = checked(RunArgs(**given))
    assert plain == RunArgs(
        seed=3, num_envs=2, residual_scale=0.5, pose_noise=(0.0, 1.0), resume=True, stage="grasp", pool=Path("pool.npz")
    )
    for name in ("seed", "num_envs", "residual_scale", "resume", "stage"):
        assert type(getattr(plain, name)) in (int, float, bool, str)


@pytest.mark.parametrize("name", TRAINERS)
def test_a_run_with_numpy_scalars_and_paths_resumes(name, tmp_path):
    module = TRAINERS[name]
    kwargs = {"seed": np.int64(2), "gamma": np.float32(0.5), "num_envs": np.int32(4), "eval_every": 0}
    args = small(module, tmp_path, **kwargs, runs_dir=tmp_path, weights=None, total_steps=np.int64(256))
    module.main(args)
    module.main(dataclasses.replace(args, resume=True, runs_dir=str(tmp_path)))
    _, card = load_mlps(tmp_path / "run" / "actor.safetensors")
    assert card["seed"] == 2 and "--seed 2 " in card["command"] and f"--runs-dir {tmp_path}" in card["command"]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["seed"] == 2


def test_an_environment_gets_paths_as_text_and_no_none(monkeypatch):
    seen = {}
    monkeypatch.setattr(gym, "make", lambda env_id, **kwargs: seen.update(kwargs) or OffsetReach())
    args = checked(RunArgs(env_id="x", pool=Path("a/pool.npz"), eval_pool=Path("b.npz"), weights=Path("w")))
    common.env_factory(args)()
    assert seen == {"pool": "a/pool.npz", "weights": "w"}
    common.env_factory(args, evaluation=True)()
    assert seen == {"pool": "b.npz", "weights": "w"}


# ---------------------------------------------------------------------------------------------- environments


class Spaces(gym.Env):
    """An environment of given spaces."""

    def __init__(self, observation, action):
        self.observation_space, self.action_space = observation, action
        self.limits = getattr(action, "low", 0) - 1e-6, getattr(action, "high", 0) + 1e-6

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, self.observation_space.dtype), {}

    def step(self, action):
        low, high = self.limits
        assert np.all(action >= low) and np.all(action <= high)
        return np.zeros(3, self.observation_space.dtype), 0.0, False, False, {}


def box(low, high, dtype, size=3):
    return gym.spaces.Box(low, high, (size,), dtype)


@pytest.mark.parametrize(
    "observation", [box(-np.inf, np.inf, np.float64), box(-1.7e308, 1.0, np.float64), box(0, 255, np.uint8)]
)
@pytest.mark.parametrize("action", [box(-1, 1, np.float64), box(-1.0, 5.0, np.float64), box(0, 5, np.float32)])
def test_any_box_becomes_float32(observation, action, monkeypatch):
    monkeypatch.setattr(gym, "make", lambda *_, **__: Spaces(observation, action))
    env = common.env_factory(RunArgs(env_id="x"))()
    obs, _ = env.reset(seed=0)
    assert obs.dtype == np.float32 and env.observation_space.dtype == np.float32 and obs.shape == (3,)
    assert env.action_space == box(-1, 1, action.dtype)
    assert env.step(np.array([-1, 0, 1], np.float32))[0].dtype == np.float32


@pytest.mark.parametrize("action", [box(-np.inf, np.inf, np.float32), box(0, 5, np.int32), gym.spaces.Discrete(3)])
def test_actions_that_cannot_be_scaled(action, monkeypatch):
    monkeypatch.setattr(gym, "make", lambda *_, **__: Spaces(box(-1, 1, np.float32), action))
    with pytest.raises(InvalidArgument, match="one flat Box each, that of the action with finite bounds"):
        common.env_factory(RunArgs(env_id="x"))()


@pytest.mark.parametrize("name", TRAINERS)
def test_float64_observations(name, tmp_path):
    module = TRAINERS[name]
    args = small(
        module, tmp_path, env_id="InvertedPendulum-v5", stage=None, total_steps=256, eval_episodes=1, final_episodes=1
    )
    assert module.main(args)["steps"] == 256
    load_mlps(tmp_path / "run" / "actor.safetensors", task="InvertedPendulum", version=0)


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "InvertedPendulum-v5"])
def test_a_foreign_id_takes_no_stage(env_id, tmp_path):
    args = td3_residual.Args(env_id=env_id, stage="grasp", runs_dir=tmp_path / "runs")
    with pytest.raises(InvalidArgument, match=rf"{env_id} takes no argument 'stage'; leave out --stage"):
        td3_residual.main(args)
    assert not list(tmp_path.iterdir())


def test_a_defect_of_an_environment_keeps_its_error(monkeypatch):
    def broken(*_, **__):
        raise TypeError("f() got an unexpected keyword argument 'flavour'")

    monkeypatch.setattr(gym, "make", broken)
    with pytest.raises(TypeError, match="flavour"):
        common.env_factory(RunArgs(env_id="x", stage="grasp"))()


def test_threads_are_one_a_usable_core_unless_given(monkeypatch):
    monkeypatch.setattr(common, "usable_cores", lambda: 3)
    args = RunArgs(env_id="test/OffsetReach-v3", num_envs=4)
    assert common.make_training_envs(args).num_threads == 3
    assert common.make_training_envs(dataclasses.replace(args, num_threads=2)).num_threads == 2
