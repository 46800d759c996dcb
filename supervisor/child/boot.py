"""What a child is born with: the user's hooks, the settings, and its descriptors.

A :class:`Boot` travels once, while a fresh interpreter is being made: to the
fork server, or to each worker under ``spawn``. Everything that can only be
inherited (locks, queues and events of multiprocessing, in a closure or in
``user_arguments``) travels with it, because it is pickled inside multiprocess's
own launch. It arrives closed: the child opens it where it can report what goes
wrong, not while its interpreter starts.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from supervisor import travel
from supervisor.options import Hook, ResourceLimits


@dataclass(frozen=True)
class Hooks:
    """The user's functions. All optional but, on a server, the entrypoint."""

    preload_fnc: Hook | None = None
    setup_fnc: Hook | None = None
    initializer: tuple[Callable[..., object], tuple[Any, ...]] | None = None
    entrypoint: Hook | None = None
    on_session_end: Hook | None = None
    user_arguments: object = None

    @property
    def for_each_worker(self) -> bool:
        """Whether there is a function that each worker runs before its first job."""
        return self.setup_fnc is not None or self.initializer is not None

    @property
    def any(self) -> bool:
        """Whether there is a function of the user besides the jobs'."""
        return not (
            self.preload_fnc is None
            and self.setup_fnc is None
            and self.initializer is None
            and self.entrypoint is None
        )


@dataclass(frozen=True)
class Settings:
    """What a worker does with its life besides the hooks. Seconds."""

    preload_modules: tuple[str, ...] = ()
    job_limits: ResourceLimits | None = None
    shutdown_process_timeout: float = 10.0
    session_end_timeout: float = 300.0
    high_ping_threshold: float = 0.5
    log_level: str = "WARNING"
    forward_logs: bool = True
    http_proxy: str | None = field(default=None, repr=False)  # may hold a password
    titles: bool = True
    reused: bool = False  # a worker may serve more than one job
    without_environment: tuple[str, ...] = ()
    cgroup: str | None = None  # where each worker has a group with its number for a name


class Sealed:
    """Hooks on their way: pickled while the child is made, opened when it asks."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    def __reduce__(self) -> tuple[Any, ...]:
        with _standard_library_spawns_too():
            return _Closed, (travel.pack(self._hooks, "hooks"),)


class _Closed:
    """The arrived form of :class:`Sealed`."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def open(self) -> Hooks:
        """Return the hooks. Runs the imports behind them, so it may raise anything."""
        hooks = pickle.loads(self._content)  # the supervisor's bytes, opened in its child
        assert isinstance(hooks, Hooks)
        return hooks


class Inherited:
    """A descriptor that the child gets while it is made."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocess import context

        popen = context.get_spawning_popen()
        assert popen is not None, "descriptors travel only while a child is made"
        return Inherited, (popen.duplicate_for_child(self.fd),)


@dataclass(frozen=True)
class Ends:
    """The child's ends: its channel, its log socket, its mark, and where its output goes.

    ``stdout`` and ``stderr`` are -1 when output is not captured.
    """

    channel: int
    logs: int
    mark: int
    stdout: int = -1
    stderr: int = -1

    @property
    def all(self) -> list[int]:
        """The descriptors that there are, in the order in which they travel."""
        ends = (self.channel, self.logs, self.mark, self.stdout, self.stderr)
        return [fd for fd in ends if fd >= 0]

    @classmethod
    def received(cls, descriptors: list[int]) -> Ends:
        """Return the ends from descriptors that arrived in travelling order.

        Raises:
            ValueError: there are more or fewer of them than make a child.
        """
        if len(descriptors) not in (3, 5):
            raise ValueError(f"expected 3 or 5 descriptors, got {len(descriptors)}")
        return cls(*descriptors)


@dataclass(frozen=True)
class Boot:
    """Everything that a fresh interpreter needs to become a child of ours."""

    hooks: Any  # Sealed where it is made, _Closed where it arrived
    settings: Settings
    ends: tuple[Inherited, ...]
    worker: int = 0
    supervisor_pid: int = 0
    authkey: bytes = field(default=b"", repr=False)
    tracker: Inherited | None = None  # the standard library's resource tracker, if it runs

    def received_ends(self) -> Ends:
        """Return the child's descriptors. In the child."""
        return Ends.received([inherited.fd for inherited in self.ends])


@contextlib.contextmanager
def _standard_library_spawns_too() -> Iterator[None]:
    """While multiprocess launches, let the standard library's objects be inherited as well.

    Its locks and queues ask their own package whether a child is being made, and
    how to hand a descriptor down; multiprocess answers both the same way.
    """
    from multiprocess import context

    popen = context.get_spawning_popen()
    standard: Any = sys.modules.get("multiprocessing.context")
    if popen is None or standard is None:
        yield
        return
    before = standard.get_spawning_popen()
    standard.set_spawning_popen(popen)
    try:
        yield
    finally:
        standard.set_spawning_popen(before)
