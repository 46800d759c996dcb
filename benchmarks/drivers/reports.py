"""Where entrypoints report: a datagram socket, for products whose jobs return nothing."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """What a job said of itself."""

    began: float  # CLOCK_MONOTONIC
    heavy_objects: int


class Reports:
    """Receives what ``jobs.report`` sends."""

    def __init__(self) -> None:
        self.address = f"greenroom-bench-{os.getpid()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind("\0" + self.address)

    async def next(self) -> Report:
        """Return the next report."""
        received = await asyncio.get_running_loop().sock_recv(self._socket, 128)
        began, objects = received.split()
        return Report(float(began), int(objects))

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
