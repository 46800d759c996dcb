"""The loop that a lifecycle owns: turned inside a step, and never between two."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any, Final, TypeVar

import psutil

from supervisor.lifecycle import State
from supervisor.outcome import Kill
from supervisor.testing.history import History
from supervisor.testing.leaks import Surroundings, children, reap_orphans, wait_until
from supervisor.testing.running import soon
from supervisor.testing.subjects import Subject
from supervisor.workers import Workers

T = TypeVar("T")

# Five restarts of a fork server with backoff are within it.
_BACK: Final = 30.0
_GIVE_UP: Final = 15.0


class Steps:
    """What a lifecycle does with its loop and its subject, apart from what it decides."""

    history: History
    subject: Subject | None

    @property
    def open_subject(self) -> Subject:
        """What is driven."""
        assert self.subject is not None
        return self.subject

    @property
    def workers(self) -> Workers:
        """Its workers."""
        return self.open_subject.workers

    def begin_loop(self) -> None:
        """Make the loop; what raises on it is kept."""
        self.loop = asyncio.new_event_loop()
        self.loop_errors: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda loop, context: self.loop_errors.append(context))
        self.changed = asyncio.Event()

    def end_loop(self) -> None:
        """Close it; there may be nothing left on it."""
        if not self.loop.is_closed():
            self.loop.run_until_complete(asyncio.sleep(0))
            left = asyncio.all_tasks(self.loop)
            self.loop.close()
            assert not left, f"tasks left: {left}"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Turn the loop until *work* is done."""
        return self.loop.run_until_complete(work)

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Write *what* into the history, do it, and give the loop a turn."""
        self.history.tell(what)
        with self.history.checking():
            yield
            if not self.loop.is_closed():
                self.run(self.turns(1))

    async def turns(self, count: int) -> None:
        """Let the loop turn."""
        for _ in range(count):
            await asyncio.sleep(0)

    async def some_events(self, count: int) -> None:
        """Wait for up to *count* events, a moment for each."""
        for _ in range(count):
            self.changed.clear()
            with contextlib.suppress(asyncio.TimeoutError):  # there may be none to come
                await asyncio.wait_for(self.changed.wait(), 0.05)

    async def until_idle(self, target: int) -> None:
        """Wait until *target* workers are idle and none is on its way."""

        def are_back() -> bool:
            now = self.open_subject.stats()
            return now.idle == target and now.spawning + now.warming == 0

        while not are_back():
            self.changed.clear()
            try:
                await soon(self.changed.wait(), _BACK)
            except asyncio.TimeoutError:
                raise AssertionError(
                    f"wanted {target} idle workers, found {self.open_subject.stats()}"
                ) from None

    def check_figures(self, accepted: int, still_open: int, peak_max_jobs: int) -> None:
        """Check that statistics, census and jobs tell the same story."""
        now = self.open_subject.stats()
        workers = self.workers.all
        assert now.total_jobs == accepted
        ended = (
            now.total_succeeded
            + now.total_failed
            + now.total_cancelled
            + now.total_timed_out
            + now.total_killed
        )
        assert accepted - still_open == ended, now
        in_workers = sum(each.job is not None for each in workers)
        assert still_open == now.waiting + in_workers
        assert in_workers <= peak_max_jobs
        assert now.alive == len(workers) == now.total_spawned - now.total_reaped
        assert now.peak_waiting >= now.waiting
        counted = Counter(each.state for each in workers)
        assert now.idle == counted[State.IDLE]
        assert now.running == counted[State.RUNNING]
        assert now.stopping == counted[State.STOPPING] + counted[State.KILLED]

    def clean_up(self, before: Surroundings) -> None:
        """Leave nothing to the next history, however this one ended."""
        if not self.loop.is_closed():
            # A history that has failed says why by itself; what its ruins raise is no news.
            with contextlib.suppress(Exception):
                self.run(soon(self._give_up(), _GIVE_UP))
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            with contextlib.suppress(AssertionError):
                self.end_loop()
        for process in children() - before.processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
                process.kill()
        wait_until(lambda: not children() - before.processes)
        reap_orphans(set())

    async def _give_up(self) -> None:
        closing = asyncio.ensure_future(self.open_subject.close(cancel=True))
        self.workers.kill_all(Kill("test failed"))
        await closing
