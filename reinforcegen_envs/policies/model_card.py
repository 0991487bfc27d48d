"""A folder of weights as the Hugging Face hub shows it: the files, and a README.md that says what they are and do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.files import atomic_path, check_output_folder
from reinforcegen_envs.ids import env_id
from reinforcegen_envs.policies.bundle import SHIPPED, Bundle

CARD = "README.md"
SUFFIXES = (".safetensors", ".json", ".npz")  # of what belongs to a folder of weights


def export(bundle: Bundle, folder: str | os.PathLike[str], title: str = "", licence: str = "") -> Path:
    """Copy a folder of weights, and write a model card into the copy.

    Args:
        bundle: the weights; they are checked first.
        folder: new, empty, or an earlier export of the same files.
        title, licence: see `model_card`.

    Returns:
        the folder.

    Raises:
        WeightsError: something is missing, damaged or does not fit.
        InvalidArgument: the folder cannot be written, is the weights' own, or holds other files.
    """
    bundle.check()
    folder = Path(folder)
    check_output_folder(folder)
    files = {path.relative_to(bundle.folder): path for path in _files(bundle)}
    if folder.is_dir():
        if folder.samefile(bundle.folder):
            raise InvalidArgument(f"{folder} holds these weights already; name another folder")
        # What was left of other weights would be loaded with these, or be published unseen; git's folder is no such thing.
        there = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        if others := sorted(there - {name.parts[0] for name in files} - {CARD}):
            raise InvalidArgument(f"{folder} holds {others}, which are not these weights'; name an empty folder")
    for name, path in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(path, temporary)
    with atomic_path(folder / CARD) as temporary:
        temporary.write_text(model_card(bundle, title, licence), encoding="utf-8")
    return folder


def _files(bundle: Bundle) -> list[Path]:
    """What belongs to a folder of weights: its own files, and those of a perception in a folder in it."""
    return sorted(path for depth in ("*", "*/*") for path in bundle.folder.glob(depth) if path.suffix in SUFFIXES)


def model_card(bundle: Bundle, title: str = "", licence: str = "") -> str:
    """The card: front matter that the hub reads, and a text for people.

    Args:
        bundle: the weights.
        title: heading; default: the task's name.
        licence: the hub's short name of one, e.g. "apache-2.0"; default: this package's for the weights that come with it, none
            for others.

    Raises:
        WeightsError: a file is damaged.
    """
    task = bundle.task.name
    results = bundle.deployed() or {}
    card = {part.name: part.card for part in bundle.list()}
    base, tuned = card.get("base", {}), bool(bundle.residual_files())
    name = env_id(task, list(bundle.task.variants)[-1], "Residual")
    policy = "tuned" if tuned else "base"
    rows = [_row(setting, row) for setting, row in results.items()]
    measured = ["| what | strict success | 95% interval | reference | episodes |", "|---|---|---|---|---|", *rows]
    text = [
        f"# {title or f'{task}: skills for ReinforceGen environments'}",
        f"Weights for the task {task} of the Gymnasium suite `reinforcegen-envs`: imitation-learned base policies"
        + (", residual policies by reinforcement learning that are added to them," if tuned else "")
        + " and predictors of where skills begin and end. A motion planner connects the skills.",
        "## Use",
        "Download the folder, e.g. with `huggingface_hub.snapshot_download`, and name it:",
        "```python\n"
        "import gymnasium as gym\n"
        "import reinforcegen_envs  # registers the ids\n\n"
        f'env = gym.make("{name}", weights=FOLDER, termination="predictor", initiation="student")\n'
        "```",
        f"```sh\nreinforcegen evaluate --task {task} --policy {policy} --weights FOLDER\n```",
        "Loading reads safetensors, NumPy arrays and JSON; it never unpickles.",
        "## Results",
        "\n".join(measured) if rows else "Not evaluated yet.",
        "Whole tasks as deployed, on seeds that training has not seen; strict success implies the reference check, which is "
        "the literature's. `evaluation.json` has the command of each.",
        "## Training",
        f"Demonstrations: {base.get('demonstrations', 'unknown')}, generated from source demonstrations. "
        f"Made with MuJoCo {base.get('mujoco', 'unknown')}; contacts differ from one minor version to the next. Each weights "
        "file has a JSON card beside it: command, commit, seeds, success.",
        "Files: " + ", ".join(f"`{path.relative_to(bundle.folder).as_posix()}`" for path in _files(bundle)) + ".",
    ]
    if not licence and bundle.folder.parent == SHIPPED:
        licence = "mit"
    return _front_matter(task, results, licence) + "\n" + "\n\n".join(text) + "\n"


def _row(setting: str, row: Mapping[str, Any]) -> str:
    low, high = row["interval"]
    reference = f"{row['reference_success']:.3f}" if "reference_success" in row else ""
    return f"| {setting} | {row['success']:.3f} | [{low:.3f}, {high:.3f}] | {reference} | {row['episodes']} |"


def _front_matter(task: str, results: Mapping[str, Mapping[str, Any]], licence: str) -> str:
    """What the hub reads. It is YAML, of which JSON is a part: values are written as JSON."""
    measured: list[dict[str, Any]] = []
    for setting, row in results.items():
        metrics = [{"type": "success_rate", "name": "strict success", "value": row["success"]}]
        if "reference_success" in row:
            metrics.append({"type": "success_rate", "name": "reference", "value": row["reference_success"]})
        dataset = {"name": f"{task} {setting}", "type": "reinforcegen-envs"}
        measured.append({"task": {"type": "robotics", "name": task}, "dataset": dataset, "metrics": metrics})
    entries: dict[str, Any] = {
        "library_name": "reinforcegen-envs",
        "pipeline_tag": "robotics",
        "tags": ["robotics", "gymnasium", "mujoco", "imitation-learning", "reinforcement-learning", task.lower()],
    }
    if licence:
        entries["license"] = licence
    if measured:
        entries["model-index"] = [{"name": f"reinforcegen-{task.lower()}", "results": measured}]
    lines = [f"{key}: {json.dumps(value)}" for key, value in entries.items()]
    return "\n".join(["---", *lines, "---", ""])
