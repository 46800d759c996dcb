"""What a job handed back, opened in the process of the caller who awaits it.

A parcel is bytes from a child. Opening a pickle runs the child's code, so this
is called by the caller, where an error, even a ``SystemExit``, reaches nobody
else. With data-only results nothing is ever unpickled.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ipc import fds
from ipc.errors import PayloadTooLarge
from supervisor.errors import (
    JobKilled,
    JobRaised,
    JobRejected,
    JobTimedOut,
    JobWasCancelled,
    ResultError,
    WorkerLost,
)
from supervisor.job import JobOutcome, JobStatus

# How a payload is encoded.
PICKLE: Final = "pickle"
DATA: Final = "data"


# A result in memory of its own is read at once up to here (a millisecond or
# two); a larger one stays there until its caller wants it.
_READ_NOW_BYTES: Final = 4 * 2**20


class SealedMemory:
    """A large payload that stays in the child's sealed memory until it is wanted.

    Reading a gigabyte would stop the supervisor's loop for a third of a second,
    so it is done by the caller who awaits the result.

    Args:
        fd: the descriptor; owned from here on, closed with this object.
        max_bytes: the largest payload that is allowed.

    Raises:
        ProtocolError: it is not sealed memory, or too large. It is closed then.
    """

    def __init__(self, fd: int, max_bytes: int) -> None:
        self._fd = fd
        self._max_bytes = max_bytes
        try:
            self.size = fds.check_memory(fd, max_bytes=max_bytes, what="the result")
        except BaseException:
            self._fd = -1
            fds.close_strangers([fd])
            raise

    def read(self) -> bytearray:
        """Return the payload. Runs on: any thread."""
        return fds.read_memory(self._fd, max_bytes=self._max_bytes, what="the result")

    def close(self) -> None:
        """Close the descriptor. May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


@dataclass(frozen=True)
class Parcel:
    """What a job returned or raised, unopened; or the error that stands for it.

    Args:
        content: the encoded value, from the child.
        encoding: ``"pickle"`` or ``"data"``.
        timeout: the job's timeout in seconds, for the error's text.
        error: an error of this process, raised as it is.
    """

    content: bytes | bytearray | SealedMemory | None = None
    encoding: str = PICKLE
    timeout: float | None = None
    error: BaseException | None = None


def receive_parcel(
    payload: bytes | None,
    descriptors: list[int],
    *,
    max_bytes: int,
    encoding: str,
    timeout: float | None,
) -> Parcel:
    """Return what came from a child, unopened. Takes what it keeps out of *descriptors*.

    Raises:
        ProtocolError: too large, or not sealed memory.
    """
    content: bytes | SealedMemory | bytearray | None = payload
    if descriptors:
        memory = SealedMemory(descriptors.pop(), max_bytes)
        content = memory
        if memory.size <= _READ_NOW_BYTES:
            content = memory.read()
            memory.close()
    elif payload is not None and len(payload) > max_bytes:
        raise PayloadTooLarge("the result", len(payload), max_bytes)
    return Parcel(content, encoding, timeout=timeout)


class RemoteTraceback(Exception):
    """The cause of an exception that came from a worker; prints the worker's traceback."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def open_parcel(outcome: JobOutcome, parcel: Parcel | None) -> tuple[Any, BaseException | None]:
    """Return the job's value and None; or None, and its exception or the error of its outcome.

    An exception is returned and not raised, whatever it is: a ``KeyboardInterrupt``
    that the job raised is its outcome, and one that comes out of here is the user's.

    Runs on: the caller's thread; it may run code that the job chose.

    Raises:
        KeyboardInterrupt: the user interrupted it, and nothing is known yet.
    """
    if outcome.status is not JobStatus.SUCCEEDED:
        return None, error_of(outcome, parcel)
    if parcel is None or parcel.content is None:
        return None, None
    try:
        return _decode(parcel.content, parcel.encoding), None
    except ResultError as exc:
        return None, exc


def error_of(outcome: JobOutcome, parcel: Parcel | None) -> BaseException:
    """Return the exception that stands for *outcome*, which is not a success."""
    timeout = parcel.timeout if parcel is not None else None
    if parcel is not None and parcel.error is not None:
        return parcel.error
    if outcome.status is JobStatus.CANCELLED:
        return JobWasCancelled(outcome.reason or "cancelled")
    if outcome.status is JobStatus.TIMED_OUT:
        return JobTimedOut(timeout if timeout is not None else 0.0)
    if outcome.status is JobStatus.KILLED:
        return JobKilled(outcome.pid, outcome.exit, outcome.reason, _message(outcome))
    if outcome.status is JobStatus.REJECTED:
        return JobRejected(outcome.reason or "rejected by on_request")
    # A job that said how it ended has no exit: its process had not ended yet.
    if outcome.error is None or outcome.exit is not None:
        return WorkerLost(outcome.pid, outcome.exit, outcome.reason, _message(outcome))
    return _remote_error(outcome, parcel)


def _message(outcome: JobOutcome) -> str:
    return "" if outcome.error is None else outcome.error.message


def _remote_error(outcome: JobOutcome, parcel: Parcel | None) -> BaseException:
    assert outcome.error is not None
    if parcel is None or parcel.content is None or parcel.encoding != PICKLE:
        error: BaseException = JobRaised(outcome.error.type, outcome.error.message)
    else:
        try:
            decoded = _decode(parcel.content, PICKLE)
        except ResultError as exc:
            return exc
        if not isinstance(decoded, BaseException):
            return ResultError(f"expected an exception from the job, got {type(decoded).__name__}")
        error = decoded
    if outcome.error.traceback:
        error.__cause__ = RemoteTraceback(outcome.error.traceback)
    return error


def _decode(content: bytes | bytearray | SealedMemory, encoding: str) -> Any:
    try:
        if isinstance(content, SealedMemory):
            content = content.read()
        if encoding == DATA:
            return msgspec.msgpack.decode(content)
        # The child's bytes, opened in the caller's process because the caller
        # asked for the value: every process pool does so. See results="data".
        return pickle.loads(content)
    except BaseException as exc:  # unpickling runs arbitrary code: even SystemExit ends here
        if isinstance(exc, KeyboardInterrupt):
            raise
        raise ResultError(
            f"the job's result could not be unpickled: {type(exc).__name__}: {exc}"
        ) from exc
