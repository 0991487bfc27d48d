"""Bad input to ids, environments, weights and commands: one clear error that names what is allowed."""

import runpy
import sys

import pytest

# --- commands ---

COMMANDS = (
    "reinforcegen_envs.evaluate",
    "reinforcegen_envs.demos.generate",
    "reinforcegen_envs.demos.collect",
    "reinforcegen_envs.wrappers.fill_pool",
    "reinforcegen_envs.agents.bc",
    "reinforcegen_envs.agents.td3_residual",
    "reinforcegen_envs.agents.ppo_residual",
)


def command(monkeypatch, capsys, module, *options):
    """Run ``python -m module options`` in this process; returns exit status, standard output and error."""
    monkeypatch.setattr(sys, "argv", [module, *map(str, options)])
    monkeypatch.delitem(sys.modules, module, raising=False)  # else runpy warns that it is imported already
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    captured = capsys.readouterr()
    return exit_info.value.code, captured.out, captured.err


@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_has_help(module, monkeypatch, capsys):
    code, out, _ = command(monkeypatch, capsys, module, "--help")
    assert code == 0 and "--seed" in out


@pytest.mark.parametrize(
    ("module", "options", "parts"),
    [
        ("evaluate", ["--env-id", "ReinforceGen/D9-Threading-Hybrid-v0"], ["D9-Threading-Hybrid", "unknown id"]),
        ("evaluate", ["--env-id", "ReinforceGen/D2-Threading-v0"], ["no hybrid control", "Residual"]),
        ("evaluate", ["--policy", "nowhere.safetensors"], ["no weights file nowhere.safetensors"]),
        ("evaluate", ["--policy", "base", "--stage", "polish"], ["'polish'", "['grasp', 'insert']"]),
        ("evaluate", ["--policy", "base", "--termination", "soon"], ["'soon'", "predicate", "predictor"]),
        ("evaluate", ["--policy", "base", "--episodes", "0"], ["episodes is 0", "at least 1"]),
        ("evaluate", ["--policy", "base", "--workers", "-1"], ["workers is -1", "at least 0"]),
        ("demos.generate", ["--task", "Origami"], ["'Origami'", "['Threading']"]),
        ("demos.generate", ["--variant", "D9"], ["'D9'", "['D0', 'D1', 'D2']"]),
        ("demos.generate", ["--source", "nowhere.hdf5"], ["nowhere.hdf5", "name a file that exists"]),
        ("demos.generate", ["--count", "0"], ["count is 0", "at least 1"]),
        ("demos.collect", ["--task", "Origami"], ["'Origami'", "['Threading']"]),
        ("demos.collect", ["--count", "0"], ["count is 0", "at least 1"]),
        ("wrappers.fill_pool", ["--stage", "polish"], ["'polish'", "['grasp', 'insert']"]),
        ("wrappers.fill_pool", ["--count", "0"], ["count is 0", "at least 1"]),
        ("agents.bc", ["--data", "nowhere.hdf5"], ["nowhere.hdf5", "name a file that exists"]),
        ("agents.td3_residual", ["--env-id", "ReinforceGen/D2-Threading-Residal-v0"], ["doesn't exist"]),
        ("agents.ppo_residual", ["--stage", "polish"], ["'polish'", "['grasp', 'insert']"]),
        ("agents.td3_residual", ["--resume"], ["no checkpoint", "without --resume"]),
    ],
)
def test_a_command_says_in_one_line_what_is_wrong(
    module, options, parts, weights, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    if module in ("evaluate", "wrappers.fill_pool") or module.endswith("_residual"):
        options = [*options, "--weights", weights]
    code, _, err = command(monkeypatch, capsys, f"reinforcegen_envs.{module}", *options)
    lines = err.strip().splitlines()
    assert code == 2 and len(lines) == 1 and lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]
    assert not list(tmp_path.iterdir()), "something was written"
