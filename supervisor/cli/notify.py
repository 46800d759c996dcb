"""Telling systemd how the server is: ``sd_notify`` without a library.

The protocol is one datagram of ``NAME=value`` lines to the socket that
``$NOTIFY_SOCKET`` names; one that begins with ``@`` is in the abstract namespace.
Source: sd_notify(3), "Notes".
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from typing import Any, Protocol

logger = logging.getLogger("greenroom.systemd")

# Between two changes of the status line: a server may begin hundreds of jobs in one.
STATUS_INTERVAL = 1.0


class Announces(Protocol):
    """What is told about: a server."""

    @property
    def active_jobs(self) -> list[Any]: ...
    def on(self, event: str, callback: Callable[[Any], object]) -> object: ...


class Notifier:
    """Sends to systemd. Does nothing unless ``NOTIFY_SOCKET`` is set.

    The variable is taken out of the environment: it is for this process alone.
    """

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")

    @property
    def listening(self) -> bool:
        """True if there is a systemd that wants to know."""
        return bool(self._address)

    def send(self, **fields: str) -> None:
        """Send *fields*, such as ``READY="1"``."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        text = "\n".join(f"{name}={value}" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                # A full queue must not stop a server for the sake of a status line.
                sock.setblocking(False)
                sock.connect(address)
                sock.send(text.encode())
        except OSError as exc:
            logger.warning("cannot notify %s: %s", self._address, exc)


class StatusLine:
    """Keeps ``systemctl status`` true while a server runs.

    Args:
        server: what is told about.
        notifier: who tells.
    """

    def __init__(self, server: Announces, notifier: Notifier) -> None:
        self._server = server
        self._notifier = notifier
        self._stage = "starting"
        self._timer: asyncio.TimerHandle | None = None
        server.on("started", self._started)
        server.on("draining", self._draining)
        for event in ("job_started", "job_ended"):
            server.on(event, self._changed)

    def _started(self, _: object) -> None:
        if self._stage == "starting":
            self._stage = "serving"
            self._notifier.send(READY="1", STATUS=self._text())

    def _draining(self, _: object) -> None:
        self._stage = "draining"
        self._notifier.send(STOPPING="1", STATUS=self._text())

    def _changed(self, _: object) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(STATUS_INTERVAL, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._notifier.send(STATUS=self._text())

    def _text(self) -> str:
        return f"{self._stage}, {len(self._server.active_jobs)} jobs"
