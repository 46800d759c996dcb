"""Standard output, kept for the log.

Under ``start`` a line on stdout is a JSON object, always. So descriptor 1 is taken
away from everybody else: what the user's program prints in this process (in
``on_request``, in a load function) becomes log records, as what jobs print does;
what is written past Python, by a C library or a program that is started here,
goes to stderr.

Lines are written by a thread (:class:`LineWriter`), so that a reader of stdout who
is slow, or stopped, never stops the supervisor.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Final, TextIO, cast

from supervisor.cli.logging import configure_logging, json_line

# What may wait for a reader who does not read: some 200,000 lines. Beyond it lines
# are dropped and counted, since the alternatives are to stop serving or to die.
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
# At the end: how long a reader may take nothing before the rest is given up. The
# way out of a server has half a second beyond the grace.
FLUSH_PATIENCE: Final = 0.4
# One write takes so much at most: a pipe holds 64 KiB.
_BATCH_BYTES: Final = 64 * 1024


class LineWriter:
    """Writes lines to a descriptor, in order, from a thread of its own.

    Guarantees: a line is written whole or not at all, as long as the descriptor
    takes bytes; nothing is dropped while less than *max_bytes* wait.

    Args:
        fd: where to; owned from here on.
        notice: makes the line that tells how many lines were dropped.
        max_bytes: what may wait.

    Runs on: any thread.
    """

    def __init__(
        self, fd: int, notice: Callable[[int], bytes], *, max_bytes: int = MAX_WAITING_BYTES
    ) -> None:
        self._fd = fd
        self._notice = notice
        self._max_bytes = max_bytes
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        self._written = 0  # batches, failed ones included: a sign of progress
        self._writing = False
        self._closed = False
        self._given_up = False
        self._complained = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="greenroom-log", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Have *line* written. Does not wait."""
        with self._changed:
            if self._waiting_bytes + len(line) > self._max_bytes or self._closed:
                self._dropped += 1
                return
            if self._dropped:
                self._append(self._notice(self._dropped))
                self._dropped = 0
            self._append(line)
            self._changed.notify_all()

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        self._waiting_bytes += len(line)

    def close(self) -> None:
        """Write what waits, as long as it is taken; then stop."""
        with self._changed:
            if self._dropped:
                self._append(self._notice(self._dropped))
                self._dropped = 0
            self._closed = True
            self._changed.notify_all()
            while self._lines or self._writing:
                before = self._written
                if not self._changed.wait(FLUSH_PATIENCE) and self._written == before:
                    self._given_up = True
                    return  # the thread hangs in a write, and has the descriptor
        self._thread.join()
        os.close(self._fd)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines and not self._closed:
                    self._changed.wait()
                if self._given_up or not self._lines:
                    return
                batch = self._take()
                self._writing = True
            try:
                self._write_all(batch)
            except OSError as exc:
                self._complain(exc)
            with self._changed:
                self._writing = False
                self._written += 1
                self._changed.notify_all()

    def _take(self) -> bytes:
        taken: list[bytes] = []
        size = 0
        while self._lines and size < _BATCH_BYTES:
            taken.append(self._lines.popleft())
            size += len(taken[-1])
        self._waiting_bytes -= size
        return b"".join(taken)

    def _write_all(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and not self._given_up:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # somebody shares it with us and made it so
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()

    def _complain(self, exc: OSError) -> None:
        # Said once: a reader that is gone (`| head`) does not come back.
        if not self._complained:
            self._complained = True
            with contextlib.suppress(OSError, ValueError):  # nor stderr: there is nobody to tell
                print(f"greenroom: cannot write the log: {exc}", file=sys.stderr)


class _LogStream(io.TextIOBase):
    """A text stream over a :class:`LineWriter`, for loguru's sinks."""

    def __init__(self, writer: LineWriter, *, encoding: str, terminal: bool) -> None:
        super().__init__()
        self._encoding = encoding
        self._terminal = terminal
        self.buffer = writer

    def write(self, text: str) -> int:
        self.buffer.write(text.encode(self._encoding, "backslashreplace"))
        return len(text)

    def isatty(self) -> bool:
        return self._terminal


class _Printed(io.RawIOBase):
    """What the user's program prints in the supervisor: each line a record at INFO."""

    def __init__(self) -> None:
        super().__init__()
        self._rest = b""
        self._logger = logging.getLogger("greenroom.stdout")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1  # for subprocesses that are told to print where we do

    def write(self, data: object) -> int:
        content = bytes(cast("bytes", data))
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            self._logger.info("%s", line.decode("utf-8", "replace"))
        return len(content)

    def finish(self) -> None:
        """Log what has no end of line."""
        if self._rest:
            self.write(b"\n")


@contextlib.contextmanager
def log_to_stdout(level: str, *, readable: bool) -> Generator[None, None, None]:
    """Send all logs of this process to stdout while the block runs.

    Args:
        level: the lowest level to write, in upper case.
        readable: for people; otherwise JSON, and nothing but it reaches stdout.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    with contextlib.ExitStack() as stack:
        fd = _own_stdout()
        notice = _readable_notice if readable else _json_notice
        writer = LineWriter(fd, notice)
        stack.callback(writer.close)
        stream = _LogStream(
            writer, encoding=encoding if readable else "utf-8", terminal=os.isatty(fd)
        )
        configure_logging(level, readable=readable, stream=cast("TextIO", stream))
        if not readable:
            stack.enter_context(_printing_is_logging())
        yield


def _own_stdout() -> int:
    try:
        sys.stdout.flush()
        return os.dup(1)
    except (AttributeError, OSError):  # there is none
        return os.open(os.devnull, os.O_WRONLY)


@contextlib.contextmanager
def _printing_is_logging() -> Generator[None, None, None]:
    before = sys.stdout
    with contextlib.suppress(OSError):  # no stderr: then 1 stays what it is
        os.dup2(2, 1)
    printed = _Printed()
    sys.stdout = io.TextIOWrapper(
        cast("io.BufferedIOBase", printed), "utf-8", "backslashreplace", write_through=True
    )
    try:
        yield
    finally:
        printed.finish()
        sys.stdout = before


def _sentence(count: int) -> str:
    return f"{count} log lines were dropped: nobody read stdout"


def _json_notice(count: int) -> bytes:
    return json_line(
        {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000000+00:00", time.gmtime()),
            "level": "WARNING",
            "message": _sentence(count),
            "logger": "greenroom.cli",
            "pid": os.getpid(),
        }
    )


def _readable_notice(count: int) -> bytes:
    return f"{time.strftime('%H:%M:%S')} WARNING  greenroom.cli  {_sentence(count)}\n".encode()
