"""What becomes of a log record on its way: plain, bounded, and never an error."""

from __future__ import annotations

import enum
import logging
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from ipc.frames import HEADER, MAX_FRAME_BYTES
from ipc.messages import Decoder, Log
from supervisor.child import records
from supervisor.child.logs import SHARED_FRAME_BYTES, LogForwarder
from supervisor.errors import JobCancelled


def forwarded(record: logging.LogRecord, fields: Mapping[str, object] | None = None) -> Log:
    """Return what arrives of *record*, which is not a large one."""
    near, far = socket.socketpair()
    with near, far:
        forwarder = LogForwarder("DEBUG")
        forwarder.connect(far, lambda: fields or {})
        forwarder.forward(record)
        forwarder.close()
        frame = near.recv(1 << 20, socket.MSG_WAITALL)
    decoder: Decoder[Log] = Decoder(Log)
    return decoder.decode(frame[HEADER.size :])


def record_of(message: object, *args: object, **attributes: object) -> logging.LogRecord:
    record = logging.LogRecord("app", logging.INFO, "/src/app.py", 7, message, args, None, "f")
    vars(record).update(attributes)
    return record


def test_a_record_arrives_with_its_level_time_module_line_and_thread() -> None:
    record = record_of("%d of %s", 3, "x")
    record.created = 1234.5
    log = forwarded(record)
    assert log == Log(
        level=logging.INFO,
        logger="app",
        message="3 of x",
        created=1234.5,
        path="/src/app.py",
        line=7,
        function="f",
        thread=threading.current_thread().name,
    )


def test_an_exception_and_a_stack_arrive_as_text() -> None:
    try:
        raise KeyError("missing")
    except KeyError:
        raised = sys.exc_info()
    log = forwarded(record_of("failed", exc_info=raised, stack_info="Stack:\n  here"))
    assert log.exception is not None
    assert log.exception.startswith("Traceback (most recent call last):")
    assert log.exception.endswith("KeyError: 'missing'\nStack:\n  here")


def test_a_record_keeps_its_arguments_and_exception_for_other_handlers() -> None:
    record = record_of("%s", "x", exc_info=(ValueError, ValueError("v"), None))
    before = dict(vars(record))
    forwarded(record)
    assert vars(record) == before


class Raises:
    def __repr__(self) -> str:
        raise RuntimeError("no repr today")


def test_a_raising_repr_is_told_and_does_not_reach_the_caller() -> None:
    log = forwarded(record_of("value: %r", Raises()))
    assert "could not be formatted (RuntimeError" in log.message
    assert "'value: %r'" in log.message
    assert (log.logger, log.line) == ("app", 7)


def test_wrong_arguments_are_told() -> None:
    assert "could not be formatted (TypeError" in forwarded(record_of("%d", "seven")).message


def test_a_record_full_of_nonsense_is_replaced_by_one_that_says_so() -> None:
    log = forwarded(record_of("x", lineno=object()))
    assert log.message.startswith("a log record was lost: TypeError")


@pytest.mark.parametrize("name", ["pathname", "funcName", "threadName"])
def test_a_name_that_is_no_text_becomes_one(name: str) -> None:
    missing = forwarded(record_of("x", **{name: None}))
    odd = forwarded(record_of("x", **{name: Path("/x")}))
    assert "" in (missing.path, missing.function, missing.thread)
    assert any("Path('/x')" in text for text in (odd.path, odd.function, odd.thread))


def test_a_cancellation_that_strikes_while_a_record_is_formatted_reaches_the_job() -> None:
    class Cancelled:
        def __repr__(self) -> str:
            raise JobCancelled("drain")

    with pytest.raises(JobCancelled):
        forwarded(record_of("%r", Cancelled()))


def test_lone_surrogates_are_escaped() -> None:
    log = forwarded(record_of("file \udc80", path_of_it="\udc80", deep={"\udc81": ["\udc82"]}))
    assert log.message == "file \\udc80"
    assert log.fields == {"path_of_it": "\\udc80", "deep": {"\\udc81": ["\\udc82"]}}


class Name(str):
    __slots__ = ()


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        pytest.param(None, None, id="none"),
        pytest.param(True, True, id="a bool"),
        pytest.param(2**63, 2**63, id="a number of 64 bits"),
        pytest.param(2**64, str(2**64), id="a larger number is text"),
        pytest.param(Colour.RED, 1, id="an enumerated number is a number"),
        pytest.param(Name("n"), "n", id="a subclass of str is text"),
        pytest.param((1, [2.5]), [1, [2.5]], id="a tuple is a list"),
        pytest.param({1: {"a": b"x"}}, {"1": {"a": "b'x'"}}, id="keys are text, bytes are shown"),
        pytest.param([[[[[1]]]]], [[[["<list of 1>"]]]], id="depth is bounded"),
        pytest.param(Raises(), "<Raises whose repr raises RuntimeError>", id="a raising repr"),
        pytest.param([Raises()], ["<Raises whose repr raises RuntimeError>"], id="one inside"),
        pytest.param({Raises(): 1}, {"<Raises whose repr raises RuntimeError>": 1}, id="as key"),
        pytest.param(ValueError, "<class 'ValueError'>", id="a class"),
    ],
)
def test_fields_are_made_plain(value: object, plain: object) -> None:
    assert forwarded(record_of("x", it=value)).fields == {"it": plain}


def test_a_container_that_refers_to_itself_ends() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert forwarded(record_of("x", it=loop)).fields == {"it": [[[["<list of 1>"]]]]}


def test_large_fields_are_bounded_and_say_what_is_missing() -> None:
    log = forwarded(record_of("x", numbers=range(9), many=list(range(10_000)), text="y" * 10**6))
    assert log.fields["numbers"] == "range(0, 9)"
    assert log.fields["many"][-1] == f"… {10_000 - records.MAX_NODES} left out"
    assert len(log.fields["text"]) < records.MAX_FIELD_CHARACTERS + 100


def test_the_fields_of_the_job_are_merged_and_the_call_wins() -> None:
    log = forwarded(record_of("x", user="u2"), {"user": "u1", "tier": "vip"})
    assert log.fields == {"user": "u2", "tier": "vip"}


def test_fields_of_the_job_that_raise_are_told() -> None:
    def fields() -> Mapping[str, object]:
        raise RuntimeError

    log = records.from_logging(record_of("x"), fields)
    assert (log.message, log.fields) == (
        "x",
        {"log_context_fields": "unreadable: RuntimeError"},
    )


@pytest.mark.parametrize("character", ["a", "ä", "€", "😀", "\udc80"])
@pytest.mark.parametrize("limit", [MAX_FRAME_BYTES, SHARED_FRAME_BYTES])
def test_the_largest_record_fits_into_a_frame(character: str, limit: int) -> None:
    huge = character * 300_000
    record = record_of(huge, exc_text=huge, pathname=huge, funcName=huge, threadName=huge, it=huge)
    record.name = huge
    log = records.from_logging(record, dict)
    assert len(records.encoded(log, limit)) <= limit
    assert "characters left out" in log.message
