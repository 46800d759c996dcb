"""Putting the preloaded memory into huge pages, so that a fork copies a hundredth of the page table.

Fork and exit take as long as the page table is: of 200 MB it has 50,000 entries in pages
of 4 KiB and 100 in pages of 2 MiB. A worker that writes still copies 4 KiB: the kernel
splits the one huge page into entries for it, and what it does not touch stays shared.

MADV_COLLAPSE (Linux 6.1) and not MADV_HUGEPAGE: that would stay with the mapping, and a
worker that only needs one fresh page there would be given 2 MiB.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import time
from collections.abc import Iterator
from typing import Final

logger = logging.getLogger("greenroom.forkserver")

# asm-generic/mman-common.h
_MADV_COLLAPSE: Final = 25

_HUGE: Final = 2 * 2**20  # x86-64, and arm64 with pages of 4 KiB

# Where less of a mapping is in memory, collapsing it would take memory that nobody uses.
_WORTH: Final = 0.9

# How long it may take. 1 GB takes one to three seconds.
_SECONDS: Final = 3.0


def collapse() -> int:
    """Collapse the private memory of this process; return how many huge pages it made.

    Where the kernel cannot (an older one, huge pages off) or will not (no free memory),
    things stay as they are.
    """
    if sys.platform != "linux":
        return 0
    libc = ctypes.CDLL(None)
    began = time.monotonic()
    made = 0
    for start, end in _ranges():
        first = (start + _HUGE - 1) // _HUGE * _HUGE
        for address in range(first, end - _HUGE + 1, _HUGE):
            if time.monotonic() - began > _SECONDS:
                logger.debug("collapsed %d huge pages; the rest would take too long", made)
                return made
            advised = libc.madvise(
                ctypes.c_void_p(address), ctypes.c_size_t(_HUGE), ctypes.c_int(_MADV_COLLAPSE)
            )
            if advised == 0:
                made += 1
    logger.debug("collapsed %d huge pages in %.3f s", made, time.monotonic() - began)
    return made


def _ranges() -> Iterator[tuple[int, int]]:
    """Return the mappings to collapse: private, writable, of no file, and in use."""
    try:
        with open("/proc/self/smaps", encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:  # /proc is not mounted
        return
    start = end = 0
    for line in lines:
        words = line.split()
        if not words[0].endswith(":"):
            start, end = (int(word, 16) for word in words[0].split("-"))
            if words[1] != "rw-p" or (len(words) > 5 and words[5] != "[heap]"):
                start = end
        elif words[0] == "Rss:" and int(words[1]) * 1024 >= _WORTH * (end - start) > 0:
            yield start, end
