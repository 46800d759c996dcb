"""A worker's records and lines, emitted again in the supervisor."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from ipc import fds
from ipc.errors import ProtocolError
from ipc.frames import encode_frame
from ipc.messages import Log, Ping, encode
from supervisor import turns
from supervisor.logs import MAX_LINE_BYTES, LogReader, OutputReader, nearest_logger
from supervisor.turns import READ_BYTES, TURN_ITEMS, _bytes_waiting

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0

CONTEXT: Mapping[str, object] = {"pid": 4711, "job_id": "J-1", "room": "lobby"}


class Collector(logging.Handler):
    """Keeps what reaches the root logger from the loggers that a test uses."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.on_record: Callable[[logging.LogRecord], None] = lambda record: None
        self._changed = asyncio.Event()

    def handle(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "greenroom"):
            return False  # asyncio's own
        self.records.append(record)
        self._changed.set()
        self.on_record(record)
        return True

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]

    async def wait_count(self, count: int) -> None:
        async def reached() -> None:
            while len(self.records) < count:
                self._changed.clear()
                await self._changed.wait()

        await asyncio.wait_for(reached(), PATIENCE)


@pytest.fixture
def collector() -> Iterator[Collector]:
    root = logging.getLogger()
    before = root.level
    handler = Collector()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(before)


