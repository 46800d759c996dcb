"""http.py: real HTTP over TCP to a host that is a fake."""

from __future__ import annotations

import asyncio
import json
import math
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from supervisor.errors import SupervisorError
from supervisor.http import HealthServer
from supervisor.job import JobInfo, JobStatus
from supervisor.stats import PoolStats
from tests.supervisor.fakes_host import FakeHost


@pytest.fixture
async def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
async def server(host: FakeHost) -> AsyncIterator[HealthServer]:
    server = HealthServer(host, "127.0.0.1", 0)
    await server.start()
    yield server
    await server.close()


async def get(server: HealthServer, path: str, method: str = "GET") -> tuple[int, str]:
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session,
        session.request(method, path) as response,
    ):
        return response.status, await response.text()


async def samples(server: HealthServer) -> dict[str, float]:
    """Scrape, parse as Prometheus does, and return ``name{label}`` to value."""
    status, text = await get(server, "/metrics")
    assert status == 200
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(sample.labels.values())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.mark.parametrize("path", ["/", "/healthz"])
@pytest.mark.parametrize("reason", [None, "setup keeps failing"])
async def test_alive_is_alive_whether_ready_or_not(
    server: HealthServer, host: FakeHost, path: str, reason: str | None
) -> None:
    host.reason = reason
    assert await get(server, path) == (200, "ok\n")


async def test_readiness_tells_the_reason(server: HealthServer, host: FakeHost) -> None:
    assert await get(server, "/readyz") == (200, "ready\n")
    host.reason = "no worker is warm"
    assert await get(server, "/readyz") == (503, "no worker is warm\n")
    host.begin_drain()
    assert await get(server, "/readyz") == (503, "draining\n")


async def test_worker_shows_the_status_as_json(server: HealthServer, host: FakeHost) -> None:
    host.load = math.inf  # not in JSON's numbers: null
    status, text = await get(server, "/worker")
    assert status == 200
    assert json.loads(text) == {**host.status(), "load": None}


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/worker", "/metrics"])
async def test_nothing_can_be_changed(server: HealthServer, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert (await get(server, path, method))[0] == 405


async def test_gauges_are_read_when_somebody_scrapes(server: HealthServer, host: FakeHost) -> None:
    host.figures = PoolStats(
        spawning=1, warming=2, idle=3, running=4, stopping=5, waiting=6, total_spawned=7,
        total_reaped=8, total_jobs=9, total_handed_again=10, total_warmup_failures=11,
    )  # fmt: skip
    host.run_job(JobInfo("J-1"))
    found = await samples(server)
    expected = {
        "greenroom_workers{spawning}": 1, "greenroom_workers{warming}": 2,
        "greenroom_workers{idle}": 3, "greenroom_workers{running}": 4,
        "greenroom_workers{stopping}": 5, "greenroom_jobs_waiting": 6,
        "greenroom_workers_spawned_total": 7, "greenroom_workers_reaped_total": 8,
        "greenroom_jobs_accepted_total": 9, "greenroom_handovers_repeated_total": 10,
        "greenroom_warmup_failures_total": 11, "greenroom_jobs_active": 1,
        "greenroom_load": 0.25, "greenroom_ready": 1, "greenroom_draining": 0,
    }  # fmt: skip
    assert {name: found.get(name) for name in expected} == expected
    host.begin_drain()
    found = await samples(server)
    assert (found["greenroom_ready"], found["greenroom_draining"]) == (0, 1)


async def test_what_is_fed_is_counted(server: HealthServer) -> None:
    server.observe_handover(0.0004)
    server.observe_handover(20)
    server.observe_warmup(0.7)
    server.count_outcome(JobStatus.KILLED)
    found = await samples(server)
    assert found["greenroom_handover_seconds_bucket{0.00025}"] == 0
    assert found["greenroom_handover_seconds_bucket{0.0005}"] == 1
    assert found["greenroom_handover_seconds_bucket{+Inf}"] == 2
    assert found["greenroom_warmup_seconds_sum"] == pytest.approx(0.7)
    assert found["greenroom_jobs_total{killed}"] == 1
    assert found["greenroom_jobs_total{succeeded}"] == 0, "there before the first one"
    assert "greenroom_jobs_total{running}" not in found


async def test_the_supervisors_own_use_is_there(server: HealthServer) -> None:
    assert (await samples(server))["process_resident_memory_bytes"] > 0


async def test_two_servers_in_a_process_do_not_share_figures(server: HealthServer) -> None:
    other = HealthServer(FakeHost(), "127.0.0.1", 0)
    other.count_outcome(JobStatus.FAILED)
    assert (await samples(server))["greenroom_jobs_total{failed}"] == 0


@pytest.mark.parametrize(
    ("address", "port", "sentence"),
    [
        pytest.param("127.0.0.1", None, r"port \d+ on 127.0.0.1 is in use: .*--port", id="in use"),
        pytest.param("192.0.2.1", 0, "cannot listen on port 0 on 192.0.2.1", id="not ours"),
        pytest.param("no.such.host.invalid", 0, "cannot listen on .*--host", id="no such name"),
        pytest.param("127.0.0.1", 70_000, "cannot listen on port 70000", id="no such port"),
    ],
)
async def test_what_cannot_be_listened_on_is_one_sentence(
    address: str, port: int | None, sentence: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = taken.getsockname()[1] if port is None else port
        server = HealthServer(FakeHost(), address, wanted)
        with pytest.raises(SupervisorError, match=sentence) as caught:
            await server.start()
        assert "\n" not in str(caught.value)
        await server.close()


async def test_close_does_not_wait_for_a_slow_client(host: FakeHost) -> None:
    server = HealthServer(host, "127.0.0.1", 0)
    await server.start()
    silent = await asyncio.open_connection("127.0.0.1", server.port)
    halfway = await asyncio.open_connection("127.0.0.1", server.port)
    halfway[1].write(b"GET /healthz HTTP/1.1\r\nHo")
    await halfway[1].drain()
    assert await get(server, "/healthz") == (200, "ok\n")
    await asyncio.wait_for(server.close(), 5)
    for reader, writer in (silent, halfway):
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_close_does_not_wait_for_a_client_that_does_not_read(host: FakeHost) -> None:
    server = HealthServer(host, "127.0.0.1", 0)
    await server.start()
    # A small window, so that the answers fill every buffer on the way.
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.setblocking(False)
    await asyncio.get_running_loop().sock_connect(deaf, ("127.0.0.1", server.port))
    asked = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 2000
    await asyncio.get_running_loop().sock_sendall(deaf, asked)
    assert await get(server, "/healthz") == (200, "ok\n")
    await asyncio.wait_for(server.close(), 5)
    deaf.close()


async def test_making_one_asks_nothing_of_a_server_that_does_not_run_yet(host: FakeHost) -> None:
    host.figures = None  # type: ignore[assignment]  # whoever looks at it fails
    HealthServer(host, "127.0.0.1", 0).observe_warmup(1.0)


async def test_the_port_is_free_again_after_close(host: FakeHost) -> None:
    first = HealthServer(host, "127.0.0.1", 0)
    assert first.port == 0
    await first.start()
    port = first.port
    assert port > 0
    assert await get(first, "/healthz") == (200, "ok\n")
    await first.close()
    await first.close()
    second = HealthServer(host, "127.0.0.1", port)
    await second.start()
    assert second.port == port
    await second.close()
