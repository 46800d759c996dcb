"""LiveKit at the edges: the command line, TLS, proxies, and where secrets do not go."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from supervisor import SupervisorError
from supervisor.dispatch.livekit import retry
from tests.children.livekit_jobs import entrypoint
from tests.integration.conftest import soon
from tests.integration.livekit_endpoint import KEY, SECRET, Endpoint, listening
from tests.integration.serving import serving
from tests.integration.watch import until

trustme = pytest.importorskip("trustme")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _control_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENROOM_SOCKET", str(tmp_path / "s"))


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with listening() as made:
        yield made


# ── the command line ─────────────────────────────────────────────────────────


async def start(program: str, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"tests.children.{program}",
        *arguments,
        cwd=ROOT,
        env={**os.environ, "GREENROOM_PORT": "none", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def failed_start(*arguments: str, **environment: str) -> str:
    """Run a server that cannot start; return the one line that it says."""
    process = await start("server_that_cannot_start", "start", *arguments, **environment)
    out, err = await soon(process.communicate())
    assert process.returncode == 1, err
    (line,) = err.decode().splitlines()
    assert "Traceback" not in out.decode()
    assert SECRET not in (out + err).decode()
    return line


async def test_a_key_that_is_refused_is_one_clear_line_and_exit_status_1(
    endpoint: Endpoint,
) -> None:
    line = await failed_start(
        LIVEKIT_URL=endpoint.url,
        LIVEKIT_API_KEY=KEY,
        LIVEKIT_API_SECRET="another-secret-of-enough-length-for-hs256",
    )
    where = f"LiveKit at localhost:{endpoint.port}"
    assert line == f"greenroom: {where} refuses the API key or its secret: HTTP 401"
    assert len(endpoint.requests) == 1  # trying again cannot help


async def test_a_server_out_of_reach_is_one_clear_line_and_exit_status_1(
    endpoint: Endpoint,
) -> None:
    await endpoint.stop()
    line = await failed_start(
        "--url", endpoint.url, LIVEKIT_API_KEY=KEY, LIVEKIT_API_SECRET=SECRET, MAX_RETRY="2"
    )
    assert line.startswith(f"greenroom: LiveKit at localhost:{endpoint.port} is out of reach: ")
    assert "refused" in line
    assert line.endswith("(2 attempts, the last one now)")


async def test_a_missing_secret_is_named() -> None:
    line = await failed_start("--url", "ws://localhost:1", LIVEKIT_API_KEY=KEY)
    assert "api_secret" in line
    assert "LIVEKIT_API_SECRET" in line


async def test_no_secret_is_logged_and_no_job_has_one(endpoint: Endpoint) -> None:
    process = await start(
        "livekit_server",
        "start",
        LIVEKIT_URL=endpoint.url,
        LIVEKIT_API_KEY=KEY,
        LIVEKIT_API_SECRET=SECRET,
        LIVEKIT_WORKER_TOKEN="token-of-the-cloud",
    )
    try:
        await endpoint.until(lambda: endpoint.heard("update_worker"))
        job = await endpoint.offer("AJ_1")
        token = endpoint.job_token(job)
        await endpoint.until_status("AJ_1", "JS_SUCCESS")
        endpoint.refuses = 403
        endpoint.drop()
        await until(lambda: len(endpoint.requests) > 1)
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = await soon(process.communicate())
    assert process.returncode == 0
    told = (out + err).decode()
    assert "registered with LiveKit" in told
    messages = [json.loads(line)["message"] for line in out.decode().splitlines()]
    assert any("AJ_1" in each for each in messages)
    assert any("LIVEKIT_URL" in each for each in messages)  # the job's environment, and
    assert any(each.startswith("LIVEKIT_URL=") for each in messages)  # its own child's
    tokens = [each.headers["Authorization"].split()[1] for each in endpoint.requests]
    for secret in (SECRET, "token-of-the-cloud", token, token.split(".")[2], *tokens):
        assert secret not in told


# ── TLS ──────────────────────────────────────────────────────────────────────


@pytest.fixture
async def encrypted(tmp_path: Path) -> AsyncIterator[tuple[Endpoint, Path]]:
    """An endpoint that speaks ``wss``, and the file of the authority that vouches for it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    async with listening(context) as endpoint:
        yield endpoint, file


@pytest.mark.parametrize("scheme", ["wss", "https"])
async def test_an_encrypted_connection_trusts_what_ssl_cert_file_names(
    encrypted: tuple[Endpoint, Path], scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, authority = encrypted
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    url = endpoint.url.replace("wss", scheme)
    async with serving(entrypoint, **{**endpoint.options, "ws_url": url}):
        await endpoint.offer("AJ_1")
        await endpoint.until_status("AJ_1", "JS_SUCCESS")


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    encrypted: tuple[Endpoint, Path],
) -> None:
    endpoint, _ = encrypted
    with pytest.raises(SupervisorError, match=r"not trusted: .*SSL_CERT_FILE"):
        async with serving(entrypoint, max_retry=1, **endpoint.options):
            pytest.fail("it runs")
    assert not endpoint.requests


# ── a proxy ──────────────────────────────────────────────────────────────────


class Proxy:
    """An HTTP proxy that lets connections through, if asked with the right password."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.refuses = False
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        method, target, _ = head.split(maxsplit=2)
        if self.refuses:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            writer.close()
            return
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:  # what is not encrypted is asked for by its whole address
            host, _, port = target.split("/")[2].rpartition(":")
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
            there_writer.write(head.replace(target, "/agent", 1).encode())
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            pump = asyncio.ensure_future(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass  # the other pump ends too
        finally:
            sink.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    made = Proxy()
    await made.start()
    yield made
    await made.stop()


async def test_an_encrypted_connection_goes_through_the_proxy(
    encrypted: tuple[Endpoint, Path], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, authority = encrypted
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:hunter2@127.0.0.1:{proxy.port}")
    async with serving(entrypoint, **endpoint.options):
        await endpoint.offer("AJ_1")
        await endpoint.until_status("AJ_1", "JS_SUCCESS")
    (head,) = proxy.heads
    assert head.startswith(f"CONNECT localhost:{endpoint.port} ")
    assert "Proxy-Authorization: Basic dXNlcjpodW50ZXIy" in head
    assert "Bearer" not in head  # the proxy does not see our token


async def test_an_open_connection_goes_through_the_proxy(endpoint: Endpoint, proxy: Proxy) -> None:
    options = {**endpoint.options, "http_proxy": f"http://127.0.0.1:{proxy.port}"}
    async with serving(entrypoint, **options):
        await endpoint.offer("AJ_1")
        await endpoint.until_status("AJ_1", "JS_SUCCESS")
    assert f"localhost:{endpoint.port}" in proxy.heads[0]


async def test_a_proxy_that_refuses_is_named_without_its_password(
    encrypted: tuple[Endpoint, Path], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, _ = encrypted
    proxy.refuses = True
    monkeypatch.setattr(retry, "SHORTEST_WAIT", 0.01)
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:hunter2@127.0.0.1:{proxy.port}")
    with pytest.raises(SupervisorError, match=r"proxy does not let us through .*HTTP 407") as told:
        async with serving(entrypoint, max_retry=2, **endpoint.options):
            pytest.fail("it runs")
    assert "hunter2" not in str(told.value)
    assert len(proxy.heads) == 2
