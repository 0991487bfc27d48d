"""Train the estimator that tells from two cameras where objects are: privileged distillation.

    python -m reinforcegen_envs.agents.perceive --task Threading --weights weights --out runs/perceive

The teacher is the simulator, which knows all poses. First the policies play with true poses, and pictures are taken of the
states that they visit, objects moved about in them; then, round by round, they play with what the estimator makes them believe,
from the first stage on or, in turn, from a later one, and pictures of those states are added. The estimator is written into the
folder of weights after every round.
"""

from __future__ import annotations

import csv
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tqdm import tqdm

from reinforcegen_envs import cli
from reinforcegen_envs.agents.estimating import Data, predict, train
from reinforcegen_envs.agents.estimator import Estimator, arrays, estimator_for, load_arrays
from reinforcegen_envs.agents.playing import Disturbed, deployed, engine_of, play
from reinforcegen_envs.agents.plotting import plot_calibration, plot_rounds
from reinforcegen_envs.agents.recording import Accuracy, Recorder
from reinforcegen_envs.arguments import Count, CountOrZero, Positive, checked
from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError
from reinforcegen_envs.files import atomic_path, check_output_folder, claim
from reinforcegen_envs.models.scene import load_scene
from reinforcegen_envs.perception.accuracy import Row, summarise
from reinforcegen_envs.perception.camera import LateCamera, card_of
from reinforcegen_envs.perception.frames import Frames, States
from reinforcegen_envs.perception.network import FOREIGN, FORMAT, PER_OBJECT, save_estimator
from reinforcegen_envs.policies.bundle import TRUTH, Bundle
from reinforcegen_envs.policies.policy import Policy
from reinforcegen_envs.policies.weights_file import read_weights
from reinforcegen_envs.ray_workers import open_workers
from reinforcegen_envs.sim.cameras import CAMERAS, SIZE
from reinforcegen_envs.tasks import TASKS

CHUNK = 250  # frames a worker takes at a time
HELD_OUT = 0.02  # part of the frames that nothing is learned from: for the calibration
SKILL_WEIGHT = 1.5  # of a skill's frames together, against 1 of a connect's
# In turn: start-pose noise (metres, radians) of the episodes that are played, and size of a disturbance of the actions.
SETTINGS = (((0.0, 0.0), 0.0), ((0.01, 0.05), 0.5), ((0.0, 0.0), 0.0), ((0.02, 0.1), 1.5))
QUANTILES = {0.5: 0.6745, 0.9: 1.6449, 0.99: 2.5758}  # of the normal distribution, two-sided
NOT_SETTINGS = {"weights", "out", "rounds", "workers", "ray", "quiet"}  # may differ when a run is gone on with
FIRST_SEED = 600_000  # of episodes that are played; evaluation begins at 1,000,000


class NothingPlayedError(ReinforceGenError, RuntimeError):
    """No episode of a round went beyond its reset."""


@dataclass
class Args:
    """Train a task's camera estimator."""

    task: str = "Threading"
    """task name"""
    weights: Path = Path("runs/weights")
    """folder of the policies that play; the estimator is written there"""
    out: Path = Path("runs/perceive")
    """folder for states, frames, curves and accuracy"""
    variant: tuple[str, ...] = ("D2", "D0", "D2", "D1")
    """reset ranges of the episodes, in turn"""
    episodes: Count = 160
    """episodes of the first round, played with true poses"""
    own_episodes: Count = 100
    """episodes of every further round, played with the estimator's"""
    rounds: CountOrZero = 1
    """further rounds"""
    frames: Count = 40_000
    """pictures taken in every round"""
    passes: Positive = 4.0
    """how often every picture taken up to then is learned from in a round"""
    batch_size: Count = 64
    """frames in a batch"""
    learning_rate: Positive = 0.02
    """of Muon, one cycle a round; further rounds have half"""
    warm_start: bool = False
    """go on from the estimator that is in the folder of weights: the first round is then like a further one, on further seeds"""
    size: Count = SIZE
    """pixels a side of the pictures"""
    seed: CountOrZero = 0
    """seed of weights, batches, and moved objects"""
    workers: CountOrZero = 0
    """processes that play and take pictures; 0: one for every core that this process may use"""
    ray: str | None = None
    """address of a Ray cluster that plays and takes pictures instead (HOST:PORT, ray://HOST:PORT; --ray alone: the one that this
    machine belongs to); `workers` is then how many jobs are done at the same time, 0: as many as the cluster has CPUs"""
    quiet: bool = False
    """no progress bars"""


