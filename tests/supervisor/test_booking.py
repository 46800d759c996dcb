"""Places: who has one, who is counted as too new for the load, and that each is used once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ipc.errors import PayloadTooLarge
from supervisor import clock
from supervisor.admission import Standing
from supervisor.booking import Booking
from supervisor.dispatch.base import Answer, Place
from supervisor.errors import NotAdmitted
from supervisor.handle import JobHandle
from supervisor.job import JobInfo, JobOutcome, JobStatus, Session
from supervisor.load import LoadMeter
from tests.integration.conftest import soon


class Server:
    """One that is asked for nothing but its name."""

    id = "S-1"


class Bookings:
    """A booking, and what it said of the standing when it was last asked."""

    def __init__(self, *, fails: bool = False) -> None:
        self.seen: list[Standing] = []
        self.sessions: list[Session] = []
        self.handles: dict[str, JobHandle[Any]] = {}
        self._fails = fails
        self.booking = Booking(
            Server(),
            LoadMeter(),
            on_request=None,
            standing=self._standing,
            pack=self._pack,
            start_job=self._start,
        )
        self.booking.open()

    def _standing(self, *, load: float | None, unseen_jobs: int, active_jobs: int) -> Standing:
        standing = Standing(False, True, 0.0, float("inf"), unseen_jobs, active_jobs)
        self.seen.append(standing)
        return standing

    def _pack(self, session: Session) -> bytes:
        if self._fails:
            raise PayloadTooLarge("the job", 2, 1)
        self.sessions.append(session)
        return b""

    def _start(self, info: JobInfo, body: bytes) -> JobHandle[Any]:
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
        Server(),
        LoadMeter(),
        on_request=None,
        standing=at._standing,
        pack=at._pack,
        start_job=at._start,
    )
    at.booking.close()
    for booking, why in [(before, "does not run yet"), (at.booking, "has ended")]:
        answer = await booking.offer(JobInfo("a"))
        assert (answer.reason, answer.place) == ("not ready", None)
        assert answer.detail == f"the server {why}"
        assert booking.jobs == []


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
        at = Bookings()
        for what, which in history:
            name = str(which)
            if what == "wait":
                now += which
            elif what == "offer":
                answer: Answer = await at.booking.offer(JobInfo(name))
                assert answer.accepted == (name not in admitted)
                if answer.place is not None:
                    young = sum(now - moment < 2.5 for moment in admitted.values())
                    assert at.seen[-1].unseen_jobs == young
                    assert at.seen[-1].active_jobs == len(admitted)
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
