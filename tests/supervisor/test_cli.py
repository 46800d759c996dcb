"""cli: real processes with a server that is a fake, and a real control socket between them."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from loguru import logger as loguru_logger

from supervisor.cli.logging import InterceptHandler, configure_logging

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
from supervisor import cli
from supervisor.errors import NotAdmitted, SetupFailed, SupervisorError
from tests.supervisor.fakes_host import FakeServer
{prelude}
if __name__ == "__main__":
    cli.run_app(FakeServer({arguments}))
"""

Run = subprocess.CompletedProcess[str]


@pytest.fixture
def directory() -> Iterator[Path]:
    # Not tmp_path: a path to a unix socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="gr-") as name:
        yield Path(name)


class Shell:
    """A user at a terminal: an environment, a program, and what they type."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("GREENROOM_")
        }
        self.environment |= {"XDG_RUNTIME_DIR": str(directory), "PYTHONPATH": str(ROOT)}
        self.servers: list[subprocess.Popen[str]] = []
        self.prelude = ""

    def command(self, *words: str, arguments: str = "") -> list[str]:
        program = self.directory / "agent.py"
        program.write_text(PROGRAM.format(arguments=arguments, prelude=self.prelude))
        return [sys.executable, "-X", "dev", str(program), *words]

    def run(self, *words: str, arguments: str = "", stdin: str = "", **environment: str) -> Run:
        return subprocess.run(
            self.command(*words, arguments=arguments),
            capture_output=True, text=True, check=False, timeout=60, input=stdin,
            env=self.environment | environment,
        )  # fmt: skip

    def begin(self, *words: str, arguments: str = "", **environment: str) -> dict[str, Any]:
        """Start a server, and return the log line in which it says that it serves."""
        server = subprocess.Popen(
            self.command(*words, arguments=arguments),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=self.environment | environment,
        )  # fmt: skip
        self.servers.append(server)
        assert server.stdout is not None
        for line in server.stdout:
            if "serving" in line:
                return dict(json.loads(line)) if line.startswith("{") else {"text": line}
        raise AssertionError(f"it ended with {server.wait()} and did not serve")

    def end(self) -> tuple[int, str]:
        """Wait for the last server's end; return its exit status and the rest of its output."""
        server = self.servers.pop()
        assert server.stdout is not None
        # Not communicate(): it reads past what the reader of lines has buffered.
        with server.stdout as rest:
            output = rest.read()
        return server.wait(60), output

    def close(self) -> None:
        for server in self.servers:
            server.kill()
            server.communicate()


@pytest.fixture
def shell(directory: Path) -> Iterator[Shell]:
    shell = Shell(directory)
    yield shell
    shell.close()


# ── start and dev ────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_start_logs_json_and_exits_with_the_status_of_the_server(shell: Shell) -> None:
    line = shell.begin("start", arguments="124, port=None")
    assert list(line)[:4] == ["timestamp", "level", "message", "logger"]
    assert (line["level"], line["message"], line["logger"]) == (
        "INFO",
        "serving",
        "greenroom.server",
    )
    assert line["pid"] == shell.servers[0].pid
    assert line["function"] == "run"
    shell.servers[0].send_signal(signal.SIGTERM)
    assert shell.end() == (124, "")


