"""All libraries' curves in one picture: success on held-out seeds against control steps, and the base policy's.

    python benchmarks/libraries.py

Draws `benchmarks/results/library_NAME.csv`, which `examples/libraries/NAME.py` writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import tyro

from reinforcegen_envs.agents.plotting import read_progress
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.files import atomic_path

LABELS = {
    "sb3_ppo": "Stable-Baselines3 PPO",
    "sb3_td3": "Stable-Baselines3 TD3, preset",
    "sb3_sac": "Stable-Baselines3 SAC, preset",
    "cleanrl_ppo": "CleanRL-style PPO",
    "torchrl_ppo": "TorchRL PPO",
    "skrl_ppo": "skrl PPO",
    "rllib_ppo": "RLlib PPO",
    "sbx_ppo": "sbx PPO",
    "tianshou_ppo": "Tianshou PPO",
}


@dataclass
class Args:
    """Draw the curves."""

    results: Path = Path("benchmarks/results")
    """folder of the tables and the PNG"""


def draw(axis: Any, path: Path, colour: str, label: str) -> None:
    """One table's success and interval."""
    table = read_progress(path)
    steps = table["steps"] / 1e3
    axis.fill_between(steps, table["low"], table["high"], alpha=0.25, color=colour, lw=0)
    axis.plot(steps, table["success"], color=colour, marker="o", ms=3, label=label)


def main(args: Args) -> None:
    """Draw one panel a library.

    Raises:
        InvalidArgument: there is no table.
    """
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = {name: path for name in LABELS if (path := args.results / f"library_{name}.csv").is_file()}
    if not found:
        raise InvalidArgument(f"there is no table in {args.results}; run python examples/libraries/NAME.py first")
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    size = (3.6 * columns, 2.7 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    for axis, (name, path) in zip(axes.flat, found.items(), strict=False):
        base = read_progress(path)
        axis.axhspan(base["low"][0], base["high"][0], color="0.85", lw=0, label="base policy")
        axis.axhline(base["success"][0], color="0.5", lw=1, ls="--")
        plain = args.results / f"library_{name}_plain.csv"
        if plain.is_file():
            draw(axis, plain, "C3", "library's defaults")
        draw(axis, path, "C0", "agent")
        axis.set_title(LABELS[name], fontsize=10)
        axis.set(ylim=(0, 1.02))
        axis.grid(alpha=0.3)
        axis.legend(loc="lower right", fontsize=7)
        axis.xaxis.set_tick_params(labelbottom=True)
    for axis in axes[:, 0]:
        axis.set_ylabel("success, 95%")
    for axis in axes.flat[max(0, len(found) - columns) : len(found)]:
        axis.set_xlabel("control steps / 1000")
    figure.tight_layout()
    with atomic_path(args.results / "libraries.png") as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Args))
