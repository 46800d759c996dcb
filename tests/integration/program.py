"""A user's program with a server in it, run as a user runs it: in processes of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.integration.conftest import PATIENCE

ROOT = Path(__file__).parents[2]

AGENT = """
import asyncio
from supervisor import AgentServer, JobContext, cli

server = AgentServer(num_idle_processes=1, load_threshold=float("inf"), port=None)


@server.rtc_session(agent_name="greeter")
async def entrypoint(ctx: JobContext) -> None:
    print("VERSION " + f"{ctx.room.name} resuming={ctx.job.resuming}")
    if ctx.room.name.startswith("long"):
        await asyncio.sleep(1000)


if __name__ == "__main__":
    cli.run_app(server)
"""

Run = subprocess.CompletedProcess[str]


class Program:
    """A directory with ``agent.py`` in it, and what is run there.

    Args:
        directory: short, since unix sockets lie below it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.script = directory / "agent.py"
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GREENROOM_", "LIVEKIT_"))
        }
        self.environment |= {
            "XDG_RUNTIME_DIR": str(directory),
            "PYTHONPATH": str(ROOT),
            "TERM": "xterm-256color",
        }
        self.write("one")

    def write(self, version: str) -> None:
        """Save the agent, which prints *version* in each job."""
        self.script.write_text(AGENT.replace("VERSION", version), encoding="utf-8")

    def command(self, *words: str) -> list[str]:
        """Return what runs the program."""
        return [sys.executable, "agent.py", *words]

    def run(self, *words: str, stdin: str = "", **environment: str) -> Run:
        """Run a command to its end."""
        return subprocess.run(
            self.command(*words),
            cwd=self.directory,
            env=self.environment | environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @contextlib.contextmanager
    def started(self, *words: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command; it is killed at the end of the block if it still runs."""
        process = subprocess.Popen(
            self.command(*words),
            cwd=self.directory,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


class Terminal:
    """A program on a pseudo-terminal, and the person in front of it."""

    def __init__(self, program: Program, command: list[str]) -> None:
        self._screen = b""
        self._seen = 0
        pid, self._fd = pty.fork()
        if pid == 0:
            os.chdir(program.directory)
            os.execve(command[0], command, program.environment)
        self.pid = pid
        self._status: int | None = None

    def expect(self, *patterns: str) -> re.Match[str]:
        """Return the next match of the first pattern on the screen; wait for all of them.

        Several stand in any order: two processes write on one screen. What comes
        next is looked for behind all of them.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            text = self.text()
            found = [re.compile(each).search(text, self._seen) for each in patterns]
            if all(found):
                matches = [match for match in found if match is not None]
                self._seen = max(match.end() for match in matches)
                return matches[0]
            assert time.monotonic() < deadline, f"not all of {patterns} in:\n{text}"
            left = deadline - time.monotonic()
            assert self._read(left), f"it ended; not all of {patterns} in:\n{text}"

    def text(self) -> str:
        """Return all that was shown so far."""
        shown = self._screen.decode("utf-8", "replace").replace("\r\n", "\n")
        return re.sub(r"\x1b\[[0-9;]*m", "", shown)

    @property
    def coloured(self) -> bool:
        return b"\x1b[" in self._screen

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self._fd, keys)

    def end(self) -> int:
        """Return the exit status, once it has ended."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline - time.monotonic()):
            assert time.monotonic() < deadline, f"it does not end:\n{self.text()}"
        return self._wait()

    def close(self) -> None:
        """End it, whatever it does."""
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._wait()
        os.close(self._fd)

    def _wait(self) -> int:
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def _read(self, seconds: float) -> bool:
        """Read once; return False at the end."""
        if not select.select([self._fd], [], [], max(0.0, seconds))[0]:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # Linux's way of saying that nobody has the other end
            return False
        self._screen += data
        return bool(data)


@contextlib.contextmanager
def terminal(program: Program, *words: str, command: list[str] | None = None) -> Iterator[Terminal]:
    """A terminal for the block, in which the program's *words* are run, or *command*."""
    made = Terminal(program, command or program.command(*words))
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def a_program() -> Iterator[Program]:
    """A program for the block."""
    # Not tmp_path: a path to a unix socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="gr-") as name:
        yield Program(Path(name).resolve())


def until_line(process: subprocess.Popen[bytes], text: str) -> list[dict[str, Any]]:
    """Read JSON lines of a started server up to the one that contains *text*."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(json.loads(line))
        if text in lines[-1]["message"]:
            return lines
    raise AssertionError(f"it ended and did not say {text!r}: {lines}")
