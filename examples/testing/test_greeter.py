"""Run with ``pytest examples/testing``."""

from __future__ import annotations

import asyncio
from typing import Any

from examples.testing import greeter
from supervisor import JobStatus
from supervisor.testing import Deed, FakeDispatcher, check_lifecycles

FAILED = frozenset({JobStatus.FAILED})
NEVER_ENDS: frozenset[JobStatus] = frozenset()


def test_a_job_runs_in_a_warm_process(pool: Any) -> None:
    async def scenario() -> None:
        async with pool(setup_fnc=greeter.prewarm) as p:
            assert await p.submit(greeter.score, "four") == 4

    asyncio.run(scenario())


def test_only_vips_are_greeted(server: Any) -> None:
    async def scenario() -> None:
        async with server(greeter.make_server()) as running:
            dispatcher = FakeDispatcher(running)
            refused = await dispatcher.offer("lobby")
            assert (refused.accepted, refused.reason) == (False, "rejected")
            accepted = await dispatcher.offer("vip lounge", start=False)
            assert accepted.arguments.attributes == {"tier": "vip"}
            accepted.give_back()

    asyncio.run(scenario())


def test_a_caller_who_hangs_up_ends_the_job(server: Any) -> None:
    async def scenario() -> None:
        async with server(greeter.entrypoint, setup_fnc=greeter.prewarm) as running:
            offered = await FakeDispatcher(running).offer("en wait")
            assert offered.handle is not None
            offered.handle.cancel()
            assert (await offered.outcome()).status is JobStatus.CANCELLED

    asyncio.run(scenario())


def test_the_server_keeps_its_promises_whatever_happens_to_it() -> None:
    check_lifecycles(
        Deed("greets", room="en"),
        Deed("a language it has not", room="fr", ends=FAILED),
        Deed("waits for ever", room="de wait", ends=NEVER_ENDS),
        setup_fnc=greeter.prewarm,
        entrypoint=greeter.entrypoint,
        histories=5,
    )


def test_the_pool_keeps_its_promises_whatever_happens_to_it() -> None:
    check_lifecycles(
        Deed("scores", greeter.score, ("four",), check=lambda value: value == 4),
        Deed("gets no text", greeter.score, (None,), ends=FAILED, raises=TypeError),
        setup_fnc=greeter.prewarm,
        histories=5,
    )
