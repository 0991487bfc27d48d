"""Generate demonstrations by object-centric adaptation of source skills, connected by the planner.

    python -m reinforcegen_envs.demos.generate --task Threading --variant D2 --count 1000 --out d2.hdf5

Each attempt resets the scene, picks a source demonstration within reach, moves its skill segments with their reference
objects, connects them with planned motions, and is kept if it ends in strict success. The hand is steered so that the
*held object*, not the hand, follows the source: the grasp differs a little every time. A skill that gets nowhere and breaks
nothing is begun again, with another source if there is one, and what was done in vain is left out.

A source is a variant of a demonstration, turned or mirrored by what its stages declare (`segments.variants`). The attribute
``sources`` of what is generated has one number a stage: demonstration times the number of variants, plus variant; ``seed`` is
(seed, attempt), and an environment that is reset with ``reset_seed`` has the same scene, but for what a first skill has moved
that was begun again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from reinforcegen_envs import cli
from reinforcegen_envs.arguments import Count, CountOrZero, Fraction, NotNegative, checked
from reinforcegen_envs.demos.hdf5 import Demo, DemoWriter, read_demos
from reinforcegen_envs.demos.segments import Segment, cut_all, skeleton_of
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.demos.teleoperator import action_to_pose, pose_of_action
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError
from reinforcegen_envs.files import atomic_path, check_output, claim
from reinforcegen_envs.ids import env_id
from reinforcegen_envs.planning.connect import CLOSE, OPEN, Connect
from reinforcegen_envs.planning.skeleton import GOOD_MARGIN
from reinforcegen_envs.poses import distance, invert, matrix_from, rotvec_to_matrix
from reinforcegen_envs.ray_workers import open_workers
from reinforcegen_envs.shards import Shard
from reinforcegen_envs.tasks import TASKS

CHUNK = 20  # attempts a worker makes between two writes
# Metres and radians that a tool may lag behind its target more than the source's did before the segment waits for it:
# with an object in the hand, clearances count.
SLACK_FREE, SLACK_HELD = (0.004, 0.06), (0.001, 0.02)
# Where the source had its tool this near to the target, metres, it was lining it up: the tool must stay there for some
# control steps. Close to its base the arm swings before it comes to rest.
PRECISE, CALM_STEPS = 0.0025, 3
MAX_WAIT = 60  # control steps that a segment waits for it, in all
GAIN = 1.5  # stiffness of following, relative to the operator's
EXTRA_STEPS = 4  # control steps recorded after a stage is finished: what termination looks like
# Noise on rotation is smaller: 0.05 would swing the tip of a 12 cm needle by its clearance of 3 mm (ours).
NOISE_SHAPE = np.array([1.0, 1.0, 1.0, 0.4, 0.4, 0.4])
DRAWN_SOURCES = 4  # sources drawn to be tried in turn; what is left comes after them
TRIES = 3  # of a stage whose skill gets nowhere but breaks nothing, each with another source if there is one (ours)
FINAL_STEPS = 16  # control steps that the last target is held while success settles


# What a row of a generated file is, and its actions; stands in the file.
MEANING = {
    "rows": "control steps of skills, i.e. transitions of the Hybrid mode: connects between skills are no rows, so next_obs of a "
    "skill's last row is the observation at the next skill's start; a skill goes on for a few rows after its stage is finished",
    "actions": "in the world frame, as executed, with noise; datagen_info/label_action is without",
}
DEFAULT_ATTEMPTS = 100_000  # of a run that gives up of itself
_NOT_SETTINGS = (
    "count",
    "out",
    "workers",
    "quiet",
    "max_attempts",
    "shard",
    "ray",
)  # do not change what an attempt gives


class GenerationError(ReinforceGenError, RuntimeError):
    """Too few attempts succeeded, or another run's unfinished work is in the way."""


