"""What a job handed back, opened in the process of the caller who awaits it.

A parcel is bytes from a child. Opening a pickle runs the child's code, so this
is called by the caller, where an error, even a ``SystemExit``, reaches nobody
else. With data-only results nothing is ever unpickled.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from supervisor.errors import JobCancelled, JobKilled, JobTimedOut, ResultError, WorkerLost
from supervisor.job import JobOutcome, JobStatus

# How a payload is encoded.
PICKLE: Final = "pickle"
DATA: Final = "data"


@dataclass(frozen=True)
class Parcel:
    """Bytes from a child: what a job returned or raised.

    Args:
        content: the encoded value.
        encoding: ``"pickle"`` or ``"data"``.
        timeout: the job's timeout in seconds, for the error's text.
    """

    content: bytes | bytearray | None
    encoding: str = PICKLE
    timeout: float | None = None


class RemoteTraceback(Exception):
    """The cause of an exception that came from a worker; prints the worker's traceback."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class JobRaised(Exception):
    """Stands for a job's exception where only its text may travel (data-only results).

    Args:
        type: name of the exception's class.
        message: its text.
    """

    def __init__(self, type: str, message: str) -> None:
        self.type = type
        self.message = message
        super().__init__(type, message)

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


def open_parcel(outcome: JobOutcome, parcel: Parcel | None) -> Any:
    """Return the job's value, or raise its exception or the error of its outcome.

    Runs on: the caller's thread; it may run code that the job chose.
    """
    if outcome.status is JobStatus.SUCCEEDED:
        if parcel is None or parcel.content is None:
            return None
        return _decode(parcel.content, parcel.encoding)
    raise error_of(outcome, parcel)


def error_of(outcome: JobOutcome, parcel: Parcel | None) -> BaseException:
    """Return the exception that stands for *outcome*, which is not a success."""
    timeout = parcel.timeout if parcel is not None else None
    if outcome.status is JobStatus.CANCELLED:
        return JobCancelled(outcome.reason or "cancelled")
    if outcome.status is JobStatus.TIMED_OUT:
        return JobTimedOut(timeout if timeout is not None else 0.0)
    if outcome.status is JobStatus.KILLED:
        return JobKilled(outcome.pid, outcome.exit, outcome.reason)
    if outcome.error is None:
        return WorkerLost(outcome.pid, outcome.exit, outcome.reason)
    return _remote_error(outcome, parcel)


def _remote_error(outcome: JobOutcome, parcel: Parcel | None) -> BaseException:
    assert outcome.error is not None
    if parcel is None or parcel.content is None or parcel.encoding != PICKLE:
        error: BaseException = JobRaised(outcome.error.type, outcome.error.message)
    else:
        decoded = _decode(parcel.content, PICKLE)
        if not isinstance(decoded, BaseException):
            return ResultError(f"expected an exception from the job, got {type(decoded).__name__}")
        error = decoded
    if outcome.error.traceback:
        error.__cause__ = RemoteTraceback(outcome.error.traceback)
    return error


def _decode(content: bytes | bytearray, encoding: str) -> Any:
    try:
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
