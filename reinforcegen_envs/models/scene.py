"""Scenes: robosuite's Panda, mount and arena plus our objects, compiled once and kept on disk as MJB files.

A scene has three forms with the same joints and bodies: ``physics`` (no visual geoms, meshes or textures), ``rendered`` (as
robosuite draws it) and ``light`` (the robot as its collision hulls, objects and table as they look, a mesh each: what cameras see
for observations, fifty times as fast). Only building the rendered form imports robosuite.
"""

from __future__ import annotations

import functools
import hashlib
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from reinforcegen_envs.caching import cache_folder
from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError, is_one_of
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.models.arena import (
    FOLDER,
    is_visual,
    remove_unused,
    robosuite_arena,
    robosuite_version,
    shipped_arena,
)
from reinforcegen_envs.models.merge import FLAT, merge_primitives
from reinforcegen_envs.models.objects import Body, body_element

FORMS = ("physics", "rendered", "light")
DRAWN, HIDDEN = 1, 5  # groups of geoms: what is drawn, and what a picture leaves out; group 0 collides
# A camera for tasks that robosuite's agentview would crop: MimicGen's, position and quaternion.
AGENTVIEW_FULL = (0.753, 0.0, 1.519), (0.64324, 0.29367, 0.29367, 0.64324)


# The light form's robot, by parts of geoms' names: robosuite's white arm and hand, grey fingers.
LIGHT_COLOURS = {
    "robot0_link": "0.9 0.9 0.9 1",
    "gripper0_right_hand": "0.9 0.9 0.9 1",
    "gripper0_right_finger": "0.35 0.35 0.35 1",
}


@dataclass(frozen=True)
class View:
    """Where the front camera stands and looks.

    Args:
        pos: of the camera, metres, world frame.
        target: the point in the middle of its picture, metres, world frame.
        fovy: field of view, degrees.
    """

    pos: tuple[float, float, float]
    target: tuple[float, float, float]
    fovy: float

    @property
    def axes(self) -> str:
        """MJCF's ``xyaxes``: the picture's right and up, world frame; up is where the world's z axis is."""
        forward = np.subtract(self.target, self.pos)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        up = np.cross(right, forward)
        return " ".join(repr(float(x)) for x in (*right / np.linalg.norm(right), *up / np.linalg.norm(up)))


# Ours: all of the table that any task's resets use, and what is lifted over it. robosuite's agentview crops it.
FRONT = View((0.55, 0.0, 1.5), (0.0, 0.0, 0.86), 42.0)


# All that MuJoCo's versions have, or may get, other defaults for, beside `Scene.multiccd`; the values are those of 3.9.
FLAGS = {"nativeccd": "enable", "island": "enable", "eulerdamp": "enable", "midphase": "enable"}
OPTIONS = {
    "integrator": "Euler", "solver": "Newton", "jacobian": "auto", "iterations": "100", "tolerance": "1e-8",
    "ls_iterations": "50", "ls_tolerance": "0.01", "noslip_iterations": "0", "ccd_iterations": "35", "ccd_tolerance": "1e-6",
}  # fmt: skip


class SceneCacheError(ReinforceGenError, RuntimeError):
    """The compiled-scene cache cannot be written."""


@dataclass(frozen=True)
class Scene:
    """What a task puts on robosuite's table.

    Args:
        name: cache name, one a task.
        bodies: the task's objects.
        table_height: z of the table top, metres, world frame.
        front: the front camera of observations.
        multiccd: whether more than one contact of two convex shapes is looked for, where MuJoCo does so as 3.9 does
            (`as_in_3_9`): only for tasks whose demonstrations and policies were made with that.
    """

    name: str
    bodies: tuple[Body, ...]
    table_height: float = 0.8
    front: View = FRONT
    multiccd: bool = False


@functools.cache
def _sources_digest():
    """A hash of the code that builds scenes, and of what they all stand on: more than a megabyte."""
    sources = [Path(__file__).with_name(name) for name in ("scene.py", "objects.py", "merge.py", "arena.py")]
    digest = hashlib.sha256()
    for source in (*sources, *sorted(FOLDER.iterdir())):
        digest.update(source.read_bytes())
    return digest


def _cache_file(scene: Scene, form: str) -> Path:
    digest = _sources_digest().copy()
    digest.update(repr(scene).encode())
    if form == "rendered":
        digest.update(robosuite_version().encode())
    return cache_folder() / f"{scene.name}-{form}-mujoco{mujoco.__version__}-{digest.hexdigest()[:16]}.mjb"


@functools.cache
def load_scene(scene: Scene, form: str = "physics") -> mujoco.MjModel:
    """The compiled scene, from the cache or built now; one shared model a process.

    Args:
        scene: what to load (frozen dataclass: equal scenes share a model).
        form: "physics", "rendered" or "light".

    Raises:
        InvalidArgument: unknown form.
        SceneCacheError: the scene is not cached and the cache folder cannot be written.
        CacheError: the user has no home folder, and REINFORCEGEN_CACHE is not set.
        SceneBuildError: the rendered form, and robosuite is not installed, or cannot be imported and has to be.
    """
    if not is_one_of(form, FORMS):
        raise InvalidArgument(f"unknown scene form {form!r}; choose one of {FORMS}")
    model = _load(scene, form)
    if form == "physics":
        _scenes[id(model)] = scene
    return model


