"""Arguments of commands: the values that a number may have stand in its annotation, and are checked in one place.

`checked` also turns what callers naturally pass (numpy's numbers, a string for a path) into plain Python values, which
files can hold.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
import types
from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from reinforcegen_envs.errors import InvalidArgument

ArgsType = TypeVar("ArgsType")


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


def missing_arguments(function: Callable[..., object]) -> str:
    """What a function cannot be called without, in Python's words; "" if nothing, as far as it tells."""
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        return str(error)
    except ValueError:  # a compiled one that does not tell
        pass
    return ""


def checked(args: ArgsType) -> ArgsType:
    """A copy of ``args``, a dataclass, in plain Python values, of the declared kinds and within the declared ranges.

    Raises:
        InvalidArgument: an argument is not; the message names all that are not.
    """
    assert dataclasses.is_dataclass(args) and not isinstance(args, type)
    kinds = get_type_hints(type(args), include_extras=True)
    values, wrong = {}, []
    for field in dataclasses.fields(args):
        value = getattr(args, field.name)
        try:
            values[field.name] = _plain(value, kinds[field.name])
        except ValueError as error:
            wrong.append(f"{field.name} is {value!r}; it must be {error}")
    if wrong:
        raise InvalidArgument("; ".join(wrong))
    return dataclasses.replace(args, **values)


def _plain(value: Any, kind: Any) -> Any:
    """``value`` as a plain Python object of an annotated kind; the ValueError says what it must be instead."""
    origin, parameters = get_origin(kind), get_args(kind)
    if origin is Annotated:
        value = _plain(value, parameters[0])
        for allowed in parameters[1:]:
            if isinstance(allowed, Range) and value not in allowed:
                raise ValueError(str(allowed))
        return value
    if origin in (Union, types.UnionType):  # something or None
        (something,) = (parameter for parameter in parameters if parameter is not types.NoneType)
        return None if value is None else _plain(value, something)
    if origin is tuple and parameters[1:] == (...,):
        if not isinstance(value, (tuple, list)):
            raise ValueError("a sequence")
        try:
            return tuple(_plain(v, parameters[0]) for v in value)
        except ValueError as error:
            raise ValueError(f"a sequence, of which each is {error}") from None
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
