# numba's own annotations leave the decorator's result unknown; compiled functions are called as the Python ones they are.
from collections.abc import Callable
from typing import TypeVar, overload

from . import config as config
from . import types as types

_Function = TypeVar("_Function", bound=Callable[..., object])

@overload
def njit(function: _Function, /) -> _Function: ...
@overload
def njit(
    signature: str | list[str] = ..., /, *, cache: bool = ..., nogil: bool = ..., fastmath: bool = ...
) -> Callable[[_Function], _Function]: ...
