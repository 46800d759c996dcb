"""Where a process stands in the tree of control groups: files of a pretended kernel, read as they are."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from supervisor.cgroupfs import Place, Quota, cpu_quota, cpu_seconds, is_delegated, own_place

V2 = "30 23 0:26 {root} {top} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "31 23 0:27 {root} {top} rw shared:5 - cgroup cgroup rw,{controller}\n"


@dataclass
class Kernel:
    """A directory that looks like ``/proc/self`` and mounted hierarchies.

    Args:
        tmp_path: an empty directory.
    """

    tmp_path: Path
    mounts: str = ""
    groups: str = ""
    proc: Path = field(init=False)

    def __post_init__(self) -> None:
        self.proc = self.tmp_path / "proc"
        self.proc.mkdir()

    def mount(self, own: str, *, root: str = "/", controller: str = "") -> Path:
        """Mount a hierarchy in which our group is *own*; return where."""
        top = self.tmp_path / (controller or "unified")
        top.mkdir()
        line = V1 if controller else V2
        self.mounts += line.format(root=root, top=top, controller=controller)
        self.groups += f"{7 if controller else 0}:{controller}:{own}\n"
        (self.proc / "mountinfo").write_text(self.mounts)
        (self.proc / "cgroup").write_text(self.groups)
        return top

    def write(self, path: Path, text: str) -> None:
        """Make a file and the groups on the way to it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


# ── where we are ─────────────────────────────────────────────────────────────


def test_a_service_finds_its_group_below_the_mount(kernel: Kernel) -> None:
    top = kernel.mount("/system.slice/agent.service")
    place = own_place(proc=kernel.proc)
    assert place == Place(top / "system.slice" / "agent.service", top)


def test_a_container_s_own_group_is_the_top_of_what_it_sees(kernel: Kernel) -> None:
    top = kernel.mount("/")
    assert own_place(proc=kernel.proc) == Place(top, top)


def test_a_container_without_a_namespace_sees_a_part_of_the_tree(kernel: Kernel) -> None:
    top = kernel.mount("/docker/0815/inner", root="/docker/0815")
    assert own_place(proc=kernel.proc) == Place(top / "inner", top)


@pytest.mark.parametrize("own", ["/elsewhere", "/../sibling"])
def test_a_group_that_the_mount_does_not_show_is_none(kernel: Kernel, own: str) -> None:
    kernel.mount(own, root="/" if ".." in own else "/docker")
    assert own_place(proc=kernel.proc) is None


def test_without_cgroups_there_is_no_place(tmp_path: Path) -> None:
    assert own_place(proc=tmp_path) is None


def test_both_versions_may_be_mounted(kernel: Kernel) -> None:
    unified = kernel.mount("/")
    cpu = kernel.mount("/a", controller="cpu,cpuacct")
    assert own_place(proc=kernel.proc) == Place(unified, unified)
    assert own_place("cpu", kernel.proc) == Place(cpu / "a", cpu)
    assert own_place("memory", kernel.proc) is None


# ── the quota ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("quotas", "cpus", "whose"),
    [
        pytest.param({}, None, "", id="no files: no quota"),
        pytest.param({"": "max 100000"}, None, "", id="no quota"),
        pytest.param({"a/b": "150000 100000"}, 1.5, "a/b", id="our own"),
        pytest.param({"a/b": "max 100000", "a": "50000 100000"}, 0.5, "a", id="the parent's"),
        pytest.param({"a/b": "400000 100000", "a": "200000 100000"}, 2.0, "a", id="the smaller"),
        pytest.param({"a/b": "100000 100000", "a": "200000 100000"}, 1.0, "a/b", id="either way"),
        pytest.param({"": "300000 100000", "a/b": "max 100000"}, 3.0, "", id="a container's"),
        pytest.param({"a/b/c": "1000 100000"}, None, "", id="not that of a group below"),
        pytest.param({"a/b": "nonsense", "a": "100000 50000"}, 2.0, "a", id="sense is looked for"),
    ],
)
def test_the_smallest_quota_on_the_way_up_counts(
    kernel: Kernel, quotas: dict[str, str], cpus: float | None, whose: str
) -> None:
    top = kernel.mount("/a/b")
    for group, text in quotas.items():
        kernel.write(top / group / "cpu.max", text + "\n")
    expected = None if cpus is None else Quota(cpus, top / whose)
    assert cpu_quota(kernel.proc) == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [
        pytest.param("50000", "100000", 0.5, id="half a CPU"),
        pytest.param("-1", "100000", None, id="no quota"),
        pytest.param("50000", None, None, id="half of the files"),
    ],
)
def test_version_1_has_its_quota_in_two_files(
    kernel: Kernel, quota: str, period: str | None, expected: float | None
) -> None:
    top = kernel.mount("/a", controller="cpu")
    kernel.write(top / "a" / "cpu.cfs_quota_us", quota)
    if period is not None:
        kernel.write(top / "a" / "cpu.cfs_period_us", period)
    found = cpu_quota(kernel.proc)
    assert (None if found is None else found.cpus) == expected


