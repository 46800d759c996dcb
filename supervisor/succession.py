"""One server takes over from another: what the reload of ``dev`` is made of.

Three processes. The *reloader* watches the files and keeps the listening control
socket. The *predecessor* serves. The *successor* is a fresh interpreter with the
new code::

    reloader      predecessor         successor
       │ starts ──────────────────────────► │ imports, warms up
       │ ◄───────────────────────── Warm ── │
       │ ── StepDown ─► │ takes no more requests, answers those it has
       │ ◄── Estate ─── │ its jobs, its ended jobs, its port
       │                │ asks its jobs to stop; waits for their ends
       │ ◄── Left ───── │ exits
       │ ── TakeOver, with the estate ────► │ starts the jobs again, serves
       │ ◄────────────────────── Serving ── │

Until Warm nothing has changed for anybody, so a successor that does not get so
far costs nothing. From StepDown to Serving nobody accepts connections, and they
wait in the queue of the listening socket, which never closes: a request that
comes in between is answered a moment later.

The estate is sealed memory, passed on by the reloader unopened. It is written
before jobs are asked to stop, so that it survives a predecessor that hangs then.

This file is the server's end. The reloader's is ``supervisor/cli/reload.py``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from typing import Final, Union

import msgspec

from ipc import fds
from ipc.aio import AsyncChannel
from ipc.errors import IpcError
from ipc.messages import Decoder, Message
from supervisor.job import Session

logger = logging.getLogger("greenroom.succession")

# Jobs and history of one development server; the local dispatcher keeps 64 MiB.
MAX_ESTATE_BYTES: Final = 256 * 1024 * 1024

REASON: Final = "reload"  # why the jobs of a predecessor are asked to stop


class Warm(Message, frozen=True):
    """The successor could serve now."""


class Estate(Message, frozen=True):
    """What the predecessor leaves; the memory travels beside it."""

    jobs: int


class Left(Message, frozen=True):
    """The predecessor's jobs have ended and its ports are free."""


class Serving(Message, frozen=True):
    """The successor serves."""


ToReloader = Union[Warm, Estate, Left, Serving]


class StepDown(Message, frozen=True):
    """Leave the estate, and go."""


class TakeOver(Message, frozen=True):
    """It is your turn; the estate of the predecessor travels beside it, if there is one."""


class Signalled(Message, frozen=True):
    """The reloader got a signal, which is meant for the server."""

    number: int


ToServer = Union[StepDown, TakeOver, Signalled]


class Inheritance(msgspec.Struct):
    """What a server leaves to the next one.

    Args:
        sessions: jobs that were running or waiting, to be started again.
        ended: ended jobs as JSON, the oldest first.
        port: where health and metrics were served.
    """

    sessions: list[Session] = []
    ended: list[tuple[str, str]] = []
    port: Union[int, None] = None


class Succession:
    """A server's link to the reloader.

    Args:
        link: connected to the reloader; owned from here on.
        listener: the control socket, listening; owned from here on.
        path: where it listens.
        first: there is no predecessor.

    Runs on: the server's loop, every method but the constructor.
    """

    def __init__(
        self, link: socket.socket, listener: socket.socket, path: str, *, first: bool
    ) -> None:
        self._link = link
        self.listener = listener
        self.path = path
        self.first = first
        self._channel: AsyncChannel[ToServer] | None = None
        self._turn: asyncio.Future[Inheritance] | None = None

    def begin(
        self,
        *,
        on_step_down: Callable[[], None],
        on_signal: Callable[[int], None],
        on_orphaned: Callable[[], None],
    ) -> None:
        """Listen to the reloader.

        Args:
            on_step_down: called when a successor is warm.
            on_signal: called with the number of a signal that the reloader got.
            on_orphaned: called when the reloader is gone.
        """
        loop = asyncio.get_running_loop()
        self._turn = loop.create_future()
        self._on_step_down = on_step_down
        self._on_signal = on_signal
        self._on_orphaned = on_orphaned
        self._channel = AsyncChannel(
            loop, self._link, Decoder(ToServer), on_message=self._received, on_end=self._ended
        )

    async def turn(self) -> Inheritance:
        """Say that we are warm; return what the predecessor left once it is our turn."""
        assert self._turn is not None, "begin() comes first"
        self._tell(Warm())
        return await self._turn

    def serving(self) -> None:
        """Say that we serve."""
        self._tell(Serving())

    def leave(self, inheritance: Inheritance) -> None:
        """Write the estate."""
        memory = fds.write_memory(msgspec.msgpack.encode(inheritance), "greenroom-estate")
        try:
            self._tell(Estate(len(inheritance.sessions)), [memory])
        finally:
            os.close(memory)

    def left(self) -> None:
        """Say that everything of ours is over."""
        self._tell(Left())

    def close(self) -> None:
        """Let go of the link and the socket."""
        if self._channel is not None:
            self._channel.close()
        self._link.close()
        self.listener.close()

    def _tell(self, message: ToReloader, descriptors: list[int] | None = None) -> None:
        assert self._channel is not None, "begin() comes first"
        try:
            self._channel.send(message, descriptors or [])
        except IpcError:
            pass  # the reloader is gone: on_orphaned was called or will be

    def _received(self, message: ToServer, descriptors: list[int]) -> None:
        if isinstance(message, TakeOver):
            self._inherit(descriptors)
        elif isinstance(message, StepDown):
            self._on_step_down()
        else:
            self._on_signal(message.number)
        fds.close_all(descriptors)

    def _inherit(self, descriptors: list[int]) -> None:
        assert self._turn is not None, "begin() came first"
        if self._turn.done():
            return
        if not descriptors:
            self._turn.set_result(Inheritance())
            return
        try:
            content = fds.read_memory(descriptors[0], max_bytes=MAX_ESTATE_BYTES, what="the estate")
            inheritance = msgspec.msgpack.decode(content, type=Inheritance)
        except (IpcError, OSError, msgspec.DecodeError) as exc:
            # Another version of this library may have written it: it is on disk, too.
            logger.error("the jobs of the old server are lost: %s", exc)
            inheritance = Inheritance()
        self._turn.set_result(inheritance)

    def _ended(self, error: IpcError | None) -> None:
        self._on_orphaned()
