"""The doctor: what it finds, what it advises, and what it exits with."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys

import mujoco
import pytest

from reinforcegen_envs import caching, doctor
from reinforcegen_envs.doctor import Finding
from reinforcegen_envs.policies import bundle
from reinforcegen_envs.tasks import TASKS


@pytest.mark.parametrize(
    ("version", "specifier", "expected"),
    [
        ("1.2", ">=1.2,<2", True),
        ("1.2.0", ">=1.2", True),
        ("1.10", "<1.9", False),
        ("2.0", "<2,>=1.2", False),
        ("1.1.9", ">=1.2", False),
        ("1.5.2", "==1.5.*", True),
        ("1.6.0", "==1.5.*", False),
        ("3.11.7", ">=3.10,<3.12", True),
        ("3.12.0", ">=3.10, <3.12", False),
        ("2.13.0+cpu", ">=2.2,<3", True),
        ("1.0.0rc1", ">=1.0", True),
        ("1.0", "!=1.0", False),
        ("7", "", True),
    ],
)
def test_ranges_of_versions(version, specifier, expected):
    assert doctor.satisfies(version, specifier) == expected


def test_requirements_are_taken_apart():
    assert doctor._parts("gymnasium<2,>=1.2") == ("gymnasium", "<2,>=1.2", None)
    assert doctor._parts('torch<3,>=2.2; extra == "train"') == ("torch", "<3,>=2.2", "train")
    assert doctor._parts("reinforcegen-envs[render,train]; extra == 'dev'") == ("reinforcegen-envs", "", "dev")
    assert doctor._parts("llvmlite") == ("llvmlite", "", None)
    assert doctor._parts('numpy<2; python_version < "3.12" and extra == "robosuite"') == ("numpy", "<2", "robosuite")


@pytest.mark.parametrize(("marker", "counts"), [("", True), ('< "3.12"', False), ('>= "3.12"', True), ("<'4'", True)])
def test_requirements_of_other_pythons_do_not_count(monkeypatch, marker, counts):
    monkeypatch.setattr(doctor.sys, "version_info", type("Version", (tuple,), {"major": 3, "minor": 13})((3, 13, 0)))
    requirement = f'numpy<2; python_version {marker} and extra == "robosuite"' if marker else "numpy<2"
    assert doctor._for_this_python(requirement) == counts


def test_everybodys_ranges_are_checked_before_an_extras():
    """robosuite bounds MuJoCo and numpy more tightly than the package itself."""
    assert [f.status for f in doctor.check_versions() if f.name in ("mujoco", "numpy")] == ["ok", "ok"]


def test_every_declared_package_is_looked_at_once():
    names = [finding.name for finding in doctor.check_versions()]
    assert names[0] == "python" and {"mujoco", "numpy", "torch", "imageio"} <= set(names)
    assert len(set(names)) == len(names) and "pytest" not in names
    for requirement in importlib.metadata.requires(doctor.DISTRIBUTION) or []:
        allowed = doctor._parts(requirement)[1]
        assert all(
            doctor.re.fullmatch(r"(>=|<|==|!=)[0-9.]+(\.\*)?", clause) for clause in allowed.split(",") if clause
        )


def test_wrong_versions_and_missing_packages(monkeypatch):
    versions = {"numpy": "2.1.0", "torch": "1.0"}

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    wrong = doctor.check_package("numpy", ">=1.26,<2", None)
    assert wrong == Finding("numpy", "failed", "2.1.0; >=1.26,<2 is needed", "pip install 'numpy>=1.26,<2'")
    assert doctor.check_package("torch", ">=2.2", "train").status == "warning"
    missing = doctor.check_package("imageio", ">=2", "render")
    assert missing.status == "warning" and "videos and plots need it" in missing.text
    assert missing.advice == "pip install 'reinforcegen-envs[render]'"
    assert doctor.check_package("h5py", "", None).status == "failed"


def test_cores_and_threads(monkeypatch):
    monkeypatch.setattr(doctor, "usable_cores", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    for value, status in (("1", "ok"), ("2", "ok"), ("16", "warning"), ("many", "warning")):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        cores, threads = doctor.check_cores()
        assert cores.text.startswith("2 of 128 may be used") and threads.status == status
    assert "from 1 to 2" in threads.advice
    monkeypatch.delenv("OMP_NUM_THREADS")
    _, threads = doctor.check_cores()
    assert threads.status == "warning" and "128" in threads.text and threads.advice == "export OMP_NUM_THREADS=2"
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert [finding.status for finding in doctor.check_cores()] == ["ok", "ok"]


def test_caches(monkeypatch, tmp_path):
    monkeypatch.setenv(caching.VARIABLE, str(tmp_path / "cache"))
    assert [finding.status for finding in doctor.check_caches()] == ["ok", "ok"]
    (tmp_path / "file").touch()
    monkeypatch.setenv(caching.VARIABLE, str(tmp_path / "file"))
    monkeypatch.setattr(caching, "_temporary", tmp_path)
    scene, code = doctor.check_caches()
    assert scene.status == "failed" and str(tmp_path / "file") in scene.text and caching.VARIABLE in scene.advice
    assert code.status == "warning" and caching.VARIABLE in code.advice


def test_a_scene_is_loaded_and_stepped():
    (scene,) = doctor.check_scene()
    assert scene.status == "ok" and scene.text.startswith("Threading in ")
    (steps,) = doctor.check_steps(seconds=0.05)
    assert steps.status == "ok" and int(steps.text.split()[0].replace(",", "")) > 0


def test_the_weights_of_all_tasks_are_looked_at(monkeypatch, tmp_path):
    """One line for each task whose weights are missing or damaged; those of a user's own task do not come with us."""
    ours = [task for task in TASKS.values() if task.__module__.startswith("reinforcegen_envs.")]
    own = type("OwnTask", (TASKS["Threading"],), {"name": "Own", "__module__": "own"})
    monkeypatch.setitem(TASKS, "Own", own)
    weights, mujoco_version = doctor.check_weights()
    assert weights.status == mujoco_version.status == "ok" and f"{len(ours)} tasks" in weights.text

    shutil.copytree(bundle.SHIPPED, tmp_path / "weights")
    monkeypatch.setattr(bundle, "SHIPPED", tmp_path / "weights")
    (tmp_path / "weights" / "threading" / "base.safetensors").write_bytes(b"half")
    shutil.rmtree(tmp_path / "weights" / "coffee")
    *wrong, _ = doctor.check_weights()
    assert [finding.status for finding in wrong] == ["failed"] * 2
    assert {finding.text.split(":")[0] for finding in wrong} == {"Threading", "Coffee"}
    assert all("reinstall" in finding.advice for finding in wrong)


