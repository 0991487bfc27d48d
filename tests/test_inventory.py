"""``reinforcegen list``: tasks, ids mode by mode, and weights with their recorded success."""

import json
import sys

from reinforcegen_envs import inventory
from reinforcegen_envs.ids import MODES
from reinforcegen_envs.policies import bundle
from reinforcegen_envs.tasks import TASKS


def run(monkeypatch, capsys, *words):
    """``reinforcegen list`` in this process; returns exit status, standard output and error."""
    monkeypatch.setattr(sys, "argv", ["reinforcegen list", *words])
    code = 0
    try:
        inventory.command()
    except SystemExit as exit:
        code = exit.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_list_as_json_says_what_there_is(monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, "--json")
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
    code, out, _ = run(monkeypatch, capsys, "--task", "Threading")
    assert code == 0 and "grasp > insert" in out and "Coffee" not in out
    for suffix in ("", "-Hybrid", "-Skill", "-Residual"):
        assert f"ReinforceGen/{{D0,D1,D2}}-Threading{suffix}-v0" in out


def test_list_knows_a_task_without_weights(own_task, monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "--task", "Own", "--json")
    assert code == 0 and json.loads(out)["Own"]["weights"] == {}


def test_list_does_not_call_damaged_weights_none(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bundle, "SHIPPED", tmp_path)
    (tmp_path / "threading").mkdir()
    (tmp_path / "threading" / "base.safetensors").write_bytes(b"cut off")
    code, _, err = run(monkeypatch, capsys, "--task", "Threading")
    assert code == 2 and err.startswith("error: ") and "base.safetensors" in err
