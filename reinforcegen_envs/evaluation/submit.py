"""Play the benchmark's protocol and write the result as a submission for the board; see docs/benchmark.md.

Whole tasks as deployed: learned initiation and termination, starts as planned, 3 evaluation seeds of 100 episodes. Fewer give a
file that the board marks as less than the protocol. With --reproduce, the episodes of somebody's submission are played again.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reinforcegen_envs import cli
from reinforcegen_envs.arguments import Count, CountOrZero, checked
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.evaluation import command as evaluation
from reinforcegen_envs.evaluation.submission import (
    EPISODES,
    SEEDS,
    SHIPPED,
    Facts,
    Run,
    Submission,
    SubmissionError,
    run_of,
)
from reinforcegen_envs.files import check_output
from reinforcegen_envs.policies.bundle import TRUTH, Bundle
from reinforcegen_envs.policies.mlp import WeightsError
from reinforcegen_envs.registration import env_id
from reinforcegen_envs.statistics import EVALUATION_SEED
from reinforcegen_envs.tasks import TASKS

PERCEPTIONS = {"truth": "state", "camera": "camera"}  # of evaluate -> what a submission calls the observation
_OF_HERE = ("reproduce", "by", "policy", "weights", "workers", "quiet")  # arguments that --reproduce takes


@dataclass
class Args:
    """Play the benchmark's protocol and write a submission."""

    task: str = "Threading"
    """task name"""
    variant: str = "D2"
    """reset range"""
    policy: str | None = None
    """as in evaluate: "tuned" (default), "base", "random", or files of residual weights, separated by commas"""
    weights: Path | None = None
    """folder of weights; default: the shipped one"""
    perception: str = "truth"
    """"truth" (the board says: state) or "camera" (object poses are estimated from pictures; needs OpenGL)"""
    method: str = ""
    """what the board shall call it"""
    authors: str = ""
    """who made it"""
    link: str = ""
    """address of a paper or of code, https://..."""
    weights_from: str = ""
    """where others get the folder of weights; without it, nobody can reproduce the result"""
    demonstrations: CountOrZero | None = None
    """demonstrations that it was trained on; default: what the base policy's card says"""
    training_steps: CountOrZero | None = None
    """control steps of reinforcement learning; default: what the residuals' cards say"""
    note: str = ""
    """what else a reader must know to compare it"""
    retries: CountOrZero = 0
    """as in evaluate: how often in an episode a skill is begun again"""
    episodes: Count = EPISODES
    """episodes a seed"""
    seeds: Count = SEEDS
    """number of evaluation seeds"""
    out: Path | None = None
    """file to write; default: METHOD-TASK-VARIANT-OBSERVATION.json, under which the board takes it"""
    reproduce: Path | None = None
    """a submission to play again instead; if the result agrees, that is noted in the file"""
    by: str = ""
    """with --reproduce: who you are"""
    workers: CountOrZero = 0
    """processes; 0: one for every core that this process may use"""
    quiet: bool = False
    """no progress bar and no summary"""


def play(facts: Facts, plays: tuple[int, int, int], args: Args) -> Run:
    """Play whole tasks as deployed.

    Args:
        facts: what is played.
        plays: seeds, episodes of each, first seed.
        args: where the weights are, and how many processes play.

    Raises:
        InvalidArgument, WeightsError, WorkerError: what `evaluate` raises.
    """
    seeds, episodes, first_seed = plays
    settings = evaluation.Args(
        env_id=env_id(facts.task, facts.variant, "Residual"),
        policy=facts.policy,
        episodes=episodes,
        seeds=seeds,
        first_seed=first_seed,
        perception=next(name for name, seen in PERCEPTIONS.items() if seen == facts.observation),
        retries=facts.retries,
        weights=args.weights,
        workers=args.workers,
        quiet=args.quiet,
    )
    return run_of(evaluation.evaluate(settings)["each"], seeds, command_of(settings))


def command_of(settings: evaluation.Args) -> str:
    """The evaluation command that plays the same episodes."""
    words = ["python", "-m", "reinforcegen_envs.evaluate", "--env-id", settings.env_id, "--policy", settings.policy]
    if settings.perception != "truth":
        words += ["--perception", settings.perception]
    if settings.retries:
        words += ["--retries", str(settings.retries)]
    if settings.weights is not None:
        words += ["--weights", str(settings.weights)]
    if settings.first_seed != EVALUATION_SEED:
        words += ["--first-seed", str(settings.first_seed)]
    return shlex.join([*words, "--episodes", str(settings.episodes), "--seeds", str(settings.seeds)])


