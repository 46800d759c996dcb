"""Several jobs of one request: all of them, or none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from supervisor.dispatch.base import Answer, Place
from supervisor.handle import JobHandle
from supervisor.job import JobInfo


class Offered(Protocol):
    """Who jobs are offered to."""

    async def offer(self, job: JobInfo) -> Answer:
        """Answer an offer of *job*; keep a place for it if the answer is yes."""
        ...


async def start_all(host: Offered, jobs: Iterable[JobInfo]) -> list[JobHandle[Any]] | Answer:
    """Offer all *jobs* to *host*, then start them; or start none and return the first no.

    Runs on: the server's loop.

    Raises:
        PayloadTooLarge: one of them is over ``max_payload_mb``. None was started.
        SupervisorError: the host takes no jobs any more. None was started.

    Cancelled: none was started.
    """
    places: list[Place] = []
    try:
        for job in jobs:
            answer = await host.offer(job)
            if answer.place is None:
                return answer
            places.append(answer.place)
        if len(places) > 1:  # one that cannot be sent must be known before another has begun
            for place in places:
                place.check()
        # Nothing comes in between from here on: what keeps one from starting keeps all.
        handles = []
        while places:
            handles.append(places.pop(0).start())
        return handles
    finally:
        for place in places:
            place.give_back()
