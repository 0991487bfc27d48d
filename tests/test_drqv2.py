"""The trainer that sees: shifts, replay of pictures, who trains the encoder, whole runs, its file, bad input.

A task without physics stands in for most of it; what draws needs a back-end in MUJOCO_GL (see test_pixels).
"""

import dataclasses
import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

torch = pytest.importorskip("torch")

from drawing import does_not_draw, draws, run_what_draws  # noqa: E402
from offset_reach import assert_equal, read_csv  # noqa: E402

from reinforcegen_envs.agents import drqv2_residual  # noqa: E402
from reinforcegen_envs.agents.common import Collector  # noqa: E402
from reinforcegen_envs.agents.drqv2_residual import Agent, Args, make_optimisers, shifted, update  # noqa: E402
from reinforcegen_envs.agents.evaluation import evaluate, run_episode  # noqa: E402
from reinforcegen_envs.agents.pixel_policy import KIND, PixelPolicy  # noqa: E402
from reinforcegen_envs.agents.pixel_replay import PixelReplay  # noqa: E402
from reinforcegen_envs.errors import InvalidArgument  # noqa: E402
from reinforcegen_envs.policies.weights_file import WeightsError  # noqa: E402
from reinforcegen_envs.wrappers import fill_pool  # noqa: E402
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv  # noqa: E402

SIZE = 16
ENV_ID = "ReinforceGen/D2-Threading-Residual-v0"


class Counting(gym.Env):
    """Pictures and proprio that say when they were taken: their numbers go up by one from observation to observation.

    Episodes last 1 to 7 steps and are terminated with success, terminated without, or truncated.
    """

    residual_scale = 0.5

    def __init__(self, obs_mode="rgb", image_size=SIZE, stage=None):
        picture = gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        flat = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        spaces: dict[str, gym.Space] = {"proprio": flat, "front": picture, "wrist": picture, "base_action": flat}
        if obs_mode != "rgb":
            spaces = {"state": flat}
        self.observation_space = gym.spaces.Dict(spaces)
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.size, self.taken = image_size, 0

    def _obs(self):
        self.taken += 1
        front = np.full((self.size, self.size, 3), self.taken % 256, np.uint8)
        number = np.float32(self.taken)
        return {
            "proprio": np.array([number, -number]),
            "front": front,
            "wrist": 255 - front,
            "base_action": np.zeros(2, "f"),
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 8))
        return self._obs(), {"success": False}

    def step(self, action):
        self.left -= 1
        end = int(self.np_random.integers(3)) if self.left == 0 else -1
        reward = float(self.np_random.normal())
        return self._obs(), reward, end in (0, 1), end == 2, {"success": end == 0}


gym.register("test/Counting-v0", lambda **kwargs: Counting(**kwargs), max_episode_steps=100)


def small(folder, **kwargs):
    """Arguments of a quick run."""
    defaults = {
        "env_id": "test/Counting-v0", "image_size": SIZE, "strides": (2, 2), "channels": 4, "features": 8, "hidden": 16,
        "num_envs": 2, "total_steps": 120, "warmup_steps": 40, "critic_only_updates": 3, "batch_size": 8, "buffer_size": 100,
        "q_low": -9.0, "log_every": 40, "eval_every": 60, "eval_episodes": 2, "final_episodes": 4, "runs_dir": folder,
        "run_name": "run", "quiet": True,
    }  # fmt: skip
    return Args(**{**defaults, **kwargs})


# ------------------------------------------------------------------------------------------------- shifts


def test_a_shift_is_by_a_few_whole_pixels_and_repeats_the_border():
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (50, 2, SIZE, SIZE, 3), dtype=torch.uint8)
    moved = shifted(pictures, 4)
    assert moved.shape == pictures.shape and moved.dtype == torch.uint8
    found = set()
    for before, after in zip(pictures.flatten(0, 1).numpy(), moved.flatten(0, 1).numpy(), strict=True):
        padded = np.pad(before, ((4, 4), (4, 4), (0, 0)), "edge")
        matches = [
            (dy - 4, dx - 4)
            for dy in range(9)
            for dx in range(9)
            if (padded[dy : dy + SIZE, dx : dx + SIZE] == after).all()
        ]
        assert len(matches) == 1
        found.add(matches[0])
    assert {dy for dy, _ in found} == {dx for _, dx in found} == set(range(-4, 5))
    assert torch.equal(shifted(pictures, 0), pictures)


