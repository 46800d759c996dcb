"""Names for jobs that were given none."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator


def job_ids() -> Iterator[str]:
    """Return names without end: what tells this source of jobs from every other one, and a number.

    One random word for all of them: one for each would be a system call on each job's way to
    its worker. And no format string, whose parser is long when nothing of it is in the caches.

    Runs on: any thread.
    """
    return map(f"J-{os.urandom(6).hex()}-".__add__, map(str, itertools.count(1)))
