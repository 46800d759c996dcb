"""dispatch/local.py: real HTTP over real unix sockets, to a host that is a fake."""

# ruff: noqa: ASYNC240 - making files may block here: nobody else runs on this loop

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ipc.errors import PayloadTooLarge
from supervisor.dispatch import local, sockets, wire
from supervisor.dispatch.base import Dispatcher
from supervisor.dispatch.local import LocalDispatcher
from supervisor.errors import PoolClosed, SupervisorError
from supervisor.job import JobError, JobInfo, JobStatus, ServerType
from tests.supervisor.fakes_host import FakeHost

Reply = tuple[int, dict[str, Any]]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
NOBODY = 65534


@pytest.fixture
def directory() -> Iterator[Path]:
    # Not tmp_path: a path to a unix socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="gr-") as name:
        yield Path(name)


@pytest.fixture
async def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
async def dispatcher(host: FakeHost, directory: Path) -> AsyncIterator[LocalDispatcher]:
    dispatcher = LocalDispatcher(str(directory / "control.sock"))
    await dispatcher.start(host)
    yield dispatcher
    await dispatcher.close()


async def ask(
    dispatcher: LocalDispatcher,
    method: str,
    path: str,
    body: object = None,
    *,
    data: bytes | None = None,
) -> Reply:
    status, answer, _ = await ask_all(dispatcher, method, path, body, data=data)
    return status, answer


async def ask_all(
    dispatcher: LocalDispatcher,
    method: str,
    path: str,
    body: object = None,
    *,
    data: bytes | None = None,
) -> tuple[int, dict[str, Any], dict[str, str]]:
    if body is not None:
        data = json.dumps(body).encode()
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(dispatcher.path))) as session,
        session.request(method, f"http://greenroom{path}", data=data and BytesIO(data)) as response,
    ):
        assert response.content_type == "application/json"
        return response.status, await response.json(), dict(response.headers)


async def submit(dispatcher: LocalDispatcher, **body: object) -> Reply:
    return await ask(dispatcher, "POST", "/jobs", {"room": "r", **body})


# ── a job's life ─────────────────────────────────────────────────────────────


async def test_a_job_from_request_to_outcome(dispatcher: LocalDispatcher, host: FakeHost) -> None:
    status, answer = await submit(dispatcher, metadata="m", agent_name="a", job_id="J-1")
    running = {
        "id": "J-1", "status": "running", "pid": 4711, "room": "r", "agent_name": "a",
        "metadata": "m", "outcome": None,
    }  # fmt: skip
    assert (status, answer) == (202, {"jobs": [running]})
    assert await ask(dispatcher, "GET", "/jobs/J-1") == (200, running)
    assert host.handles["J-1"].info.accept_arguments.identity == "agent-J-1"

    host.end("J-1", JobStatus.FAILED, JobError("ValueError", "no", "Traceback …"))
    status, job = await ask(dispatcher, "GET", "/jobs/J-1")
    assert (status, job["status"]) == (200, "failed")
    assert job["outcome"]["error"] == "ValueError: no"
    assert job["outcome"]["traceback"] == "Traceback …"
    assert await ask(dispatcher, "GET", "/jobs") == (200, {"jobs": [job]})


async def test_room_and_publishers_may_be_records(directory: Path) -> None:
    host = FakeHost(type=ServerType.PUBLISHER)
    dispatcher = LocalDispatcher(str(directory / "s"))
    await dispatcher.start(host)
    status, answer = await submit(
        dispatcher,
        room={"name": "r", "sid": "RM", "metadata": "rm"},
        publishers=["ann", {"identity": "bob", "attributes": {"k": "v"}}],
        job_id="J",
    )
    assert status == 202
    assert [(job["id"], job["publisher"]) for job in answer["jobs"]] == [
        ("J-0", "ann"),
        ("J-1", "bob"),
    ]
    info = host.handles["J-1"].info
    assert (info.room.sid, info.room.metadata) == ("RM", "rm")
    assert info.publisher is not None
    assert info.publisher.attributes == {"k": "v"}
    await dispatcher.close()


