"""The console script: one name for every command, loaded when it is chosen, the same names for the same arguments."""

import configparser
import dataclasses
import importlib
import os
import re
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Annotated, Union, get_args, get_origin, get_type_hints

import pytest

from reinforcegen_envs import cli, commands
from reinforcegen_envs.commands import ALGORITHMS, COMMANDS

# Name of an argument -> commands that must have it.
SHARED = {
    "task": (
        "collect",
        "generate",
        "pool",
        "tune",
        "foresight",
        "perceive",
        "evaluate",
        "submit",
        "export",
        "pipeline",
        "list",
    ),
    "variant": ("collect", "generate", "pool", "tune", "foresight", "perceive", "evaluate", "submit", "pipeline"),
    "stage": ("pool", "tune", "evaluate"),
    "weights": ("pool", "tune", "termination", "foresight", "perceive", "evaluate", "submit", "export", "list"),
    "data": ("clone", "termination", "merge"),
    "out": ("collect", "generate", "clone", "pool", "submit", "export", "pipeline", "merge"),
    "shard": ("generate", "evaluate"),
    "ray": ("generate", "perceive", "evaluate"),
    "workers": ("generate", "clone", "pool", "termination", "foresight", "perceive", "evaluate", "submit"),
    "seed": (
        "collect",
        "generate",
        "clone",
        "pool",
        "tune",
        "termination",
        "foresight",
        "perceive",
        "evaluate",
        "pipeline",
    ),
    "pose-noise": ("pool", "tune", "termination", "foresight", "evaluate"),
    "episodes": ("termination", "foresight", "perceive", "evaluate", "submit", "pipeline"),
    "quiet": (
        "collect",
        "generate",
        "clone",
        "pool",
        "tune",
        "termination",
        "foresight",
        "perceive",
        "evaluate",
        "submit",
    ),
    "task-module": tuple(COMMANDS),
}


def run(monkeypatch, capsys, *words):
    """Run ``reinforcegen words`` in this process; returns exit status, standard output and error."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/reinforcegen", *words])
    code = 0
    try:
        commands.main()
    except SystemExit as exit:
        code = exit.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def help_of(monkeypatch, capsys, *words):
    if words[0] in ("clone", "tune", "termination", "foresight", "perceive"):
        pytest.importorskip("torch")
    code, out, _ = run(monkeypatch, capsys, *words, "--help")
    assert code == 0
    return out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_and_the_shared_names(name, monkeypatch, capsys):
    out = help_of(monkeypatch, capsys, name)
    assert f"usage: reinforcegen {name}" in out
    example = re.search(rf"Example:\s+(reinforcegen {name}( .*)?)\n", out)
    assert example, out
    for argument, having in SHARED.items():
        if name in having:
            assert re.search(rf"--{argument}[ ,]", out), f"{name} lacks --{argument}"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_tune_takes_an_algorithm(algorithm, monkeypatch, capsys):
    for words in (["--algorithm", algorithm], [f"--algorithm={algorithm}"]):
        out = help_of(monkeypatch, capsys, "tune", *words)
        assert f"usage: reinforcegen tune --algorithm {algorithm}" in out
        assert out.startswith("--algorithm {td3,ppo,drqv2} chooses")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["cook"], ["unknown command 'cook'", "list, doctor, collect"]),
        (["tune", "--algorithm", "sac"], ["'sac'", "td3", "ppo"]),
        (["list", "--task", "Origami"], ["'Origami'", "'Threading'"]),
        (["list", "--weights", "x"], ["--task"]),
        (["list", "--task", "Threading", "--weights", "nowhere"], ["no weights folder nowhere"]),
        (["pool", "--task", "Origami"], ["'Origami'", "'Threading'"]),
        (["evaluate", "--task", "Threading", "--variant", "D9"], ["D9-Threading", "D0, D1, D2"]),
        (["submit", "--task", "Origami", "--method", "X"], ["'Origami'", "'Threading'", "authors is empty"]),
        (["submit", "--reproduce", "nowhere.json", "--by", "X"], ["nowhere.json cannot be read"]),
        (["export", "--task", "Origami"], ["'Origami'", "'Threading'"]),
        (["pipeline", "--task", "Origami"], ["'Origami'", "'Threading'"]),
        (["pipeline", "--seed", "-1", "--demos", "0"], ["seed is -1", "demos is 0"]),
        (["pipeline", "--out", __file__], ["is a file, not a folder"]),
        (["generate", "--task-module", "nowhere.py"], ["no file nowhere.py"]),
    ],
)
def test_bad_input_is_one_line(words, parts, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(monkeypatch, capsys, *words)
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith("error: "), err
    for part in parts:
        assert part in err
    assert list(tmp_path.iterdir()) == []


def test_without_a_command_there_is_a_list_of_them(monkeypatch, capsys):
    for words in ([], ["--help"]):
        code, out, _ = run(monkeypatch, capsys, *words)
        assert code == 0 and all(f"  {name}" in out for name in COMMANDS)


def test_a_missing_optional_package_is_named_with_its_extra(monkeypatch, capsys):
    # That module alone: a package imported a second time would stay in the place of the one other tests know.
    monkeypatch.delitem(sys.modules, "reinforcegen_envs.agents.bc", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = run(monkeypatch, capsys, "clone", "--data", "x")
    assert code == 2
    assert err == ("error: torch is not installed, and this command needs it: pip install 'reinforcegen-envs[train]'\n")
    assert not cli.is_users(ModuleNotFoundError("no module", name="nonexistent"))


def test_listing_needs_neither_torch_nor_robosuite():
    code = (
        "import sys; from reinforcegen_envs import commands; sys.argv = ['reinforcegen', 'list', '--task', 'Coffee'];"
        "commands.main(); print(sorted({'torch', 'robosuite', 'h5py'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0].startswith("Coffee: D0, D1, D2") and lines[-1] == "[]"


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-u", "-m", "reinforcegen_envs", "list"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ))
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 141


STEP = """
import pathlib, signal, sys, time
def stop(*_):
    pathlib.Path("cleaned").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
