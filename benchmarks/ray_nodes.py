"""Generation by one process, by two, and by a Ray cluster of two local nodes with a CPU each: seconds, and equal files or not.

In the last run one of the nodes is killed when the first attempts are there. Ray's workers are nice: set RAY_worker_niceness=0
on a machine that does other work.

    python benchmarks/ray_nodes.py --count 60
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from reinforcegen_envs.demos import generate as generation


def main() -> None:
    """Print a row of JSON for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="Threading")
    parser.add_argument("--variant", default="D2")
    parser.add_argument("--count", type=int, default=60)
    args = parser.parse_args()
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    folder = Path(tempfile.mkdtemp())
    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(wait=True, **node)
    common = generation.Args(task=args.task, variant=args.variant, count=args.count, quiet=True)
    rows: dict[str, dict[str, Any]] = {
        "one process": {"workers": 1},
        "two processes": {"workers": 2},
        "two nodes": {"ray": cluster.address},
        "two nodes, one killed": {"ray": cluster.address},
    }
    save = generation._save_chunk
    reference = b""
    for name, changes in rows.items():
        out = folder / f"{name}.hdf5"
        saved: list[Path] = []

        def save_and_kill(path, results, name=name, saved=saved):
            save(path, results)
            saved.append(path)
            if "killed" in name and len(saved) == 1:
                cluster.remove_node(cluster.list_all_nodes()[1], allow_graceful=False)

        generation._save_chunk = save_and_kill
        began = time.monotonic()
        found = generation.generate(dataclasses.replace(common, out=out, **changes))
        seconds = time.monotonic() - began
        reference = reference or out.read_bytes()
        row = {
            "way": name,
            "seconds": round(seconds, 1),
            "attempts": found["attempts"],
            "successes": found["successes"],
        }
        print(json.dumps(row | {"equal": out.read_bytes() == reference}), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
