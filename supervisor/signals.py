"""Signals, turned into ordinary calls on the loop.

What of ours runs inside a signal handler: only the count of signals that the loop has
not come to (``unheard.py``). The interpreter writes one byte into the loop's wakeup pipe, and our
callback runs later, on the loop, between two tasks. So a callback here needs no lock and
may call anything. That is the whole reason for this file; there is no ``signal.signal``
elsewhere in the supervisor.

Two facts that are easy to forget:

* Python runs handlers, and lets them be installed, in the main thread only.
* ``loop.remove_signal_handler`` puts back the *default*, not what was there
  before us. The embedding program's handler would be lost, so we put it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Generator, Mapping

from supervisor.unheard import Unheard


@contextlib.contextmanager
def route_signals(
    loop: asyncio.AbstractEventLoop, routes: Mapping[signal.Signals, Callable[[], None]]
) -> Generator[None, None, None]:
    """While the block runs, each signal calls its route on *loop*.

    Signals that arrive together may be merged into one call: the kernel keeps a
    flag for each signal, not a count. Where something blocks *loop* for more than a second, the
    second signal or a later one says on stderr what it is, and the next ends the process.

    Runs on: the main thread.

    Raises:
        RuntimeError: not the main thread, or the loop is closed.
    """
    before = {}
    unheard = Unheard()

    def heard(route: Callable[[], None]) -> None:
        unheard.heard()
        route()

    try:
        for sig, route in routes.items():
            handler = signal.getsignal(sig)
            loop.add_signal_handler(sig, heard, route)
            before[sig] = handler
            # In the place of asyncio's, which does nothing: the byte is written before it.
            signal.signal(sig, unheard.came)
        yield
    finally:
        for sig, handler in before.items():
            loop.remove_signal_handler(sig)
            # None: the handler was installed from C and Python cannot restore it.
            if handler is not None:
                signal.signal(sig, handler)
