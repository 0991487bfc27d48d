"""Rendering: the scene's rendered form, fed with the physics form's state. OpenGL is touched here and nowhere else."""

from __future__ import annotations

import importlib.util
import operator
import os
import warnings
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import mujoco
import numpy as np

from reinforcegen_envs.errors import InvalidArgument, is_one_of
from reinforcegen_envs.models.scene import Scene, load_scene
from reinforcegen_envs.sim import gl_thread
from reinforcegen_envs.sim.gl_thread import RenderingError
from reinforcegen_envs.typing import Array, Pixels

__all__ = ["MAX_PIXELS", "Ghost", "RenderingError", "SceneRenderer", "Surface", "check_camera"]

MAX_PIXELS = 16384  # a side: what OpenGL implementations allow of a frame buffer
MAX_GEOMS = 10_000


def check_camera(model: mujoco.MjModel, camera: str, width: int, height: int) -> None:
    """Check what `SceneRenderer` draws, without OpenGL.

    Args:
        model: either form of the scene.
        camera: name of a camera in it.
        width, height: pixels.

    Raises:
        InvalidArgument: no such camera, or a size that is not an integer from 1 to `MAX_PIXELS`.
    """
    cameras = [model.camera(i).name for i in range(model.ncam)]
    if not is_one_of(camera, cameras):
        raise InvalidArgument(f"unknown camera {camera!r}; choose one of {cameras}")
    for name, pixels in (("width", width), ("height", height)):
        check_size(name, pixels)


def check_size(name: str, pixels: int, least: int = 1, most: int = MAX_PIXELS) -> None:
    """Check one side of a picture.

    Raises:
        InvalidArgument: not an integer from ``least`` to ``most``; the message calls it ``name``.
    """
    try:
        good = least <= operator.index(pixels) <= most and not isinstance(pixels, bool)
    except TypeError:
        good = False
    if not good:
        raise InvalidArgument(f"{name} {pixels!r} must be an integer from {least} to {most} (pixels)")


class Ghost(NamedTuple):
    """Something drawn into a picture that is not in the scene.

    Args:
        type: MuJoCo's geom type, a primitive.
        size: (3,) half sizes, metres.
        pos, mat: (3,) metres and (9,) rotation, world frame.
        rgba: colour.
    """

    type: int
    size: Array
    pos: Array
    mat: Array
    rgba: tuple[float, float, float, float]


def drawn_form() -> str:
    """The form of the scene that frames are drawn from: the light one where robosuite is not installed, with a warning."""
    if importlib.util.find_spec("robosuite") is not None:
        return "rendered"
    warnings.warn(
        "robosuite is not installed: frames show the light form of the scene, the robot as its collision hulls. On Python 3.10 "
        "and 3.11, pip install 'reinforcegen-envs[robosuite]' brings it",
        stacklevel=2,
    )
    return "light"


class SceneRenderer:
    """Draws frames of one scene; from any thread, as one of its own does the drawing (see `gl_thread`).

    Args:
        scene: the task's scene.
        camera: name of a camera in it.
        width, height: pixels.

    Raises:
        InvalidArgument: no such camera, or a size that cannot be drawn.
        RenderingError: no OpenGL library can be loaded, or this process was forked from one that had drawn.
    """

    def __init__(self, scene: Scene, camera: str, width: int, height: int):
        form = drawn_form()
        canvas = gl_thread.call(lambda: _Canvas(scene, form, camera, width, height))
        self._canvas = canvas
        self._free = weakref.finalize(self, gl_thread.post, canvas.free)
        self._free.atexit = False  # the drawing thread frees at exit, in time

    def frame(self, data: mujoco.MjData, ghosts: Sequence[Ghost] = ()) -> Pixels:
        """The scene in the state of ``data`` (of the physics form), and ghosts in it, (height, width, 3) uint8.

        Raises:
            RenderingError: after `close`, or in a forked child.
        """
        # Copies: whoever interrupts the wait for the frame may step the simulation while it is still being drawn.
        state = data.qpos.copy(), data.mocap_pos.copy(), data.mocap_quat.copy()
        return gl_thread.call(lambda: self._canvas.draw(*state, ghosts))

    def close(self) -> None:
        """Free the OpenGL context; a second call does nothing. Does not wait, so any thread and destructor may call."""
        self._free()


