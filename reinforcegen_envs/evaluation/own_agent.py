"""The benchmark's protocol with anybody's agent, from Python."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from tqdm import tqdm

from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.evaluation.play import Agent, play
from reinforcegen_envs.evaluation.submission import EPISODES, SEEDS, Facts, Submission, SubmissionError, run_of
from reinforcegen_envs.statistics import EVALUATION_SEED
from reinforcegen_envs.wrappers import Hybrid, Skill
from reinforcegen_envs.wrappers.hybrid import Sustained

PICTURES = ("rgb", "rgbd")  # observations that tell nothing of objects but how they look


def submission_of(
    facts: Facts,
    env: gym.Env[Any, Any],
    agent: Agent,
    seeds: int = SEEDS,
    episodes: int = EPISODES,
    quiet: bool = False,
) -> Submission:
    """Play the protocol's episodes, and make a submission of them.

    Args:
        facts: what is said of the method.
        env: whole tasks, as deployed: no simulator truth but what ``facts.observation`` allows. Other wrappers may be around it.
        agent: observation -> action (7,), of ``env``. Its ``reset()``, if there is one, is called before every episode.
        seeds, episodes: evaluation seeds, and episodes of each; fewer than the protocol's are marked on the board.
        quiet: no progress bar.

    Raises:
        SubmissionError: ``env`` is not what ``facts`` say, or not as deployed; nothing was played.
    """
    Submission(facts, stated=0.0)  # complains of what is said
    if wrong := _of_env(facts, env):
        raise SubmissionError("; ".join(wrong))
    reset = getattr(agent, "reset", None)
    played = []
    for seed in tqdm(range(EVALUATION_SEED, EVALUATION_SEED + seeds * episodes), unit="episode", disable=quiet):
        if callable(reset):
            reset()
        played.append(play(env, agent, seed))
    return Submission(facts, run_of(played, seeds))


def _of_env(facts: Facts, env: gym.Env[Any, Any]) -> list[str]:
    """What of an environment is not as the protocol, or what is said of the method, has it."""
    core, hybrid = env.unwrapped, hybrid_of(env)
    if not isinstance(core, ManipulationEnv):
        return [f"{env} is no environment of this package"]
    engine, wrong = core.engine, []
    for name, said, there in (("task", facts.task, core.task.name), ("variant", facts.variant, engine.variant)):
        if said != there:
            wrong.append(f"{name} is {said!r}, and the environment's {there!r}")
    sees_pictures = core.obs_mode in PICTURES
    if hybrid is None:
        knows = not sees_pictures and engine.perception.name != "camera"
    else:
        knows = engine.perception.name != "camera"  # planner and predictors read the belief, whatever the agent sees
    if knows and facts.observation == "camera":
        wrong.append(
            "observation is 'camera', and the environment tells where objects are; make it with perception='camera'"
            + (" or obs_mode='rgb'" if hybrid is None else "")
        )
    if hybrid is None:
        return wrong + ([] if facts.retries == 0 else ["retries are of the modes that plan; leave them out"])
    if isinstance(hybrid, Skill):
        wrong.append("an environment of one stage; the protocol plays whole tasks, from reset to success")
    if hybrid.termination is None or isinstance(hybrid.termination, Sustained):
        wrong.append(
            "the simulator ends skills; make the environment with termination='predictor', or a policy of your own"
        )
    if hybrid.initiation is None:
        wrong.append("skills start where their sources did; make the environment with initiation='student'")
    if hybrid.retries != facts.retries:
        wrong.append(f"retries is {facts.retries}, and the environment's {hybrid.retries}")
    if any(hybrid.pose_noise):
        wrong.append(f"pose_noise is {hybrid.pose_noise}; starts are as planned")
    return wrong


def hybrid_of(env: gym.Env[Any, Any]) -> Hybrid | None:
    """The wrapper inside an environment that plans its connects, or None."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, Hybrid):
            return env
        env = env.env
    return None
