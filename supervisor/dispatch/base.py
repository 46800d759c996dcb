"""What a dispatcher and a server promise each other.

A dispatcher brings job requests. It offers each to the server, gets an
:class:`Answer`, and, when the answer is yes, starts the job through the
:class:`Place` that was kept for it, or gives the place back. Offering and
starting are two steps because some dispatchers (LiveKit's) tell only later
whether the job really comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from supervisor.errors import SupervisorError
from supervisor.handle import JobHandle
from supervisor.job import AcceptArguments, JobInfo, Participant, Room
from supervisor.stats import PoolStats


class Place(Protocol):
    """A place that the server keeps for one accepted job. Use it exactly once."""

    @property
    def job(self) -> JobInfo:
        """The job, with what ``accept`` was given."""
        ...

    def check(self) -> None:
        """Raise what :meth:`start` would raise because of the job itself. The place stays kept.

        Raises:
            PayloadTooLarge: it is over ``max_payload_mb``.
        """
        ...

    def start(self, *, url: str = "", token: str = "") -> JobHandle[Any]:
        """Hand the job over; *url* and *token* let it join its room."""
        ...

    def give_back(self) -> None:
        """The job does not come after all."""
        ...


class Answer(msgspec.Struct, frozen=True):
    """What the server says to an offer.

    Args:
        place: the place that is kept, if the answer is yes.
        reason: why not: ``"draining"``, ``"load"``, ``"max_jobs"``, ``"not ready"``
            (not admitted) or ``"rejected"`` (``on_request`` said no).
        detail: the figures or the text behind the reason.
        terminate: ``on_request`` wants the job dropped, not offered to others.
    """

    place: Place | None = None
    reason: str = ""
    detail: str = ""
    terminate: bool = False

    @property
    def accepted(self) -> bool:
        """True if a place is kept."""
        return self.place is not None

    @property
    def arguments(self) -> AcceptArguments:
        """What ``accept`` was given."""
        assert self.place is not None, "only an accepted offer has arguments"
        return self.place.job.accept_arguments


# What a server says whose doors are shut: before it serves, while it goes down, and from its
# end on.
NOT_YET: Final = Answer(reason="not ready", detail="the server does not run yet")
DRAINING: Final = Answer(reason="draining")
NO_MORE: Final = Answer(reason="not ready", detail="the server has ended")


class Host(Protocol):
    """The server, as a dispatcher sees it. Every method runs on the server's loop."""

    @property
    def id(self) -> str: ...
    @property
    def draining(self) -> bool: ...
    @property
    def load(self) -> float: ...
    @property
    def active_jobs(self) -> list[JobInfo]: ...

    def job_infos(
        self,
        *,
        room: str | Room,
        metadata: str = "",
        publishers: Sequence[str | Participant] = (),
        agent_name: str | None = None,
        job_id: str | None = None,
    ) -> list[JobInfo]:
        """Return the jobs that a request stands for: one for each publisher, or one.

        Raises:
            ValueError: bad input, in a sentence for the client.
        """
        ...

    async def offer(self, job: JobInfo) -> Answer:
        """Ask whether the server takes *job*. Always answers, within seconds, never raises."""
        ...

    def stats(self) -> PoolStats: ...

    def status(self) -> dict[str, Any]:
        """Return what ``status`` and ``/worker`` show, as plain data."""
        ...

    def begin_drain(self, timeout: float | None = ...) -> None:
        """Begin the drain that a SIGTERM would begin; *timeout* (seconds) overrides drain_timeout."""
        ...

    def not_ready(self) -> str | None:
        """Return why the server takes no jobs now, or None if it does."""
        ...

    async def measure_load(self) -> float | None:
        """Return the load as it is now; None if it cannot be told. Never raises."""
        ...

    def on(self, event: str, callback: Callable[[Any], object]) -> object:
        """Have *callback* called with each event of that name, ``job_started`` and so on."""
        ...

    def registered(self, dispatcher: Dispatcher, server_id: str) -> None:
        """*dispatcher* can bring jobs now; where they come from this server is *server_id*."""
        ...

    def give_up(self, error: SupervisorError) -> None:
        """No jobs will ever come again: drain, and end with *error*."""
        ...


class Dispatcher(Protocol):
    """A source of job requests."""

    @property
    def connected(self) -> bool:
        """True while requests can arrive."""
        ...

    async def start(self, host: Host) -> None:
        """Begin to take requests.

        Raises:
            SupervisorError: it cannot; one sentence, for the operator.
        """
        ...

    def drain_began(self) -> None:
        """The server takes no new jobs from now on; its running jobs go on."""
        ...

    async def close(self) -> None:
        """Report what is left to report and let go of everything. After the last job."""
        ...


@runtime_checkable
class Heir(Protocol):
    """A dispatcher whose requests and jobs go on under the next server (supervisor.succession)."""

    def inherit(self, ended: list[tuple[str, str]]) -> None:
        """Know the predecessor's ended jobs: ids and JSON. Before ``start``."""
        ...

    def track(self, handle: JobHandle[Any]) -> None:
        """Show a job that came another way. Also before ``start``."""
        ...

    async def pause(self) -> None:
        """Take no more requests, and return when those that were taken are answered.

        Clients that wait for a job's end are told that it goes on.
        """
        ...

    def estate(self) -> list[tuple[str, str]]:
        """Return the ended jobs for the successor's :meth:`inherit`."""
        ...
