"""When did a worker's job begin? Read from the worker's mark, whatever the worker does.

A job may write into its mark what it likes. It can only do that after it has
begun: so what counts is that the mark changed since the worker was idle, and a
moment is believed where it can be true.
"""

from __future__ import annotations

import os

from ipc.mark import moment_of, read_mark


class Beginning:
    """The supervisor's side of one worker's mark. Takes the descriptor over.

    Runs on: the pool's loop.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before = b""

    def none_yet(self) -> None:
        """The worker is idle: what the mark holds now means nothing."""
        self._before = read_mark(self._fd)

    def moment(self, handed_at: float, now: float) -> float | None:
        """Return when the job began that was handed over at *handed_at*, None if it has not.

        CLOCK_MONOTONIC, all three.
        """
        written = read_mark(self._fd)
        if written == self._before:
            return None
        moment = moment_of(written)
        return moment if moment is not None and handed_at <= moment <= now else handed_at

    def close(self) -> None:
        """Let go of the mark."""
        os.close(self._fd)
