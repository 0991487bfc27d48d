"""The examples of examples/libraries run, each where its library is installed, and are as short as they claim."""

import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "libraries"
PACKAGES = {
    "cleanrl_ppo": "torch",
    "rllib_ppo": "ray",
    "sb3_ppo": "stable_baselines3",
    "sb3_sac": "stable_baselines3",
    "sb3_td3": "stable_baselines3",
    "sbx_ppo": "sbx",
    "skrl_ppo": "skrl",
    "tianshou_ppo": "tianshou",
    "torchrl_ppo": "torchrl",
}
LINES = 60
RESULTS = ROOT / "benchmarks" / "results"


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_example_is_tested_and_short():
    examples = {path.stem: path for path in FOLDER.glob("*.py") if path.stem != "setting"}
    assert set(examples) == set(PACKAGES)
    assert {name: n for name, path in examples.items() if (n := len(path.read_text().splitlines())) > LINES} == {}


@pytest.mark.parametrize("name", PACKAGES)
def test_example_runs(name, tmp_path):
    """A small budget: the base policy's row, and one row after some updates."""
    if importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{PACKAGES[name]} is not installed; docs/libraries.md says which versions go together")
    command = [sys.executable, "-W", "ignore", str(FOLDER / f"{name}.py")]
    budget = ["--steps", "600", "--every", "1000000", "--episodes", "2", "--out", str(tmp_path)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *budget], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    table = rows(tmp_path / f"library_{name}.csv")
    assert len(table) == 2 and float(table[0]["steps"]) == 0 and float(table[1]["steps"]) >= 600
    assert all(0 <= float(row["low"]) <= float(row["success"]) <= float(row["high"]) <= 1 for row in table)


def test_torchrl_takes_the_id_itself():
    envs, torch = pytest.importorskip("torchrl.envs", reason="torchrl is not installed"), pytest.importorskip("torch")
    env = envs.GymEnv("ReinforceGen/D2-Threading-Residual-v0", stage="grasp")
    # TorchRL's own reader wants numpy's bool, of which gymnasium's vector environments would make objects.
    env.set_info_dict_reader(lambda info, data: data.set("success", torch.tensor(info["success"])))
    env.set_seed(0)
    rollout = env.rollout(60, policy=lambda observation: torch.zeros(7))
    assert rollout["next", "success"][-1] and rollout["next", "terminated"][-1]
    assert rollout["next", "success"].sum() == rollout["next", "reward"].sum() == 1


@pytest.mark.parametrize("name", ["sb3_ppo", "sb3_td3", "torchrl_ppo", "skrl_ppo", "rllib_ppo", "cleanrl_ppo"])
def test_committed_curves_end_above_the_base(name):
    """Each on the same held-out seeds as the base policy, with intervals apart."""
    first, *_, last = rows(RESULTS / f"library_{name}.csv")
    assert first["episodes"] == last["episodes"] == "300"
    assert float(last["low"]) > float(first["high"])
