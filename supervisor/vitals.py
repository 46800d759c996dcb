"""Whether a worker answers, how fast, and where its event loop was last seen stuck."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from ipc.errors import ProtocolError
from ipc.messages import Lagging, Ping, Pong
from supervisor import clock

logger = logging.getLogger("greenroom.worker")

# A loop that stands still is reported when the threshold is over and each time that
# has doubled: a few reports for each ping. What a worker says beyond that is a flood,
# and each warning would cost the supervisor's loop 80 µs.
_LAGS: Final = 10
_LAG_PERIOD: Final = 10.0


class Vitals:
    """Pings that were sent and what came back.

    Args:
        who: the worker, for the log.
        threshold: returns the seconds above which a slow answer is worth a warning.
        context: returns the fields of its log records.

    Runs on: the pool's loop, every method.
    """

    def __init__(
        self,
        who: str,
        threshold: Callable[[], float | None],
        context: Callable[[], Mapping[str, object]],
    ) -> None:
        self.last_heard = clock.monotonic()
        self.last_stack = ""
        self._who = who
        self._threshold = threshold
        self._context = context
        self._number = 0
        self._answered = 0
        self._sent = 0.0
        self._lags: deque[float] = deque(maxlen=_LAGS)

    def heard(self) -> None:
        """It said something."""
        self.last_heard = clock.monotonic()

    @property
    def owed(self) -> int:
        """How many pings it has not answered."""
        return self._number - self._answered

    def silent_for(self, now: float) -> float:
        """Return for how long it has been silent at *now*; 0.0 if nothing was asked since."""
        return now - self.last_heard if self.owed else 0.0

    def next_ping(self, now: float) -> Ping:
        """Return the ping to send at *now*."""
        self._number += 1
        self._sent = now
        return Ping(self._number)

    def answered(self, message: Pong) -> None:
        """It answered a ping.

        Raises:
            ProtocolError: one that was never sent, or that it had answered.
        """
        if not self._answered < message.number <= self._number:
            raise ProtocolError(
                f"it answered ping {message.number} of {self._number}, "
                f"and had answered {self._answered}"
            )
        self._answered = message.number
        seconds = self.last_heard - self._sent
        threshold = self._threshold()
        if message.number == self._number and threshold is not None and seconds > threshold:
            logger.warning(
                "%s answered a ping after %.2f s",
                self._who,
                seconds,
                extra={"greenroom": dict(self._context())},
            )

    def lagging(self, message: Lagging) -> None:
        """Its job's event loop stands still."""
        self.last_stack = message.stack
        now = clock.monotonic()
        if len(self._lags) == _LAGS and now - self._lags[0] < _LAG_PERIOD:
            return
        self._lags.append(now)
        context = dict(self._context())
        logger.warning(
            "the event loop of %s has not turned for %.2f s; it is here:\n%s",
            f"job {context['job_id']}" if "job_id" in context else self._who,
            message.seconds,
            message.stack,
            extra={"greenroom": context},
        )