@pytest.mark.slow
def test_dev_logs_readable_lines_at_debug(shell: Shell) -> None:
    line = shell.begin("dev")["text"]
    assert "INFO     greenroom.server  serving  options={'num_idle_processes': 1, " in line
    assert "\x1b" not in line, "no terminal, no colour"
    shell.servers[0].send_signal(signal.SIGTERM)
    status, output = shell.end()
    assert status == 0
    assert "DEBUG    greenroom.server  in detail" in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "environment", "constructor", "expected"),
    [
        pytest.param("", {}, "", {"num_idle_processes": 2, "port": 8081}, id="defaults"),
        pytest.param("", {}, "num_idle_processes=5", {"num_idle_processes": 5}, id="constructor"),
        pytest.param(
            "",
            {"NUM_IDLE_PROCESSES": "6", "HOST": "::1", "DRAIN_TIMEOUT": "7.5"},
            "num_idle_processes=5, host='x', drain_timeout=1",
            {"num_idle_processes": 6, "host": "::1", "drain_timeout": 7.5},
            id="the environment before the constructor",
        ),
        pytest.param(
            "--num-idle-processes 8 --host y --drain-timeout 3 --load-threshold 0.5 --port 0",
            {"NUM_IDLE_PROCESSES": "6", "HOST": "::1", "PORT": "1", "LOAD_THRESHOLD": "0.1"},
            "num_idle_processes=5",
            {"num_idle_processes": 8, "host": "y", "drain_timeout": 3.0, "load_threshold": 0.5,
             "port": 0},
            id="the command line before the environment",
        ),
        pytest.param(
            "--drain-timeout none --port none --load-threshold inf",
            {"PORT": ""},
            "",
            {"drain_timeout": None, "port": None, "load_threshold": None},
            id="none and infinite",
        ),
    ],
)  # fmt: skip
def test_where_an_option_comes_from(
    shell: Shell,
    words: str,
    environment: dict[str, str],
    constructor: str,
    expected: dict[str, Any],
) -> None:
    variables = {f"GREENROOM_{name}": value for name, value in environment.items()}
    line = shell.begin("start", *words.split(), arguments=constructor, **variables)
    if constructor or words or environment:
        assert {name: line["options"][name] for name in expected} == expected
    else:
        assert line["options"]["port"] == 8081


@pytest.mark.slow
@pytest.mark.parametrize("given", ["--log-level debug", "--log-level Debug", "GREENROOM_LOG_LEVEL"])
def test_the_log_level_in_any_case(shell: Shell, given: str) -> None:
    from_environment = given.startswith("GREENROOM")
    words = [] if from_environment else given.split()
    variables = {given: "dEBUG"} if from_environment else {}
    shell.begin("start", *words, arguments="log_level='ERROR'", **variables)
    shell.servers[0].send_signal(signal.SIGTERM)
    assert '"message":"in detail"' in shell.end()[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "variables", "complaint"),
    [
        ("start --log-level loud", {}, "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("dev", {"GREENROOM_LOG_LEVEL": "loud"}, "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("start --num-idle-processes -1", {}, "num_idle_processes=-1: expected a whole number"),
        ("start --num-idle-processes x", {}, "--num-idle-processes"),
        ("start --load-threshold nan", {}, "load_threshold=nan: expected a number"),
        ("start --drain-timeout soon", {}, "expected seconds, 0 or more, or none"),
        ("start --drain-timeout -1", {}, "expected seconds, 0 or more, or none"),
        ("start --port 65536", {}, "expected 0 to 65535"),
        ("start --port -1", {}, "expected 0 to 65535"),
        ("start", {"GREENROOM_PORT": "http"}, "expected 0 to 65535"),
        (
            "start --url foo://x",
            {},
            "'--url' / 'LIVEKIT_URL': ws_url='foo://x': expected an address",
        ),
        ("dev", {"LIVEKIT_URL": "localhost:7880"}, "with ws, wss, http, https before its ://"),
        ("begin", {}, "begin"),
        ("submit", {}, "Missing argument"),
        ("submit r --count 2 --job-id J", {}, "--job-id names one job"),
        ("submit r --metadata @/no/such/file", {}, "No such file"),
        ("submit r --metadata @/dev/zero", {}, "over the limit of 1048576 bytes"),
        ("submit vip-\udcff", {}, "'vip-\\udcff': expected UTF-8"),
        ("submit r --metadata \udcff", {}, "'\\udcff': expected UTF-8"),
        ("submit r --job-id \udcff", {}, "'\\udcff': expected UTF-8"),
        ("submit r --publisher \udcff", {}, "'\\udcff': expected UTF-8"),
        ("submit r --agent-name \udcff", {}, "'\\udcff': expected UTF-8"),
        ("submit r --timeout 5", {}, "--timeout: it bounds the waiting, so it needs --wait"),
        ("submit r --wait --timeout nan", {}, "expected seconds, 0 or more, or none"),
        ("submit r --rate nan", {}, "expected a number above 0"),
        ("status --interval 2", {}, "--interval: it needs --watch"),
        ("status --watch --interval nan", {}, "expected seconds, 0.1 or more"),
        ("dev --reload-include /no/such/a.yaml", {}, "there is no /no/such"),
        ("dev --reload-include ../no/such/*", {}, "expected files in a directory that exists"),
        ("dev --reload-include /", {}, "expected files, not a directory"),
    ],
)
def test_usage_errors_exit_with_2(
    shell: Shell, words: str, variables: dict[str, str], complaint: str
) -> None:
    run = shell.run(*words.split(), **variables)
    assert (run.returncode, run.stdout) == (2, "")
    assert complaint in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("SupervisorError('port 8081 is in use')", "greenroom: port 8081 is in use\n"),
        ("OSError(24, 'Too many open files')", "greenroom: [Errno 24] Too many open files\n"),
        ("NotAdmitted('x')", "greenroom: not admitted: x\n"),
        ("SetupFailed('setup_fnc failed', 'Traceback: y')", "greenroom: setup_fnc failed\n"),
    ],
)
def test_a_failed_start_is_one_line_and_exit_1(shell: Shell, error: str, line: str) -> None:
    run = shell.run("start", arguments=error)
    assert (run.returncode, run.stderr) == (1, line)
    if "SetupFailed" in error:
        assert "Traceback: y" in json.loads(run.stdout.splitlines()[-1])["message"], "the log"


