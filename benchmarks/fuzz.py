"""Nonsense put into everything that takes input: only errors of this package or of Gymnasium may come out.

    python benchmarks/fuzz.py --inputs 5000

Arguments of ids, actions, seeds, reset options, snapshots, and damaged files of demonstrations, weights, key poses and pools.
After a refused input an environment must go on as if it had not been there. Input i is drawn from the seed and i alone, so
``--first I --inputs 1`` repeats one. Exits with 1 if anything else came out.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import dataclasses
import multiprocessing
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from reinforcegen_envs import cli
from reinforcegen_envs.arguments import Count, CountOrZero
from reinforcegen_envs.demos.hdf5 import read_demos
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.engine import Snapshot
from reinforcegen_envs.errors import ReinforceGenError
from reinforcegen_envs.ids import env_id
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.registration import ARGUMENTS, MODES
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.wrappers.pool import StartPool

SLOW = 20.0  # seconds after which an input counts as a hang: a reset that searches may take one or two
TASK = "Threading"


@dataclass
class Args:
    """Put nonsense into the public interface, and count what comes out."""

    inputs: Count = 5_000
    """how many"""
    first: CountOrZero = 0
    """number of the first one"""
    seed: CountOrZero = 0
    """of all draws"""
    quiet: bool = False
    """no progress bar"""


class Fuzz:
    """Draws inputs and feeds them. Environments are made once, and must outlive every input.

    Args:
        folder: for files.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.envs = {mode: gym.make(env_id(TASK, "D1", mode), disable_env_checker=True) for mode in MODES}
        self.states: dict[str | None, Snapshot] = {}
        for mode, env in self.envs.items():
            env.reset(seed=0)
            self.states[mode] = env.get_wrapper_attr("get_state")()
        self.pool = folder / "pool.npz"
        skill = gym.make(env_id(TASK, "D1", "Skill"), stage="insert", disable_env_checker=True)
        snapshots = []
        for seed in range(3):
            skill.reset(seed=seed)
            snapshots.append(skill.get_wrapper_attr("get_state")())
        StartPool.of(snapshots, {"task": TASK, "variant": "D1", "stage": "insert", "perception": "truth"}).save(
            self.pool
        )

    def kinds(self) -> dict[str, Callable[[np.random.Generator], None]]:
        """What is fed, by name."""
        return {
            "arguments": self.arguments, "actions": self.actions, "seeds": self.seeds, "options": self.options,
            "snapshots": self.snapshots, "demonstrations": self.demonstrations, "weights": self.weights, "pools": self.pools,
        }  # fmt: skip

    # --- what is drawn ---

    def nonsense(self, rng: np.random.Generator, depth: int = 0) -> Any:
        """Any value."""
        plain = [
            None, True, False, 0, 1, -1, 7, 10**30, -0.0, 0.5, float("nan"), float("inf"), -1e300, 1j, np.float32(3), np.nan,
            "", "grasp", "D2", "truth", "student", "x" * 1000, "\x00", "/", b"bytes", Path("nowhere"),
            (), [], {}, set(), range(3), object(), int, len,
            np.zeros(7), np.zeros((7, 1)), np.full(7, np.nan), np.array("a"), np.zeros(0), np.arange(7), np.array([None] * 7),
        ]  # fmt: skip
        choice = int(rng.integers(len(plain) + 3))
        if choice < len(plain) or depth > 2:
            return plain[choice % len(plain)]
        several = [self.nonsense(rng, depth + 1) for _ in range(int(rng.integers(1, 8)))]
        return [several, tuple(several), {str(i): value for i, value in enumerate(several)}][choice - len(plain)]

    def damaged(self, source: Path, rng: np.random.Generator) -> Path:
        """A copy of a file that is cut, or has other bytes in some places."""
        content = bytearray(source.read_bytes())
        if rng.random() < 0.3:
            content = content[: int(rng.integers(len(content)))]
        else:
            # Where names, shapes and sizes are, more often than among the numbers.
            end = len(content) if rng.random() < 0.5 else min(4000, len(content))
            for place in rng.integers(0, end, int(rng.integers(1, 40))):
                content[place] = int(rng.integers(256))
        target = self.folder / f"damaged{source.suffix}"
        target.write_bytes(content)
        return target

    # --- where it is put ---

    def arguments(self, rng: np.random.Generator) -> None:
        """Of an id, which is played for a step if they are accepted."""
        mode = MODES[int(rng.integers(len(MODES)))]
        # Not render_mode, whose type Gymnasium itself takes for granted.
        names = [*(name for name in ARGUMENTS[mode] if name != "render_mode"), "nothing"]
        kwargs = {names[int(rng.integers(len(names)))]: self.nonsense(rng) for _ in range(int(rng.integers(1, 4)))}
        if isinstance(kwargs.get("pool"), str) and kwargs["pool"] == "auto":
            return  # two hundred starts
        env = gym.make(env_id(TASK, "D1", mode), disable_env_checker=True, **kwargs)
        try:
            env.reset(seed=0)
            env.step(env.action_space.sample())
        finally:
            env.close()

    def actions(self, rng: np.random.Generator) -> None:
        """In every mode; the environment goes on from where it was."""
        mode, env = self._env(rng)
        env.get_wrapper_attr("set_state")(self.states[mode])
        before = env.get_wrapper_attr("get_state")().simulation
        try:
            env.step(self.nonsense(rng))
        except Exception:
            assert np.array_equal(env.get_wrapper_attr("get_state")().simulation, before), (
                "a refused action moved something"
            )
            env.step(np.zeros(7, np.float32))
            raise

    def seeds(self, rng: np.random.Generator) -> None:
        """Of a reset."""
        _, env = self._env(rng)
        env.reset(seed=self.nonsense(rng))

    def options(self, rng: np.random.Generator) -> None:
        """Of a reset, with names that there are and names that there are not."""
        _, env = self._env(rng)
        names = ["joints", "layout", "stage", "start", "nothing"]
        options: Any = {
            names[int(rng.integers(len(names)))]: self.nonsense(rng) for _ in range(int(rng.integers(1, 3)))
        }
        if rng.random() < 0.2:
            options = self.nonsense(rng)
        elif "layout" in options and rng.random() < 0.7:
            options["layout"] = {
                name: self.nonsense(rng) for name in ("needle", "tripod", "nothing")[: int(rng.integers(1, 4))]
            }
        env.reset(seed=0, options=options)

    def snapshots(self, rng: np.random.Generator) -> None:
        """One entry of a snapshot is another thing; the environment is as it was, or plays on."""
        mode, env = self._env(rng)
        env.get_wrapper_attr("set_state")(self.states[mode])
        fields = [field.name for field in dataclasses.fields(Snapshot)]
        changed = dataclasses.replace(self.states[mode], **{fields[int(rng.integers(len(fields)))]: self.nonsense(rng)})
        before = env.get_wrapper_attr("get_state")().simulation
        try:
            env.get_wrapper_attr("set_state")(changed)
        except Exception:
            assert np.array_equal(env.get_wrapper_attr("get_state")().simulation, before), (
                "a refused snapshot changed something"
            )
            env.step(np.zeros(7, np.float32))
            raise
        env.step(np.zeros(7, np.float32))

    def demonstrations(self, rng: np.random.Generator) -> None:
        """A damaged file of demonstrations, in a process of its own: libhdf5 itself, which reads it, never ends on some."""
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_read, args=(self.damaged(source_file(TASK), rng), sender))
        process.start()
        ended = receiver.poll(SLOW)
        if not ended:
            process.kill()
        process.join()
        if not ended:
            raise TimeoutError(f"not read in {SLOW:.0f} s")
        try:
            outcome = receiver.recv()
        except EOFError:
            raise ChildProcessError(f"the reader ended with {process.exitcode}") from None
        if outcome is not None:
            raise outcome

    def weights(self, rng: np.random.Generator) -> None:
        """A folder of weights of which one file is damaged."""
        folder = self.folder / "weights"
        if not folder.is_dir():
            shutil.copytree(Bundle.open(TASKS[TASK]).folder, folder)
        files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".npz", ".json"))
        file = files[int(rng.integers(len(files)))]
        whole = file.read_bytes()
        try:
            shutil.copyfile(self.damaged(file, rng), file)
            Bundle.open(TASKS[TASK], folder).check()
            Bundle.open(TASKS[TASK], folder).list()
        finally:
            file.write_bytes(whole)

    def pools(self, rng: np.random.Generator) -> None:
        """A damaged pool of starts."""
        env = gym.make(
            env_id(TASK, "D1", "Skill"), stage="insert", pool=self.damaged(self.pool, rng), disable_env_checker=True
        )
        env.reset(seed=0)
        env.step(np.zeros(7, np.float32))

    def _env(self, rng: np.random.Generator) -> tuple[str | None, gym.Env]:
        mode = MODES[int(rng.integers(len(MODES)))]
        return mode, self.envs[mode]


