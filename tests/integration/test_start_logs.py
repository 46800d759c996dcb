"""``start``: every line on stdout is JSON, and whatever jobs do, what they logged is all there."""

from __future__ import annotations

import json
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.conftest import wait_until
from tests.integration.program import Program, a_program

pytestmark = pytest.mark.slow

JOBS = 24
LINES = 50

# One job of each kind in turn. All log the same numbered lines; what they do beside
# that must neither lose a line nor break one.
AGENT = """
import asyncio, ctypes, logging, os, subprocess, sys
from loguru import logger as loguru_logger
from supervisor import AgentServer, JobContext, cli

print("printed while importing")
server = AgentServer(num_idle_processes=2, load_threshold=float("inf"), port=None)


def load(_server):
    print("printed by the load function", '{"not": "ours"', sep="\\n")
    os.write(1, b"past Python\\n")
    sys.stdout.buffer.write(b"bytes\\n")
    subprocess.run(["echo", "from a program"])
    return 0.0


server.load_fnc = load
KINDS = ("logs", "loguru", "prints", "errors", "partial", "raises", "crashes", "exits")


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    kind = ctx.job.metadata
    ctx.log_context_fields["kind"] = kind
    for number in range(LINES):
        if kind == "loguru":
            loguru_logger.info("line {}", number)
        else:
            logging.getLogger("agent").info("line %d", number, extra={"number": number})
        if kind == "prints":
            print('{"level": "no record of ours"}', "\\u2028", "\\x00", number)
        elif kind == "errors":
            print("to stderr", number, file=sys.stderr)
        elif kind == "partial":
            os.write(1, b"half a line, ")
            os.write(2, b"\\xff\\xfe not UTF-8 ")
    if kind == "raises":
        raise ValueError("two\\nlines of it")
    if kind == "crashes":
        ctypes.string_at(0)
    if kind == "exits":
        os._exit(3)


if __name__ == "__main__":
    cli.run_app(server)
"""
KINDS = ("logs", "loguru", "prints", "errors", "partial", "raises", "crashes", "exits")


@pytest.fixture
def program() -> Iterator[Program]:
    with a_program() as made:
        made.script.write_text(AGENT.replace("LINES", str(LINES)), encoding="utf-8")
        yield made


