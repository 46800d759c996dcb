"""What a worker logs and prints: it can neither forge, nor flood, nor break the log."""

from __future__ import annotations

import io
import json
import logging
import os
import time
from typing import Any

import msgspec
import pytest
from loguru import logger as loguru_logger

from ipc.messages import Log, encode
from supervisor.cli.logging import configure_logging
from supervisor.logs import OutputReader
from tests.hostile.stage import Stage, SteppedLoop

PLAIN = Log(20, "app", "hello", 1.7e9, "/src/app.py", 12, "run", "MainThread")

FORGED = '\n2026-01-01T00:00:00Z {"level":"ERROR","message":"forged"}\n12:00:00.000 ERROR forged'
ESCAPES = "\x1b[2J\x1b]0;title\x07\x9b31m\x7f\r\x08\u202eevil\u2066"


def log(**changes: Any) -> bytes:
    return encode(msgspec.structs.replace(PLAIN, **changes))


def test_a_level_of_its_own_for_each_record_leaves_nothing_behind(stage: Stage) -> None:
    child, _ = stage.running()
    root = logging.getLogger()
    for number in range(500):
        child.logs_frame(log(logger="", level=10**6 + number))
        child.logs_frame(log(logger="", level=-number))
    known = logging.getLogger("greenroom.job")
    assert len(getattr(known, "_cache", ())) + len(getattr(root, "_cache", ())) < 220


@pytest.mark.parametrize("level", [-(2**63), -1, 0, 1, 25, 51, 2**31, 2**63 - 1])
def test_a_record_of_any_level_is_logged_or_left_out_and_raises_nothing(
    stage: Stage, level: int
) -> None:
    out = io.StringIO()
    with _configured(out, readable=False):
        child, _ = stage.running()
        child.logs_frame(log(level=level, message="of that level"))
    for line in out.getvalue().splitlines():
        json.loads(line)
    assert ("of that level" in out.getvalue()) == (level >= 10)


def test_a_name_of_half_a_million_parts_takes_no_time(stage: Stage) -> None:
    child, _ = stage.running()
    began = time.perf_counter()
    payload = log(logger="a." * 400_000)
    child.logs.setblocking(True)
    sent = memoryview(len(payload).to_bytes(4, "big") + b"\0" + payload)
    while sent:
        sent = sent[child.logs.send(sent[:100_000]) :]
        stage.loop.turn(20)
    assert time.perf_counter() - began < 10.0, "it was half a minute when the name was searched"


def test_a_worker_cannot_log_in_another_jobs_name(
    stage: Stage, records: list[logging.LogRecord]
) -> None:
    child = stage.child
    child.born()
    child.logs_frame(log(message="mine", fields={"job_id": "J-other", "pid": 1, "own": 1}))
    (record,) = (each for each in records if each.getMessage() == "mine")
    said: dict[str, Any] = record.greenroom  # type: ignore[attr-defined]  # ours
    assert said == {"own": 1, "pid": child.pid}
    assert record.process == child.pid


def test_a_record_is_a_record_whatever_its_texts_hold(
    stage: Stage, records: list[logging.LogRecord]
) -> None:
    child, _ = stage.running()
    before = len(records)
    texts = ("%s %d %(a)s", "{0} {x}", "\0", "<red>x</red>", FORGED, ESCAPES, "x" * 10_000)
    for text in texts:
        child.logs_frame(log(message=text, path=text, function=text, thread=text, exception=text))
        stage.loop.turn(40)
    assert [each.getMessage() for each in records[before:]] == list(texts)
    assert not stage.errors


class _configured:
    """The command line's logging for a block, and what was there before afterwards."""

    def __init__(self, out: io.StringIO, *, readable: bool) -> None:
        self._out, self._readable = out, readable

    def __enter__(self) -> None:
        root = logging.getLogger()
        self._before = root.handlers[:], root.level
        configure_logging("DEBUG", readable=self._readable, stream=self._out)

    def __exit__(self, *_: object) -> None:
        loguru_logger.remove()
        logging.captureWarnings(False)
        root = logging.getLogger()
        root.handlers, root.level = self._before
        root.setLevel(self._before[1])


@pytest.mark.parametrize(
    "text", [FORGED, ESCAPES, "\u2028\u2029\x85"], ids=["lines", "escapes", "separators"]
)
def test_json_logs_have_one_line_for_each_record_and_no_control_characters(
    loop: SteppedLoop, text: str
) -> None:
    out = io.StringIO()
    with _configured(out, readable=False):
        stage = Stage(loop)
        child, _ = stage.running()
        before = len(out.getvalue().splitlines())
        child.logs_frame(log(message=text, logger=text, exception=text, fields={text: text}))
        lines = out.getvalue().splitlines()[before:]
        assert len(lines) == 1
        assert lines[0].isprintable()
        told = json.loads(lines[0])
        assert (told["message"], told["exception"], told[text]) == (text, text, text)
        stage.finish()


@pytest.mark.parametrize("text", [FORGED, ESCAPES], ids=["lines", "escapes"])
def test_readable_logs_show_no_line_that_a_worker_made_up_and_no_escape_of_its_own(
    loop: SteppedLoop, text: str
) -> None:
    out = io.StringIO()
    with _configured(out, readable=True):
        stage = Stage(loop)
        child, _ = stage.running()
        before = len(out.getvalue())
        child.logs_frame(log(message=text, logger=text, exception=text, fields={text: text}))
        shown = out.getvalue()[before:]
        first, *others = shown.removesuffix("\n").split("\n")
        assert first[:2].isdigit()
        assert all(line.startswith("    ") for line in others)
        assert all(line.isprintable() for line in [first, *others])
        stage.finish()


def test_what_is_printed_is_text_whatever_its_bytes(
    loop: SteppedLoop, records: list[logging.LogRecord]
) -> None:
    reader, writer = os.pipe()
    output = OutputReader(loop, reader, "stdout", context=lambda: {"pid": 1})
    os.set_blocking(writer, False)  # the pipe is a small one
    data = b"\xff\xfe\xed\xa0\x80 not UTF-8\n\0\n" + b"x" * 30_000 + b"\n"
    while data:
        data = data[os.write(writer, data) :]
        loop.turn(10)
    os.close(writer)
    output.drain()
    output.close()
    assert "not UTF-8" in records[0].getMessage()
    assert records[0].getMessage().encode(), "it can be written"
    assert max(len(each.getMessage()) for each in records) <= 8 * 1024
