"""From what is known about a job's end to its one outcome. Pure.

Who ended the job decides its status:

* it told us (FINISHED): what it said, unless its timeout had run out before;
* we killed it: KILLED with our reason, except that a broken protocol is the
  job's own fault (FAILED) and a grace that ran out belongs to whoever asked;
* nobody: SIGKILL from outside (an operator, the kernel out of memory) is KILLED,
  any other end of the process is FAILED, and so is a job that never began.

A kill counts only if the kernel says that SIGKILL ended the process: one that
was on its way out when we sent it ended by itself. What broke the protocol broke
it, however its process ended.
"""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass

import msgspec

from ipc.messages import Finished
from supervisor.job import Exit, ExitReport, JobError, JobOutcome, JobStatus

_TOLD = {
    "succeeded": JobStatus.SUCCEEDED,
    "failed": JobStatus.FAILED,
    "cancelled": JobStatus.CANCELLED,
}

# Kills whose job did not go wrong by being killed: it broke the protocol before,
# or its worker was gone when the job came.
_NOT_KILLED = frozenset({"protocol", "gone"})


@dataclass(frozen=True)
class Ask:
    """That the job was asked to stop, and why.

    Args:
        reason: what the job's shutdown callbacks get.
        timed_out: its own timeout was the reason.
    """

    reason: str
    timed_out: bool = False


@dataclass(frozen=True)
class Kill:
    """That we sent SIGKILL, or its process sent it to itself by our rules, and why.

    Args:
        reason: one word: silent, hung, memory, protocol, grace, and so on.
        detail: the figures, or the last stack.
    """

    reason: str
    detail: str = ""


class Facts(msgspec.Struct, frozen=True):
    """What the supervisor knows about a job that is over. Moments on the monotonic clock."""

    queued_at: float
    ended_at: float
    wall_offset: float  # wall clock minus monotonic clock
    pid: int | None = None
    handed_at: float | None = None
    started_at: float | None = None  # by its mark, or by STARTED
    ask: Ask | None = None
    kill: Kill | None = None
    exit: Exit | None = None
    cpu_seconds: float | None = None
    max_rss_bytes: int | None = None


def with_report(facts: Facts, report: ExitReport) -> Facts:
    """Return *facts* with what the kernel told about the process."""
    return msgspec.structs.replace(
        facts,
        exit=report.exit,
        cpu_seconds=report.cpu_seconds,
        max_rss_bytes=report.max_rss_bytes,
    )


def told(facts: Facts, message: Finished) -> JobOutcome:
    """Return the outcome of a job that said how it ended."""
    status = _TOLD.get(message.status, JobStatus.FAILED)
    reason = message.reason
    if facts.ask is not None and facts.ask.timed_out:
        status, reason = JobStatus.TIMED_OUT, "timeout"
    error = message.error
    return _outcome(
        facts,
        status,
        reason=reason,
        error=None if error is None else JobError(error.type, error.message, error.traceback),
        entered_at=message.entered_at or facts.started_at,
        # Its own word, which goes into sums: one NaN would stay in them for ever.
        cpu_seconds=message.cpu_seconds if 0.0 <= message.cpu_seconds < math.inf else None,
        max_rss_bytes=message.max_rss_bytes if message.max_rss_bytes >= 0 else None,
    )


def ended(facts: Facts) -> JobOutcome:
    """Return the outcome of a job whose process ended without a word."""
    status, reason, text = _verdict(facts)
    error = JobError("JobKilled" if status is JobStatus.KILLED else "WorkerLost", text)
    return _outcome(
        facts,
        status,
        reason=reason,
        error=error,
        entered_at=facts.started_at,
        cpu_seconds=facts.cpu_seconds,
        max_rss_bytes=facts.max_rss_bytes,
    )


def never_ran(
    facts: Facts, status: JobStatus, *, reason: str, error: JobError | None
) -> JobOutcome:
    """Return the outcome of a job that no worker began."""
    return _outcome(facts, status, reason=reason, error=error)


def _verdict(facts: Facts) -> tuple[JobStatus, str, str]:
    by_sigkill = facts.exit is None or facts.exit in (Exit(), Exit(signal=signal.SIGKILL))
    if facts.ask is not None and facts.ask.timed_out:
        return JobStatus.TIMED_OUT, "timeout", f"{_who(facts)}, asked to stop: {facts.ask.reason}"
    if facts.kill is not None and (by_sigkill or facts.kill.reason == "protocol"):
        status = JobStatus.FAILED if facts.kill.reason in _NOT_KILLED else JobStatus.KILLED
        detail = f": {facts.kill.detail}" if facts.kill.detail else ""
        return status, facts.kill.reason, f"{_who(facts)} ({facts.kill.reason}{detail})"
    if facts.ask is not None:
        return JobStatus.CANCELLED, facts.ask.reason, _who(facts)
    if facts.started_at is None:
        return JobStatus.FAILED, "", f"{_who(facts)} before it began the job"
    if facts.exit is not None and facts.exit.signal == signal.SIGKILL:
        return JobStatus.KILLED, "", f"{_who(facts)}, from outside or by the kernel out of memory"
    return JobStatus.FAILED, "", _who(facts)


def _who(facts: Facts) -> str:
    how = "exit status unknown" if facts.exit is None else str(facts.exit)
    return f"worker {facts.pid}: {how}"


def _outcome(
    facts: Facts,
    status: JobStatus,
    *,
    reason: str = "",
    error: JobError | None = None,
    entered_at: float | None = None,
    cpu_seconds: float | None = None,
    max_rss_bytes: int | None = None,
) -> JobOutcome:
    handover = None
    # The moment comes from the job's process: believed only where it can be true.
    if entered_at is not None and facts.handed_at is not None:
        if not facts.handed_at <= entered_at <= facts.ended_at:
            entered_at = None
        else:
            handover = entered_at - facts.handed_at
    offset = facts.wall_offset
    return JobOutcome(
        status=status,
        exit=facts.exit,
        error=error,
        reason=reason,
        queued_at=facts.queued_at + offset,
        started_at=None if entered_at is None else entered_at + offset,
        ended_at=facts.ended_at + offset,
        handover_seconds=handover,
        cpu_seconds=cpu_seconds,
        max_rss_bytes=max_rss_bytes,
        pid=facts.pid,
        asked_to_stop=facts.ask is not None,
    )
