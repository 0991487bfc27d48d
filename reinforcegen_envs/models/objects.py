"""Our own objects as data: a body is a name and a list of primitive geoms, from which MJCF is written.

Sizes are MuJoCo half-sizes in metres, quaternions (w, x, y, z). Masses follow from densities over the collision
geoms alone (group 0), so a scene weighs the same with and without its visual geoms.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass

from reinforcegen_envs.errors import InvalidArgument

DEFAULT_FRICTION = (1.0, 0.005, 1e-4)


@dataclass(frozen=True)
class Geom:
    """One collision primitive; a visual copy of it is added in the rendered form.

    Args:
        type, size, pos, quat, friction: as in MJCF, in the body's frame.
        name: geom name; None numbers it.
        density: kg/m^3; None takes the body's.
        material: a key of `scene.MATERIALS`, for rendering only; None takes the body's.
        attributes: further MJCF attributes of the collision geom, as (name, text) pairs, over the body's.
    """

    type: str
    size: tuple[float, ...]
    pos: tuple[float, float, float] = (0.0, 0.0, 0.0)
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    friction: tuple[float, float, float] = DEFAULT_FRICTION
    name: str | None = None
    density: float | None = None
    material: str | None = None
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Part:
    """A part of an object that moves against it, or is just easier to give in a frame of its own.

    Args:
        name: body name.
        geoms: its collision primitives.
        pos, quat: its frame in the object's.
        joint: MJCF attributes of its joint, as (name, text) pairs ("name", "type", "axis", "range", ...); empty means fixed.
        inertial: MJCF attributes of an explicit inertial; empty means that it follows from the geoms.
        parts: parts of the part.
    """

    name: str
    geoms: tuple[Geom, ...]
    pos: tuple[float, float, float] = (0.0, 0.0, 0.0)
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    joint: tuple[tuple[str, str], ...] = ()
    inertial: tuple[tuple[str, str], ...] = ()
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Body:
    """An object of a task.

    Args:
        name: body name, as in datagen_info/object_poses.
        geoms: its collision primitives.
        density: kg/m^3 of every geom that does not say otherwise.
        material: a key of `scene.MATERIALS`, for rendering only.
        motion: "free" (free joint, named ``<name>_joint``) or "mocap" (moved by resets, never by physics).
        damping: of the free joint.
        geom_attributes: further MJCF attributes of every collision geom, as (name, text) pairs.
        parts: lids, drawers and the like.
    """

    name: str
    geoms: tuple[Geom, ...]
    density: float
    material: str
    motion: str = "free"
    damping: float = 0.0
    geom_attributes: tuple[tuple[str, str], ...] = ()
    parts: tuple[Part, ...] = ()


def _numbers(values) -> str:
    return " ".join(repr(float(v)) for v in values)


def body_element(body: Body) -> ET.Element:
    """The MJCF element of an object, with collision geoms (group 0) and massless visual copies (group 1).

    Raises:
        InvalidArgument: unknown motion.
    """
    element = ET.Element("body", name=body.name)
    if body.motion == "free":
        ET.SubElement(element, "joint", name=f"{body.name}_joint", type="free", damping=repr(body.damping))
    elif body.motion == "mocap":
        element.set("mocap", "true")
    else:
        raise InvalidArgument(f"{body.name}: unknown motion {body.motion!r}; choose 'free' or 'mocap'")
    _add_geoms(element, body, body.name, body.geoms)
    for part in body.parts:
        element.append(_part_element(body, part))
    return element


def _part_element(body: Body, part: Part) -> ET.Element:
    element = ET.Element("body", name=part.name, pos=_numbers(part.pos), quat=_numbers(part.quat))
    if part.inertial:
        ET.SubElement(element, "inertial", dict(part.inertial))
    if part.joint:
        ET.SubElement(element, "joint", dict(part.joint))
    _add_geoms(element, body, part.name, part.geoms)
    for child in part.parts:
        element.append(_part_element(body, child))
    return element


def _add_geoms(element: ET.Element, body: Body, prefix: str, geoms: tuple[Geom, ...]) -> None:
    for i, geom in enumerate(geoms):
        name = geom.name or f"{prefix}_{i}"
        shape = {
            "type": geom.type,
            "size": _numbers(geom.size),
            "pos": _numbers(geom.pos),
            "quat": _numbers(geom.quat),
        }
        collision = {
            "name": name,
            "group": "0",
            "density": repr(body.density if geom.density is None else geom.density),
            "friction": _numbers(geom.friction),
        }
        ET.SubElement(element, "geom", {**collision, **shape, **dict(body.geom_attributes), **dict(geom.attributes)})
        visual = {"name": f"{name}_visual", "group": "1", "contype": "0", "conaffinity": "0", "mass": "0"}
        ET.SubElement(element, "geom", {**visual, **shape, "material": geom.material or body.material})
