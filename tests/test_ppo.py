"""Full reinforcement learning: the imitation policy as the agent that training starts from, and the frame it acts in."""

import dataclasses
from typing import cast

import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from reinforcegen_envs.agents import common, ppo  # noqa: E402
from reinforcegen_envs.agents.arguments import checked  # noqa: E402
from reinforcegen_envs.env import ManipulationEnv  # noqa: E402
from reinforcegen_envs.errors import InvalidArgument  # noqa: E402
from reinforcegen_envs.observations import ObservationLayout  # noqa: E402
from reinforcegen_envs.policies.bundle import Bundle  # noqa: E402
from reinforcegen_envs.policies.mlp import load_mlps  # noqa: E402
from reinforcegen_envs.policies.skill import stage_features  # noqa: E402
from reinforcegen_envs.tasks import ThreadingTask  # noqa: E402
from reinforcegen_envs.wrappers.reference import ReferenceActions  # noqa: E402

SKILL = "ReinforceGen/D2-Threading-Skill-v0"


def arguments(**kwargs):
    return checked(ppo.Args(env_id=SKILL, stage="grasp", num_envs=1, num_threads=1, **kwargs)).completed()


def test_an_untrained_imitator_does_what_the_base_policy_does():
    args = arguments(from_base=True)
    envs = common.make_training_envs(args)
    network = ppo.make_agent(args, envs).mlp()
    base = gym.make(SKILL.replace("Skill", "Residual"), stage="grasp")
    env = envs.envs[0]
    obs, _ = env.reset(seed=3)
    base.reset(seed=3)
    command = cast(ManipulationEnv, env.unwrapped).layout.slices["gripper"].start + 1
    seen = set()
    for _ in range(80):
        action = network(obs)
        obs, _, terminated, truncated, _ = env.step(action)
        after, _, *ends, _ = base.step(np.zeros(7))
        np.testing.assert_allclose(obs, after[: len(obs)], atol=2e-3)
        assert [terminated, truncated] == ends
        seen.add((bool(obs[command] > 0), bool(action[6] > 0)))
        if terminated or truncated:
            break
    assert terminated and len(seen) >= 2  # it closed the gripper, and held on
    envs.close()


def test_an_imitator_sees_no_farther_than_the_base_policy():
    """Inputs are cut where the base policy's are; beyond, the two would extrapolate differently."""
    args = arguments(from_base=True)
    envs = common.make_training_envs(args)
    imitator = ppo.make_agent(args, envs)
    base = load_mlps(Bundle.open(ThreadingTask, None).path("base"))[0]["grasp"]
    features = stage_features(ObservationLayout.of(ThreadingTask), ThreadingTask, 0)
    assert base.mean is not None and base.std is not None
    assert base.clip == imitator.input_clip < 10
    rng, network = np.random.default_rng(0), imitator.mlp()
    for _ in range(20):
        obs = np.zeros(len(imitator.obs_mean), np.float32)
        obs[features] = base.mean + base.std * rng.uniform(-8, 8, len(features)).astype(np.float32)
        np.testing.assert_allclose(network(obs)[:6], np.clip(base(obs[features])[:6], -1, 1), atol=1e-4)
    envs.close()


def test_the_gripper_threshold_follows_the_last_command():
    rng = np.random.default_rng(0)
    from reinforcegen_envs.policies.mlp import MLP
    from reinforcegen_envs.policies.skill import CLOSE_ABOVE, OPEN_BELOW

    weights = [rng.normal(0, 0.5, shape).astype(np.float32) for shape in ((8, 4), (8, 8), (7, 8))]
    biases = [rng.normal(0, 0.5, len(w)).astype(np.float32) for w in weights]
    mean, std = np.array([0.1, 0.3, 0, 1], np.float32), np.array([1, 0.9, 2, 0.5], np.float32)
    base = MLP(weights, biases, mean, std)
    decided = MLP(*ppo.gripper_decided(base, command=1), mean, std)
    for x in rng.normal(size=(50, 4)).astype(np.float32):
        for x[1], threshold in ((-1.0, CLOSE_ABOVE), (1.0, OPEN_BELOW)):
            expected = base(x) - np.array([0] * 6 + [threshold])
            np.testing.assert_allclose(decided(x), expected, atol=1e-4)


def test_from_base_brings_its_own_defaults_unless_given():
    args = arguments(from_base=True, clip=0.15)
    assert args.clip == 0.15 and args.actor_lr == ppo.FROM_BASE["actor_lr"]
    assert arguments().actor_lr == ppo.Args().actor_lr
    assert set(ppo.FROM_BASE) <= {field.name for field in dataclasses.fields(ppo.Args)}


@pytest.mark.parametrize("env_id", [SKILL.replace("Skill", "Residual"), "ReinforceGen/D2-Threading-v0"])
def test_only_skills_and_hybrids_take_reference_actions(env_id):
    with pytest.raises(InvalidArgument, match="Hybrid or Skill"):
        ReferenceActions(gym.make(env_id))


def test_from_base_needs_a_stage_of_ours():
    args = ppo.Args(env_id="Pendulum-v1", from_base=True, num_envs=1)
    with pytest.raises(InvalidArgument, match="from_base needs"):
        ppo.make_agent(args, common.make_training_envs(args))
