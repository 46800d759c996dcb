"""Tools for testing your own server or pool: lifecycles with faults, fixtures, a fake dispatcher.

Names are loaded when they are used: hypothesis is needed for lifecycles only, pytest for
``supervisor.testing.plugin`` only (extra ``testing``).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supervisor.testing.check import check_lifecycles, lifecycle_machine
    from supervisor.testing.deeds import Deed
    from supervisor.testing.dispatcher import FakeDispatcher, Offered
    from supervisor.testing.leaks import leaves_nothing
    from supervisor.testing.lifecycles import Lifecycles
    from supervisor.testing.running import running_pool, running_server

_HOMES = {
    "Deed": "deeds",
    "FakeDispatcher": "dispatcher",
    "Lifecycles": "lifecycles",
    "Offered": "dispatcher",
    "check_lifecycles": "check",
    "leaves_nothing": "leaks",
    "lifecycle_machine": "check",
    "running_pool": "running",
    "running_server": "running",
}

__all__ = [
    "Deed",
    "FakeDispatcher",
    "Lifecycles",
    "Offered",
    "check_lifecycles",
    "leaves_nothing",
    "lifecycle_machine",
    "running_pool",
    "running_server",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
