"""Real signals to this process become calls on the loop, and nothing is left changed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from supervisor.signals import route_signals

ONE, OTHER = signal.SIGUSR1, signal.SIGUSR2

PATIENCE = 20.0  # seconds; only a failing test waits so long


def of_the_host(*_: object) -> None:
    raise AssertionError("the host's handler was called")


@pytest.fixture(autouse=True)
def handlers_of_the_host() -> Iterator[None]:
    """Handlers that were there before us, and the check that they are there after us."""
    before = {sig: signal.signal(sig, of_the_host) for sig in (ONE, OTHER)}
    yield
    for sig, handler in before.items():
        assert signal.getsignal(sig) is of_the_host
        signal.signal(sig, handler)


class Bell:
    """Something to wait for."""

    def __init__(self) -> None:
        self.rung = 0
        self._event = asyncio.Event()

    def ring(self) -> None:
        self.rung += 1
        self._event.set()

    async def wait(self) -> None:
        await asyncio.wait_for(self._event.wait(), PATIENCE)


async def test_a_signal_calls_its_route_on_the_loop() -> None:
    loop, one, other = asyncio.get_running_loop(), Bell(), Bell()
    inside: list[bool] = []

    def ring_one() -> None:
        inside.append(asyncio.get_running_loop() is loop)
        one.ring()

    with route_signals(loop, {ONE: ring_one, OTHER: other.ring}):
        os.kill(os.getpid(), ONE)
        assert one.rung == 0, "it was called inside the signal handler"
        await one.wait()
        assert other.rung == 0
        os.kill(os.getpid(), OTHER)
        await other.wait()
    assert (one.rung, other.rung, inside) == (1, 1, [True])


async def test_a_route_is_called_again_for_the_next_signal() -> None:
    for _ in range(2):
        bell = Bell()
        with route_signals(asyncio.get_running_loop(), {ONE: bell.ring}):
            os.kill(os.getpid(), ONE)
            await bell.wait()


async def test_puts_back_the_handler_that_was_there() -> None:
    with route_signals(asyncio.get_running_loop(), {ONE: lambda: None}):
        assert signal.getsignal(ONE) is not of_the_host
        assert signal.getsignal(OTHER) is of_the_host
    assert signal.getsignal(ONE) is of_the_host


async def test_puts_back_the_handler_when_the_block_raises() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(LookupError), route_signals(loop, {ONE: lambda: None}):
        raise LookupError
    assert signal.getsignal(ONE) is of_the_host


@pytest.mark.parametrize(
    "handler",
    [pytest.param(signal.SIG_IGN, id="ignored"), pytest.param(signal.SIG_DFL, id="the default")],
)
async def test_puts_back_what_was_no_function(handler: signal.Handlers) -> None:
    signal.signal(ONE, handler)
    with route_signals(asyncio.get_running_loop(), {ONE: lambda: None}):
        pass
    assert signal.getsignal(ONE) is handler
    signal.signal(ONE, of_the_host)


async def test_a_handler_that_was_installed_from_c_is_left_to_its_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(signal, "getsignal", lambda _sig: None)
        with route_signals(asyncio.get_running_loop(), {ONE: lambda: None}):
            pass
    assert signal.getsignal(ONE) is signal.SIG_DFL
    signal.signal(ONE, of_the_host)


async def test_a_signal_that_cannot_be_routed_leaves_the_others_as_they_were() -> None:
    loop = asyncio.get_running_loop()
    with (
        pytest.raises(RuntimeError, match="cannot be caught"),
        route_signals(loop, {ONE: lambda: None, signal.SIGKILL: lambda: None}),
    ):
        raise AssertionError("the block was entered")
    assert signal.getsignal(ONE) is of_the_host


async def test_outside_the_main_thread_it_is_refused_and_nothing_is_changed() -> None:
    loop = asyncio.new_event_loop()

    def elsewhere() -> None:
        with route_signals(loop, {ONE: lambda: None}):
            raise AssertionError("the block was entered")

    try:
        with pytest.raises(RuntimeError, match="main thread"):
            await asyncio.to_thread(elsewhere)
    finally:
        loop.close()
    assert signal.getsignal(ONE) is of_the_host


def test_a_loop_that_is_closed_is_refused() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with (
        pytest.raises(RuntimeError, match="closed"),
        route_signals(loop, {ONE: lambda: None}),
    ):
        raise AssertionError("the block was entered")


def test_a_loop_that_is_closed_inside_the_block_still_gives_the_handler_back() -> None:
    loop = asyncio.new_event_loop()
    with route_signals(loop, {ONE: lambda: None}):
        loop.close()
    assert signal.getsignal(ONE) is of_the_host


async def test_signals_at_once_are_all_routed() -> None:
    bells: dict[signal.Signals, Bell] = {sig: Bell() for sig in (ONE, OTHER)}
    routes: dict[signal.Signals, Callable[[], None]] = {
        sig: bell.ring for sig, bell in bells.items()
    }
    with route_signals(asyncio.get_running_loop(), routes):
        for sig in bells:
            os.kill(os.getpid(), sig)
        for bell in bells.values():
            await bell.wait()
