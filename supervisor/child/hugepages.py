"""Putting the preloaded memory into huge pages, so that a fork copies a hundredth of the page table.

Fork and exit take as long as the page table is: of 200 MB it has 50,000 entries in pages
of 4 KiB and 100 in pages of 2 MiB. A worker that writes still copies 4 KiB: the kernel
splits the one huge page into entries for it, and what it does not touch stays shared.

MADV_COLLAPSE (Linux 6.1) and not MADV_HUGEPAGE: that would stay with the mapping, and a
worker that only needs one fresh page there would be given 2 MiB.
"""

from __future__ import annotations

import ctypes
import itertools
import logging
import sys
import time
from collections.abc import Collection, Iterator
from typing import Final

from supervisor.child.pagemap import private_ranges

logger = logging.getLogger("greenroom.forkserver")

# asm-generic/mman-common.h
_MADV_COLLAPSE: Final = 25

HUGE: Final = 2 * 2**20  # x86-64, and arm64 with pages of 4 KiB

# Where less of a mapping is in memory, collapsing it would take memory that nobody uses.
_WORTH: Final = 0.9

# How long it may take. 1 GB takes one to three seconds.
_SECONDS: Final = 3.0

# Mappings that are looked through page by page are of so many bytes in all, the smallest first:
# so many take 16 ms.
_MOST_SMALL: Final = 128 * 2**20


def collapse() -> set[int]:
    """Collapse the private memory of this process; return where the huge pages begin that it made.

    Where the kernel cannot (an older one, huge pages off) or will not (no free memory),
    things stay as they are.
    """
    made: set[int] = set()
    if sys.platform != "linux":
        return made
    libc = ctypes.CDLL(None)
    began = time.monotonic()
    for start, end in _ranges():
        first = (start + HUGE - 1) // HUGE * HUGE
        for address in range(first, end - HUGE + 1, HUGE):
            if time.monotonic() - began > _SECONDS:
                logger.debug("collapsed %d huge pages; the rest would take too long", len(made))
                return made
            advised = libc.madvise(
                ctypes.c_void_p(address), ctypes.c_size_t(HUGE), ctypes.c_int(_MADV_COLLAPSE)
            )
            if advised == 0:
                made.add(address)
    logger.debug("collapsed %d huge pages in %.3f s", len(made), time.monotonic() - began)
    return made


def small_ranges(huge: Collection[int]) -> list[tuple[int, int]]:
    """Return the private memory of this process that does not lie in these huge pages, from and to."""
    small: list[tuple[int, int]] = []
    for start, end in private_ranges():
        begin = start
        for address in sorted(huge):
            if start <= address < end:
                small.append((begin, address))
                begin = address + HUGE
        small.append((begin, end))
    small.sort(key=lambda each: each[1] - each[0])
    sums = itertools.accumulate(end - start for start, end in small)
    fit = sum(bytes_up_to <= _MOST_SMALL for bytes_up_to in sums)
    return sorted(each for each in small[:fit] if each[0] < each[1])


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
