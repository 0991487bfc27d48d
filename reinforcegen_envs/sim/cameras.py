"""The robot's two cameras: front and wrist, small pictures of the scene's light form, both in one pass."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from reinforcegen_envs.models.scene import DRAWN, HIDDEN, Scene, load_scene
from reinforcegen_envs.sim import gl_thread
from reinforcegen_envs.sim.looks import ROLE, Look, drawn_geoms
from reinforcegen_envs.sim.rendering import MAX_PIXELS, Surface, check_size
from reinforcegen_envs.typing import Array, Observations, Pixels

CAMERAS = {"front": "front", "wrist": "robot0_eye_in_hand"}  # name -> camera of the light form
SIZE = 84  # pixels a side, as in robomimic's and MimicGen's image observations
SAMPLES = 4  # a pixel: without them edges say nothing finer than a pixel, which is 5 to 9 mm on the table; they double the time
MIN_SIZE = 16  # below it convolutions with four strides of two have nothing left to see (ours)
MAX_SIZE = MAX_PIXELS // len(CAMERAS)  # they lie side by side
MAX_GEOMS = 1_000
MAX_DEPTH = 10.0  # metres; what is farther, or nothing, counts as that far (ours)
BACKGROUND, ROBOT, OBJECTS = 0, 1, 2  # labels of a segmentation; objects are numbered from the last on


class Pictures(NamedTuple):
    """What both cameras see, in `CAMERAS`'s order.

    Args:
        colour: (cameras, size, size, 3) uint8.
        depth: (cameras, size, size, 1) float32, metres along the camera's axis, at most `MAX_DEPTH`; None if not asked for.
        labels: (cameras, size, size, 1) uint8, 0 for background and table, 1 for the robot, 2 and on for objects in their
            order; None if not asked for.
    """

    colour: Pixels
    depth: Observations | None
    labels: Pixels | None


class Cameras:
    """Takes pictures with both cameras; from any thread, as one of its own does the drawing (see `gl_thread`).

    Args:
        scene: the task's scene.
        size: pixels a side.
        objects: names of bodies, the first of which is labelled 2 in a segmentation; None for colours alone. With depth and
            labels a pixel has one sample, as these must not be averaged.

    Raises:
        InvalidArgument: a size that cannot be drawn.
        RenderingError: no OpenGL library can be loaded, or this process was forked from one that had drawn.
    """

    def __init__(self, scene: Scene, size: int = SIZE, objects: Sequence[str] | None = None):
        check_image_size("size", size)
        canvas = gl_thread.call(lambda: _Pair(scene, size, None if objects is None else tuple(objects)))
        self._canvas = canvas
        self._free = weakref.finalize(self, gl_thread.post, canvas.free)
        self._free.atexit = False  # the drawing thread frees at exit, in time

    def frames(self, data: mujoco.MjData, look: Look | None = None) -> Pixels:
        """Pictures of the state of ``data`` (of the physics form), (cameras, size, size, 3) uint8, in `CAMERAS`'s order.

        Args:
            data: the state.
            look: how the scene looks; None means as it is.

        Raises:
            RenderingError: after `close`, or in a forked child.
        """
        return self.pictures(data, look).colour

    def pictures(
        self, data: mujoco.MjData, look: Look | None = None, depth: bool = False, labels: bool = False
    ) -> Pictures:
        """The same, with distances (read in the same pass) and with what is seen where (in one more) if asked for.

        Raises:
            RenderingError: after `close`, or in a forked child.
        """
        # Copies: whoever interrupts the wait for the frame may step the simulation while it is still being drawn.
        state = data.qpos.copy(), data.mocap_pos.copy(), data.mocap_quat.copy()
        return gl_thread.call(lambda: self._canvas.draw(*state, look, depth, labels))

    def close(self) -> None:
        """Free the OpenGL context; a second call does nothing. Does not wait, so any thread and destructor may call."""
        self._free()


def check_image_size(name: str, size: int) -> None:
    """Check the size of pictures, without OpenGL.

    Raises:
        InvalidArgument: not an integer from `MIN_SIZE` to `MAX_SIZE`; the message calls it ``name``.
    """
    check_size(name, size, MIN_SIZE, MAX_SIZE)


class _Pair(Surface):
    """The light form, an OpenGL context twice as wide as a picture. Lives in the drawing thread."""

    def __init__(self, scene: Scene, size: int, objects: tuple[str, ...] | None):
        self._model = model = copy.copy(load_scene(scene, "light"))  # written to: what is drawn, and how
        self._data = mujoco.MjData(model)
        self._scene = mujoco.MjvScene(model, MAX_GEOMS)
        for flag in (
            mujoco.mjtRndFlag.mjRND_SKYBOX,
            mujoco.mjtRndFlag.mjRND_SHADOW,
            mujoco.mjtRndFlag.mjRND_HAZE,
            mujoco.mjtRndFlag.mjRND_REFLECTION,
        ):
            self._scene.flags[flag] = 0
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = 0
        self._options.geomgroup[DRAWN] = 1
        self._options.sitegroup[:] = 0
        self._perturb = mujoco.MjvPerturb()
        self._cameras = [model.camera(name).id for name in CAMERAS.values()]
        self._geoms = drawn_geoms(model)
        infinite = model.geom_type[self._geoms] == mujoco.mjtGeom.mjGEOM_PLANE
        self._radii = np.where(infinite, np.inf, model.geom_rbound[self._geoms])
        self._own = self._look = Look.own(model)
        self._textures = model.mat_texid[:, ROLE].astype(np.int64)
        self._labels = _labels(model, objects or ())
        self._size = size
        self._whole = mujoco.MjrRect(0, 0, size * len(CAMERAS), size)
        model.vis.quality.offsamples = SAMPLES if objects is None else 0
        model.vis.quality.shadowsize = 0  # a map for shadows would take 64 MB, and none are drawn
        super().__init__(model, size * len(CAMERAS), size)
        self.buffers.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR  # as it is stored, most exact near by

    def draw(
        self, qpos: Array, mocap_pos: Array, mocap_quat: Array, look: Look | None, depth: bool, labels: bool
    ) -> Pictures:
        """Both pictures of a state."""
        self.begin()
        model, data = self._model, self._data
        look = look or self._own
        if look is not self._look:
            look.apply(model, self._textures)
            self._look = look
        data.qpos[:], data.mocap_pos[:], data.mocap_quat[:] = qpos, mocap_pos, mocap_quat
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        shape = self._whole.height, self._whole.width
        colour = np.empty((*shape, 3), np.uint8)
        raw = np.empty(shape, np.float32) if depth else None
        for k in range(len(CAMERAS)):
            self._render(k)
        mujoco.mjr_readPixels(colour, raw, self._whole, self.buffers)
        return Pictures(
            self._apart(colour),
            None if raw is None else self._apart(self._metres(raw)[..., None]),
            self._apart(self._segment()[..., None]) if labels else None,
        )

    def _apart(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Pixels as OpenGL gives them, (size, cameras * size, channels), as (cameras, size, size, channels)."""
        size = self._size
        pictures = pixels[::-1].reshape(size, len(CAMERAS), size, -1)  # OpenGL's first row is the lowest
        return np.ascontiguousarray(pictures.transpose(1, 0, 2, 3))

    def _metres(self, raw: Observations) -> Observations:
        """Metres of what the depth buffer holds: 1 at the near plane, 0 at the far one, linear in the distance's inverse."""
        near, far = (plane * self._model.stat.extent for plane in (self._model.vis.map.znear, self._model.vis.map.zfar))
        metres = near * far / (near + raw.astype(np.float64) * (far - near))
        return np.minimum(metres, MAX_DEPTH).astype(np.float32)

    def _segment(self) -> Pixels:
        """Labels of the state that was drawn last, as pixels."""
        flags = [int(mujoco.mjtRndFlag.mjRND_SEGMENT), int(mujoco.mjtRndFlag.mjRND_IDCOLOR)]
        self._scene.flags[flags] = 1
        known: list[Pixels] = []
        try:
            for k in range(len(CAMERAS)):
                self._render(k)
                # Colour i + 1 is what the scene counts as i; colour 0 is nothing.
                shown = self._scene.geoms[: self._scene.ngeom]
                table = np.full(MAX_GEOMS + 1, BACKGROUND, np.uint8)
                for geom in shown:
                    table[geom.segid + 1] = self._labels[geom.objid]
                known.append(table)
            codes = np.empty((self._whole.height, self._whole.width, 3), np.uint8)
            mujoco.mjr_readPixels(codes, None, self._whole, self.buffers)
        finally:
            self._scene.flags[flags] = 0
        numbers = codes[..., 0].astype(np.int64) + 256 * codes[..., 1]
        parts = np.split(numbers, len(CAMERAS), axis=1)
        return np.concatenate([table[part] for table, part in zip(known, parts, strict=True)], axis=1)

    def _render(self, k: int) -> None:
        """Draw what the k-th camera sees, in its place."""
        self._look_through(k)
        mujoco.mjr_render(mujoco.MjrRect(k * self._size, 0, self._size, self._size), self._scene, self.buffers)

    def _look_through(self, k: int) -> None:
        """Make the scene that of the k-th camera: what may be in its picture."""
        model, data, scene = self._model, self._data, self._scene
        i = self._cameras[k]
        half = 0.5 * np.radians(model.cam_fovy[i])
        # Normals of the four sides of what it sees, in its frame; it looks along -z, and pictures are square.
        cos, sin = np.cos(half), np.sin(half)
        sides = np.array([[cos, 0.0, -sin], [-cos, 0.0, -sin], [0.0, cos, -sin], [0.0, -cos, -sin]])
        towards = (data.geom_xpos[self._geoms] - data.cam_xpos[i]) @ data.cam_xmat[i].reshape(3, 3) @ sides.T
        # A geom whose bounding sphere is outside costs as much as one inside: OpenGL finds out vertex by vertex.
        model.geom_group[self._geoms] = np.where(towards.min(1) > -self._radii, DRAWN, HIDDEN)
        camera = mujoco.MjvCamera()
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, i
        lamp = [np.array(part) for part in (scene.lights[0].pos, scene.lights[0].dir)]
        every = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, self._options, self._perturb, camera, every, scene)
        if k:  # MuJoCo's headlight is where the camera is; it stays at the first one, so that both see the same colours
            scene.lights[0].pos[:], scene.lights[0].dir[:] = lamp


def _labels(model: mujoco.MjModel, objects: tuple[str, ...]) -> Pixels:
    """(geoms,) label of each."""
    root = model.body_rootid[model.geom_bodyid]
    labels = np.full(model.ngeom, BACKGROUND, np.uint8)
    labels[root == model.body_rootid[model.body("robot0_base").id]] = ROBOT
    for k, name in enumerate(objects):
        labels[root == model.body(name).id] = OBJECTS + k
    return labels