# ------------------------------------------------------------------------------------------------- replay

N, GAMMA = 3, 0.9


def filled(capacity, steps=60, num_envs=3):
    """A buffer that a few environments filled, and what there was, found the naive way.

    Returns:
        the buffer; action -> (proprio, proprio then, return, discount, whether the episode succeeded), as environments count
        alike and actions are random; how many observations there were.
    """
    fns = [lambda: gym.make("test/Counting-v0")] * num_envs
    collector = Collector(ThreadVectorEnv(fns, 2, autoreset_mode=AutoresetMode.SAME_STEP), [5, 6, 7])
    replay = PixelReplay(num_envs, capacity, SIZE, 4, 2, N, GAMMA)
    rng = np.random.default_rng(0)
    episodes = [[[]] for _ in range(num_envs)]
    for _ in range(steps):
        step = collector.step(rng.uniform(-1, 1, (num_envs, 2)).astype(np.float32))
        replay.add(step)
        for i in range(num_envs):
            episodes[i][-1].append((step, i))
            if step.done[i]:
                episodes[i].append([])
    expected = {}
    begun = [episode for of_env in episodes for episode in of_env if episode]
    for episode in begun:
        ended = bool(episode[-1][0].done[episode[-1][1]])
        for t in range(len(episode)):
            window = episode[t : t + N]
            (first, i), (last, _) = window[0], window[-1]
            if len(window) < N and not ended:
                continue  # not complete yet
            total = sum(GAMMA**k * step.reward[i] for k, (step, _) in enumerate(window))
            discount = 0.0 if last.terminated[i] else GAMMA ** len(window)
            succeeded = ended and bool(episode[-1][0].succeeded[i])
            ends = first.obs["proprio"][i, 0], last.after["proprio"][i, 0]
            expected[tuple(first.action[i])] = (*ends, total, discount, succeeded)
    return replay, expected, num_envs * steps + len(begun)


def assert_agrees(batch, expected):
    """Every transition of a batch is the one that begins with its action; returns whether their episodes succeeded."""
    successes = []
    for k, action in enumerate(batch.action):
        before, after, total, discount, succeeded = expected[tuple(action)]
        assert batch.state[k, 0] == before and batch.state_then[k, 0] == after
        for pictures, number in ((batch.seen[k], before), (batch.seen_then[k], after)):
            assert (pictures[0] == number % 256).all() and (pictures[1] == 255 - number % 256).all()
        np.testing.assert_allclose([batch.returns[k], batch.discount[k]], [total, discount], rtol=1e-5, atol=1e-6)
        successes.append(succeeded)
    return np.array(successes)


def test_replay_holds_the_n_step_transitions_of_a_naive_implementation():
    replay, expected, count = filled(capacity=400)
    assert replay.size == len(expected) > 100
    assert replay.count == count  # every observation once
    assert {row[3] for row in expected.values()} == {0.0, GAMMA, GAMMA**2, GAMMA**3}  # all kinds of ends
    batch = replay.sample(np.random.default_rng(1), 2000, 0.5)
    assert batch.seen.dtype == batch.seen_then.dtype == np.uint8 and batch.seen.shape == (2000, 2, SIZE, SIZE, 3)
    successes = assert_agrees(batch, expected)
    assert {tuple(row[:2]) for row in replay.rows[replay.ready]} == set(expected)
    assert successes[1000:].all() and not successes[:1000].all()


def test_the_oldest_observations_give_way():
    everything, expected, count = filled(capacity=400)
    replay, _, _ = filled(capacity=40)
    assert replay.count == count > 400 / 2 and len(replay.seen) == 40
    batch = replay.sample(np.random.default_rng(1), 500, 0.5)
    assert_agrees(batch, expected)
    newest = {tuple(row) for row in everything.rows[count - 40 : count, :2][everything.ready[count - 40 : count]]}
    assert {tuple(action) for action in batch.action} == newest  # 500 draws of fewer than 40


