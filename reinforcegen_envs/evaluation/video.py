"""An episode as a video."""

from __future__ import annotations

import os
from collections.abc import Sequence

import gymnasium as gym
import numpy as np

from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.errors import MissingPackage
from reinforcegen_envs.evaluation.play import Agent, Episode, play
from reinforcegen_envs.files import atomic_path

SUFFIXES = (".mp4", ".mov", ".mkv")


def record(env: gym.Env, policy: Agent, seed: int, every: int = 1) -> tuple[Episode, list[np.ndarray]]:
    """Play one episode and draw it.

    Args:
        env: an environment with render mode "rgb_array".
        policy: observation -> action.
        seed: of the episode.
        every: draw the first of so many control steps (0.05 s each), those of connects included.

    Returns:
        What happened, and the frames.
    """
    core: ManipulationEnv = env.unwrapped  # type: ignore[assignment]
    frames: list[np.ndarray] = []
    clock, steps = 0.0, 0

    def draw() -> None:
        nonlocal clock, steps
        if core.data.time <= clock:  # the reset of a stage's skill failed on its way and began anew, in another scene
            frames.clear()
            steps = 0
        if steps % every == 0:
            frames.append(core.render())  # type: ignore[arg-type]
        clock, steps = core.data.time, steps + 1

    unsubscribe = core.engine.events.subscribe("control_step", draw)
    try:
        return play(env, policy, seed), frames
    finally:
        unsubscribe()


def check_packages() -> None:
    """Whether videos can be written.

    Raises:
        MissingPackage: imageio with ffmpeg is not installed.
    """
    try:
        import imageio  # noqa: F401
        import imageio_ffmpeg  # noqa: F401
    except ImportError as error:
        raise MissingPackage("videos need imageio and imageio-ffmpeg: pip install reinforcegen-envs[render]") from error


def save(path: str | os.PathLike[str], frames: Sequence[np.ndarray], frames_per_second: float) -> None:
    """Write frames (height, width, 3) as a video.

    Raises:
        MissingPackage: see `check_packages`.
    """
    check_packages()
    import imageio

    with atomic_path(path) as temporary:
        imageio.mimwrite(temporary, frames, fps=frames_per_second, macro_block_size=8)  # type: ignore[arg-type]