@pytest.mark.slow
def test_without_a_command_it_shows_the_commands(shell: Shell) -> None:
    run = shell.run()
    for name in ("start", "dev", "submit", "status", "drain"):
        assert name in run.stdout + run.stderr


@pytest.mark.slow
def test_the_version_and_the_completion(shell: Shell) -> None:
    run = shell.run("--version")
    assert run.returncode == 0
    assert re.fullmatch(r"greenroom (\S+|\(not installed\)), Python 3\.\d+\.\S+, \w+\n", run.stdout)
    # As the function does that --install-completion puts into the shell.
    asked = {"COMP_WORDS": "agent.py start --log-level ", "COMP_CWORD": "3"}
    completed = shell.run(**asked, **{"_AGENT.PY_COMPLETE": "complete_bash"})
    assert completed.stdout.split() == ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["start", "dev", "submit", "status", "drain"])
def test_the_help_of_each_command_tells_the_exit_status(shell: Shell, command: str) -> None:
    run = shell.run(command, "--help", arguments="num_idle_processes=5", GREENROOM_PORT="1234")
    assert run.returncode == 0
    assert "Exit status:\n    0    " in run.stdout
    if command in ("start", "dev"):
        words = " ".join(run.stdout.split())
        assert "[GREENROOM_NUM_IDLE_PROCESSES; default: 5, from the program]" in words
        assert "[GREENROOM_PORT; default: 1234, from the environment]" in words
        assert "124 the drain's deadline was enforced" in words


@pytest.mark.slow
def test_a_misspelt_variable_is_warned_about(shell: Shell) -> None:
    shell.begin("start", GREENROOM_MAX_JOB="3")
    shell.servers[0].send_signal(signal.SIGTERM)
    run = shell.run("start", arguments="SupervisorError('no')", GREENROOM_MAX_JOB="3")
    first = json.loads(run.stdout.splitlines()[0])
    assert first["level"] == "WARNING"
    assert "did you mean GREENROOM_MAX_JOBS?" in first["message"]


@pytest.mark.slow
def test_systemd_is_told_when_it_serves(shell: Shell) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        path = str(shell.directory / "notify")
        systemd.bind(path)
        systemd.settimeout(30)
        run = shell.run(
            "start", arguments="SupervisorError('port 1 is in use')", NOTIFY_SOCKET=path
        )
        assert run.returncode == 1
        assert systemd.recv(4096) == b"STATUS=failed: port 1 is in use"


# ── submit, status, drain ────────────────────────────────────────────────────


