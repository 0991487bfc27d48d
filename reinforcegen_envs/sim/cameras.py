"""The robot's two cameras: front and wrist, small pictures of the scene's light form, both in one pass."""

from __future__ import annotations

import copy
import weakref

import mujoco
import numpy as np

from reinforcegen_envs.models.scene import Scene, load_scene
from reinforcegen_envs.sim import gl_thread
from reinforcegen_envs.sim.rendering import RenderingError, check_size, open_context
from reinforcegen_envs.typing import Array, Pixels

CAMERAS = {"front": "front", "wrist": "robot0_eye_in_hand"}  # name -> camera of the light form
SIZE = 84  # pixels a side, as in robomimic's and MimicGen's image observations
SAMPLES = 4  # a pixel: without them edges say nothing finer than a pixel, which is 5 to 9 mm on the table; they double the time
MIN_SIZE = 16  # below it convolutions with four strides of two have nothing left to see (ours)
MAX_GEOMS = 1_000
DRAWN, HIDDEN = 1, 5  # groups of geoms; what collides is in group 0


class Cameras:
    """Takes pictures with both cameras; from any thread, as one of its own does the drawing (see `gl_thread`).

    Args:
        scene: the task's scene.
        size: pixels a side.

    Raises:
        InvalidArgument: a size that cannot be drawn.
        RenderingError: no OpenGL library can be loaded, or this process was forked from one that had drawn.
    """

    def __init__(self, scene: Scene, size: int = SIZE):
        check_size("size", size, MIN_SIZE)
        canvas = gl_thread.call(lambda: _Pair(scene, size))
        self._canvas = canvas
        self._free = weakref.finalize(self, gl_thread.post, canvas.free)
        self._free.atexit = False  # the drawing thread frees at exit, in time

    def frames(self, data: mujoco.MjData) -> Pixels:
        """Pictures of the state of ``data`` (of the physics form), (cameras, size, size, 3) uint8, in `CAMERAS`'s order.

        Raises:
            RenderingError: after `close`, or in a forked child.
        """
        # Copies: whoever interrupts the wait for the frame may step the simulation while it is still being drawn.
        state = data.qpos.copy(), data.mocap_pos.copy(), data.mocap_quat.copy()
        return gl_thread.call(lambda: self._canvas.draw(*state))

    def close(self) -> None:
        """Free the OpenGL context; a second call does nothing. Does not wait, so any thread and destructor may call."""
        self._free()


class _Pair:
    """The light form, an OpenGL context twice as wide as a picture. Lives in the drawing thread."""

    def __init__(self, scene: Scene, size: int):
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
        self._geoms = np.flatnonzero(model.geom_group == DRAWN)
        infinite = model.geom_type[self._geoms] == mujoco.mjtGeom.mjGEOM_PLANE
        self._radii = np.where(infinite, np.inf, model.geom_rbound[self._geoms])
        self._size = size
        self._pixels = np.empty((size, size * len(CAMERAS), 3), np.uint8)
        model.vis.quality.offsamples = SAMPLES
        model.vis.quality.shadowsize = 0  # a map for shadows would take 64 MB, and none are drawn
        self._context, self._buffers = open_context(model, size * len(CAMERAS), size)
        self._freed = False
        gl_thread.opened(self)

    def draw(self, qpos: Array, mocap_pos: Array, mocap_quat: Array) -> Pixels:
        """Both pictures of a state, (cameras, size, size, 3) uint8."""
        if self._freed:
            raise RenderingError("the cameras are closed; make new ones")
        model, data, size = self._model, self._data, self._size
        data.qpos[:], data.mocap_pos[:], data.mocap_quat[:] = qpos, mocap_pos, mocap_quat
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        self._context.make_current()
        for k in range(len(CAMERAS)):
            self._look_through(k)
            mujoco.mjr_render(mujoco.MjrRect(k * size, 0, size, size), self._scene, self._buffers)
        mujoco.mjr_readPixels(self._pixels, None, mujoco.MjrRect(0, 0, size * len(CAMERAS), size), self._buffers)
        # OpenGL's first row is the lowest.
        pictures = self._pixels[::-1].reshape(size, len(CAMERAS), size, 3)
        return np.ascontiguousarray(pictures.transpose(1, 0, 2, 3))

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

    def free(self) -> None:
        """Free buffers and context; a second call does nothing."""
        if self._freed:
            return
        self._freed = True
        self._context.make_current()  # else the buffers of the same numbers in another context would be deleted
        self._buffers.free()
        self._context.free()
        gl_thread.freed(self)
