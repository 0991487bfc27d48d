"""Scenes: robosuite's Panda, mount and arena plus our objects, compiled once and kept on disk as MJB files.

A scene has three forms with the same joints and bodies: ``physics`` (no visual geoms, meshes or textures), ``rendered`` (as
robosuite draws it) and ``light`` (the robot as its collision hulls, objects and table as they look, a mesh each: what cameras see
for observations, fifty times as fast). Only building one imports robosuite; loading a cached one does not.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import logging
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from reinforcegen_envs.caching import cache_folder
from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.models.merge import FLAT, merge_primitives
from reinforcegen_envs.models.objects import Body, body_element

FORMS = ("physics", "rendered", "light")
DRAWN, HIDDEN = 1, 5  # groups of geoms: what is drawn, and what a picture leaves out; group 0 collides
TABLE_SIZE = (0.8, 0.8, 0.05)
TABLE_FRICTION = (1.0, 0.005, 1e-4)
# Texture files of robosuite's arena assets, used by the rendered form alone.
MATERIALS = {
    "wood_light": "light-wood.png",
    "wood_dark": "dark-wood.png",
    "wood_red": "red-wood.png",
    "brass": "brass-ambra.png",
    "ceramic": "ceramic.png",
    "steel": "steel-scratched.png",
}


# A camera for tasks that robosuite's agentview would crop: MimicGen's, position and quaternion.
AGENTVIEW_FULL = (0.753, 0.0, 1.519), (0.64324, 0.29367, 0.29367, 0.64324)


# The light form's robot, by parts of geoms' names: robosuite's white arm and hand, grey fingers.
LIGHT_COLOURS = {
    "robot0_link": "0.9 0.9 0.9 1",
    "gripper0_right_hand": "0.9 0.9 0.9 1",
    "gripper0_right_finger": "0.35 0.35 0.35 1",
}


TEXTURE_SIZE = 256  # pixels a side, of the light form's; in observations objects are far smaller
SMALL, RAW = ".small", "image/vnd.mujoco.texture"  # ending of their names, and MuJoCo's name of their format


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


class SceneCacheError(ReinforceGenError, RuntimeError):
    """The compiled-scene cache cannot be written."""


class SceneBuildError(ReinforceGenError, RuntimeError):
    """A scene that is not cached yet cannot be built."""


@dataclass(frozen=True)
class Scene:
    """What a task puts on robosuite's table.

    Args:
        name: cache name, one a task.
        bodies: the task's objects.
        table_height: z of the table top, metres, world frame.
        front: the front camera of observations.
    """

    name: str
    bodies: tuple[Body, ...]
    table_height: float = 0.8
    front: View = FRONT


def _cache_file(scene: Scene, form: str) -> Path:
    sources = [Path(__file__).with_name(name) for name in ("scene.py", "objects.py", "merge.py")]
    digest = hashlib.sha256(repr(scene).encode())
    for source in sources:
        digest.update(source.read_bytes())
    digest.update(importlib.metadata.version("robosuite").encode())
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
        SceneBuildError: the scene is not cached and robosuite cannot be imported.
    """
    if form not in FORMS:
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
    model = mujoco.MjModel.from_xml_string(xml, _small_textures(xml))
    try:
        with atomic_path(path) as temporary:
            mujoco.mj_saveModel(model, str(temporary), None)
    except OSError as error:
        raise SceneCacheError(
            f"cannot write the compiled scene {path} ({error.strerror or error}); "
            "make that folder writable, or set REINFORCEGEN_CACHE to one that is"
        ) from error
    return model


@contextlib.contextmanager
def _quiet_import() -> Iterator[None]:
    """Import robosuite inside the block without what its import leaves behind.

    It prints advice, and sets MUJOCO_GL to "egl" for this process and its children, whose ``import mujoco``
    then fails where there is no EGL.

    Raises:
        SceneBuildError: robosuite cannot be imported.
    """
    variable = "MUJOCO_GL"
    before, log_level = os.environ.get(variable), logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    except ImportError as error:
        raise SceneBuildError(
            f"robosuite, which scenes are built from, cannot be imported: {error}. It needs OpenCV, and that "
            "the library libGL.so.1, even where nothing is rendered (Debian, Ubuntu: apt-get install libgl1)"
        ) from error
    finally:
        logging.disable(log_level)
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before


