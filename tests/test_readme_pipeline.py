"""The README's pipeline table, typed row after row in one folder, at a small budget."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
# What makes each command small; arguments given twice count as given last.
SMALL = {
    "collect": "--count 4",
    "generate": "--count 40",
    "clone": "--steps 2000",
    "pool": "--count 6",
    "tune": "--total-steps 400 --num-envs 2 --eval-every 0 --final-episodes 2",
    "termination": "--episodes 12 --held-out 6 --steps 500",
    "evaluate": "--episodes 4 --seeds 1",
}
SMALL_TD3 = "--warmup-steps 300 --critic-only-updates 20"


def rows():
    """The commands of the table, as they stand there."""
    section = README.read_text().split("## Pipeline")[1].split("\n## ")[0]
    return re.findall(r"^\| [^|]+ \| `(reinforcegen [^`]+)` \|$", section, flags=re.MULTILINE)


def test_every_row_works_on_what_the_rows_before_it_left(tmp_path):
    commands = rows()
    assert [shlex.split(command)[1] for command in commands] == [
        "collect", "generate", "clone", "pool", "tune", "pool", "tune", "termination", "evaluate"
    ]  # fmt: skip
    for command in commands:
        words = shlex.split(command)[1:]
        small = SMALL[words[0]].split() + (SMALL_TD3.split() if "td3" in words else [])
        run = subprocess.run(
            [sys.executable, "-m", "reinforcegen_envs", *words, *small],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, f"{command}\n{run.stderr[-2000:]}"
    written = {path.name for path in (tmp_path / "weights").glob("*.safetensors")}
    assert written == {f"{name}.safetensors" for name in (
        "base", "termination", "initiation", "residual-grasp", "residual-insert"
    )}  # fmt: skip
    assert "policy tuned: 4 episodes" in run.stdout and "stage insert" in run.stdout
