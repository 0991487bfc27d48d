"""Distillation of a skill to pictures: what the student may see, who plays, what is learned, whole runs.

What draws needs a back-end in MUJOCO_GL (see test_pixels).
"""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from drawing import does_not_draw, draws, run_what_draws  # noqa: E402
from offset_reach import assert_equal, read_csv  # noqa: E402

from reinforcegen_envs.agents import dagger  # noqa: E402
from reinforcegen_envs.agents.dagger import KIND, Args, Teacher, teacher_part  # noqa: E402
from reinforcegen_envs.agents.learners import PixelLearner  # noqa: E402
from reinforcegen_envs.agents.pixel_policy import PixelPolicy  # noqa: E402
from reinforcegen_envs.errors import InvalidArgument  # noqa: E402
from reinforcegen_envs.policies.bundle import Bundle  # noqa: E402
from reinforcegen_envs.tasks import ThreadingTask  # noqa: E402
from reinforcegen_envs.wrappers import fill_pool  # noqa: E402
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv  # noqa: E402

SIZE = 16


class Lamp(gym.Env):
    """The action wanted, a number between -1 and 1, is the brightness of the pictures; who gives it often enough succeeds."""

    def __init__(self, obs_mode="rgb", image_size=SIZE, stage=None):
        picture = gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        flat = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = gym.spaces.Dict({"proprio": flat, "front": picture, "wrist": picture})
        self.action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
        self.size = image_size

    def _obs(self):
        self.wanted = float(self.np_random.uniform(-0.9, 0.9))
        picture = np.full((self.size, self.size, 3), 127.5 * (1 + self.wanted), np.uint8)
        return {"proprio": np.zeros(2, np.float32), "front": picture, "wrist": picture}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = self.right = 0
        return self._obs(), {"success": False}

    def step(self, action):
        self.right += abs(float(action[0]) - self.wanted) < 0.2
        self.steps += 1
        return self._obs(), 0.0, self.steps == 5, False, {"success": self.right >= 4}


gym.register("test/Lamp-v0", lambda **kwargs: Lamp(**kwargs), max_episode_steps=100)


class LampTeacher:
    """Knows what is wanted."""

    def __init__(self, envs, weights, lines):
        self.envs = envs.envs

    def begin(self, begun):
        pass

    def __call__(self):
        return np.array([[env.unwrapped.wanted] for env in self.envs], np.float32)


def small(folder, **kwargs):
    """Arguments of a quick run."""
    defaults = {
        "env_id": "test/Lamp-v0", "image_size": SIZE, "strides": (2, 2), "channels": 4, "features": 8, "hidden": 16,
        "num_envs": 2, "total_steps": 1200, "warmup_steps": 100, "mix_steps": 400, "updates_per_step": 0.5, "batch_size": 16,
        "learning_rate": 3e-3, "buffer_size": 1500, "log_every": 100, "eval_every": 0, "final_episodes": 20, "runs_dir": folder,
        "run_name": "run", "quiet": True,
    }  # fmt: skip
    return Args(**{**defaults, **kwargs})


def test_a_student_learns_what_the_teacher_does_and_resumes_exactly(tmp_path, monkeypatch):
    monkeypatch.setattr(dagger, "Teacher", LampTeacher)
    args = small(tmp_path)
    result = dagger.main(args)
    assert result["success"] > 0.8 and result["base"] is None
    rows = read_csv(tmp_path / "run")
    parts = [float(row["charts/teacher_part"]) for row in rows if row["charts/teacher_part"]]
    assert parts[0] == 1.0 and parts[-1] == 0.0 and parts == sorted(parts, reverse=True)
    losses = [float(row["losses/imitation"]) for row in rows if row["losses/imitation"]]
    assert losses[-1] < 0.3 * losses[0]
    policy = PixelPolicy.load(tmp_path / "run" / "actor.safetensors", kind=KIND, task="Lamp")
    assert policy.settings["numbers"] == 2  # the robot's own state alone
    with pytest.raises(ValueError, match="pixel_student"):
        PixelPolicy.load(tmp_path / "run" / "actor.safetensors")  # it is no residual

    checkpoint = tmp_path / "run" / "checkpoint.pt"
    saved, ends = torch.load(checkpoint, weights_only=True), []
    for threads in (1, 2):
        torch.save(saved, checkpoint)
        dagger.main(dataclasses.replace(args, resume=True, total_steps=1300, num_threads=threads))
        ends.append(torch.load(checkpoint, weights_only=True))
    assert_equal(ends[0]["parts"], ends[1]["parts"])
    assert ends[0]["progress"]["updates"] > saved["progress"]["updates"]


