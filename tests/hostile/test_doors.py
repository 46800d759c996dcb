"""The two doors, the TCP port and the control socket, and clients that mean no good."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from supervisor import AgentServer, visitors
from supervisor.dispatch import local
from supervisor.dispatch.local import LocalDispatcher
from supervisor.http import HealthServer
from tests.integration import jobs
from tests.integration.conftest import soon
from tests.integration.serving import serving
from tests.supervisor.fakes_host import FakeHost

SECRET = "sesame-4711"


@contextlib.asynccontextmanager
async def health() -> AsyncIterator[int]:
    server = HealthServer(FakeHost(), "127.0.0.1", 0)
    await server.start()
    yield server.port
    await server.close()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """The TCP port of a health server."""
    async with health() as number:
        yield number


@pytest.fixture
async def impatient(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """The same, of one that is short of patience."""
    monkeypatch.setattr(visitors, "HEAD_SECONDS", 0.3)
    async with health() as number:
        yield number


@pytest.fixture
async def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The path of a control socket whose server is short of patience."""
    monkeypatch.setattr(local, "HEAD_TIMEOUT", 0.3)
    monkeypatch.setattr(local, "BODY_TIMEOUT", 0.3)
    dispatcher = LocalDispatcher(os.fspath(tmp_path / "door" / "s"))
    await dispatcher.start(FakeHost())
    yield str(dispatcher.path)
    await dispatcher.close()


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(door: int | str) -> Streams:
    if isinstance(door, int):
        return await asyncio.open_connection("127.0.0.1", door)
    return await asyncio.open_unix_connection(door)


async def ask(door: int | str, head: str, body: bytes = b"") -> str:
    """Send a request and return all that comes until the server closes."""
    reader, writer = await connect(door)
    writer.write(head.replace("\n", "\r\n").encode() + b"Connection: close\r\n\r\n" + body)
    answer = (await soon(reader.read())).decode()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"]
)
@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/readyz", "/worker", "/metrics", "/jobs", "/drain"]
)
async def test_the_port_only_reads(port: int, method: str, path: str) -> None:
    answer = await ask(port, f"{method} {path} HTTP/1.1\nHost: localhost\n")
    assert answer.split()[1] in ("400", "404", "405"), answer


@pytest.mark.parametrize("path", ["/jobs", "/jobs/J-1", "/status", "/drain", "/../status"])
async def test_the_port_knows_nothing_of_the_control_socket(port: int, path: str) -> None:
    answer = await ask(port, f"GET {path} HTTP/1.1\nHost: localhost\n")
    assert answer.split()[1] in ("400", "404"), answer


async def test_a_name_that_was_rebound_is_not_answered(port: int) -> None:
    answer = await ask(port, "GET /worker HTTP/1.1\nHost: evil.example\n")
    assert answer.startswith("HTTP/1.1 421 ")
    assert "AW-fake" not in answer


async def test_a_page_of_another_origin_gets_nothing_and_no_leave_to_read(port: int) -> None:
    refused = await ask(
        port, "GET /worker HTTP/1.1\nHost: localhost\nOrigin: http://evil.example\n"
    )
    answered = await ask(port, "GET /worker HTTP/1.1\nHost: localhost\n")
    assert refused.startswith("HTTP/1.1 403 ")
    assert answered.startswith("HTTP/1.1 200 ")
    for answer in (refused, answered):
        assert "access-control-allow" not in answer.lower()
        assert "Cross-Origin-Resource-Policy: same-origin" in answer