async def test_several_publishers_are_all_or_nothing(directory: Path) -> None:
    host = FakeHost(type=ServerType.PUBLISHER, max_jobs=2)
    dispatcher = LocalDispatcher(str(directory / "s"))
    await dispatcher.start(host)
    status, answer = await submit(dispatcher, publishers=["a", "b", "c"], job_id="J")
    assert (status, answer["reason"]) == (503, "max_jobs")
    assert host.given_back == ["J-0", "J-1"]
    assert not host.active_jobs
    assert (await submit(dispatcher, publishers=["a", "b"], job_id="J"))[0] == 202
    await dispatcher.close()


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (PayloadTooLarge("the job", 2, 1, "raise max_payload_mb"), 413, "raise max_payload_mb"),
        (PoolClosed("the pool is closed"), 503, "the pool is closed"),
    ],
    ids=["too large", "closed"],
)
async def test_a_job_that_was_accepted_and_cannot_be_started_is_told_with_the_reason(
    dispatcher: LocalDispatcher, host: FakeHost, error: Exception, status: int, sentence: str
) -> None:
    host.failure = error
    said, answer = await submit(dispatcher, job_id="J-1")
    assert said == status
    assert sentence in answer["error"]
    host.failure = None
    assert (await submit(dispatcher, job_id="J-1"))[0] == 202, "its id is free again"


HEAD = b"POST /jobs HTTP/1.1\r\nHost: g\r\nContent-Length: 27\r\n\r\n"


@pytest.mark.parametrize("before", [b"", HEAD], ids=["nothing", "a head"])
async def test_a_pause_waits_for_who_was_let_in_and_has_not_said_what_for(
    dispatcher: LocalDispatcher, host: FakeHost, before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "PAUSE_LINGER", 0.0)
    monkeypatch.setattr(local, "MUTE_TIMEOUT", 600.0)
    reader, writer = await asyncio.open_unix_connection(str(dispatcher.path))
    writer.write(before)
    await writer.drain()
    assert await ask(dispatcher, "GET", "/jobs") == (200, {"jobs": []})  # let in after the first
    pausing = asyncio.ensure_future(dispatcher.pause())
    for _ in range(100):  # turns of the loop, which is more than it takes without waiting
        await asyncio.sleep(0)
    assert not pausing.done()
    body = b'{"room":"r","job_id":"J-1"}'
    writer.write(body if before else HEAD + body)
    await asyncio.wait_for(pausing, 30)
    assert list(host.handles) == ["J-1"]
    assert (await reader.readline()).startswith(b"HTTP/1.1 202")
    writer.close()


