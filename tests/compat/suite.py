"""Runs the interpreter's own executor tests against ours, one class in one process.

``python -m tests.compat.suite single-use ExecutorDeadlockTest [--context spawn]``
prints one JSON object a line: the test, how it ended, and its last words.

The tests are those of the running interpreter, imported, not copied: Python 3.13
has them as a package, 3.10 as one file, and what is installed of 3.11 and 3.12
usually lacks them.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import importlib
import json
import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.compat.adapters import Reusing, SingleUse

ADAPTERS = {"single-use": SingleUse, "reusing": Reusing}

# The class of the standard library's tests, and the module of the package that
# holds it; all of them are in one file before Python 3.12.
CLASSES = {
    "WaitTests": "test_wait",
    "AsCompletedTests": "test_as_completed",
    "ProcessPoolExecutorTest": "test_process_pool",
    "ProcessPoolShutdownTest": "test_shutdown",
    "ExecutorDeadlockTest": "test_deadlock",
    "InitializerMixin": "test_init",
    "FailingInitializerMixin": "test_init",
}

# Some tests wait so long, in seconds, before they call it a deadlock.
DEADLOCK_SECONDS = 30.0

REPOSITORY = Path(__file__).parents[2]


def missing() -> str:
    """Return why the tests cannot be run here; empty if they can."""
    try:
        importlib.import_module("test.test_concurrent_futures")
    except ImportError as exc:
        return f"Python {sys.version.split()[0]} was installed without them: {exc}"
    return ""


def find(name: str) -> tuple[type, type, ModuleType]:
    """Return the class of tests, the base of its cases, and the module it is in."""
    package = importlib.import_module("test.test_concurrent_futures")
    if not hasattr(package, "__path__"):
        return getattr(package, name), package.BaseTestCase, package
    module = importlib.import_module(f"test.test_concurrent_futures.{CLASSES[name]}")
    util = importlib.import_module("test.test_concurrent_futures.util")
    return getattr(module, name), util.BaseTestCase, module


def build(name: str, mode: str, context: str) -> type[unittest.TestCase]:
    """Return the test case: the tests, with our executor under them."""
    import multiprocessing

    tests, base, module = find(name)
    adapter = ADAPTERS[mode]
    # Two tests name the class instead of asking the case for it. A subclass, since
    # one test skips itself for the class of that name.
    concurrent.futures.ProcessPoolExecutor = type("Named", (adapter,), {})  # type: ignore[misc]
    if hasattr(module, "assert_python_ok"):
        module.assert_python_ok = with_ours(module.assert_python_ok, adapter)  # type: ignore[attr-defined]

    class Ours:
        executor_type = adapter
        worker_count = 5
        executor_kwargs: dict[str, Any] = {}
        ctx = context
        TIMEOUT = DEADLOCK_SECONDS

        def setUp(self) -> None:
            super().setUp()  # type: ignore[misc]
            self.executor = self.executor_type(
                max_workers=self.worker_count,
                mp_context=self.get_context(),
                **self.executor_kwargs,
            )

        def tearDown(self) -> None:
            self.executor.shutdown(wait=True)
            del self.executor
            super().tearDown()  # type: ignore[misc]

        def get_context(self) -> Any:
            return multiprocessing.get_context(context)

    # The initializer's tests bring an executor's mixin of their own; what it does
    # besides making the executor is theirs, what makes it is ours.
    if name.endswith("InitializerMixin"):
        return type(name, (_without_executor(tests), Ours, base), {})
    return type(name, (Ours, tests, base), {"TIMEOUT": DEADLOCK_SECONDS})


def _without_executor(tests: type) -> type:
    """Return *tests* without their base, which would make an executor of its own."""
    return type(tests.__name__, (), {
        key: value for key, value in vars(tests).items() if key not in ("__dict__", "__weakref__")
    })


def with_ours(run: Callable[..., Any], adapter: type) -> Callable[..., Any]:
    """Have the scripts that a test starts import our executor."""
    theirs = f"from concurrent.futures import {adapter.__name__}"
    # One script uses multiprocessing without importing it.
    ours = (
        f"import sys, multiprocessing; sys.path.insert(0, {str(REPOSITORY)!r}); "
        f"from {adapter.__module__} import {adapter.__name__}"
    )

    @functools.wraps(run)
    def wrapper(*arguments: str, **environment: str) -> Any:
        return run(*(each.replace(theirs, ours) for each in arguments), **environment)

    return wrapper


class Reporter(unittest.TestResult):
    """Prints each result. What leaves threads or processes behind has failed."""

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.said = ("passed", "")
        self.support().environment_altered = False

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        if self.said[0] == "passed" and self.support().environment_altered:
            self.said = ("failed", "it left a thread or a process behind")
        name = test.id().rpartition(".")[2]
        print(json.dumps({"test": name, "end": self.said[0], "why": self.said[1]}), flush=True)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        self.said = ("failed", f"{err[0].__name__}: {err[1]}"[:2000])

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.addError(test, err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self.addError(test, err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self.said = ("skipped", reason)

    def support(self) -> Any:
        return importlib.import_module("test.support")


def main() -> None:
    """Run one class."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=ADAPTERS)
    parser.add_argument("tests", choices=CLASSES)
    parser.add_argument("--context", default="forkserver", choices=("forkserver", "spawn"))
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    case = build(options.tests, options.mode, options.context)
    # Where children find it, should they be told by name.
    setattr(sys.modules[__name__], case.__name__, case)
    names = unittest.TestLoader().getTestCaseNames(case)
    suite = unittest.TestSuite(case(name) for name in names if options.only in name)
    suite.run(Reporter())


if __name__ == "__main__":
    main()
