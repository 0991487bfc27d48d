"""Draw a filmstrip a task: frames of one source demonstration, labelled with what happens and when.

    MUJOCO_GL=osmesa python docs/filmstrips.py [--tasks Threading Coffee]

Writes docs/images/SCENE.png. Frames are spread over the stages: on the way (connect), where the skill starts, and through it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

from reinforcegen_envs.demos.hdf5 import Demo, read_demos
from reinforcegen_envs.demos.replay import restore_first_state
from reinforcegen_envs.demos.segments import skill_bounds
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.sim.rendering import SceneRenderer
from reinforcegen_envs.sim.simulation import CONTROL_PERIOD
from reinforcegen_envs.tasks import TASKS, Task

IMAGES = Path(__file__).with_name("images")
FRAME = 240  # pixels, width and height
ROWS = 2
COLOURS = 256  # of the palette: keeps a strip below 150 kB
SUPERSAMPLED = 2  # drawn so many times larger, then scaled down


@dataclass
class Args:
    """Draw a filmstrip a task (needs OpenGL: MUJOCO_GL=egl or osmesa)."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """names of tasks"""
    demo: int = 0
    """which source demonstration"""
    out: Path = IMAGES
    """folder to write to"""


def frames_a_stage(task: type[Task]) -> int:
    """Two-stage tasks show four frames a stage, longer ones two."""
    return 4 if len(task.stages) == 2 else 2


def size(task: type[Task]) -> tuple[int, int]:
    """Width and height of a task's filmstrip, pixels."""
    count = frames_a_stage(task) * len(task.stages)
    return -(-count // ROWS) * FRAME, ROWS * FRAME


def moments(demo: Demo, task: type[Task]) -> list[tuple[int, str]]:
    """Control steps to draw, with their labels: on the way to each skill, and evenly through it, to its end."""
    bounds = skill_bounds(demo, task)
    chosen = []
    before = 0
    for stage, (begin, end) in zip(task.stages, bounds, strict=True):
        chosen.append(((before + begin) // 2, f"connect to {stage.name}"))
        chosen += [(int(t), stage.name) for t in np.linspace(begin, end - 1, frames_a_stage(task))[1:]]
        before = end
    return chosen


def frames(task: type[Task], demo: Demo) -> Iterator[tuple[np.ndarray, str]]:
    """Replay a demonstration and draw its moments: frame (height, width, 3) and label."""
    env = ManipulationEnv(task.name)
    restore_first_state(env, demo)
    renderer = SceneRenderer(task.scene, task.camera, SUPERSAMPLED * FRAME, SUPERSAMPLED * FRAME)
    wanted = moments(demo, task)
    for step, action in enumerate(demo.actions):
        env.step(action.astype(np.float32))
        for at, label in wanted:
            if at == step:
                yield renderer.frame(env.data).copy(), f"{(step + 1) * CONTROL_PERIOD:.1f} s  {label}"
    renderer.close()


def strip(task: type[Task], demo: Demo) -> Image.Image:
    """The filmstrip, two rows of frames."""
    drawn = list(frames(task, demo))
    image = Image.new("RGB", size(task), "white")
    columns = image.width // FRAME
    font = ImageFont.load_default(size=13)
    for i, (frame, label) in enumerate(drawn):
        picture = Image.fromarray(frame).resize((FRAME - 2, FRAME - 2), Image.Resampling.LANCZOS)
        corner = (i % columns * FRAME + 1, i // columns * FRAME + 1)
        image.paste(picture, corner)
        draw = ImageDraw.Draw(image)
        place = (corner[0] + 6, corner[1] + FRAME - 22)
        left, top, right, bottom = draw.textbbox(place, label, font=font)
        draw.rectangle((left - 4, top - 3, right + 4, bottom + 3), fill="white")
        draw.text(place, label, fill="black", font=font)
    return image.quantize(COLOURS, dither=Image.Dither.NONE)


def main(args: Args) -> None:
    """Draw and write the strips."""
    for name in args.tasks:
        task = TASKS[name]
        demo = read_demos(source_file(name), task=name)[args.demo]
        path = args.out / f"{task.scene.name}.png"
        with atomic_path(path) as temporary:
            strip(task, demo).save(temporary, optimize=True)
        print(f"wrote {path}: {path.stat().st_size // 1000} kB", file=sys.stderr)


if __name__ == "__main__":
    main(tyro.cli(Args))
