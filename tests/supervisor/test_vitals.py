"""Who is silent: a worker that was asked something and says nothing."""

from __future__ import annotations

import pytest

from ipc.errors import ProtocolError
from ipc.messages import Lagging, Pong
from supervisor.vitals import Vitals


def vitals() -> Vitals:
    return Vitals("worker 1", threshold=lambda: None, context=dict)


def test_who_was_not_asked_is_not_silent() -> None:
    mine = vitals()
    assert mine.silent_for(mine.last_heard + 1000) == 0.0


def test_who_answered_everything_is_not_silent_however_long_ago_that_was() -> None:
    mine = vitals()
    ping = mine.next_ping(mine.last_heard)
    mine.answered(Pong(ping.number))
    assert mine.silent_for(mine.last_heard + 1000) == 0.0


def test_who_owes_an_answer_is_silent_since_it_was_last_heard() -> None:
    mine = vitals()
    mine.answered(Pong(mine.next_ping(mine.last_heard).number))
    mine.next_ping(mine.last_heard + 2)
    # Approximately: on a clock that has run for long, a sum and a difference are rounded.
    assert mine.silent_for(mine.last_heard + 1000) == pytest.approx(1000)
    mine.heard()
    assert mine.silent_for(mine.last_heard) == 0.0


def test_it_owes_what_it_has_not_answered() -> None:
    mine = vitals()
    assert mine.owed == 0
    first, second, third = (mine.next_ping(mine.last_heard).number for _ in range(3))
    assert mine.owed == 3
    mine.answered(Pong(first))
    assert mine.owed == 2
    mine.answered(Pong(second))
    mine.answered(Pong(third))
    assert mine.owed == 0


@pytest.mark.parametrize(
    ("context", "whose"), [({"job_id": "j-1"}, "job j-1"), ({"pid": 17}, "worker 1")]
)
def test_a_loop_that_stands_still_is_told_of_by_its_job_or_its_worker(
    context: dict[str, object], whose: str, caplog: pytest.LogCaptureFixture
) -> None:
    Vitals("worker 1", lambda: None, lambda: context).lagging(Lagging(0.5, "here"))
    assert caplog.messages == [
        f"the event loop of {whose} has not turned for 0.50 s; it is here:\nhere"
    ]


def test_an_answer_to_nothing_breaks_the_protocol() -> None:
    mine = vitals()
    with pytest.raises(ProtocolError, match="it answered ping 1 of 0"):
        mine.answered(Pong(1))
