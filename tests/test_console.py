"""The console script: its commands, their help and shared arguments, `list`, and the steps of `pipeline`."""

from __future__ import annotations

import configparser
import dataclasses
import importlib
import json
import shlex
import subprocess
import sys
import types
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest
from helpers import registrations_undone

from reinforcegen_envs import cli, commands
from reinforcegen_envs.agents import pipeline, termination
from reinforcegen_envs.ids import MODES
from reinforcegen_envs.policies import bundle
from reinforcegen_envs.registration import register_task
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.tasks.threading import ThreadingTask

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "robosuite", "pybullet")
LINES = [[name] for name in commands.COMMANDS if name != "tune"]
LINES += [["tune", "--algorithm", name] for name in commands.ALGORITHMS]
MODULES = [module for module, _ in commands.COMMANDS.values() if module]
MODULES += [f"reinforcegen_envs.agents.{name}_residual" for name in commands.ALGORITHMS]
# The kind of what an argument names is the same in every command.
KINDS = {
    "task": str, "variant": str, "stage": str, "env_id": str, "source": Path, "weights": Path, "out": Path,
    "data": tuple[Path, ...], "workers": int, "count": int, "episodes": int, "seeds": int, "seed": int,
    "pose_noise": tuple[float, float], "start_noise": tuple[float, float], "quiet": bool, "json": bool,
}  # fmt: skip


def run(monkeypatch, capsys, *words):
    """``reinforcegen words`` in this process; returns exit status, standard output and error."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/reinforcegen", *map(str, words)])
    code: Any = 0
    try:
        commands.main()
    except SystemExit as exit:
        code = exit.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def own_task():
    """A task with variants of its own."""
    places = ThreadingTask.variants["D0"]
    task = type("OwnTask", (ThreadingTask,), {"name": "Own", "variants": {"Near": places, "Far": places}})
    task.__module__ = __name__
    with registrations_undone():
        yield register_task(task)


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_every_command_has_help_with_an_example(words, monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, *words, "--help")
    assert (code, err) == (0, "")
    assert f"usage: reinforcegen {' '.join(words)}" in out and "--task-module" in out
    example = out.split("Example:")[1].split("╭")[0].replace("│", " ")
    assert f"reinforcegen {' '.join(words)} --" in " ".join(example.split())


def test_tune_s_help_says_which_algorithms_there_are(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "tune", "--help")
    assert code == 0 and "--algorithm {td3,ppo}" in out and "--critic-only-updates" in out
    code, out, _ = run(monkeypatch, capsys, "tune", "--algorithm=ppo", "--help")
    assert code == 0 and "--algorithm {td3,ppo}" in out and "--gae-lambda" in out


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_alone_it_prints_its_commands_a_line_each(words, monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, *words)
    assert (code, err) == (0, "")
    for name, (_, text) in commands.COMMANDS.items():
        assert out.count(text) == 1 and any(line.split() == [name, *text.split()] for line in out.splitlines())


def test_an_unknown_command_is_one_line_with_what_is_allowed(monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, "train", "--seed", "1")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: unknown command 'train'") and all(name in err for name in commands.COMMANDS)


def test_an_unknown_algorithm_is_refused(monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, "tune", "--algorithm", "sac")
    assert (code, out) == (2, "") and "'sac'" in err and all(name in err for name in commands.ALGORITHMS)


@pytest.mark.parametrize("words", [["--help"], ["list"]])
def test_what_a_command_does_not_need_is_not_imported(words):
    code = f"""
import sys
from reinforcegen_envs import commands
sys.argv = ["reinforcegen", *{words}]
commands.main()
print([name for name in {HEAVY} if name in sys.modules])
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.splitlines()[-1] == "[]"


def test_it_runs_as_a_module_and_is_installed_as_a_script():
    process = subprocess.run([sys.executable, "-m", "reinforcegen_envs"], capture_output=True, text=True)
    assert process.returncode == 0 and process.stdout == commands.usage() + "\n"
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    scripts = config["options.entry_points"]["console_scripts"].strip()
    assert scripts == f"{cli.SCRIPT} = {commands.__name__}:{commands.main.__name__}"


# --- arguments ---


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
    args_class = importlib.import_module(name).Args
    hints = get_type_hints(args_class, include_extras=True)
    for field in dataclasses.fields(args_class):
        if field.name in KINDS:
            assert kind_of(hints[field.name]) == KINDS[field.name], field.name
    names = set(hints)
    assert "workers" not in names or "quiet" in names, "what takes long shows a bar, which can be silenced"


# --- list ---