def trained_on(task_name: str, policy: str, weights: Path | None, perception: str = TRUTH) -> dict[str, int | None]:
    """Demonstrations and control steps of reinforcement learning that cards tell of; None where they tell nothing.

    Args:
        task_name, policy, weights: of what is evaluated.
        perception: that it acts under, which may have residuals of its own.

    Raises:
        WeightsError: unusable weights.
    """
    if policy == "random":
        return {"demonstrations": None, "training_steps": None}
    bundle = Bundle.open(TASKS[task_name], weights, perception)
    files = {"base": [], "tuned": bundle.residual_files()}.get(policy, [Path(path) for path in policy.split(",")])
    steps = [_card(path).get("steps") for path in files]
    return {
        "demonstrations": _card(bundle.path("base")).get("demonstrations"),
        "training_steps": None if None in steps else sum(filter(None, steps)),
    }


def _card(path: Path) -> dict[str, Any]:
    """The card beside a weights file; {} without one."""
    card = path.with_suffix(".json")
    try:
        return dict(json.loads(card.read_text())) if card.is_file() else {}
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{card} is not a card ({error}); copy the weights again") from error


def submit(args: Args) -> tuple[Submission, Path]:
    """Play, and write a new submission; returns it and its file.

    Raises:
        InvalidArgument: arguments that are not allowed.
        SubmissionError: what is said of the method is not what a submission needs.
        WeightsError, WorkerError: as `evaluate`.
    """
    if args.by:
        raise InvalidArgument("by says who reproduces; name the submission with --reproduce, or say --authors")
    if args.perception not in PERCEPTIONS:
        raise InvalidArgument(f"unknown perception {args.perception!r}; choose one of {list(PERCEPTIONS)}")
    facts = Facts(
        args.method,
        args.authors,
        args.task,
        args.variant,
        PERCEPTIONS[args.perception],
        args.link,
        args.policy or "tuned",
        args.weights_from or (SHIPPED if args.weights is None else ""),
        args.demonstrations,
        args.training_steps,
        args.note,
        args.retries,
    )
    planned = Submission(facts, stated=0.0)  # complains of what is said before anything is played
    out = args.out or Path(f"{planned.name}.json")
    check_output(out, (".json",))
    for name, known in trained_on(args.task, facts.policy, args.weights, args.perception).items():
        if getattr(facts, name) is None:
            facts = dataclasses.replace(facts, **{name: known})
    submission = Submission(facts, play(facts, (args.seeds, args.episodes, EVALUATION_SEED), args))
    submission.write(out)
    return submission, out


def reproduce(args: Args) -> tuple[Submission, Path]:
    """Play a submission's episodes again, and note in its file that the result agrees; returns both.

    Raises:
        InvalidArgument: arguments that are the submission's to say, or nobody's name.
        SubmissionError: a file that is no submission, tells too little to be played, or states another rate; it is left as
            it was.
        WeightsError, WorkerError: as `evaluate`.
    """
    path = args.reproduce
    assert path is not None
    fields = dataclasses.fields(args)
    if others := [f.name for f in fields if f.name not in _OF_HERE and getattr(args, f.name) != f.default]:
        raise InvalidArgument(f"a reproduction takes {others} from {path}; leave them out")
    if not args.by.strip():
        raise InvalidArgument("say who reproduces it, with --by")
    before = Submission.read(path)
    facts, stated = dataclasses.replace(before.facts, policy=args.policy or before.facts.policy), before.run
    if stated is None or not facts.policy:
        raise SubmissionError(f"{path} states a rate, but not how to play for it; only its authors can submit more")
    if args.weights is None and facts.weights != SHIPPED:
        raise InvalidArgument(
            f"its weights are at {facts.weights or 'no place it tells'}; name their folder, --weights"
        )
    check_output(path)
    run = play(facts, stated.plays, args)
    low, high = run.interval
    if not run.confirms(stated):
        raise SubmissionError(
            f"not reproduced: {path} states {stated.success:.3f}, here it is {run.success:.3f} [{low:.3f}, {high:.3f}]; "
            "the file was left as it was"
        )
    after = dataclasses.replace(before, reproduction=run, reproduced_by=args.by)
    after.write(path)
    return after, path


def main(args: Args) -> Submission:
    """Submit or reproduce, and say what was written."""
    args = checked(args)
    submission, path = submit(args) if args.reproduce is None else reproduce(args)
    run = submission.run if submission.reproduction is None else submission.reproduction
    assert run is not None
    if not args.quiet:
        low, high = run.interval
        print(f"{submission.facts.method}, {submission.facts.task} {submission.facts.variant}: {submission.status}")
        print(f"  success (strict)    {run.success:.3f}  [{low:.3f}, {high:.3f}]  of {run.episodes} episodes")
        print(f"  success (reference) {run.reference_success:.3f}")
        print(f"  control steps       {run.control_steps:.0f}, of them {run.connect_steps:.0f} of connects")
        if not run.full:
            print(f"  not the full protocol, which is {SEEDS} seeds of {EPISODES} episodes; the board marks it")
    print(f"written: {path}")
    return submission


def command() -> None:
    """The command line."""
    cli.run(main, Args, __doc__, "--task Threading --variant D2 --policy tuned --method NAME --authors NAMES")