@dataclass
class Args:
    """Generate demonstrations from source demonstrations."""

    task: str = "Threading"
    """task name"""
    variant: str = "D2"
    """reset range to generate for"""
    count: Count = 1000
    """successful demonstrations to make"""
    out: Path = Path("generated.hdf5")
    """file to write; unfinished work is kept in OUT.parts and taken up again by the same command"""
    source: Path | None = None
    """source demonstrations (robomimic layout with datagen_info, MimicGen's included); default: the shipped ones"""
    seed: CountOrZero = 0
    """attempt i draws from seed and i alone, so the result does not depend on the number of workers"""
    action_noise: NotNegative = 0.05
    """standard deviation of the noise on executed actions (0.4 of it on rotations); the noise-free action is the label"""
    noise_memory: Fraction = 0.0
    """correlation of the noise between control steps; 0 is white"""
    start_noise: tuple[NotNegative, NotNegative] = (0.0, 0.0)
    """initiation augmentation: metres and radians by which skills start off their planned pose, per axis"""
    max_attempts: Count = DEFAULT_ATTEMPTS
    """give up after so many attempts"""
    shard: str | None = None
    """i/n: make the i-th of n parts of the first `max_attempts` attempts, however many of them succeed; reinforcegen merge
    then keeps the first `count` successes of all parts. Every part needs an `out` of its own"""
    workers: CountOrZero = 0
    """processes; 0: one for every core that this process may use"""
    ray: str | None = None
    """address of a Ray cluster that does the work instead (HOST:PORT, ray://HOST:PORT; --ray alone: the one that this machine
    belongs to); `workers` is then how many jobs are done at the same time, 0: as many as the cluster has CPUs"""
    quiet: bool = False
    """no progress bar"""


