"""Options, applied: what children get of them, and what is said of a call that weighs too much."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from ipc.errors import PayloadTooLarge
from supervisor.child.boot import Hooks, Settings
from supervisor.launch import Blueprint
from supervisor.options import PoolOptions

MB: Final = 2**20


def blueprint_of(
    options: PoolOptions, initializer: tuple[Callable[..., object], tuple[Any, ...]] | None
) -> Blueprint:
    """Return what the children of a pool of calls are born with."""
    hooks = Hooks(
        preload_fnc=options.preload_fnc,
        setup_fnc=options.setup_fnc,
        initializer=initializer,
        user_arguments=options.user_arguments,
    )
    return Blueprint(hooks, child_settings(options), options.capture_output)


def child_settings(options: PoolOptions, **more: Any) -> Settings:
    """Return what children need of *options*."""
    level = options.log_level
    return Settings(
        preload_modules=options.preload_modules,
        job_limits=options.job_limits,
        shutdown_process_timeout=options.shutdown_process_timeout,
        high_ping_threshold=options.high_ping_threshold,
        log_level=level if isinstance(level, str) else _host_level(),
        http_proxy=options.http_proxy,
        reused=options.max_jobs_per_process != 1,
        **more,
    )


def _host_level() -> str:
    """Return the level that the host program logs at: children need not send less."""
    level = logging.getLogger().getEffectiveLevel()
    known = [
        name for name in ("DEBUG", "INFO", "WARNING", "ERROR") if getattr(logging, name) >= level
    ]
    return known[0] if known else "CRITICAL"


def too_large(size: int, limit: int) -> PayloadTooLarge:
    """Return what is raised for a call, or a session, of *size* bytes: over ``max_payload_mb``."""
    return PayloadTooLarge(
        "the job's function and arguments",
        size,
        limit,
        "raise max_payload_mb, or hand over a file name instead",
    )
