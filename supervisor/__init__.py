"""Warm processes for jobs that must have their own, and must start now."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipc.errors import ChannelBroken, ChannelClosed, IpcError, PayloadTooLarge, ProtocolError
    from supervisor import cli
    from supervisor.child.context import JobContext, JobProcess, get_job_context
    from supervisor.errors import (
        JobCancelled,
        JobKilled,
        JobRaised,
        JobRejected,
        JobTimedOut,
        JobWasCancelled,
        NotAdmitted,
        NotRunnable,
        OptionError,
        PoolClosed,
        PreloadFailed,
        ResultError,
        SetupFailed,
        SupervisorError,
        TooManyRestarts,
        WorkerLost,
    )
    from supervisor.executor import ProcessPoolExecutor
    from supervisor.handle import JobHandle
    from supervisor.job import (
        JobExecutorType,
        JobInfo,
        JobOutcome,
        JobStatus,
        Participant,
        Room,
        ServerType,
    )
    from supervisor.options import AgentServerPermissions, ResourceLimits, ServerOptions
    from supervisor.pool import ProcessPool
    from supervisor.request import JobRequest
    from supervisor.server import AgentServer
    from supervisor.stats import PoolStats

# Where each name lives. Importing this package imports none of them: a program
# that only wants a pool does not pay for the server.
_HOMES = {
    "AgentServer": "supervisor.server",
    "AgentServerPermissions": "supervisor.options",
    "ChannelBroken": "ipc.errors",
    "ChannelClosed": "ipc.errors",
    "IpcError": "ipc.errors",
    "JobCancelled": "supervisor.errors",
    "JobContext": "supervisor.child.context",
    "JobExecutorType": "supervisor.job",
    "JobHandle": "supervisor.handle",
    "JobInfo": "supervisor.job",
    "JobKilled": "supervisor.errors",
    "JobOutcome": "supervisor.job",
    "JobProcess": "supervisor.child.context",
    "JobRaised": "supervisor.errors",
    "JobRejected": "supervisor.errors",
    "JobRequest": "supervisor.request",
    "JobStatus": "supervisor.job",
    "JobTimedOut": "supervisor.errors",
    "JobWasCancelled": "supervisor.errors",
    "NotAdmitted": "supervisor.errors",
    "NotRunnable": "supervisor.errors",
    "OptionError": "supervisor.errors",
    "Participant": "supervisor.job",
    "PayloadTooLarge": "ipc.errors",
    "PoolClosed": "supervisor.errors",
    "PoolStats": "supervisor.stats",
    "PreloadFailed": "supervisor.errors",
    "ProcessPool": "supervisor.pool",
    "ProcessPoolExecutor": "supervisor.executor",
    "ProtocolError": "ipc.errors",
    "ResourceLimits": "supervisor.options",
    "ResultError": "supervisor.errors",
    "Room": "supervisor.job",
    "ServerOptions": "supervisor.options",
    "ServerType": "supervisor.job",
    "SetupFailed": "supervisor.errors",
    "SupervisorError": "supervisor.errors",
    "TooManyRestarts": "supervisor.errors",
    "WorkerLost": "supervisor.errors",
    "cli": "supervisor.cli",
    "get_job_context": "supervisor.child.context",
}

__all__ = [
    "AgentServer",
    "AgentServerPermissions",
    "ChannelBroken",
    "ChannelClosed",
    "IpcError",
    "JobCancelled",
    "JobContext",
    "JobExecutorType",
    "JobHandle",
    "JobInfo",
    "JobKilled",
    "JobOutcome",
    "JobProcess",
    "JobRaised",
    "JobRejected",
    "JobRequest",
    "JobStatus",
    "JobTimedOut",
    "JobWasCancelled",
    "NotAdmitted",
    "NotRunnable",
    "OptionError",
    "Participant",
    "PayloadTooLarge",
    "PoolClosed",
    "PoolStats",
    "PreloadFailed",
    "ProcessPool",
    "ProcessPoolExecutor",
    "ProtocolError",
    "ResourceLimits",
    "ResultError",
    "Room",
    "ServerOptions",
    "ServerType",
    "SetupFailed",
    "SupervisorError",
    "TooManyRestarts",
    "WorkerLost",
    "cli",
    "get_job_context",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(home)
    value: object = module if home == f"{__name__}.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
