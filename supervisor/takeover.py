"""What a server does when it takes over from another, and when it is taken over from.

``succession.py`` is the link on which the two are told; here is what moves from one
to the next: the jobs that wait or run, the ended ones, the port.
"""

from __future__ import annotations

import asyncio
import logging

from supervisor.booking import Booking
from supervisor.dispatch.base import Dispatcher, Heir
from supervisor.drain import Drain
from supervisor.observers import Observers
from supervisor.succession import Inheritance, Succession

logger = logging.getLogger("greenroom.server")


class Takeover:
    """One server's part in it: the successor's at its start, the predecessor's at its end.

    Args:
        loop: the server's.
        link: to the reloader; the caller closes it.
        booking: has the jobs.
        drain: how the server goes down.
        observers: have the port.
        dispatchers: those that were started, as the list grows.

    Runs on: the server's loop, every method.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: Succession,
        booking: Booking,
        drain: Drain,
        observers: Observers,
        dispatchers: list[Dispatcher],
    ) -> None:
        self._loop = loop
        self.link = link
        self._booking = booking
        self._drain = drain
        self._observers = observers
        self._dispatchers = dispatchers
        self._stepping_down: asyncio.Task[None] | None = None
        self.stepped_down = False  # jobs that end from now on go on elsewhere

    def begin(self) -> None:
        """Listen to the reloader."""
        self.link.begin(
            on_step_down=self._step_down,
            on_signal=self._drain.signal,
            on_orphaned=self._stop_now,
        )

    def resume(self, inheritance: Inheritance, dispatchers: list[Dispatcher]) -> None:
        """Start the predecessor's jobs again, before anybody can ask for them.

        Args:
            inheritance: what the predecessor left.
            dispatchers: those that are about to be started.
        """
        local = _heir_among(dispatchers)
        if local is not None:
            local.inherit(inheritance.ended)
        for session in inheritance.sessions:
            handle = self._booking.resume(session)
            logger.info("job %s is resumed", handle.id)
            if local is not None:
                local.track(handle)

    def _step_down(self) -> None:
        if self._stepping_down is None and not self._drain.begun:
            self._stepping_down = self._loop.create_task(self._leave())

    def _stop_now(self) -> None:
        if self._drain.begun:
            self._drain.cut_short()
        else:
            self._drain.request(0.0)

    async def _leave(self) -> None:
        local = _heir_among(self._dispatchers)
        if local is not None:
            await local.pause()
        sessions = self._booking.sessions
        moved = {session.job.id for session in sessions}
        ended = local.estate() if local is not None else []
        estate = Inheritance(
            sessions, [each for each in ended if each[0] not in moved], self._observers.port
        )
        self.link.leave(estate)
        self.stepped_down = True
        self._drain.request(0.0)


def _heir_among(dispatchers: list[Dispatcher]) -> Heir | None:
    return next((each for each in dispatchers if isinstance(each, Heir)), None)
