"""What every scene stands on: robosuite's table arena with its Panda on a mount.

`shipped_arena` is what collides and weighs, and the table as it looks: MJCF in `models/panda/`, with the meshes and small
pictures that it names. ``python -m reinforcegen_envs.models.arena`` writes it with robosuite, `tests/test_arena.py` compares.
`robosuite_arena` is all of it, with what only pictures of full quality need: it imports robosuite.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from reinforcegen_envs.errors import ReinforceGenError
from reinforcegen_envs.files import atomic_path

FOLDER = Path(__file__).with_name("panda")
FILE = FOLDER / "arena.xml"
TABLE_SIZE = (0.8, 0.8, 0.05)
TABLE_FRICTION = (1.0, 0.005, 1e-4)
HEIGHT = 0.8  # metres, of the table top in the file
TEXTURE_SIZE = 256  # pixels a side, of the shipped pictures; in observations objects are far smaller
# Materials of objects, and their pictures among robosuite's assets.
MATERIALS = {
    "wood_light": "light-wood.png",
    "wood_dark": "dark-wood.png",
    "wood_red": "red-wood.png",
    "brass": "brass-ambra.png",
    "ceramic": "ceramic.png",
    "steel": "steel-scratched.png",
}


class SceneBuildError(ReinforceGenError, RuntimeError):
    """A scene cannot be built without robosuite, and that is not here."""


def shipped_arena(height: float) -> ET.Element:
    """The MJCF that comes with the package: no visual geoms but the table's.

    Args:
        height: z of the table top, metres, world frame.
    """
    root = ET.parse(FILE).getroot()
    for element in root.iter():
        if "file" in element.attrib:
            element.set("file", str(FOLDER / element.attrib["file"]))
    table = root.find("worldbody/body[@name='table']")
    assert table is not None
    table.set("pos", f"0.0 0.0 {height - TABLE_SIZE[2] / 2}")
    _add_materials(root, FOLDER)
    return root


def robosuite_arena(height: float) -> ET.Element:
    """The MJCF as robosuite builds it, with all visual geoms and its own pictures.

    Args:
        height: z of the table top, metres, world frame.

    Raises:
        SceneBuildError: robosuite cannot be imported.
    """
    with quiet_import():
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
    arena = TableArena(TABLE_SIZE, TABLE_FRICTION, (0, 0, height))
    arena.set_origin([0, 0, 0])
    root = ET.fromstring(ManipulationTask(arena, [robot], []).get_xml())
    worldbody = root.find("worldbody")
    assert worldbody is not None
    for body in list(worldbody.findall("body")):
        if body.get("mocap") == "true":  # robosuite's markers for end-effector targets
            worldbody.remove(body)
    for element in root.findall("sensor"):  # force sensors cost an inverse-dynamics pass a step; nothing reads them
        root.remove(element)
    for element in root.findall("size"):  # njmax, nconmax 5000 reserve gigabytes of address space an MjData
        root.remove(element)
    _add_materials(root, Path(assets_root) / "textures")
    return root


def robosuite_version() -> str:
    """The version of robosuite that is installed.

    Raises:
        SceneBuildError: none is.
    """
    with quiet_import():
        return importlib.metadata.version("robosuite")


def _add_materials(root: ET.Element, folder: Path) -> None:
    asset = root.find("asset")
    assert asset is not None
    for name, file in MATERIALS.items():
        ET.SubElement(asset, "texture", name=f"tex_{name}", type="cube", file=str(folder / file))
        ET.SubElement(asset, "material", name=name, texture=f"tex_{name}", specular="0.2", shininess="0.1")


def is_visual(geom: ET.Element) -> bool:
    """Whether a geom neither collides nor weighs."""
    return geom.get("contype") == "0" and geom.get("conaffinity") == "0"


def remove_unused(root: ET.Element) -> None:
    """Remove the meshes, materials and textures that nothing names."""
    asset = root.find("asset")
    assert asset is not None
    for kind, users in (
        ("mesh", root.iter("geom")),
        ("material", root.iter("geom")),
        ("texture", asset.iter("material")),
    ):
        used = {user.get(kind) for user in users}
        for element in asset.findall(kind):
            if element.get("name") not in used:
                asset.remove(element)


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
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
            f"robosuite, which this form of the scene is built from, cannot be imported: {error}. Install it (Python 3.10 or "
            "3.11: pip install 'reinforcegen-envs[robosuite]'); it needs OpenCV, and that the library libGL.so.1 "
            "(Debian, Ubuntu: apt-get install libgl1)"
        ) from error
    finally:
        logging.disable(log_level)
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before


def ship() -> None:
    """Write the arena, its meshes and small pictures, from robosuite's.

    Raises:
        SceneBuildError: robosuite cannot be imported.
    """
    from PIL import Image

    root = robosuite_arena(HEIGHT)
    pictures = {Path(texture.get("file", "")) for texture in root.iter("texture") if texture.get("file")}
    for parent in list(root.iter()):
        for geom in parent.findall("geom"):
            if geom.get("name") != "table_visual":
                geom.attrib.pop("material", None)
                if is_visual(geom):
                    parent.remove(geom)
    ours = {path.name: path for path in pictures if path.name in MATERIALS.values()}
    remove_unused(root)  # MATERIALS among them: `shipped_arena` adds them
    FOLDER.mkdir(exist_ok=True)
    for element in root.iter():
        if "file" in element.attrib:
            source = Path(element.attrib["file"])
            element.set("file", source.name)
            if element.tag == "mesh":
                shutil.copyfile(source, FOLDER / source.name)
            else:
                ours[source.name] = source
    for name, source in ours.items():
        picture = Image.open(source).convert("RGB").resize((TEXTURE_SIZE, TEXTURE_SIZE), Image.Resampling.BOX)
        picture.save(FOLDER / name, optimize=True)
    ET.indent(root)
    with atomic_path(FILE) as temporary:
        temporary.write_text(ET.tostring(root, encoding="unicode") + "\n")


if __name__ == "__main__":
    ship()
