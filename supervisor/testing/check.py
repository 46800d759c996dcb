"""Running lifecycles: which histories, how many, of what.

Every run takes the same histories. To search for new ones set ``GREENROOM_EXAMPLES`` to
how many, with ``--hypothesis-seed=N`` to choose where to begin.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from supervisor.testing.deeds import Deed, check_deeds
from supervisor.testing.lifecycles import Lifecycles


def lifecycle_machine(
    *deeds: Deed,
    setup_fnc: Callable[..., Any] | None = None,
    entrypoint: Callable[..., Any] | None = None,
    **options: Any,
) -> type[Lifecycles]:
    """Return the state machine of a pool, or with *entrypoint* of a server.

    Args:
        deeds: what jobs do; the first should be ordinary and quick. A pool's name a
            function.
        setup_fnc: yours.
        entrypoint: yours; each deed then names a room.
        options: of the pool or the server. The machine chooses ``num_idle_processes``
            and ``max_jobs`` itself.

    Raises:
        TypeError: something is no deed.
        ValueError: no deed, or none that leaves nothing behind; or one says what only the
            other kind would look at, or lacks a pool's function.
    """
    check_deeds(deeds, is_server=entrypoint is not None)
    wrapped = {
        "deeds": deeds,
        "setup_fnc": None if setup_fnc is None else staticmethod(setup_fnc),
        "entrypoint": None if entrypoint is None else staticmethod(entrypoint),
        "options": options,
    }
    return type("Lifecycles", (Lifecycles,), wrapped)


def check_lifecycles(
    *deeds: Deed,
    setup_fnc: Callable[..., Any] | None = None,
    entrypoint: Callable[..., Any] | None = None,
    histories: int = 20,
    steps: int = 25,
    **options: Any,
) -> None:
    """Live once in peace, each deed once, then through *histories* of up to *steps* steps
    each; the arguments are those of :func:`lifecycle_machine`.

    Raises:
        TypeError: a deed that is refused there, before any process is started.
        ValueError: the same.
        AssertionError: something that must hold did not; the history is on stderr.
    """
    asked_for = os.environ.get("GREENROOM_EXAMPLES")
    machine = lifecycle_machine(*deeds, setup_fnc=setup_fnc, entrypoint=entrypoint, **options)
    peaceful = machine()
    try:
        peaceful.live_in_peace()
    finally:
        peaceful.teardown()
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=int(asked_for) if asked_for else histories,
                stateful_step_count=steps,
                derandomize=asked_for is None,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    except Flaky as exc:
        # It fails with real processes, and then, lived again to be told, it does not:
        # no two lives of theirs are the same.
        told = "; ".join(map(str, getattr(exc, "exceptions", ()))) or str(exc)
        raise AssertionError(f"a history failed, see stderr: {told}") from exc