class Wire:
    """A LogReader and the worker's end of its socket."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.errors: list[ProtocolError] = []
        self.reader = LogReader(
            asyncio.get_running_loop(),
            self.near,
            context=lambda: CONTEXT,
            on_error=self.errors.append,
        )

    def send(self, *logs: Log) -> None:
        self.far.sendall(b"".join(encode_frame(encode(log)) for log in logs))

    def close(self) -> None:
        self.reader.close()
        self.far.close()


def log_of(message: str = "hello", **changes: object) -> Log:
    values: dict[str, object] = {
        "level": logging.INFO,
        "logger": "app",
        "message": message,
        "created": 1700000000.25,
        "path": "/src/pkg/mod.py",
        "line": 12,
        "function": "work",
        "thread": "T-1",
        **changes,
    }
    return Log(**values)  # type: ignore[arg-type]  # a table of values


def start(
    program: str, *, pass_fds: Sequence[int] = (), stdout: int | None = None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", program], pass_fds=pass_fds, stdout=stdout, cwd=ROOT
    )


async def next_turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# ── records ──────────────────────────────────────────────────────────────────


async def test_a_record_keeps_what_the_worker_said_of_it(collector: Collector) -> None:
    with closing(Wire()) as wire:
        wire.send(log_of("100 %s", exception="Traceback: x", fields={"user": "u"}))
        await collector.wait_count(1)
    (record,) = collector.records
    assert record.getMessage() == "100 %s"
    assert (record.name, record.levelno, record.levelname) == ("app", 20, "INFO")
    assert (record.created, record.msecs) == (1700000000.25, 250.0)
    assert (record.pathname, record.filename, record.module) == ("/src/pkg/mod.py", "mod.py", "mod")
    assert (record.lineno, record.funcName, record.threadName) == (12, "work", "T-1")
    assert (record.process, record.processName) == (4711, "worker-4711")
    assert record.exc_text == "Traceback: x"
    assert vars(record)["greenroom"] == {**CONTEXT, "user": "u"}
    assert logging.Formatter("%(message)s").format(record) == "100 %s\nTraceback: x"


async def test_a_worker_cannot_pass_for_another(collector: Collector) -> None:
    with closing(Wire()) as wire:
        wire.send(log_of(fields={"pid": 1, "job_id": "J-2"}))
        await collector.wait_count(1)
    assert vars(collector.records[0])["greenroom"] == dict(CONTEXT)


@pytest.mark.parametrize(
    ("there", "here"),
    [
        pytest.param("root", "greenroom.job", id="the root logger is the job's"),
        pytest.param("", "greenroom.job", id="so is none"),
        pytest.param("__mp_main__", "__main__", id="the main script has its own name again"),
        pytest.param("greenroom", "greenroom", id="every other name is kept"),
    ],
)
async def test_names_of_loggers(collector: Collector, there: str, here: str) -> None:
    with closing(Wire()) as wire:
        wire.send(log_of(logger=there))
        await collector.wait_count(1)
    assert collector.records[0].name == here


async def test_the_level_of_the_logger_of_that_name_counts(collector: Collector) -> None:
    logging.getLogger("test_logs.quiet").setLevel(logging.ERROR)
    with closing(Wire()) as wire:
        wire.send(
            log_of("1", logger="test_logs.quiet"),
            log_of("2", logger="test_logs.quiet.below"),
            log_of("3", logger="test_logs.quiet", level=logging.ERROR),
            log_of("4", logger="test_logs.other"),
        )
        await collector.wait_count(2)
    assert collector.messages == ["3", "4"]


async def test_names_that_a_job_makes_up_leave_nothing_behind(collector: Collector) -> None:
    known = len(logging.Logger.manager.loggerDict)
    with closing(Wire()) as wire:
        wire.send(*(log_of(logger=f"test_logs.session.{i}") for i in range(50)))
        await collector.wait_count(50)
    assert collector.records[49].name == "test_logs.session.49"
    assert len(logging.Logger.manager.loggerDict) == known


def test_the_nearest_logger_is_the_one_that_exists() -> None:
    above = logging.getLogger("test_logs.near")
    logging.getLogger("test_logs.near.gap.below")
    assert nearest_logger("test_logs.near.gap") is above
    assert nearest_logger("test_logs_unknown.x") is logging.getLogger()


@pytest.mark.parametrize("created", [-1.0, 1e300, float("nan"), float("inf")])
async def test_a_time_that_nobody_can_print_is_replaced(
    collector: Collector, created: float
) -> None:
    with closing(Wire()) as wire:
        wire.send(log_of(created=created))
        await collector.wait_count(1)
    assert logging.Formatter("%(asctime)s").format(collector.records[0])


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 7, 1000])
async def test_frames_may_come_in_pieces(collector: Collector, cut: int) -> None:
    data = b"".join(encode_frame(encode(log_of(str(i)))) for i in range(3))
    with closing(Wire()) as wire:
        for begin in range(0, len(data), cut):
            wire.far.sendall(data[begin : begin + cut])
            await next_turns(2)
        await collector.wait_count(3)
    assert collector.messages == ["0", "1", "2"]


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\xff" * 64, id="no frame at all"),
        pytest.param(encode_frame(encode(Ping(1))), id="another message"),
        pytest.param(encode_frame(b"\x00"), id="no message"),
        pytest.param(encode_frame(encode(log_of()), 1), id="descriptors announced"),
        pytest.param(encode_frame(encode(log_of(line="x"))), id="a wrong type"),
    ],
)
async def test_garbage_is_told_once_and_ends_the_reading(
    collector: Collector, garbage: bytes
) -> None:
    with closing(Wire()) as wire:
        wire.send(log_of("before"))
        wire.far.sendall(garbage)
        wire.send(log_of("after"))
        await next_turns()
        wire.reader.drain()
        assert [type(error) for error in wire.errors] == [ProtocolError]
    assert collector.messages == ["before"]


async def test_a_worker_killed_in_the_middle_of_a_record_is_no_error(
    collector: Collector,
) -> None:
    with closing(Wire()) as wire:
        wire.send(log_of("whole"))
        wire.far.sendall(encode_frame(encode(log_of("half")))[:-1])
        wire.far.close()
        await next_turns()
        wire.reader.drain()
        assert wire.errors == []
    assert collector.messages == ["whole"]


async def test_descriptors_that_a_worker_passes_are_dropped(collector: Collector) -> None:
    with closing(Wire()) as wire:
        before = len(os.listdir("/proc/self/fd"))
        frame = encode_frame(encode(log_of()))
        try:
            fds.send_with_descriptors(wire.far, frame, [0, 0, 0])
        except PermissionError:  # since Linux 6.16 the kernel does not even carry them
            wire.far.send(frame)
        await collector.wait_count(1)
        assert len(os.listdir("/proc/self/fd")) == before


async def test_a_handler_that_raises_loses_its_record_and_no_other(collector: Collector) -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: told.append(context["exception"])
    )

    def fail(record: logging.LogRecord) -> None:
        raise RuntimeError(record.getMessage())

    collector.on_record = fail
    with closing(Wire()) as wire:
        wire.send(log_of("1"), log_of("2"))
        await collector.wait_count(2)
    assert [str(exc) for exc in told] == ["1"]


# ── a flood ──────────────────────────────────────────────────────────────────

FLOOD = """
import logging, socket
from supervisor.child import logs
forwarder = logs.install("INFO")
forwarder.connect(socket.socket(fileno={fd}), dict)
for i in range(10_000):
    logging.info("line %d", i)
