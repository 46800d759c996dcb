"""Where this process stands in the kernel's tree of control groups, and what it is granted there.

cgroup v2, with v1 as well for the CPU quota. Limits hold for a group and for all
below it, so the quota that counts is the smallest on the way up; what is above the
root of a container's namespace cannot be seen, and need not be: the container's own
group is that root.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

_PROC: Final = Path("/proc/self")


@dataclass(frozen=True)
class Place:
    """One group.

    Args:
        directory: the group's own.
        top: the highest directory of the hierarchy that is mounted here.
    """

    directory: Path
    top: Path

    @property
    def upwards(self) -> Iterator[Path]:
        """The group's directory and those above it, up to the top."""
        directory = self.directory
        while True:
            yield directory
            if directory == self.top:
                return
            directory = directory.parent


@functools.lru_cache
def own_place(controller: str = "", proc: Path = _PROC) -> Place | None:
    """Return the group that this process is in; None where it cannot be seen.

    Args:
        controller: of cgroup v1; empty for cgroup v2.
        proc: this process's directory under ``/proc``.

    Remembered: it is asked for with every offer of a job. A process that is moved
    later on still sees what held above the old place.

    Source: cgroups(7), proc_pid_mountinfo(5).
    """
    try:
        path = _own_path((proc / "cgroup").read_text(encoding="utf-8"), controller)
        mounts = (proc / "mountinfo").read_text(encoding="utf-8")
    except OSError:  # no /proc, or a kernel without cgroups
        return None
    mount = None if path is None else _mount(mounts, controller)
    if path is None or mount is None:
        return None
    root, top = mount
    try:
        below = PurePosixPath(path).relative_to(root)
    except ValueError:  # the mount shows another part of the tree
        return None
    return None if ".." in below.parts else Place(top / below, top)


def _own_path(lines: str, controller: str) -> str | None:
    """Return the path of the group in its hierarchy. A line: ``5:cpu,cpuacct:/a/b``; v2: ``0::/a``."""
    for line in lines.splitlines():
        number, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") if controller else number == "0":
            return path
    return None


def _mount(lines: str, controller: str) -> tuple[str, Path] | None:
    """Return which part of the hierarchy is mounted, and where.

    A line: ``42 35 0:30 /root /mount/point rw,relatime - cgroup2 name options``.
    """
    for line in lines.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        wanted = kind == "cgroup" and controller in options.split(",")
        if wanted if controller else kind == "cgroup2":
            root, point = before.split(" ")[3:5]
            return root, Path(point.replace("\\040", " "))
    return None


def is_delegated(place: Place) -> bool:
    """Return whether this process may make groups below its own.

    Whoever is not root may if the directory is theirs: somebody gave it to them.
    Root may write everywhere, but a group that systemd manages has one writer
    unless ``Delegate=`` says otherwise; then it carries a mark. A container's own
    group is the top of what the container sees, and no root of the kernel's.
    """
    directory = place.directory
    if not all(os.access(each, os.W_OK) for each in (directory, directory / "cgroup.procs")):
        return False
    if os.geteuid() != 0:
        return True
    # Only the kernel's root has no type. Source: cgroups(7).
    return _is_marked(directory) or (
        directory == place.top and (directory / "cgroup.type").exists()
    )


def _is_marked(directory: Path) -> bool:
    # Source: systemd's "Control Group APIs and Delegation".
    for name in ("trusted.delegate", "user.delegate"):
        try:
            if os.getxattr(directory, name) == b"1":
                return True
        except OSError:  # it has no such mark
            continue
    return False


# ── the CPU quota ────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Quota:
    """CPUs that a group is granted.

    Args:
        cpus: how many, a fraction.
        directory: the group that has this quota, ours or one above it: what it
            uses counts against the quota.
    """

    cpus: float
    directory: Path


def cpu_quota(proc: Path = _PROC) -> Quota | None:
    """Return the smallest CPU quota from our group upwards; None without any.

    Source: cgroup v2 ``cpu.max``; cgroup v1 ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us``.
    """
    quotas: list[Quota] = []
    for controller, read in (("", _v2_quota), ("cpu", _v1_quota)):
        place = own_place(controller, proc)
        if place is not None:
            for directory in place.upwards:
                cpus = read(directory)
                if cpus is not None:
                    quotas.append(Quota(cpus, directory))
    return min(quotas, key=lambda quota: quota.cpus, default=None)


def _v2_quota(directory: Path) -> float | None:
    try:
        quota, period = (directory / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):  # the root has none; nor has a group without the controller
        return None


def _v1_quota(directory: Path) -> float | None:
    try:
        quota = int((directory / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period = int((directory / "cpu.cfs_period_us").read_text(encoding="ascii"))
    except (OSError, ValueError):  # as above
        return None
    return quota / period if quota > 0 else None


def cpu_seconds(quota: Quota, proc: Path = _PROC) -> float | None:
    """Return the CPU seconds that count against *quota* so far; None if nobody says.

    Source: cgroup v2 ``cpu.stat``, microseconds; cgroup v1 ``cpuacct.usage``, nanoseconds.
    """
    try:
        lines = (quota.directory / "cpu.stat").read_text(encoding="ascii").splitlines()
        return int(dict(line.split() for line in lines)["usage_usec"]) / 1e6
    except (OSError, ValueError, KeyError):
        pass  # cgroup v1: its cpu.stat tells of throttling only
    below = _below_its_top(quota.directory, proc)
    accounts = own_place("cpuacct", proc)
    if below is None or accounts is None:
        return None
    try:
        text = (accounts.top / below / "cpuacct.usage").read_text(encoding="ascii")
        return int(text) / 1e9
    except (OSError, ValueError):  # another controller's tree does not go so deep
        return None


def _below_its_top(directory: Path, proc: Path) -> Path | None:
    place = own_place("cpu", proc)
    try:
        return None if place is None else directory.relative_to(place.top)
    except ValueError:  # v2's directory, beside a controller of v1
        return None
