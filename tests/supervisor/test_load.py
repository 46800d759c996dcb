"""load.py: the CPU's figure from scripted counters, and user functions that misbehave."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from fractions import Fraction

import pytest

from supervisor import cpuload, load
from supervisor.cpuload import CpuLoad, CpuReading
from supervisor.errors import OptionError
from supervisor.load import LoadMeter, takes_server

SERVER = object()


# ── the CPU ──────────────────────────────────────────────────────────────────


def load_after(*readings: CpuReading, quota: float | None = None) -> float:
    script = iter(readings)
    loads = [0.0]
    cpu = CpuLoad(lambda: next(script), loads.append, quota=quota)
    for _ in readings:
        cpu.sample()
    return loads[-1]


def seconds(*busy_idle: tuple[float, float]) -> list[CpuReading]:
    return [CpuReading(n * 0.5, busy, idle) for n, (busy, idle) in enumerate(busy_idle)]


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        pytest.param([], 0.0, id="nothing was read"),
        pytest.param(seconds((10, 10)), 0.0, id="one reading is no sample"),
        pytest.param(seconds((10, 10), (11, 11)), 0.5, id="half busy"),
        pytest.param(seconds((10, 10), (11, 10)), 1.0, id="all busy"),
        pytest.param(seconds((10, 10), (10, 11)), 0.0, id="all idle"),
        pytest.param(seconds((10, 10), (10, 10)), 0.0, id="no time passed in the counters"),
        pytest.param(seconds((10, 10), (9, 11), (10, 12)), 0.5, id="busy ran backwards once"),
        pytest.param(seconds((10, 10), (11, 9), (11, 10)), 0.0, id="idle ran backwards once"),
        pytest.param(seconds((9e9, 9e9), (1, 1), (2, 2)), 0.5, id="the counters began anew"),
        pytest.param(seconds((1, 1), (math.nan, 2), (3, 3), (4, 4)), 0.5, id="not a number"),
    ],
)
def test_the_share_of_busy_time_counts(readings: list[CpuReading], expected: float) -> None:
    assert load_after(*readings) == pytest.approx(expected)


def test_only_the_last_five_seconds_count() -> None:
    busy_then_idle = [CpuReading(n / 2, min(n, 20), max(0, n - 20)) for n in range(31)]
    assert load_after(*busy_then_idle[:26]) == pytest.approx(0.5)
    assert load_after(*busy_then_idle) == 0.0


@pytest.mark.parametrize(
    ("busy", "idle", "granted", "expected"),
    [
        pytest.param(20.0, 20.0, 1.0, 0.5, id="neighbours fill half the machine, we little"),
        pytest.param(2.0, 38.0, 2.0, 1.0, id="the machine is idle, our quota is used up"),
        pytest.param(2.0, 38.0, 9.0, 1.0, id="a burst above the quota is clamped"),
        pytest.param(1.0, 39.0, None, 0.5, id="a cgroup that does not say: the machine's use"),
    ],
)
def test_a_quota_is_what_the_load_is_a_share_of(
    busy: float, idle: float, granted: float | None, expected: float
) -> None:
    before = CpuReading(0.0, 0.0, 0.0, None if granted is None else 0.0)
    now = CpuReading(1.0, busy, idle, granted)
    assert load_after(before, now, quota=2.0) == pytest.approx(expected)


def test_this_machine_has_counters_that_grow() -> None:
    first = cpuload.read_cpu()
    sum(range(2_000_000))
    second = cpuload.read_cpu()
    assert second.at > first.at
    assert second.busy + second.idle >= first.busy + first.idle > 0


async def test_the_timer_samples_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpuload, "SAMPLE_INTERVAL", 0.001)
    enough = asyncio.Event()
    readings: list[int] = []

    def read() -> CpuReading:
        readings.append(1)
        if len(readings) == 5:
            enough.set()
        return CpuReading(len(readings), len(readings), 0.0)

    loads: list[float] = []
    cpu = CpuLoad(read, loads.append)
    cpu.start()
    await asyncio.wait_for(enough.wait(), 10)
    cpu.close()
    count = len(readings)
    await asyncio.sleep(0.02)  # time for ticks that must not come
    assert len(readings) == count
    assert loads[-1] == 1.0


async def test_counters_that_cannot_be_read_leave_the_figure_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpuload, "SAMPLE_INTERVAL", 0.001)
    enough = asyncio.Event()
    tries: list[int] = []

    def read() -> CpuReading:
        tries.append(1)
        if len(tries) == 9:
            enough.set()
        if len(tries) > 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return CpuReading(len(tries), len(tries), 0.0)

    loads: list[float] = []
    cpu = CpuLoad(read, loads.append)
    cpu.start()
    await asyncio.wait_for(enough.wait(), 10)
    cpu.close()
    assert loads[-1] == 1.0
    assert "Exception in callback" not in caplog.text


async def test_the_default_answers_at_once_and_is_zero_at_first() -> None:
    async with metering(None) as meter:
        assert await meter.measure() == 0.0
        assert meter.last == 0.0
        assert meter.is_default
        assert meter.cpus >= 1


# ── the signature of load_fnc ────────────────────────────────────────────────


class CallableObject:
    def __call__(self, server: object) -> float:
        return 0.5


class AsyncCallableObject:
    async def __call__(self) -> float:
        return 0.5


@pytest.mark.parametrize(
    ("load_fnc", "expected"),
    [
        pytest.param(lambda: 0.5, False, id="no parameter"),
        pytest.param(lambda s: 0.5, True, id="one parameter, whatever its name"),
        pytest.param(lambda server=None: 0.5, True, id="an optional one called server"),
        pytest.param(lambda figure=0.5: figure, False, id="an optional one of the user's own"),
        pytest.param(lambda *rest: 0.5, False, id="anything"),
        pytest.param(CallableObject(), True, id="an object"),
        pytest.param(functools.partial(lambda a, s: a, 0.5), True, id="a partial"),
        pytest.param(dict, False, id="a function in C that does not tell"),
    ],
)
def test_the_signature_decides_whether_the_server_is_passed(
    load_fnc: Callable[..., object], expected: bool
) -> None:
    assert takes_server(load_fnc) is expected


def test_a_function_that_wants_more_is_refused_when_the_meter_is_made() -> None:
    with pytest.raises(OptionError, match=r"load_fnc=.*takes the server, or nothing"):
        LoadMeter(lambda a, b: 0.5, SERVER)


# ── the user's function ──────────────────────────────────────────────────────


@asynccontextmanager
async def metering(load_fnc: Callable[..., object] | None) -> AsyncIterator[LoadMeter]:
    meter = LoadMeter(load_fnc, SERVER)
    meter.start()
    try:
        yield meter
    finally:
        meter.close()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("greenroom"):
            thread.join(5)
            assert not thread.is_alive(), f"{thread} was left behind"


async def fine_async(server: object) -> float:
    assert server is SERVER
    return 0.5


@pytest.mark.parametrize(
    "load_fnc",
    [
        pytest.param(lambda: 0.5, id="plain"),
        pytest.param(lambda server: 0.5 if server is SERVER else 9.0, id="plain, with the server"),
        pytest.param(fine_async, id="async"),
        pytest.param(lambda server: fine_async(server), id="plain, returns a coroutine"),
        pytest.param(AsyncCallableObject(), id="an object with an async call"),
        pytest.param(lambda: Fraction(1, 2), id="a real number that is no float"),
    ],
)
async def test_a_good_answer_is_the_load(load_fnc: Callable[..., object]) -> None:
    async with metering(load_fnc) as meter:
        assert meter.last == 1.0
        assert await meter.measure() == 0.5
        assert meter.last == 0.5
        assert not meter.is_default


async def test_a_plain_function_runs_in_one_thread_that_is_not_the_loops() -> None:
    threads: list[threading.Thread] = []

    def load_fnc() -> float:
        threads.append(threading.current_thread())
        return 0.1

    async with metering(load_fnc) as meter:
        await meter.measure()
        await meter.measure()
    assert len(threads) == 2
    assert threads[0] is threads[1] is not threading.main_thread()
    assert not threads[0].is_alive(), "close() ended it"


def raising() -> float:
    raise LookupError("no figure")


def exiting() -> float:
    raise SystemExit(3)


async def exiting_async() -> float:
    raise SystemExit(3)


async def cancelled_async() -> float:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("load_fnc", "complaint"),
    [
        pytest.param(raising, "raised LookupError: no figure", id="raises"),
        pytest.param(exiting, "SystemExit(3)", id="exits"),
        pytest.param(exiting_async, "SystemExit(3)", id="exits, async"),
        pytest.param(cancelled_async, "raised CancelledError", id="cancels itself"),
        pytest.param(lambda: next(iter(())), "StopIteration", id="raises StopIteration"),
        pytest.param(lambda: math.nan, "returned nan", id="not a number"),
        pytest.param(lambda: -math.inf, "returned -inf", id="infinitely little"),
        pytest.param(lambda: -0.1, "returned -0.1", id="below zero"),
        pytest.param(lambda: None, "returned None", id="nothing"),
        pytest.param(lambda: "0.5", "returned '0.5'", id="a text"),
        pytest.param(lambda: True, "returned True", id="a truth value"),
        pytest.param(lambda: 0.5j, "returned 0.5j", id="a complex number"),
    ],
)
async def test_a_bad_answer_counts_as_full_with_one_warning_a_minute(
    load_fnc: Callable[..., object], complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "greenroom.load"):
        async with metering(load_fnc) as meter:
            assert [await meter.measure() for _ in range(3)] == [None] * 3
            assert meter.last == 1.0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert complaint in caplog.text


@pytest.mark.parametrize("load", [1, 1.0, 1.1, 10, 10**400, Fraction(11, 10), math.inf])
async def test_more_than_full_is_full(load: float, caplog: pytest.LogCaptureFixture) -> None:
    async with metering(lambda: load) as meter:
        assert await meter.measure() == 1.0
        assert meter.last == 1.0
    assert caplog.records == []


async def test_it_recovers_by_itself_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    answers: Iterator[object] = iter([0.2, "?", 0.4, 0.6])
    with caplog.at_level(logging.INFO, "greenroom.load"):
        async with metering(lambda: next(answers)) as meter:
            assert await meter.measure() == 0.2
            assert await meter.measure() is None
            assert meter.last == 0.2
            assert await meter.measure() == 0.4
            assert await meter.measure() == 0.6
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_a_stuck_function_blocks_neither_callers_nor_the_loop_and_recovers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(load, "ANSWER_TIMEOUT", 0.05)
    release, calls = threading.Event(), []

    def load_fnc() -> float:
        calls.append(1)
        if len(calls) == 1:
            assert release.wait(30)
        return 0.3

    async with metering(load_fnc) as meter:
        assert await asyncio.gather(*(meter.measure() for _ in range(5))) == [None] * 5
        # Stuck now: answered without a turn of the loop, let alone a wait.
        with pytest.raises(StopIteration) as stopped:
            meter.measure().send(None)
        assert stopped.value.value is None
        assert len(calls) == 1
        release.set()
        while await meter.measure() is None:  # noqa: ASYNC110 - only asking shows it
            await asyncio.sleep(0.001)
        assert meter.last == 0.3
    assert "did not answer within 0.05 s" in caplog.text


async def test_a_slow_coroutine_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "ANSWER_TIMEOUT", 0.05)
    ended = asyncio.Event()

    async def load_fnc() -> float:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return 0.5

    async with metering(load_fnc) as meter:
        assert await meter.measure() is None
        await asyncio.wait_for(ended.wait(), 10)


async def test_close_does_not_wait_for_a_stuck_function_and_answers_the_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "ANSWER_TIMEOUT", 300)  # the answer must come from close()
    entered, release = threading.Event(), threading.Event()

    def load_fnc() -> float:
        entered.set()
        release.wait(30)
        return 0.5

    async with metering(load_fnc) as meter:
        first = asyncio.ensure_future(meter.measure())
        await asyncio.to_thread(entered.wait, 10)
        second = asyncio.ensure_future(meter.measure())
        await asyncio.sleep(0)
        meter.close()
        both = asyncio.gather(first, second)
        assert list(await asyncio.wait_for(both, 10)) == [None, None]
        assert await meter.measure() is None
        release.set()


async def test_callers_share_an_evaluation_that_has_not_begun_and_no_other() -> None:
    # 1. Two callers ask: one evaluation. 2. While it runs, two more ask: theirs
    # must begin later, since the first may have looked already.
    entered, go_on = asyncio.Event(), asyncio.Event()
    calls: list[int] = []

    async def load_fnc() -> float:
        calls.append(1)
        entered.set()
        await go_on.wait()
        return len(calls) / 10

    async with metering(load_fnc) as meter:
        early = [asyncio.ensure_future(meter.measure()) for _ in range(2)]
        await asyncio.wait_for(entered.wait(), 10)
        late = [asyncio.ensure_future(meter.measure()) for _ in range(2)]
        await asyncio.sleep(0)
        assert len(calls) == 1
        go_on.set()
        assert await asyncio.gather(*early) == [0.1, 0.1]
        assert await asyncio.gather(*late) == [0.2, 0.2]


async def test_a_caller_that_is_cancelled_takes_nobody_with_it() -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def load_fnc() -> float:
        entered.set()
        await go_on.wait()
        return 0.5

    async with metering(load_fnc) as meter:
        impatient, patient = (asyncio.ensure_future(meter.measure()) for _ in range(2))
        await asyncio.wait_for(entered.wait(), 10)
        impatient.cancel()
        await asyncio.wait({impatient})
        go_on.set()
        assert await patient == 0.5
