"""Every benchmark runs, with counts so small that its figures mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.summary import NAMES

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def run(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``python -m benchmarks`` as a user would."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, [path, ROOT])))}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_and_writes_what_it_found(name: str, tmp_path: Path) -> None:
    # One peer in one of them shows that peers are asked; more would only take longer.
    peer = "pool-forkserver" if name == "handover" else "none"
    done = run(name, "--quick", "--only", peer, "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / f"{name}.json").read_text("utf-8"))
    assert content["rows"], "a benchmark without a line in the table"
    assert all(row["measure"] in done.stdout for row in content["rows"])
    assert {"cpu", "cpus", "kernel", "python"} <= set(content["machine"])


def test_a_peer_that_is_not_installed_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "pebble.py").write_text("raise ImportError('no pebble here')")
    results = tmp_path / "results"
    done = run("churn", "--quick", "--only", "pebble", "--results", str(results), path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pebble: not installed: no pebble here" in done.stderr
    content = json.loads((results / "churn.json").read_text("utf-8"))
    assert content["out"] == {"pebble": "not installed: no pebble here"}
    assert [row["met"] for row in content["rows"]][1] is None


def test_the_table_is_made_from_what_was_found(tmp_path: Path) -> None:
    run("supervisor_cost", "--quick", "--results", str(tmp_path))
    done = run("table", "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "supervisor CPU for one more job" in done.stdout
    assert "of 2 targets met" in done.stdout
    assert "| measure | ours |" in (tmp_path / "README.md").read_text("utf-8")


def test_an_unknown_name_is_a_usage_error() -> None:
    done = run("hand-over")
    assert done.returncode == 2
    assert "no benchmark 'hand-over'" in done.stderr


def test_so_is_a_peer_that_there_is_not() -> None:
    done = run("handover", "--quick", "--only", "nope")
    assert done.returncode == 2
    assert "argument --only: no peer 'nope'; there are: pool-fork, " in done.stderr


def test_so_is_a_number_of_rounds_that_is_none() -> None:
    done = run("table", "--rounds", "0")
    assert done.returncode == 2
    assert "argument --rounds: '0': expected a whole number of at least 1" in done.stderr


def test_hooks_of_ones_own_are_measured(tmp_path: Path) -> None:
    (tmp_path / "myhooks.py").write_text(
        "def prewarm(proc):\n    proc.userdata['words'] = proc.userdata['text'].split()\n"
        "def load(proc):\n    proc.userdata['text'] = 'a b c'\n"
    )
    hooks = ("--setup", "myhooks:prewarm", "--preload", "myhooks:load")
    done = run("warm_start", *hooks, "--rate", "7", "--quick", path=tmp_path)
    assert done.returncode == 0, done.stderr
    for said in ("cold start", "warm start, p50", "memory per additional idle worker"):
        assert said in done.stdout
    assert "at 7 jobs a second: num_idle_processes=" in done.stdout


def test_a_hook_that_fails_is_told_without_a_traceback_of_ours(tmp_path: Path) -> None:
    (tmp_path / "myhooks.py").write_text("def prewarm(proc):\n    raise RuntimeError('no model')\n")
    done = run("warm_start", "--setup", "myhooks:prewarm", path=tmp_path)
    assert done.returncode == 1
    assert "no model" in done.stderr
    assert "benchmarks/warm_start.py" not in done.stderr