class Adapter:
    """Plays adapted source demonstrations in one environment.

    Args:
        env: a plain environment.
        sources: per source demonstration, its skill segments.
        action_noise, noise_memory, start_noise: as in `Args`.

    Attributes:
        engine: the environment's: who wants to know what happens can listen to it.
    """

    def __init__(
        self,
        env: ManipulationEnv,
        sources: list[list[Segment]],
        action_noise: float = 0.0,
        noise_memory: float = 0.0,
        start_noise: tuple[float, float] = (0.0, 0.0),
    ):
        self._env, self.engine, self._sources = env, env.engine, sources
        self._noise, self._memory, self._start_noise = action_noise, noise_memory, start_noise
        self._skeleton = skeleton_of(sources)

    def choose(self, rng: np.random.Generator, stage: int = 0) -> list[int]:
        """Sources to copy from a stage on, the first to try first; none if no key poses are all in reach here.

        The first are drawn with odds that grow with their joint-limit margin.
        """
        engine = self.engine
        margins = self._skeleton.margins(engine.belief, engine.task, engine.connector.checker.kinematics, stage)
        feasible = np.flatnonzero(margins > 0)
        if not len(feasible):
            return []
        weights = np.minimum(margins[feasible], GOOD_MARGIN) ** 2 + 1e-3
        count = min(len(feasible), DRAWN_SOURCES)
        drawn = [int(source) for source in rng.choice(feasible, count, replace=False, p=weights / weights.sum())]
        rest = [int(source) for source in np.argsort(-margins, kind="stable") if margins[source] > 0]
        return drawn + [source for source in rest if source not in drawn]

    def _alike(self, source: int, stage: int) -> list[int]:
        """A source, then those that have been copied as much as it so far and that are within reach, the best first."""
        engine = self.engine
        others = self._skeleton.alike(source, engine.task, stage)
        others[source] = False
        if not others.any():
            return [source]
        margins = self._skeleton.margins(engine.belief, engine.task, engine.connector.checker.kinematics, stage)
        best = np.argsort(-margins, kind="stable")
        others &= margins > 0
        order = [source, *(int(other) for other in best if others[other])]
        # What the hand holds may lie a little otherwise than the source's hand held it.
        return order if margins[source] > 0 or len(order) == 1 else order[1:]

    def attempt(self, seed: tuple[int, int]) -> tuple[str, Demo | None]:
        """One attempt; returns "success" or where it failed, and the demonstration if it succeeded."""
        env = self._env
        rng = np.random.default_rng(seed)
        reset_seed = int(rng.integers(2**31))
        env.reset(seed=reset_seed)
        record: list[dict[str, Any]] = []
        sources: list[int] = []  # a stage
        for index in range(len(env.task.stages)):
            failure, source = self._stage(index, sources, rng, record)
            if failure:
                return failure, None
            sources.append(source)
            if index + 1 < len(env.task.stages):
                self.engine.enter_stage(index + 1)
        return "success", self._demo(record, {"seed": list(seed), "reset_seed": reset_seed, "sources": sources})

    def _stage(self, index: int, sources: list[int], rng: np.random.Generator, record: list[dict]) -> tuple[str, int]:
        """Do a stage, once more where its skill gets nowhere; returns "" or where it failed, and the source that it copied.

        Of skills that got nowhere nothing stays in ``record``.
        """
        env, engine = self._env, self.engine
        stage = env.task.stages[index]
        tried: list[int] = []
        while True:
            candidates = self.choose(rng, index) if index == 0 or stage.new_source else self._alike(sources[-1], index)
            if not candidates:
                return f"{stage.name}: unreachable", -1
            candidates.sort(key=tried.count)
            for source in candidates:
                connect = self._connect(index, self._sources[source][index], rng)
                if connect.plan.solved:
                    break  # else nothing has moved, and the hand of another source may have more room
            if connect.failure:
                return f"{stage.name}: connect ({connect.failure})", -1
            begun = len(record)
            if self._skill(index, self._sources[source][index], rng, record):
                return "", source
            tried.append(source)
            if engine.judge.failure() is not None or len(tried) == TRIES:
                return f"{stage.name}: skill", -1
            way_back = [
                env.sim.joints.copy(),
                *(row["state"][1:][env.sim.arm_qpos] for row in reversed(record[begun:])),
            ]
            del record[begun:]
            if stage.held is None:
                engine.open_hand()
            engine.retrace(np.array(way_back), OPEN if stage.held is None else CLOSE)

    def _to_hand(self, held: str | None) -> np.ndarray:
        """4x4 pose of the hand in the tool's frame."""
        return np.eye(4) if held is None else invert(self.engine.connector.in_hand(held))

    def _connect(self, index: int, segment: Segment, rng: np.random.Generator) -> Connect:
        engine = self.engine
        goal = engine.connector.goal(index, segment.start)
        metres, radians = self._start_noise
        if metres or radians:
            goal = goal @ matrix_from(rotvec_to_matrix(rng.normal(0.0, radians, 3)), rng.normal(0.0, metres, 3))
        ahead = tuple(engine.connector.goal(index, tool) for tool in (segment.middle, segment.tool[-1]))
        return engine.follow(engine.plan(goal, ahead), goal)

    def _skill(self, index: int, segment: Segment, rng, record: list[dict]) -> bool:
        """Follow one adapted segment in closed loop; returns whether the stage was finished."""
        env, engine = self._env, self.engine
        stage = env.task.stages[index]
        reference = env.task.object_pose(engine.belief, stage.reference)
        noise = np.zeros(6)
        to_hand = self._to_hand(stage.held)
        step, waited, held_end, after, calm = 0, 0, 0, 0, 0
        while True:
            if stage.held is not None:
                reference = env.task.object_pose(engine.belief, stage.reference)
            holding = stage.held is not None and step < segment.release
            if holding:  # what is let go stays behind; the hand goes on as if it were still in it
                to_hand = self._to_hand(stage.held)
            target = reference @ segment.tool[step] @ to_hand
            eef = env.sim.eef_pose()
            label = action_to_pose(eef, target, segment.gripper[step], GAIN)
            noise = self._memory * noise + np.sqrt(1 - self._memory**2) * self._noise * rng.normal(size=6)
            action = label.copy()
            action[:6] = np.clip(action[:6] + noise * NOISE_SHAPE, -1.0, 1.0)
            action = action.astype(np.float32)
            record.append(self._note(index, action, label, eef))
            engine.act(action.astype(np.float64))
            record[-1]["reached"] = engine.judge.finished
            if engine.judge.finished:
                after += 1
                if after > EXTRA_STEPS:
                    return True
            if engine.judge.failure() is not None:
                return False
            # Wait for a hand that was pushed off its way, as the operator would: it should be where his was.
            metres, radians = distance(eef, target)
            usual = distance(segment.actual[step], segment.tool[step])
            slack = SLACK_HELD if holding else SLACK_FREE
            calm = calm + 1 if metres <= usual[0] + slack[0] and radians <= usual[1] + slack[1] else 0
            if calm < (CALM_STEPS if holding and usual[0] < PRECISE else 1) and waited < MAX_WAIT:
                waited += 1
            elif step < len(segment) - 1:
                step += 1
            elif held_end < FINAL_STEPS:
                held_end += 1
            else:
                return False

    def _note(self, index: int, action, label, eef) -> dict[str, Any]:
        env = self._env
        return {
            "action": action,
            "label": label.astype(np.float32),
            "eef": eef,
            "state": np.concatenate([[env.data.time], env.data.qpos, env.data.qvel]),
            "objects": [env.task.object_pose(env.sim, name) for name in env.task.objects],
            "obs": self.engine.observe(),
            "stage": index,
            "finished": self.engine.judge.finished,
            "signals": [self.engine.stage > i for i, s in enumerate(env.task.stages) if s.signal],
        }

    def _demo(self, record: list[dict[str, Any]], attrs: dict[str, Any]) -> Demo:
        task = self._env.task

        def stack(key: str) -> np.ndarray:
            return np.stack([step[key] for step in record])

        actions, objects, signals = stack("action"), stack("objects").astype(np.float32), stack("signals")
        eef = stack("eef").astype(np.float32)
        names = [stage.signal for stage in task.stages if stage.signal]
        obs = stack("obs")
        done = np.arange(len(record)) == len(record) - 1
        return Demo(
            name="",
            actions=actions,
            states=stack("state"),
            obs={"state": obs},
            next_obs={"state": np.concatenate([obs[1:], self.engine.observe()[None]])},
            rewards=_rewards(stack("stage"), stack("reached"), len(task.stages)),
            dones=done.astype(np.int8),
            eef_pose=eef,
            target_pose=np.stack(
                [pose_of_action(pose, action) for pose, action in zip(eef, stack("label"), strict=True)]
            ).astype(np.float32),
            gripper_action=actions[:, 6:],
            object_poses={name: objects[:, i] for i, name in enumerate(task.objects)},
            subtask_term_signals={name: signals[:, i].astype(np.int8) for i, name in enumerate(names)},
            datagen_info={
                "stage": stack("stage").astype(np.int8),
                "label_action": stack("label"),
                "finished": stack("finished").astype(np.int8),
            },
            attrs=attrs,
        )


