"""The going-down sequence: its table as laws over every cell, its clocks by hand."""

from __future__ import annotations

import asyncio
import signal

import pytest

from supervisor.drain import EXIT_DEADLINE, STEPS, Cause, Drain, Stage, step

DEPTH = {stage: depth for depth, stage in enumerate(Stage)}

each_cell = pytest.mark.parametrize(
    ("stage", "cause"),
    [
        pytest.param(stage, cause, id=f"{cause.value} while {stage.value}")
        for stage in Stage
        for cause in Cause
    ],
)


# ── laws of the table ────────────────────────────────────────────────────────


@each_cell
def test_no_step_leads_back_up(stage: Stage, cause: Cause) -> None:
    assert DEPTH[step(stage, cause)] >= DEPTH[stage]


@each_cell
def test_only_the_end_of_the_last_job_leads_to_gone(stage: Stage, cause: Cause) -> None:
    after = step(stage, cause)
    arrives = after is Stage.GONE and stage is not Stage.GONE
    # With no drain begun an empty server is an ordinary one.
    assert arrives == (cause is Cause.EMPTY and stage not in (Stage.SERVING, Stage.GONE))
    if cause is Cause.EMPTY:
        assert after in (stage, Stage.GONE)


@each_cell
def test_every_signal_takes_one_stage_until_everything_is_killed(
    stage: Stage, cause: Cause
) -> None:
    after = step(stage, Cause.SIGNAL)
    if stage in (Stage.KILLING, Stage.GONE):
        assert after is stage
    else:
        assert DEPTH[after] == DEPTH[stage] + 1


@each_cell
def test_a_request_begins_and_does_nothing_else(stage: Stage, cause: Cause) -> None:
    expected = Stage.DRAINING if stage is Stage.SERVING else stage
    assert step(stage, Cause.REQUEST) is expected


@each_cell
def test_each_clock_belongs_to_one_stage(stage: Stage, cause: Cause) -> None:
    owner = {Cause.DEADLINE: Stage.DRAINING, Cause.GRACE_OVER: Stage.STOPPING}
    if cause in owner:
        assert (step(stage, cause) is not stage) == (stage is owner[cause])


@each_cell
def test_jobs_are_asked_before_they_are_killed(stage: Stage, cause: Cause) -> None:
    if step(stage, cause) is Stage.KILLING and stage is not Stage.KILLING:
        assert stage is Stage.STOPPING


def test_the_table_holds_moves_only() -> None:
    assert all(after is not stage for (stage, _), after in STEPS.items())


def test_the_laws_catch_every_mistake_of_one_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    laws = [
        test_no_step_leads_back_up,
        test_only_the_end_of_the_last_job_leads_to_gone,
        test_every_signal_takes_one_stage_until_everything_is_killed,
        test_a_request_begins_and_does_nothing_else,
        test_each_clock_belongs_to_one_stage,
        test_jobs_are_asked_before_they_are_killed,
    ]

    def caught() -> bool:
        try:
            for stage in Stage:
                for cause in Cause:
                    for law in laws:
                        law(stage, cause)
        except AssertionError:
            return True
        return False

    assert not caught()
    missed = []
    for stage in Stage:
        for cause in Cause:
            for wrong in Stage:
                if wrong is step(stage, cause):
                    continue
                broken = {**STEPS, (stage, cause): wrong}
                with monkeypatch.context() as patch:
                    patch.setattr("supervisor.drain.STEPS", broken)
                    if not caught():
                        missed.append((stage, cause, wrong))
    assert missed == []


# ── the object ───────────────────────────────────────────────────────────────


