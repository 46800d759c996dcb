"""Starting workers: as many as were asked for, when the time for it has come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from supervisor import clock
from supervisor.cpus import cpu_count
from supervisor.failures import Failures
from supervisor.launch import SideOfSupervisor, make_ends
from supervisor.pacing import Pacing
from supervisor.supply import Supply
from supervisor.worker import Worker


class Refill:
    """Starts workers, at the pace that backoff and running jobs allow.

    Args:
        loop: the pool's loop.
        supply: has processes made.
        failures: says when to try again.
        make_worker: makes and registers the supervisor's side of a worker.
        ask_again: called when what could not be started now may be started.
        capture_output: give each worker pipes for its output.

    Runs on: the pool's loop, every method.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        supply: Supply,
        failures: Failures,
        *,
        make_worker: Callable[[SideOfSupervisor], Worker],
        ask_again: Callable[[], None],
        capture_output: bool,
    ) -> None:
        self._loop = loop
        self._supply = supply
        self._failures = failures
        self._make_worker = make_worker
        self._ask_again = ask_again
        self._capture_output = capture_output
        self._pacing = Pacing()
        self._cpus = cpu_count()
        self._timer: asyncio.TimerHandle | None = None

    def start(self, wanted: int, *, urgent: int, running: int, awaited: bool) -> None:
        """Start up to *wanted* workers now; ask again for the rest when it is time.

        Args:
            wanted: how many there should be more.
            urgent: how many of them a waiting job needs.
            running: jobs that run now.
            awaited: jobs wait, and take each worker as soon as it is there.
        """
        if not self._supply.ready:
            return  # whoever makes the launcher asks again
        delay = self._failures.delay()
        if delay > 0:
            self.again_in(delay)
            return
        leave = self._pacing.leave(
            wanted, urgent=urgent, busy=running >= self._cpus, now=clock.monotonic()
        )
        if leave.again_in is not None:
            self.again_in(leave.again_in)
        for _ in range(leave.count):
            if not self._start_one(awaited):
                self.again_in(self._failures.delay())
                return

    def close(self) -> None:
        """Ask for nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _start_one(self, awaited: bool) -> bool:
        """Start one worker; say whether that worked."""
        try:
            near, far = make_ends(capture_output=self._capture_output)
        except OSError as exc:
            self._failures.no_process(exc)
            return False
        worker = self._make_worker(near)
        try:
            self._supply.launch(worker.number, far, awaited=awaited)
        except OSError as exc:
            worker.launch_failed(exc)
            self._failures.no_process(exc)
            return False
        return True

    def again_in(self, seconds: float) -> None:
        """Ask again in so many seconds, or earlier if that was arranged before."""
        due = self._loop.time() + seconds
        timer = self._timer
        if timer is not None and not timer.cancelled():
            if self._loop.time() < timer.when() <= due:
                return  # the earlier moment asks for all
            timer.cancel()
        self._timer = self._loop.call_at(due, self._ask_again)
