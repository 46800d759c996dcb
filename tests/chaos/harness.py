"""Runs the program under test, life after life, and does to it from outside what cannot be done inside.

One loop, in one process: it starts a life, keeps the clients busy, carries out the
schedule and looks for what should not be there. When a life ends, by its order or
not, it sees to it that nothing is left and starts the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tests.chaos.clients import PATIENCE, Clients
from tests.chaos.journal import Reader, birth_of
from tests.chaos.ledger import BY_ITSELF, DRAINED, KILLED, Ledger, Life, Runs
from tests.chaos.plan import Fault, schedule
from tests.chaos.processes import Grandchildren, reap_orphans, seconds_until_nothing_is_left
from tests.chaos.program import Program, few_descriptors
from tests.chaos.verdict import Evidence, Injected
from tests.chaos.weather import Weather

logger = logging.getLogger("chaos")

# What the documentation promises: two seconds after a SIGKILL nothing is left.
GONE_SECONDS: Final = 2.0
# A job's descendants die with it; what the kernel and two busy CPUs need on top.
GRANDCHILDREN_SECONDS: Final = 2.0

# Jobs of the pool beside the server, whose processes serve several.
REUSED: Final = "p-"

# What the kernel counts in where it says when a process was started, a second.
TICKS: Final = os.sysconf("SC_CLK_TCK")
# A fork server that was killed is back within a quarter of a second on idle CPUs.
RESTART_SECONDS: Final = 1.0
# From the start of the program to its first answer, faults at the start included.
START_SECONDS: Final = 60.0
DRAIN_SECONDS: Final = 40.0
# No outcome at all for that long, while eight clients ask: it hangs.
STUCK_SECONDS: Final = PATIENCE / 2

TICK_SECONDS: Final = 0.5


class Harness:
    """One run of chaos.

    Args:
        directory: an empty one, for all files of the run.
        seed: decides on faults and jobs.
        seconds: how long faults are injected.
        own_disk: whether the log may have a file system of its own: as root.
        cgroup: where workers may have groups of their own; None: nowhere.
    """

    def __init__(
        self, directory: Path, seed: int, seconds: float, *, own_disk: bool, cgroup: Path | None
    ) -> None:
        self._directory = directory
        self._cgroup = cgroup
        self._seed = seed
        self._seconds = seconds
        self._own_disk = own_disk
        self._log = directory / "log"
        (directory / "journal").touch()
        self._weather = directory / "weather"
        self._reader = Reader(directory / "journal")
        self._ledger = Ledger()
        self._runs = Runs()
        self._injected: list[Injected] = []
        self._ordered: dict[str, str] = {}  # faults that the saboteur was told, by number
        self._leftovers: list[str] = []
        self._out_of_reach: list[str] = []
        self._wrong: list[str] = []
        self._gone_after: list[float] = []
        self._process_over: dict[str, float] = {}  # since when we know that a job's process is gone
        self._grandchildren = Grandchildren(GRANDCHILDREN_SECONDS)
        self._program: Program | None = None
        self._lasting: set[asyncio.Task[None]] = set()
        self._fair = asyncio.Event()

    async def run(self) -> Evidence:
        """Run it all and return the evidence."""
        Weather().write(self._weather)
        self._clients = Clients(self._ledger, self._directory / "control" / "socket", self._seed)
        self._clients.start()
        await self._start_life()
        began = time.monotonic()
        ticking = asyncio.ensure_future(self._tick_for_ever())
        try:
            await self._carry_out(began)
            # What lasts is over by itself; the jobs that are under way come to their end.
            await asyncio.gather(*self._lasting)
            seconds = time.monotonic() - began
            await self._clients.stop()
            await self._end_life(DRAINED)
        finally:
            ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        self._look()
        return Evidence(
            self._ledger,
            self._runs,
            self._injected,
            self._leftovers,
            self._out_of_reach,
            self._wrong,
            self._gone_after,
            seconds,
        )

    # ── lives ────────────────────────────────────────────────────────────────

    async def _start_life(self) -> None:
        """Start the program, again if need be, and have the clients turn to it."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            life = Life(str(len(self._ledger.lives)), time.monotonic())
            self._ledger.lives[life.name] = life
            program = Program(
                self._directory, life, self._seed, own_disk=self._own_disk, cgroup=self._cgroup
            )
            if await self._is_up(program, deadline):
                break
            program.collect_log(self._log)
            self._wrong += program.errors
            program.close()
            life.ended = "did not start"
            assert time.monotonic() < deadline, f"no start within {START_SECONDS} s: {self._log}"
        # The ledger only grows: the collector need not go through it again and again.
        gc.freeze()
        self._program = program
        self._clients.there_is(life)

    async def _is_up(self, program: Program, deadline: float) -> bool:
        """Return whether it answers; False if it ended instead, as a bad setup makes it."""
        socket = str(self._directory / "control" / "socket")
        while not program.ended.is_set():
            assert time.monotonic() < deadline, f"no answer within {START_SECONDS} s: {self._log}"
            # It announces itself to nobody but those who call.
            try:
                _, writer = await asyncio.open_unix_connection(socket)
                writer.close()
                return True
            except OSError:
                await asyncio.sleep(0.02)
            program.collect_log(self._log)
        return False

    async def _end_life(self, how: str) -> None:
        """End the life in the way *how*, or learn that it did so itself; nothing may be left."""
        program, self._program = self._program, None
        assert program is not None
        self._clients.there_is_none()
        if program.full and program.disk is not None:
            program.disk.clear()
            program.full = False
        killed_at = time.monotonic()
        if how == KILLED:
            program.process.kill()
        elif how == DRAINED:
            program.process.terminate()
        await self._wait_ended(program)
        program.life.ended = how
        seconds, left = await seconds_until_nothing_is_left(GONE_SECONDS)
        if how == KILLED:
            self._gone_after.append(seconds)
        helpless = how == KILLED and self._had_no_fork_server(killed_at)
        kept = self._out_of_reach if helpless else self._leftovers
        kept += [f"after a supervisor {how}: {each}" for each in left]
        status = program.process.returncode
        if how == BY_ITSELF or (how == DRAINED and status not in (0, 124)):
            self._wrong.append(f"a supervisor ended with status {status} ({how})")
        program.collect_log(self._log)
        self._wrong += program.errors
        program.close()

    def _had_no_fork_server(self, killed_at: float) -> bool:
        """Return whether a fork server was killed so shortly before that there was no other yet."""
        self._look()
        deaths = [
            each.until for each in self._injected if each.kind == "SIGKILL of the fork server"
        ]
        return any(0 <= killed_at - death < RESTART_SECONDS for death in deaths)

    async def _wait_ended(self, program: Program) -> None:
        try:
            await asyncio.wait_for(program.ended.wait(), DRAIN_SECONDS)
        except asyncio.TimeoutError:
            self._wrong.append(f"a supervisor did not leave within {DRAIN_SECONDS} s")
            await _ask_where_it_hangs(program)
            program.process.kill()
            await program.ended.wait()

    # ── faults ───────────────────────────────────────────────────────────────

    async def _carry_out(self, began: float) -> None:
        for fault in schedule(self._seed, self._seconds):
            await self._sleep_until(began + fault.at)
            if fault.kind in ("SIGKILL of the supervisor", "drain under load"):
                await self._next_life(fault)
            elif fault.seconds:
                self._last(fault)
            else:
                assert self._program is not None
                self._ordered[str(fault.number)] = fault.kind
                self._program.order(fault)
        await self._sleep_until(began + self._seconds)

    async def _sleep_until(self, moment: float) -> None:
        while (seconds := moment - time.monotonic()) > 0:
            assert self._program is not None
            ended = asyncio.ensure_future(self._program.ended.wait())
            await asyncio.wait({ended}, timeout=min(seconds, TICK_SECONDS))
            ended.cancel()
            if self._program.ended.is_set():
                await self._end_life(BY_ITSELF)
                await self._start_life()
            if time.monotonic() - self._clients.last_told_at > STUCK_SECONDS:
                await self._free_stuck()
            if (error := self._clients.failed) is not None:
                raise error

    async def _free_stuck(self) -> None:
        assert self._program is not None
        self._wrong.append(f"no outcome for {STUCK_SECONDS} s, in life {self._program.life.name}")
        await _ask_where_it_hangs(self._program)
        await self._end_life(KILLED)
        await self._start_life()

    async def _next_life(self, fault: Fault) -> None:
        until = time.monotonic()
        await self._end_life(KILLED if fault.kind.startswith("SIGKILL") else DRAINED)
        await self._start_life()
        self._injected.append(Injected(fault.kind, until))

    def _last(self, fault: Fault) -> None:
        task = asyncio.ensure_future(self._lasts(fault))
        self._lasting.add(task)
        task.add_done_callback(self._lasting.discard)

    async def _lasts(self, fault: Fault) -> None:
        with self._condition(fault) as is_so:
            if is_so:
                await asyncio.sleep(fault.seconds)
        if is_so:
            self._injected.append(Injected(fault.kind, time.monotonic()))

    @contextlib.contextmanager
    def _condition(self, fault: Fault) -> Iterator[bool]:
        """Make it so for as long as the block lasts; False if it cannot be."""
        program = self._program
        if program is None or program.ended.is_set():
            yield False
        elif fault.kind == "no descriptors":
            with few_descriptors(program.process.pid, fault.details["left"]):
                yield True
        elif fault.kind == "full disk for logs":
            yield from self._full_disk(program)
        else:
            yield from self._bad_weather(fault)

    def _full_disk(self, program: Program) -> Iterator[bool]:
        if not self._own_disk or program.disk is None or program.full:
            yield False
            return
        program.disk.fill()
        program.full = True
        try:
            yield True
        finally:
            if program.full:  # else the life has ended, and its disk with it
                program.disk.clear()
                program.full = False

    def _bad_weather(self, fault: Fault) -> Iterator[bool]:
        weather = Weather(
            setup_seconds=fault.details.get("setup", 0.0),
            setup_fails=fault.kind == "failing setup",
            load_flaps=fault.kind == "flapping load",
        )
        weather.write(self._weather)
        try:
            yield True
        finally:
            # Two at a time: the later one is the weather, until the first is over.
            if asdict(Weather.read(str(self._weather))) == asdict(weather):
                Weather().write(self._weather)

    # ── looking ──────────────────────────────────────────────────────────────

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._look()

    def _look(self) -> None:
        lines = self._reader.lines()
        self._runs.take(lines)
        self._ledger.take(lines)
        self._injected += [
            Injected(self._ordered[line[1]], float(line[2])) for line in lines if line[0] == "x"
        ]
        if self._program is not None:
            self._program.collect_log(self._log)
            reap_orphans(but=self._program.process.pid)
        self._grandchildren.note(lines)
        over = {job: at for job in self._grandchildren.jobs if (at := self._over_since(job))}
        for job, sentence in self._grandchildren.overdue(over):
            kept = self._leftovers if self._cgroup else self._out_of_reach
            (kept if self._was_orphaned(job) else self._leftovers).append(sentence)

    def _over_since(self, job: str) -> float | None:
        """Return since when what *job* left is due to be gone; None as long as it is not."""
        entry = self._ledger.jobs[job]
        if not entry.status:
            return None
        if not job.startswith(REUSED):
            return entry.told_at
        # Its process serves others: what it left lasts as long as the process.
        began = self._runs.begun[job][0]
        birth = birth_of(self._runs.pids[job])
        if birth is not None and birth / TICKS <= began:
            return None
        return self._process_over.setdefault(job, time.monotonic())

    def _was_orphaned(self, job: str) -> bool:
        """Return whether the job's worker had lost its fork server, by evidence of our own.

        Its parent was this process when it began, or the fork server was killed
        while it ran.
        """
        began = self._runs.begun[job][0]
        fell = [each.until for each in self._injected if each.kind == "SIGKILL of the fork server"]
        over = self._ledger.jobs[job].told_at
        return self._runs.parents[job] == os.getpid() or any(began <= each <= over for each in fell)


async def _ask_where_it_hangs(program: Program) -> None:
    """Have the log tell: the threads, and if its loop still turns the tasks and workers as well."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        program.process.send_signal(number)
        await asyncio.sleep(1.0)
