"""Names for jobs that were given none."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Final

# Made at once. To make a number into text is a long way when nothing of it is in the caches,
# and a name is asked for on each job's way to its worker.
_BATCH: Final = 16


class JobIds(Iterator[str]):
    """Names without end: what tells this source of jobs from every other one, and a number.

    One random word for all of them: one for each would be a system call for each job.

    Runs on: any thread.
    """

    def __init__(self) -> None:
        self._beginning = f"J-{os.urandom(6).hex()}-"
        self._firsts = itertools.count(1, _BATCH)
        self._made: list[str] = []  # the next one is the last

    def __next__(self) -> str:
        """Return the next one."""
        try:
            return self._made.pop()
        except IndexError:
            # Two threads may come here at once: each makes a batch of its own.
            first = next(self._firsts)
            name, *others = [f"{self._beginning}{first + each}" for each in range(_BATCH)]
            self._made.extend(reversed(others))
            return name