class Player:
    """Plays episodes in one process, and keeps the states and, with cameras, the errors of what was believed."""

    def __init__(self, args: Args, cameras: bool):
        self._args, self._cameras = args, cameras
        self._players: dict[tuple[str, tuple[float, float]], tuple[gym.Env, Policy, Recorder, Accuracy | None]] = {}

    def play(self, job: tuple[int, int]) -> tuple[States | None, list[Row], bool]:
        """Play episode ``index`` of a seed; returns its states, errors and success."""
        seed, index = job
        cycle, index = divmod(index, len(self._args.variant) * len(SETTINGS))
        noise, disturbance = SETTINGS[index // len(self._args.variant)]
        env, policy, recorder, accuracy = self._player(self._args.variant[index % len(self._args.variant)], noise)
        engine = engine_of(env)
        # Else nearly all pictures of a long task's last stages would be of states that true poses lead to.
        first = cycle % len(engine.task.stages)
        if isinstance(engine.perception, LateCamera):
            engine.perception.first_stage = first
        recorder.seed = seed
        success = play(env, Disturbed(policy, disturbance, np.random.default_rng(seed)), seed)
        rows = [] if accuracy is None else [row for row in accuracy.taken() if row.stage >= first]
        return recorder.taken(), rows, success

    def _player(self, variant: str, noise: tuple[float, float]) -> tuple[gym.Env, Policy, Recorder, Accuracy | None]:
        if (variant, noise) not in self._players:
            args = self._args
            perception = LateCamera(args.weights) if self._cameras else TRUTH
            env, policy = deployed(args.task, variant, args.weights, noise, perception)
            engine = engine_of(env)
            accuracy = Accuracy(engine) if self._cameras else None
            self._players[variant, noise] = env, policy, Recorder(engine), accuracy
        return self._players[variant, noise]


def start_player(args: Args, cameras: bool) -> Player:
    """A worker that plays."""
    torch.set_num_threads(1)
    return Player(args, cameras)


def start_frames(args: Args) -> Frames:
    """A worker that takes pictures."""
    task = TASKS[args.task]
    return Frames(task, load_scene(task.scene), args.size)


def take(frames: Frames, job: tuple[States, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures, proprioception and labels of some states, objects moved; drawn from the job's seed alone."""
    states, seed = job
    rng = np.random.default_rng(seed)
    taken = []
    for row in range(len(states)):
        frames.load(states, row)
        stage, connecting = int(states.stage[row]), bool(states.connecting[row])
        frames.move(states.groups[row], stage, connecting, rng)
        taken.append(frames.take(stage))
    pictures, proprio, labels = zip(*taken, strict=True)
    return np.array(pictures), np.array(proprio), np.array(labels)


class Training:
    """The rounds of one run; what is finished is not done again.

    Args:
        args: the command's.
    """

    def __init__(self, args: Args):
        self.args, self.task = args, TASKS[args.task]
        self.bundle = Bundle.open(self.task, args.weights)
        self.log = args.out / "progress.csv"
        self._start: dict[str, np.ndarray] | None = None
        self._rounds_before = 0
        if args.warm_start:
            kept = args.out / "start.safetensors"  # a run that is taken up again begins with what it began with
            if not kept.is_file():
                save_estimator(kept, *self._read(self.bundle.path("estimator")))
            self._start, card = self._read(kept)
            self._rounds_before = int(card.get("round", 0)) + 1

    def _round(self, number: int) -> int:
        """The estimator's rounds before this one, those before a warm start among them."""
        return number + self._rounds_before

    def _read(self, path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """An estimator of this task and size."""
        return read_weights(path, FORMAT, FOREIGN, card_of(self.task, self.args.size))

    def run(self) -> dict[str, Any]:
        """All rounds; returns what the last one's accuracy was."""
        args, summary, successes = self.args, {}, []
        for number in range(args.rounds + 1):
            done = args.out / f"round-{number}.json"
            if done.is_file():
                summary = json.loads(done.read_text())
                successes.append(summary["success"])
                continue
            began = time.monotonic()
            states, rows, success = self._states(number)
            self._pictures(number, states)
            nll, coverage = self._train(number)
            successes.append(success)
            summary = {
                "round": number, "success": success, "states": len(states), "nll": nll, "coverage": coverage,
                "accuracy": summarise(rows, self.task), "seconds": round(time.monotonic() - began),
            }  # fmt: skip
            with atomic_path(done) as temporary:
                temporary.write_text(json.dumps(summary, indent=2) + "\n")
            print(f"round {number}: played with success {success:.3f}, nll {nll:.3f}, coverage {coverage}", flush=True)
        return summary

    def _states(self, number: int) -> tuple[States, list[Row], float]:
        """Play the round's episodes, unless they were."""
        args, file, errors = self.args, self.args.out / f"states-{number}.npz", self.args.out / f"errors-{number}.json"
        if not (file.is_file() and errors.is_file()):
            own = self._round(number) > 0
            count = args.own_episodes if own else args.episodes
            first = FIRST_SEED + 10_000 * self._round(number)
            jobs = [(first + i, i) for i in range(count)]
            parts, rows, successes = [], [], []
            with open_workers(args.ray, args.workers, start_player, (args, own), jobs=count) as workers:
                results = workers.map(Player.play, jobs)
                for states, errors_of, success in tqdm(
                    results, total=count, unit="episode", desc="play", disable=args.quiet
                ):
                    parts += [] if states is None else [states]
                    rows += errors_of
                    successes.append(success)
            if not parts:
                raise NothingPlayedError(
                    f"in none of the {count} episodes of round {number} anything was within reach of the hand"
                    + (
                        ": the estimator knows too little; take more frames or passes in the first round"
                        if number
                        else ""
                    )
                )
            States.joined(parts).save(file)
            with atomic_path(errors) as temporary:
                temporary.write_text(json.dumps({"success": float(np.mean(successes)), "rows": rows}))
        saved = json.loads(errors.read_text())
        return States.load(file), [Row(*row) for row in saved["rows"]], saved["success"]

    def _pictures(self, number: int, states: States) -> None:
        """Take the round's pictures, unless they were taken."""
        args, target = self.args, self.args.out / f"labels-{number}.npz"
        if target.is_file():
            return
        count = args.frames
        rng = np.random.default_rng([args.seed, number])
        chosen = np.sort(rng.choice(len(states), count, p=weights_of(states)))
        rng.shuffle(chosen)
        jobs = [(states[chosen[i : i + CHUNK]], int(rng.integers(2**31))) for i in range(0, count, CHUNK)]
        shape = (count, len(CAMERAS), args.size, args.size, 3)
        pictures = np.lib.format.open_memmap(args.out / f"frames-{number}.npy", "w+", np.uint8, shape)
        proprio, labels, at = [], [], 0
        with (
            open_workers(args.ray, args.workers, start_frames, (args,), jobs=len(jobs)) as workers,
            tqdm(total=count, unit="frame", desc="pictures", disable=args.quiet) as bar,
        ):
            for some, own, label in workers.map(take, jobs):
                pictures[at : at + len(some)] = some
                at += len(some)
                proprio.append(own)
                labels.append(label)
                bar.update(len(some))
        pictures.flush()
        with atomic_path(target) as temporary, open(temporary, "wb") as file:
            np.savez(file, proprio=np.concatenate(proprio), labels=np.concatenate(labels))

    def _data(self, number: int) -> Data:
        """Everything that was taken up to a round."""
        frames, proprio, labels = [], [], []
        for i in range(number + 1):
            frames.append(np.load(self.args.out / f"frames-{i}.npy", mmap_mode="r"))
            with np.load(self.args.out / f"labels-{i}.npz") as file:
                proprio.append(file["proprio"])
                labels.append(file["labels"])
        return Data(frames, np.concatenate(proprio), np.concatenate(labels))

    def _train(self, number: int) -> tuple[float, dict[str, float]]:
        """Train on all rounds' pictures, write the estimator; returns its likelihood and coverage on held-out pictures."""
        args, task, data = self.args, self.task, self._data(number)
        held_out = np.random.default_rng(args.seed).random(len(data)) < HELD_OUT
        # Held-out pictures take the place of none: they are only left out when rows are drawn.
        kept = np.flatnonzero(~held_out)
        model = self._model(number)
        steps = max(1, int(args.passes * len(kept) / args.batch_size))
        rate = args.learning_rate * (0.5 if self._round(number) else 1.0)

        def note(step: int, nll: float, seconds: float) -> None:
            fresh = not self.log.is_file()
            with open(self.log, "a", newline="") as file:
                if fresh:
                    csv.writer(file).writerow(["round", "step", "nll", "seconds"])
                csv.writer(file).writerow([number, step, round(nll, 4), round(seconds, 1)])

        model = train(
            model, data, kept, len(task.objects), steps, args.batch_size, rate, args.seed + number,
            args.out / f"training-{number}.pt", args.quiet, note,
        )  # fmt: skip
        mean, deviation = predict(model, data, np.flatnonzero(held_out), len(task.objects))
        away = (mean - data.labels[held_out]) / deviation
        nll = float(np.mean(0.5 * away**2 + np.log(deviation)))
        mine = f"{task.name}, held-out pictures of rounds 0 to {number}"
        plot_calibration(args.out / f"calibration-{number}.png", by_kind(away, len(task.objects)), mine)
        plot_rounds(args.out / "progress.png", self.log, task.name)
        coverage = {str(q): round(float(np.mean(np.abs(away) < z)), 3) for q, z in QUANTILES.items()}
        card = {
            **card_of(task, args.size), "command": f"reinforcegen perceive --task {args.task}", "seed": args.seed,
            "round": self._round(number), "frames": len(kept), "steps": steps, "nll": round(nll, 4),
            "coverage": coverage,
        }  # fmt: skip
        save_estimator(self.bundle.path("estimator"), arrays(model), card)
        with atomic_path(args.out / f"model-{number}.pt") as temporary:
            torch.save(model.state_dict(), temporary)
        return nll, coverage

    def _model(self, number: int) -> Estimator:
        """A new network, or that of the round before."""
        torch.manual_seed(self.args.seed)
        model = estimator_for(self.task, self.args.size)
        if not number and self._start is not None:
            load_arrays(model, self._start)
        if number:
            model.load_state_dict(torch.load(self.args.out / f"model-{number - 1}.pt", weights_only=True))
        return model


def by_kind(numbers: np.ndarray, objects: int) -> dict[str, np.ndarray]:
    """Rows in the order of `Frames.labels` by what their numbers are."""
    vectors = numbers[:, : objects * PER_OBJECT // 2].reshape(-1, objects, 2, 3, 3)
    kinds = {
        "positions, world": vectors[:, :, 0, 0],
        "positions, hand": vectors[:, :, 1, 0],
        "directions, world": vectors[:, :, 0, 1:],
        "directions, hand": vectors[:, :, 1, 1:],
        "joints": numbers[:, objects * PER_OBJECT // 2 :],
    }
    return {kind: part for kind, part in kinds.items() if part.size}


def weights_of(states: States) -> np.ndarray:
    """How likely each state's picture is taken, so that every stage's skill and connect has its share, (n,)."""
    weights = np.zeros(len(states))
    for stage in np.unique(states.stage):
        for connecting in (False, True):
            mine = (states.stage == stage) & (states.connecting == connecting)
            if mine.any():
                weights[mine] = (1.0 if connecting else SKILL_WEIGHT) / mine.sum()
    return weights / weights.sum()


def main(args: Args) -> None:
    """Train, and print how exact the last round's beliefs were.

    Raises:
        InvalidArgument: unknown task or variant, a number out of its range, or a folder with rounds of other settings.
        NothingPlayedError: no episode of a round went beyond its reset.
        WeightsError: there are no policies in the folder of weights.
        RenderingError: no OpenGL on this machine.
    """
    args = checked(args)
    if args.task not in TASKS:
        raise InvalidArgument(f"unknown task {args.task!r}; choose one of {sorted(TASKS)}")
    if unknown := set(args.variant) - set(TASKS[args.task].variants):
        raise InvalidArgument(f"unknown variants {sorted(unknown)}; choose from {sorted(TASKS[args.task].variants)}")
    check_output_folder(args.out)
    if not (args.out / "states-0.npz").is_file():  # nothing was done with what is noted
        (args.out / "settings.json").unlink(missing_ok=True)
    if not claim(args.out / "settings.json", {k: v for k, v in asdict(args).items() if k not in NOT_SETTINGS}):
        raise InvalidArgument(
            f"{args.out} holds rounds of other settings, see its settings.json; name another folder, or give those"
        )
    torch.set_num_threads(1)
    summary = Training(args).run()
    for line in summary["accuracy"]:
        print("  ".join(f"{key} {value}" for key, value in line.items()))


def command() -> None:
    """The command line."""
    cli.run(main, Args, __doc__, "--task Threading --weights runs/pipeline/weights --out runs/perceive")


if __name__ == "__main__":
    command()
