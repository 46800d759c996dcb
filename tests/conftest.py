"""For all tests."""

from __future__ import annotations

import signal
from collections.abc import Generator

import pytest


def pytest_configure() -> None:
    """Have programs that tests start take Ctrl-C, also where the tests run in the background.

    A shell that starts a command with ``&`` has it ignore SIGINT, and what is ignored
    stays so in every program that it starts.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have what a test logged travel between processes where they share the tests.

    Half a character, which some tests log on purpose, cannot be encoded.
    """
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report