class FakeDrained:
    """Notes what it was told. Has jobs until :meth:`end_jobs`."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float | None]] = []
        self.has_jobs = True  # and not only what was promised
        self._no_jobs = asyncio.Event()
        self._news = asyncio.Event()

    def begin(self, remaining: float | None) -> None:
        self._note("begin", remaining)

    def stop(self, grace: float) -> bool:
        self._note("stop", grace)
        return self.has_jobs

    def kill(self) -> None:
        self._note("kill", None)

    async def wait_no_jobs(self) -> None:
        await self._no_jobs.wait()

    def end_jobs(self) -> None:
        self._no_jobs.set()

    async def until(self, name: str) -> None:
        while name not in [told for told, _ in self.told]:
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), 30)

    def _note(self, name: str, value: float | None) -> None:
        self.told.append((name, value))
        self._news.set()


def drain_of(drained: FakeDrained, timeout: float | None = None, grace: float = 3600.0) -> Drain:
    return Drain(asyncio.get_running_loop(), drained, timeout=lambda: timeout, grace=lambda: grace)


async def finished(drain: Drain) -> int:
    try:
        return await asyncio.wait_for(drain.wait(), 30)
    finally:
        drain.close()


async def test_nothing_happens_before_it_begins() -> None:
    drained = FakeDrained()
    drained.end_jobs()
    drain = drain_of(drained, timeout=0.0)
    assert not drain.begun
    assert drain.stage is Stage.SERVING
    drain.cut_short()
    assert drained.told == []
    drain.close()


async def test_jobs_that_end_by_themselves_mean_status_0() -> None:
    drained = FakeDrained()
    drain = drain_of(drained, timeout=3600.0)
    drain.signal(signal.SIGTERM)
    assert drain.begun
    assert drain.stage.value == "draining"
    drained.end_jobs()
    assert await finished(drain) == 0
    assert drained.told == [("begin", 3600.0)]
    assert drain.stage.value == "gone"


async def test_a_deadline_that_met_no_job_means_0() -> None:
    drained = FakeDrained()
    drained.has_jobs = False
    drain = drain_of(drained)
    drain.request(0.0)
    await drained.until("stop")
    drained.end_jobs()
    assert await finished(drain) == 0


async def test_the_deadline_asks_and_means_124() -> None:
    drained = FakeDrained()
    drain = drain_of(drained, timeout=0.01, grace=7.0)
    drain.signal(signal.SIGTERM)
    await drained.until("stop")
    drained.end_jobs()
    assert await finished(drain) == EXIT_DEADLINE == 124
    assert drained.told == [("begin", 0.01), ("stop", 7.0)]


async def test_a_timeout_of_0_asks_at_once() -> None:
    drained = FakeDrained()
    drain = drain_of(drained, timeout=0.0)
    drain.signal(signal.SIGINT)
    await drained.until("stop")
    drained.end_jobs()
    assert await finished(drain) == 124


async def test_a_timeout_of_0_without_jobs_means_status_0() -> None:
    drained = FakeDrained()
    drained.end_jobs()
    drain = drain_of(drained, timeout=0.0)
    drain.signal(signal.SIGTERM)
    assert await finished(drain) == 0
    assert drained.told == [("begin", 0.0)]


async def test_the_end_of_the_grace_kills() -> None:
    drained = FakeDrained()
    drain = drain_of(drained, timeout=0.0, grace=0.01)
    drain.signal(signal.SIGTERM)
    await drained.until("kill")
    drained.end_jobs()
    assert await finished(drain) == 124
    assert [name for name, _ in drained.told] == ["begin", "stop", "kill"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: str(n.name))
async def test_a_second_signal_asks_now_and_gives_the_status(number: int) -> None:
    drained = FakeDrained()
    drain = drain_of(drained)
    drain.signal(signal.SIGTERM)
    drain.signal(number)
    assert drained.told == [("begin", None), ("stop", 3600.0)]
    drained.end_jobs()
    assert await finished(drain) == 128 + number


async def test_a_third_signal_kills_now_and_the_last_one_gives_the_status() -> None:
    drained = FakeDrained()
    drain = drain_of(drained)
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        drain.signal(number)
    assert [name for name, _ in drained.told] == ["begin", "stop", "kill"]
    drained.end_jobs()
    assert await finished(drain) == 128 + signal.SIGINT


async def test_a_fourth_signal_tells_nobody_anything() -> None:
    drained = FakeDrained()
    drain = drain_of(drained)
    for _ in range(4):
        drain.signal(signal.SIGTERM)
    assert [name for name, _ in drained.told] == ["begin", "stop", "kill"]
    drained.end_jobs()
    assert await finished(drain) == 128 + signal.SIGTERM


async def test_when_no_job_is_left_a_third_signal_still_kills_workers_that_do_not_leave() -> None:
    drained = FakeDrained()
    drained.end_jobs()
    drain = drain_of(drained)
    drain.signal(signal.SIGTERM)
    assert await asyncio.wait_for(drain.wait(), 30) == 0
    drain.signal(signal.SIGTERM)
    # It has nobody to ask: whoever is left was asked already.
    assert (drain.exit_status, drained.told) == (0, [("begin", None)])
    drain.signal(signal.SIGINT)
    assert (drain.exit_status, drained.told[-1]) == (128 + signal.SIGINT, ("kill", None))
    drain.close()


async def test_a_start_that_is_quick_enough_comes_to_its_end() -> None:
    async def start() -> None:
        await asyncio.sleep(0)

    drain = drain_of(FakeDrained())
    assert await drain.start_unless_gone(start())
    drain.close()


async def test_a_start_is_cancelled_when_the_drain_is_over_first() -> None:
    stopped = asyncio.Event()

    async def start() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    drained = FakeDrained()
    drained.end_jobs()
    drain = drain_of(drained)
    starting = asyncio.ensure_future(drain.start_unless_gone(start()))
    await asyncio.sleep(0)
    drain.signal(signal.SIGTERM)
    assert not await asyncio.wait_for(starting, 30)
    assert stopped.is_set()
    drain.close()


async def test_a_start_that_raises_raises_it_to_whoever_started() -> None:
    async def start() -> None:
        raise ValueError("no model")

    drain = drain_of(FakeDrained())
    with pytest.raises(ValueError, match="no model"):
        await drain.start_unless_gone(start())
    drain.close()


async def test_a_signal_after_the_deadline_cuts_the_grace_short() -> None:
    drained = FakeDrained()
    drain = drain_of(drained, timeout=0.0)
    drain.signal(signal.SIGTERM)
    await drained.until("stop")
    drain.signal(signal.SIGTERM)
    assert [name for name, _ in drained.told] == ["begin", "stop", "kill"]
    drained.end_jobs()
    assert await finished(drain) == 128 + signal.SIGTERM


async def test_a_signal_after_a_request_asks_now() -> None:
    drained = FakeDrained()
    drain = drain_of(drained)
    drain.request(3600.0)
    drain.signal(signal.SIGTERM)
    assert [name for name, _ in drained.told] == ["begin", "stop"]
    drained.end_jobs()
    assert await finished(drain) == 128 + signal.SIGTERM


async def test_the_first_request_gives_the_deadline() -> None:
    drained = FakeDrained()
    drain = drain_of(drained, timeout=1.0)
    drain.request(5.0)
    drain.request(6.0)
    assert drained.told == [("begin", 5.0)]
    drained.end_jobs()
    assert await finished(drain) == 0


async def test_cut_short_asks_at_once_and_once() -> None:
    drained = FakeDrained()
    drain = drain_of(drained)
    drain.request(None)
    drain.cut_short()
    drain.cut_short()
    assert drained.told == [("begin", None), ("stop", 3600.0)]
    drained.end_jobs()
    assert await finished(drain) == 124


async def test_jobs_that_end_in_the_grace_are_not_killed() -> None:
    drained = FakeDrained()
    drain = drain_of(drained, timeout=0.0)
    drain.signal(signal.SIGTERM)
    await drained.until("stop")
    drained.end_jobs()
    await finished(drain)
    assert [name for name, _ in drained.told] == ["begin", "stop"]


async def test_several_may_wait_and_one_who_gives_up_disturbs_nobody() -> None:
    drained = FakeDrained()
    drain = drain_of(drained)
    waiting = [asyncio.ensure_future(drain.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    drain.signal(signal.SIGTERM)
    drained.end_jobs()
    assert await asyncio.gather(*waiting[1:]) == [0, 0]
    assert waiting[0].cancelled()
    drain.close()


async def test_closing_stops_the_clocks() -> None:
    drained = FakeDrained()
    drain = drain_of(drained, timeout=0.0)
    drain.signal(signal.SIGTERM)
    drain.close()
    drain.close()
    for _ in range(5):
        await asyncio.sleep(0)
    assert drained.told == [("begin", 0.0)]
