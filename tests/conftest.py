"""For all tests."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Have programs that tests start take Ctrl-C, also where the tests run in the background.

    A shell that starts a command with ``&`` has it ignore SIGINT, and what is ignored
    stays so in every program that it starts.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
