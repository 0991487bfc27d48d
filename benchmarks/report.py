"""What every benchmark prints and writes: a table of figures next to their targets, as text, CSV and JSON."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import operator
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reinforcegen_envs.files import atomic_path

RESULTS = Path(__file__).with_name("results")
PACKAGES = ("reinforcegen-envs", "mujoco", "robosuite", "numba", "numpy", "gymnasium")
_COMPARE = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Args:
        name: what was measured.
        value: the number.
        unit: its unit; "" for ratios.
        target: ">= 3.3" or "<= 2"; "" if there is none.
        detail: what else the reader should know.
    """

    name: str
    value: float
    unit: str = ""
    target: str = ""
    detail: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if not self.target:
            return None
        sign, number = self.target.split()
        return bool(_COMPARE[sign](self.value, float(number)))


def write_report(name: str, figures: list[Figure], command: list[str] | None = None, **more: Any) -> None:
    """Print a table and write ``<name>.csv`` and ``<name>.json`` into ``benchmarks/results``.

    Args:
        name: stem of the files.
        figures: the table's rows.
        command: what was run; default: this process's arguments.
        more: further entries of the JSON file.
    """
    verdict = {True: "met", False: "MISSED", None: ""}
    width = max(len(figure.name) for figure in figures)
    print(f"\n{'figure':{width}}  {'measured':>12}  {'target':>9}")
    for figure in figures:
        measured = f"{figure.value:.4g} {figure.unit}".strip()
        line = f"{figure.name:{width}}  {measured:>12}  {figure.target:>9}  {verdict[figure.met]:6}"
        print(f"{line}  {figure.detail}".rstrip())
    with atomic_path(RESULTS / f"{name}.csv") as path, open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["figure", "value", "unit", "target", "met", "detail"])
        for figure in figures:
            writer.writerow([figure.name, f"{figure.value:.6g}", figure.unit, figure.target, figure.met, figure.detail])
    report = {
        "command": command or ["python", *sys.argv],
        "figures": [asdict(figure) | {"met": figure.met} for figure in figures],
        "machine": machine(),
        **more,
    }
    with atomic_path(RESULTS / f"{name}.json") as path:
        path.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nwritten: {RESULTS / name}.csv and .json")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
