"""loguru's records, taken where it asks a *filter* whether a sink wants them.

Why a filter that says no, and not a sink: loguru calls sinks under a lock, and a
log call from a signal handler while that lock is held is refused with a
RuntimeError, so its record would be lost. Filters are called before the lock, and
nothing is formatted for a sink that never gets anything.

Why a hook on the import, and not an import up front: loguru takes some 40 ms and
2 MB, and most jobs never use it. The hook stands first on ``sys.meta_path``, costs
one comparison for each other import, and tells us before the importing code has
the module in its hands, so no record slips through to the old sink.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

Forward = Callable[[Mapping[str, Any]], None]


class LoguruTap:
    """Hands loguru's records to *forward*.

    Args:
        forward: called with each record at or above the level, in the thread
            that logs. What it raises, the caller of loguru gets.
    """

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._hook: _ImportHook | None = None
        self._sink: _Sink | None = None
        self._level = logging.NOTSET

    def attach(self, level: int) -> None:
        """Begin, now or as soon as loguru is imported. Runs on: the main thread."""
        self._level = level
        if "loguru" in sys.modules:
            self._take_over()
        else:
            self._hook = _ImportHook("loguru", self._take_over)
            sys.meta_path.insert(0, self._hook)

    def set_level(self, level: int) -> None:
        """Take what is at or above *level* from now on."""
        self._level = level
        if self._sink is not None and self._sink.level != level:
            before, self._sink = self._sink, _Sink.add(level, self._forward)
            before.remove()

    def detach(self) -> None:
        """Stop. What was replaced does not come back."""
        if self._hook is not None and self._hook in sys.meta_path:
            sys.meta_path.remove(self._hook)
        if self._sink is not None:
            self._sink.forward = None
            self._sink = None

    def _take_over(self) -> None:
        from loguru import logger

        # Only what writes to the terminal is replaced. A file is left alone:
        # removing it would make loguru compress or delete it, in each worker.
        for number in _terminal_sinks(logger):
            _remove(number)
        self._sink = _Sink.left_behind(self._level) or _Sink.add(self._level, self._forward)
        self._sink.forward = self._forward


class _Sink:
    """What is registered with loguru.

    It is left there, deaf, when its tap is detached: to add one costs 2.5 ms
    (loguru looks up the library's directories each time). The fork server adds
    it once, and the next tap, in each worker, takes it over.
    """

    def __init__(self, level: int, forward: Forward) -> None:
        self.level = level
        self.forward: Forward | None = forward
        self.number = -1

    @classmethod
    def add(cls, level: int, forward: Forward) -> _Sink:
        """Register one."""
        from loguru import logger

        sink = cls(level, forward)
        # catch=False: what the filter lets through is meant for the caller.
        sink.number = logger.add(
            _discard, level=level, format="{message}", filter=sink.take, catch=False
        )
        return sink

    @classmethod
    def left_behind(cls, level: int) -> _Sink | None:
        """Return one that is registered already and that nobody listens to."""
        from loguru import logger

        for handler in _handlers(logger).values():
            owner = getattr(getattr(handler, "_filter", None), "__self__", None)
            if isinstance(owner, _Sink) and owner.forward is None and owner.level == level:
                return owner
        return None

    def take(self, record: Mapping[str, Any]) -> bool:
        """Forward *record*, and tell loguru that the sink does not want it."""
        if self.forward is not None:
            self.forward(record)
        return False

    def remove(self) -> None:
        """Take it away from loguru."""
        _remove(self.number)


def _discard(message: object) -> None:
    """Take what the filter let through: nothing."""


def _remove(number: int) -> None:
    from loguru import logger

    try:
        logger.remove(number)
    except ValueError:
        pass  # the user's code has removed it already, as loguru's manual shows


def _handlers(logger: object) -> dict[int, object]:
    """Return loguru's handlers by number. Empty where its inside looks different."""
    handlers = getattr(getattr(logger, "_core", None), "handlers", None)
    return handlers if isinstance(handlers, dict) else {}


def _terminal_sinks(logger: object) -> list[int]:
    """Return the numbers of the sinks that write to descriptor 1 or 2.

    loguru has no public list of its sinks. Where its inside looks different, the
    answer is its default sink, which has number 0.
    """
    if not hasattr(getattr(logger, "_core", None), "handlers"):
        return [0]
    streams = {
        number: getattr(getattr(handler, "_sink", None), "_stream", None)
        for number, handler in _handlers(logger).items()
    }
    return [number for number, stream in streams.items() if _is_terminal(stream)]


def _is_terminal(stream: object) -> bool:
    if stream is None:
        return False
    if stream is sys.stdout or stream is sys.stderr:
        return True
    # By descriptor as well: sys.stderr may be another object by now.
    try:
        fd: object = getattr(stream, "fileno", lambda: None)()
    except (OSError, ValueError):
        return False  # not a file, or closed
    return fd in (1, 2)


class _ImportHook:
    """Calls *imported* right after the module *name* was executed for the first time."""

    def __init__(self, name: str, imported: Callable[[], None]) -> None:
        self._name = name
        self._imported = imported

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find *name* as the other finders do, with a loader that tells us when it is done."""
        if name != self._name:
            return None
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = None if find is None else find(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = cast("Loader", _Loader(spec.loader, self._imported))
                return cast("ModuleSpec", spec)
        return None


class _Loader:
    """Another loader, and a call after it has executed the module."""

    def __init__(self, loader: Loader, executed: Callable[[], None]) -> None:
        self._loader = loader
        self._executed = executed

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create it as the other loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute it, with its own loader in its place again."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._executed()
