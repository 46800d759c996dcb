"""Keeping account of workers that did not get warm, and of processes that could not be had."""

from __future__ import annotations

import errno
import logging
from typing import Final

from supervisor import clock
from supervisor.errors import SetupFailed
from supervisor.restarts import INTENSITY, PERIOD, Reminders, RestartWindow

logger = logging.getLogger("greenroom.pool")

# What the operator can do about a process that cannot be had.
_REMEDIES: Final = {
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit on open files (fs.file-max)",
    errno.EAGAIN: "raise the limit on processes (ulimit -u, pids.max)",
    errno.ENOMEM: "free memory, or keep fewer idle processes",
}

# What is missing comes back when somebody lets go of it, which nobody tells us. An
# attempt costs little, and jobs wait: so it is made again soon.
LONGEST_SHORTAGE_DELAY: Final = 1.0


class Failures:
    """How often it failed lately, why, and when to try again.

    Args:
        initialize_process_timeout: seconds that one warm-up may take. The window
            is longer by as many of them as make it full: a setup that hangs has
            to be noticed like one that raises.

    Runs on: the pool's loop, every method.
    """

    def __init__(self, initialize_process_timeout: float) -> None:
        self._warmups = RestartWindow(INTENSITY, PERIOD + INTENSITY * initialize_process_timeout)
        self._processes = RestartWindow(longest_delay=LONGEST_SHORTAGE_DELAY)
        self._reminders = Reminders()
        #: Why the last warm-up failed; None once one has worked again. To be read only.
        self.last: SetupFailed | None = None
        self._is_final = False

    @property
    def in_a_row(self) -> int:
        """Warm-ups that failed since one worked."""
        return self._warmups.in_a_row

    @property
    def is_final(self) -> bool:
        """True from the failure that was one too many until a warm-up works."""
        return self._is_final

    def delay(self) -> float:
        """Return the seconds until the next try is allowed."""
        now = clock.monotonic()
        return max(self._warmups.delay(now), self._processes.delay(now))

    def warmed(self) -> None:
        """A warm-up worked."""
        if self.last is not None:
            logger.info("setup works again")
        self._warmups.record_success()
        self._processes.record_success()
        self.last = None
        self._is_final = False

    def warmup_failed(self, error: SetupFailed) -> bool:
        """Note why a warm-up failed; return whether it was one too many."""
        self.last = error
        if self._warmups.record_failure(clock.monotonic()):
            self._is_final = True
        logger.warning("a worker did not get warm; next try in %.2f s: %s", self.delay(), error)
        return self._is_final

    def no_process(self, error: OSError) -> None:
        """Note that no process or no descriptor could be had: jobs wait, nothing is lost."""
        now = clock.monotonic()
        self._processes.record_failure(now)
        failures = self._reminders.failures_to_tell(now)
        if not failures:
            return
        remedy = _REMEDIES.get(error.errno or 0, "")
        logger.warning(
            "no worker can be started: %s%s; next try in %.2f s%s",
            error.strerror or error,
            f" ({failures} times since this was last said)" if failures > 1 else "",
            self.delay(),
            f"; {remedy}" if remedy else "",
        )
