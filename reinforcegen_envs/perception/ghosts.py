"""What is believed, drawn into pictures of what is true."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from reinforcegen_envs.perception.base import Perception
from reinforcegen_envs.perception.camera import CameraPerception
from reinforcegen_envs.sim.rendering import Ghost
from reinforcegen_envs.sim.simulation import CellState, Simulation
from reinforcegen_envs.tasks.base import Task

BELIEVED = (0.1, 0.9, 0.2, 0.35)  # green, mostly transparent
SPREAD = (0.9, 0.1, 0.1, 0.6)
SWELL = 1.02  # so that what is believed truly is seen around what is true
DEVIATIONS = 2.0


def believed_ghosts(perception: Perception, belief: CellState, task: Task) -> Sequence[Ghost]:
    """Objects as they are believed to be, and ellipsoids of how uncertain their positions are; none of the simulation itself.

    Args:
        perception: what fills the belief.
        belief: an evaluated state.
        task: names the objects.
    """
    if isinstance(belief, Simulation):
        return ()
    model, data = belief.model, belief.data
    ghosts = [
        Ghost(
            int(model.geom_type[geom]),
            model.geom_size[geom] * SWELL,
            data.geom_xpos[geom],
            data.geom_xmat[geom],
            BELIEVED,
        )
        for name in task.objects
        for geom in task.object_geoms[name]
    ]
    if isinstance(perception, CameraPerception):
        for name, covariance in zip(task.objects, perception.spread(belief), strict=True):
            variances, axes = np.linalg.eigh(covariance)
            if np.linalg.det(axes) < 0:
                axes[:, 0] = -axes[:, 0]
            radii = DEVIATIONS * np.sqrt(variances)
            centre = data.xpos[task.object_body[name]]
            ghosts.append(Ghost(int(mujoco.mjtGeom.mjGEOM_ELLIPSOID), radii, centre, axes.ravel(), SPREAD))
    return ghosts
