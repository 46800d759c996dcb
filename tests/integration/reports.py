"""The reading end of what children report: see ``tests/children/reporting.py``."""

from __future__ import annotations

import asyncio
import json
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.children.reporting import Say
from tests.integration.conftest import PATIENCE

Report = dict[str, Any]


class Reports:
    """Everything that was reported so far, and waiting for what is still to come.

    Args:
        path: where the FIFO is made.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.say = Say(str(path))
        self.all: list[Report] = []
        self._rest = b""
        # Read and write: so no writer waits for a reader, and there is no end of file.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def of(self, what: str, **details: Any) -> list[Report]:
        """Return the reports of that kind, with these details, that have come so far."""
        self._read()
        return [each for each in self.all if _matches(each, what, details)]

    def wait_for(self, what: str, count: int = 1, **details: Any) -> Report:
        """Return the *count*-th report of that kind; block until it comes."""
        deadline = time.monotonic() + PATIENCE
        while len(found := self.of(what, **details)) < count:
            left = deadline - time.monotonic()
            assert left > 0, f"no {what} {details} within {PATIENCE} s; there were {self.all}"
            select.select([self._fd], [], [], left)
        return found[count - 1]

    async def seen(self, what: str, count: int = 1, **details: Any) -> Report:
        """Like :meth:`wait_for`, while the loop goes on."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._fd, readable.set)
        try:
            while len(found := self.of(what, **details)) < count:
                readable.clear()
                try:
                    await asyncio.wait_for(readable.wait(), PATIENCE)
                except asyncio.TimeoutError:
                    raise AssertionError(f"no {what} {details}; there were {self.all}") from None
            return found[count - 1]
        finally:
            loop.remove_reader(self._fd)

    def close(self) -> None:
        os.close(self._fd)

    def _read(self) -> None:
        while True:
            try:
                self._rest += os.read(self._fd, 65536)
            except BlockingIOError:
                break
        *lines, self._rest = self._rest.split(b"\n")
        self.all += [json.loads(line) for line in lines]


def _matches(report: Report, what: str, details: Report) -> bool:
    return report["what"] == what and all(report.get(k) == v for k, v in details.items())


@contextmanager
def reports_in(directory: Path) -> Iterator[Reports]:
    """Make the FIFO in *directory* and close it afterwards."""
    opened = Reports(directory / "reports")
    try:
        yield opened
    finally:
        opened.close()