@pytest.mark.slow
def test_submit_and_wait(shell: Shell) -> None:
    shell.begin("start")
    run = shell.run("submit", "quick", "--wait", "--job-id", "J-1")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == "J-1 succeeded\n", "over before it was waited for, and told once"
    run = shell.run("submit", "broken", "--wait", "--job-id", "J-2")
    assert (run.returncode, run.stdout.splitlines()[-1]) == (1, "J-2 failed: ValueError: no")
    run = shell.run("submit", "long", "--count", "3", "--wait", "--timeout", "0.05")
    assert run.returncode == 124
    *jobs, summary = run.stdout.splitlines()
    assert [line.split()[1] for line in jobs] == ["running"] * 3
    assert summary.endswith(": 3 not ended")
    assert "has not ended; it goes on" in run.stderr


@pytest.mark.slow
def test_metadata_comes_from_text_a_file_or_standard_input(shell: Shell) -> None:
    shell.begin("start")
    path = shell.directory / "metadata"
    path.write_text("from a file ü")
    for number, given in enumerate(["text", f"@{path}", "-"]):
        words = ("--metadata", given, "--job-id", f"J-{number}", "--agent-name", "a")
        run = shell.run("submit", "r", *words, stdin="from stdin")
        assert (run.returncode, run.stdout) == (0, f"J-{number} running\n")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(next((shell.directory / "greenroom").glob("*.sock"))))
        client.sendall(b"GET /jobs HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    jobs = json.loads(answer.partition(b"\r\n\r\n")[2])["jobs"]
    assert [job["metadata"] for job in jobs] == ["text", "from a file ü", "from stdin"]


@pytest.mark.slow
def test_what_the_server_refuses(shell: Shell) -> None:
    shell.begin("start")
    run = shell.run("submit", "no-way")
    assert (run.returncode, run.stderr) == (1, "greenroom: rejected: not ours\n")
    run = shell.run("submit", "")
    assert (run.returncode, run.stderr) == (2, "greenroom: room='': expected a name\n")


@pytest.mark.slow
def test_status(shell: Shell) -> None:
    shell.begin("start")
    shell.run("submit", "r", "--job-id", "J-1")
    run = shell.run("status")
    assert run.returncode == 0
    lines = run.stdout.splitlines()
    assert lines[0] == "AW-fake: ready"
    assert "2 idle, 1 running" in run.stdout
    assert lines[-2].split() == ["JOB", "STATUS", "ROOM", "PID", "AGE"]
    assert lines[-1].split() == ["J-1", "running", "r", "4711", "-"]
    run = shell.run("status", "--json")
    assert json.loads(run.stdout)["workers"] == {"idle": 2, "running": 1}


@pytest.mark.slow
def test_status_again_and_again_until_the_server_is_gone(shell: Shell) -> None:
    shell.begin("start")
    with subprocess.Popen(
        shell.command("status", "--watch", "--json", "--interval", "0.1"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=shell.environment,
    ) as watching:  # fmt: skip
        assert watching.stdout is not None
        assert watching.stderr is not None
        for _ in range(2):
            assert json.loads(watching.stdout.readline())["ready"] is True
        shell.servers[0].kill()
        watching.stdout.read()
        assert "no server listens on" in watching.stderr.read()
        assert watching.wait(30) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    ["status --watch --json --interval 0.1", "status --watch --interval 0.1", "status", "submit r"],
)
def test_a_command_whose_reader_is_gone_ends_as_quietly_as_others(shell: Shell, words: str) -> None:
    shell.begin("start")
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as nobody_reads:
        run = subprocess.run(
            shell.command(*words.split()), stdout=nobody_reads, stderr=subprocess.PIPE,
            env=shell.environment, check=False, timeout=60,
        )  # fmt: skip
    assert (run.returncode, run.stderr) == (-signal.SIGPIPE, b"")


@pytest.mark.slow
def test_an_output_that_takes_nothing_is_told_in_one_line(shell: Shell) -> None:
    shell.begin("start")
    with open("/dev/full", "wb") as full:
        run = subprocess.run(
            shell.command("status", "--json"), stdout=full, stderr=subprocess.PIPE,
            env=shell.environment, check=False, timeout=60,
        )  # fmt: skip
    assert run.returncode == 1
    assert run.stderr == b"greenroom: [Errno 28] No space left on device\n"


@pytest.mark.slow
def test_status_is_watched_until_ctrl_c(shell: Shell) -> None:
    shell.begin("start")
    with subprocess.Popen(
        shell.command("status", "--watch"), stdout=subprocess.PIPE, text=True,
        env=shell.environment | {"PYTHONUNBUFFERED": "1"},
    ) as watching:  # fmt: skip
        assert watching.stdout is not None
        assert watching.stdout.readline() == "AW-fake: ready\n"
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()
        assert watching.wait(30) == 0


@pytest.mark.slow
def test_jobs_are_submitted_at_a_rate_and_summed_up(shell: Shell) -> None:
    shell.begin("start")
    run = shell.run(
        "submit", "room-{n}", "--count", "3", "--rate", "50", "--wait", "--timeout", "0"
    )
    assert run.returncode == 124
    assert run.stdout.splitlines()[-1].endswith(": 3 not ended")
    shown = shell.run("status").stdout
    assert all(f"room-{number} " in shown for number in (1, 2, 3))
    run = shell.run("submit", "no-{n}", "--count", "2")
    assert (run.returncode, run.stderr) == (1, "greenroom: rejected: not ours\n" * 2)


@pytest.mark.slow
def test_a_rooms_name_does_nothing_to_the_terminal(shell: Shell) -> None:
    shell.begin("start")
    shell.run("submit", "evil\x1b[2J\nJ-9 succeeded \u202e[red]", "--job-id", "J-\x1b1")
    run = shell.run("status")
    assert run.stdout.splitlines()[-1].split() == [
        "J-\\x1b1", "running", "evil\\x1b[2J\\nJ-9", "succeeded", "\\u202e[red]", "4711", "-",
    ]  # fmt: skip


@pytest.mark.slow
def test_drain_waits_until_the_process_is_gone(shell: Shell) -> None:
    shell.begin("start")
    run = shell.run("drain", "--timeout", "none")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert shell.servers[0].poll() == 0, "gone when drain returns, not a moment later"
    assert '"message":"draining: None"' in shell.end()[1]


@pytest.mark.slow
def test_drain_need_not_wait(shell: Shell) -> None:
    shell.begin("start")
    assert shell.run("drain", "--no-wait").returncode == 0
    assert '"message":"draining: Ellipsis"' in shell.end()[1]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["status", "drain", "submit r"])
