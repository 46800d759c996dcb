"""Break the plan in every small way there is, and see that its tests object each time.

One operator, constant, condition or argument at a time: see ``mutation.py``. A mutant
that gives the original's answer to every question of a grid is no mistake, only
another way to write it; those are listed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor import plan as subject
from supervisor.census import Census
from supervisor.drain import STEPS, Cause, Stage
from supervisor.plan import Plan, PoolLimits
from tests.supervisor import test_plan
from tests.supervisor.mutation import Mutant, mutants_of
from tests.supervisor.test_lifecycle_mutants import MUTANTS as LIFECYCLE_MUTANTS

DOCS = Path(__file__).parents[2] / "docs"

MUTANTS: list[Mutant] = list(mutants_of(subject.plan))

Question = tuple[Census, int, PoolLimits, bool]


def questions() -> Iterator[Question]:
    """Yield every question with small numbers."""
    small = (0, 1, 3)
    for spawning, warming, idle, running, stopping in itertools.product(
        (0, 2), (0, 1), small, (0, 2), (0, 1)
    ):
        census = Census(
            spawning=spawning, warming=warming, idle=idle, running=running, stopping=stopping
        )
        for waiting, target, draining in itertools.product((0, 1, 2, 4), (0, 2), (False, True)):
            for most, coming, keep in itertools.product((None, 2, 5), (None, 1), (None, 0, 2, 4)):
                yield census, waiting, PoolLimits(target, most, coming, keep), draining


QUESTIONS = list(questions())


def answers(function: Callable[..., Any]) -> list[Plan | None]:
    """Return what *function* says to every question; None where it raises."""
    return [_answer(function, *question) for question in QUESTIONS]


def _answer(
    function: Callable[..., Any], census: Census, waiting: int, limits: PoolLimits, draining: bool
) -> Plan | None:
    try:
        plan: Plan = function(census, waiting=waiting, limits=limits, draining=draining)
    except (TypeError, ValueError):
        return None
    return plan


def rows() -> Iterator[Question]:
    """Yield the questions of the tables of ``test_plan.py``, with the expected answer."""
    for test, draining in (
        (test_plan.test_the_plan, False),
        (test_plan.test_the_plan_of_a_drain, True),
        (test_plan.test_the_plan_of_a_drain_with_limits, True),
    ):
        marks: Any = vars(test)["pytestmark"]
        (mark,) = (each for each in marks if each.name == "parametrize")
        for row in mark.args[1]:
            census, waiting, *limits, expected = row.values
            yield census, waiting, limits[0] if limits else test_plan.TWO, draining, expected  # type: ignore[misc]


def is_caught(function: Callable[..., Any]) -> bool:
    """Return whether a row of the tables objects."""
    for census, waiting, limits, draining, expected in rows():  # type: ignore[misc]
        if _answer(function, census, waiting, limits, draining) != expected:
            return True
    return False


def test_the_plan_itself_has_no_objection() -> None:
    assert not is_caught(subject.plan)


def test_every_mutant_of_the_plan_is_caught_or_no_mistake() -> None:
    survivors = [(name, mutant) for name, mutant in MUTANTS if not is_caught(mutant)]
    original = answers(subject.plan)
    mistakes = [name for name, mutant in survivors if answers(mutant) != original]
    assert mistakes == []
    assert len(survivors) == len(MUTANTS) - figures()["plan"][0]


def figures() -> dict[str, tuple[int, int]]:
    """Return how many mutants are caught, and how many there are, of each subject."""
    plan = sum(is_caught(mutant) for _, mutant in MUTANTS)
    steps = len(Stage) * len(Cause) * (len(Stage) - 1)
    assert STEPS, "tests/supervisor/test_drain.py catches each of them, or fails"
    return {
        "lifecycle": (len(LIFECYCLE_MUTANTS), len(LIFECYCLE_MUTANTS)),
        "drain": (steps, steps),
        "plan": (plan, len(MUTANTS)),
    }


@pytest.mark.parametrize("name", ["lifecycle", "drain", "plan"])
def test_the_figures_in_the_docs_are_those_that_were_measured(name: str) -> None:
    text = (DOCS / "threat-model.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{name}\.py`.*?\| ([\d,]+) \| ([\d,]+) \|", text, re.MULTILINE)
    assert tuple(int(cell.replace(",", "")) for cell in row) == figures()[name][::-1]
