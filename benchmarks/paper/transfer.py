"""Does a skill serve another task? Every skill tried where another task has an object of its kind: the paper's open question.

    python benchmarks/paper/transfer.py                                    # goes on where it was stopped
    python benchmarks/paper/transfer.py --kinds pod_grasp --episodes 10 --train-steps 0

A skill acts in the frame of its reference object, and what it sees has a role: hand, reference object, object in the hand, lid
or drawer. So its networks are moved to another task's stage by role: what both have stays as it is, what the other task lacks
stands at its mean of training, and what it has besides is not seen. Starts are those that the other task's planner and its
own earlier stages leave (one pool a stage, for all skills), off by 1 cm and 3 degrees per axis; the judge ends the skill.
- *imitation*: the imitation policy of the skill, as it is;
- *tuned*: and its residual, as it is;
- *trained*: imitation as it is, and a residual of its own after 20,000 control steps of TD3 there.

The matrix has a row a skill and a column a stage. Grasps are tried among all tasks, what is held among objects of one kind;
trained are those of one kind that succeed at times but not nearly always.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
from cells import RESULTS, Table, checked_names, deployed, fill, weights_of
from training import Training, pools

from reinforcegen_envs import cli
from reinforcegen_envs.arguments import Count, CountOrZero, Fraction, checked
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.evaluation.play import Agent
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.observations import ObservationLayout
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.mlp import MLP, load_mlps
from reinforcegen_envs.policies.skill import stage_features
from reinforcegen_envs.registration import env_id
from reinforcegen_envs.statistics import EVALUATION_SEED
from reinforcegen_envs.tasks import TASKS

SKILLS = ("imitation", "tuned", "trained")
Place = tuple[str, str]  # task, stage
# Stages whose object is of one kind; all whose name ends in "grasp" are tried with each other too.
KINDS: dict[str, tuple[Place, ...]] = {
    "nut_grasp": (("Square", "grasp"), ("NutAssembly", "grasp_square_nut"), ("NutAssembly", "grasp_round_nut")),
    "nut_insert": (("Square", "insert"), ("NutAssembly", "insert_square_nut"), ("NutAssembly", "insert_round_nut")),
    "pod_grasp": (("Coffee", "grasp"), ("CoffeePreparation", "pod_grasp")),
    "pod_insert": (("Coffee", "insert"), ("CoffeePreparation", "insert")),
    "piece_grasp": (("ThreePieceAssembly", "grasp_1"), ("ThreePieceAssembly", "grasp_2")),
    "needle_grasp": (("Threading", "grasp"),),
    "mug_grasp": (("CoffeePreparation", "mug_grasp"),),
}
ACROSS = "grasps"
STARTS = "held-out.npz"  # in a folder of moved weights


@dataclass
class Args:
    """Skills across tasks."""

    kinds: tuple[str, ...] = (*KINDS, ACROSS)
    """kinds of objects within which skills are tried, see KINDS; "grasps" tries all grasps with each other"""
    variant: str = "D2"
    """reset range"""
    episodes: Count = 50
    """episodes a cell"""
    first_seed: CountOrZero = EVALUATION_SEED
    """episode i starts as first_seed + i draws it from the held-out starts"""
    starts: Count = 200
    """start states to train on; half as many are held out"""
    train_steps: CountOrZero = 20_000
    """control steps of training a residual; 0: nothing is trained"""
    train_below: Fraction = 0.95
    """success of imitation from which on nothing is trained"""
    weights: str | None = None
    """folder of weights, with {task} for the task's name in lower case; default: the shipped ones"""
    runs: Path = Path("runs/transfer")
    """folder of pools, weights and runs"""
    csv: Path = RESULTS / "transfer.csv"
    """the table; the matrix lies beside it as PNG"""
    workers: CountOrZero = 1
    """processes; 0 means one a core"""


@dataclass(frozen=True)
class Cell:
    """A skill of one task, tried in a stage of another, or of the same."""

    task: str
    variant: str
    stage: str
    from_task: str
    from_stage: str
    skill: str
    train_steps: int

    @property
    def policy(self) -> str:
        """As `deployed` takes it."""
        return "base" if self.skill == "imitation" else "tuned"

    @property
    def name(self) -> str:
        """Of a folder."""
        return f"{self.stage}-from-{self.from_task.lower()}-{self.from_stage}"


