"""Reading a descriptor on the loop, a little each turn, so that no peer can flood it.

A turn of the loop hands on items for :data:`TURN_SECONDS` or up to
:data:`TURN_ITEMS`, then it is the others' turn. Nothing is read while items
wait, so what a flooding peer writes stays in its socket until the socket is full
and the peer waits: the flood is bounded by what this side can take.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import termios
from abc import ABC, abstractmethod
from typing import Final

from supervisor.clock import monotonic

# A log record costs 15 µs here and as much again or far more in the host's
# handlers (JSON through loguru: 50 to 100 µs), hence a limit in time. Ten workers
# that flood at once make the loop turn in 5 ms; a hand-over waits for one turn.
TURN_SECONDS: Final = 0.0005
TURN_ITEMS: Final = 64
READ_BYTES: Final = 16 * 1024


class TurnReader(ABC):
    """Reads a descriptor and hands on what it holds, a little each turn of the loop.

    Runs on: the loop, every method. None of them waits.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        self._loop = loop
        self._fd = fd
        self._again: asyncio.Handle | None = None
        self._ended = False
        self._closed = False
        os.set_blocking(fd, False)
        loop.add_reader(fd, self._readable)

    def drain(self) -> None:
        """Hand on all that is there now. For a worker that has died, or ended its job.

        Only what the kernel holds at the call is read: a grandchild that keeps
        the other end and goes on writing cannot make this endless.
        """
        if self._closed:
            return
        if self._again is not None:  # else no item waits
            self._hand_on_all()
        left = 0 if self._ended else _bytes_waiting(self._fd)
        while left > 0 and (count := self._read(min(left, READ_BYTES))):
            left -= count
            self._hand_on_all()
        if self._flush():
            self._hand_on_all()

    def close(self) -> None:
        """Stop and close the descriptor; what was not drained is lost. May be called again."""
        if self._closed:
            return
        self._stop_reading()
        self._closed = True
        if self._again is not None:
            self._again.cancel()
        self._close_descriptor()

    @abstractmethod
    def _feed(self, data: bytes) -> None:
        """Take what was read."""

    @abstractmethod
    def _hand_on_one(self) -> bool:
        """Hand on the next item; False if there is no whole one."""

    @abstractmethod
    def _flush(self) -> bool:
        """Nothing more will come, as far as is known: make an item of what is left, if any is."""

    @abstractmethod
    def _close_descriptor(self) -> None: ...

    def _readable(self) -> None:
        # While items wait, the socket keeps what it has: that is the back-pressure.
        if self._again is None:
            count = self._read(READ_BYTES)
            if count or (self._ended and self._flush()):
                self._turn()

    def _turn(self) -> None:
        self._again = None
        until = monotonic() + TURN_SECONDS
        for count in range(TURN_ITEMS):
            if self._closed or not self._hand_on_one():
                # Reading goes on only after a turn without any item: within one
                # turn of the loop it may call this first and _readable then.
                if count == 0:
                    return
                break
            if monotonic() >= until:
                break
        if not self._closed:
            self._again = self._loop.call_soon(self._turn)

    def _hand_on_all(self) -> None:
        while not self._closed and self._hand_on_one():
            pass

    def _read(self, size: int) -> int:
        """Read once; return how many bytes came: 0 if there are none now or at the end."""
        if self._ended:
            return 0
        try:
            # Not recv: for a pipe it is the same call, and descriptors that
            # somebody passes over the log socket are dropped by the kernel.
            data = os.read(self._fd, size)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            data = b""  # reset: it died with our end unread. Its end, like any other
        if data:
            self._feed(data)
        else:
            self._stop_reading()
        return len(data)

    def _stop_reading(self) -> None:
        if not self._ended:
            self._ended = True
            self._loop.remove_reader(self._fd)


def _bytes_waiting(fd: int) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]
