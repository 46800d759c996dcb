"""What pools and servers announce, and who listens.

A callback is called on the loop with one value. What it raises is logged: an
observer must not be able to end what it observes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from supervisor.errors import OptionError
from supervisor.job import Exit

logger = logging.getLogger("greenroom.events")

Callback = Callable[[Any], object]


@dataclass(frozen=True)
class WorkerWarm:
    """A worker is warm: ``setup_fnc`` took so many seconds in it."""

    pid: int | None
    seconds: float


@dataclass(frozen=True)
class WorkerExited:
    """A worker is gone: how its process ended, and how many jobs it had served."""

    pid: int | None
    exit: Exit | None
    jobs_served: int


@dataclass(frozen=True)
class Draining:
    """The drain began; seconds until jobs are asked to stop, None for no limit."""

    remaining: float | None


class Emitter:
    """Callbacks by the name of the event.

    Args:
        names: the events that there are.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._callbacks: dict[str, list[Callback]] = {name: [] for name in names}

    def on(self, name: str, callback: Callback) -> Callback:
        """Have *callback* called with each event of that name; return it.

        Raises:
            OptionError: there is no such event, or *callback* cannot be called.
        """
        if name not in self._callbacks:
            raise OptionError("event", name, "one of " + ", ".join(self._callbacks))
        if not callable(callback):
            raise OptionError("callback", callback, "a function that takes the event")
        self._callbacks[name].append(callback)
        return callback

    def emit(self, name: str, value: object) -> None:
        """Call everybody who listens to *name*."""
        for callback in self._callbacks[name]:
            try:
                callback(value)
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001 - a user's callback must not end the pool
                logger.exception("a callback for %r raised", name)
