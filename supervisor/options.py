"""Every option, checked once, frozen.

Two classes: :class:`PoolOptions` is what a pool of workers needs,
:class:`ServerOptions` adds what makes it a server. Each complaint names the
option, the value and what is allowed.

Some options have two defaults, for ``start`` and for ``dev``. Until the server
runs it is not known which one counts, so such a field holds a :class:`PerMode`
until :meth:`ServerOptions.resolve` is called.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar, Union

from supervisor.address import checked_url
from supervisor.checks import (
    LOG_LEVELS,
    check_bool,
    check_choice,
    check_hook,
    check_int,
    check_log_level,
    check_number,
    check_text,
)
from supervisor.cpus import cpu_count
from supervisor.errors import OptionError

T = TypeVar("T")

Hook = Callable[..., object]

START_METHODS: Final = ("forkserver", "spawn")

# A worker that has not said hello by then never will: under fork it takes
# milliseconds, and a fresh interpreter that imports a large program takes tens
# of seconds on a cold disk.
SPAWN_TIMEOUT: Final = 60.0

# A petabyte, and far under the largest number that a message carries.
_MOST_PAYLOAD_MB: Final = 2**30


@dataclass(frozen=True)
class PerMode(Generic[T]):
    """A default that depends on how the server is started."""

    start: T
    dev: T


@dataclass(frozen=True)
class ResourceLimits:
    """Limits that the kernel enforces on each worker, set before user code runs.

    They are inherited by everything that a job starts. ``None`` leaves a limit
    as it is. Source: setrlimit(2).

    Args:
        cpu_seconds: CPU time of one process, the warm-up included; SIGXCPU at it.
        address_space_mb: virtual memory of one process. Not resident memory:
            preloaded data and thread stacks count in full.
        open_files: file descriptors of one process.
        processes: processes and threads of the user; has no effect on root.
        file_size_mb: size of a file that is written; SIGXFSZ at it.
        core_dumps: whether a crash may leave a core file.
    """

    cpu_seconds: int | None = None
    address_space_mb: int | None = None
    open_files: int | None = None
    processes: int | None = None
    file_size_mb: int | None = None
    core_dumps: bool | None = None

    def __post_init__(self) -> None:
        for name in ("cpu_seconds", "address_space_mb", "open_files", "processes", "file_size_mb"):
            value = getattr(self, name)
            if value is not None:
                check_int(f"job_limits.{name}", value, at_least=1)
        if self.core_dumps is not None and not isinstance(self.core_dumps, bool):
            raise OptionError("job_limits.core_dumps", self.core_dumps, "True, False or None")
        if self.open_files is not None and self.open_files < 20:
            raise OptionError(
                "job_limits.open_files",
                self.open_files,
                "at least 20: a worker uses a dozen itself",
            )


@dataclass(frozen=True)
class AgentServerPermissions:
    """What an agent may do in its room.

    A hidden agent cannot be seen by others and therefore cannot publish tracks.
    """

    can_publish: bool = True
    can_subscribe: bool = True
    can_publish_data: bool = True
    can_update_metadata: bool = True
    can_publish_sources: tuple[str, ...] = ()
    hidden: bool = False

    def __post_init__(self) -> None:
        for name in (
            "can_publish",
            "can_subscribe",
            "can_publish_data",
            "can_update_metadata",
            "hidden",
        ):
            check_bool(f"permissions.{name}", getattr(self, name))
        sources = self.can_publish_sources
        if isinstance(sources, str) or not isinstance(sources, Iterable):
            raise OptionError("permissions.can_publish_sources", sources, "a list of source names")
        names = tuple(sources)
        for name in names:
            if not isinstance(name, str):
                raise OptionError("permissions.can_publish_sources", name, "names of sources")
        object.__setattr__(self, "can_publish_sources", names)


# ── defaults that depend on the machine ──────────────────────────────────────


class DefaultCount(int):
    """A count that nobody asked for: it gives way to the limits that somebody did."""


def default_idle() -> DefaultCount:
    """Return how many idle workers to keep unless told otherwise: the CPUs, at most 4."""
    return DefaultCount(min(cpu_count(), 4))


def default_start_method() -> str:
    """Return ``forkserver`` on Linux, ``spawn`` elsewhere."""
    return "forkserver" if os.uname().sysname == "Linux" else "spawn"


def _optional(check: Callable[..., object], name: str, value: object, **bounds: Any) -> None:
    if value is not None:
        check(name, value, **bounds)


# ── the options ──────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class PoolOptions:
    """What a pool of workers needs to know. Times in seconds, memory in MB (2**20 bytes)."""

    setup_fnc: Hook | None = None
    preload_fnc: Hook | None = None
    preload_modules: tuple[str, ...] = ()
    num_idle_processes: Union[int, PerMode[int]] = field(default_factory=default_idle)
    max_idle_processes: int | None = None
    max_processes: int | None = None
    max_jobs: int | None = None
    max_idle_age: float | None = None
    max_jobs_per_process: int | None = 1
    initialize_process_timeout: float = 10.0
    shutdown_process_timeout: float = 10.0
    job_timeout: float | None = None
    job_memory_warn_mb: float = 1000.0
    job_memory_limit_mb: float = 0.0
    job_limits: ResourceLimits | None = None
    ping_interval: float = 2.5
    ping_timeout: float = 60.0
    high_ping_threshold: float = 0.5
    multiprocessing_context: str = field(default_factory=default_start_method)
    max_payload_mb: float = 1024.0
    capture_output: bool = False
    log_level: Union[str, PerMode[str], None] = None
    user_arguments: object = None
    http_proxy: str | None = field(default=None, repr=False)  # may hold a password
    cgroup: str | None = "auto"

    def __post_init__(self) -> None:
        for hook in ("setup_fnc", "preload_fnc"):
            check_hook(hook, getattr(self, hook), takes="a JobProcess")
        self._check_modules()
        if not isinstance(self.num_idle_processes, PerMode):
            check_int("num_idle_processes", self.num_idle_processes)
        _optional(check_int, "max_idle_processes", self.max_idle_processes)
        for name in ("max_processes", "max_jobs", "max_jobs_per_process"):
            _optional(check_int, name, getattr(self, name), at_least=1)
        _optional(check_number, "max_idle_age", self.max_idle_age, above=0.0)
        check_number("initialize_process_timeout", self.initialize_process_timeout, above=0.0)
        check_number("shutdown_process_timeout", self.shutdown_process_timeout)
        _optional(check_number, "job_timeout", self.job_timeout, above=0.0)
        check_number("job_memory_warn_mb", self.job_memory_warn_mb)
        check_number("job_memory_limit_mb", self.job_memory_limit_mb)
        if self.job_limits is not None and not isinstance(self.job_limits, ResourceLimits):
            raise OptionError("job_limits", self.job_limits, "a ResourceLimits, or None")
        for name in ("ping_interval", "ping_timeout", "high_ping_threshold", "max_payload_mb"):
            check_number(name, getattr(self, name), above=0.0)
        if self.max_payload_mb > _MOST_PAYLOAD_MB:
            raise OptionError(
                "max_payload_mb", self.max_payload_mb, f"a number of at most {_MOST_PAYLOAD_MB}"
            )
        if self.ping_timeout <= self.ping_interval:
            raise OptionError(
                "ping_timeout", self.ping_timeout, f"more than ping_interval={self.ping_interval:g}"
            )
        check_choice("multiprocessing_context", self.multiprocessing_context, START_METHODS)
        if self.multiprocessing_context == "forkserver" and os.uname().sysname != "Linux":
            raise OptionError(
                "multiprocessing_context", "forkserver", "'spawn': the fork server needs Linux"
            )
        check_bool("capture_output", self.capture_output)
        if isinstance(self.log_level, str):
            object.__setattr__(self, "log_level", check_log_level("log_level", self.log_level))
        elif self.log_level is not None and not isinstance(self.log_level, PerMode):
            raise OptionError("log_level", self.log_level, "one of " + ", ".join(LOG_LEVELS))
        _optional(check_text, "http_proxy", self.http_proxy)
        _optional(check_text, "cgroup", self.cgroup)
        self._check_together()

    def _check_modules(self) -> None:
        modules = self.preload_modules
        if modules is None:
            object.__setattr__(self, "preload_modules", ())
            return
        if isinstance(modules, str) or not isinstance(modules, Iterable):
            raise OptionError("preload_modules", modules, "a list of module names")
        names = tuple(modules)
        for name in names:
            if not isinstance(name, str) or not re.fullmatch(r"\w+(\.\w+)*", name):
                raise OptionError("preload_modules", name, "a dotted module name")
        object.__setattr__(self, "preload_modules", names)

    def _check_together(self) -> None:
        idle = self.num_idle_processes
        if isinstance(idle, PerMode):
            return
        if isinstance(idle, DefaultCount):
            limits = (self.max_processes, self.max_idle_processes)
            idle = DefaultCount(min([idle, *(limit for limit in limits if limit is not None)]))
            object.__setattr__(self, "num_idle_processes", idle)
        if self.max_processes is not None and idle > self.max_processes:
            raise OptionError(
                "num_idle_processes", idle, f"at most max_processes={self.max_processes}"
            )
        if self.max_idle_processes is not None and self.max_idle_processes < idle:
            raise OptionError(
                "max_idle_processes",
                self.max_idle_processes,
                f"at least num_idle_processes={idle}",
            )

    def replace(self, **changes: object) -> PoolOptions:
        """Return a copy with *changes*, checked as a whole.

        Raises:
            OptionError: an unknown option, or a value that is not allowed.
        """
        known = {f.name for f in dataclasses.fields(self)}
        for name in changes:
            if name not in known:
                raise OptionError(
                    name, changes[name], "an option that exists: " + ", ".join(sorted(known))
                )
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]  # checked above

    @property
    def idle_target(self) -> int:
        """How many idle workers to keep. Only once the mode is known."""
        assert isinstance(self.num_idle_processes, int), "resolve() comes first"
        return int(self.num_idle_processes)


@dataclass(frozen=True)
class ServerOptions(PoolOptions):
    """Everything an ``AgentServer`` can be told. Also the way to build one from data."""

    num_idle_processes: Union[int, PerMode[int]] = field(
        default_factory=lambda: PerMode[int](start=default_idle(), dev=DefaultCount(1))
    )
    capture_output: bool = True
    log_level: Union[str, PerMode[str], None] = field(
        default_factory=lambda: PerMode(start="INFO", dev="DEBUG")
    )
    load_fnc: Hook | None = None
    load_threshold: Union[float, PerMode[float]] = field(
        default_factory=lambda: PerMode(start=0.7, dev=math.inf)
    )
    drain_timeout: Union[float, None, PerMode[float]] = field(
        default_factory=lambda: PerMode(start=1800.0, dev=0.0)
    )
    session_end_timeout: float = 300.0
    permissions: AgentServerPermissions = field(default_factory=AgentServerPermissions)
    host: str = "127.0.0.1"
    port: Union[int, None, PerMode[int]] = field(default_factory=lambda: PerMode(start=8081, dev=0))
    ws_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    api_secret: str | None = field(default=None, repr=False)
    max_retry: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check_hook("load_fnc", self.load_fnc, takes="the server", or_nothing=True)
        if not isinstance(self.load_threshold, PerMode):
            check_number("load_threshold", self.load_threshold)
        if not isinstance(self.drain_timeout, PerMode):
            _optional(check_number, "drain_timeout", self.drain_timeout)
        check_number("session_end_timeout", self.session_end_timeout)
        if not isinstance(self.permissions, AgentServerPermissions):
            raise OptionError("permissions", self.permissions, "an AgentServerPermissions")
        if not isinstance(self.host, str):
            raise OptionError("host", self.host, "an address to listen on, such as '127.0.0.1'")
        if not isinstance(self.port, PerMode):
            _optional(check_int, "port", self.port)
            if isinstance(self.port, int) and self.port > 65535:
                raise OptionError("port", self.port, "at most 65535; 0 for any; None for no HTTP")
        _optional(check_text, "ws_url", self.ws_url)
        if self.ws_url:
            checked_url("ws_url", self.ws_url)
        for name in ("api_key", "api_secret"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                # Its type, not the value: an error's text may end in a log.
                raise OptionError(name, type(value), "a string")
        check_int("max_retry", self.max_retry)

    def resolve(self, *, devmode: bool) -> ServerOptions:
        """Return the options with every two-fold default settled for this mode."""
        settled = {}
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if isinstance(value, PerMode):
                settled[each.name] = value.dev if devmode else value.start
        return dataclasses.replace(self, **settled)


# What may change while a pool or a server runs. Everything else is fixed in the
# processes that exist already.
CHANGEABLE: Final = frozenset(
    {
        "num_idle_processes",
        "max_idle_processes",
        "max_processes",
        "max_jobs",
        "max_idle_age",
        "initialize_process_timeout",
        "shutdown_process_timeout",
        "job_timeout",
        "job_memory_warn_mb",
        "job_memory_limit_mb",
        "ping_interval",
        "ping_timeout",
        "high_ping_threshold",
        "load_threshold",
        "drain_timeout",
        "session_end_timeout",
        "max_payload_mb",
    }
)


def check_changeable(options: PoolOptions, changes: Mapping[str, object], *, running: bool) -> None:
    """Raise OptionError for the first of *options* that is fixed once processes exist."""
    for name, value in changes.items():
        if running and name not in CHANGEABLE:
            names = sorted(
                CHANGEABLE.intersection(each.name for each in dataclasses.fields(options))
            )
            raise OptionError(
                name, value, "an option that can change while running: " + ", ".join(names)
            )


def settled(options: ServerOptions) -> Any:
    """Return *options*; every two-fold default in them was settled by ``run``.

    ``Any`` because the types of the fields still allow for both.
    """
    assert not isinstance(options.port, PerMode), "resolve() comes first"
    return options
