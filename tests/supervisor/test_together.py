"""All the jobs of a request, or none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ipc.errors import PayloadTooLarge
from supervisor.dispatch.base import Answer
from supervisor.dispatch.together import start_all
from supervisor.errors import PoolClosed
from supervisor.handle import JobHandle
from supervisor.job import JobInfo
from tests.supervisor.fakes_host import FakeHost, FakePlace

JOBS = [JobInfo(name) for name in ("a", "b", "c")]


class Host(FakeHost):
    """One that finds a job too large, or is closed when the first is to be started."""

    def __init__(self, *, too_large: str = "", closed: bool = False, places: int = 9) -> None:
        super().__init__(max_jobs=places)
        self._too_large = too_large
        self._closed = closed

    async def offer(self, job: JobInfo) -> Answer:
        answer = await super().offer(job)
        return answer if answer.place is None else Answer(place=Place(self, job))

    def refuse(self, job: JobInfo) -> None:
        """Raise what keeps *job* from being started."""
        if job.id == self._too_large:
            raise PayloadTooLarge("the job", 2, 1)

    def close(self) -> None:
        """Raise what keeps any from being started."""
        if self._closed:
            raise PoolClosed("closed")


class Place(FakePlace):
    """One whose host may refuse to start it."""

    def __init__(self, host: Host, job: JobInfo) -> None:
        super().__init__(host, job)
        self._at = host

    def check(self) -> None:
        super().check()
        self._at.refuse(self.job)

    def start(self, *, url: str = "", token: str = "") -> JobHandle[Any]:
        try:
            self._at.refuse(self.job)
            self._at.close()
        except BaseException:
            self.give_back()
            raise
        return super().start()


async def test_all_of_them_are_started_in_order() -> None:
    host = Host()
    handles = await start_all(host, JOBS)
    assert not isinstance(handles, Answer)
    assert [handle.id for handle in handles] == ["a", "b", "c"]
    assert (list(host.handles), host.promised) == (["a", "b", "c"], {})


async def test_one_no_is_a_no_to_all() -> None:
    host = Host(places=2)
    answer = await start_all(host, JOBS)
    assert isinstance(answer, Answer)
    assert (answer.reason, answer.detail) == ("max_jobs", "2 of 2")
    assert (host.handles, host.given_back) == ({}, ["a", "b"])


@pytest.mark.parametrize("too_large", ["a", "b", "c"])
async def test_one_that_is_too_large_keeps_all_from_beginning(too_large: str) -> None:
    host = Host(too_large=too_large)
    with pytest.raises(PayloadTooLarge):
        await start_all(host, JOBS)
    assert (host.handles, host.promised) == ({}, {})
    assert host.given_back == ["a", "b", "c"]


async def test_a_single_one_that_is_too_large_gives_its_place_back() -> None:
    host = Host(too_large="a")
    with pytest.raises(PayloadTooLarge):
        await start_all(host, JOBS[:1])
    assert (host.handles, host.promised) == ({}, {})


async def test_a_host_that_is_closed_when_they_are_to_start_starts_none() -> None:
    host = Host(closed=True)
    with pytest.raises(PoolClosed):
        await start_all(host, JOBS)
    assert (host.handles, host.promised) == ({}, {})


async def test_a_caller_that_leaves_takes_no_place() -> None:
    host = Host()
    first = await host.offer(JobInfo("other"))
    assert first.place is not None
    host.answering.clear()
    host.offered.clear()
    asking = asyncio.ensure_future(start_all(host, JOBS))
    await host.offered.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (list(host.promised), host.handles) == (["other"], {})
