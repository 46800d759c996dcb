"""The conductor's side: contestants, each in a process of its own, asked in turns.

Only one pool is alive while a figure is taken, unless a benchmark says otherwise:
several of the peers poll while they are idle. So each round starts each contestant
anew, and a round's figures include what differs from one start to the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from benchmarks.drivers.registry import REGISTRY

# Only matters when a contestant hangs, which is then its result.
PATIENCE = 90.0


class OutError(Exception):
    """A contestant cannot take part. The text says why; the others go on."""


class Contestant:
    """One started contestant. Used in a ``with`` block, from one thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.label = REGISTRY[name].label
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the contestant is
        self._socket, far = socket.socketpair()
        self._socket.settimeout(PATIENCE)
        self._lines = self._socket.makefile("r", encoding="utf-8")
        with far:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.drive", name, str(far.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[far.fileno()],
                start_new_session=True,  # so that its processes can be ended as a group
            )

    @property
    def pid(self) -> int:
        """Its process, which owns the pool."""
        return self._process.pid

    def __enter__(self) -> Contestant:
        try:
            self._answer()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            if kind is None:
                self.ask("close")
        finally:
            self._end()

    def ask(self, do: str, **arguments: Any) -> Any:
        """Return what the contestant answers.

        Raises:
            OutError: it is not installed, has no such thing, failed, or hung.
        """
        try:
            self._socket.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
        except OSError:
            raise OutError(f"ended: {self._last_words()}") from None
        return self._answer()

    def _answer(self) -> Any:
        try:
            line = self._lines.readline()
        except TimeoutError:
            raise OutError(f"hung for {PATIENCE:g} s") from None
        except OSError:
            line = ""
        if not line:
            raise OutError(f"ended: {self._last_words()}")
        answer = json.loads(line)
        if "missing" in answer:
            raise OutError(f"not installed: {answer['missing']}")
        if "cannot" in answer:
            raise OutError(answer["cannot"])
        if "error" in answer:
            raise OutError(answer["error"].strip().splitlines()[-1])
        return answer["value"]

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _end(self) -> None:
        self._lines.close()
        self._socket.close()  # it leaves once nobody asks any more
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        # Whatever of it is left: peers do not all clean up, and the next must have the machine.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()


@contextlib.contextmanager
def opened(name: str, **workload: Any) -> Iterator[Contestant]:
    """Start *name* with a pool for *workload*, warm; end it at the end.

    Raises:
        OutError: it cannot take part.
    """
    with Contestant(name) as contestant:
        contestant.ask("open", **workload)
        yield contestant


class Field:
    """The contestants of one benchmark. Who drops out once is not asked again."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.out: dict[str, str] = {}

    @property
    def left(self) -> list[str]:
        """Who is still in."""
        return [name for name in self.names if name not in self.out]

    @contextlib.contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Run one contestant's turn; if it drops out, note and say why."""
        try:
            yield
        except OutError as exc:
            self.out[name] = str(exc)
            print(f"  {REGISTRY[name].label}: {exc}", file=sys.stderr, flush=True)
