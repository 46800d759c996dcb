"""The dispatcher for LiveKit: keeps a connection, and carries out what the dialogue says.

What is decided is decided in ``dialogue.py``; here are the sockets, tasks and
clocks. One task keeps the connection, from attempt to attempt; one for each
registration tells LiveKit how busy we are; one for each offer asks the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, Union

import aiohttp

from ipc.errors import IpcError
from supervisor.dispatch.base import Host
from supervisor.dispatch.livekit.access import Access
from supervisor.dispatch.livekit.connection import (
    CannotConnect,
    Connection,
    Pong,
    connect,
    make_tls_context,
)
from supervisor.dispatch.livekit.dialogue import (
    Act,
    Ask,
    Await,
    Dialogue,
    GiveBack,
    HangUp,
    Ping,
    Registered,
    Send,
    Start,
    Stop,
)
from supervisor.dispatch.livekit.reports import Report, Reports
from supervisor.dispatch.livekit.retry import Retries
from supervisor.dispatch.livekit.words import TERMINATED, Registration
from supervisor.errors import SupervisorError
from supervisor.handle import JobHandle
from supervisor.within import within

logger = logging.getLogger("greenroom.dispatch.livekit")

# LiveKit gives us ten seconds to say who we are; it has as long to answer.
REGISTER_TIMEOUT: Final = 10.0
# LiveKit assigns a job in the moment of our answer, or never. The figure is that
# of its own SDK.
ASSIGNMENT_TIMEOUT: Final = 7.5
# How long the last statuses may take to arrive when the server ends. The way out
# from a drain's deadline has half a second in all.
FLUSH_TIMEOUT: Final = 0.25

Incoming = AsyncGenerator[Union[bytes, Pong], None]


class LiveKitDispatcher:
    """Registers with a LiveKit server and serves the jobs that it offers.

    Runs on: the server's loop, every method.

    Args:
        access: which server, and as whom.
        registration: what we register as.
        max_retry: attempts in a row that may fail before it gives up.
        on_job: called with the handle of each job that was started.
    """

    def __init__(
        self,
        access: Access,
        registration: Registration,
        *,
        max_retry: int = 16,
        on_job: Callable[[JobHandle[Any]], object],
    ) -> None:
        self._access = access
        self._retries = Retries(max_retry)
        self._on_job = on_job
        self._dialogue = Dialogue(registration)
        self._reports = Reports()
        self._handles: dict[str, JobHandle[Any]] = {}
        self._connection: Connection | None = None
        self._session: aiohttp.ClientSession | None = None
        self._life: asyncio.Task[None] | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[None]] = set()
        self._clocks: dict[int, asyncio.TimerHandle] = {}
        self._known = asyncio.Event()  # set once LiveKit has known us
        self._all_told = asyncio.Event()
        self._all_told.set()
        self._hurry = asyncio.Event()  # set: the next attempt is made without a wait

    @property
    def connected(self) -> bool:
        """True while LiveKit knows us."""
        return self._dialogue.is_registered

    # ── life ─────────────────────────────────────────────────────────────────

    async def start(self, host: Host) -> None:
        """Register. Returns once LiveKit knows us.

        Raises:
            SupervisorError: the key is refused, or no attempt succeeded.
        """
        assert self._life is None, "a dispatcher is started once"
        self._host = host
        self._tls = make_tls_context(self._access)
        self._session = aiohttp.ClientSession()
        host.on("job_started", self._job_began)
        host.on("job_ended", lambda handle: self._reports.look())
        self._life = asyncio.ensure_future(self._stay_connected(self._session))
        known = asyncio.ensure_future(self._known.wait())
        try:
            ways: set[asyncio.Future[Any]] = {self._life, known}
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            known.cancel()
        if self._life.done():
            self._life.result()
        self._life.add_done_callback(self._gave_up)

    def drain_began(self) -> None:
        """Tell LiveKit at once that we are full."""
        last = self._reports.last
        load = self._host.load if last is None else last.load
        self._report(Report(full=True, load=load, jobs=len(self._host.active_jobs)))

    async def close(self) -> None:
        """Report what is left to report and hang up. Takes half a second at most."""
        session, self._session = self._session, None
        if session is None:
            return
        assert self._life is not None, "a session has a life"
        self._life.remove_done_callback(self._gave_up)
        if not self._life.done():
            self._hurry.set()
            try:
                await within(FLUSH_TIMEOUT, self._all_told.wait())
            except asyncio.TimeoutError:
                logger.warning("LiveKit did not hear how the last jobs ended: no connection")
        tasks = [self._life, *self._asking]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for clock in self._clocks.values():
            clock.cancel()
        await session.close()

    def _gave_up(self, life: asyncio.Task[None]) -> None:
        error = None if life.cancelled() else life.exception()
        if isinstance(error, SupervisorError):
            self._host.give_up(error)
        elif error is not None:
            logger.error("the LiveKit dispatcher broke", exc_info=error)
            self._host.give_up(SupervisorError(f"the LiveKit dispatcher broke: {error!r}"))

    # ── the connection ───────────────────────────────────────────────────────

    async def _stay_connected(self, session: aiohttp.ClientSession) -> None:
        """Connect, again and again. Ends by an exception only.

        Raises:
            SupervisorError: there were too many failures in a row.
        """
        while True:
            try:
                await self._one_connection(session)
            except CannotConnect as exc:
                self._retries.failed()
                if self._retries.exhausted or (exc.is_final and not self._known.is_set()):
                    count = self._retries.failures
                    tries = "" if count == 1 else f" ({count} attempts, the last one now)"
                    raise SupervisorError(f"{exc}{tries}") from None
                logger.warning("%s (attempt %d)", exc, self._retries.failures)
            with contextlib.suppress(asyncio.TimeoutError):  # nobody was in a hurry
                await within(self._retries.wait, self._hurry.wait())
                self._hurry.clear()

    async def _one_connection(self, session: aiohttp.ClientSession) -> None:
        """Open a connection and talk until it ends.

        Raises:
            CannotConnect: it ended before LiveKit knew us.
        """
        connection = await connect(session, self._access, self._tls)
        self._connection = connection
        try:
            self._carry_out(self._dialogue.connected())
            async with contextlib.aclosing(connection.incoming()) as incoming:
                await self._register(incoming, connection)
                async for item in incoming:
                    self._take(item)
        finally:
            self._connection = None
            self._carry_out(self._dialogue.lost())
            if self._reporting is not None:
                self._reporting.cancel()
                await asyncio.gather(self._reporting, return_exceptions=True)
                self._reporting = None
            await connection.close()
        logger.warning(
            "the connection to LiveKit at %s ended: %s", self._access.place, connection.ended
        )

    async def _register(self, incoming: Incoming, connection: Connection) -> None:
        try:
            await within(REGISTER_TIMEOUT, self._until_registered(incoming))
        except asyncio.TimeoutError:
            what = f"did not answer the registration within {REGISTER_TIMEOUT:g} s"
            raise CannotConnect(f"LiveKit at {self._access.place} {what}") from None
        if not self._dialogue.is_registered:
            what = f"hung up instead of registering us: {connection.ended}"
            raise CannotConnect(f"LiveKit at {self._access.place} {what}")

    async def _until_registered(self, incoming: Incoming) -> None:
        async for item in incoming:
            self._take(item)
            if self._dialogue.is_registered:
                return

    def _take(self, item: Union[bytes, Pong]) -> None:
        if isinstance(item, Pong):
            self._carry_out(self._dialogue.confirmed(item.serial))
        else:
            self._carry_out(self._dialogue.received(item))

    # ── acts ─────────────────────────────────────────────────────────────────

    def _carry_out(self, acts: list[Act]) -> None:
        for act in acts:
            self._do(act)
        if self._dialogue.has_untold:
            self._all_told.clear()
        else:
            self._all_told.set()

    def _do(self, act: Act) -> None:
        match act:
            case Send(data):
                assert self._connection is not None, "the dialogue sends on a connection only"
                self._connection.send(data)
            case Ping(serial):
                assert self._connection is not None, "the dialogue sends on a connection only"
                self._connection.ping(serial)
            case Registered():
                self._note_registered(act)
            case Ask():
                task = asyncio.ensure_future(self._ask(act))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
            case Await():
                loop = asyncio.get_running_loop()
                self._clocks[act.offer] = loop.call_later(ASSIGNMENT_TIMEOUT, self._overdue, act)
            case Start():
                self._start_job(act)
            case GiveBack(place):
                place.give_back()
            case Stop(job_id):
                self._handles[job_id].cancel(TERMINATED)
            case HangUp(reason):
                what = f"LiveKit at {self._access.place} does not speak its protocol"
                raise CannotConnect(f"{what}: {reason}")

    def _note_registered(self, act: Registered) -> None:
        self._retries.succeeded()
        self._known.set()
        self._host.registered(self, act.worker_id)
        logger.info(
            "registered with LiveKit %s at %s as %s", act.version, self._access.place, act.worker_id
        )
        self._reporting = asyncio.ensure_future(self._reports.run(self._host, self._report))

    def _report(self, report: Report) -> None:
        self._reports.sent(report)
        self._carry_out(self._dialogue.status(full=report.full, load=report.load, jobs=report.jobs))

    # ── jobs ─────────────────────────────────────────────────────────────────

    async def _ask(self, act: Ask) -> None:
        answer = await self._host.offer(act.job)
        self._carry_out(self._dialogue.answered(act.offer, act.job.id, answer))

    def _overdue(self, act: Await) -> None:
        del self._clocks[act.offer]
        self._carry_out(self._dialogue.overdue(act.offer, act.job_id))

    def _start_job(self, act: Start) -> None:
        job_id = act.place.job.id
        try:
            handle = act.place.start(url=act.url or self._access.room_url, token=act.token)
        except (SupervisorError, IpcError) as exc:
            logger.warning("job %s was assigned and cannot be started: %s", job_id, exc)
            self._carry_out(self._dialogue.not_started(job_id, str(exc)))
            return
        self._handles[job_id] = handle
        self._on_job(handle)
        handle.add_done_callback(self._job_ended)
        self._reports.look()

    def _job_began(self, handle: JobHandle[Any]) -> None:
        self._carry_out(self._dialogue.began(handle.id))
        self._reports.look()

    def _job_ended(self, handle: JobHandle[Any]) -> None:
        assert handle.outcome is not None, "it is over"
        del self._handles[handle.id]
        self._carry_out(self._dialogue.ended(handle.id, handle.outcome))
        self._reports.look()
