"""The trainers: end to end on small tasks, their arithmetic, resuming, and the exported actor."""

import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from offset_reach import TRAINERS, assert_equal, read_csv, small  # noqa: E402

from reinforcegen_envs.agents import common, ppo_residual, runs, td3_residual  # noqa: E402
from reinforcegen_envs.agents.arguments import RunArgs  # noqa: E402
from reinforcegen_envs.agents.evaluation import evaluate_agent  # noqa: E402
from reinforcegen_envs.agents.exploration import Noise  # noqa: E402
from reinforcegen_envs.agents.replay import Experience, NStep, Replay  # noqa: E402
from reinforcegen_envs.agents.runs import RunError  # noqa: E402
from reinforcegen_envs.policies.mlp import load_mlps  # noqa: E402
from reinforcegen_envs.statistics import EVALUATION_SEED  # noqa: E402


def torch_actions(module, folder, args, obs):
    """Actions of the checkpoint's actor."""
    agent: Any = getattr(module, "Agent", ppo_residual.Agent)(args, obs.shape[1], 2)
    agent.load_state_dict(torch.load(folder / "checkpoint.pt", weights_only=True)["parts"]["agent"])
    if module is td3_residual:
        return agent.act(obs)
    with torch.no_grad():
        return agent.actor(agent.normalise(torch.from_numpy(obs))).clamp(-1, 1).numpy()