_scenes: dict[int, Scene] = {}  # by the identity of the models that `load_scene` keeps


def scene_of(model: mujoco.MjModel) -> Scene | None:
    """The scene that a model was loaded from (its physics form), or None for a model from elsewhere."""
    return _scenes.get(id(model))


def _load(scene: Scene, form: str) -> mujoco.MjModel:
    path = _cache_file(scene, form)
    if path.is_file():
        try:
            return mujoco.MjModel.from_binary_path(str(path))
        except ValueError:
            pass  # damaged: built again and replaced below
    xml = scene_xml(scene, form)
    model = mujoco.MjModel.from_xml_string(xml)
    try:
        with atomic_path(path) as temporary:
            mujoco.mj_saveModel(model, str(temporary), None)
    except OSError as error:
        raise SceneCacheError(
            f"cannot write the compiled scene {path} ({error.strerror or error}); "
            "make that folder writable, or set REINFORCEGEN_CACHE to one that is"
        ) from error
    return model


def as_in_3_9() -> bool:
    """Whether this MuJoCo's ``multiccd`` finds the contacts of 3.9's: before it was another switch, and 3.12 finds more."""
    version = tuple(int(part) for part in mujoco.__version__.split(".")[:2])
    return hasattr(mujoco.mjtDisableBit, "mjDSBL_MULTICCD") and version < (3, 12)


def scene_xml(scene: Scene, form: str) -> str:
    """MJCF text of a scene in one of its forms; the rendered one imports robosuite.

    Raises:
        SceneBuildError: the rendered form, and robosuite cannot be imported.
    """
    root = robosuite_arena(scene.table_height) if form == "rendered" else shipped_arena(scene.table_height)
    worldbody, option = root.find("worldbody"), root.find("option")
    assert worldbody is not None and option is not None
    option.attrib.update(OPTIONS)
    ET.SubElement(option, "flag", FLAGS | {"multiccd": "enable" if scene.multiccd and as_in_3_9() else "disable"})
    for body in scene.bodies:
        worldbody.append(body_element(body))
    if form == "physics":
        _strip_visuals(root)
    elif form == "light":
        _lighten(root, scene)
    position, quat = (" ".join(map(str, numbers)) for numbers in AGENTVIEW_FULL)
    ET.SubElement(worldbody, "camera", name="agentview_full", mode="fixed", pos=position, quat=quat)
    return ET.tostring(root, encoding="unicode")


def _lighten(root: ET.Element, scene: Scene) -> None:
    """Leave of what is drawn the objects, the table and, as collision hulls, the robot; add the front camera.

    Objects and table become one mesh for each body and material (`merge_primitives`), with small textures: a drawing
    context holds its own, and with robosuite's takes 150 MB.
    """
    worldbody, asset = root.find("worldbody"), root.find("asset")
    assert worldbody is not None and asset is not None
    objects = {id(g) for body in scene.bodies for g in worldbody.findall(f"body[@name='{body.name}']//geom")}
    for parent in list(root.iter("body")) + [worldbody]:
        for geom in parent.findall("geom"):
            name = geom.get("name", "")
            if colour := next((c for part, c in LIGHT_COLOURS.items() if name.startswith(part)), None):
                if name.endswith("_collision") and "pad" not in name:
                    geom.set("group", str(DRAWN))
                    geom.set("rgba", colour)
                    continue
            if id(geom) not in objects and name != "table_visual":
                geom.attrib.pop("material", None)
                if is_visual(geom):
                    parent.remove(geom)
    for material in list(asset.findall("material")):
        texture = asset.find(f"texture[@name='{material.get('texture')}']")
        if texture is not None and texture.get("type") == "cube" and "file" in texture.attrib:
            name = texture.get("name", "") + FLAT
            ET.SubElement(asset, "texture", name=name, type="2d", file=texture.attrib["file"])
            ET.SubElement(
                asset, "material", {**material.attrib, "name": material.get("name", "") + FLAT, "texture": name}
            )
    for name in ("table", *(body.name for body in scene.bodies)):
        element = worldbody.find(f"body[@name='{name}']")
        assert element is not None
        for part in element.iter("body"):
            merge_primitives(part, asset)
    remove_unused(root)
    view = scene.front
    ET.SubElement(
        worldbody,
        "camera",
        name="front",
        mode="fixed",
        pos=" ".join(map(str, view.pos)),
        xyaxes=view.axes,
        fovy=str(view.fovy),
    )


def _strip_visuals(root: ET.Element) -> None:
    """Remove everything that neither collides nor weighs: visual geoms, materials, textures, unused meshes."""
    for parent in list(root.iter("body")) + root.findall("worldbody"):
        for geom in parent.findall("geom"):
            if is_visual(geom):
                parent.remove(geom)
            else:
                geom.attrib.pop("material", None)
    remove_unused(root)
