"""``dev`` with reload: what a developer sees, and what nobody must lose by it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest

from supervisor.cli.client import ControlClient
from tests.integration.conftest import wait_until
from tests.integration.program import Program, Terminal, a_program, terminal

pytestmark = pytest.mark.slow

SERVING = "serving as S-"
RELOADED = r"reloaded in (\d+\.\d\d) s: from save to warm"


@pytest.fixture
def program() -> Iterator[Program]:
    with a_program() as made:
        yield made


def ready(screen: Terminal) -> None:
    screen.expect(SERVING)


def test_an_afternoon_at_the_terminal(program: Program) -> None:
    (program.directory / "client.py").write_text(AGENT_CLIENT)
    with terminal(program, "dev") as screen:
        watching = "reloads when a file changes under " + str(program.directory)
        screen.expect(watching, SERVING)
        assert screen.coloured
        assert program.run("submit", "r", "--wait").returncode == 0
        screen.expect("one r resuming=False")

        program.write("two")
        screen.expect(r"agent\.py changed: starting the new code")
        seconds = screen.expect(RELOADED)[1]
        assert 0.0 < float(seconds) < 30.0
        assert program.run("submit", "r", "--wait").returncode == 0
        screen.expect("two r resuming=False")

        program.script.write_text(program.script.read_text() + "\nif True\n")
        screen.expect("SyntaxError: expected ':'")
        screen.expect(r"the new code does not start \(exit status 1, reason above\)")
        assert run_client(program, "submit", "r", "--wait").returncode == 0
        screen.expect("two r resuming=False")

        program.write("two")
        program.script.write_text("import nothing_of_this_name\n" + program.script.read_text())
        screen.expect("ModuleNotFoundError: No module named 'nothing_of_this_name'")
        screen.expect("does not start")
        program.write("three")
        screen.expect(RELOADED)
        assert program.run("submit", "r", "--wait").returncode == 0
        screen.expect("three r resuming=False")

        screen.press(b"\x03")
        assert screen.end() == 0
        assert "KeyboardInterrupt" not in screen.text()
        assert screen.text().count("Traceback") == 1, "the import error's, and no other"
    assert not list((program.directory / "greenroom").glob("*.sock"))


# The program of a user whose agent.py is broken just now.
AGENT_CLIENT = """
from supervisor import AgentServer, cli
if __name__ == "__main__":
    cli.run_app(AgentServer())