pathlib.Path("begun").touch()
time.sleep(60)
"""
PIPELINE = """
import sys
from reinforcegen_envs import cli
from reinforcegen_envs.agents.steps import call
with cli.one_line_errors(), open("log", "w") as log:
    call([sys.executable, "step.py"], log)
"""


def test_a_stopped_pipeline_lets_its_step_clean_up(tmp_path):
    (tmp_path / "step.py").write_text(STEP)
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    command = [sys.executable, "-c", PIPELINE]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    process.terminate()
    _, err = process.communicate(timeout=10)
    assert process.returncode == 143 and err == "terminated\n"
    assert (tmp_path / "cleaned").exists()


def test_it_runs_as_a_module_and_is_installed_as_a_script():
    process = subprocess.run([sys.executable, "-m", "reinforcegen_envs"], capture_output=True, text=True)
    assert process.returncode == 0 and process.stdout == commands.usage() + "\n"
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[1] / "setup.cfg")
    scripts = config["options.entry_points"]["console_scripts"].strip()
    assert scripts == f"{cli.SCRIPT} = {commands.__name__}:{commands.main.__name__}"


MODULES = [module for module, _ in COMMANDS.values() if module]
MODULES += [f"reinforcegen_envs.agents.{name}_residual" for name in ALGORITHMS]
# The kind of what an argument names is the same in every command.
KINDS = {
    "task": str, "variant": str, "stage": str, "env_id": str, "source": Path, "weights": Path, "out": Path,
    "data": tuple[Path, ...], "workers": int, "count": int, "episodes": int, "seeds": int, "seed": int, "shard": str, "ray": str,
    "pose_noise": tuple[float, float], "start_noise": tuple[float, float], "quiet": bool, "json": bool,
}  # fmt: skip


def kind_of(annotation):
    """What an annotation says of a value, without its range and without None."""
    origin, parameters = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind_of(parameters[0])
    if origin in (Union, types.UnionType):
        (something,) = (parameter for parameter in parameters if parameter is not types.NoneType)
        return kind_of(something)
    return tuple[tuple(p if p is ... else kind_of(p) for p in parameters)] if origin is tuple else annotation  # type: ignore[misc]


@pytest.mark.parametrize("name", MODULES)
def test_an_argument_means_the_same_in_every_command(name):
    if ".agents." in name:
        pytest.importorskip("torch")
    args_class = importlib.import_module(name).Args
    hints = get_type_hints(args_class, include_extras=True)
    for field in dataclasses.fields(args_class):
        if field.name in KINDS:
            several = (tuple[str, ...],) if field.name == "variant" else ()  # reset ranges that are played in turn
            assert kind_of(hints[field.name]) in (KINDS[field.name], *several), field.name
    names = set(hints)
    assert "workers" not in names or "quiet" in names, "what takes long shows a bar, which can be silenced"
