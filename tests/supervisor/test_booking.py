"""Places: who has one, who is counted as too new for the load, and that each is used once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ipc.errors import PayloadTooLarge
from supervisor import clock
from supervisor.admission import Limits
from supervisor.booking import Booking
from supervisor.dispatch.base import Answer, Place
from supervisor.errors import NotAdmitted
from supervisor.handle import JobHandle
from supervisor.job import AcceptArguments, JobInfo, JobOutcome, JobStatus, Session
from supervisor.load import LoadMeter
from tests.integration.conftest import soon

ALL_ADMITTED = Limits(load_threshold=math.inf)


class Bookings:
    """A booking of a server that is at rest, and what was started with it."""

    def __init__(
        self,
        *,
        fails: bool = False,
        limits: Limits = ALL_ADMITTED,
        load_fnc: Callable[[], Awaitable[float]] | None = None,
    ) -> None:
        self.sessions: list[Session] = []
        self.handles: dict[str, JobHandle[Any]] = {}
        self._fails = fails
        self.booking = Booking(
            "S-1",
            LoadMeter(load_fnc),  # which has not begun to measure
            on_request=None,
            limits=limits,
            ready=lambda: True,
            check=self._check,
            start_job=self._start,
        )
        self.booking.open()

    def _check(self, session: Session) -> None:
        if self._fails:
            raise PayloadTooLarge("the job", 2, 1)

    def _start(self, session: Session) -> JobHandle[Any]:
        self._check(session)
        self.sessions.append(session)
        info = session.job
        handle = self.handles[info.id] = JobHandle(info, cancel=lambda *_: False)
        return handle

    async def place(self, job_id: str) -> Place:
        """Return the place that a job of that name is given."""
        place = (await self.booking.offer(JobInfo(job_id))).place
        assert place is not None
        return place

    def end(self, job_id: str) -> None:
        """Give a job its outcome."""
        self.handles.pop(job_id)._settle(JobOutcome(JobStatus.SUCCEEDED), None)


async def test_a_server_that_is_not_open_gives_no_place() -> None:
    at = Bookings()
    before = Booking(
        "S-1",
        LoadMeter(),
        on_request=None,
        limits=ALL_ADMITTED,
        ready=lambda: True,
        check=at._check,
        start_job=at._start,
    )
    at.booking.close()
    for booking, why in [(before, "does not run yet"), (at.booking, "has ended")]:
        answer = await booking.offer(JobInfo("a"))
        assert (answer.reason, answer.place) == ("not ready", None)
        assert answer.detail == f"the server {why}"
        assert booking.jobs == []


async def test_once_it_goes_down_it_gives_no_place_and_does_not_open_again() -> None:
    at = Bookings()
    promised = await at.place("a")
    at.booking.drain_began()
    at.booking.open()
    answer = await at.booking.offer(JobInfo("b"))
    assert (answer.reason, answer.place) == ("draining", None)
    promised.start()
    assert [job.id for job in at.booking.jobs] == ["a"], "what was promised is kept"


async def test_a_door_that_is_shut_while_the_load_is_measured_is_shut() -> None:
    asked, measured = asyncio.Event(), asyncio.Event()

    async def load() -> float:
        asked.set()
        await measured.wait()
        return 0.0

    for shut, reason in [(Booking.drain_began, "draining"), (Booking.close, "not ready")]:
        at = Bookings(load_fnc=load)
        offered = asyncio.ensure_future(at.booking.offer(JobInfo("a")))
        await soon(asked.wait())
        shut(at.booking)
        measured.set()
        answer = await soon(offered)
        assert (answer.reason, answer.place) == (reason, None)
        assert at.booking.jobs == []
        asked.clear()
        measured.clear()


async def test_limits_that_change_count_from_the_next_offer_on() -> None:
    at = Bookings(limits=Limits(math.inf, max_jobs=1))
    await at.place("a")
    assert (await at.booking.offer(JobInfo("b"))).detail == "1 of 1"
    at.booking.limits = Limits(math.inf, max_jobs=2)
    await at.place("b")


async def test_a_job_is_accepted_with_what_its_dispatcher_said_or_with_what_is_usual() -> None:
    at = Bookings()
    said = JobInfo("a", accept_arguments=AcceptArguments(identity="somebody", metadata="m"))
    for job, accepted in [
        (said, said.accept_arguments),
        (JobInfo("b"), AcceptArguments(identity="agent-b")),
    ]:
        answer = await at.booking.offer(job)
        assert answer.place is not None
        assert answer.place.job.accept_arguments == accepted
        assert at.booking.jobs[-1].accept_arguments == accepted


async def test_a_place_is_a_session_with_what_it_was_started_with() -> None:
    at = Bookings()
    (await at.place("a")).start(url="ws://host", token="t")
    (await at.place("b")).start()
    assert [(s.worker_id, s.url, s.token) for s in at.sessions] == [
        ("S-1", "ws://host", "t"),
        ("S-1", "", ""),
    ]
    assert at.booking.sessions == at.sessions


@pytest.mark.parametrize("first", ["start", "give_back"])
@pytest.mark.parametrize("second", ["start", "give_back"])
async def test_a_place_is_used_once(first: str, second: str) -> None:
    at = Bookings()
    place = await at.place("a")
    getattr(place, first)()
    with pytest.raises(RuntimeError, match="the place of job a was used before"):
        getattr(place, second)()
    assert len(at.sessions) == (first == "start")


async def test_a_job_that_cannot_be_handed_over_gives_its_place_back() -> None:
    at = Bookings(fails=True)
    place = await at.place("a")
    with pytest.raises(PayloadTooLarge):
        place.check()
    assert [job.id for job in at.booking.jobs] == ["a"], "asked only"
    with pytest.raises(PayloadTooLarge):
        place.start()
    assert at.booking.jobs == []
    await soon(at.booking.wait_no_promises())


async def test_a_resumed_job_is_started_as_it_was_there_and_knows_it() -> None:
    at = Bookings()
    there = Session(JobInfo("a", metadata="m"), "S-0", "ws://host", "t")
    handle = at.booking.resume(there)
    assert at.sessions == [
        Session(JobInfo("a", metadata="m", resuming=True), "S-1", "ws://host", "t")
    ]
    assert [job.id for job in at.booking.jobs] == [handle.id]


async def test_who_waits_for_promises_waits_for_those_that_come_meanwhile() -> None:
    at = Bookings()
    first = await at.place("a")
    waiting = asyncio.ensure_future(at.booking.wait_no_promises())
    await asyncio.sleep(0)
    first.start()
    second = await at.place("b")  # before the one that waits has had its turn
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    second.give_back()
    await soon(waiting)


async def test_nobody_waits_for_promises_that_were_broken() -> None:
    at = Bookings()
    place = await at.place("a")
    waiting = asyncio.ensure_future(at.booking.wait_no_promises())
    await asyncio.sleep(0)
    at.booking.break_promises()
    await soon(waiting)
    with pytest.raises(NotAdmitted, match="draining"):
        place.start()
    await soon(at.booking.wait_no_promises())


async def test_a_place_that_nobody_came_for_is_none_once_the_server_has_ended() -> None:
    at = Bookings()
    forgotten, running = await at.place("a"), await at.place("b")
    running.start()
    at.booking.close()
    assert [job.id for job in at.booking.jobs] == ["b"]
    with pytest.raises(NotAdmitted, match="draining"):
        forgotten.start()
    at.end("b")
    assert at.booking.jobs == []


steps = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(0, 4)),
        st.tuples(st.just("give back"), st.integers(0, 4)),
        st.tuples(st.just("end"), st.integers(0, 4)),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, 2.5])),
    ),
    max_size=30,
)


@given(steps)
def test_the_load_cannot_contain_who_has_had_a_place_for_less_than_2_5_seconds(
    history: list[tuple[str, float]],
) -> None:
    now = 100.0
    admitted: dict[str, float] = {}
    places: dict[str, Place] = {}

    async def live() -> None:
        nonlocal now
        at = Bookings(limits=Limits(load_threshold=0.1, max_jobs=4))
        for what, which in history:
            name = str(which)
            if what == "wait":
                now += which
            elif what == "offer":
                young = sum(now - moment < 2.5 for moment in admitted.values())
                answer: Answer = await at.booking.offer(JobInfo(name))
                # Each counts for a twentieth of the CPU until the load can contain it.
                has_room = young < 2 and len(admitted) < 4
                assert answer.accepted == (name not in admitted and has_room)
                if answer.place is not None:
                    admitted[name], places[name] = now, answer.place
            elif what == "give back" and name in places:
                places.pop(name).give_back()
                del admitted[name]
            elif what == "end" and name in places:
                places.pop(name).start()
                at.end(name)
                del admitted[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "monotonic", lambda: now)
        asyncio.run(live())
