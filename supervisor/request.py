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
from typing import Final

from supervisor.checks import check_pairs, check_text
from supervisor.child.calls import is_coroutine_function
from supervisor.errors import text_of
from supervisor.inthread import in_thread
from supervisor.job import AcceptArguments, JobInfo, Participant, Room
from supervisor.options import Hook

logger = logging.getLogger("greenroom.request")

# Calls whose time is over and that have not ended: the loop itself would not keep them.
_STUBBORN: Final[set[asyncio.Task[None]]] = set()


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
            OptionError: an argument is no text, or none that can be sent as UTF-8.
        """
        arguments = AcceptArguments(
            check_text("name", name),
            check_text("identity", identity) or f"agent-{self.id}",
            check_text("metadata", metadata),
            {} if attributes is None else check_pairs("attributes", attributes),
        )
        self._give(arguments)
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

    An exception of whatever kind, no answer and no time are a rejection, and are logged.

    Cancelled: the user's function is too, and is not waited for.
    """
    request = JobRequest(job)
    call = asyncio.ensure_future(_call(on_request, request))
    try:
        await asyncio.wait({call}, timeout=seconds)
    finally:
        # It may refuse to end: then it has its own time, and the dispatcher its answer.
        if not call.done():
            _STUBBORN.add(call)
            call.add_done_callback(_ended_late)
            call.cancel()
    if not call.done():
        # Answered and still busy with something else: the answer counts.
        if request._answer is None:
            return _refuse(job, f"on_request did not answer within {seconds:.3g} s")
    elif call.cancelled():
        # Not by us, nor by whoever waits: by something that it had waited for.
        return _refuse(job, "on_request raised CancelledError")
    elif (raised := call.exception()) is not None:
        logger.error("on_request raised for job %s, which is rejected", job.id, exc_info=raised)
        return Rejected(detail=f"on_request raised {type(raised).__name__}: {text_of(raised)}")
    if request._answer is None:
        return _refuse(job, "on_request neither accepted nor rejected")
    return request._answer


def _ended_late(call: asyncio.Task[None]) -> None:
    _STUBBORN.discard(call)
    if not call.cancelled() and (raised := call.exception()) is not None:
        logger.warning("on_request raised after its time was over", exc_info=raised)


async def _call(on_request: Hook, request: JobRequest) -> None:
    try:
        if is_coroutine_function(on_request):
            result = on_request(request)
        else:
            result = await in_thread(lambda: on_request(request), "greenroom-on-request")
        if inspect.isawaitable(result):
            await result
    except SystemExit as exc:
        # Raised in a task it would end the server's loop.
        raise RuntimeError(f"it called sys.exit({exc.code!r})") from exc
    except KeyboardInterrupt as exc:
        raise RuntimeError("it raised KeyboardInterrupt") from exc


def _refuse(job: JobInfo, what: str) -> Rejected:
    logger.warning("job %s is rejected: %s", job.id, what)
    return Rejected(detail=what)
