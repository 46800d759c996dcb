"""What workers log and print, handed on in the supervisor. It never waits.

Every record is emitted again by ``logging``, as the worker made it (time, level,
file, line, function, thread), with ``record.process`` the worker's pid and
``record.greenroom`` a dict of its ``pid``, ``job_id`` and ``room`` and of the
record's fields. What becomes of it the host's configuration decides.

Which logger: the one of the same name, as if the worker's code ran here, so that
one configuration serves both. Two names are translated. The worker's ``root`` is
``greenroom.job`` here, because the host's root logger has no name of its own to
configure; and ``__mp_main__``, as the main script is called in a child, is
``__main__``. A worker that logs as ``greenroom`` is heard as ``greenroom``: it
is told from the supervisor by ``record.greenroom``. Loggers are looked up and
never made: a job that makes up a name for each of its loggers (``session-4711``)
would fill the supervisor with them. A name that nobody here uses is handled by
the nearest logger above it, which is where its records would end up anyway.

How a flood is kept from delaying anybody else: supervisor.turns.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from ipc import fds
from ipc.errors import ProtocolError
from ipc.frames import FrameDecoder, Need
from ipc.messages import Decoder, Log
from supervisor.turns import TurnReader

MAX_LINE_BYTES: Final = 8 * 1024

# Little, because all of it is emitted at once when the worker has died: 16 KiB
# are some 300 lines, the kernel's default of 64 KiB would be 1,200.
PIPE_BYTES: Final = 16 * 1024

# 9999-12-31: beyond it nobody can format a time.
_LAST_SECOND: Final = 253402300799.0

# Python's levels end at 50. A logger remembers each level that it was ever asked
# about: without a bound a worker could fill the supervisor with them.
_HIGHEST_LEVEL: Final = 100

# A worker cuts longer names itself. Looking for the nearest logger takes the square
# of a name's length: half a million dots would take a minute.
_LONGEST_NAME: Final = 512

# Who a record comes from is said here and not by the worker.
_OURS: Final = frozenset({"pid", "job_id"})

_NAMES: Final = {"root": "greenroom.job", "": "greenroom.job", "__mp_main__": "__main__"}

_decoder: Final[Decoder[Log]] = Decoder(Log)

Context = Callable[[], Mapping[str, object]]


class _RecordReader(TurnReader):
    """What both readers share: a record that says which worker it comes from."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, context: Context) -> None:
        self._context = context
        self._complained = False
        super().__init__(loop, fd)

    def _emit(self, logger: logging.Logger, record: logging.LogRecord) -> None:
        try:
            logger.handle(record)
        except Exception as exc:  # noqa: BLE001 - the host's handlers
            # Said once: the report may go through the very handler that raises.
            if not self._complained:
                self._complained = True
                self._loop.call_exception_handler(
                    {"message": "a log handler raised on a worker's record", "exception": exc}
                )

    def _record(self, fields: Mapping[str, object]) -> logging.LogRecord:
        """Return a record that comes from the worker: made by the host's record factory."""
        context = dict(self._context())
        pid = context.get("pid")
        record = logging.makeLogRecord({})
        # What the worker calls itself cannot hide who it is: the context counts.
        vars(record).update(
            process=pid,
            processName=f"worker-{pid}",
            thread=None,
            greenroom={
                **{name: value for name, value in fields.items() if name not in _OURS},
                **context,
            },
        )
        return record


