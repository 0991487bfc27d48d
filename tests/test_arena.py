"""The arena that comes with the package is robosuite's, and what every MuJoCo makes of it is the same."""

import importlib.util
import xml.etree.ElementTree as ET

import mujoco
import numpy as np
import pytest

from reinforcegen_envs.demos.hdf5 import read_demos
from reinforcegen_envs.demos.replay import restore_first_state
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.models import arena, scene
from reinforcegen_envs.sim.rendering import drawn_form
from reinforcegen_envs.tasks import TASKS

needs_robosuite = pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed")
WHERE = {"paths", "npaths", "nbuffer", "mesh_pathadr", "tex_pathadr", "hfield_pathadr", "skin_pathadr"}  # of files


def different(one: mujoco.MjModel, other: mujoco.MjModel) -> list[str]:
    """The names of what differs between two models, but for the paths of files."""
    names = []
    for name in dir(one):
        if name.startswith("_") or name in WHERE or callable(mine := getattr(one, name)):
            continue
        if isinstance(mine, (np.ndarray, int, float, bytes)) and not np.array_equal(mine, getattr(other, name)):
            names.append(name)
    return names


@needs_robosuite
@pytest.mark.parametrize("form", ["physics", "light"])
@pytest.mark.parametrize("task", ["Threading", "Square", "CoffeePreparation"])  # tables of both heights, all materials
def test_scenes_equal_those_that_robosuite_builds(task, form, monkeypatch, tmp_path):
    shipped = mujoco.MjModel.from_xml_string(scene.scene_xml(TASKS[task].scene, form))
    monkeypatch.setattr(arena, "FOLDER", tmp_path)
    monkeypatch.setattr(arena, "FILE", tmp_path / "arena.xml")
    arena.ship()
    built = mujoco.MjModel.from_xml_string(scene.scene_xml(TASKS[task].scene, form))
    assert different(shipped, built) == []
    # What the comparison rests on: a millimetre would be seen.
    table = built.geom("table_collision")
    table.size[0] += 1e-3
    assert different(shipped, built) == ["geom_size"]


@needs_robosuite
def test_shipped_files_are_what_robosuite_gives(monkeypatch, tmp_path):
    ours = {path.name: path.read_bytes() for path in arena.FOLDER.iterdir() if path.suffix in (".xml", ".stl")}
    monkeypatch.setattr(arena, "FOLDER", tmp_path)
    monkeypatch.setattr(arena, "FILE", tmp_path / "arena.xml")
    arena.ship()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".xml", ".stl")} == ours


def test_options_that_versions_of_mujoco_differ_in_are_stated():
    for name, task in TASKS.items():
        option = ET.fromstring(scene.scene_xml(task.scene, "physics")).find("option")
        on = task.scene.multiccd and scene.as_in_3_9()
        switch = "enable" if on else "disable"
        assert option is not None and option.find(f"flag[@multiccd='{switch}']") is not None, name
        assert scene.OPTIONS.items() <= option.attrib.items()
        model = scene.load_scene(task.scene)
        assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_EULER and model.opt.ccd_iterations == 35
        if disable := getattr(mujoco.mjtDisableBit, "mjDSBL_MULTICCD", None):
            assert bool(model.opt.disableflags & disable) == (not on)
        else:  # before it became the default it was a flag that enables
            assert not model.opt.enableflags & mujoco.mjtEnableBit.mjENBL_MULTICCD and not on


def test_a_recorded_grasp_replays_on_every_mujoco():
    """Recorded with 3.9. Left to the default, 3.12 and later find more contacts of convex shapes, and grasp worse."""
    demo = read_demos(source_file("Threading"), "Threading")[0]
    env = ManipulationEnv("Threading", "D0")
    restore_first_state(env, demo)
    assert demo.states is not None
    contacts, away = [], []
    for action, state in zip(demo.actions, demo.states, strict=True):
        away.append(np.abs(env.get_state().simulation[1 : 1 + env.model.nq] - state[1 : 1 + env.model.nq]).max())
        env.step(action)
        contacts.append(env.data.ncon)
    assert (max(contacts), sum(contacts)) == (17, 1339)
    assert max(away) < 5e-3  # metres and radians; 0 with 3.5 to 3.9, 2e-4 with 3.11 to 3.17


def test_without_robosuite_frames_show_the_light_form(monkeypatch):
    assert drawn_form() == ("light" if importlib.util.find_spec("robosuite") is None else "rendered")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match=r"robosuite is not installed.*reinforcegen-envs\[robosuite\]"):
        assert drawn_form() == "light"


def test_without_robosuite_its_form_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "robosuite", None)
    monkeypatch.setitem(__import__("sys").modules, "robosuite.models", None)
    with pytest.raises(arena.SceneBuildError, match=r"robosuite.*cannot be imported.*\[robosuite\].*libGL"):
        scene.scene_xml(TASKS["Threading"].scene, "rendered")
