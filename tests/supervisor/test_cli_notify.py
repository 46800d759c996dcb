"""cli.notify: what systemd is told, over a real datagram socket."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from supervisor.cli import notify
from supervisor.cli.notify import Notifier, StatusLine


class FakeSystemd:
    def __init__(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(10)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)

    def told(self) -> list[str]:
        return self.socket.recv(4096).decode().splitlines()


@pytest.fixture(params=["path", "abstract"])
def systemd(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeSystemd]:
    with tempfile.TemporaryDirectory(prefix="gr-") as directory:
        path = f"{directory}/notify" if request.param == "path" else f"@greenroom-{os.getpid()}"
        made = FakeSystemd(path, monkeypatch)
        yield made
        made.socket.close()


class FakeServer:
    def __init__(self) -> None:
        self.active_jobs: list[Any] = []
        self.callbacks: dict[str, Callable[[Any], object]] = {}

    def on(self, event: str, callback: Callable[[Any], object]) -> object:
        self.callbacks[event] = callback
        return callback


async def test_what_a_servers_life_tells(
    systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "STATUS_INTERVAL", 0.0)
    notifier = Notifier()
    assert "NOTIFY_SOCKET" not in os.environ, "it is not for the jobs"
    server = FakeServer()
    line = StatusLine(server, notifier)
    server.callbacks["started"](server)
    assert systemd.told() == ["READY=1", "STATUS=serving, 0 jobs"]
    server.active_jobs.append("J-1")
    for _ in range(100):  # told once, whatever their number
        server.callbacks["job_started"](None)
    line._tell()
    assert systemd.told() == ["STATUS=serving, 1 jobs"]
    server.callbacks["draining"](None)
    assert systemd.told() == ["STOPPING=1", "STATUS=draining, 1 jobs"]
    server.callbacks["started"](server)
    assert line._timer is None


def test_nothing_is_sent_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().send(READY="1")


def test_a_systemd_that_is_gone_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nobody/here")
    with caplog.at_level(logging.WARNING):
        Notifier().send(READY="1")
    assert "cannot notify /nobody/here" in caplog.text
