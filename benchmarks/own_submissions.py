"""Submissions of this package's own methods, from the tables in results/, and of what others published.

Each ``evaluate_*.csv`` with starts as planned becomes a submission, "reported" like anybody's. What a reproduction has noted in
its file stays there as long as the table gives the same counts. Published figures are those of `write_results`.
"""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import numpy as np
from write_results import MIMICGEN, OUR_RANGES, REINFORCEGEN, ROUND, SKILLGEN, Evaluation, evaluations

from reinforcegen_envs.evaluation.submission import SHIPPED, Facts, Run, Submission
from reinforcegen_envs.evaluation.submit import trained_on
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.statistics import EVALUATION_SEED
from reinforcegen_envs.tasks import TASKS

FOLDER = Path(__file__).with_name("submissions")
AUTHORS = "ReinforceGen environments contributors"
METHODS = {
    "base": "Imitation",
    "tuned": "Imitation + residual TD3",
    "camera": "Imitation + residual TD3",
    "ppo": "Imitation + residual PPO",
    "basecamera": "Imitation",
    "baseretry": "Imitation, with retries",
    "retry": "Imitation + residual TD3, with retries",
    "cameraretry": "Imitation + residual TD3, with retries",
    "camerarandomretry": "Imitation + residual TD3, with retries, visuals randomised",
}
SOURCE = "From 10 scripted source demonstrations; connects are planned."
CAMERA = " The shipped estimator gives objects' poses, from two pictures of 84 x 84 pixels."
ELSEWHERE = (
    "Published, not played here, and not the same setting: a visuomotor policy from human demonstrations, best of several "
    "checkpoints, judged by the reference check."
)
OUR_RANGE = " This reset range is our own; nobody's code of it is public, and layouts differ."
# Method, authors, link, demonstrations trained on if they are known, what else to say, and (task, variant) -> rate in per cent.
PUBLISHED = (
    (
        "BC-RNN (MimicGen)",
        "Mandlekar et al., CoRL 2023",
        "https://arxiv.org/abs/2310.17596",
        1000,
        " BC-RNN from pictures.",
        MIMICGEN,
    ),
    (
        "Hybrid skill policies (SkillMimicGen)",
        "Garrett et al., CoRL 2024",
        "https://arxiv.org/abs/2410.18907",
        None,
        " The best of its hybrid variants.",
        SKILLGEN,
    ),
    (
        "ReinforceGen",
        "Zhou et al., 2025",
        "https://arxiv.org/abs/2512.16861",
        None,
        " 80% is stated for all tasks in one sentence.",
        {(task, "D2"): REINFORCEGEN for task in TASKS},
    ),
)


def own(cell: Evaluation, before: Submission | None) -> Submission:
    """The submission of a table; ``before`` is the one there is, whose origin and reproduction hold while counts do."""
    count = len(cell.lines)
    seeds = count // ROUND if count % ROUND == 0 else 1
    run = Run(
        seeds,
        count // seeds,
        int(cell.lines[0]["seed"]),
        cell.successes,
        sum(line["reference_success"] == "True" for line in cell.lines),
        mean(cell, "control_steps"),
        mean(cell, "connect_steps"),
        command=cell.command.rpartition(" --csv ")[0],
    )
    shipped = cell.method != "ppo"
    perception = "camera" if cell.from_cameras else "truth"
    known = trained_on(cell.task, cell.policy, None, perception) if shipped else {}
    facts = dataclasses.replace(
        facts_of(cell),
        policy=cell.policy,
        weights=SHIPPED if shipped else "",
        demonstrations=known.get("demonstrations"),
        training_steps=known.get("training_steps"),
        note=SOURCE + (CAMERA if cell.from_cameras else ""),
    )
    if before is not None and before.run is not None and counts(before.run) == counts(run):
        return Submission(facts, before.run, None, before.reproduction, before.reproduced_by)
    commit, date = origin(cell.path)
    mujoco = Bundle.open(TASKS[cell.task]).list()[0].card["mujoco"] if shipped else ""
    values = {**counts(run), "command": run.command, "commit": commit, "date": date, "mujoco": mujoco}
    return Submission(facts, Run(**values))


def facts_of(cell: Evaluation) -> Facts:
    """What a table's name says of its method."""
    observation = "camera" if cell.from_cameras else "state"
    return Facts(METHODS[cell.method], AUTHORS, cell.task, cell.variant, observation, retries=cell.retries)


def mean(cell: Evaluation, name: str) -> float:
    """Mean of a column of a table."""
    return round(float(np.mean([int(line[name]) for line in cell.lines])), 2)


def counts(run: Run) -> dict[str, float]:
    """What a table says, without where it comes from."""
    names = ("seeds", "episodes_per_seed", "first_seed", "strict_successes", "reference_successes")
    return {name: getattr(run, name) for name in (*names, "control_steps", "connect_steps")}


def origin(path: Path) -> tuple[str, str]:
    """Commit that brought a table, and its day; "" both for one that no commit has, or outside a checkout."""
    git = ["git", "-C", str(path.parent), "log", "-1", "--format=%H %cs", "--", path.name]
    run = subprocess.run(git, capture_output=True, text=True)
    commit, _, date = run.stdout.strip().partition(" ")
    return commit, date


def published() -> list[Submission]:
    """What others say."""
    found = []
    for method, authors, link, demonstrations, more, figures in PUBLISHED:
        for (task, variant), rate in figures.items():
            note = ELSEWHERE + more + (OUR_RANGE if (task, variant) in OUR_RANGES else "")
            facts = Facts(method, authors, task, variant, "camera", link, demonstrations=demonstrations, note=note)
            found.append(Submission(facts, stated=round(rate / 100, 4)))
    return found


def submissions() -> dict[str, Submission]:
    """File name -> what this package has to submit."""
    found = {}
    for cell in evaluations():
        if cell.metres or int(cell.lines[0]["seed"]) != EVALUATION_SEED:
            continue  # starts off their poses are an experiment, not the benchmark
        path = FOLDER / f"{facts_of(cell).name}.json"
        found[path.name] = own(cell, Submission.read(path) if path.is_file() else None)
    return found | {f"{submission.name}.json": submission for submission in published()}
