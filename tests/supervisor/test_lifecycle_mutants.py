"""Break the table in every small way there is, and see that a law objects each time.

A law that nothing breaks is worth nothing, and a cell that can be wrong without
any law objecting is not tested. So: each cell removed, each missing one added,
each sent elsewhere, each act dropped, added, done twice or out of order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from supervisor.lifecycle import TABLE, Act, Event, State, Step
from tests.supervisor.lifecycle_laws import LAWS, Law, Table, first_objection

Mutant = tuple[str, Table]


def with_cell(state: State, event: Event, cell: Step | None) -> Table:
    """Return the table with one cell changed, added, or (None) removed."""
    row = dict(TABLE[state])
    if cell is None:
        del row[event]
    else:
        row[event] = cell
    return {**TABLE, state: row}


def name_of(state: State, event: Event, what: str) -> str:
    return f"{event.value} in {state.value}: {what}"


def removed() -> Iterator[Mutant]:
    for state, row in TABLE.items():
        for event in row:
            yield name_of(state, event, "removed"), with_cell(state, event, None)


def added() -> Iterator[Mutant]:
    for state, event in itertools.product(State, Event):
        if event not in TABLE[state]:
            for after in State:
                what = "added" if after is state else f"added, to {after.value}"
                yield name_of(state, event, what), with_cell(state, event, (after, ()))


def sent_elsewhere() -> Iterator[Mutant]:
    for state, row in TABLE.items():
        for event, (after, acts) in row.items():
            for other in set(State) - {after}:
                yield (
                    name_of(state, event, f"to {other.value}"),
                    with_cell(state, event, (other, acts)),
                )


def with_other_acts() -> Iterator[Mutant]:
    for state, row in TABLE.items():
        for event, (after, acts) in row.items():
            for what, changed in other_acts(acts):
                yield name_of(state, event, what), with_cell(state, event, (after, changed))


def other_acts(acts: tuple[Act, ...]) -> Iterator[tuple[str, tuple[Act, ...]]]:
    for act in acts:
        yield f"without {act.name}", tuple(each for each in acts if each is not act)
    for act in Act:
        yield f"with {act.name} more", (*acts, act)
        yield f"with {act.name} before", (act, *acts)
    for order in itertools.permutations(acts):
        if order != acts:
            yield "in another order", order


MUTANTS: list[Mutant] = [*removed(), *added(), *sent_elsewhere(), *with_other_acts()]


def test_the_table_itself_has_no_objection() -> None:
    assert first_objection(TABLE) is None


def test_there_are_mutants_of_every_cell() -> None:
    for state, event in itertools.product(State, Event):
        assert any(name.startswith(f"{event.value} in {state.value}:") for name, _ in MUTANTS)
    assert len(MUTANTS) > 1000


def test_every_mutant_breaks_a_law() -> None:
    survivors = [name for name, table in MUTANTS if first_objection(table) is None]
    assert survivors == []


def breaks(law: Law, table: Table) -> bool:
    try:
        law(table)
    except (AssertionError, KeyError):
        return True
    return False


@pytest.mark.parametrize("law", [pytest.param(law, id=law.__name__) for law in LAWS])
def test_a_law_that_nothing_breaks_is_worth_nothing(law: Law) -> None:
    assert any(breaks(law, table) for _, table in MUTANTS)