def test_a_restored_buffer_draws_the_same():
    replay, _, _ = filled(capacity=40)
    other = PixelReplay(3, 40, SIZE, 4, 2, N, GAMMA)
    other.load_state_dict(replay.state_dict())
    assert_equal(replay.state_dict(), other.state_dict())
    a, b = (each.sample(np.random.default_rng(2), 50, 0.5) for each in (replay, other))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


# ------------------------------------------------------------------------------------------------- learning


def learner(**kwargs):
    """An agent, its optimisers and a batch; the same every time."""
    torch.manual_seed(0)
    args = small(None, **kwargs)
    agent = Agent(args, 4, 2)
    return args, agent, make_optimisers(args, agent), filled(capacity=400)[0].sample(np.random.default_rng(0), 16, 0.5)


def test_the_encoder_learns_from_the_critics_alone():
    encoders, heads = [], []
    for with_actor in (False, True):
        args, agent, optimisers, batch = learner()
        before = agent.policy.state_dict()["encoder.0.weight"].clone()
        update(args, agent, optimisers, batch, 0.05, 0.5, with_actor)
        after = agent.policy.state_dict()
        encoders.append({name: value for name, value in after.items() if name.startswith("encoder.")})
        heads.append(after["head.4.weight"].abs().max().item())
        assert not torch.equal(before, after["encoder.0.weight"])
        assert all(parameter.requires_grad for parameter in agent.critics.parameters())
    assert heads[0] == 0 < heads[1]
    assert_equal(encoders[0], encoders[1])


def test_an_untrained_agent_is_zero_and_noise_falls():
    args, agent, _, _ = learner(warmup_steps=10, noise_steps=100, exploration_noise=0.05, final_noise=0.01)
    env = Counting()
    obs, _ = env.reset(seed=0)
    np.testing.assert_array_equal(agent.policy(obs), np.zeros(2))
    stds = [drqv2_residual.noise_std(args, step) for step in (0, 10, 60, 110, 500)]
    np.testing.assert_allclose(stds, [0.05, 0.05, 0.03, 0.01, 0.01])


# ------------------------------------------------------------------------------------------------- runs


def test_run_folder_file_and_exact_resume(tmp_path):
    args = small(tmp_path)
    result = drqv2_residual.main(args)
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir() if "tfevents" not in path.name} == {
        "progress.csv", "checkpoint.pt", "actor.safetensors", "actor.json", "result.json",
    }  # fmt: skip
    assert list(folder.glob("events.out.tfevents.*"))
    rows = read_csv(folder)
    assert rows[0]["step"] == "0" and any(row["losses/critic"] and row["losses/actor"] for row in rows)
    assert sum(row["eval/success"] != "" for row in rows) == 3

    # The file is the actor of the checkpoint.
    policy = PixelPolicy.load(folder / "actor.safetensors", task="Counting", residual_scale=0.5)
    card = json.loads((folder / "actor.json").read_text())
    assert card["kind"] == KIND and card["steps"] == 120 and card["evaluation"]["episodes"] == 4
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    parts = {k.removeprefix("policy."): v for k, v in saved["parts"]["agent"].items() if k.startswith("policy.")}
    assert_equal(dict(policy.state_dict()), parts)
    assert np.abs(policy(Counting().reset(seed=0)[0])).max() > 0
    again = evaluate(args, policy, 4)
    assert again.successes == result["successes"]
    # Episodes end in any order, in which their returns are then added up.
    assert again.mean_return == pytest.approx(result["mean_return"], rel=1e-12)

    # Resuming with nothing left to do reproduces every bit, and going on from one checkpoint is the same twice.
    resumed = drqv2_residual.main(dataclasses.replace(args, resume=True))
    rounded = ("seconds", "mean_return", "base")
    assert {k: v for k, v in resumed.items() if k not in rounded} == {
        k: v for k, v in result.items() if k not in rounded
    }
    assert resumed["mean_return"] == pytest.approx(result["mean_return"], rel=1e-12)
    after = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert_equal(saved["parts"], after["parts"])
    assert_equal(saved["progress"], after["progress"])
    ends = []
    for threads in (1, 2):
        torch.save(saved, folder / "checkpoint.pt")
        more = dataclasses.replace(args, resume=True, total_steps=200, num_threads=threads)
        drqv2_residual.main(more)
        ends.append(torch.load(folder / "checkpoint.pt", weights_only=True))
    assert_equal(ends[0]["parts"], ends[1]["parts"])
    assert ends[0]["progress"]["updates"] == ends[1]["progress"]["updates"] > saved["progress"]["updates"]


