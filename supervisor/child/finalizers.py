"""What multiprocessing does when a process ends, for processes in which it has something to do.

Its exit handlers look for finalizers (of managers, pools and queues) and for children. In
a worker there mostly are none, and finding that out takes twenty functions of each of the
two packages. So the handlers are taken off where workers are forked from, and called at
the end of those that have a use for them. They come last then, as before: the
interpreter calls the handler first that was registered last, and these were the first.
"""

from __future__ import annotations

import atexit
import sys
import traceback
from collections.abc import Iterator
from typing import Any, Final

_PACKAGES: Final = ("multiprocessing", "multiprocess")


def take_off_handlers() -> None:
    """Take the handlers off. In the process that workers are forked from."""
    for util, _ in _loaded():
        atexit.unregister(util._exit_function)


def finalize() -> None:
    """Do what the handlers would, where there is something to do. After all exit handlers."""
    for util, process in _loaded():
        if util._finalizer_registry or process._children:
            try:
                util._exit_function()
            except BaseException:  # noqa: BLE001 - the user's: said, and the rest is done, as at an exit
                traceback.print_exc()


def _loaded() -> Iterator[tuple[Any, Any]]:
    for package in _PACKAGES:
        util: Any = sys.modules.get(f"{package}.util")
        if util is not None:
            yield util, sys.modules[f"{package}.process"]
