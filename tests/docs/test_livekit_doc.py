"""docs/livekit.md is true: its options exist, none is missing, its examples run."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import pytest

import supervisor
from supervisor import AgentServer, JobContext, JobProcess, JobRequest, ServerOptions
from supervisor.dispatch.livekit import connection, dispatcher, reports, retry
from tests.integration.livekit_endpoint import listening
from tests.integration.test_livekit_page import agent_process
from tests.integration.watch import until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "livekit.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table whose head begins with *heading*."""
    table = TEXT[TEXT.index(heading) :].split("\n\n")[0]
    return [line.strip("|").split("|") for line in table.splitlines()[2:]]


def names(cell: str) -> list[str]:
    return re.findall(r"`(?:\w+\.)?(\w+)`", cell)


def test_every_option_is_in_the_table_and_every_option_of_the_table_exists() -> None:
    ours = {field.name for field in dataclasses.fields(ServerOptions)}
    listed = set()
    for theirs, here, _ in rows("| option of livekit-agents"):
        if here.strip() == "same":
            listed |= set(names(theirs))
            without_defaults = re.sub(r"\(.*?\)", "", theirs)
            assert set(names(without_defaults)) <= ours
        elif here.strip() == "none":
            assert not set(names(theirs)) & ours
        else:
            listed |= set(names(here))
            assert set(names(here)) <= ours
    assert ours <= listed


def test_what_is_said_to_be_the_same_is_there() -> None:
    homes = {"JobContext": JobContext, "JobRequest": JobRequest, "JobProcess": JobProcess}
    seen = 0
    for theirs, here, _ in rows("| elsewhere in livekit-agents"):
        cell = theirs if here.strip() == "same" else here
        for spelled in re.findall(r"`([^`]*)`", cell):
            home, dot, rest = spelled.partition(".")
            if dot and home in homes:
                found = re.findall(r"\w+", rest.partition("(")[0])
                seen += len(found)
                missing = [name for name in found if not hasattr(homes[home], name)]
                assert not missing, spelled
    assert seen >= 20
    for name in ("rtc_session", "submit_job", "active_jobs", "draining", "id", "drain", "aclose"):
        assert hasattr(AgentServer, name)


def test_the_seconds_are_those_of_the_code() -> None:
    table = rows("| between us and LiveKit")
    printed = {what.strip(): figure.strip() for what, figure in table}
    assert printed["for the connection, and for the answer to the registration"] == "10 each"
    assert connection.CONNECT_TIMEOUT == dispatcher.REGISTER_TIMEOUT == 10
    assert printed["from our acceptance to the assignment"] == "7.5"
    assert dispatcher.ASSIGNMENT_TIMEOUT == 7.5
    assert printed["of silence until the connection is given up"] == "30"
    assert 1.5 * connection.HEARTBEAT == 30
    assert printed["before an attempt, after a connection that worked"] == "up to 0.1"
    assert (retry.FIRST_WAIT, retry.SHORTEST_WAIT, retry.LONGEST_WAIT) == (0.1, 0.5, 10)
    assert (reports.INTERVAL, reports.NOTEWORTHY) == (2.5, 0.05)


def test_each_example_is_python_and_imports_what_there_is() -> None:
    assert len(BLOCKS) == 2
    for block in BLOCKS:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "supervisor":
                assert all(hasattr(supervisor, each.name) for each in node.names)


async def test_the_example_registers_and_talks_to_who_comes(tmp_path: Path) -> None:
    sdk = (
        "from pathlib import Path\n"
        "from tests.children.fake_rtc import *\n"
        f"Room.present, Room.directory = (Participant('ann'),), Path({str(tmp_path)!r})\n"
    )
    (tmp_path / "livekit").mkdir()
    (tmp_path / "livekit" / "rtc.py").write_text(sdk, encoding="utf-8")
    async with listening() as endpoint, agent_process(BLOCKS[0], tmp_path, endpoint) as running:
        assert (await endpoint.take("register")).agent_name == "greeter"
        await endpoint.offer("AJ_1")
        assert (await endpoint.take("availability")).participant_name == "agent"
        await until((tmp_path / "notes").exists)  # it has joined
        (tmp_path / "hang up").touch()
        await endpoint.until_status("AJ_1", "JS_SUCCESS")
    assert "talking to ann" in running.messages