def test_files_of_others_are_refused(tmp_path, weights):
    path = tmp_path / "actor.safetensors"
    with pytest.raises(WeightsError, match="no weights file"):
        PixelPolicy.load(path)
    policy = PixelPolicy(SIZE, 4, 2, (2, 2), 4, 8, 16)
    policy.save(path, {"kind": KIND, "task": "Threading"})
    with pytest.raises(WeightsError, match="made for task 'Threading', but 'Coffee' is needed"):
        PixelPolicy.load(path, task="Coffee")
    policy.settings["hidden"] = 17
    policy.save(path, {"kind": KIND, "task": "Threading"})
    with pytest.raises(WeightsError, match="train it again"):
        PixelPolicy.load(path)
    with pytest.raises(WeightsError, match="tune with --algorithm drqv2"):
        PixelPolicy.load(Path(weights) / "base.safetensors")


# ------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"env_id": "Pendulum-v1"}, "Pendulum-v1 takes no argument .*; this trainer needs pictures"),
        ({"env_id": "ReinforceGen/D2-Threading-Skill-v0", "image_size": 84}, r"\['front', 'proprio', 'wrist'\].*Residual"),
        ({"env_id": "test/States-v0"}, r"observation \['state'\] .*; this trainer needs pictures"),
        ({"buffer_size": 10}, "buffer_size is 10; .* give 17 or more"),
        ({"image_size": 16, "strides": (2, 2, 1, 1)}, r"image_size is 16, of which strides \(2, 2, 1, 1\) leave nothing"),
        ({"strides": (2, 0)}, "strides is .*at least 1"),
        ({"strides": ()}, "strides .* leave nothing"),
        ({"q_low": 1.0}, "q_low is 1; it must be below q_high, 1"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_error(kwargs, message, tmp_path):
    with pytest.raises(InvalidArgument, match=message):
        drqv2_residual.main(small(tmp_path / "runs", **kwargs))
    assert not list(tmp_path.iterdir())


class States(Counting):
    """What shows no pictures, though asked to."""

    def __init__(self, obs_mode="rgb", image_size=SIZE):
        super().__init__("state", image_size)


gym.register("test/States-v0", lambda **kwargs: States(**kwargs))


# ------------------------------------------------------------------------------------------------- the real thing


@does_not_draw
def test_what_draws():
    """The tests below, where this process has no back-end."""
    run_what_draws(__file__, "threading_insert")


@draws
def test_threading_insert_from_a_pool(tmp_path):
    pool = tmp_path / "pool.npz"
    fill_pool.fill(fill_pool.Args(variant=("D2",), stage="insert", count=2, workers=1, quiet=True, out=pool))
    args = small(
        tmp_path, env_id=ENV_ID, stage="insert", pool=pool, termination="sustained", image_size=32, strides=(2, 2, 1, 1),
        total_steps=240, warmup_steps=100, buffer_size=300, q_low=0.0, eval_every=0, final_episodes=1, weights=None,
    )  # fmt: skip
    result = drqv2_residual.main(args)
    assert result["steps"] == 240 and result["stage"] == "insert" and result["base"]["episodes"] == 1
    policy = PixelPolicy.load(
        tmp_path / "run" / "actor.safetensors", task="Threading", stage="insert", residual_scale=0.1
    )

    # A policy that was not trained plays what the base policy plays.
    untrained = PixelPolicy(**{**policy.settings, "strides": (2, 2, 1, 1)})
    env = gym.make(ENV_ID, stage="insert", pool=str(pool), obs_mode="rgb", image_size=32)
    played = [run_episode(env, each, 3) for each in (untrained, lambda _: np.zeros(7, np.float32))]
    assert played[0] == played[1] and played[0][2] > 5
    states = []
    for each in (untrained, lambda _: np.zeros(7, np.float32)):
        obs, _ = env.reset(seed=4)
        for _ in range(10):
            obs = env.step(each(obs))[0]
        states.append(obs)
    for name in states[0]:
        np.testing.assert_array_equal(states[0][name], states[1][name])
    env.close()
