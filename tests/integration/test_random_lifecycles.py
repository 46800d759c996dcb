"""Random histories of a real pool and a real server: see ``supervisor.testing.lifecycles``.

The jobs here are the worst that a job can be. To search for new histories::

    GREENROOM_EXAMPLES=500 pytest tests/integration/test_random_lifecycles.py \\
        --timeout 0 -o faulthandler_timeout=0
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Final

import pytest

from supervisor import JobStatus
from supervisor.job import Exit
from supervisor.testing import Deed, check_lifecycles
from supervisor.testing.deeds import NEVER_ENDS
from tests.integration import recorded_jobs as jobs

FAILED: Final = frozenset({JobStatus.FAILED})
KILLED: Final = frozenset({JobStatus.KILLED})


def of(
    name: str,
    *,
    check: Callable[[Any], bool] | None = None,
    raises: type[BaseException] | None = None,
    memory_limit_mb: float | None = None,
    **both: Any,
) -> tuple[Deed, Deed]:
    """Return the deed of that name as a pool's and as a server's, whose jobs return nothing."""
    for_a_pool = Deed(
        name,
        jobs.ALL_DEEDS[name],
        check=check,
        raises=raises,
        memory_limit_mb=memory_limit_mb,
        **both,
    )
    return for_a_pool, Deed(name, room=name, **both)


DEEDS: Final = (
    of("return_a_value", check="value".__eq__),
    of("return_much", check=bytes(300_000).__eq__),
    of("raise_an_exception", ends=FAILED, raises=ValueError),
    of("exit_softly", ends=FAILED, raises=SystemExit),
    of("exit_hard", ends=FAILED, exit=Exit(status=7)),
    of("exit_hard_with_success", ends=FAILED, exit=Exit(status=0)),
    of("segfault", ends=FAILED, exit=Exit(signal=signal.SIGSEGV)),
    of("abort", ends=FAILED, exit=Exit(signal=signal.SIGABRT)),
    of("kill_itself", ends=KILLED, exit=Exit(signal=signal.SIGKILL)),
    # Which comes first is chance: the end of the channel, or of the process.
    of("close_all_descriptors", ends=FAILED | KILLED),
    of("sleep_for_ever", ends=NEVER_ENDS),
    of("refuse_to_stop", ends=NEVER_ENDS),
    of("leave_a_grandchild"),
    of("leave_a_stray", leaves_strays=True),
    of("await_once", check="value".__eq__),
    of("await_for_ever", ends=NEVER_ENDS),
    of("use_too_much_memory", ends=KILLED, reason="memory", memory_limit_mb=jobs.HOG_LIMIT_MB),
)


@pytest.mark.slow
def test_every_history_of_a_pool_keeps_the_promises() -> None:
    deeds = [for_a_pool for for_a_pool, _ in DEEDS]
    check_lifecycles(*deeds, setup_fnc=jobs.set_up, histories=40)


@pytest.mark.slow
def test_every_history_of_a_server_keeps_the_promises() -> None:
    deeds = [for_a_server for _, for_a_server in DEEDS]
    check_lifecycles(
        *deeds,
        setup_fnc=jobs.set_up_later,
        entrypoint=jobs.do_as_the_room_says,
        histories=20,
        # The hog's; nobody else comes near it.
        job_memory_limit_mb=jobs.HOG_LIMIT_MB,
    )
