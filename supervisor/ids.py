"""Names for jobs that were given none."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Final

# Made at once. To make a number into text is a long way when nothing of it is in the caches,
# and a name is asked for on each job's way to its worker.
_BATCH: Final = 16


def job_ids() -> Iterator[str]:
    """Return names without end: what tells this source of jobs from every other one, and a number.

    One random word for all of them: one for each would be a system call for each job.

    To be asked on: any thread. Two that come to the end of a batch at once make one each, and
    some numbers may be left out. None is given twice.
    """
    beginning = f"J-{os.urandom(6).hex()}-"
    firsts = itertools.count(1, _BATCH)

    def batch() -> list[str]:
        first = next(firsts)
        return [f"{beginning}{first + each}" for each in range(_BATCH)]

    # No function of Python's is called for a name, but for the first of a batch.
    return itertools.chain.from_iterable(iter(batch, None))
