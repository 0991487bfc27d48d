"""Parts of one piece of work for many machines: shard i of n takes every n-th item, beginning with the i-th."""

from __future__ import annotations

import re
from dataclasses import dataclass

from reinforcegen_envs.errors import InvalidArgument


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts; the first has number 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Shard:
        """The shard that "3/16" names; None is all of the work.

        Raises:
            InvalidArgument: it is not of that form, or there is no such shard.
        """
        if text is None:
            return cls()
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise InvalidArgument(f"shard is {text!r}; it must be i/n with i from 1 to n, e.g. 1/16 to 16/16")
        return cls(int(found[1]), int(found[2]))

    def of(self, items: range) -> range:
        """The shard's items, in their order."""
        return items[self.number - 1 :: self.count]

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
