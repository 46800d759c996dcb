"""The idle workers, in the order in which they are taken. Pure.

The youngest is taken first: its pages are the likeliest to be in cache. Where a
process serves several jobs, one that has served comes before a fresh one for the
same reason, and a spare that nobody needs stays one. The oldest is let go first:
what it holds (connections, caches) is the stalest.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class Idler(Protocol):
    """What must be known of a worker."""

    number: int
    jobs_served: int


W = TypeVar("W", bound=Idler)


class Idle(Generic[W]):
    """See the head of the file. Every operation takes the same short time.

    Runs on: the pool's loop.
    """

    def __init__(self) -> None:
        #: To be read only, and true if there are any. The first to be let go comes first.
        self.workers: OrderedDict[int, W] = OrderedDict()

    def __len__(self) -> int:
        return len(self.workers)

    def add(self, worker: W, *, reused: bool) -> None:
        """Keep *worker*; *reused* says whether a process serves more than one job."""
        self.workers[worker.number] = worker
        if reused and worker.jobs_served == 0:
            self.workers.move_to_end(worker.number, last=False)

    def take(self) -> W:
        """Return the one that gets the next job, which is idle no more."""
        return self.workers.popitem()[1]

    def take_stalest(self) -> W:
        """Return the one that is let go first, which is idle no more."""
        return self.workers.popitem(last=False)[1]

    def discard(self, worker: W) -> None:
        """Forget *worker*, if it is here."""
        self.workers.pop(worker.number, None)
