"""Workers in control groups, on the real kernel. Takes a cgroup v2 that this user may write to."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor import JobHandle, JobKilled, JobStatus, OptionError, ProcessPool, WorkerLost
from supervisor.cgroupfs import own_place
from supervisor.enclosure import Enclosure
from tests.children import misbehaves
from tests.integration import jobs
from tests.integration.conftest import soon
from tests.integration.watch import (
    Watch,
    all_gone,
    forkserver_of,
    read_pids,
    until,
    without_descriptors,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def group() -> Iterator[Path]:
    """A group that is empty before and must be empty after."""
    place = own_place()
    if place is None:
        pytest.skip("no cgroup v2 here")
    path = place.directory / f"greenroom-test-{os.getpid()}"
    try:
        path.mkdir()
        (path / "probe").mkdir()
    except OSError as exc:
        with contextlib.suppress(OSError):
            path.rmdir()
        pytest.skip(f"may not make groups: {exc}")
    (path / "probe").rmdir()
    try:
        yield path
        assert [each for each in path.iterdir() if each.is_dir()] == []
    finally:
        (path / "cgroup.kill").write_text("1")
        for each in [*path.glob("*/*/"), *path.glob("*/")]:
            each.rmdir()
        path.rmdir()


def group_of(pid: int | str = "self") -> str:
    """Return the path of a process's group in cgroup v2."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line[3:]
    raise AssertionError("no cgroup v2")


def pool(group: Path, **options: Any) -> ProcessPool:
    return ProcessPool(cgroup=os.fspath(group), num_idle_processes=1, **options)


async def test_a_job_is_killed_and_its_group_removed_though_there_is_no_descriptor_to_do_it_with(
    group: Path, tmp_path: Path
) -> None:
    deaf = tmp_path / "deaf"
    async with pool(group, shutdown_process_timeout=0.1) as p:
        handle = p.submit(misbehaves.ignores_being_stopped, os.fspath(deaf))
        await until(deaf.exists)
        with without_descriptors():
            handle.cancel()
            outcome = await soon(handle.wait())
        assert outcome.status is JobStatus.KILLED
        assert await soon(p.submit(jobs.double, 4)) == 8


async def test_each_job_runs_in_a_group_of_its_own_and_the_supervisor_in_none_of_them(
    group: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "greenroom.supply")
    before = group_of()
    async with pool(group) as p:
        groups = [await soon(p.submit(group_of)) for _ in range(3)]
        assert group_of() == before == group_of(forkserver_of(p))
    assert len(set(groups)) == 3
    assert all(f"/{group.name}/greenroom-{os.getpid()}-" in each for each in groups)
    lines = [record.message for record in caplog.records if "cgroup" in record.message]
    assert len(lines) == 1
    assert "workers in groups of their own" in lines[0]


async def test_without_groups_the_log_says_so_and_jobs_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "greenroom.supply")
    async with ProcessPool(cgroup=None, num_idle_processes=1) as p:
        assert await soon(p.submit(jobs.double, 4)) == 8
    lines = [record.message for record in caplog.records if "cgroup" in record.message]
    assert lines == ["cgroup: not used (turned off); memory is measured, strays are looked for"]


async def test_a_directory_that_was_named_and_is_no_group_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=f"cgroup='{tmp_path}': .*{tmp_path} is no cgroup"):
        async with pool(tmp_path):
            pass


async def test_strays_of_a_worker_that_crashes_are_killed_also_when_its_fork_server_is_dead(
    group: Path, tmp_path: Path
) -> None:
    left, go = tmp_path / "left", tmp_path / "go"
    p = pool(group)
    with Watch(p) as watch:
        async with p:
            handle: JobHandle[Any] = p.submit(
                leaves_all_three_and_crashes_when_told, os.fspath(left), os.fspath(go)
            )
            await until(lambda: len(read_pids(left)) == 3)
            os.kill(forkserver_of(p), 9)
            await watch.until_logged("the fork server is gone")
            go.touch()
            with pytest.raises(WorkerLost):
                await soon(handle)
            await until(lambda: all_gone(read_pids(left)))


def leaves_all_three_and_crashes_when_told(left: str, go: str) -> None:
    misbehaves.leaves_all_three(left)
    misbehaves.wait_for_file(go)
    misbehaves.dies_of(11)


async def test_strays_of_a_spawned_worker_that_crashes_are_killed(
    group: Path, tmp_path: Path
) -> None:
    left = tmp_path / "left"
    async with pool(group, multiprocessing_context="spawn") as p:
        handle: JobHandle[Any] = p.submit(misbehaves.leaves_all_three_and_crashes, os.fspath(left))
        with pytest.raises(WorkerLost):
            await soon(handle)
        assert len(read_pids(left)) == 3
        await until(lambda: all_gone(read_pids(left)))


