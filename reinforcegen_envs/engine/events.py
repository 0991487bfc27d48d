"""What happens in an engine, for whoever wants to know: to draw frames, to count, to measure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reinforcegen_envs.errors import InvalidArgument

Listener = Callable[..., Any]
EVENTS = {
    "control_step": "after every control step, those of connects included; no arguments",
    "connect_begun": "(plan): a connect was planned, solved or not, and is about to be followed",
    "connect_ended": "(connect): it was followed, or could not be",
    "stage_entered": "(stage index): the stage is the current one from now on",
    "stage_finished": "(stage index): the simulator says that it is finished, for the first time since it was entered",
}


class Events:
    """Listeners by event. They may read the engine and must not change it. Copies of an engine have no listeners."""

    def __init__(self) -> None:
        self._listeners: dict[str, tuple[Listener, ...]] = dict.fromkeys(EVENTS, ())

    def subscribe(self, event: str, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with the event's arguments whenever it happens; returns a function that ends this.

        Raises:
            InvalidArgument: no such event.
        """
        if event not in EVENTS:
            raise InvalidArgument(f"unknown event {event!r}; choose one of {sorted(EVENTS)}")
        self._listeners[event] += (listener,)

        def unsubscribe() -> None:
            self._listeners[event] = tuple(other for other in self._listeners[event] if other is not listener)

        return unsubscribe

    def emit(self, event: str, *arguments: Any) -> None:
        """Tell the event's listeners."""
        for listener in self._listeners[event]:
            listener(*arguments)

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._listeners = dict.fromkeys(EVENTS, ())