def scene_xml(scene: Scene, form: str) -> str:
    """MJCF text of a scene in one of its forms. Imports robosuite."""
    with _quiet_import():
        from robosuite.models import assets_root
        from robosuite.models.arenas import TableArena
        from robosuite.models.bases import RethinkMount
        from robosuite.models.grippers import PandaGripper
        from robosuite.models.robots import Panda
        from robosuite.models.tasks import ManipulationTask

    robot = Panda(idn=0)
    robot.add_base(RethinkMount(idn=0))
    # robosuite itself names grippers so, though it declares a number.
    gripper = PandaGripper(idn="0_right")  # pyright: ignore[reportArgumentType]
    robot.add_gripper(gripper, robot.eef_name["right"])
    robot.set_base_xpos(robot.base_xpos_offset["table"](TABLE_SIZE[0]))
    arena = TableArena(TABLE_SIZE, TABLE_FRICTION, (0, 0, scene.table_height))
    arena.set_origin([0, 0, 0])
    root = ET.fromstring(ManipulationTask(arena, [robot], []).get_xml())
    worldbody, asset = root.find("worldbody"), root.find("asset")
    assert worldbody is not None and asset is not None
    for body in list(worldbody.findall("body")):
        if body.get("mocap") == "true":  # robosuite's markers for end-effector targets
            worldbody.remove(body)
    for element in root.findall("sensor"):  # force sensors cost an inverse-dynamics pass a step; nothing reads them
        root.remove(element)
    for element in root.findall("size"):  # njmax, nconmax 5000 reserve gigabytes of address space an MjData
        root.remove(element)
    for name, file in MATERIALS.items():
        texture = str(Path(assets_root) / "textures" / file)
        ET.SubElement(asset, "texture", name=f"tex_{name}", type="cube", file=texture)
        ET.SubElement(asset, "material", name=name, texture=f"tex_{name}", specular="0.2", shininess="0.1")
    for body in scene.bodies:
        worldbody.append(body_element(body))
    if form == "physics":
        _strip_visuals(root, asset)
    elif form == "light":
        _lighten(root, asset, scene)
    position, quat = (" ".join(map(str, numbers)) for numbers in AGENTVIEW_FULL)
    ET.SubElement(worldbody, "camera", name="agentview_full", mode="fixed", pos=position, quat=quat)
    return ET.tostring(root, encoding="unicode")


def _small_textures(xml: str) -> dict[str, bytes]:
    """The files that the light form's textures name: robosuite's pictures, made small, as MuJoCo's raw format holds them."""
    names = {texture.get("file", "") for texture in ET.fromstring(xml).iter("texture")}
    files = {}
    for name in names:
        if name.endswith(SMALL):
            with _quiet_import():
                from PIL import Image
                from robosuite.models import assets_root
            picture = Image.open(Path(assets_root) / "textures" / name.removesuffix(SMALL)).convert("RGB")
            picture = picture.resize((TEXTURE_SIZE, TEXTURE_SIZE), Image.Resampling.BOX)
            files[name] = np.array(picture.size, np.int32).tobytes() + np.asarray(picture).tobytes()
    return files


def _lighten(root: ET.Element, asset: ET.Element, scene: Scene) -> None:
    """Leave of what is drawn the objects, the table and, as collision hulls, the robot; add the front camera.

    Objects and table become one mesh for each body and material (`merge_primitives`), with small textures: a drawing
    context holds its own, and with robosuite's takes 150 MB.
    """
    worldbody = root.find("worldbody")
    assert worldbody is not None
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
                if geom.get("contype") == "0" and geom.get("conaffinity") == "0":
                    parent.remove(geom)
    for material in list(asset.findall("material")):
        texture = asset.find(f"texture[@name='{material.get('texture')}']")
        if texture is not None and texture.get("type") == "cube" and "file" in texture.attrib:
            name, file = texture.get("name", "") + FLAT, Path(texture.get("file", "")).name
            ET.SubElement(asset, "texture", name=name, type="2d", file=file + SMALL, content_type=RAW)
            ET.SubElement(
                asset, "material", {**material.attrib, "name": material.get("name", "") + FLAT, "texture": name}
            )
    for name in ("table", *(body.name for body in scene.bodies)):
        element = worldbody.find(f"body[@name='{name}']")
        assert element is not None
        for part in element.iter("body"):
            merge_primitives(part, asset)
    for kind in ("material", "mesh"):
        used = {geom.get(kind) for geom in root.iter("geom")}
        for element in asset.findall(kind):
            if element.get("name") not in used:
                asset.remove(element)
    textures = {material.get("texture") for material in asset.findall("material")}
    for element in asset.findall("texture"):
        if element.get("name") not in textures:
            asset.remove(element)
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


def _strip_visuals(root: ET.Element, asset: ET.Element) -> None:
    """Remove everything that neither collides nor weighs: visual geoms, materials, textures, unused meshes."""
    for parent in list(root.iter("body")) + root.findall("worldbody"):
        for geom in parent.findall("geom"):
            if geom.get("contype") == "0" and geom.get("conaffinity") == "0":
                parent.remove(geom)
            else:
                geom.attrib.pop("material", None)
    meshes = {geom.get("mesh") for geom in root.iter("geom")}
    for element in list(asset):
        if element.tag != "mesh" or element.get("name") not in meshes:
            asset.remove(element)
