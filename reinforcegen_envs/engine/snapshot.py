"""The one snapshot type: everything that a bit-exact replay needs, in every mode, and its form in files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from reinforcegen_envs.engine.judge import Verdict
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.policies.policy import Memory
from reinforcegen_envs.typing import Array

FORMAT = 1  # of `Snapshot`: grows whenever a part changes its meaning


class SnapshotError(InvalidArgument):
    """A snapshot lacks a part, or belongs to another task, controller, perception or version; nothing was changed."""


@dataclass(frozen=True)
class Snapshot:
    """A state of one engine and of everything that plays in it.

    Args:
        task, controller, perception: names of what it was taken from.
        simulation: (S,) physics and controller, see `CellState.get_state`.
        verdict: the judge's counters.
        rng: state of the environment's generator, or None: whoever restores it keeps theirs.
        belief: (S,) the believed cell, or None where it is the simulation; and what perception remembers.
        parts: name -> memory of everything else in play: policies, and the counters of wrappers.
        format: version of this type.
    """

    task: str
    controller: str
    perception: str
    simulation: Array
    verdict: Verdict
    rng: Memory | None
    belief: Array | None
    perception_memory: Memory
    parts: Mapping[str, Memory]
    format: int = FORMAT

    def check(self, task: str, controller: str, perception: str, parts: set[str]) -> None:
        """Check that this can be restored where these play.

        Raises:
            SnapshotError: it cannot.
        """
        for name, kind in (("format", int), ("verdict", Verdict), ("parts", Mapping)):
            if not isinstance(getattr(self, name), kind):
                raise SnapshotError(
                    f"snapshot whose {name} is {getattr(self, name)!r}; use one that get_state() returned"
                )
        if self.format != FORMAT:
            raise SnapshotError(f"snapshot of format {self.format!r}; this version reads {FORMAT}: take it again")
        for name, wanted in (("task", task), ("controller", controller), ("perception", perception)):
            there: object = getattr(self, name)
            if not isinstance(there, str) or there != wanted:
                raise SnapshotError(f"snapshot of {name} {getattr(self, name)!r}; this environment has {wanted!r}")
        if missing := sorted(parts - set(self.parts)):
            raise SnapshotError(
                f"snapshot lacks {missing}, which play in this environment; take it in one of the same mode and "
                f"arguments (it has {sorted(self.parts)})"
            )

    def without_rng(self) -> Snapshot:
        """The same without a generator."""
        return dataclasses.replace(self, rng=None)

    def to_arrays(self) -> dict[str, Array]:
        """A flat form for files: "document", a JSON text, and the arrays that it names."""
        arrays: dict[str, Array] = {}
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["verdict"] = {field.name: getattr(self.verdict, field.name) for field in dataclasses.fields(Verdict)}
        document = _flatten(fields, "", arrays)
        return {"document": np.array(json.dumps(document)), **arrays}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Snapshot:
        """The inverse of `to_arrays`.

        Raises:
            SnapshotError: a part is missing.
        """
        try:
            fields = _restore(json.loads(str(arrays["document"])), arrays)
            fields["verdict"] = Verdict(**fields["verdict"])
            return cls(**fields)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise SnapshotError(f"not a complete snapshot ({error}); take it again") from error


_ARRAY = "array:"


def _flatten(value: Any, path: str, arrays: dict[str, Array]) -> Any:
    """``value`` as JSON can hold it, its arrays put into ``arrays`` under their paths."""
    if isinstance(value, np.ndarray):
        arrays[path] = cast(Array, value)
        return _ARRAY + path
    if isinstance(value, Mapping):
        parts = cast("Mapping[str, Any]", value).items()
        return {key: _flatten(part, f"{path}/{key}" if path else key, arrays) for key, part in parts}
    if isinstance(value, (list, tuple)):
        return [_flatten(part, f"{path}/{i}", arrays) for i, part in enumerate(cast("list[Any]", value))]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise SnapshotError(
        f"{path} is a {type(value).__name__}; snapshots in files hold dictionaries, lists, arrays, numbers and strings: "
        "let get_memory return these"
    )


def _restore(document: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(document, str) and document.startswith(_ARRAY):
        return np.array(arrays[document[len(_ARRAY) :]])
    if isinstance(document, dict):
        return {key: _restore(part, arrays) for key, part in cast("dict[str, Any]", document).items()}
    if isinstance(document, list):
        return [_restore(part, arrays) for part in cast("list[Any]", document)]
    return document