def _rewards(stage: np.ndarray, reached: np.ndarray, stages: int) -> np.ndarray:
    """What `Hybrid` pays: a stage's share when it is first finished, that of the last one at the end.

    Args:
        stage, reached: (T,) the stage of each step, and whether its action left that stage finished.
        stages: of the task.
    """
    rewards = np.zeros(len(stage))
    for index in range(stages - 1):
        rewards[np.flatnonzero((stage == index) & reached)[0]] = 1.0 / stages
    rewards[-1] = 1.0 - rewards.sum()
    return rewards


def make_adapter(args: Args) -> Adapter:
    """An adapter for the task, variant and sources that ``args`` name.

    Raises:
        DemoFileError: the source file is unusable.
        ValueError: unknown task or variant.
    """
    env = ManipulationEnv(args.task, args.variant)
    sources = cut_all(read_demos(args.source or source_file(args.task), args.task), TASKS[args.task])
    return Adapter(env, sources, args.action_noise, args.noise_memory, args.start_noise)


def _work(adapter: Adapter, job: tuple[int, int, int]) -> tuple[int, list[tuple[str, Demo | None]]]:
    seed, chunk, size = job
    return chunk, [adapter.attempt((seed, chunk * size + i)) for i in range(size)]


def _save_chunk(path: Path, results: list[tuple[str, Demo | None]]) -> None:
    arrays: dict[str, np.ndarray] = {"outcomes": np.array([outcome for outcome, _ in results])}
    for i, (_, demo) in enumerate(results):
        if demo is None:
            continue
        for key in ("actions", "eef_pose", "target_pose", "gripper_action", "states", "rewards", "dones"):
            arrays[f"{i}/{key}"] = getattr(demo, key)
        for group in ("object_poses", "subtask_term_signals", "obs", "next_obs", "datagen_info"):
            for name, array in getattr(demo, group).items():
                arrays[f"{i}/{group}/{name}"] = array
        arrays[f"{i}/attrs"] = np.array(json.dumps(demo.attrs))
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _load_chunk(path: Path) -> list[tuple[str, Demo | None]]:
    with np.load(path) as arrays:
        results: list[tuple[str, Demo | None]] = []
        for i, outcome in enumerate(arrays["outcomes"]):
            fields: dict[str, Any] = {}
            for key in arrays.files:
                parts = key.split("/")
                if parts[0] != str(i):
                    continue
                if len(parts) == 3:
                    fields.setdefault(parts[1], {})[parts[2]] = arrays[key]
                else:
                    fields[parts[1]] = json.loads(str(arrays[key])) if parts[1] == "attrs" else arrays[key]
            results.append((str(outcome), Demo(name="", **fields) if fields else None))
    return results