def test_no_server_to_talk_to(shell: Shell, command: str) -> None:
    run = shell.run(*command.split())
    assert run.returncode == 1
    assert "no server of this user is running: nothing listens in" in run.stderr
    run = shell.run(*command.split(), "--socket", str(shell.directory / "s"))
    assert run.returncode == 1
    assert "no server listens on" in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.slow
def test_of_several_servers_one_is_chosen(shell: Shell) -> None:
    for _ in range(2):
        shell.begin("start")
    run = shell.run("status")
    assert run.returncode == 1
    assert "several servers are running; choose one with --socket:\n" in run.stderr
    for server in shell.servers:
        path = shell.directory / "greenroom" / f"{server.pid}.sock"
        assert f"  --socket {path}  pid {server.pid}, agent (any), ready\n" in run.stderr
        shown = json.loads(shell.run("status", "--json", "--socket", str(path)).stdout)
        assert shown["pid"] == server.pid


@pytest.mark.slow
def test_a_socket_of_its_own(shell: Shell) -> None:
    path = str(shell.directory / "own")
    shell.begin("start", "--socket", path)
    assert shell.run("status").returncode == 1
    assert shell.run("status", "--socket", path).returncode == 0
    assert shell.run("status", GREENROOM_SOCKET=path).returncode == 0


