"""Every test here ends with nothing left behind: no process, zombie, descriptor or thread.

The check is the one that users get, ``supervisor.testing``.
"""

from __future__ import annotations

import pytest

from supervisor.testing.leaks import (
    PATIENCE,
    children,
    descriptors,
    reap_orphans,
    wait_until,
)
from supervisor.testing.plugin import greenroom_subreaper, leaves_nothing
from supervisor.testing.running import soon

__all__ = [
    "PATIENCE",
    "children",
    "descriptors",
    "greenroom_subreaper",
    "leaves_nothing",
    "reap_orphans",
    "soon",
    "wait_until",
]


@pytest.fixture(autouse=True)
def _leaves_nothing(leaves_nothing: None) -> None:
    """Ask every test here for it."""
