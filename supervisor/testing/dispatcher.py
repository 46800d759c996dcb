"""A dispatcher whose requests the test makes up, and whose answers it sees.

::

    async with running_server(entrypoint, on_request=on_request) as server:
        dispatcher = FakeDispatcher(server)
        offered = await dispatcher.offer(room="studio")
        assert offered.accepted
        outcome = await offered.outcome()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from supervisor.dispatch.base import Answer, Host
from supervisor.handle import JobHandle
from supervisor.job import AcceptArguments, JobInfo, JobOutcome, Participant, Room
from supervisor.testing.running import soon


class Offered:
    """One request, the server's answer, and the job if there is one.

    Runs on: the server's loop, every method.
    """

    def __init__(self, job: JobInfo, answer: Answer) -> None:
        self.job = job
        self.answer = answer
        self.handle: JobHandle[Any] | None = None
        self.given_back = False

    @property
    def accepted(self) -> bool:
        """True if the server said yes."""
        return self.answer.accepted

    @property
    def reason(self) -> str:
        """Why not: ``draining``, ``load``, ``max_jobs``, ``not ready``, ``rejected``; else empty."""
        return self.answer.reason

    @property
    def arguments(self) -> AcceptArguments:
        """What ``on_request`` gave to ``accept``."""
        return self.answer.arguments

    def start(self, *, url: str = "", token: str = "") -> JobHandle[Any]:
        """Hand the accepted job over."""
        assert self.answer.place is not None, f"not accepted: {self.reason}"
        assert self.handle is None and not self.given_back, "a place is used once"
        self.handle = self.answer.place.start(url=url, token=token)
        return self.handle

    def give_back(self) -> None:
        """Let the accepted job not come after all, as a dispatcher may."""
        assert self.answer.place is not None, f"not accepted: {self.reason}"
        assert self.handle is None and not self.given_back, "a place is used once"
        self.given_back = True
        self.answer.place.give_back()

    async def outcome(self) -> JobOutcome:
        """Return how the started job ended."""
        assert self.handle is not None, "the job was not started"
        return await soon(self.handle.wait())


class FakeDispatcher:
    """Offers jobs to a server, past nothing: admission and ``on_request`` decide as ever.

    Args:
        host: the server, which runs.

    Runs on: the server's loop, every method.
    """

    def __init__(self, host: Host | None = None) -> None:
        self._host = host
        self.offers: list[Offered] = []
        self.drain_seen = False

    # ── what a dispatcher is ─────────────────────────────────────────────────

    @property
    def connected(self) -> bool:
        """True while it has a server."""
        return self._host is not None

    async def start(self, host: Host) -> None:
        """Take *host* for the server."""
        self._host = host

    def drain_began(self) -> None:
        """Note it."""
        self.drain_seen = True

    async def close(self) -> None:
        """Let go of the server."""
        self._host = None

    # ── for tests ────────────────────────────────────────────────────────────

    async def offer(
        self,
        room: str | Room = "room",
        *,
        metadata: str = "",
        publishers: Sequence[str | Participant] = (),
        agent_name: str | None = None,
        job_id: str | None = None,
        start: bool = True,
    ) -> Offered:
        """Offer one job and return what became of it.

        Args:
            start: hand it over at once if it is accepted; False keeps the place for
                :meth:`Offered.start` or :meth:`Offered.give_back`.

        Raises:
            OptionError: bad input, or a request that stands for several jobs: offer one.
        """
        assert self._host is not None, "this dispatcher has no server"
        (info,) = self._host.job_infos(
            room=room,
            metadata=metadata,
            publishers=publishers,
            agent_name=agent_name,
            job_id=job_id,
        )
        offered = Offered(info, await soon(self._host.offer(info)))
        self.offers.append(offered)
        if start and offered.accepted:
            offered.start()
        return offered