@pytest.mark.slow
def test_a_server_that_dies_while_it_is_waited_for(shell: Shell) -> None:
    shell.begin("start")
    waiting = subprocess.Popen(
        shell.command("submit", "long", "--wait", "--job-id", "J-1"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=shell.environment,
    )  # fmt: skip
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "J-1 running\n"
    shell.servers[0].kill()
    _, errors = waiting.communicate(timeout=60)
    assert waiting.returncode == 1
    assert errors.startswith("greenroom: ")
    assert errors.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory away takes root")
def test_a_directory_of_somebody_else_is_not_trusted(shell: Shell) -> None:
    directory = shell.directory / "greenroom"
    directory.mkdir(mode=0o700)
    os.chown(directory, 65534, 65534)
    run = shell.run("status")
    assert (run.returncode, run.stderr) == (
        1,
        f"greenroom: {directory} belongs to uid 65534, not to this user\n",
    )


# ── the end ──────────────────────────────────────────────────────────────────

LEFT_BEHIND = """
import os
class Leaves:  # a class hangs in a cycle: only the garbage collector gets at what it has
    def __del__(self): print("finalized", file=sys.__stderr__)
class Keeps:
    leaves = Leaves()
    file = open(os.path.dirname(__file__) + "/log", "w")
    file.write("the last line")
"""


@pytest.mark.slow
def test_a_file_that_nobody_closed_has_its_last_lines_when_the_server_has_ended(
    shell: Shell,
) -> None:
    shell.prelude = LEFT_BEHIND
    shell.begin("start", arguments="port=None")
    shell.servers[0].send_signal(signal.SIGTERM)
    status, output = shell.end()
    assert (status, "finalized" in output) == (0, True)
    assert (shell.directory / "log").read_text() == "the last line"


@pytest.mark.slow
def test_nothing_is_looked_through_at_the_end_that_may_as_well_be_dropped(shell: Shell) -> None:
    shell.prelude = LEFT_BEHIND + "Keeps.file.close()\n"
    shell.begin("start", arguments="port=None")
    shell.servers[0].send_signal(signal.SIGTERM)
    assert shell.end() == (0, "")


# ── the environment ──────────────────────────────────────────────────────────


@pytest.mark.slow
def test_without_the_extra_it_says_what_to_install(shell: Shell) -> None:
    hidden = shell.directory / "sitecustomize.py"
    hidden.write_text("import sys\nsys.modules['typer'] = sys.modules['aiohttp'] = None\n")
    path = f"{shell.directory}{os.pathsep}{ROOT}"
    run = shell.run("start", PYTHONPATH=path)
    assert run.returncode == 1
    assert run.stderr == (
        "greenroom: the command line needs typer, aiohttp: pip install 'greenroom[server]'\n"
    )


@pytest.mark.slow
def test_supervisord_beside_us_is_told(shell: Shell) -> None:
    assert "warning" not in shell.run("start", GREENROOM_PORT="x").stderr
    beside = shell.directory / "supervisor-4.2.5.dist-info"
    beside.mkdir()
    (beside / "METADATA").write_text("Metadata-Version: 2.1\nName: supervisor\nVersion: 4.2.5\n")
    run = shell.run("start", GREENROOM_PORT="x")  # a program's own directory is searched first
    first, *_ = run.stderr.splitlines()
    assert first.startswith("greenroom: warning: the distribution supervisor 4.2.5 (supervisord)")


def test_the_door_is_light() -> None:
    heavy = ["typer", "rich", "aiohttp", "loguru", "prometheus_client", "msgspec", "psutil"]
    code = f"import supervisor.cli, sys; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout == "[]\n"


# ── logs ─────────────────────────────────────────────────────────────────────

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    loguru_logger.remove()
    loguru_logger.add(sys.stderr)
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def lines() -> Lines:
    stream = TextIOWrapper(BytesIO(), "ascii")
    configure_logging("INFO", readable=False, stream=stream)

    def read() -> list[dict[str, Any]]:
        binary = stream.buffer
        assert isinstance(binary, BytesIO)
        return [json.loads(line) for line in binary.getvalue().splitlines()]

    return read


def worker_record(**fields: object) -> logging.LogRecord:
    """Return a record as supervisor/logs.py makes it of what a worker sent."""
    record = logging.LogRecord("agent", logging.WARNING, "/x/agent.py", 7, "hi %s", (), None, "f")
    record.msg = "hi {} <red>"
    record.created = 1_700_000_000.123456
    record.exc_text = "Traceback …\nValueError: no"
    context = {"pid": 4711, "job_id": "J-1", "room": "r", "tenant": "t"}
    vars(record).update(greenroom={**context, **fields})
    return record


def test_a_workers_record_keeps_its_own_words(lines: Lines) -> None:
    logging.getLogger("agent").handle(worker_record())
    assert lines() == [
        {
            "timestamp": "2023-11-14T22:13:20.123456+00:00",
            "level": "WARNING",
            "message": "hi {} <red>",
            "logger": "agent",
            "module": "agent",
            "function": "f",
            "line": 7,
            "pid": 4711,
            "job_id": "J-1",
            "room": "r",
            "tenant": "t",
            "exception": "Traceback …\nValueError: no",
        }
    ]


def test_our_own_records_of_both_kinds(lines: Lines) -> None:
    try:
        raise LookupError("gone")
    except LookupError:
        logging.getLogger("mine").exception("oh %s", "no", extra={"shelf": 3})
        loguru_logger.bind(shelf=4).exception("oh {}", "dear")
    first, second = lines()
    assert (first["message"], first["shelf"], first["pid"]) == ("oh no", 3, os.getpid())
    assert (second["message"], second["shelf"], second["pid"]) == ("oh dear", 4, os.getpid())
    for line in (first, second):
        assert line["function"] == "test_our_own_records_of_both_kinds"
        assert line["exception"].startswith("Traceback (most recent call last):\n")
        assert line["exception"].endswith("LookupError: gone")
        assert "job_id" not in line


def test_the_level_holds_for_both_kinds_and_noise_is_quiet(lines: Lines) -> None:
    logging.getLogger("a").debug("no")
    loguru_logger.debug("no")
    logging.getLogger("asyncio").info("no")
    logging.getLogger("a").log(25, "between")
    assert [(line["level"], line["message"]) for line in lines()] == [("Level 25", "between")]


class Unspeakable:
    def __repr__(self) -> str:
        raise OSError("no words")


def test_fields_that_json_cannot_carry_do_not_lose_the_line(lines: Lines) -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    odd = {"who": Unspeakable(), "n": float("nan"), "d": {1: {2}, (3, 4): 5}, "c": cycle}
    logging.getLogger("a").info("surrogate \udcff", extra=odd | {"level": 9, "set": {1}})
    (line,) = lines()
    assert line["message"] == "surrogate \udcff"
    assert line["who"] == "<Unspeakable whose repr raised OSError>"
    assert line["n"] is None
    assert line["d"] == {"1": [2], "(3, 4)": 5}
    assert (line["level"], line["level_"]) == ("INFO", 9)


def test_a_bad_format_string_ends_nobody(lines: Lines, capsys: pytest.CaptureFixture[str]) -> None:
    bad = logging.LogRecord("a", logging.INFO, __file__, 1, "%d", ("x",), None)
    InterceptHandler().handle(bad)  # past pytest's own handlers, which raise
    assert "TypeError" in capsys.readouterr().err
    logging.getLogger("a").info("on")
    assert [line["message"] for line in lines()] == ["on"]


def test_warnings_are_log_lines_too(lines: Lines) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("careful", UserWarning, stacklevel=1)
    assert "UserWarning: careful" in lines()[0]["message"]


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_readable_lines(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], coloured: bool
) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = StringIO()
    configure_logging("INFO", readable=True, stream=stream)
    logging.getLogger("agent").handle(worker_record())
    text = stream.getvalue()
    assert ("\x1b[33m" in text) is coloured
    if not coloured:
        first, *rest = text.splitlines()
        assert first[12:] == " WARNING  agent  hi {} <red>  job_id=J-1 room=r tenant=t"
        assert rest == ["    Traceback …", "    ValueError: no"]


def test_readable_lines_on_a_terminal_that_is_not_utf8() -> None:
    binary = BytesIO()
    configure_logging("INFO", readable=True, stream=TextIOWrapper(binary, "ascii"))
    logging.getLogger("a").info("ü")
    assert binary.getvalue().endswith(b"a  \\xfc\n")
