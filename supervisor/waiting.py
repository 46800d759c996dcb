"""Jobs without a worker: first come, first served, and any of them may leave."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from supervisor.record import JobRecord


class Waiting:
    """The queue. Every operation takes the same short time, however many wait.

    Runs on: the pool's loop.
    """

    def __init__(self) -> None:
        #: To be read only, and true if any waits. The one that has waited longest comes first.
        self.jobs: OrderedDict[int, JobRecord] = OrderedDict()

    def __len__(self) -> int:
        return len(self.jobs)

    def __iter__(self) -> Iterator[JobRecord]:
        return iter(list(self.jobs.values()))

    def append(self, job: JobRecord) -> None:
        """Let *job* wait behind all others."""
        self.jobs[id(job)] = job

    def prepend(self, job: JobRecord) -> None:
        """Let *job* wait before all others: it has waited already."""
        self.jobs[id(job)] = job
        self.jobs.move_to_end(id(job), last=False)

    def pop(self) -> JobRecord:
        """Return the job that has waited longest, which waits no more."""
        return self.jobs.popitem(last=False)[1]

    def remove(self, job: JobRecord) -> bool:
        """Let *job* wait no more; return whether it did."""
        return self.jobs.pop(id(job), None) is not None
