"""Memory of real process trees, and the monitor that samples them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from supervisor import memory
from supervisor.memory import (
    MemoryMonitor,
    Target,
    bytes_if_over,
    tree_pids,
    tree_pss_bytes,
    tree_rss_bytes,
)

PATIENCE = 60.0
MB = 2**20

# Each prints a line when it is there, and ends with its standard input.
GROWS = """
import sys
block = bytearray()
for line in sys.stdin:
    block += b"x" * int(line)
    print("grown", flush=True)
"""
WITH_GRANDCHILDREN = """
import os, subprocess, sys, threading
own = b"x" * (20 << 20)
code = "import sys; own = b'x' * (30 << 20); print(0, flush=True); sys.stdin.read()"
def start():
    global child
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child.stdout.readline()
thread = threading.Thread(target=start)  # a child of a thread counts as well
thread.start(); thread.join()
print(child.pid, flush=True)
sys.stdin.read(); child.wait()
"""
SHARES = """
import os, sys
block = b"x" * (64 << 20)
for _ in range(3):
    if os.fork() == 0:
        sys.stdin.read(); os._exit(0)
print(0, flush=True)
sys.stdin.read()
"""


class Child:
    def __init__(self, program: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def grow(self, size: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{size}\n")
        self.process.stdin.flush()
        assert self.line() == "grown"

    def end(self) -> None:
        self.process.communicate(timeout=PATIENCE)


@contextlib.contextmanager
def child(program: str) -> Iterator[Child]:
    running = Child(program)
    try:
        yield running
    finally:
        if running.process.returncode is None:
            running.end()


# ── one tree ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("by_psutil", [False, True], ids=["through /proc", "through psutil"])
def test_grandchildren_belong_to_the_tree(by_psutil: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if by_psutil:
        monkeypatch.setattr(memory, "_has_children_files", lambda: False)
    with child(WITH_GRANDCHILDREN) as parent:
        grandchild = int(parent.line())
        assert tree_pids(parent.pid) == [parent.pid, grandchild]


def test_the_memory_of_grandchildren_counts() -> None:
    with child(WITH_GRANDCHILDREN) as parent:
        parent.line()
        assert 50 * MB < tree_pss_bytes(parent.pid) < 100 * MB


def test_growth_is_seen() -> None:
    with child(GROWS) as grows:
        grows.grow(1)
        before = tree_pss_bytes(grows.pid)
        grows.grow(64 * MB)
        grown = tree_pss_bytes(grows.pid) - before
    assert 63 * MB < grown < 66 * MB


def test_shared_pages_do_not_count_in_full() -> None:
    with child(SHARES) as shares:
        shares.line()
        pss, rss = tree_pss_bytes(shares.pid), tree_rss_bytes(shares.pid)
    assert rss > 4 * 64 * MB
    assert 64 * MB < pss < 64 * MB + 40 * MB


def test_the_figure_is_told_only_when_it_is_over() -> None:
    with child(SHARES) as shares:
        shares.line()
        rss = tree_rss_bytes(shares.pid)
        assert bytes_if_over(shares.pid, rss * 2) is None
        # Over by RSS, under by PSS: shared pages must not get a job killed.
        assert bytes_if_over(shares.pid, rss // 2) is None
        over = bytes_if_over(shares.pid, 60 * MB)
        assert over is not None
        assert 64 * MB < over < rss // 2


def test_page_tables_are_left_alone_below_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise AssertionError("PSS was measured")

    monkeypatch.setattr(memory, "_pss_bytes", refuse)
    assert bytes_if_over(os.getpid(), 2**50) is None
    with pytest.raises(AssertionError, match="PSS was measured"):
        bytes_if_over(os.getpid(), 1)


def test_a_process_that_is_gone_counts_nothing() -> None:
    with child(GROWS) as gone:
        gone.end()
    assert tree_pids(gone.pid) == []
    assert (tree_pss_bytes(gone.pid), tree_rss_bytes(gone.pid)) == (0, 0)


def test_a_process_that_vanishes_while_it_is_measured_counts_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 1. its pid is listed; 2. it ends; 3. it is measured.
    with child(GROWS) as gone:
        gone.end()
    monkeypatch.setattr(memory, "tree_pids", lambda pid: [gone.pid])
    assert tree_pss_bytes(1) == tree_rss_bytes(1) == 0


def test_a_zombie_counts_nothing() -> None:
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], dict(os.environ))
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        assert tree_pss_bytes(pid) == tree_rss_bytes(pid) == 0
    finally:
        os.waitpid(pid, 0)


def test_without_proc_psutil_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    with child(GROWS) as grows:
        grows.grow(32 * MB)
        monkeypatch.setattr(sys, "platform", "darwin")
        uss, rss = tree_pss_bytes(grows.pid), tree_rss_bytes(grows.pid)
        grows.end()
        assert 32 * MB < uss < rss < 80 * MB
        assert tree_rss_bytes(grows.pid) == 0


def test_without_a_rollup_rss_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    read = memory._read
    monkeypatch.setattr(memory, "_read", lambda path: b"" if "smaps" in path else read(path))
    assert tree_pss_bytes(os.getpid()) > 10 * MB


# ── the monitor ──────────────────────────────────────────────────────────────


def sampling_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "greenroom-memory"]


class Watch:
    """A monitor with targets that a test sets."""

    def __init__(self) -> None:
        self.targets: list[Target] = []
        self.asked = 0
        self.samples: asyncio.Queue[tuple[Target, int]] = asyncio.Queue()
        self.threads: set[int] = set()
        self._asked = asyncio.Event()
        self.monitor = MemoryMonitor(
            asyncio.get_running_loop(),
            targets=self._give,
            on_sample=self._sampled,
            interval=0.001,
        )

    def _give(self) -> list[Target]:
        self.threads.add(threading.get_ident())
        self.asked += 1
        self._asked.set()
        return list(self.targets)

    def _sampled(self, target: Target, size: int) -> None:
        self.threads.add(threading.get_ident())
        self.samples.put_nowait((target, size))

    async def wait_asked(self, times: int) -> None:
        until = self.asked + times
        while self.asked < until:
            self._asked.clear()
            await asyncio.wait_for(self._asked.wait(), PATIENCE)

    async def next_sample(self) -> tuple[Target, int]:
        return await asyncio.wait_for(self.samples.get(), PATIENCE)


async def test_a_tree_over_its_threshold_is_told_on_the_loop_with_the_figure() -> None:
    watch = Watch()
    with child(GROWS) as grows:
        grows.grow(1)
        target = Target("J-1", grows.pid, 60 * MB)
        watch.targets = [Target("small", os.getpid(), 2**50), target]
        watch.monitor.wake()
        await watch.wait_asked(3)
        assert watch.samples.empty()
        grows.grow(64 * MB)
        told, size = await watch.next_sample()
        await watch.monitor.close()
    assert told is target
    assert 64 * MB < size < 100 * MB
    assert watch.threads == {threading.get_ident()}


async def test_nothing_is_asked_and_no_thread_runs_before_somebody_wakes_it() -> None:
    watch = Watch()
    assert sampling_threads() == []
    await watch.monitor.close()
    assert watch.asked == 0


async def test_without_targets_no_thread_is_started() -> None:
    watch = Watch()
    watch.monitor.wake()
    watch.monitor.wake()
    await watch.wait_asked(1)
    assert sampling_threads() == []
    await watch.monitor.close()
    assert watch.asked == 1


async def test_the_thread_ends_with_the_last_target_and_comes_back_with_the_next() -> None:
    watch = Watch()
    for _ in range(2):
        watch.targets = [Target(1, os.getpid(), 0)]
        watch.monitor.wake()
        await watch.next_sample()
        (thread,) = sampling_threads()
        watch.targets = []
        await asyncio.get_running_loop().run_in_executor(None, thread.join, PATIENCE)
        assert not thread.is_alive()
        while not watch.samples.empty():
            watch.samples.get_nowait()
    await watch.monitor.close()
    assert sampling_threads() == []


async def test_closing_ends_the_thread_and_nothing_is_told_afterwards() -> None:
    watch = Watch()
    watch.targets = [Target(1, os.getpid(), 0)]
    watch.monitor.wake()
    await watch.next_sample()
    await watch.monitor.close()
    assert sampling_threads() == []
    while not watch.samples.empty():
        watch.samples.get_nowait()
    watch.monitor.wake()
    await watch.monitor.close()
    assert watch.samples.empty()


async def test_closing_waits_for_one_measurement_and_keeps_the_loop_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    measured: list[int] = []

    def slow(pid: int, threshold_bytes: int) -> None:
        measured.append(pid)
        loop.call_soon_threadsafe(entered.set)
        assert go_on.wait(PATIENCE)

    monkeypatch.setattr(memory, "bytes_if_over", slow)
    watch = Watch()
    watch.targets = [Target(1, 11, 0), Target(2, 22, 0)]
    watch.monitor.wake()
    await asyncio.wait_for(entered.wait(), PATIENCE)
    closing = asyncio.ensure_future(watch.monitor.close())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not closing.done()
    go_on.set()
    await asyncio.wait_for(closing, PATIENCE)
    assert measured == [11]


def test_a_measurement_that_finds_the_loop_closed_ends_the_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 1. the thread measures; 2. the loop is closed by a host that forgot us;
    # 3. the thread has a figure to tell.
    closed = threading.Event()
    threads: list[threading.Thread] = []

    def slow(pid: int, threshold_bytes: int) -> int:
        assert closed.wait(PATIENCE)
        return 1

    monkeypatch.setattr(memory, "bytes_if_over", slow)

    async def forgets_to_close() -> None:
        watch = Watch()
        watch.targets = [Target(1, os.getpid(), 0)]
        watch.monitor.wake()
        await watch.wait_asked(1)
        threads.extend(sampling_threads())

    asyncio.run(forgets_to_close())
    closed.set()
    (thread,) = threads
    thread.join(PATIENCE)
    assert not thread.is_alive()
