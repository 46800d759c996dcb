"""The interpreter's own executor tests, with our executor under them.

They are those of the running interpreter, imported, not copied: Python 3.13 has
them as a package, 3.10 as one file; what is installed of 3.11 and 3.12 usually
lacks them.

``getattr(cases, "SingleUse_forkserver_WaitTests")`` makes the test case of that
name. Made on demand and by this module, so that the workers, which get some of the
tests' methods by reference, find the same class here.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.compat.adapters import Reusing, SingleUse

ADAPTERS = {"SingleUse": SingleUse, "Reusing": Reusing}

# The standard library's class, and the module of the package that holds it.
CLASSES = {
    "WaitTests": "test_wait",
    "AsCompletedTests": "test_as_completed",
    "ProcessPoolExecutorTest": "test_process_pool",
    "ProcessPoolShutdownTest": "test_shutdown",
    "ExecutorDeadlockTest": "test_deadlock",
    "InitializerMixin": "test_init",
    "FailingInitializerMixin": "test_init",
}

# Some tests wait this long before they call it a deadlock; five minutes unless told.
DEADLOCK_SECONDS = 30.0

REPOSITORY = Path(__file__).parents[2]


def why_missing() -> str:
    """Return why the tests cannot be run here; empty if they can."""
    try:
        importlib.import_module("test.test_concurrent_futures")
    except ImportError as exc:
        return f"Python {sys.version.split()[0]} was installed without its executor tests: {exc}"
    return ""


def case_name(adapter: str, context: str, tests: str) -> str:
    """Return the name of the test case."""
    return f"{adapter}_{context}_{tests}"


def __getattr__(name: str) -> type[unittest.TestCase]:
    parts = name.split("_")
    if len(parts) != 3 or parts[0] not in ADAPTERS or parts[2] not in CLASSES:
        raise AttributeError(name)
    adapter, context, tests = parts
    mixin, util, module = _find(tests)
    ours: dict[str, Any] = {
        "executor_type": ADAPTERS[adapter],
        "ctx": context,
        "get_context": lambda self: multiprocessing.get_context(context),
        "TIMEOUT": DEADLOCK_SECONDS,
        "__module__": __name__,
    }
    bases: tuple[type, ...] = (mixin, util.BaseTestCase)
    if not issubclass(mixin, util.ExecutorMixin):
        bases = (mixin, util.ExecutorMixin, util.BaseTestCase)
    made: type[unittest.TestCase] = type(name, bases, ours)
    if hasattr(module, "assert_python_ok"):
        module.assert_python_ok = _with_ours(module.assert_python_ok, ADAPTERS[adapter])
    globals()[name] = made
    return made


def _find(tests: str) -> tuple[type, Any, Any]:
    """Return the class of tests, the module with its bases, and the module it is in."""
    package = importlib.import_module("test.test_concurrent_futures")
    if not hasattr(package, "__path__"):
        return getattr(package, tests), package, package
    module: ModuleType = importlib.import_module(f"{package.__name__}.{CLASSES[tests]}")
    return getattr(module, tests), importlib.import_module(f"{package.__name__}.util"), module


def _with_ours(run: Callable[..., Any], adapter: type) -> Callable[..., Any]:
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
