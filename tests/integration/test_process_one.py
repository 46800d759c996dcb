"""The server as process 1 of a PID namespace, as it is in a container."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from tests.integration.conftest import wait_until
from tests.integration.program import Program, a_program, until_line

UNSHARE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def can_unshare() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_unshare(), reason="a PID namespace takes root"),
]

THREAD = "import threading\nif __name__ == '__main__': threading.Timer(1000, print).start()\n"


@pytest.fixture(params=["one thread", "more threads"])
def program(request: pytest.FixtureRequest) -> Iterator[Program]:
    with a_program() as made:
        if request.param == "more threads":
            timer = THREAD.replace(".start()", "").replace("threading.Timer", "t = threading.Timer")
            text = f"{timer}if __name__ == '__main__': t.daemon = True; t.start()\n"
            made.script.write_text(text + made.script.read_text())
        yield made


@contextlib.contextmanager
def container(program: Program) -> Iterator[tuple[subprocess.Popen[bytes], psutil.Process]]:
    """Run ``start`` as process 1; yield what started it, and process 1 as seen from outside."""
    process = subprocess.Popen(
        [*UNSHARE, *program.command("start")],
        cwd=program.directory,
        env=program.environment,
        stdout=subprocess.PIPE,
    )
    try:
        until_line(process, "serving as")
        (init,) = psutil.Process(process.pid).children()
        yield process, init
    finally:
        process.kill()
        process.communicate()


def test_orphans_are_reaped_and_the_server_is_told_of_signals(program: Program) -> None:
    with container(program) as (process, init):
        assert init.cmdline()[0] == "greenroom: init"
        (server,) = init.children()
        assert server.cmdline()[0] == "greenroom: supervisor"
        # As `docker exec` does: a process from outside, whose child loses its parent.
        enter = ["nsenter", "-t", str(init.pid), "-p", "-m"]
        subprocess.run([*enter, "sh", "-c", "(sleep 1000 &)"], check=True)
        wait_until(lambda: len(init.children()) == 2)
        (orphan,) = [each for each in init.children() if each != server]
        orphan.kill()
        wait_until(lambda: init.children() == [server])

        assert program.run("submit", "r", "--wait").returncode == 0
        assert program.run("submit", "long").returncode == 0
        init.send_signal(signal.SIGTERM)
        lines = until_line(process, "signal: serving ──► draining")
        init.send_signal(signal.SIGTERM)
        lines = until_line(process, "gone after")
        assert "exit status 143" in lines[-1]["message"]
        assert process.wait(30) == 143


def test_a_server_that_dies_takes_the_container_with_it(program: Program) -> None:
    with container(program) as (process, init):
        (server,) = init.children()
        server.kill()
        assert process.wait(30) == 128 + signal.SIGKILL
