"""Our own objects as data: a body is a name and a list of primitive geoms, from which MJCF is written.

Sizes are MuJoCo half-sizes in metres, quaternions (w, x, y, z). Masses follow from densities over the collision
geoms alone (group 0), so a scene weighs the same with and without its visual geoms.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass

DEFAULT_FRICTION = (1.0, 0.005, 1e-4)


@dataclass(frozen=True)
class Geom:
    """One collision primitive; a visual copy of it with the body's material is added in the rendered form."""

    type: str
    size: tuple[float, ...]
    pos: tuple[float, float, float] = (0.0, 0.0, 0.0)
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    friction: tuple[float, float, float] = DEFAULT_FRICTION
    name: str | None = None


@dataclass(frozen=True)
class Body:
    """A rigid object of a task.

    Args:
        name: body name, as in datagen_info/object_poses.
        geoms: its collision primitives.
        density: kg/m^3 of every geom.
        material: a key of `scene.MATERIALS`, for rendering only.
        motion: "free" (free joint, named ``<name>_joint``) or "mocap" (moved by resets, never by physics).
        geom_attributes: further MJCF attributes of every collision geom, as (name, text) pairs.
    """

    name: str
    geoms: tuple[Geom, ...]
    density: float
    material: str
    motion: str = "free"
    geom_attributes: tuple[tuple[str, str], ...] = ()


def _numbers(values) -> str:
    return " ".join(repr(float(v)) for v in values)


def body_element(body: Body) -> ET.Element:
    """The MJCF element of a body, with collision geoms (group 0) and massless visual copies (group 1)."""
    element = ET.Element("body", name=body.name)
    if body.motion == "free":
        ET.SubElement(element, "joint", name=f"{body.name}_joint", type="free", damping="0")
    else:
        element.set("mocap", "true")
    for i, geom in enumerate(body.geoms):
        name = geom.name or f"{body.name}_{i}"
        shape = {
            "type": geom.type,
            "size": _numbers(geom.size),
            "pos": _numbers(geom.pos),
            "quat": _numbers(geom.quat),
        }
        ET.SubElement(
            element,
            "geom",
            name=name,
            group="0",
            density=repr(body.density),
            friction=_numbers(geom.friction),
            **shape,
            **dict(body.geom_attributes),
        )
        ET.SubElement(
            element,
            "geom",
            name=f"{name}_visual",
            group="1",
            contype="0",
            conaffinity="0",
            mass="0",
            material=body.material,
            **shape,
        )
    return element