class LogReader(_RecordReader):
    """Emits the records that one worker sends.

    A stream that ends in the middle of a frame is the end of a process that was
    killed while it logged, and no error.

    Args:
        loop: the loop that everything runs on.
        sock: the supervisor's end of the worker's log socket; owned from here on.
        context: ``pid``, ``job_id`` and ``room`` of the worker as it stands;
            called for each record. Must not raise.
        on_error: called once, if what comes is not a log record. No more is read
            then. Must not raise.

    Runs on: the loop, every method.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        *,
        context: Context,
        on_error: Callable[[ProtocolError], None],
    ) -> None:
        fds.refuse_descriptors(sock)
        self._sock = sock
        self._on_error = on_error
        self._frames = FrameDecoder()
        self._failed = False
        super().__init__(loop, sock.fileno(), context)

    def ring(self) -> None:
        """Wake the worker's control thread (``supervisor.child.control``), which listens here."""
        try:
            self._sock.send(b"r")
        except OSError:
            pass  # it is gone, or has not listened for long: nobody is there to be woken

    def _feed(self, data: bytes) -> None:
        self._frames.feed(data)

    def _hand_on_one(self) -> bool:
        if self._failed:
            return False
        try:
            frame = self._frames.next_frame()
            if isinstance(frame, Need):
                return False
            if frame.descriptors:
                raise ProtocolError("a log record announces descriptors")
            log = _decoder.decode(frame.payload)
        except ProtocolError as exc:
            self._failed = True
            self._stop_reading()
            self._on_error(exc)
            return False
        self._emit_log(log)
        return True

    def _emit_log(self, log: Log) -> None:
        name = _NAMES.get(log.logger, log.logger)[:_LONGEST_NAME]
        logger = nearest_logger(name)
        level = min(max(log.level, 0), _HIGHEST_LEVEL)
        if not logger.isEnabledFor(level):
            return
        record = self._record(log.fields)
        created = log.created if 0.0 <= log.created <= _LAST_SECOND else record.created
        vars(record).update(
            name=name,
            msg=log.message,
            levelno=level,
            levelname=logging.getLevelName(level),
            pathname=log.path,
            filename=os.path.basename(log.path),
            module=os.path.splitext(os.path.basename(log.path))[0],
            lineno=log.line,
            funcName=log.function,
            threadName=log.thread,
            exc_text=log.exception,
            relativeCreated=record.relativeCreated + (created - record.created) * 1000,
            created=created,
            msecs=created % 1 * 1000,
        )
        self._emit(logger, record)

    def _flush(self) -> bool:
        return False  # a frame that was begun cannot be completed

    def _close_descriptor(self) -> None:
        fds.close_socket(self._sock)


class OutputReader(_RecordReader):
    """Emits what one worker prints: each line a record at INFO.

    A line is UTF-8, with what is not replaced by U+FFFD. One of over
    :data:`MAX_LINE_BYTES` comes in pieces; one without an end comes when the
    stream ends or is drained.

    Args:
        loop: the loop that everything runs on.
        fd: the read end of the pipe; owned from here on.
        stream: ``"stdout"`` or ``"stderr"``; the logger is ``greenroom.stdout`` or
            ``greenroom.stderr``.
        context: as for :class:`LogReader`.

    Runs on: the loop, every method.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        stream: str,
        *,
        context: Context,
    ) -> None:
        self._stream = stream
        self._logger = logging.getLogger(f"greenroom.{stream}")
        self._partial = b""
        self._lines: deque[bytes] = deque()
        _shrink_pipe(fd)
        super().__init__(loop, fd, context)

    def _feed(self, data: bytes) -> None:
        *lines, rest = (self._partial + data).split(b"\n")
        for line in lines:
            self._lines.append(self._take_pieces(line).removesuffix(b"\r"))
        self._partial = self._take_pieces(rest)

    def _take_pieces(self, line: bytes) -> bytes:
        """Queue pieces of *line* until what is left is short enough; return that."""
        while len(line) > MAX_LINE_BYTES:
            end = _character_boundary(line, MAX_LINE_BYTES)
            self._lines.append(line[:end])
            line = line[end:]
        return line

    def _hand_on_one(self) -> bool:
        if not self._lines:
            return False
        line = self._lines.popleft()
        if self._logger.isEnabledFor(logging.INFO):
            record = self._record({})
            vars(record).update(
                name=self._logger.name,
                msg=line.decode("utf-8", "replace"),
                levelno=logging.INFO,
                levelname=logging.getLevelName(logging.INFO),
                pathname=f"<{self._stream}>",
                filename=f"<{self._stream}>",
                module=self._stream,
                funcName="",
                threadName="",
            )
            self._emit(self._logger, record)
        return True

    def _flush(self) -> bool:
        if not self._partial:
            return False
        self._lines.append(self._partial)
        self._partial = b""
        return True

    def _close_descriptor(self) -> None:
        os.close(self._fd)


def nearest_logger(name: str) -> logging.Logger:
    """Return the logger of that name, or the nearest one above it that exists."""
    loggers = logging.Logger.manager.loggerDict
    while name:
        found = loggers.get(name)
        if isinstance(found, logging.Logger):
            return found
        name = name.rpartition(".")[0]
    return logging.getLogger()


def _shrink_pipe(fd: int) -> None:
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # not a pipe, or it holds more already: then it stays as it is


def _character_boundary(line: bytes, end: int) -> int:
    """Return *end*, or up to three bytes less so that no UTF-8 character is cut."""
    for back in range(4):
        if line[end - back] & 0xC0 != 0x80:
            return end - back
    return end
