"""Runs one class of the interpreter's executor tests; one JSON object a line for each test.

::

    python -m tests.compat.run SingleUse forkserver ExecutorDeadlockTest
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib
import json
import unittest
from typing import Any

from tests.compat import cases


class Reporter(unittest.TestResult):
    """Prints each result. A test that leaves a thread behind has failed."""

    def __init__(self) -> None:
        super().__init__()
        # With the interpreter's tests, so there wherever they are.
        self._support: Any = importlib.import_module("test.support")
        self._said = ("passed", "")

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._said = ("passed", "")
        self._support.environment_altered = False

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        if self._said[0] == "passed" and self._support.environment_altered:
            self._said = ("failed", "it left a thread behind")
        report(test.id().rpartition(".")[2], *self._said)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        self._said = ("failed", f"{err[0].__name__}: {err[1]}"[:2000])

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.addError(test, err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self.addError(test, err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self._said = ("skipped", reason)


def report(name: str, end: str, why: str) -> None:
    """Print how one test ended. On a line of its own: a test may have begun one."""
    print("\n" + json.dumps({"test": name, "end": end, "why": why}), flush=True)


def main() -> None:
    """Run one class."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("adapter", choices=cases.ADAPTERS)
    parser.add_argument("context", choices=("forkserver", "spawn"))
    parser.add_argument("tests", choices=cases.CLASSES)
    parser.add_argument("--only", default="", help="part of a test's name")
    parser.add_argument("--without", action="append", default=[], help="a test not to run")
    told = parser.parse_args()
    case = getattr(cases, cases.case_name(told.adapter, told.context, told.tests))
    # Three tests name the class instead of asking the case for it. A subclass: one
    # test skips itself for the class of that very name.
    named = type("Named", (cases.ADAPTERS[told.adapter],), {})
    concurrent.futures.ProcessPoolExecutor = named  # type: ignore[assignment,misc]
    names = unittest.TestLoader().getTestCaseNames(case)
    names = [name for name in names if told.only in name]
    for name in {*names} & {*told.without}:
        report(name, "not run", "")
    chosen = [case(name) for name in names if name not in told.without]
    unittest.TestSuite(chosen).run(Reporter())


if __name__ == "__main__":
    main()
