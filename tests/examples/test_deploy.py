"""The files under ``examples/deploy``: they parse, say what they must, and the entry point works."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from supervisor.cli.settings import OTHER_VARIABLES, SETTINGS

DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"


class Unit(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


@pytest.fixture
def service() -> dict[str, str]:
    unit = Unit(strict=False, comment_prefixes="#")
    unit.read_string((DEPLOY / "greenroom-agent.service").read_text(encoding="utf-8"))
    assert unit.sections() == ["Unit", "Service", "Install"]
    return dict(unit["Service"])


def test_the_unit_waits_for_ready_and_gives_the_drain_its_time(service: dict[str, str]) -> None:
    assert service["Type"] == "notify"
    assert service["ExecStart"].endswith(" agent.py start")
    assert service["KillMode"] == "mixed", "SIGTERM is for the supervisor alone"
    assert int(service["TimeoutStopSec"]) > 1800 + 10
    assert service["SuccessExitStatus"] == "124"


@pytest.mark.parametrize("name", ["greenroom-agent.service", "Dockerfile", "entrypoint.sh"])
def test_every_variable_that_is_set_is_one_that_is_read(name: str) -> None:
    known = {row.envvar for row in SETTINGS} | set(OTHER_VARIABLES)
    words = (DEPLOY / name).read_text(encoding="utf-8").replace("=", " ").replace(";", " ").split()
    named = {word for word in words if word.startswith(("GREENROOM_", "LIVEKIT_"))}
    assert named
    assert {each.rstrip(".,") for each in named} <= known


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_takes_the_unit() -> None:
    path = DEPLOY / "greenroom-agent.service"
    told = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert "Unknown" not in told.stderr


def test_the_entry_point_becomes_the_server(tmp_path: Path) -> None:
    shell = tmp_path / "python"
    shell.write_text('#!/bin/sh\necho "$PPID $*"\n')
    shell.chmod(0o755)
    told = subprocess.run(
        [str(DEPLOY / "entrypoint.sh"), "start", "--port", "0"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == f"{os.getpid()} agent.py start --port 0\n", "no shell in between"