# ------------------------------------------------------------------------------------------- command line


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (
            "td3_residual",
            ["--warmup-steps", "100", "--critic-only-updates", "5", "--batch-size", "16", "--q-low", "-99"],
        ),
        ("ppo_residual", ["--num-steps", "50", "--epochs", "1"]),
    ],
)
def test_command_line_runs_any_continuous_id_and_resumes(name, options, tmp_path):
    def run(steps, *more):
        command = [
            sys.executable,
            "-m",
            f"reinforcegen_envs.agents.{name}",
            "--env-id",
            "Pendulum-v1",
            *options,
        ]
        command += [
            "--num-envs",
            "2",
            "--total-steps",
            steps,
            "--run-name",
            "p",
            "--runs-dir",
            str(tmp_path),
            *more,
        ]
        command += ["--eval-episodes", "1", "--final-episodes", "2"]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    first = run("200")
    assert first.returncode == 0, first.stderr
    assert "success 0.000 [0.000, 0.658] in 2 episodes, seeds from 1000000" in first.stdout
    resumed = run("300", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    result = json.loads((tmp_path / "p" / "result.json").read_text())
    assert result["steps"] == 300 and result["episodes"] == 2 and result["first_seed"] == EVALUATION_SEED
    assert [row["step"] for row in read_csv(tmp_path / "p")][-1] == "300"
    _, card = load_mlps(tmp_path / "p" / "actor.safetensors", task="Pendulum", version=0, observation_size=3)
    assert card["stage"] == "all" and "--env-id Pendulum-v1" in card["command"]


# ------------------------------------------------------------------------------------------- whole runs


def test_td3_improves_on_its_base_policy(tmp_path):
    args = small(
        td3_residual,
        tmp_path,
        total_steps=5000,
        warmup_steps=1000,
        critic_only_updates=300,
        batch_size=128,
        critic_hidden=64,
        actor_hidden=64,
        actor_lr=1e-3,
        critic_lr=1e-3,
        exploration_noise=0.1,
        eval_every=0,
        final_episodes=200,
        checkpoint_every=0,
    )
    result = td3_residual.main(args)
    assert result["base"]["success"] < 0.6
    assert result["interval"][0] > result["base"]["interval"][1] + 0.1
    # Seeds 1 to 4 gained 0.31 to 0.35; the last bits of sums, and with them the course of training, differ by machine.
    assert result["success"] > result["base"]["success"] + 0.25


@pytest.mark.parametrize("name", TRAINERS)
def test_run_folder_export_and_exact_resume(name, tmp_path):
    module = TRAINERS[name]
    args = small(module, tmp_path, eval_every=128, noise_memory=0.5)
    module.main(args)
    folder = tmp_path / "run"
    rows = read_csv(folder)
    assert rows[0]["step"] == "0" and rows[0]["eval/success"] != ""
    assert any(row["charts/success"] != "" and row["losses/critic"] != "" for row in rows)
    assert sum(row["eval/success"] != "" for row in rows) == 4
    assert list(folder.glob("events.out.tfevents.*")) and not list(folder.glob(".*"))

    # The exported actor is the torch actor.
    kind = "policy" if name == "ppo" else "residual"
    mlps, card = load_mlps(folder / "actor.safetensors", kind=kind, observation_size=6, residual_scale=0.3)
    assert list(mlps) == ["reach"] and card["steps"] == 384 and card["version"] == 0
    assert card["evaluation"]["episodes"] == 10
    obs = np.random.default_rng(0).normal(0, 3, (100, 6)).astype(np.float32)
    expected = torch_actions(module, folder, args, obs)
    assert np.abs(expected).max() > 1e-6
    np.testing.assert_allclose([mlps["reach"](x) for x in obs], expected, atol=1e-5)

    # Resuming with nothing left to do reproduces every bit of the checkpoint.
    before = torch.load(folder / "checkpoint.pt", weights_only=True)
    module.main(dataclasses.replace(args, resume=True))
    after = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert_equal(before["progress"], after["progress"])
    assert_equal(before["parts"], after["parts"])

    # And it can go on, but only with the same task.
    module.main(dataclasses.replace(args, resume=True, total_steps=512))
    steps = [int(row["step"]) for row in read_csv(folder)]
    assert steps == sorted(steps) and steps[-1] == 512
    with pytest.raises(ValueError, match="stage 'reach' -> 'other'"):
        module.main(dataclasses.replace(args, resume=True, stage="other"))
    with pytest.raises(RunError, match="--resume"):
        module.main(args)
    with pytest.raises(RunError, match="without --resume"):
        module.main(dataclasses.replace(args, resume=True, run_name="missing"))


@pytest.mark.parametrize("name", TRAINERS)
def test_same_seed_same_actor(name, tmp_path):
    module = TRAINERS[name]
    actors = []
    for run_name, threads in (("a", 1), ("b", 2)):
        args = small(module, tmp_path, eval_every=0, final_episodes=1, run_name=run_name, num_threads=threads)
        module.main(args)
        actors.append(load_mlps(tmp_path / run_name / "actor.safetensors")[0]["reach"])
    for a, b in zip(actors[0].weights, actors[1].weights, strict=True):
        np.testing.assert_array_equal(a, b)


# ------------------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize("terminated", [True, False])
def test_n_step_rows_stop_at_episode_ends(terminated):
    n_step = NStep(num_envs=1, n=3, gamma=0.5)
    rows = []
    for t in range(5):
        obs, after = np.array([t], np.float32), np.array([t + 1], np.float32)
        end = t == 4
        rows += n_step.add(0, obs, np.array([10 * t]), float(end), after, end and terminated, end)
    # [obs, action, return, discount, obs after]
    bootstrap = 0.0 if terminated else 1.0
    expected = [
        [0, 0, 0, 0.125, 3],
        [1, 10, 0, 0.125, 4],
        [2, 20, 0.25, 0.125 * bootstrap, 5],
        [3, 30, 0.5, 0.25 * bootstrap, 5],
        [4, 40, 1, 0.5 * bootstrap, 5],
    ]
    np.testing.assert_allclose(rows, expected)
    assert not n_step.windows[0]


def test_replay_keeps_the_newest_rows():
    replay = Replay(3, 1)
    replay.add([np.array([k]) for k in range(5)])
    assert sorted(replay.rows[:, 0]) == [2, 3, 4] and replay.size == 3
    assert set(replay.sample(np.random.default_rng(0), 100)[:, 0]) == {2, 3, 4}


def test_half_of_a_batch_comes_from_successes():
    experience = Experience(num_envs=1, capacity=10, width=1, n=1, gamma=0.9)
    experience.replay.add([np.array([0.0])])
    rng = np.random.default_rng(0)
    assert experience.sample(rng, 64, 0.5).sum() == 0
    experience.successes.add([np.array([1.0])])
    assert experience.sample(rng, 64, 0.5).sum() == 32


def test_only_successful_episodes_are_kept_twice():
    experience = Experience(num_envs=2, capacity=10, width=5, n=2, gamma=0.5)
    for t in range(2):
        done = np.full(2, t == 1)
        obs, after = np.full((2, 1), t), np.full((2, 1), t + 1)
        succeeded = done & np.array([False, True])
        experience.add(common.Transition(obs, obs, np.array([0.0, 1.0]), after, done, done, succeeded))
    assert experience.replay.size == 4
    # [obs, action, return, discount, obs after] of the second environment
    np.testing.assert_array_equal(
        experience.successes.rows[: experience.successes.size], [[0, 0, 1.5, 0, 2], [1, 1, 1, 0, 2]]
    )
    other = Experience(num_envs=2, capacity=10, width=5, n=2, gamma=0.5)
    other.load_state_dict(experience.state_dict())
    assert_equal(experience.state_dict(), other.state_dict())


def test_batched_critics_are_separate_critics():
    critics = td3_residual.Critics(3, 5, 8, 2)
    obs, action = torch.randn(4, 3), torch.randn(4, 2)
    together = critics(obs, action)
    for k in range(3):
        x = torch.cat([obs, action], 1)
        for i, (weight, bias) in enumerate(zip(critics.weights, critics.biases, strict=True)):
            x = x @ weight[k]
            x = x + bias[k] if i == 2 else torch.relu(torch.nn.functional.layer_norm(x, (8,)) + bias[k])
        torch.testing.assert_close(together[k], x[:, 0])
    torch.testing.assert_close(critics(obs, action, torch.tensor([2, 0])), together[[2, 0]])


def test_advantages_bootstrap_at_truncation_only():
    args = ppo_residual.Args(num_envs=1, num_steps=4, gamma=0.5, gae_lambda=0.5)
    agent = ppo_residual.Agent(args, 1, 1)
    agent.value = lambda obs: obs[..., 0]  # the value of an observation is the observation
    column = lambda *x: torch.tensor(x, dtype=torch.float32)[:, None]  # noqa: E731
    data = ppo_residual.Rollout(
        obs=column(1, 2, 3, 4)[..., None],
        after=column(2, 8, 6, 6)[..., None],  # 8 and 6 are last observations of episodes
        action=column(0, 0, 0, 0),
        log_prob=column(0, 0, 0, 0),
        reward=column(0, 0, 1, 0),
        terminated=column(0, 0, 1, 0),
        done=column(0, 1, 1, 0),
    )
    advantage, target = ppo_residual.advantages(args, agent, data)
    truncated = 0.5 * 8 - 2
    np.testing.assert_allclose(advantage[:, 0], [0.5 * 2 - 1 + 0.25 * truncated, truncated, 1 - 3, 0.5 * 6 - 4])
    np.testing.assert_allclose(target[:, 0], advantage[:, 0] + np.array([1, 2, 3, 4]))


@pytest.mark.parametrize("num_steps", [13, 31])
def test_a_last_minibatch_of_one_transition_does_no_harm(num_steps):
    args = ppo_residual.Args(num_envs=1, num_steps=num_steps, minibatches=6, epochs=2)  # 4 * 3 + 1, 5 * 6 + 1
    torch.manual_seed(0)
    agent = ppo_residual.Agent(args, 3, 2)
    shape = (num_steps, 1)
    data = ppo_residual.Rollout(
        obs=torch.randn(*shape, 3),
        after=torch.randn(*shape, 3),
        action=torch.randn(*shape, 2),
        log_prob=torch.randn(shape),
        reward=torch.randn(shape),
        terminated=torch.zeros(shape),
        done=torch.zeros(shape),
    )
    optimiser = ppo_residual.make_optimiser(args, agent)
    losses = ppo_residual.update(args, agent, optimiser, np.random.default_rng(0), data, with_actor=True)
    assert np.isfinite(list(losses.values())).all()
    assert all(torch.isfinite(parameter).all() for parameter in agent.parameters())


def test_running_statistics_equal_those_of_all_data():
    agent = ppo_residual.Agent(ppo_residual.Args(), 3, 1)
    data = torch.randn(300, 3) * torch.tensor([1.0, 50.0, 0.0]) + torch.tensor([0.0, 1e3, 7.0])
    for part in (data[:10], data[10:150], data[150:]):
        agent.update_statistics(part)
    mean, std = agent.statistics()
    torch.testing.assert_close(mean, data.mean(0))
    torch.testing.assert_close(std, torch.where(data.std(0, correction=0) < 1e-3, 1.0, data.std(0, correction=0)))


# ------------------------------------------------------------------------------------------- evaluation


class SlowFailure(gym.Env):
    """Even seeds succeed after one step, odd ones fail after ten: counting by time would favour success."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.time = seed or 0, 0
        return np.zeros(1, np.float32), {"success": False}

    def step(self, action):
        self.time += 1
        success = self.seed % 2 == 0
        done = success or self.time == 10
        return np.zeros(1, np.float32), float(success), done, False, {"success": success}


@pytest.mark.parametrize("num_threads", [1, 3, 50])
def test_evaluation_plays_every_seed_once(num_threads):
    result = evaluate_agent(SlowFailure, lambda obs: obs, 21, num_threads=num_threads)
    assert (result.episodes, result.successes, result.first_seed) == (21, 11, EVALUATION_SEED)
    assert result.mean_length == pytest.approx((11 + 10 * 10) / 21)
    assert result.interval[0] < result.success == 11 / 21 < result.interval[1]


def test_evaluation_plays_no_start_of_a_pool_twice():
    class FromPool(SlowFailure):
        starts = 4

    result = evaluate_agent(FromPool, lambda obs: obs, 21, num_threads=3)
    assert (result.episodes, result.successes) == (4, 2)


@pytest.mark.parametrize(
    "given", ({}, {"pool": "a.npz"}, {"eval_pool": "b.npz"}, {"pool": "a.npz", "eval_pool": "b.npz"})
)
def test_an_id_of_one_stage_is_not_evaluated_on_the_starts_that_it_is_trained_on(given, monkeypatch):
    asked = []
    monkeypatch.setattr(common, "_make", lambda env_id, kwargs, *_: asked.append(kwargs.get("pool", "the id's")))
    args = RunArgs(env_id="reinforcegen_envs:ReinforceGen/D2-Threading-Residual-Grasp-v0", **given)
    for evaluation in (False, True):
        with pytest.raises(AttributeError):  # nothing was made
            common.env_factory(args, evaluation)()
    assert asked == [given.get("pool", "the id's"), given.get("eval_pool", given.get("pool"))]


def test_training_seeds_are_distinct_and_below_the_evaluation_seeds():
    seeds = common.training_seeds(np.random.default_rng(0), 500)
    assert len(set(seeds)) == 500 and 0 <= min(seeds) and max(seeds) < EVALUATION_SEED


def test_residual_scale_is_the_environments_own_unless_given():
    args = RunArgs(env_id="test/OffsetReach-v3", num_envs=1)
    assert common.residual_scale(args, common.make_training_envs(args)) == 0.3
    args = RunArgs(env_id="Pendulum-v1", num_envs=1)
    envs = common.make_training_envs(args)
    assert common.residual_scale(args, envs) == 1.0
    assert common.residual_scale(dataclasses.replace(args, residual_scale=0.2), envs) == 0.2


def test_card_names_the_command_that_repeats_the_run():
    args = td3_residual.Args(stage="grasp", pose_noise=(0.01, 0.05), resume=True, gamma=0.9)
    assert runs.command_line(args, "td3_residual") == (
        "python -m reinforcegen_envs.agents.td3_residual --stage grasp --pose-noise 0.01 0.05 --gamma 0.9"
    )


def test_quiet_environments_act_without_noise(monkeypatch):
    """After the warm-up, the first ones do what the policy says, the others that and noise."""
    args = td3_residual.Args(num_envs=4, quiet_envs=2, warmup_steps=0)
    agent: Any = SimpleNamespace(action_size=7, act=lambda obs: np.full((4, 7), 0.25, np.float32))
    physics: Any = SimpleNamespace(submit=lambda step, action: action)
    collector: Any = SimpleNamespace(obs=None, step=None)
    run: Any = SimpleNamespace(progress=SimpleNamespace(step=1), scale=0.1)
    noise = Noise(0.0, (4, 7), 2)
    action: Any = td3_residual.rollout(args, agent, np.random.default_rng(0), noise, collector, physics, run)
    assert (action[:2] == 0.25).all() and (action[2:] != 0.25).all() and np.abs(action).max() <= 1


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_noise_is_as_large_and_as_alike_as_asked(memory):
    noise, rng = Noise(memory, (8, 7), quiet=2), np.random.default_rng(0)
    drawn = np.array([noise.draw(rng) for _ in range(4000)])
    assert not drawn[:, :2].any()
    drawn = drawn[:, 2:].reshape(len(drawn), -1)
    assert drawn[0].std() == pytest.approx(1.0, abs=0.3)  # from the first on
    assert drawn.std() == pytest.approx(1.0, abs=0.03) and abs(drawn.mean()) < 0.05
    assert (drawn[1:] * drawn[:-1]).mean() == pytest.approx(memory, abs=0.03)
    other = Noise(memory, (8, 7), quiet=2)
    other.load_state_dict(noise.state_dict())
    np.testing.assert_array_equal(noise.draw(np.random.default_rng(1)), other.draw(np.random.default_rng(1)))
