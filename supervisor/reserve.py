"""How many of the descriptors that may be open are kept for the program. Pure.

Each worker takes some in the supervisor, which is the user's program: it has files
of its own to open and connections to accept. So workers leave it a share, and jobs
wait instead.

The kernel gives the lowest number that is free. So the number of a descriptor that
was just opened tells how many are open at the least, whoever opened them, without
counting any: all below it.
"""

from __future__ import annotations

from typing import Final

import msgspec

# A quarter of what the program could have if there were no workers.
_SHARE: Final = 4

# What it keeps in any case, however much of the limit is taken by what is not this
# pool's: that may be another pool's workers, which reckon like these.
_LEAST_SHARE: Final = 16


class Price(msgspec.Struct, frozen=True, gc=False):
    """What one worker takes in the supervisor.

    Args:
        kept: descriptors as long as it lives.
        starting: how many more that are until its start is over, at the most. Fewer if negative.
        to_come: those that its start opens later than its ends.
    """

    kept: int
    starting: int
    to_come: int


def price(*, capture_output: bool, spawning: bool) -> Price:
    """Return what a worker takes.

    Args:
        capture_output: it has pipes for its output.
        spawning: it is started as a fresh interpreter, by multiprocess.
    """
    # Channel, logs and mark, two pipes. Each has two ends; the child's are closed when they
    # were sent.
    ends = 5 if capture_output else 3
    if spawning:
        # Closed later than that. And the pidfd twice, and the pipes of multiprocess and of
        # the standard library's spawn meanwhile.
        return Price(kept=ends + 2, starting=ends + 4, to_come=8)
    return Price(kept=ends + 1, starting=-1, to_come=1)  # the pidfd


def kept_free(limit: int, opened: int, *, alive: int, spawning: int, each: Price) -> int:
    """Return how many of *limit* descriptors workers leave to the program.

    Args:
        limit: how many may be open.
        opened: how many are open at the least.
        alive: workers there are.
        spawning: those of them whose start is not over.
        each: what a worker takes.
    """
    # What is not known to be the program's counts as the workers': it is kept more then.
    others = max(0, opened - alive * each.kept - spawning * each.starting)
    return max(limit // _LEAST_SHARE, (limit - others) // _SHARE)


def has_room(limit: int, opened: int, *, alive: int, spawning: int, each: Price) -> bool:
    """Return whether a worker whose ends are open already may be started.

    The first one always is: without any, jobs would wait for ever, and the kernel may
    still refuse.

    Args:
        limit: how many descriptors may be open.
        opened: how many are open at the least, with the new worker's ends.
        alive: workers there are, with the new one.
        spawning: those of them whose start is not over, with the new one.
        each: what a worker takes.
    """
    free = limit - opened - spawning * each.to_come
    return alive <= 1 or free >= kept_free(limit, opened, alive=alive, spawning=spawning, each=each)
