"""How a server logs the end of a job."""

from __future__ import annotations

import logging

import pytest

from supervisor.job import JobError, JobInfo, JobOutcome, JobStatus, Room
from supervisor.joblog import log_end

JOB = JobInfo("J-1", room=Room("studio"))
RAISED = JobError("ValueError", "boom", "Traceback …\nValueError: boom\n")


@pytest.mark.parametrize(
    ("outcome", "level", "message"),
    [
        (JobOutcome(JobStatus.SUCCEEDED), "INFO", "job J-1 ended: succeeded"),
        (
            JobOutcome(JobStatus.CANCELLED, reason="drain", asked_to_stop=True),
            "INFO",
            "job J-1 ended: cancelled (drain)",
        ),
        (
            JobOutcome(JobStatus.FAILED, error=RAISED),
            "ERROR",
            "job J-1 ended: failed (ValueError: boom)",
        ),
        (
            JobOutcome(JobStatus.FAILED, error=RAISED, asked_to_stop=True),
            "WARNING",
            "job J-1 ended: failed (ValueError: boom)",
        ),
        (JobOutcome(JobStatus.KILLED, reason="memory"), "ERROR", "job J-1 ended: killed (memory)"),
        (
            JobOutcome(JobStatus.KILLED, reason="grace", asked_to_stop=True),
            "WARNING",
            "job J-1 ended: killed (grace)",
        ),
        (
            JobOutcome(JobStatus.TIMED_OUT, reason="timeout", asked_to_stop=True),
            "WARNING",
            "job J-1 ended: timed_out (timeout)",
        ),
        (
            JobOutcome(JobStatus.FAILED, reason="100%s"),
            "ERROR",
            "job J-1 ended: failed (100%s)",
        ),
    ],
)
def test_what_nobody_asked_for_is_an_error(
    outcome: JobOutcome, level: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "greenroom.server"):
        log_end(JOB, outcome)
    (record,) = caplog.records
    assert (record.name, record.levelname, record.getMessage()) == (
        "greenroom.server",
        level,
        message,
    )
    assert vars(record)["greenroom"] == {"job_id": "J-1", "room": "studio"}
    assert (record.module, record.funcName) == ("joblog", "log_end")


def test_the_jobs_own_traceback_is_the_records(caplog: pytest.LogCaptureFixture) -> None:
    log_end(JOB, JobOutcome(JobStatus.FAILED, error=RAISED))
    (record,) = caplog.records
    assert record.exc_info is None
    assert record.exc_text == "Traceback …\nValueError: boom"
    assert logging.Formatter().format(record).endswith("\nTraceback …\nValueError: boom")


def test_a_level_that_is_not_wanted_costs_no_record(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "greenroom.server"):
        log_end(JOB, JobOutcome(JobStatus.SUCCEEDED))
        log_end(JOB, JobOutcome(JobStatus.FAILED))
    assert [record.levelname for record in caplog.records] == ["ERROR"]
