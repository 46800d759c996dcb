"""What goes wrong before a job is accepted: load_fnc, on_request, nothing warm; and start-up."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor import (
    AgentServer,
    JobRejected,
    JobRequest,
    JobStatus,
    NotAdmitted,
    SupervisorError,
    booking,
)
from tests.children import fails_to_warm, misbehaves
from tests.integration.conftest import soon
from tests.integration.watch import make_server, running, until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What the functions of a test wait for that block: they go on when the test is over."""
    event = threading.Event()
    yield event
    event.set()


# ── load_fnc ─────────────────────────────────────────────────────────────────


class Load:
    """A load function that does what the test says."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer

    def __call__(self) -> Any:
        return self.answer()


def raises() -> float:
    raise RuntimeError("no sensor")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(raises, "load_fnc raised RuntimeError: no sensor", id="raises"),
        pytest.param(lambda: math.nan, "load_fnc returned nan", id="is not a number"),
        pytest.param(lambda: -7.0, "load_fnc returned -7.0", id="is out of range"),
        pytest.param(lambda: None, "load_fnc returned None", id="is nothing"),
        pytest.param(lambda: sys.exit(1), "load_fnc raised", id="exits"),
    ],
)
async def test_without_a_load_the_server_counts_as_full_until_there_is_one(
    answer: Callable[[], Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Load(answer)
    server = make_server(misbehaves.entrypoint, load_fnc=load, load_threshold=0.7)
    async with running(server, tmp_path, monkeypatch) as watch:
        for _ in range(3):
            with pytest.raises(NotAdmitted, match="load_fnc gives no load") as caught:
                await soon(server.submit_job(room="any"))
            assert caught.value.reason == "load"
        assert len(watch.logged("counts as full")) == 1  # and not one for each offer
        assert said in watch.logged("counts as full")[0]
        load.answer = lambda: 0.1
        (handle,) = await soon(server.submit_job(room="any"))
        assert (await soon(handle.wait())).status is JobStatus.SUCCEEDED


async def test_a_load_that_takes_too_long_delays_nobody_and_counts_as_full(
    release: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait() -> float:
        release.wait()
        return 0.1

    server = make_server(misbehaves.entrypoint, load_fnc=wait, load_threshold=0.7)
    async with running(server, tmp_path, monkeypatch) as watch:
        offers = [server.submit_job(room=str(number)) for number in range(5)]
        answers = await soon(asyncio.gather(*offers, return_exceptions=True))
        assert [getattr(answer, "reason", answer) for answer in answers] == ["load"] * 5
        assert "did not answer within 1 s" in watch.logged("counts as full")[0]
        release.set()
        await admits_again(server)


async def admits_again(server: AgentServer) -> None:
    """Return once the server admits a job again, and the job has succeeded."""
    for _ in range(1000):
        try:
            (handle,) = await soon(server.submit_job(room="any"))
        except NotAdmitted:
            await asyncio.sleep(0.01)
        else:
            assert (await soon(handle.wait())).status is JobStatus.SUCCEEDED
            return
    pytest.fail("the server admits nothing any more")


# ── on_request ───────────────────────────────────────────────────────────────


class Answers:
    """An on_request that does for each room what the test wants, and accepts all others."""

    def __init__(self, release: threading.Event) -> None:
        self.release = release

    async def later(self, request: JobRequest) -> None:
        if request.room.name == "raises":
            raise RuntimeError("no such customer")
        if request.room.name == "takes for ever":
            await asyncio.Event().wait()
        if request.room.name != "says nothing":
            await request.accept()

    def blocking(self, request: JobRequest) -> None:
        if request.room.name == "raises":
            raise RuntimeError("no such customer")
        if request.room.name == "takes for ever":
            self.release.wait()
            return
        if request.room.name != "says nothing":
            request.accept()


@pytest.mark.parametrize("kind", ["later", "blocking"], ids=["async", "plain"])
@pytest.mark.parametrize(
    ("room", "said"),
    [
        pytest.param("raises", "on_request raised RuntimeError: no such customer", id="raises"),
        pytest.param("says nothing", "neither accepted nor rejected", id="says nothing"),
        pytest.param("takes for ever", "did not answer within", id="takes for ever"),
    ],
)
async def test_a_request_that_gets_no_answer_is_rejected_and_holds_up_no_other(
    kind: str,
    room: str,
    said: str,
    release: threading.Event,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(booking, "ANSWER_WITHIN", 0.5)
    server = make_server(
        misbehaves.entrypoint, on_request=getattr(Answers(release), kind), num_idle_processes=2
    )
    async with running(server, tmp_path, monkeypatch) as watch:
        bad = asyncio.ensure_future(server.submit_job(room=room))
        if room == "takes for ever":
            await until(lambda: len(server.active_jobs) == 1)  # it is being asked
        (handle,) = await soon(server.submit_job(room="any"))
        assert room != "takes for ever" or not bad.done()
        assert (await soon(handle.wait())).status is JobStatus.SUCCEEDED
        with pytest.raises(JobRejected, match=said):
            await soon(bad)
        assert watch.logged("rejected")
        assert server.active_jobs == []  # its place is free again
        release.set()


# ── nothing is warm ──────────────────────────────────────────────────────────


async def get(port: int, path: str) -> tuple[int, str]:
    """Return status and body of an HTTP request to this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
    head, _, body = (await soon(reader.read())).decode().partition("\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), body


async def test_a_server_whose_setup_keeps_failing_admits_nothing_and_recovers_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = tmp_path / "outage"
    server = make_server(
        misbehaves.entrypoint,
        setup_fnc=fails_to_warm.raises_while_the_file_exists,
        user_arguments=os.fspath(outage),
        port=0,
    )
    async with running(server, tmp_path, monkeypatch) as watch:
        assert server.http_port is not None
        assert (await get(server.http_port, "/readyz"))[0] == 200
        outage.touch()
        # 1. Accepted while one worker was warm: it takes the first, the others wait.
        (first,), *others = [await soon(server.submit_job(room="any")) for _ in range(3)]
        assert (await soon(first.wait())).status is JobStatus.SUCCEEDED
        # 2. Nothing gets warm: those who wait are told why.
        for (handle,) in others:
            outcome = await soon(handle.wait())
            assert (outcome.status, outcome.reason) == (JobStatus.FAILED, "setup")
            assert outcome.error is not None
            assert "no model in the store" in outcome.error.message
            assert "raise LookupError" in outcome.error.traceback
        # 3. Nothing more is admitted, and whoever asks is told.
        with pytest.raises(NotAdmitted, match="no worker is warm and setup keeps failing"):
            await soon(server.submit_job(room="any"))
        assert server.not_ready() == "not ready (no worker is warm and setup keeps failing)"
        assert await get(server.http_port, "/readyz") == (503, f"{server.not_ready()}\n")
        assert (await get(server.http_port, "/healthz"))[0] == 200
        # 4. It recovers by itself.
        outage.unlink()
        await watch.until_idle()
        assert (await get(server.http_port, "/readyz"))[0] == 200
        (again,) = await soon(server.submit_job(room="any"))
        assert (await soon(again.wait())).status is JobStatus.SUCCEEDED


# ── start-up ─────────────────────────────────────────────────────────────────


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def test_a_server_whose_port_is_taken_does_not_start(
    taken_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server(misbehaves.entrypoint, port=taken_port)
    with pytest.raises(SupervisorError, match=f"port {taken_port} on 127.0.0.1 is in use"):
        async with running(server, tmp_path, monkeypatch):
            pytest.fail("the server runs")


async def test_a_server_whose_control_socket_is_taken_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(make_server(misbehaves.entrypoint), tmp_path, monkeypatch):
        second = make_server(misbehaves.entrypoint)
        with pytest.raises(SupervisorError):
            async with running(second, tmp_path, monkeypatch):
                pytest.fail("the second server runs")


def start(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a server by its command line, until it has failed to start."""
    return subprocess.run(
        [sys.executable, "-m", "tests.children.server_that_cannot_start", "start", *arguments],
        cwd=ROOT,
        env={**os.environ, "GREENROOM_SOCKET": os.fspath(tmp_path / "s"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_taken_port_is_one_clear_line_and_exit_status_1(taken_port: int, tmp_path: Path) -> None:
    ended = start(tmp_path, "--port", str(taken_port))
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"greenroom: port {taken_port} on 127.0.0.1 is in use")


def test_a_failing_setup_is_one_clear_line_and_exit_status_1(tmp_path: Path) -> None:
    ended = start(tmp_path, "--port", "none", SETUP_FAILS="1")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "LookupError: no model in the store" in line
    assert "raise LookupError" in ended.stdout  # the traceback is in the log


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--num-idle-processes", "-1"], "num_idle_processes=-1", id="out of range"),
        pytest.param(["--log-level", "LOUD"], "LOUD", id="an unknown log level"),
        pytest.param(["--no-such-option"], "no-such-option", id="an unknown option"),
    ],
)
def test_a_bad_option_is_a_usage_error(arguments: list[str], said: str, tmp_path: Path) -> None:
    ended = start(tmp_path, *arguments)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