def roles(task: str, stage: str, base_action: bool = False) -> list[str]:
    """What each number of an observation is to a stage: names of objects and joints replaced by what they are there."""
    declared = TASKS[task]
    layout = ObservationLayout.of(declared, base_action)
    here = declared.stages[declared.stage_index(stage)]
    objects = {here.reference: "reference", **({here.held: "held"} if here.held else {})}
    joints = list(declared.joints)
    found = []
    for name in layout.names:
        term, number = name.rstrip("]").rsplit("[", 1)
        for thing in layout.objects:
            if term in (f"{thing}_pos_in_ref", f"{thing}_rot6d_in_ref"):
                term = f"{objects.get(thing, f'other {thing}')}{term.removeprefix(thing)}"
                break
        if term == "joints":
            found.append(joints[int(number)])
            continue
        if term == "stage":  # the same number of another task is another stage
            term = f"stage of {task}"
        found.append(f"{term}[{number}]")
    return found


def moved(network: MLP, sees: Sequence[str], there: Sequence[str]) -> MLP:
    """A network that sees other numbers, by role.

    Args:
        network: over numbers of the roles ``sees``.
        sees: one role an input.
        there: roles of the new inputs. What is new counts for nothing; what is missing stands at its mean of training.
    """
    assert network.mean is not None and network.std is not None and len(sees) == network.input_size
    index = {role: i for i, role in enumerate(sees)}
    known = [index.get(role, -1) for role in there]
    first = np.zeros((network.sizes[1], len(there)), np.float32)
    mean, std = np.zeros(len(there), np.float32), np.ones(len(there), np.float32)
    for i, j in enumerate(known):
        if j >= 0:
            first[:, i], mean[i], std[i] = network.weights[0][:, j], network.mean[j], network.std[j]
    return MLP(
        [first, *network.weights[1:]], network.biases, mean, std, network.clip, network.activation, network.output
    )


def move(args: Args, source: Place, target: Place, folder: Path, starts: Path) -> Path:
    """Make a folder of the target task's weights, with the source's skill in the target's stage.

    Args:
        args: of the command.
        source: whose skill.
        target: where it is to act.
        folder: what to make: as the target's, without residuals but the skill's own, if it has one.
        starts: held-out starts, which go with it.
    """
    (task, stage), (other, other_stage) = target, source
    declared = TASKS[task]
    own = Bundle.open(declared, weights_of(args.weights, task))
    theirs = Bundle.open(TASKS[other], weights_of(args.weights, other))
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(own.folder, folder, ignore=shutil.ignore_patterns("residual-*", "evaluation.json"))
    shutil.copyfile(starts, folder / STARTS)
    bundle = Bundle(declared, folder)
    networks, card = load_mlps(own.path("base"))
    base, _ = load_mlps(theirs.path("base"))
    networks[stage] = moved(base[other_stage], base_roles(other, other_stage), base_roles(task, stage))
    bundle.save("base", networks, card)
    residual = theirs.path(f"residual-{other_stage}")
    if residual.is_file():
        found, card = load_mlps(residual)
        network = moved(found[other_stage], roles(other, other_stage, True), roles(task, stage, True))
        bundle.save_residual(stage, network, {"residual_scale": card["residual_scale"]})
    return folder


def base_roles(task: str, stage: str) -> list[str]:
    """Roles of what a stage's imitation policy sees."""
    declared, every = TASKS[task], roles(task, stage)
    return [every[i] for i in stage_features(ObservationLayout.of(declared), declared, declared.stage_index(stage))]


def make(cell: Cell, weights: str | None) -> tuple[gym.Env, Agent]:
    """Environment and policy of a cell, whose weights and starts lie in one folder."""
    assert weights is not None
    settings = {"stage": cell.stage, "termination": "predicate", "pool": str(Path(weights) / STARTS)}
    return deployed(cell.task, cell.variant, cell.policy, weights, **settings)


def pairs(kinds: Sequence[str]) -> list[tuple[Place, Place]]:
    """(skill, stage) that are tried: those of one kind first."""
    groups = [KINDS[kind] for kind in kinds if kind != ACROSS]
    if ACROSS in kinds:
        groups.append(tuple(place for kind, places in KINDS.items() if kind.endswith("grasp") for place in places))
    found = [(source, target) for places in groups for target in places for source in places]
    return list(dict.fromkeys(found))


def alike(source: Place, target: Place) -> bool:
    """Whether both are of one kind."""
    return any(source in places and target in places for places in KINDS.values())


