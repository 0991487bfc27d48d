"""What is published is what the tables say, and what the shipped weights do."""

import os
import subprocess
from pathlib import Path

import pytest
from helpers import BENCHMARKS, benchmark

from reinforcegen_envs import evaluate
from reinforcegen_envs.evaluation import play
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.registration import env_id
from reinforcegen_envs.tasks import TASKS

SAMPLE = 20  # episodes, of all tasks together
MAY_DIFFER = 2  # of them: another processor rounds differently, and what hangs by a thread falls the other way


@pytest.fixture(scope="module")
def write_results():
    """The script, as a module."""
    return benchmark("write_results")


def test_results_are_what_the_tables_give(write_results):
    assert write_results.stale() == [], f"run {write_results.WRITE}"


def test_stale_results_are_found(write_results, tmp_path, monkeypatch):
    monkeypatch.setattr(write_results, "HERE", tmp_path)
    with pytest.raises(write_results.StaleResults, match=r"RESULTS\.md, reproduce\.sh; run python benchmarks/write_re"):
        write_results.main(write_results.Args(check=True))
    write_results.main(write_results.Args())
    write_results.main(write_results.Args(check=True))
    assert os.access(tmp_path / "reproduce.sh", os.X_OK)
    page = tmp_path / "RESULTS.md"
    page.write_text(page.read_text().replace("Threading", "Knitting", 1))
    assert write_results.stale() == ["RESULTS.md"]


def test_a_table_with_another_name_is_refused(write_results, tmp_path, monkeypatch):
    (tmp_path / "evaluate_square_d2_best-0.csv").write_text("seed,success\n")
    monkeypatch.setattr(write_results, "RESULTS", tmp_path)
    with pytest.raises(write_results.InvalidArgument, match="evaluate_square_d2_best-0.csv: name it"):
        write_results.results()


def test_every_line_of_reproduce_is_a_command_that_makes_its_file(write_results):
    cells = write_results.evaluations()
    lines = (BENCHMARKS / "reproduce.sh").read_text().splitlines()
    for cell in cells:
        (line,) = [line for line in lines if line.endswith(f"/{cell.path.name}")]
        assert f"{cell.variant}-{cell.task}-" in line
    for line in lines:
        words = line.split()
        if words[:1] == ["python"] and words[1].startswith("benchmarks/"):
            assert (BENCHMARKS.parent / words[1]).is_file(), line
    assert subprocess.run(["bash", "-n", BENCHMARKS / "reproduce.sh"]).returncode == 0


def test_what_ships_beside_weights_says_what_the_tables_say(write_results):
    """``evaluation.json`` gives every figure with its command, and a line of reproduce.sh the command of a table."""
    tables = {cell.path.name: cell.lines for cell in write_results.evaluations()}
    commands = [line.partition(" --csv ") for line in (BENCHMARKS / "reproduce.sh").read_text().splitlines()]
    files = {command: Path(path).name for command, _, path in commands if path}
    told = 0
    for name, task in TASKS.items():
        for key, entry in (Bundle.open(task).deployed() or {}).items():
            lines = tables[files[entry["command"]]]
            share = sum(line["success"] == "True" for line in lines) / len(lines)
            assert (entry["success"], entry["episodes"]) == (pytest.approx(share, abs=1e-4), len(lines)), (
                f"{name} {key}"
            )
            told += 1
    assert told >= len(TASKS)


def test_shipped_weights_do_what_is_published(write_results):
    """A few seeds of every task end as they did: whole tasks on D2, tuned where that is shipped."""
    cells = {(c.task, c.variant, c.method): c for c in write_results.evaluations() if not c.metres}
    each = SAMPLE // len(TASKS)
    played, differ = 0, []
    for name, task in TASKS.items():
        method = "tuned" if Bundle.open(task).residual_files() else "base"
        cell = cells.get((name, "D2", method))
        assert cell is not None, f"{method} weights of {name} are shipped, and were not evaluated on D2"
        env, policy = evaluate.make(evaluate.Args(env_id=env_id(name, "D2", "Residual"), policy=method))
        for line in cell.lines[:: max(1, len(cell.lines) // each)][:each]:
            episode = play(env, policy, int(line["seed"]))
            played += 1
            if episode.success != (line["success"] == "True"):
                differ.append(
                    f"{name} seed {episode.seed}: {episode.failure or 'success'}, not {line['failure'] or 'success'}"
                )
        env.close()
    assert played == each * len(TASKS)
    assert len(differ) <= MAY_DIFFER, "\n".join(
        [f"{len(differ)} of {played} episodes end otherwise than published:", *differ]
    )
