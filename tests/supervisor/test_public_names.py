"""The names that ``supervisor`` hands on. Changing this list is a decision about the contract."""

from __future__ import annotations

import subprocess
import sys

import pytest

import supervisor

NAMES = [
    "AgentServer",
    "AgentServerPermissions",
    "JobCancelled",
    "JobContext",
    "JobExecutorType",
    "JobHandle",
    "JobInfo",
    "JobKilled",
    "JobOutcome",
    "JobProcess",
    "JobRejected",
    "JobRequest",
    "JobStatus",
    "JobTimedOut",
    "NotAdmitted",
    "OptionError",
    "PoolClosed",
    "PoolStats",
    "PreloadFailed",
    "ProcessPool",
    "ProcessPoolExecutor",
    "ResourceLimits",
    "ResultError",
    "ServerOptions",
    "ServerType",
    "SetupFailed",
    "SupervisorError",
    "TooManyRestarts",
    "WorkerLost",
    "cli",
    "get_job_context",
]


def test_these_names_and_no_others() -> None:
    assert sorted(supervisor.__all__) == NAMES
    assert set(NAMES) <= set(dir(supervisor))


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there_and_called_so(name: str) -> None:
    found = getattr(supervisor, name)
    assert found.__name__ in (name, f"supervisor.{name}")
    assert getattr(supervisor, name) is found


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'supervisor' has no attribute 'Pool'"):
        _ = supervisor.Pool


def test_importing_the_package_imports_nothing_that_costs_time() -> None:
    program = (
        "import sys; before = set(sys.modules); import supervisor; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program],
        cwd=supervisor.__path__[0] + "/..",
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=30,
    ).stdout.split()
    assert "supervisor" in printed
    assert not set(printed) & {"asyncio", "aiohttp", "multiprocess", "loguru", "msgspec", "rich"}
