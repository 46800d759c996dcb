"""200 MB of small Python objects: what a prewarmed model or table looks like to ``fork``.

Many small objects are the worst case: each has a reference count that a write may
touch, and none is freed in one piece.
"""

from __future__ import annotations

import os
from typing import Any

BYTES_EACH = 1024

TABLE: list[bytes] = []


def build(megabytes: int) -> None:
    """Fill TABLE with so many MB (2**20 bytes), unless it is filled."""
    if not TABLE:
        TABLE.extend(os.urandom(BYTES_EACH) for _ in range(megabytes * 2**20 // BYTES_EACH))


def preload(proc: Any) -> None:
    """Build it in our fork server; the hook's way to name the size is ``user_arguments``."""
    build(int(proc.user_arguments))


# The forkservers of the standard library can only import: for them the size is in the environment.
build(int(os.environ.get("GREENROOM_BENCH_HEAVY_MB", "0")))
