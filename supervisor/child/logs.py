"""What a worker logs and prints, on its way to the supervisor. Runs in the workers.

A log call sends one :class:`~ipc.messages.Log` frame, in the thread that logs,
and waits while the socket is full: that is the back-pressure. Roads not taken: a
queue and a thread that empties it. Such a queue is either unbounded (a flood
fills the memory, and the process cannot end before it is sent) or it drops; and
what it holds is lost with a crash, which is when it is wanted. A frame that
``send`` took is in the kernel, and arrives whatever becomes of this process.

Why a log call cannot dead-lock:

* No code of the user runs under our lock. Records are made plain before it is
  taken (supervisor.child.records), so a ``__repr__`` may log. The handler has no
  lock of its own, and loguru's is not taken (see supervisor.child.loguru_tap).
* A signal handler, or a finalizer that the garbage collector runs, may log while
  its own thread sends. It finds the lock owned by itself, leaves its frame in
  the queue, and the sender, further out on the same stack, sends it after its own.
* ``fork`` by the user takes the lock first, so no other thread holds it, or is
  in the middle of a frame, while the process is copied.

Why a half frame never breaks the stream: a signal handler may raise (our own
way of cancelling a plain function) between any two lines here. How much of a
frame is out is therefore recorded by the C call that sent it, and the frame
stays in the queue until it is out; whoever logs next goes on where it stopped.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, cast

from ipc.frames import HEADER, MAX_FRAME_BYTES, encode_frame
from ipc.messages import Log
from supervisor.child import records
from supervisor.child.forks import tell_of_forks
from supervisor.child.loguru_tap import LoguruTap
from supervisor.child.output import flush_output, redirect_output
from supervisor.child.records import Fields

__all__ = ["LogForwarder", "flush_output", "install", "redirect_output"]

# Once the user has forked, two processes write to one socket. Linux queues up to
# 32 KiB of one send as one piece (unix_stream_sendmsg), so frames up to that
# size cannot be torn apart by each other, nor by the death of one writer.
SHARED_FRAME_BYTES: Final = 32 * 1024 - HEADER.size


def install(level: str) -> LogForwarder:
    """Take whatever this process logs, by ``logging`` or loguru; :meth:`connect` says where to.

    The handlers of the root logger are taken off (they came with the fork, and
    write to descriptors of somebody else), and so are loguru's sinks that write
    to the terminal. Handlers of named loggers, their levels, and loguru's other
    sinks (files) are the user's and stay. A named logger that is more silent than
    *level* stays so; one that is louder is held to *level* by the handler.

    loguru is not imported for this. If user code imports it later, its sink is
    replaced at that moment.

    Runs on: the main thread.

    Args:
        level: DEBUG, INFO, WARNING, ERROR or CRITICAL.

    Raises:
        ValueError: no such level.
    """
    forwarder = LogForwarder(level)
    forwarder.attach()
    tell_of_forks(forwarder)
    return forwarder


class LogForwarder:
    """Sends log records on a socket. Made by :func:`install`.

    It outlives a fork: the process that workers are forked from installs it once, and
    each worker connects it to a socket of its own. Without a socket, records are dropped.
    """

    def __init__(self, level: str) -> None:
        self._sock: socket.socket | None = None
        self._level = _level_number(level)
        self._fields: Fields = dict
        # Guards the socket. Signal handlers and finalizers may log while their
        # own thread holds it, hence an RLock, and hence ``_is_owned``.
        self._lock = _new_lock()
        self._queue: deque[_Outgoing] = deque()
        self._gone = True
        self._max_bytes = MAX_FRAME_BYTES
        self._child_pid: int | None = None
        self._handler = _Handler(self)
        self._loguru = LoguruTap(self.forward_loguru)

    def attach(self) -> None:
        """Become the root logger's one handler, and loguru's sink for the terminal.

        May be called again, after user code has set up logging of its own.
        """
        root = logging.getLogger()
        for handler in root.handlers[:]:
            # Not closed: what it buffered belongs to the process we were forked from.
            root.removeHandler(handler)
        root.addHandler(self._handler)
        self.set_level(logging.getLevelName(self._level))
        self._loguru.detach()
        self._loguru.attach(self._level)

    def connect(self, sock: socket.socket, fields: Fields) -> None:
        """Send on *sock* from now on. What a socket before it did not take is forgotten.

        Runs on: the main thread.

        Args:
            sock: the worker's log socket; owned by the forwarder from here on.
            fields: the job's fields that go onto each record; called for each, in
                the thread that logs. It may raise.
        """
        sock.settimeout(None)
        self._lock = _new_lock()
        self._queue.clear()
        self._max_bytes = MAX_FRAME_BYTES
        self._child_pid = None
        self._sock, self._fields = sock, fields
        self._gone = False

    def disconnect(self) -> None:
        """Flush and close the socket; records are dropped until there is another."""
        self.flush()
        with self._lock:
            self._gone = True
            if self._sock is not None:
                self._sock.close()

    def set_level(self, level: str) -> None:
        """Forward what is at or above *level* from now on. Runs on: any thread.

        Raises:
            ValueError: no such level.
        """
        self._level = _level_number(level)
        self._handler.setLevel(self._level)
        logging.getLogger().setLevel(self._level)
        self._loguru.set_level(self._level)

    def forward(self, record: logging.LogRecord) -> None:
        """Send a record of ``logging``; wait while the supervisor is slow.

        Runs on: any thread. Raises nothing of its own: once the supervisor is
        gone records are dropped, since the process is about to end.
        """
        self._forward(lambda: records.from_logging(record, self._fields), record.levelno)

    def forward_loguru(self, record: Mapping[str, Any]) -> None:
        """Send a record of loguru, like :meth:`forward`."""
        self._forward(lambda: records.from_loguru(record, self._fields), record["level"].no)

    def flush(self) -> None:
        """Send what an interrupted log call left behind; wait while the supervisor is slow."""
        while self._queue:
            with self._lock:
                self._send_queued()

    def close(self) -> None:
        """Flush, stop forwarding and close the socket. May be called again.

        Records that come later are dropped.
        """
        self._loguru.detach()
        logging.getLogger().removeHandler(self._handler)
        self.disconnect()

    # ── making a frame ───────────────────────────────────────────────────────

    def _forward(self, make: Callable[[], Log], level: object) -> None:
        if self._gone:
            return
        try:
            log = make()
            if self._child_pid is not None:
                log.fields["child_pid"] = self._child_pid
            payload = records.encoded(log, self._max_bytes)
        except Exception as exc:  # noqa: BLE001 - a record that somebody filled with odd things
            number = level if type(level) is int else logging.ERROR
            payload = records.encoded(
                records.instead(number, "root", records.safe_repr(exc, 1024)), self._max_bytes
            )
        self._send(encode_frame(payload))

    # ── sending ──────────────────────────────────────────────────────────────

    def _send(self, frame: bytes) -> None:
        self._queue.append(_Outgoing(frame))
        if self._lock._is_owned():
            return  # this thread is sending, further out; it takes this frame as well
        # Again after the lock is released: a signal handler may have left a frame
        # after the last look into the queue and before the release.
        while self._queue:
            with self._lock:
                self._send_queued()

    def _send_queued(self) -> None:
        """Empty the queue. Holding the lock."""
        while self._queue:
            if self._gone or self._sock is None:
                self._queue.clear()
                return
            head = self._queue[0]
            try:
                # One C call sends and records: ``sent += [sock.send(rest)]`` in
                # Python could be interrupted between the two.
                head.sent.extend(map(self._sock.send, (head.rest(),)))
            except OSError as exc:
                if not _means_gone(exc):
                    raise
                self._gone = True
                continue
            if head.is_out():
                self._queue.popleft()

    # ── fork by user code ────────────────────────────────────────────────────

    def before_fork(self) -> None:
        """Wait until no other thread is sending, and keep it so."""
        self._lock.acquire()
        self._max_bytes = SHARED_FRAME_BYTES

    def after_fork_in_parent(self) -> None:
        """Let other threads send again."""
        # Not owned if an exception out of a signal handler cut before_fork short.
        if self._lock._is_owned():
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: threads that waited here are gone, and what is queued the parent sends."""
        self._lock = _new_lock()
        self._queue = deque()
        self._child_pid = os.getpid()


