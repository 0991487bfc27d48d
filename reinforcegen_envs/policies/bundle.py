"""A folder of weights as a type: what deployment needs of one task, checked, with cards that say where it comes from.

    bundle = Bundle.open(ThreadingTask, "weights")
    bundle.base(), bundle.tuned(), bundle.termination(), bundle.initiation(), bundle.skeleton()

A folder holds ``base``, ``termination`` and ``initiation.safetensors``, ``residual-STAGE.safetensors`` for tuned stages
(``residual-all`` for one network that serves all), ``foresight.safetensors`` where it was trained, a JSON card beside each,
``skeleton.npz``, and ``evaluation.json``. Residuals and termination that were trained under another perception than the truth are
in a folder in it, named after the perception (``camera/``); what is not there is the truth's. ``camera_errors.json`` says how
wrong the camera's beliefs are.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.files import as_path, atomic_path
from reinforcegen_envs.observations import ObservationLayout
from reinforcegen_envs.planning.skeleton import Skeleton
from reinforcegen_envs.policies.mlp import MLP, WeightsError, load_mlps, save_mlps
from reinforcegen_envs.policies.predictors import ForesightPredictor, InitiationPredictor, TerminationPredictor
from reinforcegen_envs.policies.residual import ResidualPolicy, TunedPolicy
from reinforcegen_envs.policies.skill import SkillPolicy
from reinforcegen_envs.policies.weights_file import read_weights
from reinforcegen_envs.tasks import TASKS, Task

SHIPPED = Path(__file__).with_name("weights")
KINDS = ("base", "termination", "initiation", "foresight")
TRUTH = "truth"
SUFFIXES = {"skeleton": "npz", "evaluation": "json", "camera_errors": "json"}  # of parts that are not networks
STANDS_FOR = {"camera_errors": "camera"}  # perception -> the one whose weights it trains, and acts with


@dataclass(frozen=True)
class Part:
    """One file of a folder of weights.

    Args:
        name: "base", "residual-grasp", "skeleton", "evaluation" ...
        path: the file.
        card: what is known of it; {} where there is no card.
        results: what was evaluated -> success, interval and how, where that is known.
    """

    name: str
    path: Path
    card: dict[str, Any]
    results: dict[str, dict[str, Any]]


class Bundle:
    """The weights of one task in one folder. Parts are read when asked for, and written one by one.

    Args:
        task: the task class.
        folder: where they are, or will be; see `open` for one that must exist.
        perception: name of the perception that they act under; residuals and termination of its own take the place of others.
    """

    def __init__(self, task: type[Task], folder: str | os.PathLike[str], perception: str = TRUTH):
        self.task, self.folder, self.perception = task, Path(folder), perception

    @classmethod
    def open(
        cls, task: type[Task] | str, folder: str | os.PathLike[str] | None = None, perception: str = TRUTH
    ) -> Bundle:
        """The weights in a folder; None means those that come with the package.

        Args:
            task: the task class, or its name.
            folder, perception: see the class.

        Raises:
            InvalidArgument: there is no such task.
            WeightsError: there is no such folder.
        """
        if isinstance(task, str):
            if task not in TASKS:
                raise InvalidArgument(f"unknown task {task!r}; choose one of {sorted(TASKS)}")
            task = TASKS[task]
        path = as_path(folder, "weights") if folder is not None else SHIPPED / task.name.lower()
        if not path.is_dir():
            if folder is None:
                shipped = sorted(p.name for p in SHIPPED.glob("*") if p.is_dir())
                raise WeightsError(
                    f"no weights are shipped for {task.name} (there are some for {shipped}); "
                    "train them with python -m reinforcegen_envs.agents.bc and name their folder (weights=...)"
                )
            raise WeightsError(f"no weights folder {path}; train one with python -m reinforcegen_envs.agents.bc")
        return cls(task, path, perception)

    def path(self, name: str) -> Path:
        """Where a part is or would be: one of `KINDS`, "residual-STAGE", "skeleton", "evaluation", "estimator",
        "camera_errors"."""
        own = self._own(name)
        return own if own.is_file() else self.folder / own.name

    def _own(self, name: str) -> Path:
        """Where a part of this perception belongs."""
        folder = self.folder
        if self.perception != TRUTH and (name == "termination" or name.startswith("residual-")):
            folder = folder / STANDS_FOR.get(self.perception, self.perception)
        return folder / f"{name}.{SUFFIXES.get(name, 'safetensors')}"

    def _to_write(self, name: str) -> Path:
        """Like `_own`, in a folder that is there."""
        path = self._own(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    # --- reading ---

    def base(self) -> SkillPolicy:
        """The base policy.

        Raises:
            WeightsError: missing, damaged, or made for another task, version or observation.
        """
        return SkillPolicy.load(self.path("base"), self.task)

    def termination(self) -> TerminationPredictor:
        """The termination predictor; raises like `base`."""
        return TerminationPredictor.load(self.path("termination"), self.task)

    def initiation(self) -> InitiationPredictor:
        """The initiation predictor; raises like `base`."""
        return InitiationPredictor.load(self.path("initiation"), self.task)

    def foresight(self) -> ForesightPredictor:
        """The predictor of later stages' success, which training alone uses; raises like `base`."""
        return ForesightPredictor.load(self.path("foresight"), self.task)

    def skeleton(self) -> Skeleton:
        """Key poses of the source demonstrations.

        Raises:
            WeightsError: missing, damaged, or of another task.
        """
        path = self.path("skeleton")
        try:
            skeleton = Skeleton.load(path)
        except ValueError as error:
            raise WeightsError(str(error)) from error
        stages = len(self.task.stages)
        if skeleton.tools.ndim != 5 or skeleton.tools.shape[1] != stages:
            raise WeightsError(
                f"{path} holds key poses of shape {skeleton.tools.shape}; {self.task.name} has {stages} stages: "
                "(sources, stages, 3, 4, 4) is needed"
            )
        return skeleton

    def residual_files(self) -> Sequence[Path]:
        """The residual weights there are, one file a stage."""
        folders = (self.folder, self._own("residual-").parent)
        return [self.path(name) for name in sorted({p.stem for f in folders for p in f.glob("residual-*.safetensors")})]

    def residual(self) -> tuple[ResidualPolicy, float]:
        """The residual policy, zero for stages without one, and the residual scale that it was trained with.

        Raises:
            WeightsError: there are no residual weights, or unusable ones, or of different scales.
        """
        if not (paths := self.residual_files()):
            raise WeightsError(f"no residual weights in {self.folder}; train some, or use the policy base")
        return ResidualPolicy.load(paths, self.task, ObservationLayout.of(self.task, base_action=True).size)

    def residual_or_zero(self) -> tuple[ResidualPolicy, dict[str, Any]]:
        """The residual policy, zero where none is tuned, and the arguments that its environment must be made with; raises like
        `residual`."""
        if not self.residual_files():
            return ResidualPolicy(self.task, {}), {}
        policy, scale = self.residual()
        return policy, {"residual_scale": scale}

    def tuned(self) -> TunedPolicy:
        """Base and residual policies as one; raises like `residual`."""
        residual, scale = self.residual()
        return TunedPolicy(self.task, self.base(), residual, scale)

    def tuned_or_base(self) -> TunedPolicy | SkillPolicy:
        """The best policy that there is: `tuned` if a stage has a residual, else `base`."""
        return self.tuned() if self.residual_files() else self.base()

    def deployed(self) -> dict[str, dict[str, Any]] | None:
        """How these weights were evaluated: setting -> success, interval, episodes, command ...; None if that is not known.

        Raises:
            WeightsError: evaluation.json is damaged.
        """
        path = self.path("evaluation")
        if not path.is_file():
            return None
        try:
            rows = json.loads(path.read_text())
            return {str(name): dict(row) for name, row in rows.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"{path} is not a complete evaluation ({error}); remove it, or evaluate again"
            ) from error

    def check(self) -> None:
        """Whether everything that deployment needs is there and fits together; residual and foresight weights may be missing.

        Raises:
            WeightsError: a part is missing, damaged, made for another task, version, observation or scale, or copies other
                source demonstrations than the skeleton has.
        """
        self.base()
        self.termination()
        sources, ranked = len(self.skeleton().tools), self.initiation().sources
        if sources != ranked:
            raise WeightsError(
                f"{self.folder}: the initiation predictor ranks {ranked} source demonstrations, the skeleton has {sources}; "
                "train both in one run of python -m reinforcegen_envs.agents.bc"
            )
        if self.residual_files():
            self.residual()
        if self.path("foresight").is_file():
            self.foresight()
        self.deployed()

    def list(self) -> Sequence[Part]:
        """What is there, with success where it is known: of the whole from evaluation.json, of residuals from their cards.

        What serves one perception alone is named after its folder, too: ``camera/residual-insert``.

        Raises:
            WeightsError: a file is damaged, or of another task.
        """
        parts: list[Part] = []
        files = [self.path(name) for name in KINDS if self.path(name).is_file()] + list(self.residual_files())
        files += sorted(p for name in ("residual-*", "termination") for p in self.folder.glob(f"*/{name}.safetensors"))
        for path in dict.fromkeys(files):
            _, card = load_mlps(path, task=self.task.name)
            results = {"as trained": dict(card["evaluation"])} if card.get("evaluation") else {}
            parts.append(Part(path.relative_to(self.folder).with_suffix("").as_posix(), path, card, results))
        if self.path("skeleton").is_file():
            parts.append(Part("skeleton", self.path("skeleton"), {"sources": len(self.skeleton().tools)}, {}))
        if self.path("estimator").is_file():
            _, card = read_weights(self.path("estimator"), None, "train it again", {"task": self.task.name})
            parts.append(Part("estimator", self.path("estimator"), card, {}))
        if (deployed := self.deployed()) is not None:
            parts.append(Part("evaluation", self.path("evaluation"), {}, deployed))
        return parts

    # --- writing ---

    def save(self, kind: str, networks: Mapping[str, MLP], card: Mapping[str, Any]) -> Path:
        """Write the networks of the base policy or of a predictor; returns the file.

        Args:
            kind: one of `KINDS`.
            networks: stage name -> network; of foresight every stage's but the last's.
            card: where they come from; task, kind, version and observation size are added.

        Raises:
            InvalidArgument: unknown kind, or other stages than the task has.
        """
        if kind not in KINDS:
            raise InvalidArgument(f"unknown kind {kind!r}; choose one of {KINDS}")
        stages, before = self.task.stages, ""
        if kind == "foresight":
            stages, before = stages[:-1], " before the last"
        if set(networks) != (names := {stage.name for stage in stages}):
            raise InvalidArgument(
                f"networks for stages {sorted(networks)}; {self.task.name} has {sorted(names)}{before}"
            )
        size = ObservationLayout.of(self.task).size
        full = {**card, "task": self.task.name, "kind": kind, "observation_size": size}
        path = self._to_write(kind)
        save_mlps(path, networks, full)
        return path

    def save_residual(self, stage: str | None, network: MLP, card: Mapping[str, Any]) -> Path:
        """Write a stage's residual network, None for one that serves all stages; returns the file.

        Args:
            stage: name of the stage, or None.
            network: over the observation with base action.
            card: where it comes from, "residual_scale" included; task, kind, version and observation size are added.

        Raises:
            InvalidArgument: no such stage, or no "residual_scale".
        """
        name = stage if stage is not None else "all"
        if name not in ("all", *(s.name for s in self.task.stages)):
            raise InvalidArgument(f"no stage {name!r}; {self.task.name} has {[s.name for s in self.task.stages]}")
        if "residual_scale" not in card:
            raise InvalidArgument('the card lacks "residual_scale"; say what residuals are multiplied with')
        path = self._to_write(f"residual-{name}")
        full = {
            **card,
            "task": self.task.name,
            "kind": "residual",
            "stage": name,
            "observation_size": network.input_size,
        }
        save_mlps(path, {name: network}, full)
        return path

    def save_skeleton(self, skeleton: Skeleton) -> Path:
        """Write the key poses; returns the file."""
        skeleton.save(self.path("skeleton"))
        return self.path("skeleton")

    def save_evaluation(self, results: Mapping[str, Mapping[str, Any]]) -> Path:
        """Write how the weights were evaluated, setting -> result; returns the file."""
        with atomic_path(self.path("evaluation")) as temporary:
            temporary.write_text(json.dumps(results, indent=2) + "\n")
        return self.path("evaluation")

    def install(self, file: str | os.PathLike[str]) -> Path:
        """Copy residual weights that a trainer wrote, with their card, to where their stage's belong; returns the new file.

        Raises:
            WeightsError: unusable weights, of several stages, or of another scale than those of the other stages.
        """
        file = Path(file)
        size = ObservationLayout.of(self.task, base_action=True).size
        _, scale = ResidualPolicy.load([file], self.task, size)
        networks, card = load_mlps(file)
        if len(networks) != 1:
            raise WeightsError(f"{file} holds networks for {sorted(networks)}; one stage a file is needed")
        target = self._to_write(f"residual-{next(iter(networks))}")
        others = [path for path in self.residual_files() if path.name != target.name]
        if others and (there := ResidualPolicy.load(others, self.task, size)[1]) != scale:
            raise WeightsError(
                f"{file} has residual scale {scale}, the other stages' in {self.folder} have {there}; train it with "
                f"--residual-scale {there}, or remove those"
            )
        if file.resolve() != target.resolve():
            with atomic_path(target) as temporary:
                shutil.copyfile(file, temporary)
            with atomic_path(target.with_suffix(".json")) as temporary:
                temporary.write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
        return target

    def remove(self, name: str) -> None:
        """Delete a part and its card.

        Raises:
            InvalidArgument: there is no such part.
        """
        files = [
            *self.folder.glob("*.safetensors"),
            *self.residual_files(),
            self.path("skeleton"),
            self.path("evaluation"),
        ]
        there = sorted(path.stem for path in files if path.is_file())
        if name not in there:
            raise InvalidArgument(f"no part {name!r} in {self.folder}; there are {there}")
        path = self.path(name)
        path.unlink()
        if path.suffix == ".safetensors":
            path.with_suffix(".json").unlink(missing_ok=True)