async def test_a_job_that_is_killed_takes_its_whole_tree_with_it(
    group: Path, tmp_path: Path
) -> None:
    left = tmp_path / "left"
    async with pool(group, shutdown_process_timeout=0.1) as p:
        handle: JobHandle[Any] = p.submit(misbehaves.leaves_all_three_and_goes_on, os.fspath(left))
        await until(lambda: len(read_pids(left)) == 3)
        handle.cancel()
        assert (await soon(handle.wait())).status is JobStatus.CANCELLED
        await until(lambda: all_gone(read_pids(left)))


async def test_where_no_more_groups_may_be_made_jobs_wait_for_one(group: Path) -> None:
    limit = group / "cgroup.max.descendants"
    limit.write_text("2")  # the pool's group and one worker's
    p = pool(group, max_jobs=4)
    with Watch(p) as watch:
        async with p:
            handles = [p.submit(jobs.double, number) for number in range(4)]
            await watch.until_logged("no worker can be started")
            assert [await soon(handle) for handle in handles] == [0, 2, 4, 6]
            limit.write_text("max")


async def test_a_job_that_the_kernel_killed_for_its_memory_is_told_so(
    group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kernel's count is pretended: its memory controller is not to be had everywhere.
    monkeypatch.setattr(Enclosure, "ran_out_of_memory", lambda self, worker: True)
    async with pool(group, job_memory_limit_mb=256) as p:
        handle: JobHandle[Any] = p.submit(misbehaves.dies_of, 9)
        outcome = await soon(handle.wait())
        assert (outcome.status, outcome.reason) == (JobStatus.KILLED, "memory")
        with pytest.raises(JobKilled, match=r"SIGKILL \(memory: the kernel.s limit of 256 MB"):
            await handle
        crashed: JobHandle[Any] = p.submit(misbehaves.dies_of, 11)
        assert (await soon(crashed.wait())).status is JobStatus.FAILED


def test_two_seconds_after_the_supervisor_was_killed_no_process_and_no_group_is_left(
    group: Path,
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.children.supervisor_to_be_killed", "forkserver", str(group)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    assert [each for each in group.iterdir() if each.is_dir()]
    began = time.monotonic()
    process.kill()
    process.communicate()
    while not all_gone(told["pids"]) or [each for each in group.iterdir() if each.is_dir()]:
        assert time.monotonic() - began < 2.0
        time.sleep(0.01)


ENCLOSE_WITH_A_REAL_CONTROLLER = """
import asyncio, json, os, sys
from pathlib import Path
from supervisor import enclosure

async def main(ours, controller):
    (ours / "cgroup.procs").write_text("0")
    enclosure.CONTROLLERS = (controller,)
    groups = enclosure.Enclosure(asyncio.get_running_loop(), ours, enclosure.Limits())
    groups.make(1)
    print(json.dumps({
        "controllers": sorted(groups.controllers),
        "worker has": (groups.path / "1" / "cgroup.controllers").read_text().split(),
        "we are in": Path("/proc/self/cgroup").read_text().split("0::")[1].split()[0],
    }))
    await groups.close()

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def test_controllers_are_handed_down_by_the_kernel_once_we_have_stepped_aside(
    group: Path,
) -> None:
    """With whichever controller there is: the rules are the same for all."""
    domain = set((group / "cgroup.controllers").read_text().split()) - {"cpu", "cpuset", "pids"}
    parent = group.parent / "cgroup.subtree_control"
    if not domain:
        domain = set((group.parent / "cgroup.controllers").read_text().split()) & {
            "hugetlb",
            "memory",
        }
        if not domain:
            pytest.skip("no controller to be had")
    controller = min(domain)
    had_it = controller in parent.read_text().split()
    if not had_it:
        parent.write_text(f"+{controller}")
    try:
        done = subprocess.run(
            [sys.executable, "-c", ENCLOSE_WITH_A_REAL_CONTROLLER, str(group), controller],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
        )
        told = json.loads(done.stdout)
        assert told["controllers"] == [controller]
        assert told["worker has"] == [controller]
        assert told["we are in"].endswith(f"/{group.name}/supervisor")
    finally:
        with contextlib.suppress(FileNotFoundError):
            (group / "supervisor").rmdir()
        if not had_it:
            (group / "cgroup.subtree_control").write_text(f"-{controller}")
            parent.write_text(f"-{controller}")
