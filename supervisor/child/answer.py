"""A job's end as it goes to the supervisor: the outcome's half that only the worker knows.

The value or the error travels as bytes that the supervisor never opens. Whatever
cannot travel turns a success into a failure that says why; what was a failure
already stays one, and its text travels all the same.
"""

from __future__ import annotations

import pickle
import traceback
from typing import Final

import msgspec

from ipc import fds
from ipc.errors import PayloadTooLarge
from ipc.messages import MAX_REASON, ErrorText, Finished, RunJob, cut
from supervisor import travel
from supervisor.child.run import Ending
from supervisor.errors import text_of

# How long an error's message may be on the wire, in characters.
_MESSAGE_TEXT: Final = 8192


def answer(
    job: RunJob,
    ending: Ending,
    *,
    began_at: float,
    cpu_seconds: float,
    max_rss_bytes: int,
) -> tuple[Finished, list[int]]:
    """Return what is sent at the end of *job*, and the descriptors beside it, the caller's to close.

    Runs the user's code: pickling does. Whatever that raises is part of the answer.

    Args:
        job: as it was received.
        ending: how it ended.
        began_at: what its mark says, CLOCK_MONOTONIC.
        cpu_seconds: used by the job and by what it waited for.
        max_rss_bytes: of this process, so far.
    """
    error = None if ending.error is None else error_text(ending.error)
    status = ending.status
    payload: bytes | None = None
    descriptors: list[int] = []
    try:
        payload = _packed(job, ending)
        if payload is not None and len(payload) > fds.INLINE_BYTES:
            # OSError: the job left no descriptor or no memory.
            descriptors, payload = [fds.write_memory(payload)], b""
    except BaseException as exc:  # noqa: BLE001 - pickling runs the user's code
        payload = None
        if status == "succeeded":
            status, error = "failed", error_text(exc)
            payload = _pack_if_possible(exc, job.data_only)
    finished = Finished(
        job.job,
        status,
        cut(ending.reason, MAX_REASON),
        payload,
        error,
        began_at,
        ending.entered_at,
        cpu_seconds,
        max_rss_bytes,
    )
    return finished, descriptors


def _packed(job: RunJob, ending: Ending) -> bytes | None:
    payload = _pack_result(job, ending)
    if payload is not None and len(payload) > job.max_payload_bytes:
        raise PayloadTooLarge(
            "the result",
            len(payload),
            job.max_payload_bytes,
            "raise max_payload_mb, or hand over a file name instead",
        )
    return payload


def _pack_result(job: RunJob, ending: Ending) -> bytes | None:
    if ending.error is not None:
        return _pack_error(ending.error, job.data_only)
    if ending.status != "succeeded" or job.kind == travel.SESSION:
        return None
    if job.data_only:
        return _pack_data(ending.value)
    return travel.pack(ending.value, "the result")


def _pack_error(error: BaseException, data_only: bool) -> bytes | None:
    if data_only:
        return None
    packed = travel.pack(error, f"the {type(error).__name__} it raised")
    # Many exceptions pickle and cannot be rebuilt: __init__ takes more than args
    # holds. Found out here, the caller still gets the text and the traceback.
    pickle.loads(packed)
    return packed


def _pack_if_possible(error: BaseException, data_only: bool) -> bytes | None:
    try:
        return _pack_error(error, data_only)
    except BaseException:  # noqa: BLE001 - what a user's __reduce__ raised; its text travels
        return None


def _pack_data(value: object) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except TypeError as exc:
        raise TypeError(f"results='data' takes plain data only, the job returned: {exc}") from exc


def error_text(error: BaseException) -> ErrorText:
    """Return *error* as text that fits into a frame."""
    told = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return ErrorText(type(error).__name__, cut(text_of(error), _MESSAGE_TEXT), cut(told))