async def test_a_pause_does_not_wait_for_ever_for_who_says_nothing(
    dispatcher: LocalDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MUTE_TIMEOUT", 0.05)
    _, writer = await asyncio.open_unix_connection(str(dispatcher.path))
    assert await ask(dispatcher, "GET", "/jobs") == (200, {"jobs": []})
    await asyncio.wait_for(dispatcher.pause(), 30)
    writer.close()


async def test_waiting_ends_with_the_job(dispatcher: LocalDispatcher, host: FakeHost) -> None:
    waits = [asyncio.ensure_future(submit(dispatcher, job_id="J-1", wait=True))]
    await host.offered.wait()
    status, _ = await ask(dispatcher, "GET", "/jobs/J-1?wait=0")
    assert status == 200
    waits.append(asyncio.ensure_future(ask(dispatcher, "GET", "/jobs/J-1?wait=60")))
    host.end("J-1")
    for status, answer in await asyncio.wait_for(asyncio.gather(*waits), 10):
        job = answer["jobs"][0] if "jobs" in answer else answer
        assert status in (200, 202)
        assert job["status"] == "succeeded"
        assert job["outcome"]["ended_at"] == 2.5


async def test_waiting_ends_when_the_time_is_over(dispatcher: LocalDispatcher) -> None:
    status, answer = await submit(dispatcher, job_id="J-1", wait=0.01)
    assert (status, answer["jobs"][0]["status"]) == (202, "running")
    status, job = await ask(dispatcher, "GET", "/jobs/J-1?wait=0.01")
    assert (status, job["status"]) == (200, "running")


async def test_cancel(dispatcher: LocalDispatcher, host: FakeHost) -> None:
    await submit(dispatcher, job_id="J-1")
    assert (await ask(dispatcher, "DELETE", "/jobs/J-1"))[0] == 202
    status, job = await ask(dispatcher, "GET", "/jobs/J-1?wait=10")
    assert (status, job["status"]) == (200, "cancelled")
    assert await ask(dispatcher, "DELETE", "/jobs/J-1") == (409, {"error": "job J-1 has ended"})
    for method in ("GET", "DELETE"):
        assert await ask(dispatcher, method, "/jobs/J-2") == (404, {"error": "no job J-2 here"})


async def test_a_job_that_came_another_way_is_shown_once_it_is_tracked(
    dispatcher: LocalDispatcher, host: FakeHost
) -> None:
    handle = host.run_job(JobInfo("J-else"))
    assert (await ask(dispatcher, "GET", "/jobs/J-else"))[0] == 404
    dispatcher.track(handle)
    assert (await ask(dispatcher, "GET", "/jobs/J-else"))[1]["status"] == "running"
    host.end("J-else")
    assert (await ask(dispatcher, "GET", "/jobs/J-else"))[1]["status"] == "succeeded"


# ── refusals ─────────────────────────────────────────────────────────────────


async def test_not_admitted_says_why_and_when_to_come_back(
    dispatcher: LocalDispatcher, host: FakeHost
) -> None:
    host.max_jobs = 0
    status, answer, headers = await ask_all(dispatcher, "POST", "/jobs", {"room": "r"})
    error = "not admitted: max_jobs (0 of 0)"
    assert (status, answer) == (503, {"error": error, "reason": "max_jobs", "detail": "0 of 0"})
    assert headers["Retry-After"] == "1"


@pytest.mark.parametrize(("room", "terminate"), [("no-way", False), ("no-ever", True)])
async def test_rejected(dispatcher: LocalDispatcher, room: str, terminate: bool) -> None:
    expected = {"error": "rejected: not ours", "reason": "rejected", "terminate": terminate}
    assert await submit(dispatcher, room=room) == (409, expected)


async def test_an_id_in_use_is_refused_and_free_again_after_the_end(
    dispatcher: LocalDispatcher, host: FakeHost
) -> None:
    host.run_job(JobInfo("J-host"))
    in_use = (409, {"error": "job id J-host is in use"})
    assert await submit(dispatcher, job_id="J-host") == in_use
    assert (await submit(dispatcher, job_id="J-1"))[0] == 202
    assert (await submit(dispatcher, job_id="J-1"))[0] == 409
    host.end("J-1")
    assert (await submit(dispatcher, job_id="J-1"))[0] == 202


async def test_two_requests_at_once_cannot_take_the_same_id(
    dispatcher: LocalDispatcher, host: FakeHost
) -> None:
    host.answering.clear()
    first = asyncio.ensure_future(submit(dispatcher, job_id="J-1"))
    await host.offered.wait()
    assert (await submit(dispatcher, job_id="J-1"))[0] == 409
    host.answering.set()
    assert (await first)[0] == 202
    assert host.offers == 1


# ── bad requests ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param(b"", "Object missing required field 'room'", id="nothing"),
        pytest.param(b"{", "the body is not JSON", id="half of it"),
        pytest.param(b"\xff\xfe", "the body is not JSON", id="no text"),
        pytest.param(b"[1]", "expected a JSON object, got list", id="a list"),
        pytest.param(b"null", "expected a JSON object, got NoneType", id="null"),
        pytest.param(b'{"room":"r","b":1,"a":2}', "unknown field a, b; known are room,", id="more"),
        pytest.param(b'{"room":{"name":"r","x":1}}', "room: .*unknown field 'x'", id="more within"),
        pytest.param(b'{"room":7}', "room: Expected 'str | object', got 'int'", id="room"),
        pytest.param(b'{"room":""}', "room='': expected a name", id="the host's own complaint"),
        pytest.param(b'{"room":"r","metadata":{}}', "metadata: Expected 'str'", id="metadata"),
        pytest.param(b'{"room":"r","publishers":"a"}', "publishers: Expected 'array'", id="people"),
        pytest.param(b'{"room":"r","publishers":[1]}', r"publishers\[0\]: Exp", id="a person"),
        pytest.param(b'{"room":"r","job_id":1}', "job_id: Expected 'str | null'", id="job id"),
        pytest.param(b'{"room":"r","wait":"1"}', "wait: Expected 'bool | float'", id="wait"),
        pytest.param(b'{"room":"r","wait":-1}', "wait: expected seconds, 0 or more", id="negative"),
    ],
)
async def test_a_bad_body_is_a_400_that_names_field_and_type(
    dispatcher: LocalDispatcher, host: FakeHost, body: bytes, error: str
) -> None:
    status, answer = await ask(dispatcher, "POST", "/jobs", data=body)
    assert status == 400
    assert re.search(error.replace(" | ", r" \| "), answer["error"]), answer["error"]
    assert host.offers == 0


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("wait=soon", "wait: expected a number, got 'soon'"),
        ("wait=-1", "wait: expected seconds, 0 or more, got -1.0"),
        ("wait=nan", "wait: expected seconds, 0 or more, got nan"),
    ],
)
async def test_a_bad_query_is_a_400(dispatcher: LocalDispatcher, query: str, error: str) -> None:
    assert await ask(dispatcher, "GET", f"/jobs/J?{query}") == (400, {"error": error})


