"""How much memory a worker's process tree takes, measured off the loop.

The measure is PSS, the proportional set size: a page that n processes share
counts 1/n in each, so the pages of a preloaded model do not count in full in
every worker. It is dear: the kernel walks all page tables of the process, 10 ms
for each GB. RSS is a counter that the kernel keeps anyway, 20 µs, and PSS never
exceeds it. So PSS is measured only where RSS is over the threshold; most workers
never get there.

A dedicated thread, because the page-table walk happens inside ``read`` and would
stop the loop. It runs only while there are targets. The loop's timer gives it
one sweep at a time, so what the pool knows is read on the loop alone.
"""

from __future__ import annotations

import asyncio
import functools
import os
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from supervisor.clock import monotonic

# The name of the thread, which is there only while jobs run.
THREAD: Final = "greenroom-memory"

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

# At most a tenth of one CPU goes into measuring: after a sweep of 200 ms (ten
# workers of 2 GB each) the next one begins 1.8 s later, whatever the interval.
_PAUSE_PER_SWEEP: Final = 9.0


# ── one process tree ─────────────────────────────────────────────────────────


def tree_pids(pid: int) -> list[int]:
    """Return *pid* and its descendants, as far as they exist. Runs on: any thread.

    Descendants that lost their parent are found where they fell to *pid*, which
    is so for a worker, since it is a child subreaper.
    """
    if not _has_children_files():
        return _tree_pids_by_psutil(pid)
    pids: dict[int, None] = {}
    to_visit = [pid]
    while to_visit:
        each = to_visit.pop()
        children = _children(each)
        if children is not None and each not in pids:
            pids[each] = None
            to_visit.extend(children)
    return list(pids)


def tree_rss_bytes(pid: int) -> int:
    """Return the sum of RSS over the tree: cheap, and an upper bound of its PSS.

    Shared pages count in full in each process. Runs on: any thread.
    """
    return sum(_rss_bytes(each) for each in tree_pids(pid))


def tree_pss_bytes(pid: int) -> int:
    """Return the sum of PSS over the tree; costs milliseconds. Runs on: any thread.

    Where there is no PSS (macOS) it is USS, the memory that is the process's
    alone; where neither may be read, RSS. Processes that vanish meanwhile count 0.
    """
    return sum(_pss_bytes(each) for each in tree_pids(pid))


@functools.lru_cache(maxsize=1)
def _has_children_files() -> bool:
    # Missing on macOS, and on kernels without CONFIG_PROC_CHILDREN.
    return os.path.exists("/proc/thread-self/children")


def _children(pid: int) -> list[int] | None:
    """Return the children of all threads of *pid*; None if it is gone."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return None
    children: list[int] = []
    for thread in threads:
        content = _read(f"/proc/{pid}/task/{thread}/children")
        children.extend(int(child) for child in content.split())
    return children


def _tree_pids_by_psutil(pid: int) -> list[int]:
    import psutil  # 15 ms to import, and of no use on most machines

    try:
        root = psutil.Process(pid)
        return [pid, *(child.pid for child in root.children(recursive=True))]
    except psutil.Error:
        return []


def _rss_bytes(pid: int) -> int:
    if sys.platform != "linux":
        return _psutil_bytes(pid, "rss")
    fields = _read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * _PAGE_BYTES if len(fields) > 1 else 0


def _pss_bytes(pid: int) -> int:
    if sys.platform != "linux":
        return _psutil_bytes(pid, "uss")
    # Empty for a zombie, for a process of another user (a setuid program that
    # the job started), and on kernels before 4.14: RSS then, 0 for a zombie.
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return _rss_bytes(pid)


def _psutil_bytes(pid: int, kind: str) -> int:
    import psutil

    try:
        process = psutil.Process(pid)
        if kind == "uss":
            try:
                return int(process.memory_full_info().uss)
            except psutil.AccessDenied:
                pass  # macOS asks for rights over other users' processes: RSS is for all
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _read(path: str) -> bytes:
    """Return what the file holds; nothing if the process is gone or not ours to see."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""


# ── all of them, again and again ─────────────────────────────────────────────


@dataclass(frozen=True)
class Target:
    """A process tree to be watched.

    Args:
        key: whose it is; handed back as it is.
        pid: its root.
        threshold_bytes: the smallest figure that anybody cares about.
    """

    key: object
    pid: int
    threshold_bytes: int