class Surface:
    """An OpenGL context, and in it a model's buffers for pictures of a size. Lives in the drawing thread.

    Args:
        model: what is drawn.
        width, height: pixels.

    Attributes:
        buffers: what is drawn into.

    Raises:
        RenderingError: no OpenGL library can be loaded.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int):
        self._context, self.buffers = _open_context(model, width, height)
        self._freed = False
        gl_thread.opened(self)

    def begin(self) -> None:
        """Make the context the current one.

        Raises:
            RenderingError: it was freed.
        """
        if self._freed:
            raise RenderingError("the renderer is closed; make a new one")
        self._context.make_current()

    def free(self) -> None:
        """Free buffers and context; a second call does nothing."""
        if self._freed:
            return
        self._freed = True
        self._context.make_current()  # else the buffers of the same numbers in another context would be deleted
        self.buffers.free()
        self._context.free()
        gl_thread.freed(self)


class _Canvas(Surface):
    """A scene, an OpenGL context and what is drawn into it. Lives in the drawing thread: made, used and freed there."""

    def __init__(self, scene: Scene, form: str, camera: str, width: int, height: int):
        self._model = model = load_scene(scene, form)
        check_camera(model, camera, width, height)
        self._data = mujoco.MjData(model)
        self._scene = mujoco.MjvScene(model, MAX_GEOMS)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = model.camera(camera).id
        self._options = mujoco.MjvOption()
        self._options.geomgroup[0] = 0  # collision geoms; their visual copies are in group 1
        self._options.sitegroup[:] = 0
        self._viewport = mujoco.MjrRect(0, 0, width, height)
        super().__init__(model, width, height)

    def draw(self, qpos: Array, mocap_pos: Array, mocap_quat: Array, ghosts: Sequence[Ghost]) -> Pixels:
        """The frame of a state, (height, width, 3) uint8."""
        self.begin()
        data = self._data
        data.qpos[:], data.mocap_pos[:], data.mocap_quat[:] = qpos, mocap_pos, mocap_quat
        mujoco.mj_kinematics(self._model, data)
        mujoco.mj_camlight(self._model, data)
        every = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, data, self._options, None, self._camera, every, self._scene)
        for ghost in ghosts[: self._scene.maxgeom - self._scene.ngeom]:
            mujoco.mjv_initGeom(self._scene.geoms[self._scene.ngeom], *ghost[:4], np.array(ghost.rgba, np.float32))
            self._scene.ngeom += 1
        mujoco.mjr_render(self._viewport, self._scene, self.buffers)
        pixels = np.empty((self._viewport.height, self._viewport.width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._viewport, self.buffers)
        return np.ascontiguousarray(pixels[::-1])  # OpenGL's first row is the lowest


def _open_context(model: mujoco.MjModel, width: int, height: int) -> tuple[Any, mujoco.MjrContext]:
    """An OpenGL context, and in it a model's buffers for pictures of a size; for the drawing thread.

    Args:
        model: what is drawn.
        width, height: pixels.

    Raises:
        RenderingError: no OpenGL library can be loaded.
    """
    # The offscreen buffer's size belongs to the model, which all canvases share; only opening a context reads it.
    model.vis.global_.offwidth, model.vis.global_.offheight = width, height
    try:
        context = mujoco.GLContext(width, height)
    except Exception as error:  # the back-ends raise ImportError, AttributeError, GLError, RuntimeError ...
        raise _no_context(error) from error
    try:
        context.make_current()
        buffers = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
    except Exception as error:
        context.free()
        raise _no_context(error) from error
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, buffers)
    return context, buffers


def _no_context(error: Exception) -> RenderingError:
    """What a back-end's error means, and what to do."""
    return RenderingError(
        f"cannot open an OpenGL context with MUJOCO_GL={os.environ.get('MUJOCO_GL', '(unset)')!r}: {error}. "
        "On a machine without a screen set MUJOCO_GL=egl (GPU) or MUJOCO_GL=osmesa (CPU) before Python starts, "
        "with libegl1 or libosmesa6 installed"
    )
