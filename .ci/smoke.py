"""What an installed wheel must do, away from the checkout: import, make, step, find its data, run a command.

Run it by the Python of an environment that holds the wheel and its requirements alone, in any other folder.
"""

import importlib.metadata
import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import gymnasium as gym

import reinforcegen_envs
from reinforcegen_envs.tasks import TASKS

CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> None:
    package = Path(reinforcegen_envs.__file__).resolve().parent
    assert CHECKOUT not in package.parents, f"{package} is the checkout's, not the wheel's"
    assert importlib.metadata.version("reinforcegen-envs") == reinforcegen_envs.__version__
    assert importlib.util.find_spec("torch") is None, "torch belongs to the extra `train`, environments need none"
    for name in TASKS:
        for file in (
            package / "demos" / "source" / f"{name.lower()}.hdf5",
            package / "policies" / "weights" / name.lower() / "base.safetensors",
            package / "policies" / "weights" / name.lower() / "skeleton.npz",
        ):
            assert file.is_file(), f"the wheel lacks {file.relative_to(package)}"
    for variant, task, mode in itertools.product(("D0", "D1", "D2"), TASKS, ("", "-Hybrid", "-Skill", "-Residual")):
        env = gym.make(f"ReinforceGen/{variant}-{task}{mode}-v0", disable_env_checker=True)
        _, info = env.reset(seed=0)
        assert not mode or info["planner"]["status"], info  # a connect was planned
        for _ in range(3):
            env.step(env.action_space.sample())
        env.close()
    extras = {"robosuite", "cv2", "torch", "matplotlib", "OpenGL"} & set(sys.modules)
    assert not extras, f"environments with state observations need no {extras}"
    subprocess.run(
        [sys.executable, "-m", "reinforcegen_envs.evaluate", "--help"], check=True, stdout=subprocess.DEVNULL
    )
    print(f"the wheel of {reinforcegen_envs.__version__} works from {package}")


if __name__ == "__main__":
    main()
