"""A control group for each worker: the kernel knows its whole tree, limits it and kills it at once.

Where cgroup v2 is ours to write to. A process cannot leave its group, whatever
sessions it makes and however often it forks, so ``cgroup.kill`` reaches what a
process group does not, also when the worker has crashed and the fork server is
dead. Where the controllers are to be had, memory and the number of processes are
limited by the kernel as well, for all processes of a job together.

The tree::

    ours/                       the group that this process was put in, or was told to use
        greenroom-<pid>-<n>/    one for each pool
            <worker>/           one for each worker; it joins before any code of the user's

The kernel's rule that shapes it: a group that hands controllers down has no
processes of its own, unless it is the root. So when *ours* must hand them down and
this process is alone in it, it moves to ``ours/supervisor`` first; when others are
in there too, nobody is moved, and there are no kernel limits.

Source: the kernel's "Control Group v2".

Where there is no such place, groups and strays are killed one by one, and memory is
measured; see ``child/forkserver.py`` and ``memory.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from supervisor.cgroupfs import is_delegated, own_place
from supervisor.memory import tree_pids

logger = logging.getLogger("greenroom.cgroup")

CONTROLLERS: Final = ("memory", "pids")

# A group can be removed once its last process is gone, microseconds after a kill.
# The kernel announces it by a poll event that event loops do not take.
_LOOK_AGAIN: Final = 0.05

# What opening a file raises while this process, or the machine, has too many open.
_NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)

# A memory limit of a worker that could not be set: not equal to any that is wanted.
_UNKNOWN: Final = -1

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Limits:
    """What the kernel enforces for one job, all its processes together. None: no limit."""

    memory_bytes: int | None = None
    processes: int | None = None


def find(option: str | None) -> tuple[Path | None, str]:
    """Return the directory to make groups in, or None, and why.

    Args:
        option: the option ``cgroup``: ``"auto"``, a directory, or None for not at all.
    """
    if option is None:
        return None, "turned off"
    if option != "auto":
        directory = Path(option)
        if not (directory / "cgroup.procs").exists():
            return None, f"{directory} is no cgroup"
        return directory, "as told"
    place = own_place()
    if place is None:
        return None, "no cgroup v2 here"
    if not is_delegated(place):
        return None, f"{place.directory} is not delegated to this process"
    return place.directory, "delegated"


class Enclosure:
    """The groups of one pool's workers.

    Args:
        loop: the pool's loop.
        ours: where it makes its group.
        limits: for each job, unless the job has its own.

    Runs on: the pool's loop, every method.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ours: Path, limits: Limits) -> None:
        self._loop = loop
        self._limits = limits
        # Workers whose limit is, or may be, another than the pool's: one that is
        # used again must not keep its last job's.
        self._of_their_own: dict[int, int | None] = {}
        self._removing: set[Path] = set()
        self._timer: asyncio.TimerHandle | None = None
        remove_abandoned(ours)
        self.path = ours / f"greenroom-{os.getpid()}-{next(_numbers)}"
        self.path.mkdir()
        try:
            if not (self.path / "cgroup.kill").exists():
                raise OSError(errno.ENOSYS, "no cgroup.kill before Linux 5.14")
            self.controllers = self._hand_down(ours)
        except BaseException:
            self.path.rmdir()
            raise

    def _hand_down(self, ours: Path) -> frozenset[str]:
        """Have the wanted controllers in our workers' groups, as far as they are to be had."""
        available = _words(ours / "cgroup.controllers")
        # Any job may come with a memory limit of its own.
        wanted = [name for name in CONTROLLERS if name in available]
        if self._limits.processes is None:
            wanted = [name for name in wanted if name != "pids"]
        if not wanted:
            return frozenset()
        order = " ".join(f"+{name}" for name in wanted)
        try:
            if not _words(ours / "cgroup.subtree_control").issuperset(wanted):
                self._hand_down_from(ours, order)
            _write(self.path / "cgroup.subtree_control", order)
        except OSError as exc:
            logger.info("cgroup: no limits by the kernel in %s: %s", ours, exc)
            return frozenset()
        return frozenset(wanted)

    def _hand_down_from(self, ours: Path, order: str) -> None:
        try:
            _write(ours / "cgroup.subtree_control", order)
        except OSError as exc:
            if exc.errno != errno.EBUSY:
                raise
            inside = {int(pid) for pid in _words(ours / "cgroup.procs")}
            if not inside.issubset(tree_pids(os.getpid())):
                raise OSError(errno.EBUSY, "other processes are in there") from exc
            aside = ours / "supervisor"  # it stays: we are in there to our end
            aside.mkdir(exist_ok=True)
            for pid in inside:
                with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                    _write(aside / "cgroup.procs", str(pid))
            _write(ours / "cgroup.subtree_control", order)

    # ── workers ──────────────────────────────────────────────────────────────

    def make(self, worker: int) -> None:
        """Make the group that *worker* will join.

        Raises:
            OSError: there may be no more groups.
        """
        group = self.path / str(worker)
        group.mkdir()
        if "memory" in self.controllers:
            # One process of the job is not worth more than the others.
            _write(group / "memory.oom.group", "1")
            self._limit_memory(group, self._limits.memory_bytes)
        if "pids" in self.controllers and self._limits.processes is not None:
            _write(group / "pids.max", str(self._limits.processes))

    def limit_memory(self, worker: int, limit_bytes: int) -> None:
        """Give *worker* the limit of the job that it gets; 0 for none.

        Without a descriptor to do it with the job has the limit that is there, and
        is measured all the same.
        """
        if "memory" not in self.controllers:
            return
        wanted = limit_bytes or None
        if wanted != self._of_their_own.get(worker, self._limits.memory_bytes):
            try:
                self._limit_memory(self.path / str(worker), wanted)
            except OSError as exc:
                logger.warning("cgroup: worker %d has another memory limit: %s", worker, exc)
                self._of_their_own[worker] = _UNKNOWN
            else:
                self._of_their_own[worker] = wanted

    def _limit_memory(self, group: Path, limit_bytes: int | None) -> None:
        _write(group / "memory.max", "max" if limit_bytes is None else str(limit_bytes))

    def kill(self, worker: int) -> None:
        """Kill every process of *worker*'s tree, wherever in the tree of processes it is.

        Nothing while there is no descriptor to do it with; :meth:`remove` tries again.
        """
        _kill(self.path / str(worker))

    def ran_out_of_memory(self, worker: int) -> bool:
        """Return whether the kernel killed a process of *worker*'s for its memory limit."""
        if "memory" not in self.controllers:
            return False
        try:
            text = (self.path / str(worker) / "memory.events").read_text(encoding="ascii")
        except OSError:  # its group is gone
            return False
        counts = dict(line.split() for line in text.splitlines())
        return int(counts.get("oom_kill", 0)) > 0

    def remove(self, worker: int) -> None:
        """*worker* was reaped: kill what is left of its tree and remove the group."""
        group = self.path / str(worker)
        self._of_their_own.pop(worker, None)
        if not _removed(group):
            self.kill(worker)
            self._removing.add(group)
            self._look_again()

    def _look_again(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_LOOK_AGAIN, self._remove_rest)

    def _remove_rest(self) -> None:
        self._timer = None
        for group in self._removing:
            _kill(group)
        self._removing = {group for group in self._removing if not _removed(group)}
        if self._removing:
            self._look_again()

    async def close(self) -> None:
        """Kill what is left and remove it all. May be called again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for _ in range(100):  # five seconds: a process in an uninterruptible wait stays longer
            _kill(self.path)
            if _removed_with_all_below(self.path):
                return
            await asyncio.sleep(_LOOK_AGAIN)
        logger.warning("cgroup: %s cannot be removed: a process in it does not die", self.path)

    def __str__(self) -> str:
        limits = " and ".join(sorted(self.controllers)) or "nothing"
        return f"workers in groups of their own under {self.path}, the kernel limits {limits}"


def remove_abandoned(ours: Path) -> None:
    """Kill and remove what supervisors that are dead left in *ours*."""
    for path in ours.glob("greenroom-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            # Another user's, or removed by somebody who looks now as well (ENOENT, ENODEV).
            with contextlib.suppress(OSError):
                _write(path / "cgroup.kill", "1")
            _removed_with_all_below(path)


def _removed_with_all_below(path: Path) -> bool:
    try:
        groups = [each for each in path.iterdir() if each.is_dir()]
    except FileNotFoundError:
        return True
    except OSError as exc:
        if exc.errno not in _NO_DESCRIPTORS:
            raise
        return False
    left = [group for group in groups if not _removed(group)]  # each is tried
    return not left and _removed(path)


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # EBUSY: processes are in it
        return False
    return True


def _kill(group: Path) -> None:
    try:
        _write(group / "cgroup.kill", "1")
    except OSError as exc:
        # ENOENT, ENODEV: it was never made, or is removed.
        if exc.errno not in (errno.ENOENT, errno.ENODEV, *_NO_DESCRIPTORS):
            raise


def _write(path: Path, text: str) -> None:
    # Not write_text: a text layer that failed to flush would try again when it is closed.
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)


def _words(path: Path) -> set[str]:
    return set(path.read_text(encoding="ascii").split())
