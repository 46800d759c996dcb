"""Telling LiveKit how busy we are: at once when something changed, else every 2.5 s.

LiveKit draws among the servers that are not full, with a weight of 1 - load, so a
figure that is old sends jobs to where they are refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from supervisor.clock import monotonic
from supervisor.dispatch.base import Host
from supervisor.within import within

# As LiveKit's own SDK has it: its servers expect to hear from us that often.
INTERVAL: Final = 2.5
# The load has no event of its own, so it is looked at that often.
LOOK_INTERVAL: Final = 0.5
# A change of the load that is worth a message of its own.
NOTEWORTHY: Final = 0.05


@dataclass(frozen=True)
class Report:
    """How busy we are.

    Args:
        full: no job is taken now, for whatever reason.
        load: 0.0 to 1.0.
        jobs: those that run or were promised.
    """

    full: bool
    load: float
    jobs: int


def is_due(report: Report, last: Report | None, age: float) -> bool:
    """Return whether *report* is to be sent, *age* seconds after *last* was."""
    if last is None or age >= INTERVAL:
        return True
    if (report.full, report.jobs) != (last.full, last.jobs):
        return True
    return abs(report.load - last.load) >= NOTEWORTHY


class Reports:
    """Watches how busy the host is and says when LiveKit should know.

    Runs on: the server's loop, every method.
    """

    def __init__(self) -> None:
        self.last: Report | None = None
        self._sent_at = 0.0
        self._changed = asyncio.Event()

    def look(self) -> None:
        """Something has changed: look now."""
        self._changed.set()

    def sent(self, report: Report) -> None:
        """*report* was sent."""
        self.last, self._sent_at = report, monotonic()

    async def run(self, host: Host, tell: Callable[[Report], object]) -> None:
        """Call *tell* with each report that is due, until cancelled."""
        self.last = None
        while True:
            self._changed.clear()
            # The user's function may take a second; what changes meanwhile is seen after it.
            load = await host.measure_load()
            full = load is None or host.not_ready() is not None
            report = Report(full, 1.0 if load is None else load, len(host.active_jobs))
            if is_due(report, self.last, monotonic() - self._sent_at):
                tell(report)
            try:
                await within(LOOK_INTERVAL, self._changed.wait())
            except asyncio.TimeoutError:
                continue
