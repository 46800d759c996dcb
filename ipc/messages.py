"""Every message between the supervisor and its children. Pure: bytes and structs.

Four directions, one tagged union for each, encoded as MessagePack arrays
(msgspec). A message that arrives is validated against its union: a wrong tag, a
wrong type or a missing field is a :class:`~ipc.errors.ProtocolError`.

====================  ==========================================================
:data:`ToForkServer`   the supervisor to the fork server: fork
:data:`FromForkServer` the fork server to the supervisor: ready, forked, exited
:data:`ToWorker`       the supervisor to a worker: run, ping, stop
:data:`FromWorker`     a worker to the supervisor: hello, ready, started, finished
====================  ==========================================================

A worker's log records travel on a socket of their own (:class:`Log`).

What a user's function is, what its arguments are and what it returned are
opaque bytes here. They are opened in the child, or by the caller who awaits a
result, never by the supervisor's loop.
"""

from __future__ import annotations

from typing import Any, Final, Generic, Literal, TypeVar, Union

import msgspec

from ipc.errors import NotEncodable, ProtocolError
from ipc.frames import HEADER, MAX_FRAME_BYTES, MAX_FRAME_DESCRIPTORS, encode_frame

# Longer texts are cut where they are made. A traceback is useful in its first
# and last lines; a megabyte of it would only fill the frame.
MAX_TEXT: Final = 64 * 1024

# Why a job ends, as its caller or the job itself gives it: it stands in each record of the end.
MAX_REASON: Final = 1024


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Base of all messages: immutable, positional on the wire, tagged by its name."""


class ErrorText(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An exception as text: its type's name, its message, its formatted traceback."""

    type: str
    message: str
    traceback: str


# ── the supervisor to the fork server ────────────────────────────────────────


