"""The example of docs/testing.md runs, and what the page says is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import supervisor.testing
from supervisor import JobContext
from supervisor.testing import Deed, check_lifecycles
from supervisor.testing.deeds import NEVER_ENDS
from tests.integration import recorded_jobs as jobs

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_runs_as_the_page_says() -> None:
    assert "`make test ARGS=examples/testing`" in PAGE
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "examples/testing"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


@pytest.mark.parametrize("name", supervisor.testing.__all__)
def test_each_name_can_be_had(name: str) -> None:
    assert getattr(supervisor.testing, name) is not None


def test_the_page_names_what_there_is() -> None:
    for name in (
        "FakeDispatcher",
        "check_lifecycles",
        "lifecycle_machine",
        "leaves_nothing",
        "Deed",
    ):
        assert name in supervisor.testing.__all__
        assert name in PAGE
    fixtures = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    from supervisor.testing import plugin

    assert fixtures == ["pool", "server", "leaves_nothing"]
    assert all(hasattr(plugin, name) for name in fixtures)


def test_neither_pytest_nor_hypothesis_is_needed_until_it_is_used() -> None:
    code = (
        "import sys; from supervisor.testing import FakeDispatcher, leaves_nothing, running_pool; "
        "print(sorted({'pytest', 'hypothesis', '_pytest'} & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "[]"


def test_deeds_that_all_leave_strays_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one deed"):
        check_lifecycles(Deed("stray", print, leaves_strays=True))


def test_a_deed_that_ends_against_its_word_is_found_whatever_is_drawn(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(AssertionError, match=r"J-1 \(lies\) ended as .*FAILED"):
        # With its module warm: to import one may take longer than a deed is watched.
        check_lifecycles(
            Deed("lies", jobs.raise_an_exception, ends=NEVER_ENDS),
            setup_fnc=jobs.set_up,
            histories=1,
        )
    assert "This history ended in AssertionError" in capfd.readouterr().err


def test_a_deed_of_an_entrypoint_is_looked_at_too() -> None:
    with pytest.raises(AssertionError, match=r"J-1 \(lies\) ended as .*FAILED"):
        check_lifecycles(
            Deed("lies", room="anywhere"), entrypoint=_enters_and_fails, histories=1, steps=1
        )


async def _enters_and_fails(ctx: JobContext) -> None:
    raise RuntimeError("against what was said")
