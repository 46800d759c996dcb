"""JobRequest: what ``on_request`` is asked, and how it is asked in time.

The user's function may be async or plain, may raise, may answer nothing, may
never return. Whatever it does, the dispatcher has its answer within the time
limit, and other requests are not held up: a plain function runs in a thread.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Generator, Mapping
from dataclasses import dataclass

from supervisor.child.calls import is_coroutine_function
from supervisor.job import AcceptArguments, JobInfo, Participant, Room
from supervisor.launch import in_thread
from supervisor.options import Hook

logger = logging.getLogger("greenroom.request")


@dataclass(frozen=True)
class Rejected:
    """What ``reject`` was given, or why there was no answer that counts."""

    terminate: bool = False
    detail: str = "rejected by on_request"


class _Done:
    """Awaitable, and done already: ``await req.accept()`` and ``req.accept()`` are the same."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


class JobRequest:
    """One request for a job. Answer it once, with :meth:`accept` or :meth:`reject`.

    Runs on: the server's loop, or the thread that a plain ``on_request`` runs in.
    """

    def __init__(self, job: JobInfo) -> None:
        self._job = job
        self._answer: AcceptArguments | Rejected | None = None

    @property
    def id(self) -> str:
        """The job's id."""
        return self._job.id

    @property
    def job(self) -> JobInfo:
        """The job as its dispatcher described it."""
        return self._job

    @property
    def room(self) -> Room:
        """The room that the job is for."""
        return self._job.room

    @property
    def publisher(self) -> Participant | None:
        """For ``ServerType.PUBLISHER``, whom the job is for; else None."""
        return self._job.publisher

    @property
    def agent_name(self) -> str:
        """The agent that was asked for; empty for any."""
        return self._job.agent_name

    @property
    def metadata(self) -> str:
        """What the requester attached."""
        return self._job.metadata

    def accept(
        self,
        *,
        name: str = "",
        identity: str = "",
        metadata: str = "",
        attributes: Mapping[str, str] | None = None,
    ) -> Awaitable[None]:
        """Take the job.

        Args:
            name: the agent's display name in the room.
            identity: its identity; ``agent-<job id>`` unless given.
            metadata: its metadata.
            attributes: its attributes; names and values are text.

        Raises:
            RuntimeError: the request was answered before.
            TypeError: an argument is no text.
        """
        for label, value in (("name", name), ("identity", identity), ("metadata", metadata)):
            if not isinstance(value, str):
                raise TypeError(f"{label}={value!r}: expected text")
        pairs = dict(attributes or {})
        for key, value in pairs.items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise TypeError(f"attributes[{key!r}]={value!r}: expected text")
        self._give(AcceptArguments(name, identity or f"agent-{self.id}", metadata, pairs))
        return _Done()

    def reject(self, *, terminate: bool = False) -> Awaitable[None]:
        """Do not take the job.

        Args:
            terminate: drop it; without it somebody else may take it.

        Raises:
            RuntimeError: the request was answered before.
        """
        self._give(Rejected(terminate))
        return _Done()

    def _give(self, answer: AcceptArguments | Rejected) -> None:
        if self._answer is not None:
            raise RuntimeError(f"job request {self.id} was answered before")
        self._answer = answer

    def __repr__(self) -> str:
        return f"<JobRequest {self.id} room {self.room.name!r}>"


def accept_by_default(job: JobInfo) -> AcceptArguments:
    """Return what is said to *job* where the user has no function for it."""
    return AcceptArguments(identity=f"agent-{job.id}", attributes={})


async def ask(on_request: Hook, job: JobInfo, seconds: float) -> AcceptArguments | Rejected:
    """Return what the user says to *job*, within *seconds*.

    An exception, no answer and no time are a rejection, and are logged.
    """
    request = JobRequest(job)
    try:
        await asyncio.wait_for(_call(on_request, request), seconds)
    except asyncio.TimeoutError:
        # Answered and still busy with something else: the answer counts.
        if request._answer is None:
            return _refuse(job, f"on_request did not answer within {seconds:.3g} s")
    except Exception as exc:  # noqa: BLE001 - the user's code: an answer is due all the same
        logger.exception("on_request raised for job %s, which is rejected", job.id)
        return Rejected(detail=f"on_request raised {type(exc).__name__}: {exc}")
    if request._answer is None:
        return _refuse(job, "on_request neither accepted nor rejected")
    return request._answer


async def _call(on_request: Hook, request: JobRequest) -> None:
    try:
        await _call_either(on_request, request)
    except SystemExit as exc:
        # Raised in a task it would end the server's loop.
        raise RuntimeError(f"it called sys.exit({exc.code!r})") from exc


async def _call_either(on_request: Hook, request: JobRequest) -> None:
    if is_coroutine_function(on_request):
        result = on_request(request)
    else:
        result = await in_thread(lambda: on_request(request), "greenroom-on-request")
    if inspect.isawaitable(result):
        await result


def _refuse(job: JobInfo, what: str) -> Rejected:
    logger.warning("job %s is rejected: %s", job.id, what)
    return Rejected(detail=what)