class MemoryMonitor:
    """Measures targets on a thread of its own and tells the loop who is over.

    Args:
        loop: the loop that the callbacks run on.
        targets: what to watch now; called once a sweep. Empty: nothing is
            measured until :meth:`wake`.
        on_sample: called with a target and its PSS in bytes, when that is above
            its threshold; in every sweep, as long as it is. The target may have
            ended since.
        interval: seconds between two sweeps, over 0; longer where sweeps take long.

    Runs on: the loop, every method.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        targets: Callable[[], list[Target]],
        on_sample: Callable[[Target, int], None],
        interval: float = 0.5,
    ) -> None:
        self._loop = loop
        self._targets = targets
        self._on_sample = on_sample
        self._interval = interval
        self._timer: asyncio.TimerHandle | None = None
        self._sampler: _Sampler | None = None
        self._ending: set[_Sampler] = set()
        self._sweeping = False
        self._closed = False

    def wake(self) -> None:
        """There may be targets now: call it when a job starts or a threshold changes.

        Cheap enough for the path of a hand-over: it sets a timer, if none is set.
        """
        if not self._closed and self._timer is None and not self._sweeping:
            self._timer = self._loop.call_later(self._interval, self._sweep)

    async def close(self) -> None:
        """Stop, and return when the thread has ended: after one measurement at the most.

        May be called again.
        """
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._end_sampler()
        for sampler in list(self._ending):
            await sampler.wait_ended()

    def _sweep(self) -> None:
        self._timer = None
        targets = self._targets()
        if not targets:
            self._end_sampler()
            return
        if self._sampler is None:
            self._sampler = _Sampler(self._loop, self._swept)
            self._sampler.start()
        self._sweeping = True
        self._sampler.measure(targets)

    def _swept(self, over: list[tuple[Target, int]], seconds: float) -> None:
        if self._closed:
            return
        self._sweeping = False
        pause = max(self._interval, _PAUSE_PER_SWEEP * seconds)
        self._timer = self._loop.call_later(pause, self._sweep)
        for target, pss_bytes in over:
            self._on_sample(target, pss_bytes)

    def _end_sampler(self) -> None:
        if self._sampler is not None:
            sampler, self._sampler = self._sampler, None
            self._ending.add(sampler)
            sampler.end(lambda: self._ending.discard(sampler))


class _Sampler:
    """The thread. It measures what it is given and reports to the loop, until told to end."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_swept: Callable[[list[tuple[Target, int]], float], None],
    ) -> None:
        self._loop = loop
        self._on_swept = on_swept
        self._requests: queue.SimpleQueue[list[Target] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._ended: asyncio.Future[None] = loop.create_future()
        # A daemon: a program that forgets to close its pool can still end.
        self._thread = threading.Thread(target=self._run, name=THREAD, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def measure(self, targets: list[Target]) -> None:
        self._requests.put(targets)

    def end(self, on_ended: Callable[[], None]) -> None:
        self._ended.add_done_callback(lambda _: on_ended())
        self._stopping.set()
        self._requests.put(None)

    async def wait_ended(self) -> None:
        await asyncio.shield(self._ended)

    def _run(self) -> None:
        for targets in iter(self._requests.get, None):
            began = monotonic()
            over = self._over(targets)
            if not self._tell(self._on_swept, over, monotonic() - began):
                return
        self._tell(self._joined)

    def _over(self, targets: list[Target]) -> list[tuple[Target, int]]:
        over: list[tuple[Target, int]] = []
        for target in targets:
            if self._stopping.is_set():
                break
            pss_bytes = bytes_if_over(target.pid, target.threshold_bytes)
            if pss_bytes is not None:
                over.append((target, pss_bytes))
        return over

    def _joined(self) -> None:
        # The thread's last act was to ask for this call, so join takes microseconds.
        self._thread.join()
        if not self._ended.done():
            self._ended.set_result(None)

    def _tell(self, callback: Callable[..., None], *arguments: object) -> bool:
        """Have the loop call *callback*; False if the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # closed
            return False
        return True


def bytes_if_over(pid: int, threshold_bytes: int) -> int | None:
    """Return the PSS of the tree if it is above *threshold_bytes*, else None.

    Looks at page tables only if the RSS is above it too. Runs on: any thread.
    """
    pids = tree_pids(pid)
    if sum(_rss_bytes(each) for each in pids) <= threshold_bytes:
        return None
    pss_bytes = sum(_pss_bytes(each) for each in pids)
    return pss_bytes if pss_bytes > threshold_bytes else None
