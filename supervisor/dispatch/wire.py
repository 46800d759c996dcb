"""What the control socket's clients send and get: JSON, checked field by field."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web
from msgspec.structs import fields

from supervisor.clock import monotonic
from supervisor.dispatch.base import Answer
from supervisor.errors import NotAdmitted
from supervisor.handle import JobHandle

T = TypeVar("T", bound=msgspec.Struct)

# Seconds after which asking again may help: places come free at any moment, a
# failing setup or a drain takes longer.
RETRY_AFTER: Final = {"load": 1, "max_jobs": 1}
RETRY_AFTER_OTHERWISE: Final = 5


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what clients send."""


class RoomBody(Body, frozen=True):
    """A room, as :class:`supervisor.job.Room` has it."""

    name: str
    sid: str = ""
    metadata: str = ""


class ParticipantBody(Body, frozen=True):
    """A publisher, as :class:`supervisor.job.Participant` has it."""

    identity: str
    name: str = ""
    sid: str = ""
    metadata: str = ""
    attributes: dict[str, str] = {}


class SubmitBody(Body, frozen=True):
    """``POST /jobs``. *wait*: seconds; True: until the jobs have ended."""

    room: str | RoomBody
    metadata: str = ""
    publishers: list[str | ParticipantBody] = []
    agent_name: str | None = None
    job_id: str | None = None
    wait: bool | float = False


class DrainBody(Body, frozen=True):
    """``POST /drain``. *timeout*: seconds, None for ever; ``drain_timeout`` unless given."""

    timeout: float | msgspec.UnsetType | None = msgspec.UNSET


def decode(body: bytes, kind: type[T]) -> T:
    """Return *body* as *kind*, or raise a 400 that names the field and what it must be."""
    try:
        data = msgspec.json.decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise failure(web.HTTPBadRequest, f"the body is not JSON: {exc}") from exc
    if not isinstance(data, dict):
        raise failure(web.HTTPBadRequest, f"expected a JSON object, got {type(data).__name__}")
    known = [field.name for field in fields(kind)]
    if unknown := sorted(set(data) - set(known)):
        sentence = f"unknown field {', '.join(unknown)}; known are {', '.join(known)}"
        raise failure(web.HTTPBadRequest, sentence)
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as exc:
        # msgspec says "Expected `str`, got `int` - at `$.room.name`".
        what, _, where = str(exc).partition(" - at `$.")
        sentence = f"{where.rstrip('`')}: {what}" if where else what
        raise failure(web.HTTPBadRequest, sentence.replace("`", "'")) from exc


def checked_seconds(name: str, value: float) -> float:
    """Return *value*, or raise a 400 unless it is a number of seconds that can be waited for."""
    if not (math.isfinite(value) and value >= 0):
        raise failure(web.HTTPBadRequest, f"{name}: expected seconds, 0 or more, got {value}")
    return value


def query_number(query: Mapping[str, str], name: str, default: float) -> float:
    """Return a number of the query, 0 or more, or raise a 400."""
    text = query.get(name)
    try:
        return default if text is None else checked_seconds(name, float(text))
    except ValueError:
        raise failure(web.HTTPBadRequest, f"{name}: expected a number, got {text!r}") from None


def encode(data: object) -> bytes:
    """Return *data* as JSON; what JSON does not know goes as text."""
    try:
        return msgspec.json.encode(data, enc_hook=str)
    except UnicodeEncodeError:  # a lone surrogate in somebody's text: JSON can escape it
        return json.dumps(data, default=str).encode()


def respond(data: object, status: int = 200, **headers: str) -> web.Response:
    """Return an answer with *data* as JSON."""
    return web.Response(
        body=encode(data), status=status, content_type="application/json", headers=headers
    )


def failure(kind: type[web.HTTPError], sentence: str) -> web.HTTPError:
    """Return an error to raise; the client reads *sentence*."""
    return kind(text=sentence)


def refusal(answer: Answer) -> web.Response:
    """Return why a job was not taken: 409 for the user's no, 503 for "not now"."""
    if answer.reason == "rejected":
        detail = answer.detail or "rejected by on_request"
        body = {"error": detail if detail.startswith("rejected") else f"rejected: {detail}"}
        return respond({**body, "reason": "rejected", "terminate": answer.terminate}, 409)
    error = str(NotAdmitted(answer.reason, answer.detail))
    retry = RETRY_AFTER.get(answer.reason, RETRY_AFTER_OTHERWISE)
    body = {"error": error, "reason": answer.reason, "detail": answer.detail}
    return respond(body, 503, **{"Retry-After": str(retry)})


def job_as_data(handle: JobHandle[Any]) -> dict[str, Any]:
    """Return a job as clients see it."""
    info, outcome, record = handle.info, handle.outcome, handle.record
    return {
        "id": info.id,
        "status": handle.status.value,
        "pid": handle.pid,
        "room": info.room.name,
        "agent_name": info.agent_name,
        **({} if record is None else {"age_seconds": round(monotonic() - record.queued_at, 3)}),
        **({"resuming": True} if info.resuming else {}),
        **({"metadata": info.metadata} if info.metadata else {}),
        **({"publisher": info.publisher.identity} if info.publisher else {}),
        "outcome": None if outcome is None else outcome.as_dict(),
    }


class History:
    """Ended jobs as JSON, the oldest forgotten first. Bounded by count and by bytes.

    Not handles: those would keep each job's result in memory.
    """

    def __init__(self, *, max_jobs: int, max_bytes: int) -> None:
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._bytes = 0
        self._jobs: OrderedDict[str, bytes] = OrderedDict()

    def add(self, job_id: str, text: bytes) -> None:
        """Remember a job that has ended, as JSON."""
        self._bytes += len(text) - len(self._jobs.pop(job_id, b""))
        self._jobs[job_id] = text
        while len(self._jobs) > self._max_jobs or self._bytes > self._max_bytes:
            self._bytes -= len(self._jobs.popitem(last=False)[1])

    def get(self, job_id: str) -> bytes | None:
        """Return its JSON, or None if it is not known, or not any more."""
        return self._jobs.get(job_id)

    def all(self) -> list[tuple[str, str]]:
        """Return ids and JSON, the oldest first."""
        return [(job_id, text.decode()) for job_id, text in self._jobs.items()]

    def latest(self, count: int) -> Iterable[bytes]:
        """Return the JSON of the last *count* jobs, the newest first."""
        return islice(reversed(self._jobs.values()), count)
