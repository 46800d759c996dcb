"""What the evidence says: each of the harness's counts is wrong when it should be, and only then."""

from __future__ import annotations

import pytest

from tests.chaos.ledger import BY_ITSELF, DRAINED, KILLED, Entry, Ledger, Life, Runs
from tests.chaos.verdict import Evidence, Injected, Verdict, describe, judge

RAN = "b {job} 10 1 1.5"
TO_ITS_END = "e {job} 10 1.6"


def evidence(
    entry: Entry | None,
    lines: list[str],
    *,
    ended: str = DRAINED,
    faults: list[Injected] | None = None,
) -> Evidence:
    ledger = Ledger(lives={"0": Life("0", 0.0, ended)})
    if entry is not None:
        ledger.jobs["s-1"] = entry
    runs = Runs()
    runs.take(line.format(job="s-1").split() for line in lines)
    return Evidence(ledger, runs, faults or [], [], [], [], [], 1.0)


def offered(answer: str = "accepted", status: str = "succeeded", deed: str = "returns") -> Entry:
    return Entry("0", deed, 1.0, answer, status, 2.0)


def test_a_job_that_ran_once_and_has_its_outcome_is_as_it_should_be() -> None:
    verdict = judge(evidence(offered(), [RAN, TO_ITS_END]))
    assert verdict.is_good
    assert (verdict.offered, verdict.accepted, verdict.statuses["succeeded"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("ended", "answer", "counted"),
    [
        pytest.param(DRAINED, "accepted", "lost", id="accepted by one that drained"),
        pytest.param(BY_ITSELF, "accepted", "lost", id="accepted by one that died of itself"),
        pytest.param("", "accepted", "lost", id="accepted by one that lives"),
        pytest.param(KILLED, "accepted", "fell", id="accepted by one that was killed"),
        pytest.param(KILLED, "", "unanswered", id="no answer from one that was killed"),
        pytest.param(DRAINED, "", "unanswered", id="no answer from one that was told to leave"),
        pytest.param("", "", "lost", id="no answer from one that lives"),
    ],
)
def test_a_job_without_an_outcome_is_lost_unless_its_supervisor_was_killed(
    ended: str, answer: str, counted: str
) -> None:
    verdict = judge(evidence(offered(answer, ""), [RAN], ended=ended))
    assert bool(verdict.lost) == (counted == "lost")
    assert verdict.fell == (counted == "fell")
    assert verdict.unanswered == (counted == "unanswered")
    assert verdict.is_good == (counted != "lost")


def test_a_job_that_began_twice_has_run_twice_whatever_its_outcome() -> None:
    verdict = judge(evidence(offered(), [RAN, RAN.replace("1.5", "1.7"), TO_ITS_END]))
    assert verdict.run_twice == ["s-1 began 2 times, at [1.5, 1.7]"]
    assert not verdict.is_good


@pytest.mark.parametrize(
    ("entry", "lines"),
    [
        pytest.param(offered(), [RAN], id="succeeded, but did not come to its end"),
        pytest.param(offered(), [], id="succeeded, but never ran"),
        pytest.param(offered("load", ""), [RAN], id="refused, and it ran"),
        pytest.param(None, [RAN], id="ran, and nobody had offered it"),
    ],
)
def test_what_the_journal_contradicts_is_untrue(entry: Entry | None, lines: list[str]) -> None:
    verdict = judge(evidence(entry, lines))
    assert len(verdict.untrue) == 1
    assert not verdict.is_good


def test_a_job_that_failed_or_was_refused_need_not_have_run() -> None:
    assert judge(evidence(offered(status="failed"), [])).is_good
    assert judge(evidence(offered("load", ""), [])).is_good


def test_recovery_counts_from_the_fault_to_the_first_beginning_of_a_job_offered_after_it() -> None:
    shown = evidence(None, [], faults=[Injected("quake", 10.0), Injected("flood", 30.0)])
    lines = []
    for number, (at, began) in enumerate([(9.0, 14.0), (11.0, 13.5), (12.0, 12.5), (31.0, 31.2)]):
        shown.ledger.jobs[f"s-{number}"] = Entry("0", "returns", at, "accepted", "succeeded")
        lines += [f"b s-{number} 10 1 {began}".split(), f"e s-{number} 10 {began}".split()]
    shown.runs.take(lines)
    assert judge(shown).recoveries == pytest.approx({"quake": 2.5, "flood": 1.2})


@pytest.mark.parametrize("name", ["lost", "run_twice", "untrue", "leftovers", "wrong"])
def test_each_failure_is_told_in_the_summary(name: str) -> None:
    verdict = Verdict(seconds=1.0)
    getattr(verdict, name).append("what happened to s-1")
    assert not verdict.is_good
    assert f"{name}: what happened to s-1" in describe(verdict, "A run.")


def test_what_the_pool_beside_the_server_wrote_is_entered_into_the_ledger() -> None:
    ledger = Ledger(lives={"0": Life("0", 0.0, KILLED)})
    text = "o p-0-1 1.0|a p-0-1 1.1|b p-0-1 10 1 1.2|f p-0-1 failed 1.4|o p-0-2 2.0|a p-0-2 2.1"
    ledger.take([line.split() for line in text.split("|")])
    assert ledger.jobs["p-0-1"] == Entry("0", "", 1.0, "accepted", "failed", 1.4)
    assert ledger.jobs["p-0-2"] == Entry("0", "", 2.0, "accepted")