@pytest.mark.parametrize("door", ["port", "control"])
@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET", id="half a word"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", id="half a head"),
    ],
)
async def test_a_client_that_sends_no_whole_head_is_shown_out(
    door: str, said: bytes, request: pytest.FixtureRequest, impatient: int, control: str
) -> None:
    reader, writer = await connect(impatient if door == "port" else control)
    writer.write(said)
    assert await soon(reader.read(), 10) == b""
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_sends_its_head_byte_by_byte_gets_no_more_time(impatient: int) -> None:
    reader, writer = await connect(impatient)
    writer.write(b"GET / HTTP/1.1\r\nX: ")

    async def drip() -> None:
        while not writer.is_closing():
            writer.write(b"y")
            await asyncio.sleep(0.02)

    dripping = asyncio.ensure_future(drip())
    try:
        assert await soon(reader.read(), 10) == b""
    except ConnectionResetError:
        pass  # a byte was on its way when the door was shut: that too is an end
    dripping.cancel()
    await asyncio.wait({dripping})
    writer.close()
    await asyncio.wait({asyncio.ensure_future(writer.wait_closed())})


async def test_slow_clients_hold_up_nobody(port: int) -> None:
    slow = [await connect(port) for _ in range(50)]
    for _, writer in slow:
        writer.write(b"GET / HTTP/1.1\r\nX: ")
    assert (await ask(port, "GET /healthz HTTP/1.1\nHost: localhost\n")).endswith("ok\n")
    for _, writer in slow:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("door", ["port", "control"])
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", id="a long path"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", id="a long header"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n", id="many headers"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 30, id="TLS"),
        pytest.param(b"\0" * 5000, id="zeros"),
    ],
)
async def test_a_head_that_is_too_large_or_none_is_refused(
    door: str, head: bytes, port: int, control: str
) -> None:
    reader, writer = await connect(port if door == "port" else control)
    writer.write(head)
    answer = await soon(reader.read(), 10)
    assert answer == b"" or answer.split()[1] in (b"400", b"431"), answer
    writer.close()
    await asyncio.wait({asyncio.ensure_future(writer.wait_closed())})


async def test_a_body_on_the_port_is_not_waited_for(port: int) -> None:
    reader, writer = await connect(port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
    assert (await soon(reader.read(), 10)).endswith(b"ok\n")
    writer.close()
    await writer.wait_closed()


async def test_the_socket_and_its_directory_are_this_users_alone(control: str) -> None:
    assert stat.S_IMODE(os.stat(control).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(control)).st_mode) == 0o700


# ── secrets ──────────────────────────────────────────────────────────────────


@pytest.mark.slow
async def test_no_secret_is_in_what_a_server_shows(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("DEBUG", logger="greenroom")
    monkeypatch.setenv("LIVEKIT_API_SECRET", SECRET)
    options: dict[str, Any] = {"api_key": SECRET, "api_secret": SECRET}
    options["http_proxy"] = f"http://user:{SECRET}@proxy.example:3128"
    async with serving(jobs.identity, port=0, **options) as server:
        (handle,) = await server.submit_job(room="studio")
        await soon(handle.wait())
        assert server.http_port is not None
        pages = [
            await ask(server.http_port, f"GET {path} HTTP/1.1\nHost: localhost\n")
            for path in ("/", "/readyz", "/worker", "/metrics")
        ]
        shown = [*pages, repr(server), repr(server.options), str(server.status()), caplog.text]
        # What is anybody's to see; the environment of our own process is not.
        processes = [os.getpid(), *(worker.pid for worker in _workers(server) if worker.pid)]
        forkserver = server.status()["forkserver_pid"]
        everybody = [*processes, forkserver]
        shown += [_told(pid, "cmdline") for pid in everybody]
        shown += [_told(pid, "environ") for pid in everybody[1:]]
        assert _told(forkserver, "cmdline")
    shown += [repr(handle), repr(handle.outcome), caplog.text]
    assert not [text for text in shown if SECRET in text]


def _told(pid: int, what: str) -> str:
    """Return what /proc shows of a process; nothing of a worker that has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/{what}").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _workers(server: AgentServer) -> list[Any]:
    assert server._serving is not None
    return list(server._serving.workers.all)


def test_no_error_about_a_secret_shows_it() -> None:
    for name in ("api_key", "api_secret"):
        with pytest.raises(Exception, match=name) as caught:
            AgentServer(**{name: SECRET.encode()})
        assert SECRET not in str(caught.value)
        assert SECRET not in repr(caught.value)