class Name(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A function, by its module's name and its own."""

    module: str
    function: str


class Fork(Message, frozen=True):
    """Fork a worker. Its channel, its log socket and, when output is captured,
    the write ends of its stdout and stderr travel beside the message.

    ``awaited``: jobs wait for a worker, so that it should not rehearse before it is ready.
    ``familiar``: functions that it is likely to be asked for.
    """

    worker: int
    awaited: bool = False
    familiar: tuple[Name, ...] = ()


class KillWorker(Message, frozen=True):
    """Kill a worker's group: asked of its parent where no pidfd could be had."""

    worker: int


ToForkServer = Union[Fork, KillWorker]

# ── the fork server to the supervisor ────────────────────────────────────────


class Hello(Message, frozen=True):
    """The process runs our code; the user's hooks are next. From the fork server too."""

    pid: int


class Preloaded(Message, frozen=True):
    """Imports and ``preload_fnc`` are done, in that many seconds; what follows is our own."""

    seconds: float


class ForkServerReady(Message, frozen=True):
    """It forks from now on."""

    pid: int


class PreloadError(Message, frozen=True):
    """It cannot serve: what failed, as the user should read it."""

    error: ErrorText


class Forked(Message, frozen=True):
    """The worker exists. Its pidfd travels beside the message."""

    worker: int
    pid: int


class ForkFailed(Message, frozen=True):
    """``fork`` failed with this errno; there is no worker."""

    worker: int
    errno: int


class Exited(Message, frozen=True):
    """The kernel's word on a worker's end: wait status and resource usage.

    ``status`` is what ``waitpid`` gave; CPU times in seconds; ``max_rss_bytes``
    is the peak of the process itself.
    """

    worker: int
    status: int
    cpu_seconds: float
    max_rss_bytes: int


FromForkServer = Union[Hello, Preloaded, ForkServerReady, PreloadError, Forked, ForkFailed, Exited]

# ── the supervisor to a worker ───────────────────────────────────────────────


class RunJob(Message, frozen=True):
    """Run this job.

    ``body`` is a pickled call or an encoded session; it is empty when it travels
    in a memfd beside the message. ``last``: leave when the job is over, without
    being asked. ``max_payload_bytes``: what the body, and what it returns or raises, may take.
    """

    job: str
    kind: str  # how to open it: "call", "named call" or "session"
    last: bool
    body: bytes
    data_only: bool = False
    max_payload_bytes: int = 2**30


class Ping(Message, frozen=True):
    """Are you there?"""

    number: int


class Stop(Message, frozen=True):
    """End what you do and leave within *grace* seconds; after that comes SIGKILL."""

    reason: str
    grace: float


class DrainBegan(Message, frozen=True):
    """The server drains: jobs that run may go on for *remaining* seconds (None: for ever)."""

    remaining: Union[float, None]


ToWorker = Union[RunJob, Ping, Stop, DrainBegan]

# ── a worker to the supervisor ───────────────────────────────────────────────


class Ready(Message, frozen=True):
    """``setup_fnc`` has finished; the hand-over was rehearsed unless a job waits for it."""

    seconds: float


class SetupError(Message, frozen=True):
    """Something failed before the worker was warm; the process leaves."""

    error: ErrorText
    what: Literal["preload_fnc", "initializer", "setup_fnc", "the worker's start"] = "setup_fnc"


class Started(Message, frozen=True):
    """The job runs since that moment, which is in the worker's mark as well.

    The mark is what counts (see ``ipc.mark``). This follows a little later, and
    not at all if the job is over by then.
    """

    job: str
    at: float  # CLOCK_MONOTONIC, seconds


class Finished(Message, frozen=True):
    """How the job ended, told by itself.

    ``payload`` is what it returned or raised, pickled (or MessagePack for
    data-only results); it is empty when it travels in a memfd beside the message,
    and None when there is nothing to hand on.
    """

    job: str
    status: str  # "succeeded", "failed", "cancelled"
    reason: str
    payload: Union[bytes, None]
    error: Union[ErrorText, None]
    began_at: float  # CLOCK_MONOTONIC, as in its mark
    entered_at: float  # CLOCK_MONOTONIC just before the user's function; 0.0: never entered
    cpu_seconds: float
    max_rss_bytes: int


class Pong(Message, frozen=True):
    """The answer to a ping."""

    number: int


class Lagging(Message, frozen=True):
    """The job's event loop has not turned for so many seconds; this is where it is.

    Args:
        fatal: why the process ends itself now, in a sentence; empty if it does not.
    """

    seconds: float
    stack: str
    fatal: str = ""


FromWorker = Union[Hello, Ready, SetupError, Started, Finished, Pong, Lagging]

# ── a worker's log socket ────────────────────────────────────────────────────


class Log(Message, frozen=True):
    """One log record of a worker; ``fields`` are the caller's own, made plain."""

    level: int
    logger: str
    message: str
    created: float  # seconds since the epoch
    path: str
    line: int
    function: str
    thread: str
    exception: Union[str, None] = None
    fields: dict[str, Any] = {}


FromWorkerLog = Log

M = TypeVar("M")

_encoder = msgspec.msgpack.Encoder()

# What that raises for what it cannot encode.
_CANNOT_TRAVEL: Final = (UnicodeEncodeError, OverflowError, TypeError, RecursionError)


def encode(message: Message) -> bytes:
    """Return the message as bytes.

    Raises:
        NotEncodable: it holds what cannot travel: a text with a lone surrogate, a
            number of more than 64 bits, a field that is not plain data.
    """
    try:
        return _encoder.encode(message)
    except _CANNOT_TRAVEL as exc:
        raise _not_encodable(message, exc) from exc


def framed(message: Message, descriptors: int = 0) -> bytes:
    """Return the message as a frame that announces so many descriptors.

    Raises:
        NotEncodable: as for :func:`encode`.
        PayloadTooLarge: it is over the frame limit.
        ProtocolError: these are too many descriptors.
    """
    try:  # and not encode and encode_frame: they are two functions on each job's way
        payload = _encoder.encode(message)
    except _CANNOT_TRAVEL as exc:
        raise _not_encodable(message, exc) from exc
    if len(payload) > MAX_FRAME_BYTES or not 0 <= descriptors <= MAX_FRAME_DESCRIPTORS:
        return encode_frame(payload, descriptors)  # which says what is wrong
    return HEADER.pack(len(payload), descriptors) + payload


def _not_encodable(message: Message, exc: Exception) -> NotEncodable:
    return NotEncodable(f"a {type(message).__name__} cannot be sent: {exc}")


class Decoder(Generic[M]):
    """Decode the messages of one direction.

    Args:
        kind: one of the unions of this file.
    """

    def __init__(self, kind: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(kind)

    def decode(self, payload: bytes) -> M:
        """Return the message.

        Raises:
            ProtocolError: it is not a message of this direction.
        """
        try:
            return self._decoder.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise ProtocolError(f"not a message of this direction: {exc}") from exc


def cut(text: str, limit: int = MAX_TEXT) -> str:
    """Return *text* fit to travel.

    Its middle is left out when it is longer than *limit* characters. Lone
    surrogates, as in the names of odd files, are escaped: UTF-8 cannot carry them.
    """
    if len(text) > limit:
        half = limit // 2
        left_out = len(text) - 2 * half
        text = f"{text[:half]}\n… {left_out} characters left out …\n{text[len(text) - half :]}"
    try:
        text.encode()
    except UnicodeEncodeError:
        return cut(text.encode("utf-8", "backslashreplace").decode(), limit)
    return text