def train(args: Args, cell: Cell, weights: Path, starts: tuple[Path, Path]) -> None:
    """Tune a residual on a moved skill, which ends up in its folder of weights."""
    arguments = [
        "--env-id", env_id(cell.task, cell.variant, "Residual"), "--stage", cell.stage, "--weights", str(weights),
        "--termination", "predicate", "--pool", str(starts[0]), "--eval-pool", str(starts[1]),
        "--total-steps", str(cell.train_steps), "--warmup-steps", str(cell.train_steps // 4), "--eval-every", "0",
        "--final-episodes", str(args.episodes), "--num-threads", "1", "--quiet",
    ]  # fmt: skip
    folder = weights.parent / f"td3-{cell.name}-{cell.train_steps}"
    shutil.rmtree(folder, ignore_errors=True)  # 20,000 steps are done again rather than gone on with on other weights
    Training("td3_residual", arguments, folder).run()


def plot(table: Table[Cell], path: Path, variant: str) -> None:
    """Matrices, a row a skill and a column a stage: imitation, tuned, trained."""
    names = [place for places in KINDS.values() for place in places]
    rows = {c: o for c, o in table.rows.items() if c.variant == variant}
    there = [p for p in names if any(p in ((c.task, c.stage), (c.from_task, c.from_stage)) for c in rows)]
    labels = [f"{task} {stage}" for task, stage in there]
    figure, axes = plt.subplots(1, len(SKILLS), figsize=(6 * len(SKILLS) + 2, 6.5), sharey=True)
    for axis, skill in zip(axes, SKILLS, strict=True):
        matrix = np.full((len(there), len(there)), np.nan)
        for cell, outcome in rows.items():
            if cell.skill == skill:
                at = there.index((cell.from_task, cell.from_stage)), there.index((cell.task, cell.stage))
                matrix[at] = outcome.success
                dark = outcome.success < 0.6
                axis.text(
                    at[1], at[0], f"{outcome.success:.2f}", ha="center", va="center", size=7, color="w" if dark else "k"
                )
        axis.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
        axis.set(title=skill, xlabel="tried in")
        axis.set_xticks(range(len(there)), labels, rotation=90, fontsize=7)
        axis.set_yticks(range(len(there)), labels, fontsize=7)
    axes[0].set_ylabel("skill of")
    figure.suptitle(f"Skills across tasks, {variant}, success of the stage from the other task's starts")
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
    print(f"written: {path}")


def main(args: Args) -> None:
    """Play and train what is missing, and draw all that is there.

    Raises:
        InvalidArgument: unknown kinds or variant, or a table that does not fit.
        WeightsError: unusable weights.
        RunError: a trainer failed.
    """
    args = checked(args)
    checked_names((), variant=args.variant)
    if unknown := sorted(set(args.kinds) - {*KINDS, ACROSS}):
        raise InvalidArgument(f"unknown kind {unknown[0]!r}; choose from {[*KINDS, ACROSS]}")
    table = Table(args.csv, Cell)

    def play(cell: Cell, weights: Path) -> float:
        fill(table, [cell], make, str(weights), args.episodes, args.first_seed, args.workers)
        return table.rows[cell].success

    for source, target in pairs(args.kinds):
        task, stage = target
        out = args.runs / task.lower()
        counts = (args.starts, max(1, args.starts // 2))
        starts = pools(out, task, args.variant, stage, args.weights, counts, args.workers)
        first = Cell(task, args.variant, stage, *source, "imitation", 0)
        weights = move(args, source, target, out / first.name, starts[1])
        before = table.rows.get(first)
        imitation = play(first, weights)
        if Bundle(TASKS[task], weights).residual_files():
            play(Cell(task, args.variant, stage, *source, "tuned", 0), weights)
        cell = Cell(task, args.variant, stage, *source, "trained", args.train_steps)
        wanted = args.train_steps > 0 and source != target and alike(source, target)
        fresh = cell in table.rows and table.rows[first] is before  # else what it was trained from is no more
        if wanted and not fresh and 0.0 < imitation < args.train_below:
            folder = out / f"{cell.name}-trained"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(weights, folder, ignore=shutil.ignore_patterns("residual-*"))
            train(args, cell, folder, starts)
            play(cell, folder)
    table.tidy(lambda cell: (cell.variant, cell.stage, cell.from_task, cell.from_stage, SKILLS.index(cell.skill)))
    plot(table, args.csv.with_suffix(".png"), args.variant)


if __name__ == "__main__":
    cli.run(main, Args)
