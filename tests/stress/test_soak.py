"""The soak of ``make soak`` in short, and the clocks of recovery: they run, and nothing grows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import recovery
from benchmarks.soak import Look, Soak

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_short_soak_shows_no_growth_and_writes_its_figures(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.soak"),
            *("--jobs", "2000", "--every", "200", "--out", os.fspath(tmp_path)),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    figures = json.loads((tmp_path / "soak.json").read_text())
    assert figures["jobs"] == 2000
    assert len(figures["looks"]) == 10
    assert figures["descriptors_grown"] <= 0
    assert figures["threads_grown"] <= 0


def look(jobs: int, *, uss_mb: float = 20.0, descriptors: int = 27, threads: int = 1) -> Look:
    return Look(jobs, 1.0, uss_mb, 4.0, descriptors, threads, 1, 1.0, 1.0, 1.0, 1.0, 1.0)


def soaked(*looks: Look) -> Soak:
    return Soak("a machine", "today", list(looks))


THOUSANDS = range(1000, 31_000, 1000)


def test_what_grows_before_the_caches_are_full_does_not_count() -> None:
    looks = [look(jobs, uss_mb=10.0 if jobs < 5000 else 20.0) for jobs in THOUSANDS]
    assert soaked(*looks).growth_mb == 0.0
    assert soaked(*looks).is_good


def test_memory_counts_at_its_largest() -> None:
    looks = [look(jobs, uss_mb=25.0 if jobs == 17_000 else 20.0) for jobs in THOUSANDS]
    assert soaked(*looks).growth_mb == 5.0
    assert not soaked(*looks).is_good


@pytest.mark.parametrize("name", ["descriptors", "threads"])
def test_one_descriptor_or_thread_that_stays_is_too_much(name: str) -> None:
    looks = [look(jobs, **{name: 28 if jobs > 20_000 else 27}) for jobs in THOUSANDS]
    assert soaked(*looks).grown(name) == 1
    assert not soaked(*looks).is_good


def test_a_thread_that_comes_and_goes_is_no_growth() -> None:
    looks = [look(jobs, threads=1 + jobs // 1000 % 2) for jobs in THOUSANDS]
    assert soaked(*looks).is_good


@pytest.mark.slow
async def test_the_clocks_of_recovery_come_to_their_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recovery, "ROUNDS", 1)
    await recovery.measure()
    shown = capsys.readouterr().out
    assert "4 idle workers killed, until 4 are idle: median" in shown
    assert "fork server and workers killed, until a job begins: median" in shown
