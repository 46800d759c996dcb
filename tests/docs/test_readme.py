"""Every example of the README runs as printed, and every command does what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)

pytestmark = pytest.mark.slow


def block_with(text: str) -> str:
    """Return the one Python block that contains *text*."""
    found = [block for block in BLOCKS if text in block]
    assert len(found) == 1, f"{len(found)} blocks contain {text!r}"
    block: str = found[0]
    return block


def run(script: Path, *arguments: str, environment: dict[str, str] | None = None) -> str:
    told = subprocess.run(
        [sys.executable, script.name, *arguments],
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment or surroundings(),
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


def surroundings(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def test_the_first_example_prints_what_it_should(tmp_path: Path) -> None:
    script = tmp_path / "first.py"
    script.write_text(BLOCKS[0], encoding="utf-8")
    assert run(script) == "True False\n"


def test_the_first_example_is_short(tmp_path: Path) -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 15


def test_the_pool_example_runs_as_printed(tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(block_with("slow_square"), encoding="utf-8")
    lines = run(script).splitlines()
    assert lines[0] == "144 JobStatus.SUCCEEDED"
    assert "timeout of 0.5 s" in lines[1]


def test_the_executor_example_runs_as_printed(tmp_path: Path) -> None:
    script = tmp_path / "drop_in.py"
    script.write_text(block_with("executor.map"), encoding="utf-8")
    assert run(script) == "[0, 1, 8, 27, 64]\n"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str], subprocess.Popen[str]]]:
    """A server that was started with the README's own command."""
    script = tmp_path / "agent.py"
    script.write_text(block_with("rtc_session"), encoding="utf-8")
    environment = surroundings(
        GREENROOM_SOCKET=str(tmp_path / "control.sock"),
        GREENROOM_PORT="0",
        # The machine that runs the tests may be as busy as it likes.
        GREENROOM_LOAD_THRESHOLD="inf",
    )
    assert "\npython agent.py start " in COMMANDS[2]
    server = subprocess.Popen(
        [sys.executable, "agent.py", "start"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    for line in server.stdout:
        if json.loads(line)["message"].startswith("serving as"):
            break
    try:
        yield script, environment, server
    finally:
        server.kill()
        server.communicate()


def test_the_servers_commands_work_as_printed(
    agent: tuple[Path, dict[str, str], subprocess.Popen[str]],
) -> None:
    script, environment, server = agent
    commands = [shlex.split(line, comments=True) for line in COMMANDS[2].splitlines()]
    names = ("dev", "start", "submit", "submit", "status", "drain")
    assert [command[:3] for command in commands] == [["python", "agent.py", name] for name in names]
    _, _, submit, load, status, drain = [command[2:] for command in commands]
    assert "succeeded" in run(script, *submit, environment=environment)
    assert run(script, *load, environment=environment).count("succeeded") >= 20
    assert "idle" in run(script, *status, environment=environment)
    run(script, *drain, environment=environment)
    out, _ = server.communicate(timeout=30)
    assert server.returncode == 0
    records = [json.loads(line) for line in out.splitlines()]
    printed = [each for each in records if each["message"] == "welcome to vip-lounge"]
    assert len(printed) == 1
    assert printed[0]["job_id"]


def test_dev_serves_and_reloads_as_printed(tmp_path: Path) -> None:
    script = tmp_path / "agent.py"
    script.write_text(block_with("rtc_session"), encoding="utf-8")
    environment = surroundings(GREENROOM_SOCKET=str(tmp_path / "control.sock"))
    with subprocess.Popen(
        [sys.executable, "agent.py", "dev"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            until(server.stdout, "serving as")
            run(script, "submit", "vip-lounge", "--wait", environment=environment)
            until(server.stdout, "welcome to vip-lounge")
            script.write_text(script.read_text().replace("welcome to", "goodbye from"))
            until(server.stdout, "reloaded in")
            run(script, "submit", "vip-lounge", "--wait", environment=environment)
            until(server.stdout, "goodbye from vip-lounge")
            server.send_signal(signal.SIGINT)
            server.stdout.read()
            assert server.wait(30) == 0
        finally:
            server.kill()


def until(lines: IO[str], text: str) -> None:
    """Read up to the line that contains *text*."""
    for line in lines:
        if text in line:
            return
    raise AssertionError(f"it ended and did not say {text!r}")


def test_a_signal_drains_the_server(
    agent: tuple[Path, dict[str, str], subprocess.Popen[str]],
) -> None:
    _, _, server = agent
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=30)
    assert server.returncode == 0


def test_each_option_of_the_table_exists_and_has_the_default_that_is_printed() -> None:
    from supervisor import ServerOptions

    options = ServerOptions()
    table = README[README.index("| option | default | meaning |") :]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", table, re.MULTILINE)
    names = [name for cell, _ in rows for name in re.findall(r"`(\w+)`", cell)]
    assert len(names) >= 35
    missing = [name for name in names if not hasattr(options, name)]
    assert not missing
    for name, printed in (
        ("initialize_process_timeout", 10),
        ("shutdown_process_timeout", 10),
        ("ping_interval", 2.5),
        ("ping_timeout", 60),
        ("high_ping_threshold", 0.5),
        ("max_payload_mb", 1024),
        ("session_end_timeout", 300),
        ("max_jobs_per_process", 1),
        ("job_memory_warn_mb", 1000),
        ("job_memory_limit_mb", 0),
        ("max_retry", 16),
    ):
        assert getattr(options, name) == printed


def test_no_document_names_a_file_that_does_not_exist() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+?)\)", text):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} names {target}"


def test_the_picture_of_a_workers_life_names_the_states_that_there_are() -> None:
    from supervisor.lifecycle import State

    picture = README[README.index("A worker's life:") : README.index("- `preload_fnc(proc)` runs")]
    assert set(re.findall(r"\b[A-Z]{4,}\b", picture)) == {state.name for state in State}
