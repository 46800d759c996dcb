"""A job as data: where it stands, how it ended, and that all of it is plain."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given, strategies as st

from supervisor.job import (
    AcceptArguments,
    Exit,
    ExitReport,
    JobError,
    JobExecutorType,
    JobInfo,
    JobOutcome,
    JobStatus,
    Participant,
    Room,
    ServerType,
    Session,
)


def test_two_states_can_be_followed_by_another_and_the_rest_are_final() -> None:
    assert {status for status in JobStatus if not status.is_final} == {
        JobStatus.PENDING,
        JobStatus.RUNNING,
    }
    assert [status.value for status in JobStatus] == [
        "pending",
        "running",
        "succeeded",
        "failed",
        "cancelled",
        "timed_out",
        "killed",
        "rejected",
    ]


def test_a_job_runs_in_a_process_for_a_room_or_a_publisher() -> None:
    assert [each.value for each in JobExecutorType] == ["process"]
    assert [each.value for each in ServerType] == ["room", "publisher"]


# ── how a process ended ──────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("exit", "text", "name"),
    [
        pytest.param(Exit(status=0), "exit status 0", None, id="a good end"),
        pytest.param(Exit(status=3), "exit status 3", None, id="a bad end"),
        pytest.param(
            Exit(signal=signal.SIGSEGV), "killed by SIGSEGV", "SIGSEGV", id="a segmentation fault"
        ),
        pytest.param(Exit(signal=9), "killed by SIGKILL", "SIGKILL", id="a kill"),
        pytest.param(
            Exit(signal=36), "killed by signal 36", "signal 36", id="a signal without a name"
        ),
        pytest.param(Exit(), "exit status unknown", None, id="nobody could tell"),
    ],
)
def test_an_exit_says_how(exit: Exit, text: str, name: str | None) -> None:
    assert str(exit) == text
    assert exit.signal_name == name


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        pytest.param("raise SystemExit(3)", Exit(status=3), id="a status"),
        pytest.param("pass", Exit(status=0), id="no status"),
        pytest.param("import os; os.kill(os.getpid(), 9)", Exit(signal=9), id="a signal"),
    ],
)
def test_a_wait_status_becomes_an_exit(program: str, expected: Exit) -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", program])
    _, status = os.waitpid(child.pid, 0)
    child.returncode = 0  # it was reaped here; Popen must not look for it
    assert Exit.from_wait_status(status) == expected


@given(st.integers(0, 255))
def test_every_status_and_every_signal_is_read_back(number: int) -> None:
    assert Exit.from_wait_status(number << 8) == Exit(status=number)
    if 1 <= number <= 64:
        core_dumped = 0x80
        assert Exit.from_wait_status(number) == Exit(signal=number)
        assert Exit.from_wait_status(number | core_dumped) == Exit(signal=number)


def test_a_report_may_know_no_more_than_the_exit() -> None:
    assert ExitReport(Exit(status=0)) == ExitReport(Exit(status=0), None, None)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(JobError("ValueError", "no"), "ValueError: no", id="with a message"),
        pytest.param(JobError("KeyboardInterrupt", ""), "KeyboardInterrupt", id="without one"),
    ],
)
def test_an_error_as_text(error: JobError, text: str) -> None:
    assert str(error) == text


# ── outcomes ─────────────────────────────────────────────────────────────────

texts = st.text(max_size=10)
times = st.floats(0.0, 2e9)

outcomes = st.builds(
    JobOutcome,
    status=st.sampled_from([status for status in JobStatus if status.is_final]),
    exit=st.none() | st.builds(Exit, status=st.integers(0, 255)) | st.just(Exit(signal=11)),
    error=st.none() | st.builds(JobError, texts, texts, texts),
    reason=texts,
    queued_at=times,
    started_at=st.none() | times,
    ended_at=times,
    handover_seconds=st.none() | times,
    cpu_seconds=st.none() | times,
    max_rss_bytes=st.none() | st.integers(0, 2**40),
    pid=st.none() | st.integers(1, 2**22),
    asked_to_stop=st.booleans(),
)


@given(outcomes)
def test_an_outcome_is_plain_data_for_json(outcome: JobOutcome) -> None:
    told = outcome.as_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert JobStatus(told["status"]) is outcome.status
    fields = {field.name for field in dataclasses.fields(JobOutcome)}
    assert set(told) == fields | {"traceback"}


def test_an_outcome_tells_its_exit_and_its_error_as_text() -> None:
    outcome = JobOutcome(
        JobStatus.FAILED, exit=Exit(signal=11), error=JobError("E", "m", "Traceback …"), pid=7
    )
    told = outcome.as_dict()
    assert (told["status"], told["exit"], told["pid"]) == ("failed", "killed by SIGSEGV", 7)
    assert (told["error"], told["traceback"]) == ("E: m", "Traceback …")


def test_an_outcome_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        JobOutcome(JobStatus.FAILED).reason = "other"  # type: ignore[misc]  # what is tested


# ── what a job is ────────────────────────────────────────────────────────────

names = st.dictionaries(texts, texts, max_size=3)
rooms = st.builds(Room, texts, texts, texts)
participants = st.builds(Participant, texts, texts, texts, texts, names)
infos = st.builds(
    JobInfo,
    id=texts,
    room=rooms,
    type=st.sampled_from(ServerType),
    metadata=texts,
    agent_name=texts,
    publisher=st.none() | participants,
    dispatch_id=texts,
    accept_arguments=st.builds(AcceptArguments, texts, texts, texts, names),
    resuming=st.booleans(),
)
sessions = st.builds(Session, infos, texts, texts, texts)


@given(sessions)
def test_a_session_arrives_in_the_worker_as_it_was_sent(session: Session) -> None:
    wire = msgspec.msgpack.encode(session)
    assert msgspec.msgpack.decode(wire, type=Session) == session
    assert msgspec.json.decode(msgspec.json.encode(session), type=Session) == session


def test_no_two_jobs_share_what_can_be_changed() -> None:
    one, other = JobInfo("J-1"), JobInfo("J-2")
    one.accept_arguments.attributes["tier"] = "vip"
    assert other.accept_arguments.attributes == {}
    assert AcceptArguments().attributes == {}
    Participant("p").attributes["tier"] = "vip"
    assert Participant("q").attributes == {}


def test_a_job_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        JobInfo("J-1").metadata = "other"  # type: ignore[misc]  # what is tested
