"""The robot's two cameras: front and wrist, small pictures of the scene's light form, both in one pass."""

from __future__ import annotations

import weakref

import mujoco
import numpy as np

from reinforcegen_envs.models.scene import Scene, load_scene
from reinforcegen_envs.sim import gl_thread
from reinforcegen_envs.sim.rendering import RenderingError, check_size, open_context
from reinforcegen_envs.typing import Array, Pixels

CAMERAS = {"front": "front", "wrist": "robot0_eye_in_hand"}  # name -> camera of the light form
SIZE = 84  # pixels a side, as in robomimic's and MimicGen's image observations
MIN_SIZE = 16  # below it convolutions with four strides of two have nothing left to see (ours)
MAX_GEOMS = 1_000


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
        self._model = model = load_scene(scene, "light")
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
        self._options.geomgroup[1] = 1  # what is drawn; group 0 collides
        self._options.sitegroup[:] = 0
        self._perturb = mujoco.MjvPerturb()
        self._cameras = []
        for name in CAMERAS.values():
            camera = mujoco.MjvCamera()
            camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            camera.fixedcamid = model.camera(name).id
            self._cameras.append(camera)
        self._size = size
        self._pixels = np.empty((size, size * len(CAMERAS), 3), np.uint8)
        model.vis.quality.offsamples = 0
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
        for k, camera in enumerate(self._cameras):
            if k == 0:
                every = mujoco.mjtCatBit.mjCAT_ALL
                mujoco.mjv_updateScene(model, data, self._options, self._perturb, camera, every, self._scene)
            else:
                mujoco.mjv_updateCamera(model, data, camera, self._scene)
            mujoco.mjr_render(mujoco.MjrRect(k * size, 0, size, size), self._scene, self._buffers)
        mujoco.mjr_readPixels(self._pixels, None, mujoco.MjrRect(0, 0, size * len(CAMERAS), size), self._buffers)
        # OpenGL's first row is the lowest.
        pictures = self._pixels[::-1].reshape(size, len(CAMERAS), size, 3)
        return np.ascontiguousarray(pictures.transpose(1, 0, 2, 3))

    def free(self) -> None:
        """Free buffers and context; a second call does nothing."""
        if self._freed:
            return
        self._freed = True
        self._context.make_current()  # else the buffers of the same numbers in another context would be deleted
        self._buffers.free()
        self._context.free()
        gl_thread.freed(self)
