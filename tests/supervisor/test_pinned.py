"""Pinned pages: copied by the fork, on the side of the child, and as long as they are pinned."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from supervisor.child.pagemap import PAGE
from supervisor.child.pinned import _in_rows

ROOT = Path(__file__).parents[2]

# What each program begins with: memory of its own, and a fork that tells what it was born with.
PRELUDE = """
import ctypes, json, mmap, os, resource, sys
from supervisor.child import practice
from supervisor.child.hugepages import HUGE, collapse, small_ranges
from supervisor.child.pagemap import PAGE, its_own, private_ranges
from supervisor.child.pinned import Pins, new_ring

PAGES = 200

try:
    os.close(new_ring())
except OSError as exc:
    print(json.dumps({"refused": str(exc)}))
    sys.exit()

memory = mmap.mmap(-1, 4 * HUGE, mmap.MAP_PRIVATE)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
ours = [(start, start + PAGES * PAGE)]
pages = list(range(start, start + PAGES * PAGE, PAGE))

def write(count=PAGES):
    for number in range(count):
        memory[number * PAGE] = 1

def born_with():
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, str(len(its_own(os.getpid(), ours))).encode())
        os._exit(0)
    os.wait()
    os.close(writer)
    with open(reader) as file:
        return int(file.read())
"""


def run(program: str) -> Any:
    """Return what *program* prints as JSON, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    if "refused" in told:
        pytest.skip(f"no io_uring here: {told['refused']}")
    return told


def test_a_child_is_born_with_its_own_of_what_is_pinned_and_shares_the_rest() -> None:
    told = run("""
        write()
        shared = born_with()
        pins = Pins(pages[:150])
        pinned = born_with()
        pins.close()
        pins.close()
        for _ in range(1000):  # the kernel lets them go after the call
            if born_with() == 0:
                break
        print(json.dumps([shared, pinned, born_with()]))
    """)
    assert told == [0, 150, 0]


def test_who_has_forked_keeps_its_own_and_copies_nothing() -> None:
    told = run("""
        def faults_after_a_fork():
            born_with()
            reader, writer = os.pipe()
            if os.fork() == 0:
                os.close(writer)
                os.read(reader, 1)  # until the one that has forked has written
                os._exit(0)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            write()
            after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            os.close(writer)
            os.close(reader)
            os.wait()
            return after - before

        write()
        shared = faults_after_a_fork()
        pins = Pins(pages)
        print(json.dumps([shared, faults_after_a_fork()]))
    """)
    shared, pinned = told
    assert shared >= 200
    assert pinned < 100, "what the interpreter itself writes to"


def test_pages_that_nobody_has_touched_are_made_when_they_are_pinned() -> None:
    told = run("""
        pins = Pins(pages)
        print(json.dumps([len(its_own(os.getpid(), ours)), born_with()]))
    """)
    assert told == [200, 200]


def test_what_is_no_memory_of_ours_is_refused_and_no_ring_is_left() -> None:
    told = run("""
        before = len(os.listdir("/proc/self/fd"))
        try:
            Pins([*pages, start + 8 * HUGE + (1 << 44)])
        except OSError as exc:
            why = exc.strerror
        print(json.dumps([why, len(os.listdir("/proc/self/fd")) - before]))
    """)
    assert told == ["Bad address", 0]


def test_a_program_that_it_starts_has_no_ring() -> None:
    told = run("""
        import subprocess
        write()
        pins = Pins(pages)
        list_all = "import os; print([os.readlink(f'/proc/self/fd/{n}') for n in range(9) if os.path.lexists(f'/proc/self/fd/{n}')])"
        said = subprocess.run([sys.executable, "-c", list_all], close_fds=False, capture_output=True, text=True)
        print(json.dumps([pins._ring < 9, "io_uring" in said.stdout, said.returncode]))
    """)
    assert told == [True, False, 0]


def test_pages_that_would_be_copied_with_others_around_them_are_not_pinned() -> None:
    told = run("""
        write(4 * HUGE // PAGE)
        made = {each for each in collapse() if start <= each < start + 4 * HUGE}
        in_a_huge_page = min(made, default=0)
        ours = [(in_a_huge_page, in_a_huge_page + HUGE)]
        before = len(os.listdir("/proc/self/fd"))
        practice.hugepages.small_ranges = lambda huge: ours
        practice.pages_of_a_life = lambda trial, ranges: [in_a_huge_page]
        pins = practice._pinned(None, set()) if made else None
        print(json.dumps([len(made), pins is None, len(os.listdir("/proc/self/fd")) - before]))
    """)
    if told[0] == 0:
        pytest.skip("this kernel does not collapse")
    assert told[1:] == [True, 0]


def test_what_lies_in_huge_pages_is_not_looked_at() -> None:
    told = run("""
        write(4 * HUGE // PAGE)
        huge = {start + HUGE - start % HUGE, start + 2 * HUGE - start % HUGE}
        inside = [each for each in small_ranges(huge) if each[1] > start and each[0] < start + 4 * HUGE]
        holes = [a[1] for a, b in zip(inside, inside[1:])]
        print(json.dumps([
            all(low >= each + HUGE or high <= each for each in huge for low, high in inside),
            all(low < high for low, high in inside),
            inside == sorted(inside),
            sum(high - low for low, high in small_ranges(set())) - sum(high - low for low, high in small_ranges(huge)),
        ]))
    """)
    assert told == [True, True, True, 2 * 2 * 2**20]


def test_neighbours_are_one_buffer() -> None:
    pages = [0, PAGE, 2 * PAGE, 5 * PAGE, 7 * PAGE, 8 * PAGE]
    assert _in_rows(pages) == [(0, 3 * PAGE), (5 * PAGE, PAGE), (7 * PAGE, 2 * PAGE)]
    assert _in_rows([]) == []
