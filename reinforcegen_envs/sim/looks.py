"""How a scene looks in pictures: colours, lights and where the cameras are. Drawn anew for domain randomisation."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import mujoco
import numpy as np

from reinforcegen_envs.models.scene import DRAWN, HIDDEN, Scene, load_scene
from reinforcegen_envs.poses import matrix_to_quat, quat_to_matrix, rotvec_to_matrix
from reinforcegen_envs.typing import Array, Flags, Integers, Observations

# Uniform ranges, all of them ours.
# Factor of a colour, one for the robot, the table and the floor each, and for each part of an object.
BRIGHTNESS = (0.6, 1.1)
TINT = (0.85, 1.15)  # a further factor of each of its red, green and blue; what is too bright is cut to 1
PLAIN = 0.3  # probability that a material loses its texture, and has the texture's mean colour as its own
LIGHT = (0.7, 1.1)  # factor of the lamp's light, and of the headlight's (which is where the front camera is)
LIGHT_POSITION = 0.3  # metres either way, each axis
LIGHT_ANGLE = 15.0  # degrees either way, each axis
CAMERA_POSITION = {"front": 0.02, "robot0_eye_in_hand": 0.003}  # metres either way, each axis
CAMERA_ANGLE = {"front": 2.0, "robot0_eye_in_hand": 1.0}  # degrees either way, each axis
CAMERA_FOVY = {"front": 1.0, "robot0_eye_in_hand": 0.0}  # degrees either way
ROLE = int(mujoco.mjtTextureRole.mjTEXROLE_RGB)


@dataclass(frozen=True, eq=False)
class Look:
    """How one scene looks. Immutable: nobody writes to its arrays.

    Args:
        colours: (drawn geoms, 3) float32, red, green and blue, 0 to 1.
        textured: (materials,) whether a material shows its texture.
        light_pos, light_dir: (lights, 3) metres and unit vectors, world frame.
        light: (lights, 3) float32, of each lamp's diffuse light.
        headlight: (2, 3) float32, ambient and diffuse.
        camera_pos: (2, 3) metres, front camera in the world frame, wrist camera in the hand's.
        camera_quat: (2, 4) (w, x, y, z), in the same frames.
        fovy: (2,) degrees.
    """

    colours: Observations
    textured: Flags
    light_pos: Array
    light_dir: Array
    light: Observations
    headlight: Observations
    camera_pos: Array
    camera_quat: Array
    fovy: Array

    @classmethod
    def own(cls, model: mujoco.MjModel) -> Look:
        """That of a light form as it is; `apply` with it changes nothing."""
        cameras = _cameras(model)
        headlight = model.vis.headlight
        return cls(
            np.array(model.geom_rgba[drawn_geoms(model), :3], np.float32),
            model.mat_texid[:, ROLE] >= 0,
            model.light_pos.copy(),
            model.light_dir.copy(),
            np.array(model.light_diffuse, np.float32),
            np.array([headlight.ambient, headlight.diffuse], np.float32),
            model.cam_pos[cameras].copy(),
            model.cam_quat[cameras].copy(),
            model.cam_fovy[cameras].copy(),
        )

    @classmethod
    def draw(cls, scene: Scene, rng: np.random.Generator) -> Look:
        """A random one, each of its numbers within the ranges above."""
        model = load_scene(scene, "light")
        own, paint = cls.own(model), _paint_of(scene)
        textured = own.textured & (rng.uniform(size=int(model.nmat)) >= PLAIN)
        shows = np.array([material >= 0 and bool(textured[material]) for material in paint.material])
        pots = int(paint.pot.max()) + 1
        factors = rng.uniform(*BRIGHTNESS, (pots, 1)) * rng.uniform(*TINT, (pots, 3))
        colours = np.where(shows[:, None], paint.tint, paint.plain) * factors[paint.pot]
        cameras = _cameras(model)
        names = [model.camera(i).name for i in cameras]
        turned = [_turned(own.camera_quat[k], rng, CAMERA_ANGLE[name]) for k, name in enumerate(names)]
        moved = [rng.uniform(-CAMERA_POSITION[name], CAMERA_POSITION[name], 3) for name in names]
        zoomed = [rng.uniform(-CAMERA_FOVY[name], CAMERA_FOVY[name]) for name in names]
        return cls(
            np.clip(colours, 0.0, 1.0).astype(np.float32),
            textured,
            own.light_pos + rng.uniform(-LIGHT_POSITION, LIGHT_POSITION, own.light_pos.shape),
            np.array([_random_turn(rng, LIGHT_ANGLE) @ direction for direction in own.light_dir]).reshape(-1, 3),
            own.light * rng.uniform(*LIGHT, (len(own.light), 1)).astype(np.float32),
            own.headlight * np.float32(rng.uniform(*LIGHT)),
            own.camera_pos + moved,
            np.array(turned),
            own.fovy + zoomed,
        )

    def apply(self, model: mujoco.MjModel, textures: Integers) -> None:
        """Write it to a light form of one's own.

        Args:
            model: what is drawn.
            textures: (materials,) texture of each, or -1, when it shows it.
        """
        cameras = _cameras(model)
        model.geom_rgba[drawn_geoms(model), :3] = self.colours
        model.mat_texid[:, ROLE] = np.where(self.textured, textures, -1)
        model.light_pos[:], model.light_dir[:], model.light_diffuse[:] = self.light_pos, self.light_dir, self.light
        model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = self.headlight
        model.cam_pos[cameras], model.cam_quat[cameras] = self.camera_pos, self.camera_quat
        model.cam_fovy[cameras] = self.fovy

    def to_memory(self) -> dict[str, Any]:
        """Its arrays by name, copies, as snapshots hold them."""
        return {field.name: getattr(self, field.name).copy() for field in fields(self)}

    @classmethod
    def from_memory(cls, memory: Mapping[str, Any]) -> Look:
        """The inverse of `to_memory`."""
        return cls(**{name: np.array(array) for name, array in memory.items()})


class _Paint(NamedTuple):
    """What the drawn geoms of a scene are painted with.

    Args:
        pot: (geoms,) those of one number share their random factors.
        material: (geoms,) its index, or -1.
        tint: (geoms, 3) colour, on top of the texture if there is one.
        plain: (geoms, 3) colour without texture.
    """

    pot: Integers
    material: Integers
    tint: Array
    plain: Array


@functools.cache
def _paint_of(scene: Scene) -> _Paint:
    model = load_scene(scene, "light")
    geoms = drawn_geoms(model)
    robot = [model.geom(i).name.startswith(("robot0_", "gripper0_")) for i in geoms]
    pot = np.where(robot, 0, 1 + np.arange(len(geoms)))
    material = model.geom_matid[geoms].astype(np.int64)
    tint = model.geom_rgba[geoms, :3].astype(np.float64)
    plain = tint.copy()
    for k, m in enumerate(material):
        if m >= 0:
            tint[k] = plain[k] = model.mat_rgba[m, :3]
            if (texture := model.mat_texid[m, ROLE]) >= 0:
                begin, channels = int(model.tex_adr[texture]), int(model.tex_nchannel[texture])
                count = int(model.tex_width[texture] * model.tex_height[texture]) * channels
                picture = model.tex_data[begin : begin + count].reshape(-1, channels)
                plain[k] = tint[k] * picture[:, :3].mean(0) / 255.0
    return _Paint(pot, material, tint, plain)


def _cameras(model: mujoco.MjModel) -> list[int]:
    return [model.camera(name).id for name in CAMERA_POSITION]


def _random_turn(rng: np.random.Generator, degrees: float) -> Array:
    return rotvec_to_matrix(np.radians(rng.uniform(-degrees, degrees, 3)))


def _turned(quat: Array, rng: np.random.Generator, degrees: float) -> Array:
    """A camera's orientation, turned in its own frame."""
    return matrix_to_quat(quat_to_matrix(quat) @ _random_turn(rng, degrees))


def drawn_geoms(model: mujoco.MjModel) -> Integers:
    """Indices of the geoms of a light form that are drawn, hidden ones included."""
    return np.flatnonzero((model.geom_group == DRAWN) | (model.geom_group == HIDDEN))
