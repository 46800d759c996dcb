"""Starting workers: as many as were asked for, when the time for it has come.

And as many as leave the program descriptors of its own (``reserve.py``).
"""

from __future__ import annotations

import asyncio
import logging
import resource
import sys
from collections.abc import Callable
from typing import Final

from supervisor import clock
from supervisor.census import Census
from supervisor.cpus import cpu_count
from supervisor.failures import Failures
from supervisor.launch import SideOfSupervisor, make_ends
from supervisor.pacing import Pacing
from supervisor.reserve import Price, has_room, kept_free
from supervisor.supply import Supply
from supervisor.worker import Worker

logger = logging.getLogger("greenroom.pool")

# Nobody tells when the program has closed something, or may open more. While workers
# are held back, it is tried whether that is so; it costs as much as opening six sockets.
_TRY_AGAIN: Final = 0.25

# How many are asked for at a time, and at how many of those more are asked for. Workers are
# born one after the other: what waits for that beyond keeping the fork server busy takes
# descriptors meanwhile, and is born also when nobody wants it any more.
_MOST_UNBORN: Final = 32
_FEW_UNBORN: Final = 16


class Refill:
    """Starts workers, at the pace that backoff and running jobs allow.

    Args:
        loop: the pool's loop.
        supply: has processes made.
        failures: says when to try again.
        make_worker: makes and registers the supervisor's side of a worker.
        ask_again: called when what could not be started now may be started.
        capture_output: give each worker pipes for its output.
        price: what a worker takes of the descriptors that may be open.

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
        price: Price,
    ) -> None:
        self._loop = loop
        self._supply = supply
        self._failures = failures
        self._make_worker = make_worker
        self._ask_again = ask_again
        self._capture_output = capture_output
        self._price = price
        #: True while workers are held back so that the program can open files. To be read only.
        self.holds_back = False
        self._freed = 0  # workers that have gone while others were held back
        self._tried_again_at = float("-inf")
        self._told_limit: int | None = None
        self._awaits_births = False
        self._pacing = Pacing()
        self._cpus = cpu_count()
        self._timer: asyncio.TimerHandle | None = None

    def start(self, wanted: int, *, urgent: int, census: Census, awaited: bool) -> None:
        """Start up to *wanted* workers now; ask again for the rest when it is time.

        Args:
            wanted: how many there should be more.
            urgent: how many of them a waiting job needs.
            census: the workers there are.
            awaited: jobs wait, and take each worker as soon as it is there.
        """
        if not self._supply.ready:
            return  # whoever makes the launcher asks again
        delay = self._failures.delay()
        if delay > 0:
            self.again_in(delay)
            return
        now = clock.monotonic()
        if self.holds_back and now < self._tried_again_at + _TRY_AGAIN:
            # As many as have gone: for others there is no place, as was just found out.
            self.again_in(self._tried_again_at + _TRY_AGAIN - now)
            wanted = min(wanted, self._freed)
            if not wanted:
                return
            urgent = min(urgent, wanted)
        else:
            self.holds_back = False
        leave = self._pacing.leave(
            wanted, urgent=urgent, busy=census.running >= self._cpus, now=now
        )
        if leave.again_in is not None:
            self.again_in(leave.again_in)
        most = _MOST_UNBORN - self._supply.unborn
        self._awaits_births = leave.count > most
        self._start(min(leave.count, most), wanted, census, awaited)

    def _start(self, count: int, wanted: int, census: Census, awaited: bool) -> None:
        # Asked each time: the program may change it, and a birth costs a thousand times as much.
        limit = _soft_limit()
        for started in range(count):
            try:
                near, far = make_ends(capture_output=self._capture_output)
            except OSError as exc:
                self._no_process(exc)
                return
            if not self._has_room(limit, max(far.descriptors) + 1, census, started, wanted):
                near.close()
                far.close()
                return
            worker = self._make_worker(near)
            try:
                self._supply.launch(worker.number, far, awaited=awaited)
            except OSError as exc:
                worker.launch_failed(exc)
                self._no_process(exc)
                return
            self._freed = max(0, self._freed - 1)

    def _has_room(self, limit: int, opened: int, census: Census, started: int, wanted: int) -> bool:
        """Say whether one more leaves the program enough; if not, no more are started for now."""
        alive, spawning = census.alive + started + 1, census.spawning + started + 1
        if has_room(limit, opened, alive=alive, spawning=spawning, each=self._price):
            return True
        self.holds_back = True
        self._freed = 0
        self._tried_again_at = clock.monotonic()
        self.again_in(_TRY_AGAIN)
        if limit != self._told_limit:
            self._told_limit = limit
            logger.warning(
                "%d workers are alive, and %d more that are wanted wait until some have ended: of "
                "the %d files that this program may have open, workers leave it %d; raise the "
                "limit on open files (ulimit -n), or set max_processes or max_jobs",
                alive - 1,
                wanted - started,
                limit,
                kept_free(limit, opened, alive=alive, spawning=spawning, each=self._price),
            )
        return False

    def _no_process(self, error: OSError) -> None:
        self._failures.no_process(error)
        self.again_in(self._failures.delay())

    def born(self) -> None:
        """A worker that was asked for has a process."""
        if self._awaits_births and self._supply.unborn <= _FEW_UNBORN:
            self._awaits_births = False
            self._ask_again()

    def gone(self) -> None:
        """A worker has gone, and what it took is free again."""
        self._freed += 1

    def close(self) -> None:
        """Ask for nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def again_in(self, seconds: float) -> None:
        """Ask again in so many seconds, or earlier if that was arranged before."""
        due = self._loop.time() + seconds
        timer = self._timer
        if timer is not None and not timer.cancelled():
            if self._loop.time() < timer.when() <= due:
                return  # the earlier moment asks for all
            timer.cancel()
        self._timer = self._loop.call_at(due, self._ask_again)


def _soft_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
