"""The LiveKit example runs as it is, against an endpoint that stands in for the server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import soon
from tests.integration.livekit_endpoint import KEY, SECRET, listening
from tests.integration.watch import until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

# In place of the SDK: a room in which somebody is already.
SDK = """
import os
from pathlib import Path
from tests.children.fake_rtc import *

Room.present = (Participant("ann"),)
Room.directory = Path(os.environ["ROOM"])
"""


async def test_it_greets_who_is_there_and_ends_with_the_room(tmp_path: Path) -> None:
    (tmp_path / "livekit").mkdir()
    (tmp_path / "livekit" / "rtc.py").write_text(SDK, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "ROOM": str(tmp_path),
        "GREENROOM_SOCKET": str(tmp_path / "s"),
        "GREENROOM_PORT": "0",
        "GREENROOM_LOAD_THRESHOLD": "inf",
        "LIVEKIT_API_KEY": KEY,
        "LIVEKIT_API_SECRET": SECRET,
    }
    async with listening() as endpoint:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "examples/livekit_agent.py",
            "start",
            cwd=ROOT,
            env={**environment, "LIVEKIT_URL": endpoint.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        notes = tmp_path / "notes"
        try:
            await endpoint.until(lambda: endpoint.heard("update_worker"))
            await endpoint.offer("AJ_1", room="lobby")
            answer = await endpoint.take("availability")
            assert answer.participant_name == "greeter"
            await until(lambda: notes.exists() and "greeting" in notes.read_text())
            (tmp_path / "hang up").touch()
            await endpoint.until_status("AJ_1", "JS_SUCCESS")
        finally:
            process.send_signal(signal.SIGTERM)
            out, err = await soon(process.communicate())
    assert process.returncode == 0, err
    assert "say ann, welcome to the real one (greeting)" in notes.read_text()
    printed = [json.loads(line)["message"] for line in out.decode().splitlines()]
    assert "greeted ann" in printed
    assert "leaving the real one because of: room disconnected" in printed
