"""Rendering: the scene's rendered form, fed with the physics form's state. OpenGL is touched here and nowhere else."""

from __future__ import annotations

import os

import mujoco
import numpy as np

from reinforcegen_envs.models.scene import Scene, load_scene


class RenderingError(RuntimeError):
    """No frame can be drawn on this machine."""


class SceneRenderer:
    """Draws frames of one scene.

    Args:
        scene: the task's scene.
        camera: name of a camera in it.
        width, height: pixels.

    Raises:
        ValueError: no such camera.
        RenderingError: no OpenGL library can be loaded.
    """

    def __init__(self, scene: Scene, camera: str, width: int, height: int):
        self._model = load_scene(scene, "rendered")
        cameras = [self._model.camera(i).name for i in range(self._model.ncam)]
        if camera not in cameras:
            raise ValueError(f"unknown camera {camera!r}; choose one of {cameras}")
        self._camera = camera
        self._data = mujoco.MjData(self._model)
        # The offscreen buffer's size belongs to the model; MjVisual is not part of the dynamics.
        self._model.vis.global_.offwidth = max(width, self._model.vis.global_.offwidth)
        self._model.vis.global_.offheight = max(height, self._model.vis.global_.offheight)
        try:
            self._renderer = mujoco.Renderer(self._model, height, width)
        except Exception as error:  # the GL back-ends raise ImportError, AttributeError, GLError, RuntimeError ...
            raise RenderingError(
                f"cannot open an OpenGL context with MUJOCO_GL={os.environ.get('MUJOCO_GL', '(unset)')!r}: {error}. "
                "On a machine without a screen set MUJOCO_GL=egl (GPU) or MUJOCO_GL=osmesa (CPU) before Python starts, "
                "with libegl1 or libosmesa6 installed"
            ) from error
        self._options = mujoco.MjvOption()
        self._options.geomgroup[0] = 0  # collision geoms; their visual copies are in group 1
        self._options.sitegroup[:] = 0

    def frame(self, data: mujoco.MjData) -> np.ndarray:
        """The scene in the state of ``data`` (of the physics form), (height, width, 3) uint8."""
        self._data.qpos[:] = data.qpos
        self._data.mocap_pos[:] = data.mocap_pos
        self._data.mocap_quat[:] = data.mocap_quat
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        self._renderer.update_scene(self._data, camera=self._camera, scene_option=self._options)
        return self._renderer.render()

    def close(self) -> None:
        """Free the OpenGL context."""
        self._renderer.close()