def test_labels_are_the_teacher_s_whoever_plays(tmp_path, monkeypatch):
    monkeypatch.setattr(dagger, "Teacher", LampTeacher)
    kept = []
    monkeypatch.setattr(PixelLearner, "update", lambda learner, *_: kept.append(learner.parts["replay"]) or 0.0)
    dagger.main(small(tmp_path, total_steps=600, mix_steps=100, disturbance=0.5))
    replay = kept[-1]
    label, seen = replay.rows[replay.ready, 0], replay.seen[replay.ready, 0, 0, 0, 0]
    np.testing.assert_allclose(label, seen / 127.5 - 1, atol=0.01)


def test_the_teacher_s_part_falls():
    args = Args(warmup_steps=100, mix_steps=200)
    assert [teacher_part(args, step) for step in (0, 100, 200, 300, 1000)] == [1.0, 1.0, 0.5, 0.0, 0.0]


def test_an_update_moves_actions_towards_the_labels(tmp_path):
    torch.manual_seed(0)
    args = small(tmp_path, env_id="test/Lamp-v0")
    envs = dagger.make_training_envs(args)
    learner, rng = PixelLearner(args, envs), np.random.default_rng(0)
    label = np.full((2, 1), 0.5, np.float32)
    collector = dagger.Collector(envs, [1, 2])
    while learner.size < args.batch_size:
        learner.add(collector.step(label), label)
    losses = [learner.update(rng, 8, 1e-2) for _ in range(30)]
    assert losses[0] == pytest.approx(0.5) and losses[-1] < 0.2


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"env_id": "ReinforceGen/D2-Threading-Residual-v0", "image_size": 84}, r"'base_action'.*no more: an id of mode Skill"),
        ({"env_id": "Pendulum-v1"}, "takes no argument .*mode Skill"),
        ({"env_id": "ReinforceGen/D2-Threading-Skill-v0", "stage": "grasp", "through_estimator": True}, "is for whole tasks"),
        ({"env_id": "ReinforceGen/D2-Threading-v0", "through_estimator": True}, "image_size is 16; the estimator sees .* 84"),
        ({"buffer_size": 10}, "buffer_size is 10; .* give 16 or more"),
        ({"strides": ()}, "strides .* leave nothing"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_error(kwargs, message, tmp_path):
    with pytest.raises(InvalidArgument, match=message):
        dagger.main(small(tmp_path / "runs", **kwargs))
    assert not list(tmp_path.iterdir())


@does_not_draw
def test_what_draws():
    """The tests below, where this process has no back-end."""
    run_what_draws(__file__, "threading_grasp")


@draws
def test_threading_grasp_from_a_pool(tmp_path, weights):
    pool = tmp_path / "pool.npz"
    fill_pool.fill(fill_pool.Args(variant=("D2",), stage="grasp", count=2, workers=1, quiet=True, out=pool))
    args = small(
        tmp_path, env_id="ReinforceGen/D2-Threading-Skill-v0", stage="grasp", pool=pool, termination="sustained", image_size=32,
        total_steps=300, warmup_steps=60, mix_steps=60, final_episodes=1, batch_size=8,
    )  # fmt: skip
    assert dagger.main(args)["steps"] == 300
    rows = read_csv(tmp_path / "run")
    assert float(rows[-2]["charts/teacher_success"]) == 1.0  # an episode of the teacher has succeeded

    # The teacher is the tuned policy, in the world frame.
    make = lambda: gym.make(args.env_id, stage="grasp", pool=str(pool))  # noqa: E731
    envs = ThreadVectorEnv([make], 1)
    envs.reset(seed=3)
    env = envs.envs[0]
    tuned = Bundle.open(ThreadingTask).tuned()
    wanted = env.get_wrapper_attr("ask")(tuned, env.get_wrapper_attr("observation"), "")
    np.testing.assert_array_equal(Teacher(envs, None)(), np.array([wanted], np.float32))
    envs.close()
