"""The schedule of faults is a function of the seed."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.chaos import deeds
from tests.chaos.plan import DEEDS, RATES, RETURNS, STATES, deed_of, schedule

HOUR = 3600.0


def test_a_seed_always_gives_the_same_faults_and_jobs() -> None:
    assert list(schedule(7, 60.0)) == list(schedule(7, 60.0))
    assert list(schedule(7, 60.0)) != list(schedule(8, 60.0))
    assert [deed_of(7, number) for number in range(500)] == [deed_of(7, n) for n in range(500)]


def test_faults_come_in_the_order_of_time_and_are_numbered() -> None:
    faults = list(schedule(7, 300.0))
    assert [fault.number for fault in faults] == list(range(len(faults)))
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    assert all(0 <= fault.at < 300.0 for fault in faults)


@pytest.mark.parametrize("seconds", [5.0, 30.0, HOUR])
def test_each_kind_of_fault_occurs_in_every_run_however_short(seconds: float) -> None:
    assert {fault.kind for fault in schedule(7, seconds)} == set(RATES)


def test_an_hour_has_about_as_many_of_each_kind_as_its_rate_says() -> None:
    counts = Counter(fault.kind for fault in schedule(7, HOUR))
    for kind, rate in RATES.items():
        expected = rate * 60
        # Five standard deviations of a Poisson process.
        assert abs(counts[kind] - expected) < 5 * expected**0.5 + 1, kind


def test_workers_are_hit_in_every_state_by_every_signal() -> None:
    hit = {
        (fault.details["signal"], fault.details["state"])
        for fault in schedule(7, HOUR)
        if "state" in fault.details
    }
    signals = ("SIGKILL", "SIGSEGV", "SIGSTOP")
    assert hit == {(signal, state) for signal in signals for state in STATES}


def test_jobs_do_what_their_shares_say_and_each_deed_can_be_done() -> None:
    counts = Counter(deed_of(7, number) for number in range(20_000))
    assert set(counts) == {RETURNS, *DEEDS} == set(deeds.DEEDS)
    for deed, share in DEEDS.items():
        assert abs(counts[deed] - share * 20_000) < 5 * (share * 20_000) ** 0.5 + 1, deed
