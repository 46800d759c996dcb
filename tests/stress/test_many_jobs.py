"""Two thousand jobs, of which a tenth crash: each has its one outcome, and nothing grows.

The seed is printed; ``GREENROOM_SEED`` repeats a run.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from supervisor import JobHandle, JobStatus, ProcessPool
from supervisor.job import Exit
from supervisor.testing.ledger import read as read_ledger
from tests.integration import recorded_jobs as jobs
from tests.integration.conftest import descriptors, soon

JOBS: Final = 2000
IN_FLIGHT: Final = 32

# Where the memory is measured for the first time: caches and free lists are full by then.
SETTLED_AFTER: Final = 500

# What the memory that is ours alone may grow by after that. Measured: under 0.5 MB
# for 1,500 jobs; one kilobyte that each job left behind would already be 1.5 MB.
# The rest is for the allocator, which gives pages back in whole arenas only.
GROWTH_BYTES: Final = 3 * 2**20

CRASHES: Final[dict[str, set[JobStatus]]] = {
    "raise_an_exception": {JobStatus.FAILED},
    "exit_softly": {JobStatus.FAILED},
    "exit_hard": {JobStatus.FAILED},
    "exit_hard_with_success": {JobStatus.FAILED},
    "segfault": {JobStatus.FAILED},
    "abort": {JobStatus.FAILED},
    "kill_itself": {JobStatus.KILLED},
    # Which comes first is chance: the end of the channel, or of the process.
    "close_all_descriptors": {JobStatus.FAILED, JobStatus.KILLED},
}

EXITS: Final = {
    "exit_hard": Exit(status=7),
    "exit_hard_with_success": Exit(status=0),
    "segfault": Exit(signal=signal.SIGSEGV),
    "abort": Exit(signal=signal.SIGABRT),
    "kill_itself": Exit(signal=signal.SIGKILL),
}


def seed() -> int:
    """Return the seed of this run, and print it."""
    chosen = int(os.environ.get("GREENROOM_SEED", random.SystemRandom().randrange(2**32)))
    print(f"GREENROOM_SEED={chosen}")
    return chosen


@dataclass
class Marks:
    """What the supervisor's process looked like at one moment."""

    memory_bytes: int
    descriptors: set[int]
    live_objects: Counter[str]


def take_marks() -> Marks:
    gc.collect()
    return Marks(
        psutil.Process().memory_full_info().uss,
        set(descriptors()),
        Counter(type(each).__name__ for each in gc.get_objects()),
    )


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    path = tmp_path / "ledger"
    path.touch()
    return str(path)


class Load:
    """Submits jobs, so many at a time, and keeps each one's outcome."""

    def __init__(self, pool: ProcessPool, ledger: str, chance: random.Random) -> None:
        self._pool = pool
        self._ledger = ledger
        self._chance = chance
        self._numbers = iter(range(JOBS))
        self.deeds: dict[str, str] = {}
        # Not the outcomes: their tracebacks would be most of the memory that is measured.
        self.ends: dict[str, tuple[JobStatus, Exit | None]] = {}

    async def run(self, count: int) -> None:
        """Run *count* more jobs and return when each has its outcome."""
        numbers = iter([next(self._numbers) for _ in range(count)])
        await asyncio.gather(*(self._one_after_the_other(numbers) for _ in range(IN_FLIGHT)))

    async def _one_after_the_other(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            handle = self._submit(f"J-{number}")
            outcome = await handle.wait()
            assert handle.id not in self.ends, f"{handle} has ended twice"
            self.ends[handle.id] = (outcome.status, outcome.exit)

    def _submit(self, job: str) -> JobHandle[Any]:
        if self._chance.random() < 0.1:
            self.deeds[job] = self._chance.choice(sorted(CRASHES))
            return self._pool.schedule(jobs.noted, (self._ledger, job, self.deeds[job]), job_id=job)
        self.deeds[job] = "return_a_value"
        length = self._chance.randrange(2**32)
        return self._pool.schedule(jobs.noted_for_a_while, (self._ledger, job, length), job_id=job)

    def check(self) -> None:
        """Assert that each job ended as its deed says, and ran once."""
        assert len(self.ends) == JOBS
        for job, deed in self.deeds.items():
            status, exit = self.ends[job]
            told = f"{job} was {deed} and ended as {status}, {exit}"
            assert status in CRASHES.get(deed, {JobStatus.SUCCEEDED}), told
            if deed in EXITS:
                assert exit == EXITS[deed], told
        entries = read_ledger(self._ledger)
        assert Counter(entry.job for entry in entries) == dict.fromkeys(self.deeds, 1)
        assert len({entry.setup_token for entry in entries}) == JOBS, "jobs shared a process"


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_each_of_many_jobs_ends_once_and_nothing_grows(ledger: str) -> None:
    pool = ProcessPool(setup_fnc=jobs.set_up_and_note, num_idle_processes=4, max_jobs=IN_FLIGHT)
    async with pool:
        load = Load(pool, ledger, random.Random(seed()))
        await soon(load.run(SETTLED_AFTER), 280)
        await workers_are_back(pool)
        before = take_marks()
        await soon(load.run(JOBS - SETTLED_AFTER), 280)
        await workers_are_back(pool)
        after = take_marks()
        now = pool.stats()
    load.check()
    assert now.total_jobs == JOBS == sum((now.total_succeeded, now.total_failed, now.total_killed))
    assert now.total_cancelled == now.total_timed_out == 0
    assert now.peak_running <= IN_FLIGHT
    assert len(after.descriptors) == len(before.descriptors)
    growth = after.memory_bytes - before.memory_bytes
    more = (after.live_objects - before.live_objects).most_common(8)
    print(f"memory grew by {growth / 2**20:.2f} MB; objects: {more}")
    assert growth <= GROWTH_BYTES, f"grew by {growth / 2**20:.2f} MB; more objects: {more}"


async def workers_are_back(pool: ProcessPool) -> None:
    """Return when only the idle workers are there: two moments with the same descriptors."""
    changed = asyncio.Event()
    for event in ("worker_warm", "worker_exited"):
        pool.on(event, lambda _: changed.set())
    while (now := pool.stats()).idle != 4 or now.alive != 4:
        changed.clear()
        await soon(changed.wait())