def test_list_as_json_says_what_there_is(monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, "list", "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    found = json.loads(out)
    assert set(found) == set(TASKS)
    for name, task in found.items():
        assert task["variants"] == list(TASKS[name].variants)
        assert task["stages"] == [stage.name for stage in TASKS[name].stages]
        assert len(task["ids"]) == len(MODES) and all(len(ids) == len(task["variants"]) for ids in task["ids"].values())
    assert found["Threading"]["ids"]["plain"][0] == "ReinforceGen/D0-Threading-v0"
    assert found["Threading"]["ids"]["Skill"][2] == "ReinforceGen/D2-Threading-Skill-v0"
    tuned = found["Threading"]["weights"]["residual-insert"]["as trained"]
    assert tuned["interval"][0] <= tuned["success"] <= tuned["interval"][1]


def test_list_prints_one_task_s_ids_mode_by_mode(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "list", "--task", "Threading")
    assert code == 0 and "grasp > insert" in out and "Coffee" not in out
    for suffix in ("", "-Hybrid", "-Skill", "-Residual"):
        assert f"ReinforceGen/{{D0,D1,D2}}-Threading{suffix}-v0" in out


def test_list_knows_a_task_without_weights(own_task, monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "list", "--task", "Own", "--json")
    assert code == 0 and json.loads(out)["Own"]["weights"] == {}


def test_list_does_not_call_damaged_weights_none(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bundle, "SHIPPED", tmp_path)
    (tmp_path / "threading").mkdir()
    (tmp_path / "threading" / "base.safetensors").write_bytes(b"cut off")
    code, _, err = run(monkeypatch, capsys, "list", "--task", "Threading")
    assert code == 2 and err.startswith("error: ") and "base.safetensors" in err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--task", "Origami"], ["'Origami'", "Threading"]),
        (["--weights", "weights"], ["--task"]),
        (["--task", "Threading", "--weights", "nowhere"], ["no weights folder nowhere"]),
    ],
)
def test_list_says_in_one_line_what_is_wrong(words, parts, monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, "list", *words)
    assert (code, out, err.count("\n")) == (2, "", 1) and all(part in err for part in parts)


# --- pipeline ---


@pytest.fixture
def steps(monkeypatch):
    """Name -> command line of what the pipeline would run, with nothing run."""
    ran: dict[str, list[str]] = {}

    def note(self, name, command):
        ran[name] = command
        (self.out / "weights").mkdir(exist_ok=True)
        result = {"success": 0.5, "interval": [0.4, 0.6], "stages": {}, "failures": {}}
        (self.out / f"{name}.log").write_text(json.dumps(result))

    monkeypatch.setattr(pipeline.Steps, "run", note)
    return ran


def test_the_pipeline_s_steps_are_commands_that_are_accepted(steps, monkeypatch, tmp_path):
    pipeline.main(pipeline.Args(out=tmp_path, source=Path("own.hdf5"), other_demos=5, pool=3))
    pools = [f"pool-{stage}-{kind}" for stage in ("grasp", "insert") for kind in ("train", "held-out")]
    assert list(steps) == [
        "generate-D0", "generate-D1", "generate-D2", "bc", "evaluate-base", "evaluate-base-noise",
        *pools[:2], "td3-grasp", *pools[2:], "td3-insert", "termination", "evaluate-tuned", "evaluate-tuned-noise",
    ]  # fmt: skip
    parsed = {}
    for name, (flag, module, *words) in steps.items():
        monkeypatch.setattr(sys, "argv", [module, *words])
        module = "reinforcegen_envs.evaluation.command" if module == "reinforcegen_envs.evaluate" else module
        parsed[name] = cli.parse(importlib.import_module(module).Args)
        assert flag == "-m", shlex.join(words)
    assert parsed["generate-D1"].source == parsed["bc"].source == Path("own.hdf5")
    assert {args.weights for args in parsed.values() if hasattr(args, "weights")} == {tmp_path / "weights"}
    assert [parsed[name].policy for name in ("evaluate-base", "evaluate-tuned")] == ["base", "tuned"]
    assert [parsed[name].count for name in pools] == [3, 1, 3, 1]
    assert json.loads((tmp_path / "weights" / "evaluation.json").read_text())["tuned"]["success"] == 0.5


def test_the_pipeline_without_residual_rl_ends_after_imitation(steps, tmp_path):
    pipeline.main(pipeline.Args(out=tmp_path, td3_steps=0))
    assert list(steps) == ["generate-D2", "bc", "evaluate-base", "evaluate-base-noise"]


def test_the_pipeline_takes_a_task_with_variants_of_its_own(own_task, steps, tmp_path):
    pipeline.main(pipeline.Args(task="Own", variant="Far", other_demos=5, td3_steps=0, out=tmp_path))
    assert [name for name in steps if name.startswith("generate")] == ["generate-Near", "generate-Far"]
    with pytest.raises(ValueError, match=r"'D2'.*'Near', 'Far'"):
        pipeline.main(pipeline.Args(task="Own", out=tmp_path))


def test_a_failed_step_is_one_error_that_shows_the_end_of_its_log(tmp_path):
    failing = pipeline.Steps(tmp_path)
    with pytest.raises(pipeline.StepError, match=r"step bad failed; .*bad\.log ends with:\nout of cubes"):
        failing.run("bad", ["-c", "raise SystemExit('out of cubes')"])
    assert failing.seconds == {} and not failing.file.exists()


def test_termination_plays_on_all_variants_of_the_task_unless_some_are_named(own_task, monkeypatch, tmp_path):
    made: list[str] = []
    monkeypatch.setattr(termination, "make_env", lambda task, variant, mode, **kwargs: made.append(variant))
    termination.Player(termination.Args(tmp_path, ()), own_task)
    assert made == ["Near", "Near", "Far", "Far"], "with starts as planned and with noisy ones"
    made.clear()
    termination.Player(termination.Args(tmp_path, (), variants=("Far",)), own_task)
    assert made == ["Far", "Far"]