def test_under_load_each_line_is_json_and_each_jobs_lines_are_there_in_order(
    program: Program,
) -> None:
    with program.started("start", "--log-level", "debug") as server:
        assert server.stdout is not None
        lines: list[bytes] = []
        serving = threading.Event()

        def read() -> None:
            assert server.stdout is not None
            for line in server.stdout:
                lines.append(line)
                if b"serving as" in line:
                    serving.set()

        errors: list[bytes] = []

        def read_errors() -> None:
            assert server.stderr is not None
            errors.append(server.stderr.read())

        readers = [threading.Thread(target=each) for each in (read, read_errors)]
        for reader in readers:
            reader.start()
        assert serving.wait(60)
        clients = [
            threading.Thread(
                target=program.run,
                args=("submit", "r", "--wait", "--metadata", kind, "--count", str(JOBS // 8)),
            )
            for kind in KINDS
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        server.send_signal(signal.SIGTERM)
        for reader in readers:
            reader.join(60)
        assert server.wait(60) == 0

    records: list[dict[str, Any]] = [json.loads(line) for line in lines[1:]]
    assert lines[0] == b"printed while importing\n", "before the command line had a say"
    told: dict[str, list[str]] = defaultdict(list)
    for record in records:
        assert {"timestamp", "level", "message", "logger", "pid"} <= set(record)
        if record["message"].startswith("line "):
            told[record["job_id"]].append(record["message"])
            assert record["room"] == "r"
            assert record["kind"] in KINDS
            assert record["pid"] != server.pid
            assert record["module"] == "agent", "the worker's, not ours"
    assert len(told) == JOBS
    expected = [f"line {number}" for number in range(LINES)]
    assert all(messages == expected for messages in told.values())
    printed = [each["message"] for each in records if each["logger"] == "greenroom.stdout"]
    assert '{"not": "ours"' in printed
    assert "bytes" in printed
    assert "past Python" not in printed
    assert b"past Python\n" in errors[0]
    assert b"from a program\n" in errors[0]
    ended = [each["message"] for each in records if " ended: " in each["message"]]
    assert len(ended) == JOBS
    assert len([each for each in ended if "SIGSEGV" in each]) == JOBS // 8
    raised = [each for each in records if "failed (ValueError: two" in each["message"]]
    assert len(raised) == JOBS // 8
    for record in raised:
        assert (record["level"], record["logger"]) == ("ERROR", "greenroom.server")
        assert 'raise ValueError("two\\nlines of it")' in record["exception"], "where it raised"
        assert record["exception"].endswith("ValueError: two\nlines of it")


def test_a_reader_that_stops_reading_does_not_stop_the_server(program: Program) -> None:
    with program.started("start") as server:
        assert server.stdout is not None
        while b"serving as" not in server.stdout.readline():
            pass
        # From here on nobody reads. A pipe holds 64 KiB; this is many times that.
        for _ in range(3):
            run = program.run("submit", "r", "--wait", "--metadata", "logs", "--count", "20")
            assert run.returncode == 0
        assert program.run("status").returncode == 0
        server.send_signal(signal.SIGTERM)
        rest = server.stdout.read().splitlines()
        assert server.wait(60) == 0
    assert len([line for line in rest if b'"line ' in line]) == 60 * LINES


def test_a_reader_that_is_gone_does_not_stop_the_server(program: Program) -> None:
    with program.started("start") as server:
        assert server.stdout is not None
        while b"serving as" not in server.stdout.readline():
            pass
        server.stdout.close()
        assert program.run("submit", "r", "--wait", "--metadata", "logs").returncode == 0
        assert program.run("drain").returncode == 0
        assert server.wait(60) == 0
        assert server.stderr is not None
        complaints = [line for line in server.stderr if b"cannot write the log" in line]
        assert len(complaints) == 1


@pytest.mark.parametrize("level", ["debug", "WARNING"])
def test_the_level_holds_for_jobs_and_their_libraries(program: Program, level: str) -> None:
    program.write("one")
    text = program.script.read_text().replace(
        "    print(", "    logging.getLogger('a.library').debug('a library says')\n    print(", 1
    )
    program.script.write_text(f"import logging\n{text}")
    with program.started("start", GREENROOM_LOG_LEVEL=level) as server:
        path = program.directory / "greenroom" / f"{server.pid}.sock"
        wait_until(path.exists)
        assert program.run("submit", "r", "--wait").returncode == 0
        server.send_signal(signal.SIGTERM)
        out, _ = server.communicate(timeout=60)
    levels = {json.loads(line)["level"] for line in out.splitlines()}
    assert (b"a library says" in out) == (level == "debug")
    assert levels <= ({"WARNING", "ERROR"} if level == "WARNING" else {"DEBUG", "INFO", "WARNING"})


def test_a_task_that_swallows_its_cancellation_does_not_keep_the_process(program: Program) -> None:
    text = program.script.read_text().replace(
        "@server.rtc_session()",
        """
async def never_ends(request):
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            pass


@server.rtc_session(on_request=never_ends)""",
    )
    program.script.write_text(text)
    with program.started("start") as server:
        path = program.directory / "greenroom" / f"{server.pid}.sock"
        wait_until(path.exists)
        refused = program.run("submit", "r")
        assert refused.returncode == 1
        assert "on_request did not answer within" in refused.stderr
        server.send_signal(signal.SIGTERM)
        out, _ = server.communicate(timeout=60)
        assert server.returncode == 0
    assert b"left behind, as it does not end when it is cancelled" in out
