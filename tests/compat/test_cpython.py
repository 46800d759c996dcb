"""CPython's own executor tests pass, but for those that docs/executor-compat.md lists."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.compat import cases, deviations
from tests.compat.deviations import Deviation

# One class takes 5 to 20 s on two CPUs. A hang must end before CI does.
CLASS_SECONDS = 240

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.slow
@pytest.mark.timeout(CLASS_SECONDS + 30)
@pytest.mark.skipif(bool(cases.why_missing()), reason=cases.why_missing() or "they are there")
@pytest.mark.parametrize("tests", cases.CLASSES)
@pytest.mark.parametrize("adapter", cases.ADAPTERS)
def test_the_interpreters_own_tests_end_as_they_are_listed(adapter: str, tests: str) -> None:
    listed = [
        row
        for row in deviations.read(deviations.DOCUMENT.read_text(encoding="utf-8"))
        if row.tests == tests and row.counts_for(adapter, PYTHON)
    ]
    without = [row.name for row in listed if row.end == "not run"]
    said = run_class(adapter, tests, without)
    ends = {each["test"]: each["end"] for each in said}
    why = {each["test"]: each["why"] for each in said}
    found = deviations.complaints(listed, ends)
    assert not found, "\n".join(
        [*found, *(f"{name}: {text}" for name, text in why.items() if text)]
    )


def run_class(adapter: str, tests: str, without: list[str]) -> list[dict[str, str]]:
    """Return what the runner printed, one class in one process."""
    command = [sys.executable, "-m", "tests.compat.run", adapter, "forkserver", tests]
    for name in without:
        command += ["--without", name]
    # Some of the tests are about the resource tracker's and the interpreter's own words
    # on stderr, so nothing of our environment's may change them.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    process = subprocess.Popen(
        command,
        cwd=cases.REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=CLASS_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"{tests} hung; the last of what it said:\n{out[-2000:]}\n{err[-4000:]}")
    assert process.returncode == 0, err[-4000:]
    return [json.loads(line) for line in out.splitlines() if line.startswith('{"test": ')]


# ── the comparison itself ────────────────────────────────────────────────────

ROW = "| `WaitTests.test_x` | both | 3.13 | fails | it wants something else |"


def test_a_row_is_read() -> None:
    (row,) = deviations.read(ROW)
    assert row == Deviation(
        "WaitTests",
        "test_x",
        ("SingleUse", "Reusing"),
        ("3.13",),
        "failed",
        "it wants something else",
    )
    assert row.counts_for("Reusing", "3.13")
    assert not row.counts_for("Reusing", "3.10")


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(ROW.replace("both", "some"), id="unknown workers"),
        pytest.param(ROW.replace("fails", "wobbles"), id="unknown end"),
        pytest.param(ROW.replace(" it wants something else", " "), id="no reason"),
    ],
)
def test_a_row_that_cannot_be_read_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        deviations.read(line)


@pytest.mark.parametrize(
    ("end", "complaint"),
    [
        pytest.param("failed", None, id="listed and failed"),
        pytest.param("passed", "test_x passed, and is listed as failed", id="listed and passed"),
        pytest.param("skipped", "test_x skipped, and is listed as failed", id="listed and skipped"),
    ],
)
def test_a_listed_test_has_to_end_as_listed(end: str, complaint: str | None) -> None:
    found = deviations.complaints(deviations.read(ROW), {"test_x": end})
    assert found == ([] if complaint is None else [complaint])


def test_an_unlisted_test_has_to_pass() -> None:
    assert deviations.complaints([], {"test_x": "failed"}) == ["test_x failed, and is not listed"]
    assert deviations.complaints([], {"test_x": "passed"}) == []


def test_a_listed_test_has_to_exist() -> None:
    assert deviations.complaints(deviations.read(ROW), {}) == [
        "test_x is listed, and there is no such test"
    ]
