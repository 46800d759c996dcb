"""A process's memory, page by page: which is private, and which pages only it has.

Linux tells (proc_pid_pagemap(5)): 64 bits for each page, with a mark for a page that no other
process maps. In the child of a fork these are the pages that it has copied, or made.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import Final

PAGE: Final = os.sysconf("SC_PAGE_SIZE")

_ENTRY: Final = 8
_PRESENT: Final = 1 << 63
_MAPPED_ONCE: Final = 1 << 56


def private_ranges() -> list[tuple[int, int]]:
    """Return the private, writable memory of this process, from and to; none without /proc."""
    try:
        with open("/proc/self/maps", encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    ranges = []
    for line in lines:
        addresses, permissions, *_ = line.split()
        if permissions == "rw-p":
            start, end = addresses.split("-")
            ranges.append((int(start, 16), int(end, 16)))
    return ranges


def its_own(pid: int, ranges: Iterable[tuple[int, int]]) -> list[int]:
    """Return the addresses of the pages in *ranges* that only process *pid* has in memory.

    Args:
        ranges: from the first address of a page up to another.

    Raises:
        OSError: the kernel does not tell.
    """
    pages: list[int] = []
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as file:
        for start, end in ranges:
            count = (end - start) // PAGE
            told = os.pread(file.fileno(), count * _ENTRY, start // PAGE * _ENTRY)
            pages += [
                start + number * PAGE
                for number, (entry,) in enumerate(struct.iter_unpack("=Q", told))
                if entry & _PRESENT and entry & _MAPPED_ONCE
            ]
    return pages
