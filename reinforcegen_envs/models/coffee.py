"""Coffee machine, pod, mug and drawer cabinet, from primitives.

MimicGen's are convex meshes, which may not be shipped; these have their sizes, masses and frames (fact sheet). What a pod
meets on its way (holder, lid, rim) is exact; the machine's elliptic body is a stack of boxes.
"""

from __future__ import annotations

import numpy as np

from reinforcegen_envs.models.objects import Body, Geom, Part

# Heights and radii that checks use, metres.
POD_HALF_HEIGHT, POD_RADIUS = 0.023103, 0.0243
HOLDER_POSITION = np.array([0.0, 0.1061, 0.0635])  # in the machine's frame, as is the lid's when shut
HOLDER_INNER_RADIUS, HOLDER_OUTER_RADIUS, HOLDER_HALF_HEIGHT = 0.02497, 0.0295, 0.028
LID_POSITION = np.array([0.0, 0.1045, 0.106])
LID_HALF_LENGTH, LID_HALF_HEIGHT = 0.044, 0.0095
LID_OPEN = 2 * np.pi / 3
LID_JOINT = "coffee_machine_lid_joint"
MACHINE_HALF_HEIGHT = 0.1105

HOLDER_SIDES = 20  # boxes of the holder's wall; its inner radius is exact, its corners stand 0.3 mm further out
_HARD = (("condim", "4"), ("solref", "0.001 1"), ("solimp", "0.998 0.998 0.001"))
_METAL = (0.95, 0.3, 0.1)


def _mass(kilograms: float) -> tuple[tuple[str, str], ...]:
    return (("mass", repr(float(kilograms))),)


def ring(
    inner: float, outer: float, half_height: float, sides: int, mass: float, name: str, attributes=(), **geom
) -> tuple[Geom, ...]:
    """An upright tube of boxes about the z axis, whose inner faces touch the inner circle from outside.

    Args:
        inner, outer, half_height: metres.
        sides: boxes.
        mass: kg of all of them.
        name: prefix of geom names.
        attributes, geom: further arguments of `Geom`.
    """
    half_width = outer * np.tan(np.pi / sides)
    boxes = []
    for i in range(sides):
        angle = 2 * np.pi * i / sides
        middle = 0.5 * (inner + outer)
        boxes.append(
            Geom(
                "box",
                (0.5 * (outer - inner), half_width, half_height),
                (middle * np.cos(angle), middle * np.sin(angle), 0.0),
                (np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)),
                name=f"{name}_{i}",
                attributes=(*attributes, *_mass(mass / sides)),
                **geom,
            )
        )
    return tuple(boxes)


def _machine_body() -> tuple[Geom, ...]:
    """An upright prism, 0.2 m deep with elliptic ends, as nested boxes; a ridge on top, a base plate in front."""
    # Half sizes in x and y: the flat middle, then chords of the ellipses (semi-axes 0.048, 0.10) at x = +-0.0385.
    chords = [(0.0385 + 0.048 * np.sqrt(1 - part**2), 0.1 * part) for part in (1.0, 0.85, 0.6, 0.3)]
    # One box stands on the table; the others end a millimetre above it, which spares contacts.
    boxes = [
        Geom(
            "box",
            (x, y, 0.1 if i == 1 else 0.0995),
            (0.0, -0.05, -0.0105 if i == 1 else -0.01),
            friction=_METAL,
            name=f"coffee_machine_body_{i}",
            attributes=(*_HARD, *_mass(6.15 / len(chords))),
        )
        for i, (x, y) in enumerate(chords)
    ]
    ridge = Geom(
        "box",
        (0.0295, 0.0915, 0.0105),
        (-0.001, -0.058, 0.1),
        friction=_METAL,
        name="coffee_machine_ridge",
        attributes=(*_HARD, *_mass(0.163)),
    )
    base = (
        Geom(
            "box",
            (0.042, 0.03, 0.005),
            (0.0, 0.0805, -0.1055),
            friction=_METAL,
            name="coffee_machine_base",
            attributes=(*_HARD, *_mass(0.0504)),
        ),
        Geom(
            "cylinder",
            (0.041, 0.0045),
            (0.0, 0.1105, -0.105),
            friction=_METAL,
            name="coffee_machine_base_front",
            attributes=(*_HARD, *_mass(0.026)),
        ),
    )
    bracket = Geom(
        "box",
        (0.01, 0.01305, 0.005),
        (0.0, 0.06355, 0.0865),
        name="coffee_machine_holder_bracket",
        attributes=_mass(0.00522),
    )
    return (*boxes, ridge, *base, bracket)


