"""The page of results says what they were taken on."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import results, summary


def put(directory: Path, name: str, *, taken: str, commit: str) -> None:
    content = {
        "benchmark": name,
        "question": "how fast",
        "taken": taken,
        "machine": results.machine(),
        "noise": {"others": 0.0, "stolen": 0.0},
        "versions": {"commit": commit, "pebble": "5"},
        "rows": [],
        "detail": [],
        "out": {},
        "samples": {},
    }
    (directory / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def test_results_of_one_commit_are_said_to_be_of_it(tmp_path: Path) -> None:
    put(tmp_path, "churn", taken="2026-01-02", commit="aaa")
    put(tmp_path, "drain", taken="2026-01-03", commit="aaa")
    (said,) = (line for line in summary.page(tmp_path) if line.startswith("Taken"))
    assert "Taken 2026-01-03 " in said
    assert "; greenroom at aaa; pebble 5." in said


def test_results_of_other_commits_than_the_newest_are_named(tmp_path: Path) -> None:
    put(tmp_path, "churn", taken="2026-01-02", commit="aaa")
    put(tmp_path, "drain", taken="2026-01-03", commit="bbb")
    put(tmp_path, "burst", taken="2026-01-01", commit="aaa")
    (said,) = (line for line in summary.page(tmp_path) if line.startswith("Taken"))
    assert "; greenroom at bbb; at aaa: churn, burst; pebble 5." in said
