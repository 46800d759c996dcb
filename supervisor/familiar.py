"""The functions that were called last, for workers that are yet to be born.

The first who calls a function in a process has the pages copied on which its module, the
function and its code lie: a quarter of what a job waits for between the message and its first
line. A worker that has been told of the function does that while it is idle.
"""

from __future__ import annotations

from typing import Final

from ipc.messages import Name
from supervisor import byname

# A pool has few kinds of jobs, and each name is read at each birth.
_MOST: Final = 4

# The longest name that is remembered, in bytes: they travel in one frame with each birth.
_LONGEST: Final = 1024


class Familiar:
    """Remembers the last few functions, by name.

    Runs on: the pool's loop.
    """

    def __init__(self) -> None:
        #: What workers are born with, to be read only. The one that was called first comes first.
        self.names: tuple[Name, ...] = ()
        self._beginnings: tuple[bytes, ...] = ()  # of calls of these, packed

    def saw(self, packed: bytes) -> None:
        """Note a call that ``byname.pack`` packed. One that is known costs a comparison."""
        if packed.startswith(self._beginnings):
            return
        name, beginning = byname.name_of(packed)
        if len(beginning) > _LONGEST:
            return
        self.names = (*self.names, name)[-_MOST:]
        self._beginnings = (*self._beginnings, beginning)[-_MOST:]
