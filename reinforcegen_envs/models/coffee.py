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
POD_IN_HOLDER = HOLDER_POSITION + [0.0, 0.0, 0.0077]  # where a pod comes to rest; measured
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


# --- Coffee Preparation: a mug, and a cabinet with a drawer ---

DRAWER_JOINT = "drawer_slide_joint"
TRAY_POSITION = np.array([0.0, -0.01, 0.076])  # of the tray's frame in the cabinet's
TRAY_FLOOR = np.array([0.0, -0.04, -0.03])  # centre of the tray's bottom, in its frame
TRAY_FLOOR_HALF = (0.08, 0.12, 0.008)
HANDLE = TRAY_POSITION + np.array([0.0, -0.22, 0.04])  # middle of the shut drawer's handle, in the cabinet's frame
MUG_HALF_HEIGHT = 0.03864  # metres of the mug's root over its bottom
MUG_MASS = 0.013
MUG_AXIS = -0.0226  # y of the mug's axis in its frame
MUG_GRIP = np.array([0.0, 0.0385, 0.009])  # middle of the handle's upright part, in the mug's frame
MUG_RIM = 0.0418  # z of the rim in the mug's frame
MUG_WALL_RADIUS = 0.0326  # metres of the middle of its wall from its axis
PLATE_TOP = -0.1005  # z of the base plate's upper side in the machine's frame
MUG_ON_PLATE = PLATE_TOP + MUG_HALF_HEIGHT  # z of a mug on it
_MUG_SOFT = (("solref", "0.001 1"), ("solimp", "0.998 0.998 0.001"), ("margin", "0.001"))
# The handle's loop in the mug's y-z plane.
_MUG_LOOP = (
    (0.011, 0.035),
    (0.027, 0.032),
    (0.038, 0.021),
    (0.040, 0.003),
    (0.036, -0.016),
    (0.023, -0.025),
    (0.010, -0.030),
)


def _mug() -> Body:
    sticky = (1.0, 1.0, 1.0)
    cup_mass, handle_mass = 0.01206, 0.00094
    wall = ring(0.0297, 0.0355, 0.0399, 12, cup_mass * 0.75, "mug_wall", friction=sticky)
    wall = tuple(
        Geom(
            geom.type,
            geom.size,
            (geom.pos[0], geom.pos[1] + MUG_AXIS, 0.0019),
            geom.quat,
            friction=sticky,
            name=geom.name,
            attributes=geom.attributes,
        )
        for geom in wall
    )
    floor = Geom(
        "cylinder",
        (0.0355, 0.004),
        (0.0, MUG_AXIS, -0.03464),
        friction=sticky,
        name="mug_floor",
        attributes=_mass(cup_mass * 0.25),
    )
    bars = []
    for i, (start, end) in enumerate(zip(_MUG_LOOP[:-1], _MUG_LOOP[1:], strict=True)):
        dy, dz = end[0] - start[0], end[1] - start[1]
        length, angle = float(np.hypot(dy, dz)), float(np.arctan2(dz, dy))
        bars.append(
            Geom(
                "box",
                (0.006, 0.5 * length + 0.002, 0.0035),
                (0.0, 0.5 * (start[0] + end[0]), 0.5 * (start[1] + end[1])),
                (float(np.cos(angle / 2)), float(np.sin(angle / 2)), 0.0, 0.0),
                friction=sticky,
                name=f"mug_handle_{i}",
                attributes=_mass(handle_mass / (len(_MUG_LOOP) - 1)),
            )
        )
    return Body(
        "mug",
        (*wall, floor, *bars),
        density=100.0,
        material="ceramic",
        damping=0.0005,
        geom_attributes=_MUG_SOFT,
    )


MUG = _mug()


def _cabinet() -> Body:
    """A fixed cabinet, open in front (its -y), and the tray that slides out of it."""
    frame = (
        ("side_left", (0.008, 0.1435, 0.064), (-0.11, -0.0315, 0.065)),
        ("side_right", (0.008, 0.1435, 0.064), (0.11, -0.0315, 0.065)),
        ("back", (0.102, 0.008, 0.064), (0.0, 0.092, 0.062)),
        ("bottom", (0.102, 0.1335, 0.014), (0.0, -0.0395, 0.004)),
        ("top", (0.102, 0.1335, 0.008), (0.0, -0.0215, 0.121)),
        ("post_left", (0.012, 0.012, 0.064), (-0.102, -0.163, 0.065)),
        ("post_right", (0.012, 0.012, 0.064), (0.102, -0.163, 0.065)),
    )
    tray = (
        ("front", (0.088, 0.010, 0.046), (0.0, -0.155, 0.007)),
        ("rear", (0.095, 0.008, 0.028), (0.0, 0.065, 0.008)),
        ("left", (0.008, 0.114, 0.008), (-0.072, -0.042, -0.015)),
        ("right", (0.008, 0.114, 0.008), (0.072, -0.042, -0.015)),
        ("floor", TRAY_FLOOR_HALF, tuple(TRAY_FLOOR)),
    )
    half = float(np.sqrt(0.5))
    handle = (
        ("handle_left", (0.009, 0.03), (-0.05, -0.19, 0.04), (half, half, 0.0, 0.0)),
        ("handle_right", (0.009, 0.03), (0.05, -0.19, 0.04), (half, half, 0.0, 0.0)),
        ("handle_bar", (0.009, 0.05), (0.0, -0.22, 0.04), (half, 0.0, half, 0.0)),
    )
    return Body(
        "drawer",
        tuple(Geom("box", size, pos, name=f"cabinet_{name}", attributes=_mass(0.05)) for name, size, pos in frame),
        density=100.0,
        material="wood_red",
        motion="mocap",
        parts=(
            Part(
                "drawer_tray",
                (
                    *(Geom("box", size, pos, name=f"tray_{n}", attributes=_mass(0.05)) for n, size, pos in tray),
                    *(
                        Geom(
                            "capsule", size, pos, quat, name=f"tray_{n}", material="wood_light", attributes=_mass(0.05)
                        )
                        for n, size, pos, quat in handle
                    ),
                ),
                pos=tuple(TRAY_POSITION),
                joint=(
                    ("name", DRAWER_JOINT),
                    ("type", "slide"),
                    ("axis", "0 1 0"),
                    ("limited", "true"),
                    ("range", "-1 0"),
                    ("damping", "100"),
                ),
                inertial=(
                    ("pos", "0 0 0.35"),
                    ("quat", "0.5 0.5 0.5 0.5"),
                    ("mass", "7.85398"),
                    ("diaginertia", "0.9233 0.7646 0.1685"),
                ),
            ),
        ),
    )


CABINET = _cabinet()