async def test_unknown_paths_and_methods_are_json_too(dispatcher: LocalDispatcher) -> None:
    assert (await ask(dispatcher, "GET", "/nothing"))[0] == 404
    status, answer, headers = await ask_all(dispatcher, "PUT", "/jobs")
    assert (status, headers["Allow"]) == (405, "GET,HEAD,POST")
    assert "error" in answer


async def test_a_body_over_the_limit_is_a_413(dispatcher: LocalDispatcher, host: FakeHost) -> None:
    status, answer = await submit(dispatcher, metadata="x" * local.MAX_BODY_BYTES)
    assert status == 413
    assert answer["error"] == "the body is over the limit of 1048576 bytes"
    assert (await submit(dispatcher, metadata="x" * (local.MAX_BODY_BYTES - 100)))[0] == 202
    assert host.offers == 1


async def test_an_error_of_ours_is_a_500_and_in_the_log(
    dispatcher: LocalDispatcher, host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    host.status = None  # type: ignore[assignment, method-assign]
    assert (await ask(dispatcher, "GET", "/status"))[0] == 500
    assert "GET /status failed" in caplog.text
    host.answering.set()
    assert (await submit(dispatcher))[0] == 202, "and nothing else is touched"


# ── slow and vanishing clients ───────────────────────────────────────────────


async def connect(dispatcher: LocalDispatcher) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(str(dispatcher.path))


async def test_a_slow_body_is_a_408_and_delays_nobody(
    dispatcher: LocalDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "BODY_TIMEOUT", 0.05)
    reader, writer = await connect(dispatcher)
    writer.write(b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    assert (await submit(dispatcher))[0] == 202
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 408 ")
    writer.close()
    await writer.wait_closed()


async def test_a_request_is_carried_out_though_its_client_is_gone(
    dispatcher: LocalDispatcher, host: FakeHost
) -> None:
    host.answering.clear()
    body = b'{"room":"r","job_id":"J-1","wait":true}'
    _, writer = await connect(dispatcher)
    writer.write(b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await host.offered.wait()
    writer.close()
    await writer.wait_closed()
    await ask(dispatcher, "GET", "/status")  # by now the server has seen the end
    host.answering.set()
    assert (await ask(dispatcher, "GET", "/jobs/J-1?wait=0.01"))[1]["status"] == "running"


async def test_close_answers_who_waits_and_closes_on_who_is_slow(
    dispatcher: LocalDispatcher, host: FakeHost
) -> None:
    path = dispatcher.path
    assert path is not None
    waiting = asyncio.ensure_future(submit(dispatcher, job_id="J-1", wait=True))
    await host.offered.wait()
    reader, writer = await connect(dispatcher)
    writer.write(b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    await ask(dispatcher, "GET", "/status")
    await asyncio.wait_for(dispatcher.close(), 5)
    status, answer = await waiting
    assert (status, answer["jobs"][0]["status"]) == (202, "running")
    assert b" 202 " not in await reader.read()
    writer.close()
    await writer.wait_closed()
    assert not path.exists()
    assert not dispatcher.connected


# ── status and drain ─────────────────────────────────────────────────────────


async def test_status(dispatcher: LocalDispatcher, host: FakeHost) -> None:
    expected = {**host.status(), "ready": True, "reason": None}
    assert await ask(dispatcher, "GET", "/status") == (200, expected)
    host.reason = "warming"
    _, answer = await ask(dispatcher, "GET", "/status")
    assert (answer["ready"], answer["reason"]) == (False, "warming")


@pytest.mark.parametrize(
    ("body", "expected"), [(None, ...), ({}, ...), ({"timeout": None}, None), ({"timeout": 3}, 3.0)]
)
async def test_drain_and_then_it_keeps_answering(
    dispatcher: LocalDispatcher, host: FakeHost, body: object, expected: object
) -> None:
    assert await ask(dispatcher, "POST", "/drain", body) == (202, {"draining": True})
    assert host.drains == [expected]
    dispatcher.drain_began()
    assert (await ask(dispatcher, "GET", "/status"))[1]["reason"] == "draining"
    status, answer, headers = await ask_all(dispatcher, "POST", "/jobs", {"room": "r"})
    assert (status, answer["reason"], headers["Retry-After"]) == (503, "draining", "5")


@pytest.mark.parametrize("body", [{"timeout": -1}, {"timeout": "1"}, {"deadline": 1}])
async def test_a_bad_drain_drains_nothing(
    dispatcher: LocalDispatcher, host: FakeHost, body: object
) -> None:
    assert (await ask(dispatcher, "POST", "/drain", body))[0] == 400
    assert not host.drains


# ── the history ──────────────────────────────────────────────────────────────


async def test_the_list_has_all_active_and_the_latest_ended(
    dispatcher: LocalDispatcher, host: FakeHost
) -> None:
    for number in range(120):
        await submit(dispatcher, job_id=f"J-{number}")
    for number in range(110):
        host.end(f"J-{number}")
    _, answer = await ask(dispatcher, "GET", "/jobs")
    ids = [job["id"] for job in answer["jobs"]]
    assert ids[:10] == [f"J-{number}" for number in range(110, 120)]
    assert ids[10:] == [f"J-{number}" for number in range(109, 9, -1)]
    _, answer = await ask(dispatcher, "GET", "/jobs?ended=1000")
    assert len(answer["jobs"]) == 120


def test_the_history_is_bounded_by_count_and_by_bytes() -> None:
    history = wire.History(max_jobs=3, max_bytes=100)
    for name in "abcd":
        history.add(name, b"{}")
    assert history.get("a") is None
    history.add("b", b"[]")
    assert list(history.latest(10)) == [b"[]", b"{}", b"{}"]
    history.add("e", b"x" * 98)
    assert list(history.latest(10)) == [b"x" * 98, b"[]"]


async def test_text_that_is_no_utf8_does_not_lose_a_job(
    dispatcher: LocalDispatcher, host: FakeHost
) -> None:
    dispatcher.track(host.run_job(JobInfo("J-1", metadata="\udcff")))
    host.end("J-1")
    assert (await ask(dispatcher, "GET", "/jobs/J-1"))[1]["metadata"] == "\udcff"


# ── who may come in ──────────────────────────────────────────────────────────

CLIENT = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(int(sys.argv[2]))
with socket.socket(socket.AF_UNIX) as s:
    s.connect(sys.argv[1])
    s.sendall(b"GET /status HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    print(s.recv(65536).decode())
"""


async def status_as(uid: int, path: Path | None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CLIENT, str(path), str(uid)]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, timeout=30
    )


@needs_root
async def test_another_user_is_refused_even_where_the_path_is_open(
    dispatcher: LocalDispatcher, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert dispatcher.path is not None
    directory.chmod(0o755)
    dispatcher.path.chmod(0o666)  # the first net is off: the credentials alone must hold
    answer = await status_as(NOBODY, dispatcher.path)
    assert answer.stdout.startswith("HTTP/1.1 403 "), answer
    assert "does not talk to uid 65534" in answer.stdout
    assert "refused a client of uid 65534" in caplog.text
    assert (await status_as(0, dispatcher.path)).stdout.startswith("HTTP/1.1 200 ")


@needs_root
async def test_another_user_cannot_even_connect(
    dispatcher: LocalDispatcher, directory: Path
) -> None:
    directory.chmod(0o755)
    assert "PermissionError" in (await status_as(NOBODY, dispatcher.path)).stderr


# ── where the socket lies ────────────────────────────────────────────────────


@pytest.fixture
def runtime(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("GREENROOM_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    return directory / "greenroom"


async def test_the_default_path_is_the_pid_in_a_directory_of_our_own(
    runtime: Path, host: FakeHost
) -> None:
    first, second = LocalDispatcher(), LocalDispatcher()
    assert isinstance(first.connected, bool)
    _: Dispatcher = first
    await first.start(host)
    assert first.path == runtime / f"{os.getpid()}.sock"
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o600
    await second.start(host)
    assert second.path == runtime / f"{os.getpid()}-2.sock"
    await first.close()
    await second.close()
    assert list(runtime.iterdir()) == []


def test_without_a_runtime_directory_of_our_own_it_is_in_tmp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for value in ("", "/no/such/directory"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert sockets.socket_directory() == Path(f"/tmp/greenroom-{os.geteuid()}")


async def test_the_environment_names_the_socket(
    directory: Path, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREENROOM_SOCKET", str(directory / "new" / "s"))
    dispatcher = LocalDispatcher()
    await dispatcher.start(host)
    assert dispatcher.path == directory / "new" / "s"
    assert stat.S_IMODE((directory / "new").stat().st_mode) == 0o700
    await dispatcher.close()


async def test_sockets_of_dead_processes_are_removed_and_others_kept(
    runtime: Path, host: FakeHost
) -> None:
    runtime.mkdir(mode=0o700)
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    kept = [runtime / "1.sock", runtime / "mine.sock"]  # pid 1 lives
    for path in (runtime / f"{gone.pid}.sock", *kept):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    dispatcher = LocalDispatcher()
    await dispatcher.start(host)
    assert dispatcher.path is not None
    assert sorted(runtime.iterdir()) == sorted([*kept, dispatcher.path])
    await dispatcher.close()


async def test_a_socket_that_answers_is_kept_though_its_pid_looks_dead(
    runtime: Path, host: FakeHost
) -> None:
    # As from a container that shares the directory: its pids mean nothing here.
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    elsewhere = LocalDispatcher(str(runtime / f"{gone.pid}.sock"))
    await elsewhere.start(host)
    dispatcher = LocalDispatcher()
    await dispatcher.start(host)
    assert (await ask(elsewhere, "GET", "/status"))[0] == 200
    await dispatcher.close()
    await elsewhere.close()


async def test_a_socket_that_somebody_else_put_in_its_place_is_left_alone(
    dispatcher: LocalDispatcher, directory: Path
) -> None:
    path = directory / "control.sock"
    path.unlink()
    path.write_text("somebody else's")
    await dispatcher.close()
    assert path.read_text() == "somebody else's"


async def refused(dispatcher: LocalDispatcher, host: FakeHost, sentence: str) -> None:
    with pytest.raises(SupervisorError, match=sentence) as caught:
        await dispatcher.start(host)
    assert "\n" not in str(caught.value)
    assert not dispatcher.connected
    await dispatcher.close()


async def test_a_directory_that_others_can_reach_into_is_refused(
    runtime: Path, host: FakeHost
) -> None:
    runtime.mkdir()
    runtime.chmod(0o755)
    await refused(LocalDispatcher(), host, "has mode 0755, expected 0700: chmod 700 it")


async def test_a_symlink_instead_of_the_directory_is_refused(
    runtime: Path, directory: Path, host: FakeHost
) -> None:
    (directory / "elsewhere").mkdir(mode=0o700)
    runtime.symlink_to(directory / "elsewhere")
    await refused(LocalDispatcher(), host, "is not a directory of our own: remove it")


@needs_root
async def test_somebody_elses_directory_is_refused(runtime: Path, host: FakeHost) -> None:
    runtime.mkdir(mode=0o700)
    os.chown(runtime, NOBODY, NOBODY)
    await refused(LocalDispatcher(), host, "belongs to uid 65534, not to this user")


async def test_a_path_that_cannot_be_used_is_one_sentence(
    dispatcher: LocalDispatcher, directory: Path, host: FakeHost
) -> None:
    for path, sentence in {
        str(dispatcher.path): "another server listens there",
        str(directory / ("x" * 120)): "AF_UNIX path too long",
        str(directory / "a" / "b" / "s"): "cannot make a place for the control socket",
        __file__: "it is not a socket; choose another path",
    }.items():
        await refused(LocalDispatcher(path), host, sentence)
    assert Path(__file__).exists()
    assert (await ask(dispatcher, "GET", "/status"))[0] == 200, "the first one still answers"


async def test_a_stale_socket_at_the_given_path_is_replaced(
    directory: Path, host: FakeHost
) -> None:
    path = directory / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    dispatcher = LocalDispatcher(str(path))
    await dispatcher.start(host)
    assert (await ask(dispatcher, "GET", "/status"))[0] == 200
    await dispatcher.close()
