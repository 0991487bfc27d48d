"""Many primitives as one mesh: a picture's time goes into draw calls and texture changes, one a geom, and into vertices.

The mesh looks as the primitives do: the same outlines (MuJoCo draws round shapes with 28 sides), normals and texture. MuJoCo
maps a cube texture made of one picture by where a point of a primitive lies in its bounding cube; here every vertex carries
that place as a coordinate in the same picture, a flat texture.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from reinforcegen_envs.poses import quat_to_matrix
from reinforcegen_envs.typing import Array, Integers

FLAT = "_flat"  # ends the name of a material like another, whose texture is flat
SIDES = 28  # of round shapes, as in MuJoCo's own pictures
CAP_BANDS = 4  # of a capsule's end
LARGE = 0.2  # metres; light, which is reckoned at corners, varies on boxes of such half-sizes: they have smaller faces
CELLS = 4  # faces along each side of theirs, as in MuJoCo's own pictures
# Faces of the unit cube: the axis that points out of it, and those along which OpenGL's cube maps count s and t, each with
# its sign.
CUBE_FACES = (
    ((0, 1), (2, -1), (1, -1)),
    ((0, -1), (2, 1), (1, -1)),
    ((1, 1), (0, 1), (2, 1)),
    ((1, -1), (0, 1), (2, -1)),
    ((2, 1), (0, 1), (1, -1)),
    ((2, -1), (0, -1), (1, -1)),
)


class Quads(NamedTuple):
    """Four-cornered faces, none of which share a vertex.

    Args:
        points: (quads, 4, 3) corners in order round each face, metres.
        normals: (quads, 4, 3) unit vectors.
        places: (quads, 4, 2) where in the texture a corner is, 0 to 1.
    """

    points: Array
    normals: Array
    places: Array


def merge_primitives(body: ET.Element, asset: ET.Element) -> None:
    """Make one mesh geom, with the flat material, of all of a body's boxes, cylinders and capsules of one material.

    Args:
        body: its visual geoms (group 1) are replaced; the bodies in it are left alone.
        asset: where the mesh goes.
    """
    by_material: dict[str, list[ET.Element]] = {}
    for geom in body.findall("geom"):
        if geom.get("group") == "1" and geom.get("type") in _SHAPES and "material" in geom.attrib:
            by_material.setdefault(geom.attrib["material"], []).append(geom)
    for material, geoms in by_material.items():
        name = f"{body.get('name')}_{material}"
        quads = _joined(_placed(geom) for geom in geoms)
        arrays = {"vertex": quads.points, "normal": quads.normals, "texcoord": quads.places, "face": _triangles(quads)}
        ET.SubElement(asset, "mesh", {"name": name} | {key: _text(array) for key, array in arrays.items()})
        for geom in geoms:
            body.remove(geom)
        visual = {"name": f"{name}_visual", "group": "1", "contype": "0", "conaffinity": "0", "mass": "0"}
        ET.SubElement(body, "geom", {**visual, "type": "mesh", "mesh": name, "material": material + FLAT})


def _placed(geom: ET.Element) -> Quads:
    """A geom's surface, in its body's frame."""
    quads = _SHAPES[geom.attrib["type"]](*_numbers(geom.attrib["size"]))
    quat = _numbers(geom.get("quat", "1 0 0 0"))
    rotation = quat_to_matrix(quat / np.linalg.norm(quat))
    points = quads.points @ rotation.T + _numbers(geom.get("pos", "0 0 0"))
    return Quads(points, quads.normals @ rotation.T, quads.places)


def _box(x: float, y: float, z: float) -> Quads:
    cells = CELLS if max(x, y, z) > LARGE else 1
    edges = np.linspace(-1.0, 1.0, cells + 1)
    low_s, low_t = (low.ravel() for low in np.meshgrid(edges[:-1], edges[:-1]))
    step = 2.0 / cells
    corners, normals = np.zeros((6, cells**2, 4, 3)), np.zeros((6, cells**2, 4, 3))
    for i, ((out, sign), (s, _), (t, _)) in enumerate(CUBE_FACES):
        corners[i, ..., out] = normals[i, ..., out] = sign
        for k, (along_s, along_t) in enumerate(((0, 0), (1, 0), (1, 1), (0, 1))):
            corners[i, :, k, s], corners[i, :, k, t] = low_s + along_s * step, low_t + along_t * step
    corners = corners.reshape(-1, 4, 3)
    return Quads(corners * (x, y, z), normals.reshape(-1, 4, 3), _places(corners))


def _cylinder(radius: float, half: float) -> Quads:
    profile = np.array([[0.0, -half], [radius, -half], [radius, half], [0.0, half]])
    outward: Array = np.array([[0.0, -1.0], [1.0, 0.0], [0.0, 1.0]])
    return _turned(profile, outward[:, None].repeat(2, axis=1), np.array([radius, radius, half]))


def _capsule(radius: float, half: float) -> Quads:
    angles = np.linspace(0.0, np.pi / 2, CAP_BANDS + 1)
    upper = np.stack([np.cos(angles), np.sin(angles)], 1)
    outward = np.concatenate([upper[::-1] * (1.0, -1.0), upper])  # from the lower pole to the upper one
    profile = radius * outward + np.where(np.arange(len(outward)) <= CAP_BANDS, -half, half)[:, None] * (0.0, 1.0)
    normals = np.stack([outward[:-1], outward[1:]], 1)
    return _turned(profile, normals, np.array([radius, radius, radius + half]))


_SHAPES = {"box": _box, "cylinder": _cylinder, "capsule": _capsule}


def _turned(profile: Array, normals: Array, size: Array) -> Quads:
    """The surface that a line makes when it turns about the z axis.

    Args:
        profile: (points, 2) distance from the axis and z, metres, upwards on the outside.
        normals: (points - 1, 2, 2) of both ends of every piece, in the same plane.
        size: (3,) half of the bounding box.
    """
    angles = 2 * np.pi * (np.arange(SIDES)[:, None] + [0, 1]) / SIDES  # (sides, 2)

    def around(start: Array, end: Array) -> Array:
        """(sides, 4, 3): two points of the plane, each at both ends of every side."""
        corners = np.empty((SIDES, 4, 3))
        for k, (which, side) in enumerate(((start, 0), (start, 1), (end, 1), (end, 0))):
            corners[:, k, 0], corners[:, k, 1] = which[0] * np.cos(angles[:, side]), which[0] * np.sin(angles[:, side])
            corners[:, k, 2] = which[1]
        return corners

    pieces = zip(profile[:-1], profile[1:], normals, strict=True)
    surfaces = [(around(start, end), around(*ends)) for start, end, ends in pieces]
    points, outward = (np.concatenate(parts) for parts in zip(*surfaces, strict=True))
    return Quads(points, outward, _places(points / size))


def _places(corners: Array) -> Array:
    """Where in the texture corners (quads, 4, 3) in the unit cube are; a face lies on that side of it that its middle is on."""
    middles = corners.mean(1)
    out = np.abs(middles).argmax(1)
    places = np.empty((*corners.shape[:2], 2))
    for (axis, sign), *along in CUBE_FACES:
        here = (out == axis) & (np.sign(middles[:, axis]) == sign)
        for k, (direction, way) in enumerate(along):
            # What bends round the cube's edge stays on the face.
            nearest = np.maximum(np.abs(corners[here][..., axis]), np.abs(corners[here][..., direction]))
            places[here, :, k] = 0.5 * (way * corners[here][..., direction] / nearest + 1.0)
    return places


def _joined(parts: Iterable[Quads]) -> Quads:
    return Quads(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _triangles(quads: Quads) -> Integers:
    """(triangles, 3) indices of corners, counterclockwise seen from outside; without those that are a line."""
    first = 4 * np.arange(len(quads.points))[:, None]
    triangles = np.concatenate([first + [0, 1, 2], first + [0, 2, 3]])
    points, normals = quads.points.reshape(-1, 3), quads.normals.reshape(-1, 3)
    a, b, c = (points[triangles[:, k]] for k in range(3))
    across = np.cross(b - a, c - a)
    inward = (across * normals[triangles].sum(1)).sum(1) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    return triangles[np.linalg.norm(across, axis=1) > 1e-12]


def _numbers(text: str) -> Array:
    return np.array(text.split(), np.float64)


def _text(array: Array | Integers) -> str:
    numbers = array.ravel()
    return " ".join(map(str, numbers)) if numbers.dtype.kind == "i" else " ".join(f"{x:.9g}" for x in numbers)