"""


def run_client(program: Program, *words: str) -> subprocess.CompletedProcess[str]:
    command = [program.command()[0], "client.py", *words]
    return subprocess.run(
        command,
        cwd=program.directory,
        env=program.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_running_jobs_are_resumed_and_whoever_waits_for_them_goes_on_waiting(
    program: Program,
) -> None:
    with terminal(program, "dev") as screen:
        ready(screen)
        assert program.run("submit", "r", "--job-id", "J-0", "--wait").returncode == 0
        waiting = subprocess.Popen(
            program.command("submit", "long-1", "--wait", "--job-id", "J-1"),
            cwd=program.directory,
            env=program.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            screen.expect("one long-1 resuming=False")
            program.script.write_text(
                program.script.read_text()
                .replace("sleep(1000)", "sleep(0.5)")
                .replace('"one ', '"two ')
            )
            screen.expect(r"job J-1 ended: cancelled \(reload\)")
            screen.expect(RELOADED + "; jobs resumed: 1;", "two long-1 resuming=True")
            out, _ = waiting.communicate(timeout=60)
        finally:
            waiting.kill()
            waiting.communicate()
        assert waiting.returncode == 0
        assert out.splitlines()[-1] == "J-1 succeeded"
        # What had ended before is known to the new server as well.
        (path,) = (program.directory / "greenroom").glob("*.sock")
        assert ControlClient(path).job("J-0")["status"] == "succeeded"
        screen.press(b"\x03")
        assert screen.end() in (0, 124)


def test_no_submit_is_lost_while_one_server_follows_another(program: Program) -> None:
    runs: list[subprocess.CompletedProcess[str]] = []
    stop = threading.Event()

    def submit_on_and_on() -> None:
        while not stop.is_set():
            runs.append(program.run("submit", "r", "--wait", "--count", "5"))

    with terminal(program, "dev", "--log-level", "info") as screen:
        ready(screen)
        clients = [threading.Thread(target=submit_on_and_on) for _ in range(2)]
        for client in clients:
            client.start()
        try:
            for version in ("two", "three", "four"):
                program.write(version)
                screen.expect(RELOADED, f"{version} r resuming=")
        finally:
            stop.set()
            for client in clients:
                client.join()
        screen.press(b"\x03")
        assert screen.end() in (0, 124)
    assert len(runs) >= 3
    failed = [run.stdout + run.stderr for run in runs if run.returncode != 0]
    assert not failed


def test_a_setup_that_fails_is_code_that_does_not_start(program: Program) -> None:
    with terminal(program, "dev") as screen:
        ready(screen)
        broken = "server.setup_fnc = lambda proc: 1 / 0\n\nif __name__"
        program.script.write_text(program.script.read_text().replace("\nif __name__", broken, 1))
        screen.expect("ZeroDivisionError", "does not start")
        assert program.run("submit", "r", "--wait").returncode == 0
        screen.expect("one r resuming=False")
        screen.press(b"\x03")
        assert screen.end() == 0


def test_a_change_while_the_new_code_starts_makes_it_obsolete(program: Program) -> None:
    with terminal(program, "dev") as screen:
        ready(screen)
        slow = "import time\ntime.sleep(1000)\n"
        program.script.write_text(slow + program.script.read_text())
        screen.expect("starting the new code")
        program.write("three")
        screen.expect(RELOADED)
        assert program.run("submit", "r", "--wait").returncode == 0
        screen.expect("three r resuming=False")
        screen.press(b"\x03")
        assert screen.end() == 0


def test_a_change_while_the_first_server_starts_starts_it_again(program: Program) -> None:
    # The reloader itself imports the program as well, so only the setup may hang.
    text = program.script.read_text()
    hangs = text.replace(
        "\nif __name__",
        "import time\nserver.setup_fnc = lambda proc: (print('hangs'), time.sleep(9))\n\nif __name__",
        1,
    )
    program.script.write_text(hangs)
    with terminal(program, "dev") as screen:
        screen.expect("greenroom.stdout  hangs")
        program.write("two")
        screen.expect(r"agent\.py changed: starting again")
        ready(screen)
        assert program.run("submit", "r", "--wait").returncode == 0
        screen.expect("two r resuming=False")
        screen.press(b"\x03")
        assert screen.end() == 0


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["-X", "dev", "-m", "agent", "dev"], id="a module, and options of Python"),
        pytest.param(["agent.py"], id="a program that makes its own sys.argv"),
    ],
)
def test_however_the_program_was_started_it_is_started_so_again(
    program: Program, words: list[str]
) -> None:
    if words == ["agent.py"]:
        made_up = "__import__('sys').argv = ['agent.py', 'dev', '--log-level', 'info']"
        text = program.script.read_text().replace("    cli.run", f"    {made_up}\n    cli.run")
        program.script.write_text(text)
    with terminal(program, command=[sys.executable, *words]) as screen:
        ready(screen)
        program.script.write_text(program.script.read_text() + "# changed\n")
        screen.expect(RELOADED)
        screen.press(b"\x03")
        assert screen.end() == 0


def test_other_files_count_only_when_they_are_named(program: Program) -> None:
    (program.directory / "prompts").mkdir()
    with terminal(program, "dev", "--reload-include", "*.yaml") as screen:
        screen.expect(r"no file matches --reload-include \*\.yaml; one may come later")
        ready(screen)
        for name in (".venv/lib/x.py", ".git/x.py", "notes.txt", "__pycache__/x.py"):
            path = program.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        (program.directory / "prompts" / "greeting.yaml").write_text("x")
        changed = screen.expect(r"(\S+)( and \d+ more)? changed: starting the new code")
        assert changed[1] == "prompts/greeting.yaml"
        assert changed[2] is None
        screen.expect(RELOADED)
        screen.press(b"\x03")
        assert screen.end() == 0


def test_no_reload_when_it_is_not_wanted(program: Program) -> None:
    with terminal(program, "dev", "--no-reload") as screen:
        ready(screen)
        assert psutil.Process(screen.pid).cmdline()[0] == "greenroom: supervisor"
        program.write("two")
        assert program.run("submit", "r", "--wait").returncode == 0
        screen.expect("one r resuming=False")
        screen.press(b"\x03")
        assert screen.end() == 0
        assert "changed" not in screen.text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_reloader_stops_the_job_within_the_grace(
    program: Program, number: int
) -> None:
    with terminal(program, "dev") as screen:
        ready(screen)
        program.run("submit", "long")
        screen.expect("one long")
        os.kill(screen.pid, number)
        screen.expect(r"ended: cancelled \(drain\)")
        assert screen.end() == 124, "the drain's deadline, which is at once under dev"


def test_killed_outright_the_reloader_takes_everything_with_it(program: Program) -> None:
    # Not on a terminal, whose end would be told to all of them.
    with program.started("dev") as reloader:
        assert reloader.stdout is not None
        until(reloader.stdout, b"serving as")
        program.run("submit", "long")
        until(reloader.stdout, b"one long")
        # One that is still importing must not be left behind either.
        program.script.write_text("import time\ntime.sleep(1000)\n" + program.script.read_text())
        until(reloader.stdout, b"starting the new code")
        wait_until(lambda: len(psutil.Process(reloader.pid).children()) == 2)
        family = psutil.Process(reloader.pid).children(recursive=True)
        assert len(family) >= 5, "two servers, a fork server, a job, an idle worker"
        reloader.kill()
        wait_until(lambda: not [each for each in family if alive(each)])


def until(lines: IO[bytes], text: bytes) -> None:
    for line in lines:
        if text in line:
            return
    raise AssertionError(f"it ended and did not say {text!r}")


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_drain_ends_the_reloader_too(program: Program) -> None:
    with terminal(program, "dev") as screen:
        ready(screen)
        assert program.run("drain").returncode == 0
        assert screen.end() == 0


def test_a_server_that_cannot_start_ends_the_reloader_with_one_line(program: Program) -> None:
    program.script.write_text(program.script.read_text().replace("@server.rtc_session", "@later"))
    text = program.script.read_text().replace(
        "server = Agent", "later = lambda **_: lambda f: f\nserver = Agent"
    )
    program.script.write_text(text)
    run = program.run("dev")
    assert run.returncode == 1
    assert run.stderr == (
        "greenroom: no entrypoint: decorate a function with @server.rtc_session()\n"
    )


def test_the_processes_tell_who_they_are(program: Program) -> None:
    with terminal(program, "dev") as screen:
        ready(screen)
        program.run("submit", "long", "--job-id", "J-17")
        screen.expect("one long")

        def titles() -> set[str]:
            family = [psutil.Process(screen.pid)]
            family += family[0].children(recursive=True)
            return {each.cmdline()[0] for each in family if alive(each) and each.cmdline()}

        expected = {"reloader", "supervisor", "fork server", "job J-17", "idle"}
        wait_until(lambda: {f"greenroom: {each}" for each in expected} <= titles())
        screen.press(b"\x03")
        assert screen.end() == 124


def test_secrets_are_not_to_be_seen(program: Program) -> None:
    secret = "s3cr3t-of-the-test"
    words = ("dev", "--api-secret", secret, f"--api-key={secret}", "--log-level", "debug")
    with terminal(program, *words) as screen:
        screen.expect("warning: --api-key can be seen")
        ready(screen)
        program.script.write_text(
            program.script.read_text().replace(
                "    if ctx",
                "    import os, sys\n    print('argv', sys.argv, dict(os.environ))\n    if ctx",
            )
        )
        screen.expect(RELOADED)
        program.run("submit", "long")
        screen.expect("argv")
        family = [psutil.Process(screen.pid), *psutil.Process(screen.pid).children(recursive=True)]
        for process in family:
            assert secret not in Path(f"/proc/{process.pid}/cmdline").read_text()
        screen.press(b"\x03")
        screen.end()
        assert secret not in screen.text()