_HOLDER = Part(
    "coffee_machine_pod_holder",
    (
        *ring(
            HOLDER_INNER_RADIUS,
            HOLDER_OUTER_RADIUS,
            HOLDER_HALF_HEIGHT,
            HOLDER_SIDES,
            0.0466,
            "pod_holder",
            (("condim", "4"),),
            material="wood_red",
        ),
        Geom(
            "cylinder",
            (0.027217, 0.005),
            (0.0, 0.0, -0.021),
            friction=(1.0, 0.01, 0.001),
            name="pod_holder_floor",
            attributes=(
                ("condim", "4"),
                ("margin", "0.0006"),  # a pod rests 7.7 mm above the holder's centre, as it does on MimicGen's mesh
                ("solimp", "0.998 0.998 0.001"),
                *_mass(0.0233),
            ),
            material="wood_red",
        ),
    ),
    pos=tuple(HOLDER_POSITION),
)
_LID = Part(
    "coffee_machine_lid",
    (
        # Flat below, arched above: a full-width bar and a narrower crown.
        Geom(
            "box",
            (0.0295, LID_HALF_LENGTH, 0.0064),
            (0.0, 0.0, -0.0031),
            friction=_METAL,
            name="coffee_machine_lid_bar",
            attributes=(*_HARD, *_mass(0.0725)),
            material="ceramic",
        ),
        Geom(
            "box",
            (0.0175, LID_HALF_LENGTH, 0.0031),
            (0.0, 0.0, 0.0064),
            friction=_METAL,
            name="coffee_machine_lid_crown",
            attributes=(*_HARD, *_mass(0.0186)),
            material="ceramic",
        ),
    ),
    pos=tuple(LID_POSITION),
    joint=(
        ("name", LID_JOINT),
        ("type", "hinge"),
        ("axis", "1 0 0"),
        ("pos", f"0 {-LID_HALF_LENGTH} 0"),
        ("limited", "true"),
        ("range", f"0 {LID_OPEN}"),
        ("damping", "0.005"),
    ),
)
# Fixed to the machine, out of everything's way: solid, where MimicGen's is hollow; the mass is the hollow one's.
_CUP = Part(
    "coffee_machine_cup",
    (
        Geom("cylinder", (0.029964, 0.025), name="cup_wall", attributes=_mass(0.0707), material="ceramic"),
        Geom(
            "box",
            (0.007, 0.003, 0.0125),
            (0.0, 0.0369, 0.0),
            name="cup_handle",
            attributes=_mass(0.0015),
            material="ceramic",
        ),
    ),
    pos=(0.0, 0.1061, -0.0755),
    quat=(float(np.sqrt(0.5)), 0.0, 0.0, -float(np.sqrt(0.5))),
)


def machine(cup: bool) -> Body:
    """The machine: body, base plate, pod holder, lid on a hinge and, in Coffee, a cup below the holder."""
    return Body(
        "coffee_machine",
        _machine_body(),
        density=1000.0,
        material="steel",
        parts=(_HOLDER, _LID, _CUP) if cup else (_HOLDER, _LID),
    )


def _pod_geoms() -> tuple[Geom, ...]:
    """A cone from r 0.0205 to 0.0222, a flange and a top disc, as stacked cylinders."""
    # Radius, z from, z to.
    layers = (
        (0.0207, -POD_HALF_HEIGHT, -0.0125),
        (0.0212, -0.0125, 0.0),
        (0.0218, 0.0, 0.0202),
        (POD_RADIUS, 0.0202, 0.0228),
        (0.0192, 0.0228, POD_HALF_HEIGHT),
    )
    return tuple(
        Geom(
            "cylinder",
            (radius, 0.5 * (high - low)),
            (0.0, 0.0, 0.5 * (high + low)),
            friction=(1.0, 1.0, 1.0),
            name=f"coffee_pod_{i}",
        )
        for i, (radius, low, high) in enumerate(layers)
    )


POD_MASS = 0.006954
_POD_VOLUME = sum(np.pi * geom.size[0] ** 2 * 2 * geom.size[1] for geom in _pod_geoms())
POD = Body(
    "coffee_pod",
    _pod_geoms(),
    density=float(POD_MASS / _POD_VOLUME),
    material="ceramic",
    geom_attributes=_HARD,
)
