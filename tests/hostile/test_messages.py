"""Well-formed messages that have no place: out of order, replayed, for others, without end."""

from __future__ import annotations

import logging
import time

import pytest

from ipc.frames import encode_frame
from ipc.messages import (
    ErrorText,
    Finished,
    Hello,
    Lagging,
    Message,
    Pong,
    Ready,
    SetupError,
    Started,
    encode,
)
from supervisor import JobStatus, clock
from tests.hostile.stage import Stage, SteppedLoop, finished

NAN, INF = float("nan"), float("inf")


def broke_the_protocol(stage: Stage, job: str = "J-1") -> bool:
    """Return whether the job's one outcome says so, once the child is dead."""
    assert stage.child.killed or any(child.killed for child in stage.children)
    stage.bury()
    (outcome,) = stage.outcomes[job]
    return (outcome.status, outcome.reason) == (JobStatus.FAILED, "protocol")


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(Hello(1), id="HELLO"),
        pytest.param(Ready(0.1), id="READY"),
        pytest.param(SetupError(ErrorText("E", "m", "t")), id="SETUP_ERROR"),
        pytest.param(Started("J-1", 1.0), id="STARTED again"),
        pytest.param(Started("J-2", 1.0), id="STARTED for another job"),
        pytest.param(finished("J-2"), id="FINISHED for another job"),
        pytest.param(Pong(1), id="PONG without a ping"),
        pytest.param(Pong(0), id="PONG zero"),
        pytest.param(Pong(-1), id="PONG below zero"),
    ],
)
def test_a_message_out_of_place_costs_the_child_its_life(stage: Stage, message: Message) -> None:
    child, _ = stage.running()
    child.says(message)
    assert broke_the_protocol(stage)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param([Started("J-1", 1.0)], id="STARTED before HELLO"),
        pytest.param([finished("J-1")], id="FINISHED before HELLO"),
        pytest.param([Hello(1), Hello(1)], id="HELLO twice"),
        pytest.param([Hello(1), Started("J-1", 1.0)], id="STARTED before READY"),
        pytest.param([Hello(1), Ready(0.1), Ready(0.1)], id="READY twice"),
        pytest.param([Hello(1), Ready(0.1), finished("J-2")], id="FINISHED for another job"),
    ],
)
def test_a_child_that_speaks_too_early_is_killed_and_its_job_goes_to_the_next(
    stage: Stage, said: list[Message]
) -> None:
    stage.submit("J-1")
    first = stage.child
    first.born()
    first.says(*said)
    assert first.killed
    stage.bury()
    assert "J-1" not in stage.outcomes, "it has not begun: another child may run it"
    stage.finish()
    (outcome,) = stage.outcomes["J-1"]
    assert outcome.status is JobStatus.SUCCEEDED
    assert outcome.pid != first.pid


def test_a_ping_is_answered_once(stage: Stage) -> None:
    child, _ = stage.running()
    worker = stage.workers.all[0]
    worker.ping(clock.monotonic())
    child.says(Pong(1))
    assert not child.killed
    child.says(Pong(1))
    assert broke_the_protocol(stage)


def test_after_a_broken_rule_nothing_that_the_child_says_counts(stage: Stage) -> None:
    child, handle = stage.running()
    said = (Ready(0.1), finished("J-1"))
    child.sends(b"".join(encode_frame(encode(each)) for each in said))
    assert not handle.done(), "its FINISHED was believed"
    assert broke_the_protocol(stage)


def test_a_replayed_end_ends_nothing_else(loop: SteppedLoop) -> None:
    stage = Stage(loop, max_jobs_per_process=None)
    child, first = stage.running("J-1")
    child.says(finished("J-1"))
    second = stage.submit("J-2")
    child.says(Started("J-2", clock.monotonic()), finished("J-1"))
    assert first.status is JobStatus.SUCCEEDED
    assert len(stage.outcomes["J-1"]) == 1
    assert child.killed
    stage.bury()
    assert second.status is JobStatus.FAILED
    stage.finish()
    assert not stage.errors


def test_a_child_that_floods_before_it_is_announced_is_not_stored_without_end(
    stage: Stage,
) -> None:
    child = stage.child
    for _ in range(1000):
        child.says(Lagging(0.0, "x" * 100))
    (worker,) = (each for each in stage.workers.all if each.number == child.number)
    assert len(worker._early) < 20
    child.born()
    assert child.killed


@pytest.mark.parametrize("seconds", [NAN, INF, -INF, -1.0, 1e300])
def test_how_long_a_warm_up_took_is_believed_only_where_it_can_be_true(
    stage: Stage, seconds: float
) -> None:
    stage.child.born()
    stage.child.says(Hello(1), Ready(seconds))
    (told,) = stage.warmed
    assert 0.0 <= told < 60.0


@pytest.mark.parametrize(
    ("cpu", "rss", "entered"),
    [(NAN, -1, NAN), (INF, 0, INF), (-1.0, -(2**63), -1.0), (0.0, 0, 1e300)],
)
def test_what_a_job_says_of_its_own_cost_is_believed_only_where_it_can_be_true(
    stage: Stage, cpu: float, rss: int, entered: float
) -> None:
    child, handle = stage.running()
    child.says(Finished("J-1", "succeeded", "", None, None, entered, entered, cpu, rss))
    outcome = handle.outcome
    assert outcome is not None
    assert outcome.status is JobStatus.SUCCEEDED
    assert outcome.cpu_seconds in (None, 0.0)
    assert outcome.max_rss_bytes in (None, 0)
    assert outcome.handover_seconds is None or 0.0 <= outcome.handover_seconds < 60.0


def test_a_status_that_nobody_knows_is_a_failure(stage: Stage) -> None:
    child, handle = stage.running()
    child.says(finished("J-1", status="gloriously"))
    assert handle.status is JobStatus.FAILED


@pytest.mark.parametrize("reason", ["", "\0", "\n2026-01-01 INFO forged", "x" * 100_000])
def test_a_reason_is_text_and_nothing_else(stage: Stage, reason: str) -> None:
    child, handle = stage.running()
    child.says(Finished("J-1", "cancelled", reason, None, None, 0.0, 0.0, 0.0, 0))
    assert handle.outcome is not None
    assert handle.outcome.reason == reason


def test_a_flood_of_lag_reports_is_heard_and_not_written_down(
    stage: Stage, records: list[logging.LogRecord]
) -> None:
    child, _ = stage.running()
    frame = encode_frame(encode(Lagging(0.5, "here")))
    for _ in range(20):
        child.sends(frame * 1000)
    assert len([each for each in records if "has not turned" in each.getMessage()]) <= 20
    stage.pass_time(11.0)
    before = len(records)
    child.says(Lagging(0.5, "there"))
    assert len(records) == before + 1, "a real one, later, is written down"


def test_a_flood_gets_one_read_a_turn(stage: Stage) -> None:
    # 1. Two children; one fills its socket. 2. The other is heard in the same turn.
    stage.workers.update(stage.workers.options.replace(num_idle_processes=2))
    stage.loop.turn()
    flooding, other = stage.children[:2]
    flooding.born()
    other.born()
    frame = encode_frame(encode(Lagging(0.0, "")))
    flooding.says(Hello(1))
    began = time.perf_counter()
    flooding.channel.send(frame * 8000)
    other.channel.send(encode_frame(encode(Hello(2))))
    stage.loop.turn(2)
    states = {worker.number: worker.state.value for worker in stage.workers.all}
    assert states[other.number] == "warming"
    assert time.perf_counter() - began < 5.0
