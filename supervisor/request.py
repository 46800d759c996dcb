"""JobRequest: what ``on_request`` is asked, and how it is asked in time.

The user's function may be async or plain, may raise, may answer nothing, may
never return. Whatever it does, the dispatcher has its answer within the time
limit, and other requests are not held up: a plain function runs in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass

from supervisor.checks import check_pairs, check_text
from supervisor.child.calls import is_coroutine_function
from supervisor.errors import text_of
from supervisor.inthread import in_thread
from supervisor.job import AcceptArguments, JobInfo, Participant, Room
from supervisor.joblog import about
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

    The answer counts at once, whatever ``on_request`` does after it.

    Runs on: the server's loop, or the thread that a plain ``on_request`` runs in.
    """

    def __init__(self, job: JobInfo, answered: Callable[[], None] = lambda: None) -> None:
        self._job = job
        self._answered = answered
        #: What it was answered, None as long as it was not. For the server.
        self.answer: AcceptArguments | Rejected | None = None

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
        if self.answer is not None:
            raise RuntimeError(f"job request {self.id} was answered before")
        self.answer = answer
        self._answered()

    def __repr__(self) -> str:
        return f"<JobRequest {self.id} room {self.room.name!r}>"


class RequestHook:
    """The user's ``on_request``, asked for one job after the other or for many at once.

    An answer counts from the moment it is given. What the function does after it is its
    own business: it goes on, and has until the server's end.

    Args:
        function: the user's; plain or async.

    Runs on: the server's loop, every method.
    """

    def __init__(self, function: Hook) -> None:
        self._function = function
        # Calls that are not waited for any more: the loop itself would not keep them.
        self._going_on: set[asyncio.Task[None]] = set()

    async def ask(self, job: JobInfo, seconds: float) -> AcceptArguments | Rejected:
        """Return what the user says to *job*, within *seconds*.

        An exception of whatever kind, no answer and no time are a rejection, and are logged.

        Cancelled: the user's function is too, and is not waited for.
        """
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[None] = loop.create_future()
        request = JobRequest(job, lambda: _wake(loop, answered))
        call = asyncio.ensure_future(_call(self._function, request))
        awaited: set[asyncio.Future[None]] = {call, answered}
        try:
            await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not call.done():
                self._going_on.add(call)
                call.add_done_callback(lambda ended: self._ended(job, ended))
                if request.answer is None:
                    call.cancel()  # it may refuse to end, or take its time: nobody waits for it
        answer, raised = request.answer, _error_of(call)
        if raised is not None:
            logger.error(
                "on_request raised for job %s%s",
                job.id,
                ", which is rejected" if answer is None else " after it had answered",
                exc_info=raised,
                extra=about(job),
            )
        if isinstance(answer, Rejected):
            logger.info("job %s is %s", job.id, answer.detail, extra=about(job))
        if answer is not None:
            return answer
        if raised is not None:
            told = f"{type(raised).__name__}: {text_of(raised)}".removesuffix(": ")
            return Rejected(detail=f"on_request raised {told}")
        what = "neither accepted nor rejected"
        if not call.done():
            what = f"did not answer within {seconds:.3g} s"
        logger.warning("job %s is rejected: on_request %s", job.id, what, extra=about(job))
        return Rejected(detail=f"on_request {what}")

    def close(self) -> None:
        """Cancel whatever goes on."""
        for call in self._going_on:
            call.cancel()

    def _ended(self, job: JobInfo, call: asyncio.Task[None]) -> None:
        self._going_on.discard(call)
        if not call.cancelled() and (raised := call.exception()) is not None:
            what = "on_request raised for job %s, when nobody waited for it any more"
            logger.error(what, job.id, exc_info=raised, extra=about(job))


def _wake(loop: asyncio.AbstractEventLoop, answered: asyncio.Future[None]) -> None:
    def settle() -> None:
        if not answered.done():
            answered.set_result(None)

    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(settle)  # a plain function answers from a thread


def _error_of(call: asyncio.Task[None]) -> BaseException | None:
    if not call.done():
        return None
    # Cancelled not by us, nor by whoever waits: by something that it had waited for.
    return asyncio.CancelledError() if call.cancelled() else call.exception()


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
