"""Why an episode cannot go on: a place and a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Segment = Literal["connect", "skill"]


@dataclass(frozen=True)
class Failure:
    """A failure.

    Args:
        stage: name of the stage in which it happened.
        segment: "connect" or "skill".
        reason: e.g. "needle dropped", "no source within reach".
    """

    stage: str
    segment: Segment
    reason: str

    def __str__(self) -> str:
        return f"connect: {self.reason}" if self.segment == "connect" else self.reason