def test_what_was_used_is_read_where_the_quota_is(kernel: Kernel) -> None:
    top = kernel.mount("/a/b")
    kernel.write(top / "a" / "cpu.max", "100000 100000\n")
    kernel.write(top / "a" / "cpu.stat", "usage_usec 7500000\nuser_usec 1\n")
    kernel.write(top / "a" / "b" / "cpu.stat", "usage_usec 1\n")
    quota = cpu_quota(kernel.proc)
    assert quota is not None
    assert cpu_seconds(quota, kernel.proc) == 7.5


def test_version_1_accounts_in_another_hierarchy(kernel: Kernel) -> None:
    cpu = kernel.mount("/a", controller="cpu")
    accounts = kernel.mount("/a", controller="cpuacct")
    kernel.write(cpu / "a" / "cpu.cfs_quota_us", "100000")
    kernel.write(cpu / "a" / "cpu.cfs_period_us", "100000")
    kernel.write(cpu / "a" / "cpu.stat", "nr_periods 0\n")
    kernel.write(accounts / "a" / "cpuacct.usage", "2500000000\n")
    quota = cpu_quota(kernel.proc)
    assert quota is not None
    assert cpu_seconds(quota, kernel.proc) == 2.5


def test_who_does_not_say_what_was_used_is_not_asked_twice(kernel: Kernel) -> None:
    top = kernel.mount("/")
    kernel.write(top / "cpu.max", "100000 100000\n")
    quota = cpu_quota(kernel.proc)
    assert quota is not None
    assert cpu_seconds(quota, kernel.proc) is None


# ── whose it is ──────────────────────────────────────────────────────────────


@pytest.mark.skipif(os.geteuid() != 0, reason="what root may do is asked")
@pytest.mark.parametrize(
    ("own", "typed", "expected"),
    [
        pytest.param("/", True, True, id="a container's own group"),
        pytest.param("/", False, False, id="the root of a machine"),
        pytest.param("/system.slice/agent.service", True, False, id="a service's, not delegated"),
    ],
)
def test_root_takes_only_what_was_delegated(
    kernel: Kernel, own: str, typed: bool, expected: bool
) -> None:
    top = kernel.mount(own)
    directory = top / own[1:]
    kernel.write(directory / "cgroup.procs", "")
    if typed:
        kernel.write(directory / "cgroup.type", "domain\n")
    place = own_place(proc=kernel.proc)
    assert place is not None
    assert is_delegated(place) is expected


@pytest.mark.skipif(os.geteuid() != 0, reason="trusted attributes are root's")
def test_a_service_s_group_that_systemd_marked_is_delegated(kernel: Kernel) -> None:
    top = kernel.mount("/system.slice/agent.service")
    place = own_place(proc=kernel.proc)
    assert place is not None
    kernel.write(place.directory / "cgroup.procs", "")
    try:
        os.setxattr(place.directory, "trusted.delegate", b"1")
    except OSError:
        pytest.skip(f"no such attributes on {top}")
    assert is_delegated(place)


def test_what_cannot_be_written_is_not_delegated(kernel: Kernel) -> None:
    kernel.mount("/a")
    place = own_place(proc=kernel.proc)
    assert place is not None
    assert not is_delegated(place)  # there is no such directory
