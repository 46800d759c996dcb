"""What a server's log says about a job: which one, and how it ended.

Of its ends, what nobody asked for is an error, with the job's own traceback: a server's log is
the one place where an entrypoint that raised can be seen to have done so. A
limit that was enforced is a warning. Everything else went as somebody wanted.
"""

from __future__ import annotations

import logging

from supervisor.job import JobInfo, JobOutcome, JobStatus

logger = logging.getLogger("greenroom.server")


def about(job: JobInfo) -> dict[str, object]:
    """Return a record's ``extra`` that says which job it is about."""
    return {"greenroom": {"job_id": job.id, "room": job.room.name}}


def level_of(outcome: JobOutcome) -> int:
    """Return the level at which this end is logged."""
    if outcome.status is JobStatus.TIMED_OUT:
        return logging.WARNING
    if outcome.status not in (JobStatus.FAILED, JobStatus.KILLED):
        return logging.INFO
    return logging.WARNING if outcome.asked_to_stop else logging.ERROR


def log_end(job: JobInfo, outcome: JobOutcome) -> None:
    """Log that *job* ended as *outcome* says, on ``greenroom.server``."""
    level = level_of(outcome)
    if not logger.isEnabledFor(level):
        return
    why = outcome.error or outcome.reason
    message = f"job {job.id} ended: {outcome.status.value}" + (f" ({why})" if why else "")
    # Made by hand for the traceback, so it says itself where it was made.
    code = log_end.__code__
    record = logger.makeRecord(
        logger.name,
        level,
        code.co_filename,
        code.co_firstlineno,
        "%s",
        (message,),
        None,
        code.co_name,
        extra=about(job),
    )
    if outcome.error is not None and outcome.error.traceback:
        # The text and no exception: what was raised stays in its process.
        record.exc_text = outcome.error.traceback.rstrip()
    logger.handle(record)