def generate(args: Args) -> dict[str, Any]:
    """Generate demonstrations and write them, or take up an interrupted run.

    Returns:
        attempts, successes and a count of every outcome.

    Raises:
        DemoFileError, InvalidArgument: unusable source, unknown task or variant, a number out of its range.
        GenerationError: too few successes within ``max_attempts``, or an unfinished run with other settings is in the way.
        WorkerError: a worker died; the same command goes on from where it was.
    """
    args = checked(args)
    check_output(args.out)
    shard = Shard.parse(args.shard)
    if args.shard is not None and args.max_attempts == DEFAULT_ATTEMPTS:
        raise InvalidArgument(
            f"shard {shard} needs max_attempts, which all parts make together whatever succeeds: a little more than "
            f"count / success rate, e.g. {round(1.5 * args.count)} for {args.count} demonstrations"
        )
    chunks = -(-args.max_attempts // CHUNK)
    if shard.count > chunks:
        raise InvalidArgument(
            f"max_attempts {args.max_attempts} are {chunks} parts of {CHUNK} attempts; use no more shards than that, or make at "
            f"least {CHUNK * shard.count} attempts"
        )
    make_adapter(args)  # complain before any process starts
    parts = args.out.with_name(args.out.name + ".parts")
    settings = {name: str(value) for name, value in asdict(args).items() if name not in _NOT_SETTINGS}
    attrs = {"settings": json.dumps(settings), **MEANING}
    if args.shard is not None:
        attrs |= {"shard": json.dumps({"shard": str(shard), "count": args.count, "max_attempts": args.max_attempts})}
    if not claim(parts / "settings.json", settings | ({} if args.shard is None else {"shard": shard})):
        raise GenerationError(
            f"{parts} holds an unfinished run with other settings; finish it with those, or delete the folder"
        )
    outcomes: dict[str, int] = {}
    attempts = successes = 0
    enough = args.count if args.shard is None else args.max_attempts
    env_args = {
        "env_name": env_id(args.task, args.variant, "Hybrid"),
        "env_version": "0",
        "type": 2,
        "env_kwargs": {"termination": "sustained"},
    }
    bar = tqdm(total=args.count if args.shard is None else None, unit="demo", disable=args.quiet)
    with bar, DemoWriter(args.out, env_args, attrs) as writer:
        for first, results in _chunks(args, shard, parts):
            for outcome, demo in results[: args.max_attempts - first]:
                if successes == enough:
                    break
                attempts += 1
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
                if demo is not None:
                    writer.add(demo)
                    successes += 1
                    bar.update()
            bar.set_postfix(attempts=attempts, success=f"{successes / attempts:.1%}")
            if successes == enough:
                break
        if successes < (args.count if args.shard is None else 1):
            raise GenerationError(
                f"{successes} of {args.count} demonstrations in {attempts} attempts; outcomes: {outcomes}. "
                "Raise --max-attempts, or look at the sources"
            )
    shutil.rmtree(parts)
    return {"attempts": attempts, "successes": successes, "outcomes": outcomes}


def _chunks(args: Args, shard: Shard, parts: Path) -> Iterator[tuple[int, list[tuple[str, Demo | None]]]]:
    """(number of the first attempt, results) chunk by chunk of the shard, in the order of attempts.

    From files of an interrupted run first, then from workers.
    """
    chunks = shard.of(range(-(-args.max_attempts // CHUNK)))
    made = 0
    while made < len(chunks) and (path := parts / f"{chunks[made]:06d}.npz").is_file():
        yield chunks[made] * CHUNK, _load_chunk(path)
        made += 1
    if made == len(chunks):
        return
    # All chunks are whole, so that the files still fit when the run is taken up with more attempts.
    jobs = ((args.seed, chunk, CHUNK) for chunk in chunks[made:])
    with open_workers(args.ray, args.workers, make_adapter, (args,), jobs=len(chunks) - made) as workers:
        for chunk, results in workers.map(_work, jobs):
            _save_chunk(parts / f"{chunk:06d}.npz", results)
            yield chunk * CHUNK, results


def command() -> None:
    """The command line."""
    cli.run(
        lambda args: print(json.dumps(generate(args), indent=2)),
        Args,
        example="--task Threading --variant D2 --count 1000 --out d2.hdf5",
    )


if __name__ == "__main__":
    command()