"""


@pytest.mark.parametrize(
    ("seconds", "most"),
    [
        pytest.param(PATIENCE, TURN_ITEMS, id="so many a turn where handlers are fast"),
        pytest.param(0.0, 1, id="one a turn where each takes all the time of a turn"),
    ],
)
async def test_a_real_flood_arrives_in_order_and_leaves_the_loop_its_turns(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, seconds: float, most: int
) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", seconds)
    loop = asyncio.get_running_loop()
    counts = {"turn": 0, "in this turn": 0, "most": 0}

    def turn() -> None:
        counts["turn"] += 1
        counts["in this turn"] = 0
        loop.call_soon(turn)

    def count(record: logging.LogRecord) -> None:
        counts["in this turn"] += 1
        counts["most"] = max(counts["most"], counts["in this turn"])

    collector.on_record = count
    turn()
    with closing(Wire()) as wire:
        child = start(FLOOD.format(fd=wire.far.fileno()), pass_fds=[wire.far.fileno()])
        await collector.wait_count(10_000)
        assert child.wait(PATIENCE) == 0
        assert wire.errors == []
    assert collector.messages == [f"line {i}" for i in range(10_000)]
    assert counts["most"] == most


async def test_nothing_is_read_while_records_wait(collector: Collector) -> None:
    # One read holds over a hundred records; emitting them takes several turns.
    # Meanwhile the socket must keep what it has, or a flood would move into
    # this process's memory.
    size = len(encode_frame(encode(log_of("0000" + "x" * 300))))
    held: list[int] = []
    with closing(Wire()) as wire:
        wire.far.setblocking(False)
        sent = 0
        try:
            while True:
                wire.send(log_of(f"{sent:04}" + "x" * 300))
                sent += 1
        except BlockingIOError:
            pass

        def measure(record: logging.LogRecord) -> None:
            read = sent * size - _bytes_waiting(wire.near.fileno())
            held.append(read - len(collector.records) * size)

        collector.on_record = measure
        await collector.wait_count(sent)
    assert sent * size > READ_BYTES
    assert max(held) <= READ_BYTES


# ── the end ──────────────────────────────────────────────────────────────────


async def test_what_waits_for_its_turn_is_drained_as_well(collector: Collector) -> None:
    count = TURN_ITEMS + 10
    with closing(Wire()) as wire:
        # All of it is read at once, and nothing is left to read when the rest has to wait.
        wire.send(*(log_of(str(number)) for number in range(count)))
        while not collector.records:
            await next_turns(1)
        assert len(collector.records) < count
        assert _bytes_waiting(wire.near.fileno()) == 0
        wire.reader.drain()
        assert collector.messages == [str(number) for number in range(count)]


async def test_drain_hands_on_all_that_is_there_at_once(collector: Collector) -> None:
    with closing(Wire()) as wire:
        wire.send(*(log_of(str(i)) for i in range(200)))
        wire.far.close()
        wire.reader.drain()
        assert collector.messages == [str(i) for i in range(200)]
        wire.reader.close()
        wire.reader.close()
        wire.reader.drain()


async def test_drain_begins_with_what_was_read_already(collector: Collector) -> None:
    with closing(Wire()) as wire:
        wire.send(*(log_of(str(i)) for i in range(150)))
        await collector.wait_count(1)
        wire.send(log_of("150"))
        wire.reader.drain()
    assert collector.messages == [str(i) for i in range(151)]


async def test_a_grandchild_that_goes_on_writing_does_not_make_drain_endless(
    collector: Collector,
) -> None:
    with closing(Wire()) as wire:
        # It writes a record for each that is read: the socket is never empty.
        collector.on_record = lambda record: wire.send(log_of("more"))
        wire.send(log_of("1"), log_of("2"))
        wire.reader.drain()
        assert collector.messages == ["1", "2"]


async def test_closing_in_the_middle_of_a_turn_stops_it(collector: Collector) -> None:
    with closing(Wire()) as wire:
        collector.on_record = lambda record: wire.reader.close()
        wire.send(log_of("1"), log_of("2"))
        await next_turns()
    assert collector.messages == ["1"]


# ── output ───────────────────────────────────────────────────────────────────


class Pipe:
    """An OutputReader and the worker's end of its pipe."""

    def __init__(self, stream: str = "stdout") -> None:
        near, self.far = os.pipe()
        self.reader = OutputReader(
            asyncio.get_running_loop(), near, stream, context=lambda: CONTEXT
        )

    def end(self) -> None:
        os.close(self.far)
        self.far = -1

    def close(self) -> None:
        self.reader.close()
        if self.far >= 0:
            self.end()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_each_line_is_a_record(collector: Collector, stream: str) -> None:
    with closing(Pipe(stream)) as pipe:
        os.write(pipe.far, b"one\r\n\nthree\n")
        await collector.wait_count(3)
    assert collector.messages == ["one", "", "three"]
    record = collector.records[0]
    assert (record.name, record.levelno) == (f"greenroom.{stream}", logging.INFO)
    assert (record.process, vars(record)["greenroom"]) == (4711, dict(CONTEXT))


