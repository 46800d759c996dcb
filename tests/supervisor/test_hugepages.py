"""Memory in huge pages: what was in it is there, and a child still copies single pages."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

# What each program begins with: 64 MiB that are used, and a look at the process's memory.
PRELUDE = """
import json, mmap, os
from supervisor.child.hugepages import collapse

MB = 2**20
used = bytearray(b"greenroom" * (64 * MB // 9))

def rollup(name):
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))
"""


def run(program: str) -> Any:
    """Return what *program* prints as JSON, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    if told["made"] == 0:
        pytest.skip("this kernel does not collapse")
    return told


def test_memory_that_is_used_goes_into_huge_pages_and_keeps_what_it_holds() -> None:
    told = run("""
        made = len(collapse())
        print(json.dumps({
            "made": made,
            "huge": rollup("AnonHugePages"),
            "same": bytes(used) == b"greenroom" * (64 * MB // 9),
        }))
    """)
    assert told["made"] >= 30
    assert told["huge"] >= 60 * 2**20
    assert told["same"]


def test_memory_that_is_hardly_used_does_not_grow() -> None:
    told = run("""
        sparse = mmap.mmap(-1, 64 * MB, mmap.MAP_PRIVATE)
        for start in range(0, 64 * MB, 4 * MB):
            sparse[start] = 1
        before = rollup("Rss")
        made = len(collapse())
        print(json.dumps({"made": made, "grown": rollup("Rss") - before}))
    """)
    assert told["grown"] < 8 * 2**20


def test_a_child_that_writes_copies_the_page_and_not_the_huge_page() -> None:
    told = run("""
        made = len(collapse())
        reader, writer = os.pipe()
        if os.fork() == 0:
            before = rollup("Private_Dirty")
            for start in range(0, len(used), 2 * MB):
                used[start] = 1
            os.write(writer, str(rollup("Private_Dirty") - before).encode())
            os._exit(0)
        os.wait()
        print(json.dumps({"made": made, "copied": int(os.read(reader, 64))}))
    """)
    assert 32 * 4096 <= told["copied"] < 2 * 2**20
