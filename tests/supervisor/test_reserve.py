"""Workers leave the program descriptors of its own, whoever has opened what there is."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from supervisor.launch import make_ends
from supervisor.reserve import Price, has_room, kept_free, price

PLAIN = price(capture_output=False, spawning=False)
CAPTURED = price(capture_output=True, spawning=False)


def fill(limit: int, *, others: int, each: Price) -> tuple[int, int]:
    """Start workers until there is no room; return how many, and how many descriptors are open.

    Each is born before the next one is started.
    """
    alive, opened = 0, others
    ends = 10  # at the most
    while opened + ends <= limit and has_room(
        limit, opened + ends, alive=alive + 1, spawning=1, each=each
    ):
        alive, opened = alive + 1, opened + each.kept
    return alive, opened


@pytest.mark.parametrize("capture_output", [False, True])
def test_a_worker_is_reckoned_with_what_is_opened_for_it(capture_output: bool) -> None:
    near, far = make_ends(capture_output=capture_output)
    ends = [near.channel.fileno(), near.logs.fileno(), near.mark, near.stdout, near.stderr]
    each = price(capture_output=capture_output, spawning=False)
    assert each.kept == sum(fd >= 0 for fd in ends) + 1, "and the pidfd"
    assert each.to_come == 1
    near.close()
    far.close()


def test_a_program_with_little_of_its_own_keeps_a_quarter_of_the_limit() -> None:
    alive, opened = fill(1024, others=10, each=PLAIN)
    assert 1024 - opened >= 253  # a quarter of what the ten leave
    assert alive > 180
    assert fill(1024, others=10, each=CAPTURED)[0] > 120


def test_a_program_with_much_of_its_own_keeps_a_quarter_of_the_rest() -> None:
    alive, opened = fill(1024, others=700, each=PLAIN)
    assert 78 <= 1024 - opened < 100
    assert alive > 50


def test_the_last_sixteenth_is_kept_whoever_has_taken_the_rest() -> None:
    # As two more pools do, each of which takes the others' workers for the program's.
    opened = 10
    for _ in range(4):
        opened = fill(1024, others=opened, each=PLAIN)[1]
    # But for the first worker of each, which nothing keeps out.
    assert 1024 - opened >= 1024 // 16 - 2 * PLAIN.kept


def test_those_that_are_being_born_will_open_more() -> None:
    room = has_room(100, 74, alive=18, spawning=1, each=PLAIN)
    assert room
    assert not has_room(100, 74, alive=18, spawning=9, each=PLAIN)


def test_the_first_worker_is_always_let_in() -> None:
    assert has_room(60, 60, alive=1, spawning=1, each=PLAIN)
    assert not has_room(60, 60, alive=2, spawning=1, each=PLAIN)


@given(
    limit=st.integers(64, 1 << 20),
    others=st.integers(0, 2000),
    each=st.sampled_from([PLAIN, CAPTURED, price(capture_output=True, spawning=True)]),
)
def test_workers_never_take_what_is_kept_free(limit: int, others: int, each: Price) -> None:
    limit = min(limit, 4096)
    others = min(others, limit)
    alive, opened = fill(limit, others=others, each=each)
    if alive > 1:
        assert limit - opened >= limit // 16
        assert limit - opened >= (limit - others) // 4 - 3, (
            "but for its ends, which count as others"
        )
        kept = kept_free(limit, opened, alive=alive, spawning=0, each=each)
        assert kept == max(limit // 16, (limit - others) // 4)
