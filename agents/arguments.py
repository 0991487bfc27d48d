"""Arguments that every trainer has; the values that a number may have stand in its annotation, and are checked once.

`checked` also turns what callers naturally pass (numpy's numbers, a string for a path) into plain Python values, which
checkpoints and cards can hold.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import types
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from reinforcegen_envs.errors import InvalidArgument

ArgsType = TypeVar("ArgsType", bound="RunArgs")


@dataclasses.dataclass(frozen=True)
class Range:
    """The values from ``low`` to ``high``, both included unless ``above`` excludes ``low``; NaN never is one of them."""

    low: float
    high: float = sys.float_info.max  # so infinity must be allowed explicitly
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {self.low:.10g}"
        if self.high == float("inf"):
            return f"{low}, or inf for no limit"
        if self.low == -sys.float_info.max:
            return "finite"
        return low if self.high == sys.float_info.max else f"{low} and at most {self.high:.10g}"


Count = Annotated[int, Range(1)]
CountOrZero = Annotated[int, Range(0)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Finite = Annotated[float, Range(-sys.float_info.max)]
NotNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
Limit = Annotated[float, Range(0, float("inf"), above=True)]
Fraction = Annotated[float, Range(0, 1)]
PositiveFraction = Annotated[float, Range(0, 1, above=True)]


@dataclasses.dataclass
class RunArgs:
    """Arguments of every trainer."""

    env_id: str = "ReinforceGen/D2-Threading-Residual-v0"
    """environment id; any id with one flat observation and a continuous action works"""
    stage: str | None = None
    """train this stage's skill alone; None: the whole task (this and the next seven: ReinforceGen ids only)"""
    pose_noise: tuple[NotNegative, NotNegative] | None = None
    """noise on the initiation pose: metres, radians; None: the environment's own default"""
    pool: Path | None = None
    """file of start states for training; None: earlier stages run live on every reset"""
    residual_scale: PositiveFraction | None = None
    """how much of the action range the residual covers; None: the environment's own default"""
    base_policy: Path | None = None
    """weights of the base policy; None: those in `weights`"""
    weights: Path | None = None
    """folder of base weights and predictors; None: the shipped one. If the base policy is the folder's, the trained
    residual is put there too, as residual-STAGE.safetensors, for evaluation with the same --weights"""
    termination: str | None = None
    """"predicate", "sustained" or "predictor"; None: the environment's own default"""
    initiation: str | None = None
    """"teacher" or "student"; None: the environment's own default"""
    eval_pool: Path | None = None
    """file of held-out start states for evaluation; None: the one of `pool`"""
    num_envs: Count = 8
    """environments stepped side by side"""
    num_threads: CountOrZero = 0
    """threads that step them; 0: one for every core that this process may use. The result does not depend on it"""
    total_steps: Count = 60_000
    """control steps of training, all environments together"""
    seed: Seed = 1
    """seed of everything random: networks, exploration, batches, training environments"""
    run_name: str | None = None
    """name of the run's folder; None: made from algorithm, id, stage and seed"""
    runs_dir: Path = Path("runs")
    """folder of all runs"""
    resume: bool = False
    """go on from the run's last checkpoint, with the same arguments (total_steps may grow)"""
    overwrite: bool = False
    """start anew though the run's folder already holds a checkpoint"""
    checkpoint_every: CountOrZero = 20_000
    """control steps between checkpoints; 0: only one, at the end"""
    log_every: CountOrZero = 1_000
    """control steps between rows of progress.csv; 0: only those of evaluations"""
    eval_every: CountOrZero = 10_000
    """control steps between evaluations; 0: only at the end"""
    eval_episodes: Count = 100
    """episodes of an evaluation during training"""
    final_episodes: Count = 200
    """episodes of the evaluation at the end"""
    torch_threads: Count = 1
    """threads of torch; small networks gain nothing from more"""

    def conflicts(self) -> list[str]:
        """What is wrong with arguments that are allowed one by one."""
        return ["resume goes on and overwrite starts anew; choose one"] if self.resume and self.overwrite else []


def checked(args: ArgsType) -> ArgsType:
    """A copy of ``args`` in plain Python values, of the declared kinds and within the declared ranges.

    Raises:
        InvalidArgument: an argument is not; the message names all that are not.
    """
    kinds = get_type_hints(type(args), include_extras=True)
    values, wrong = {}, []
    for field in dataclasses.fields(args):
        value = getattr(args, field.name)
        try:
            values[field.name] = _plain(value, kinds[field.name])
        except ValueError as error:
            wrong.append(f"{field.name} is {value!r}; it must be {error}")
    args = dataclasses.replace(args, **values)
    if wrong := wrong or args.conflicts():
        raise InvalidArgument("; ".join(wrong))
    return args


def saved_arguments(args: RunArgs) -> dict[str, Any]:
    """Name -> value for a checkpoint, which holds no paths."""
    values: Mapping[str, Any] = dataclasses.asdict(args)
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _plain(value: Any, kind: Any) -> Any:
    """``value`` as a plain Python object of an annotated kind; the ValueError says what it must be instead."""
    origin, parameters = get_origin(kind), get_args(kind)
    if origin is Annotated:
        value, allowed = _plain(value, parameters[0]), parameters[1]
        if value not in allowed:
            raise ValueError(str(allowed))
        return value
    if origin in (Union, types.UnionType):  # something or None
        (something,) = (parameter for parameter in parameters if parameter is not types.NoneType)
        return None if value is None else _plain(value, something)
    if origin is tuple:
        if not isinstance(value, (tuple, list, np.ndarray)) or len(value) != len(parameters):
            raise ValueError(f"{len(parameters)} numbers")
        try:
            return tuple(_plain(v, parameter) for v, parameter in zip(value, parameters, strict=True))
        except ValueError as error:
            raise ValueError(f"{len(parameters)} numbers, each {error}") from None
    if kind is Path and isinstance(value, (str, os.PathLike)):
        return Path(value)
    if kind is str and isinstance(value, str):
        return str(value)
    if isinstance(value, (bool, np.bool_)) or kind is bool:
        if kind is not bool or not isinstance(value, (bool, np.bool_)):
            raise ValueError(_NAMES[kind])
        return bool(value)
    if kind is float and isinstance(value, Real):
        return float(value)
    if kind is int and isinstance(value, Integral):
        return int(value)
    raise ValueError(_NAMES[kind])


_NAMES = {Path: "a path", str: "a text", bool: "True or False", float: "a number", int: "an integer"}