@pytest.mark.parametrize("cut", [1, 2, 3, 5])
async def test_a_character_may_come_in_pieces(collector: Collector, cut: int) -> None:
    data = "ä€😀\nz\n".encode()
    with closing(Pipe()) as pipe:
        for begin in range(0, len(data), cut):
            os.write(pipe.far, data[begin : begin + cut])
            await next_turns(2)
        await collector.wait_count(2)
    assert collector.messages == ["ä€😀", "z"]


async def test_what_is_not_utf8_is_replaced(collector: Collector) -> None:
    with closing(Pipe()) as pipe:
        os.write(pipe.far, b"a\xff\xc3\nb\n")
        await collector.wait_count(2)
    assert collector.messages == ["a\ufffd\ufffd", "b"]


@pytest.mark.parametrize("character", ["a", "ä", "€", "😀"])
async def test_a_huge_line_comes_in_pieces_of_whole_characters(
    collector: Collector, character: str
) -> None:
    # One byte first, so that the limit falls into the middle of a character.
    text = "x" + character * (20_000 // len(character.encode()))
    with closing(Pipe()) as pipe:
        data = memoryview(f"{text}\nnext\n".encode())
        os.set_blocking(pipe.far, False)
        while data:
            try:
                data = data[os.write(pipe.far, data) :]
            except BlockingIOError:
                await next_turns()
        await collector.wait_count(4)
    assert "".join(collector.messages) == text + "next"
    assert all(len(message.encode()) <= MAX_LINE_BYTES for message in collector.messages)


async def test_a_line_without_an_end_comes_with_the_end_of_the_stream(
    collector: Collector,
) -> None:
    with closing(Pipe()) as pipe:
        os.write(pipe.far, b"no newline")
        await next_turns()
        assert collector.messages == []
        pipe.end()
        await collector.wait_count(1)
        pipe.reader.drain()
    assert collector.messages == ["no newline"]


async def test_a_line_without_an_end_comes_when_drained(collector: Collector) -> None:
    with closing(Pipe()) as pipe:
        os.write(pipe.far, b"whole\npart")
        pipe.reader.drain()
        assert collector.messages == ["whole", "part"]
        os.write(pipe.far, b"of the next job\n")
        await collector.wait_count(3)
    assert collector.messages[2] == "of the next job"


async def test_a_print_flood_of_a_real_process_arrives_in_order(collector: Collector) -> None:
    with closing(Pipe()) as pipe:
        child = start("for i in range(10_000): print('line', i)", stdout=pipe.far)
        pipe.end()
        await collector.wait_count(10_000)
        assert child.wait(PATIENCE) == 0
    assert collector.messages == [f"line {i}" for i in range(10_000)]


async def test_output_is_dropped_where_its_logger_is_off(collector: Collector) -> None:
    logger = logging.getLogger("greenroom.stdout")
    logger.setLevel(logging.WARNING)
    try:
        with closing(Pipe()) as pipe:
            os.write(pipe.far, b"one\n")
            pipe.reader.drain()
    finally:
        logger.setLevel(logging.NOTSET)
    assert collector.messages == []


async def test_closing_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with closing(Pipe()), closing(Wire()):
        assert len(os.listdir("/proc/self/fd")) == before + 4
    assert len(os.listdir("/proc/self/fd")) == before
