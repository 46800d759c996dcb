"""One accepted job as the pool keeps it, from acceptance to outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ipc import fds
from ipc.messages import RunJob
from supervisor.handle import JobHandle
from supervisor.outcome import Ask, Facts, Kill

# How often a job may be handed over: a worker that dies in the instant of the
# hand-over has not begun it, and three such deaths in a row are no accident.
MAX_HAND_OVERS: Final = 3


class JobRecord(msgspec.Struct, eq=False):  # found by identity: two jobs are never the same
    """What the pool knows about one job. Moments in monotonic seconds.

    Args:
        id: the job's id.
        handle: the caller's end.
        kind: ``"session"``, or what ``travel.pack_call`` said.
        body: what the worker opens; dropped once the job has begun.
        max_payload_bytes: what its call may take, and what it returns or raises.
        data_only: only plain data may come back.
        timeout: wall time from the hand-over in seconds; None for none.
        memory_limit_bytes: PSS of its process tree at which it is killed; 0: off.
        queued_at: when it was accepted.
    """

    id: str
    handle: JobHandle[Any]
    kind: str
    body: bytes
    queued_at: float
    max_payload_bytes: int
    data_only: bool = False
    timeout: float | None = None
    memory_limit_bytes: int = 0
    hand_overs: int = 0
    worker: int | None = None  # whom it was handed to
    handed_at: float | None = None
    started_at: float | None = None
    ask: Ask | None = None
    kill: Kill | None = None

    @property
    def begun(self) -> bool:
        """True once its worker's mark is seen: from then on it is never handed over again."""
        return self.started_at is not None

    def message(self, *, last: bool) -> tuple[RunJob, Sequence[int]]:
        """Return what is sent to the worker, and the descriptors beside it, the caller's to close.

        Raises:
            OSError: no memory or no descriptor for a large body.
        """
        most = self.max_payload_bytes
        if len(self.body) <= fds.INLINE_BYTES:
            return RunJob(self.id, self.kind, last, self.body, self.data_only, most), ()
        memory = fds.write_memory(self.body)
        return RunJob(self.id, self.kind, last, b"", self.data_only, most), (memory,)

    def facts(self, *, now: float, wall_offset: float, pid: int | None = None) -> Facts:
        """Return what an outcome is made from.

        Args:
            now: monotonic seconds.
            wall_offset: what makes seconds since the epoch of those, by adding it.
            pid: of the process that ran it, if one did.
        """
        return Facts(
            queued_at=self.queued_at,
            ended_at=now,
            wall_offset=wall_offset,
            pid=pid,
            handed_at=self.handed_at,
            started_at=self.started_at,
            ask=self.ask,
            kill=self.kill,
        )
