"""How many workers there are of each kind. A snapshot, and the counter behind it."""

from __future__ import annotations

import msgspec

from supervisor.lifecycle import State


class Census(msgspec.Struct, frozen=True, gc=False):
    """A snapshot. Invariant: ``alive`` is the sum of the fields."""

    spawning: int = 0
    warming: int = 0
    idle: int = 0
    running: int = 0
    stopping: int = 0
    killed: int = 0

    @property
    def coming(self) -> int:
        """Workers that will be idle soon."""
        return self.spawning + self.warming

    @property
    def going(self) -> int:
        """Workers on their way out; their memory is still taken."""
        return self.stopping + self.killed

    @property
    def alive(self) -> int:
        """Workers that have, or may still get, a process."""
        return self.coming + self.idle + self.running + self.going


class Counter:
    """Counts kept up to date by one move at a time, so that a census costs nothing.

    Runs on: the pool's loop.
    """

    def __init__(self) -> None:
        self._counts = dict.fromkeys(State, 0)

    def enter(self, state: State) -> None:
        """Count a new worker in *state*."""
        self._counts[state] += 1

    def move(self, before: State, after: State) -> None:
        """Count one worker's step. REAPED is left at once: it is nobody any more."""
        self._counts[before] -= 1
        assert self._counts[before] >= 0, f"more workers left {before.name} than were in it"
        if after is not State.REAPED:
            self._counts[after] += 1

    def census(self) -> Census:
        """Return the snapshot."""
        counts = self._counts
        return Census(
            spawning=counts[State.SPAWNING],
            warming=counts[State.WARMING],
            idle=counts[State.IDLE],
            running=counts[State.RUNNING],
            stopping=counts[State.STOPPING],
            killed=counts[State.KILLED],
        )
