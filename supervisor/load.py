"""How busy the server is, as one number from 0.0 to 1.0, or None: nobody can tell.

Two sources. By default the CPU use of the last five seconds, from counters of
the kernel. Or the user's ``load_fnc``, which may do what it likes: raise, return
nonsense, block for ever. None of that may delay or decide an answer to a job
request, so:

* a plain function runs in one daemon thread of its own, never on the loop;
* it has a second; after that it counts as stuck, and until it comes back every
  caller is told None at once, which counts as full;
* callers at the same time share an evaluation, as long as it has not begun: one
  that has begun may have looked before the jobs that the caller knows of.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import numbers
import queue
import threading
from collections.abc import Callable
from typing import Any, Final

from supervisor.cgroupfs import cpu_quota
from supervisor.checks import fits
from supervisor.clock import monotonic
from supervisor.cpuload import CpuLoad, read_cpu
from supervisor.cpus import cpu_count
from supervisor.errors import OptionError
from supervisor.inthread import attempt
from supervisor.options import Hook

logger = logging.getLogger("greenroom.load")

ANSWER_TIMEOUT: Final = 1.0
WARNING_INTERVAL: Final = 60.0


def takes_server(load_fnc: Hook) -> bool:
    """Return whether *load_fnc* wants the server as its argument.

    It does if it cannot do without, or if its first parameter is called ``server``.

    Raises:
        OptionError: it wants more than that.
    """
    try:
        signature = inspect.signature(load_fnc)
    except ValueError:  # some functions written in C do not tell
        return False
    if fits(signature):
        return next(iter(signature.parameters), "") == "server"
    if fits(signature, None):
        return True
    raise OptionError("load_fnc", load_fnc, "a function that takes the server, or nothing")


class _Thread:
    """One daemon thread that makes calls, one after the other.

    A daemon, since a function that never returns must not keep the program from
    ending; ``concurrent.futures`` would join it at exit.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="greenroom load_fnc", daemon=True)
        self.busy = False  # only the loop's thread changes this
        self._thread.start()

    def call(self, function: Callable[[], object]) -> asyncio.Future[object]:
        """Call *function* there. What it raises comes out of the future."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[object] = loop.create_future()
        self.busy = True

        def back(value: object, error: BaseException | None) -> None:
            self.busy = False
            if answer.cancelled():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(value)

        def there() -> None:
            value, error = attempt(function)
            try:
                loop.call_soon_threadsafe(back, value, error)
            except RuntimeError:
                logger.debug("load_fnc came back after the loop had closed")

        self._calls.put(there)
        return answer

    def close(self) -> None:
        """End the thread, unless it is stuck: then it ends by itself, or with the program."""
        self._calls.put(None)
        if not self.busy:
            self._thread.join(ANSWER_TIMEOUT)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


class LoadMeter:
    """The load, from the default or from the user's function.

    Runs on: the server's loop, every method.

    Args:
        load_fnc: the user's function, sync or async; None for the CPU.
        server: what it gets as its argument, if it takes one.

    Raises:
        OptionError: *load_fnc* takes more than the server.
    """

    def __init__(self, load_fnc: Hook | None = None, server: object = None) -> None:
        self._cpu = _cpu_load(self._sampled) if load_fnc is None else None
        #: True if the load is that of the CPU, which lags behind the jobs just admitted.
        self.is_default = load_fnc is None
        # CPUs that the default load is a share of. Counting them reads files.
        self.cpus = cpu_count()
        self._load_fnc = load_fnc
        self._arguments = (server,) if load_fnc is not None and takes_server(load_fnc) else ()
        self._is_async = _is_async(load_fnc)
        self._thread: _Thread | None = None
        #: The last good value, 0.0 to 1.0. Before there was one, the CPU counts as free, and
        #: a function of the user as saying full. To be read only; asked for on each job's way.
        self.last = 0.0 if load_fnc is None else 1.0
        self._stuck: asyncio.Future[object] | None = None
        self._running: asyncio.Future[float | None] | None = None
        self._coming: asyncio.Future[float | None] | None = None
        self._call: asyncio.Future[object] | None = None
        self._closed = False
        self._complaining = False
        self._warned_at = -math.inf

    @property
    def answers(self) -> bool:
        """False while the user's function gives no load: the server counts as full then."""
        return not self._complaining

    def start(self) -> None:
        """Begin to sample the CPU. A user's function is only called when it is asked for."""
        if self._cpu is not None:
            self._cpu.start()

    def close(self) -> None:
        """Let go of timer and thread. Who waits is told None. Does not wait for a stuck function."""
        self._closed = True
        if self._cpu is not None:
            self._cpu.close()
        if self._call is not None:
            self._call.cancel()
        if self._thread is not None:
            self._thread.close()

    async def measure(self) -> float | None:
        """Return the load; None if the user's function does not give one. Never raises.

        The default answers at once with its latest figure. The user's function
        is asked anew, after the call of this method; callers that share an
        evaluation get the same figure.

        Cancelled: the evaluation goes on for the others.
        """
        if self._cpu is not None:
            return self.last
        if self._closed or self._stuck is not None:
            return None
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._evaluate(self._running))
        return await asyncio.shield(self._coming)

    async def _evaluate(self, before: asyncio.Future[float | None] | None) -> float | None:
        if before is not None:
            await asyncio.wait({before})
        # From here on it may be stale for a new caller: the next one is another.
        self._running, self._coming = self._coming, None
        try:
            if self._closed or self._stuck is not None:
                return None
            figure = await self._ask()
            if figure is not None:
                self._note_good(figure)
            return figure
        except _Useless as exc:
            self._complain(str(exc))
            return None
        finally:
            self._running = None

    async def _ask(self) -> float | None:
        call = self._call = asyncio.ensure_future(self._answer())
        await asyncio.wait({call}, timeout=ANSWER_TIMEOUT)
        if not call.done():
            self._stuck = call
            call.add_done_callback(self._came_back)
            if self._thread is None or not self._thread.busy:
                call.cancel()  # a coroutine can be ended; a thread only awaited
            raise _Useless(f"did not answer within {ANSWER_TIMEOUT:g} s")
        if call.cancelled():
            if self._closed:
                return None
            raise _Useless("raised CancelledError")
        if (error := call.exception()) is not None:
            raise _Useless(f"raised {type(error).__name__}: {error}") from error
        return _checked(call.result())

    async def _answer(self) -> object:
        load_fnc, arguments = self._load_fnc, self._arguments
        assert load_fnc is not None, "the default load is not asked"
        try:
            if self._is_async:
                value = load_fnc(*arguments)
            else:
                self._thread = self._thread or _Thread()
                value = await self._thread.call(lambda: load_fnc(*arguments))
            return await value if inspect.isawaitable(value) else value
        except (SystemExit, KeyboardInterrupt) as exc:
            # A task hands these two on to the loop, which would end the server.
            raise RuntimeError(repr(exc)) from exc

    def _sampled(self, load: float) -> None:
        self.last = load

    def _note_good(self, figure: float) -> None:
        self.last = figure
        if self._complaining:
            self._complaining = False
            logger.info("load_fnc answers again: %.2f", figure)

    def _complain(self, what: str) -> None:
        self._complaining = True
        if monotonic() - self._warned_at >= WARNING_INTERVAL:
            self._warned_at = monotonic()
            logger.warning("load_fnc %s; the server counts as full until it answers well", what)

    def _came_back(self, call: asyncio.Future[object]) -> None:
        self._stuck = None  # its answer is old by now; the next caller asks anew
        if not call.cancelled() and (error := call.exception()) is not None:
            logger.debug("load_fnc raised after its time was over: %r", error)


class _Useless(Exception):
    """The user's function gave no load; the text continues ``load_fnc …``."""


def _checked(value: object) -> float:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not value >= 0:  # type: ignore[operator]  # false for NaN too
        raise _Useless(f"returned {value!r}, expected a number from 0.0 to 1.0")
    # More than full is full: jobs by the number that is wanted of them may come to that.
    number: Any = value
    return float(min(number, 1))


def _is_async(load_fnc: Hook | None) -> bool:
    return inspect.iscoroutinefunction(load_fnc) or inspect.iscoroutinefunction(
        getattr(load_fnc, "__call__", None)  # noqa: B004 - an object with an async __call__
    )


def _cpu_load(report: Callable[[float], None]) -> CpuLoad:
    # Looking for the quota reads files on the way up to the root: once, and not with
    # each sample.
    quota = cpu_quota()
    granted = None if quota is None else quota.cpus
    return CpuLoad(lambda: read_cpu(quota), report, quota=granted)
