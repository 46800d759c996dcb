"""What each worker will do, done beforehand in the process that workers are forked from.

Each page that a worker writes to is one that it no longer shares. Some writes are
needed only once, and done here they are done for all workers: the interpreter rewrites
a function's code during its first calls (since Python 3.11), and remembers where it
found attributes. So the parts of a worker's life that leave nothing behind are gone
through in this very process. Which code runs in it, a worker on trial has told before
(``trial.py``), and it lies together by then (``layout.py``).
"""

from __future__ import annotations

import gc
import logging
from typing import Final

from supervisor.child import hugepages, layout
from supervisor.child.birth import Birth
from supervisor.child.context import JobProcess
from supervisor.child.hello import say_hello
from supervisor.child.pinned import Pins
from supervisor.child.strays import has_children
from supervisor.child.trial import (
    code_of_a_life,
    new_ends,
    pages_of_a_birth,
    pages_of_a_life,
    without_user_code,
)
from supervisor.child.worker import Worker

logger = logging.getLogger("greenroom.forkserver")

# More than the interpreter's warm-up of any instruction; in all some ten milliseconds.
ROUNDS: Final = 20

# Pages that a process has made by itself before it can count those that it was born with, at most.
_MADE_AT_BIRTH: Final = 256


def settle(birth: Birth) -> Pins | None:
    """Make this process ready to be forked: once, when user code was loaded.

    It has one thread. Afterwards its forwarder has to be connected again. What is
    returned, if anything, each child has to close.
    """
    trial = without_user_code(birth)
    huge: set[int] = set()
    used: set[int] = set()
    layout.leave_row()
    gc.collect()
    try:
        used = code_of_a_life(trial)
        layout.fill_holes()
        layout.lay_together(used)
        gc.freeze()
        if not has_children():  # they would lose what they share with this process
            huge = hugepages.collapse()
        for _ in range(ROUNDS):
            _live(trial)
    except Exception:  # noqa: BLE001 - signal handlers and audit hooks of the user run here
        # Mostly no process or no descriptor to be had. Workers are only slower for it;
        # that they cannot be made either is said where they are.
        logger.debug("workers will be slower", exc_info=True)
    gc.collect()
    layout.fill_holes()
    gc.freeze()
    # Where the first on trial has told nothing, a second would not either.
    return _pinned(trial, huge) if used else None


def _pinned(trial: Birth, huge: set[int]) -> Pins | None:
    """Pin what each worker writes to, but for what lies in *huge* pages: these would be copied whole."""
    pins: Pins | None = None
    try:
        ranges = hugepages.small_ranges(huge)
        pages = pages_of_a_life(trial, ranges)
        if not pages:
            return None
        pins = Pins(pages)
        copied = pages_of_a_birth(ranges)
        logger.debug("%d pages are pinned, %d are copied by a fork", len(pages), copied)
        if copied <= len(pages) + _MADE_AT_BIRTH:
            return pins
        # The kernel has larger pages than those that we know of. One of them, copied whole by
        # each fork, takes more than is won.
    except Exception:  # noqa: BLE001 - as in settle
        logger.debug("workers will be slower", exc_info=True)
    if pins is not None:
        pins.close()
    return None


def _live(trial: Birth) -> None:
    """Go through a worker's life in this process, without what would change it."""
    with new_ends() as (ends, _):
        worker = Worker(
            trial.hooks, trial.settings, say_hello(ends), ends, JobProcess(), trial.forwarder
        )
        try:
            worker.rehearse()
        finally:
            worker.close()
