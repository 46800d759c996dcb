"""One server process of ``dev``: started, talked to, ended.

The process is the user's own command, run once more. What makes it a server and
not another reloader is one environment variable, which names the descriptors it
was given: its link to the reloader and the listening control socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from ipc import fds
from ipc.aio import AsyncChannel
from ipc.errors import IpcError
from ipc.messages import Decoder
from supervisor.cli import tether
from supervisor.launch import open_pidfd, watch_exit
from supervisor.succession import (
    Estate,
    Left,
    Serving,
    Signalled,
    StepDown,
    Succession,
    TakeOver,
    ToReloader,
    ToServer,
    Warm,
)

VARIABLE: Final = "GREENROOM_DEV_SERVER"


def given_succession() -> Succession | None:
    """Return what the reloader gave to this process, or None if it has none.

    Once only: what this process starts must not take itself for a server of ours.
    """
    text = os.environ.pop(VARIABLE, None)
    if text is None:
        return None
    link, listener, first, path = text.split(":", 3)
    for fd in (int(link), int(listener)):
        os.set_inheritable(fd, False)
    return Succession(
        socket.socket(fileno=int(link)),
        socket.socket(fileno=int(listener)),
        path,
        first=first == "1",
    )


class Generation:
    """A server process, as the reloader sees it.

    Args:
        command: what to run.
        environment: its environment, but for our own variable.
        listener: the control socket, which stays the caller's.
        path: where that listens.
        first: there is no server before it.

    Runs on: the reloader's loop, every method.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        listener: socket.socket,
        path: str,
        *,
        first: bool,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.warm: asyncio.Future[None] = loop.create_future()
        self.serving: asyncio.Future[None] = loop.create_future()
        self.left: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[int] = loop.create_future()
        self.jobs = 0  # in the estate
        self._estate: int | None = None
        near, far = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.enter_context(far)
            failed = stack.enter_context(contextlib.ExitStack())
            failed.callback(near.close)
            told = f"{far.fileno()}:{listener.fileno()}:{int(first)}:{path}"
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *command],
                pass_fds=(far.fileno(), listener.fileno()),
                env={**environment, VARIABLE: told},
            )
            failed.pop_all()
        self._channel: AsyncChannel[ToReloader] = AsyncChannel(
            loop, near, Decoder(ToReloader), on_message=self._received, on_end=self._silent
        )
        self._pidfd = open_pidfd(self._process.pid)
        self._stop_watching = watch_exit(loop, self._process.pid, self._pidfd, self._exited)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def step_down(self) -> None:
        """Ask it to leave its estate and go."""
        self._tell(StepDown())

    def signal(self, number: int) -> None:
        """Have it act on a signal that was sent to the reloader."""
        if self.warm.done():
            self._tell(Signalled(number))
        elif not self.ended.done():  # it may be in an import, and listen to nobody
            self._process.send_signal(signal.SIGTERM)

    def take_over(self, predecessor: Generation | None) -> None:
        """Give it the turn, and what *predecessor* left."""
        estate = None if predecessor is None else predecessor._estate
        self._tell(TakeOver(), [] if estate is None else [estate])

    def kill(self) -> None:
        """Send SIGKILL; its fork server and workers see it and go."""
        if not self.ended.done():
            self._process.send_signal(signal.SIGKILL)

    async def end(self, patience: float | None = None) -> int:
        """Return its exit status when it has ended; after *patience* seconds it is killed."""
        await asyncio.wait([self.ended], timeout=patience)
        self.kill()
        return await self.ended

    def _tell(self, message: ToServer, descriptors: Sequence[int] = ()) -> None:
        with contextlib.suppress(IpcError):  # gone: its exit says so
            self._channel.send(message, descriptors)

    def _received(self, message: ToReloader, descriptors: list[int]) -> None:
        if isinstance(message, Warm):
            _done(self.warm)
        elif isinstance(message, Serving):
            _done(self.serving)
        elif isinstance(message, Left):
            _done(self.left)
        elif isinstance(message, Estate) and descriptors and self._estate is None:
            self.jobs, self._estate = message.jobs, descriptors.pop()
        fds.close_all(descriptors)

    def _silent(self, error: IpcError | None) -> None:
        if error is not None:
            self.kill()

    def _exited(self) -> None:
        self._channel.drain_received()
        # The kernel said that it ended: this does not wait.
        status = self._process.wait()
        self.ended.set_result(status if status >= 0 else 128 - status)

    def close(self) -> None:
        """Let go of everything. When it has ended."""
        self._stop_watching()
        self._channel.close()
        fds.close_all([fd for fd in (self._estate, self._pidfd) if fd is not None])
        self._estate = self._pidfd = None


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