def _read(path: Path, sender: Any) -> None:
    """Read demonstrations; sends what was raised, or None."""
    try:
        read_demos(path, TASK)
    except Exception as error:
        sender.send(error)
    else:
        sender.send(None)


def feed(fuzz: Fuzz, seed: int, number: int) -> tuple[str, str]:
    """Draw and feed one input; returns its kind, and what came out: "accepted", "refused", or what is wrong."""
    rng = np.random.default_rng([seed, number])
    kinds = fuzz.kinds()
    kind = list(kinds)[number % len(kinds)]
    began = time.monotonic()
    outcome = "accepted"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kinds[kind](rng)
    except (ReinforceGenError, gym.error.Error) as error:
        outcome = "refused" if str(error).strip() else "refused without a word"
    except Exception as error:
        outcome = f"{type(error).__name__}: {str(error)[:300]}"
    if (seconds := time.monotonic() - began) > SLOW:
        outcome = f"took {seconds:.0f} s"
    return kind, outcome


def main(args: Args) -> None:
    """Feed all inputs, print what came out.

    Raises:
        SystemExit: 1 if one had another outcome than being accepted or refused.
    """
    counts: Counter[tuple[str, str]] = Counter()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz(Path(folder))
        numbers = range(args.first, args.first + args.inputs)
        for number in tqdm(numbers, unit="input", disable=args.quiet):
            kind, outcome = feed(fuzz, args.seed, number)
            if outcome in ("accepted", "refused"):
                counts[kind, outcome] += 1
            else:
                bad += 1
                tqdm.write(f"input {number}, {kind}: {outcome}")
    for (kind, outcome), count in sorted(counts.items()):
        print(f"{kind:<16} {outcome:<10} {count}")
    print(f"{args.inputs} inputs, {bad} with another outcome")
    if bad:
        raise SystemExit(1)


if __name__ == "__main__":
    cli.run(main, Args, __doc__, "--inputs 5000")
