"""A group for each worker, against a directory that behaves like the kernel's tree.

The controllers of memory and of processes are not to be had on every machine, so
what is written into their files is looked at here; what the kernel does about it
is the kernel's. The groups, joining them and killing them are tested for real in
tests/integration/test_cgroups.py.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor import enclosure
from supervisor.enclosure import Enclosure, Limits, find

MB = 2**20


class Kernel:
    """A tree of groups in a directory. Groups have files; a group with processes cannot go.

    Args:
        top: the group that is ours.
        controllers: that are to be had there.
        processes: in our group.
    """

    def __init__(self, top: Path, controllers: str, processes: list[int]) -> None:
        self.top = top
        self.busy: set[Path] = set()
        self.top.mkdir()
        self.fill(top, controllers)
        (top / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in processes))
        self._write, self._rmdir, self._mkdir = enclosure._write, Path.rmdir, Path.mkdir

    def fill(self, group: Path, controllers: str) -> None:
        files = ["cgroup.procs", "cgroup.kill", "cgroup.subtree_control"]
        if "memory" in controllers:
            files += ["memory.max", "memory.oom.group", "memory.events"]
        if "pids" in controllers:
            files += ["pids.max"]
        for name in files:
            (group / name).touch()
        (group / "cgroup.controllers").write_text(controllers)

    def mkdir(
        self, path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False
    ) -> None:
        self._mkdir(path, exist_ok=exist_ok)
        self.fill(path, (path.parent / "cgroup.subtree_control").read_text())

    def rmdir(self, path: Path) -> None:
        if path in self.busy or any(each.is_dir() for each in path.iterdir()):
            raise OSError(errno.EBUSY, "busy")
        shutil.rmtree(path)

    def write(self, path: Path, text: str) -> None:
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        if path.name == "cgroup.subtree_control":
            # No group has both processes and groups that controllers were handed to.
            if path.parent == self.top and (self.top / "cgroup.procs").read_text().split():
                raise OSError(errno.EBUSY, "processes are in there")
            text = " ".join(path.read_text().split() + [word[1:] for word in text.split()])
        if path.name == "cgroup.procs":
            inside = (self.top / "cgroup.procs").read_text().split()
            inside.remove(text)
            (self.top / "cgroup.procs").write_text("\n".join(inside))
        path.write_text(text)


MakeKernel = Callable[..., Kernel]


@pytest.fixture
def make_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeKernel:
    def make(controllers: str = "cpu memory pids", processes: list[int] | None = None) -> Kernel:
        kernel = Kernel(tmp_path / "ours", controllers, processes or [])
        monkeypatch.setattr(enclosure, "_write", kernel.write)
        monkeypatch.setattr(Path, "mkdir", lambda path, *a, **k: kernel.mkdir(path, *a, **k))
        monkeypatch.setattr(Path, "rmdir", lambda path: kernel.rmdir(path))
        return kernel

    return make


def enclosed(kernel: Kernel, **limits: int) -> Enclosure:
    return Enclosure(
        asyncio.get_running_loop(),
        kernel.top,
        Limits(limits.get("memory_bytes"), limits.get("processes")),
    )


async def _until_gone(group: Path) -> None:
    while group.exists():
        await asyncio.sleep(0.001)


def told(enclosure: Enclosure, worker: int, name: str) -> str:
    return (enclosure.path / str(worker) / name).read_text()


# ── limits ───────────────────────────────────────────────────────────────────


async def test_memory_and_processes_of_each_worker_are_limited(make_kernel: MakeKernel) -> None:
    groups = enclosed(make_kernel(), memory_bytes=512 * MB, processes=32)
    groups.make(7)
    assert groups.controllers == {"memory", "pids"}
    assert told(groups, 7, "memory.max") == str(512 * MB)
    assert told(groups, 7, "memory.oom.group") == "1"
    assert told(groups, 7, "pids.max") == "32"
    await groups.close()
    assert not groups.path.exists()


async def test_a_job_s_own_limit_takes_the_place_of_the_pool_s(make_kernel: MakeKernel) -> None:
    groups = enclosed(make_kernel(), memory_bytes=512 * MB)
    groups.make(1)
    groups.limit_memory(1, 100 * MB)
    assert told(groups, 1, "memory.max") == str(100 * MB)
    groups.limit_memory(1, 512 * MB)
    assert told(groups, 1, "memory.max") == str(512 * MB)
    groups.limit_memory(1, 0)
    assert told(groups, 1, "memory.max") == "max"
    await groups.close()


async def test_a_limit_that_could_not_be_set_is_set_with_the_next_job(
    make_kernel: MakeKernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    groups = enclosed(make_kernel(), memory_bytes=512 * MB)
    groups.make(1)
    with monkeypatch.context() as patched:
        patched.setattr(enclosure, "_write", _no_descriptors)
        groups.limit_memory(1, 100 * MB)
    assert "worker 1 has another memory limit" in caplog.text
    groups.limit_memory(1, 512 * MB)
    assert told(groups, 1, "memory.max") == str(512 * MB)
    await groups.close()


async def test_what_is_left_of_a_worker_is_killed_once_there_is_a_descriptor_for_it(
    make_kernel: MakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = make_kernel()
    groups = enclosed(kernel)
    groups.make(1)
    group = groups.path / "1"
    kernel.busy.add(group)
    with monkeypatch.context() as patched:
        patched.setattr(enclosure, "_write", _no_descriptors)
        groups.kill(1)
        groups.remove(1)
    assert told(groups, 1, "cgroup.kill") == ""
    while told(groups, 1, "cgroup.kill") != "1":
        await asyncio.sleep(0.001)
    kernel.busy.clear()
    await asyncio.wait_for(_until_gone(group), 10)
    await groups.close()


def _no_descriptors(path: Path, text: str) -> None:
    raise OSError(errno.EMFILE, "Too many open files", str(path))


async def test_a_job_may_be_limited_where_the_pool_is_not(make_kernel: MakeKernel) -> None:
    groups = enclosed(make_kernel())
    groups.make(1)
    assert groups.controllers == {"memory"}
    assert told(groups, 1, "memory.max") == "max"
    groups.limit_memory(1, 64 * MB)
    assert told(groups, 1, "memory.max") == str(64 * MB)
    await groups.close()


async def test_without_controllers_workers_have_groups_and_no_limits(
    make_kernel: MakeKernel,
) -> None:
    groups = enclosed(make_kernel(controllers="hugetlb"), memory_bytes=MB, processes=3)
    groups.make(1)
    groups.limit_memory(1, 2 * MB)
    assert groups.controllers == frozenset()
    assert not (groups.path / "1" / "memory.max").exists()
    assert "the kernel limits nothing" in str(groups)
    await groups.close()


async def test_the_kernel_s_count_tells_whether_memory_ran_out(make_kernel: MakeKernel) -> None:
    groups = enclosed(make_kernel(), memory_bytes=MB)
    for worker, events in ((1, "oom 1\noom_kill 2\n"), (2, "oom 0\noom_kill 0\n"), (3, "")):
        groups.make(worker)
        (groups.path / str(worker) / "memory.events").write_text(events)
    assert [groups.ran_out_of_memory(worker) for worker in (1, 2, 3, 4)] == [True] + [False] * 3
    await groups.close()


# ── the rule about processes in a group that hands controllers down ──────────


async def test_a_process_that_is_alone_in_its_group_steps_aside(make_kernel: MakeKernel) -> None:
    kernel = make_kernel(processes=[os.getpid()])
    groups = enclosed(kernel, memory_bytes=MB)
    assert groups.controllers == {"memory"}
    assert (kernel.top / "supervisor" / "cgroup.procs").read_text() == str(os.getpid())
    assert (kernel.top / "cgroup.procs").read_text() == ""
    await groups.close()


async def test_where_others_are_nobody_is_moved_and_nothing_is_limited(
    make_kernel: MakeKernel,
) -> None:
    kernel = make_kernel(processes=[os.getpid(), 1])
    groups = enclosed(kernel, memory_bytes=MB)
    groups.make(1)
    assert groups.controllers == frozenset()
    assert (kernel.top / "cgroup.procs").read_text().split() == [str(os.getpid()), "1"]
    groups.kill(1)
    assert told(groups, 1, "cgroup.kill") == "1"
    await groups.close()


async def test_what_was_handed_down_already_needs_no_step(make_kernel: MakeKernel) -> None:
    kernel = make_kernel(processes=[os.getpid(), 1])
    (kernel.top / "cgroup.subtree_control").write_text("memory pids")
    groups = enclosed(kernel, memory_bytes=MB, processes=5)
    assert groups.controllers == {"memory", "pids"}
    await groups.close()


# ── the end of a group ───────────────────────────────────────────────────────


async def test_a_worker_s_group_goes_with_it(make_kernel: MakeKernel) -> None:
    groups = enclosed(make_kernel())
    groups.make(1)
    groups.remove(1)
    assert not (groups.path / "1").exists()
    await groups.close()


async def test_what_is_left_of_a_tree_is_killed_and_its_group_removed_when_it_is_gone(
    make_kernel: MakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enclosure, "_LOOK_AGAIN", 0.001)
    kernel = make_kernel()
    groups = enclosed(kernel)
    groups.make(1)
    group = groups.path / "1"
    kernel.busy.add(group)
    groups.remove(1)
    assert told(groups, 1, "cgroup.kill") == "1"
    await asyncio.sleep(0.01)
    assert group.exists()
    kernel.busy.clear()
    await asyncio.wait_for(_until_gone(group), 10)
    await groups.close()


async def test_closing_kills_all_and_waits_until_it_is_gone(
    make_kernel: MakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enclosure, "_LOOK_AGAIN", 0.001)
    kernel = make_kernel()
    groups = enclosed(kernel)
    groups.make(1)
    groups.make(2)
    kernel.busy.add(groups.path / "2")
    closing = asyncio.ensure_future(groups.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    assert (groups.path / "cgroup.kill").read_text() == "1"
    kernel.busy.clear()
    await asyncio.wait_for(closing, 10)
    assert not groups.path.exists()
    await groups.close()


async def test_what_a_dead_supervisor_left_is_removed_and_what_a_living_one_has_is_not(
    make_kernel: MakeKernel,
) -> None:
    kernel = make_kernel()
    dead, alive = kernel.top / "greenroom-4194999-1", kernel.top / "greenroom-1-1"
    for path in (dead, alive):
        path.mkdir()
        (path / "3").mkdir()
    groups = enclosed(kernel)
    assert not dead.exists()
    assert (alive / "3").exists()
    await groups.close()


# ── where ────────────────────────────────────────────────────────────────────


def test_the_option_says_where(make_kernel: MakeKernel, tmp_path: Path) -> None:
    kernel = make_kernel()
    assert find(str(kernel.top)) == (kernel.top, "as told")
    assert find(str(tmp_path)) == (None, f"{tmp_path} is no cgroup")
    assert find(None) == (None, "turned off")


async def test_a_kernel_that_cannot_kill_a_group_is_not_used(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    fill = kernel.fill

    def without_kill(group: Path, controllers: str) -> None:
        fill(group, controllers)
        (group / "cgroup.kill").unlink()

    kernel.fill = without_kill  # type: ignore[method-assign]
    with pytest.raises(OSError, match=r"5\.14"):
        enclosed(kernel)
    assert [each for each in kernel.top.iterdir() if each.is_dir()] == []
