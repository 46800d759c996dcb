"""One life of the program under test, as its harness sees it: a process, orders to it, its log, its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.chaos import disk
from tests.chaos.ledger import Life
from tests.chaos.plan import Fault

ROOT: Final = Path(__file__).parents[2]


class Program:
    """One life of the program under test: its process, its log, its end."""

    def __init__(
        self, directory: Path, life: Life, seed: int, *, own_disk: bool, cgroup: Path | None
    ) -> None:
        self.life = life
        program = [sys.executable, "-m", "tests.chaos.subject", os.fspath(directory), life.name]
        self.process = subprocess.Popen(
            disk.command(directory / f"disk-{life.name}", [*program, str(seed)], own_disk=own_disk),
            stdin=subprocess.PIPE,
            start_new_session=True,  # as a service manager does: nobody else is in there
            cwd=ROOT,
            env={
                **os.environ,
                "GREENROOM_SOCKET": os.fspath(directory / "control" / "socket"),
                "CHAOS_CGROUP": os.fspath(cgroup) if cgroup is not None else "",
            },
        )
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(self.process.pid)
        self.ended = asyncio.Event()
        self._loop.add_reader(self._pidfd, self._exited)
        self._own_disk = own_disk
        self._directory = directory / f"disk-{life.name}"
        self.disk: disk.Disk | None = None
        self.full = False
        self._tail = b""
        # What was raised where nobody expects it. Nothing may be, whatever goes wrong.
        self.errors: list[str] = []

    def _exited(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.process.wait()
        self.ended.set()

    def order(self, fault: Fault) -> None:
        """Have the saboteur inside carry *fault* out."""
        assert self.process.stdin is not None
        line = {"number": fault.number, "kind": fault.kind, **fault.details}
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(line).encode() + b"\n")
            self.process.stdin.flush()

    def collect_log(self, into: Path) -> None:
        """Keep what it logged of note: all that is no line of INFO."""
        if self.disk is None:
            with contextlib.suppress(FileNotFoundError):
                self.disk = disk.Disk(self.process.pid, self._directory)
        if self.disk is None or self.full:
            return
        *lines, self._tail = (self._tail + self.disk.read()).split(b"\n")
        notable = [line for line in lines if b'"level":"INFO"' not in line and line.strip(b"\0")]
        self.errors += [line.decode(errors="replace")[:2000] for line in lines if _is_raised(line)]
        with into.open("ab") as file:
            file.writelines(line.lstrip(b"\0") + b"\n" for line in notable)

    def close(self) -> None:
        """Let go of its descriptors."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        if self.disk is not None:
            self.disk.close()


def _is_raised(line: bytes) -> bool:
    """Return whether *line* of the log is about an exception that reached the loop."""
    if b'"logger":"asyncio"' not in line or b'"level":"ERROR"' not in line:
        return False
    return b"out of system resource" not in line  # accept() without descriptors: it tries again


@contextlib.contextmanager
def few_descriptors(pid: int, left: int) -> Iterator[None]:
    """Let *pid* open no more than *left* descriptors more than it has."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # The limit is on numbers, not on how many there are.
    highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(soft, highest + 1 + left), hard))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # killed meanwhile
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
