"""What a job is, as data: who asked for it, how it stands, how it ended.

Everything here is immutable and plain, so that it can be handed to a worker,
to a dispatcher and to the user without anybody having to copy it first.

What has its default is left out where a job is encoded: most of a job has, and what is
encoded is on its way to its first line.
"""

from __future__ import annotations

import enum
import os
import signal as signals
from dataclasses import dataclass
from typing import Any, Optional, Union

import msgspec


class JobStatus(enum.Enum):
    """Where a job stands. The last six are final."""

    PENDING = "pending"  # accepted, waiting for a worker
    RUNNING = "running"  # a worker has begun it
    SUCCEEDED = "succeeded"  # returned
    FAILED = "failed"  # raised, or its process ended by itself
    CANCELLED = "cancelled"  # somebody asked it to stop, and it did
    TIMED_OUT = "timed_out"  # ran longer than its timeout
    KILLED = "killed"  # its process got SIGKILL
    REJECTED = "rejected"  # on_request said no

    @property
    def is_final(self) -> bool:
        """Return whether nothing can follow."""
        return self not in (JobStatus.PENDING, JobStatus.RUNNING)


class ServerType(enum.Enum):
    """For what a job is started: each room, or each publisher in a room."""

    ROOM = "room"
    PUBLISHER = "publisher"


class JobExecutorType(enum.Enum):
    """Where a job runs. A thread cannot be killed, so there is one member."""

    PROCESS = "process"


class Room(msgspec.Struct, frozen=True, omit_defaults=True):
    """A room, as a plain record."""

    name: str
    sid: str = ""
    metadata: str = ""


class Participant(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody in a room, as a plain record."""

    identity: str
    name: str = ""
    sid: str = ""
    metadata: str = ""
    attributes: dict[str, str] = {}


class AcceptArguments(msgspec.Struct, frozen=True, omit_defaults=True):
    """What ``JobRequest.accept`` was given: the agent's own participant."""

    name: str = ""
    identity: str = ""
    metadata: str = ""
    attributes: dict[str, str] = {}


def accept_by_default(job_id: str) -> AcceptArguments:
    """Return what a job of that id is accepted with where nobody says otherwise."""
    return AcceptArguments(identity=f"agent-{job_id}", attributes={})


class JobInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """One job as the dispatcher described it.

    Args:
        accept_arguments: what it was accepted with, or will be if nobody says otherwise.
        resuming: it ran in an earlier server, which was reloaded, and begins anew.
    """

    id: str
    room: Room = Room("")
    type: ServerType = ServerType.ROOM
    metadata: str = ""
    agent_name: str = ""
    publisher: Optional[Participant] = None  # noqa: UP045 - msgspec reads it at run time on 3.10
    dispatch_id: str = ""
    # A new one for each job: its attributes are a dict.
    accept_arguments: AcceptArguments = msgspec.field(default_factory=AcceptArguments)
    resuming: bool = False


class Session(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker is told to run an entrypoint: the job, and how to join its room."""

    job: JobInfo
    worker_id: str = ""
    url: str = ""
    token: str = ""

    def __repr__(self) -> str:
        """Return what may be logged: whoever has the token is let into the room."""
        return f"Session({self.job!r}, worker_id={self.worker_id!r}, url={self.url!r})"


@dataclass(frozen=True)
class Exit:
    """How a process ended: with a status, or by a signal. Neither: nobody could tell.

    Args:
        status: what it passed to ``exit``, 0 to 255.
        signal: the number of the signal that ended it.
    """

    status: Union[int, None] = None
    signal: Union[int, None] = None

    @classmethod
    def from_wait_status(cls, status: int) -> Exit:
        """Return what a ``waitpid`` status says."""
        if os.WIFSIGNALED(status):
            return cls(signal=os.WTERMSIG(status))
        return cls(status=os.WEXITSTATUS(status))

    @property
    def signal_name(self) -> str | None:
        """The signal's name such as ``SIGSEGV``; None if it was no signal."""
        if self.signal is None:
            return None
        try:
            return signals.Signals(self.signal).name
        except ValueError:
            return f"signal {self.signal}"

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by {self.signal_name}"
        if self.status is not None:
            return f"exit status {self.status}"
        return "exit status unknown"


@dataclass(frozen=True)
class ExitReport:
    """A process's end as the kernel told it.

    Args:
        exit: the status or signal; unknown where its parent died first.
        cpu_seconds: user and system time, None if nobody could tell.
        max_rss_bytes: peak resident memory, None if nobody could tell.
    """

    exit: Exit
    cpu_seconds: float | None = None
    max_rss_bytes: int | None = None


@dataclass(frozen=True)
class JobError:
    """A job's exception as text.

    Args:
        type: name of its class.
        message: ``str()`` of it.
        traceback: as the interpreter prints it.
    """

    type: str
    message: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


@dataclass(frozen=True)
class JobOutcome:
    """How a job ended. Every accepted job gets exactly one.

    Times are seconds since the epoch, taken from one reading of the wall clock
    and the monotonic clock, so their differences are true durations.

    Args:
        status: one of the final states.
        exit: how its process ended; None when the job ended and the process had not yet.
        error: what it raised, or what ended it: type, message and traceback as text.
        reason: why it was stopped, killed or rejected, in a word; may be empty.
        queued_at: when it was accepted.
        started_at: when its worker entered the user's function; None if it never did.
        ended_at: when the supervisor knew that it was over.
        handover_seconds: from the hand-over in the supervisor to the first line
            of the user's function; None if it never got there.
        cpu_seconds: user and system time of the job's process and of its
            children that it waited for, during this job.
        max_rss_bytes: peak resident memory of the job's process.
        pid: the process; None if it was never handed over.
        asked_to_stop: it was asked to stop, by whoever held its handle, a drain, a
            dispatcher or its timeout; False for one that ended its session itself.
    """

    status: JobStatus
    exit: Exit | None = None
    error: JobError | None = None
    reason: str = ""
    queued_at: float = 0.0
    started_at: float | None = None
    ended_at: float = 0.0
    handover_seconds: float | None = None
    cpu_seconds: float | None = None
    max_rss_bytes: int | None = None
    pid: int | None = None
    asked_to_stop: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        return {
            "status": self.status.value,
            "exit": None if self.exit is None else str(self.exit),
            "error": None if self.error is None else str(self.error),
            "traceback": None if self.error is None else self.error.traceback,
            "reason": self.reason,
            "queued_at": self.queued_at,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "handover_seconds": self.handover_seconds,
            "cpu_seconds": self.cpu_seconds,
            "max_rss_bytes": self.max_rss_bytes,
            "pid": self.pid,
            "asked_to_stop": self.asked_to_stop,
        }