class _Outgoing:
    """A frame, and the counts that ``send`` returned for it so far."""

    __slots__ = ("frame", "sent")

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.sent: list[int] = []

    def rest(self) -> memoryview | bytes:
        return memoryview(self.frame)[sum(self.sent) :] if self.sent else self.frame

    def is_out(self) -> bool:
        return sum(self.sent) == len(self.frame)


class _OwnedLock(Protocol):
    """An RLock. ``threading.Condition`` relies on ``_is_owned`` as well."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> bool: ...
    def __exit__(self, kind: object, value: object, trace: object) -> None: ...
    def _is_owned(self) -> bool: ...


def _new_lock() -> _OwnedLock:
    return cast("_OwnedLock", threading.RLock())


def _means_gone(exc: OSError) -> bool:
    # A signal handler of the user may raise a TimeoutError of its own in here;
    # that one has no errno, or one that a Unix socket never gives.
    return exc.errno is not None and exc.errno != errno.ETIMEDOUT


def _level_number(level: str) -> int:
    number = logging.getLevelName(level.upper())
    if not isinstance(number, int):
        raise ValueError(f"{level!r} is no log level")
    return number


class _Handler(logging.Handler):
    """Hands records on. Without a lock: the forwarder needs none before it sends."""

    def __init__(self, forwarder: LogForwarder) -> None:
        super().__init__()
        self._forwarder = forwarder

    def handle(self, record: logging.LogRecord) -> bool:
        """Hand *record* on, as the base class would but for its lock."""
        passed = self.filter(record)
        if passed:
            # From Python 3.12 on a filter may put another record in its place.
            self._forwarder.forward(record if passed is True else cast("logging.LogRecord", passed))
        return bool(passed)