def test_weights_of_another_mujoco_are_a_warning(monkeypatch):
    monkeypatch.setattr(mujoco, "__version__", "3.3.0")
    _, finding = doctor.check_weights()
    assert finding.status == "warning" and finding.text.startswith("3.3.0") and "Threading" in finding.text
    assert finding.advice.startswith("pip install mujoco==3.")


def test_a_connect_is_tried():
    (finding,) = doctor.check_connect()
    assert finding.status == "ok" and "planned in" in finding.text


@pytest.mark.parametrize("works", [None, "egl", "osmesa"])
def test_a_setting_that_draws_is_advised(works, monkeypatch):
    monkeypatch.setattr(doctor, "try_frame", lambda backend=None: "" if backend == works and works else "no context")
    (finding,) = doctor.check_frame()
    assert finding.status == "warning" and "no context" in finding.text
    assert finding.advice == f"export MUJOCO_GL={works}" if works else "libosmesa6" in finding.advice


def test_a_check_that_breaks_is_a_finding(monkeypatch, capsys):
    def check_luck():
        raise RuntimeError("none left")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (check_luck, doctor.check_cores))
    with pytest.raises(SystemExit) as info:
        doctor.main(doctor.Args())
    out = capsys.readouterr().out.splitlines()
    assert info.value.code == 1
    assert out[0].split() == ["failed", "luck", "RuntimeError:", "none", "left"] and "-> " in out[1]
    assert any(line.startswith("ok       cores") for line in out)


def test_warnings_are_no_failure(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "CHECKS", (lambda: iter([Finding("a", "warning", "b", "c")]),))
    doctor.main(doctor.Args(json=True))
    assert json.loads(capsys.readouterr().out) == [{"name": "a", "status": "warning", "text": "b", "advice": "c"}]


def test_the_command():
    run = subprocess.run(
        [sys.executable, "-m", "reinforcegen_envs", "doctor", "--json"], capture_output=True, text=True, timeout=300
    )
    found = {finding["name"]: finding for finding in json.loads(run.stdout)}
    assert run.returncode == any(finding["status"] == "failed" for finding in found.values())
    assert {
        "python",
        "mujoco",
        "cores",
        "threads",
        "scene cache",
        "scene",
        "steps",
        "weights",
        "connect",
        "frame",
    } <= set(found)
    assert all(finding["advice"] for finding in found.values() if finding["status"] != "ok")
