"""Offers: admission, the user's word, and the place that is kept in between.

A place is taken the moment a job is admitted, before ``on_request`` is asked, and
is given back if it says no. So whoever is admitted next sees it as taken, and so
does a load function that counts ``active_jobs``. Admitting is one step at a
time: two offers at once cannot both be measured before either has its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec

from supervisor import clock
from supervisor.admission import Limits, Standing, refuse
from supervisor.dispatch.base import DRAINING, NO_MORE, NOT_YET, Answer
from supervisor.errors import NotAdmitted
from supervisor.handle import JobHandle
from supervisor.job import AcceptArguments, JobInfo, Session, accept_by_default
from supervisor.joblog import about
from supervisor.load import LoadMeter
from supervisor.options import Hook
from supervisor.request import Rejected, RequestHook
from supervisor.within import within

logger = logging.getLogger("greenroom.admission")

# LiveKit's server waits 3 s for the answer by default (its RPC timeout); half a
# second is left for the way there and back.
ANSWER_WITHIN: Final = 2.5

# The default load is an average over 5 s: a job that was admitted less than half
# of that ago is hardly in it yet.
_UNSEEN_SECONDS: Final = 2.5

CheckSession = Callable[[Session], None]
StartJob = Callable[[Session], JobHandle[Any]]


class KeptPlace(msgspec.Struct, eq=False):
    """A place for one job: start it or give it back, once.

    Args:
        booking: who keeps it.
        job: the job, with what ``accept`` was given.
    """

    booking: Booking
    job: JobInfo
    used: bool = False

    def check(self) -> None:
        """Raise what :meth:`start` would raise because of the job itself. The place stays kept.

        Raises:
            PayloadTooLarge: the job is over ``max_payload_mb``.
        """
        self.booking.check(self.job)

    def start(self, *, url: str = "", token: str = "") -> JobHandle[Any]:
        """Hand the job over.

        Raises:
            RuntimeError: the place was used before.
            SupervisorError, PayloadTooLarge: the job cannot be taken after all; the place is
                free again.
        """
        if self.used:
            raise self._used_before()
        self.used = True
        return self.booking.start(self.job, url, token)

    def give_back(self) -> None:
        """The job does not come after all."""
        if self.used:
            raise self._used_before()
        self.used = True
        self.booking.release(self.job)

    def _used_before(self) -> RuntimeError:
        return RuntimeError(f"the place of job {self.job.id} was used before")


class Booking:
    """Who has a place, and who gets the next one.

    Args:
        server_id: what jobs see as ``worker_id``.
        on_request: the user's function of that name.
        meter: measures the load.
        limits: how many jobs there may be at once, and at which load.
        ready: says whether there is, or will be, a warm worker.
        check: raises PayloadTooLarge for a session that is over the limit.
        start_job: hands a session over to a worker; raises that as well.

    Runs on: the server's loop, every method.
    """

    def __init__(
        self,
        server_id: str,
        meter: LoadMeter,
        *,
        on_request: Hook | None,
        limits: Limits,
        ready: Callable[[], bool],
        check: CheckSession,
        start_job: StartJob,
    ) -> None:
        #: To be set when the server gets another one.
        self.server_id = server_id
        self._meter = meter
        self._hook = None if on_request is None else RequestHook(on_request)
        #: To be set when the options change.
        self.limits = limits
        self._ready = ready
        self._check = check
        self._start_job = start_job
        self._shut: Answer | None = NOT_YET  # why no job may be offered at all
        self._places: dict[str, JobInfo] = {}
        self._sessions: dict[str, Session] = {}  # of places whose job was handed over
        # Places that were taken so lately that the default load hardly contains them,
        # and others that nobody has counted since. In the order of their moments.
        self._admitted_at: OrderedDict[str, float] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()
        self._promised: set[str] = set()  # places whose job has not been handed over
        self._kept_all = asyncio.Event()  # there was a moment without promises
        self._broken = False
        self._asking: set[asyncio.Task[AcceptArguments | Rejected]] = set()

    @property
    def jobs(self) -> list[JobInfo]:
        """Jobs that have a place: promised, waiting or running."""
        return list(self._places.values())

    @property
    def sessions(self) -> list[Session]:
        """What the jobs that wait or run were started with."""
        return list(self._sessions.values())

    @property
    def is_open(self) -> bool:
        """True while jobs may be offered."""
        return self._shut is None

    def open(self) -> None:
        """Let jobs be offered from now on, unless the server goes down already."""
        if self._shut is NOT_YET:
            self._shut = None

    def drain_began(self) -> None:
        """Let no job be offered any more. Places that were promised stay kept."""
        self._shut = DRAINING

    def close(self) -> None:
        """Let no job be offered any more, and take none that was not handed over."""
        self._shut = NO_MORE
        self.break_promises()
        for job_id in list(self._promised):
            self.release(self._places[job_id])
        if self._hook is not None:
            self._hook.close()

    async def offer(self, job: JobInfo) -> Answer:
        """Return the answer to an offer of *job*. Never raises, always answers in time."""
        if self._shut is not None:
            return _at_the_door(job, self._shut)
        left = ANSWER_WITHIN
        if self._meter.is_default:
            refusal = self._admit(job, self._meter.last)  # at hand: no task, no turns
        else:
            began = clock.monotonic()
            refusal = await self._admit_in_turn(job)
            left = max(0.05, left - (clock.monotonic() - began))
        if refusal is not None:
            return refusal
        if self._hook is None:
            if not job.accept_arguments.identity:  # from a dispatcher that did not say it
                job = self._accepted(job, accept_by_default(job.id))
            return Answer(KeptPlace(self, job))
        asking = asyncio.ensure_future(self._hook.ask(job, left))
        self._asking.add(asking)
        try:
            answer = await asking
        except BaseException as exc:
            self.release(job)
            if self._broken and isinstance(exc, asyncio.CancelledError):
                return DRAINING
            raise
        finally:
            self._asking.discard(asking)
        if isinstance(answer, Rejected):
            self.release(job)
            return Answer(reason="rejected", detail=answer.detail, terminate=answer.terminate)
        return Answer(KeptPlace(self, self._accepted(job, answer)))

    def _accepted(self, job: JobInfo, arguments: AcceptArguments) -> JobInfo:
        accepted = self._places[job.id] = msgspec.structs.replace(job, accept_arguments=arguments)
        return accepted

    async def _admit_in_turn(self, job: JobInfo) -> Answer | None:
        """Do what :meth:`_admit` does, at the load that the user's function measures now."""
        try:
            # It may be within its time for each offer and still be too slow for many at
            # once: they are measured one after the other.
            return await within(ANSWER_WITHIN, self._admit_measured(job))
        except asyncio.TimeoutError:
            logger.warning(
                "job %s is not admitted: too many are offered at once", job.id, extra=about(job)
            )
            return Answer(reason="load", detail=f"not measured within {ANSWER_WITHIN:g} s")
        except asyncio.CancelledError:
            if self._places.get(job.id) is job:
                self.release(job)
            raise

    async def _admit_measured(self, job: JobInfo) -> Answer | None:
        async with self._one_at_a_time:
            load = await self._meter.measure()
            if self._shut is not None:  # meanwhile
                return _at_the_door(job, self._shut)
            return self._admit(job, load)

    def _admit(self, job: JobInfo, load: float | None) -> Answer | None:
        """Take a place for *job* at this load, or return why there is none."""
        if job.id in self._places:
            return Answer(reason="rejected", detail=f"job {job.id} is here already")
        unseen = self._unseen() if self._admitted_at else 0
        refusal = refuse(Standing(self.limits, self._ready(), load, unseen, len(self._places)))
        if refusal is not None:
            logger.info("job %s is not admitted: %s", job.id, refusal, extra=about(job))
            return Answer(reason=refusal.reason, detail=refusal.detail)
        self._places[job.id] = job
        self._promised.add(job.id)
        self._admitted_at[job.id] = clock.monotonic()
        return None

    def _unseen(self) -> int:
        if not self._meter.is_default:
            return 0
        admitted, now = self._admitted_at, clock.monotonic()
        while admitted and now - next(iter(admitted.values())) >= _UNSEEN_SECONDS:
            admitted.popitem(last=False)
        return len(admitted)

    def refusal_now(self) -> str | None:
        """Return why a job offered now would not be admitted, by the last figures."""
        load = self._meter.last if self._meter.answers else None
        refusal = refuse(
            Standing(self.limits, self._ready(), load, self._unseen(), len(self._places))
        )
        return None if refusal is None else str(refusal)

    def check(self, job: JobInfo) -> None:
        """Raise PayloadTooLarge if *job* is over the limit, as it stands."""
        self._check(Session(job, self.server_id))

    def start(self, job: JobInfo, url: str, token: str) -> JobHandle[Any]:
        """Hand *job* over; its place is free again when it has its outcome."""
        session = Session(job, self.server_id, url, token)
        try:
            if self._broken:
                raise NotAdmitted("draining")
            handle = self._start_job(session)
        except BaseException:
            self.release(job)
            raise
        self._kept(job)
        self._sessions[job.id] = session
        handle.add_done_callback(lambda done: self.release(done.info))
        return handle

    def resume(self, session: Session) -> JobHandle[Any]:
        """Start a job of a server that we took over from; it was admitted and accepted there.

        Raises:
            SupervisorError: the job cannot be taken.
        """
        job = msgspec.structs.replace(session.job, resuming=True)
        self._places[job.id] = job
        return self.start(job, session.url, session.token)

    def release(self, job: JobInfo) -> None:
        """Free the place of *job*."""
        self._places.pop(job.id, None)
        self._sessions.pop(job.id, None)
        self._admitted_at.pop(job.id, None)
        self._kept(job)

    # ── going down ───────────────────────────────────────────────────────────

    async def wait_no_promises(self) -> None:
        """Return when every promised place has become a job, or was given back or broken."""
        while self._promised and not self._broken:
            self._kept_all.clear()
            await self._kept_all.wait()

    def break_promises(self) -> None:
        """Take no job any more that has not been handed over, nor wait for ``on_request``."""
        self._broken = True
        for asking in self._asking:
            asking.cancel()
        self._kept_all.set()

    def _kept(self, job: JobInfo) -> None:
        self._promised.discard(job.id)
        if not self._promised:
            self._kept_all.set()


def _at_the_door(job: JobInfo, answer: Answer) -> Answer:
    logger.info("job %s is not admitted: %s", job.id, answer.reason, extra=about(job))
    return answer
