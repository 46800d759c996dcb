"""Workers are born with the pages that they will write to, and without where that is forbidden."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from supervisor import JobProcess, ProcessPool
from supervisor.child.pinned import new_ring
from tests.integration import jobs
from tests.integration.conftest import soon

# linux/prctl.h, linux/seccomp.h, linux/filter.h
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2
_ALLOW: Final = 0x7FFF0000
_KILL_PROCESS: Final = 0x80000000
_ERRNO: Final = 0x00050000
_LOAD_NUMBER: Final = (0x20, 0, 0, 0)
_IO_URING_SETUP: Final = 425

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="io_uring is Linux's")


def answer_an_io_uring_with(verdict: int) -> None:
    """Install a filter of system calls, as containers and services have them."""
    program = [
        _LOAD_NUMBER,
        (0x15, 0, 1, _IO_URING_SETUP),  # jump over the next if it is another one
        (0x06, 0, 0, verdict),
        (0x06, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    head = struct.pack("HP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, head) == 0, os.strerror(
        ctypes.get_errno()
    )


def refuse_an_io_uring(proc: JobProcess) -> None:
    answer_an_io_uring_with(_ERRNO | errno.EPERM)


def kill_for_an_io_uring(proc: JobProcess) -> None:
    answer_an_io_uring_with(_KILL_PROCESS)


def forbid_nothing(proc: JobProcess) -> None:
    """Have this module imported before there are workers, as the others do."""


def faults_of_a_life() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def descriptors() -> list[str]:
    there = [f"/proc/self/fd/{fd}" for fd in range(100)]
    return [os.readlink(each) for each in there if os.path.lexists(each)]


async def faults_with(preload_fnc: Any) -> int:
    async with ProcessPool(num_idle_processes=1, preload_fnc=preload_fnc) as pool:
        return min([await soon(pool.submit(faults_of_a_life)) for _ in range(4)])


@pytest.fixture
def io_uring() -> None:
    """Skip the test where the kernel, or a filter around us, allows none."""
    try:
        os.close(new_ring())
    except OSError as exc:
        pytest.skip(f"no io_uring here: {exc}")


@pytest.mark.parametrize("forbid", [refuse_an_io_uring, kill_for_an_io_uring])
async def test_where_it_is_forbidden_workers_are_born_all_the_same(
    forbid: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    async with ProcessPool(num_idle_processes=2, preload_fnc=forbid) as pool:
        assert [await soon(pool.submit(jobs.double, n)) for n in range(4)] == [0, 2, 4, 6]
    assert capfd.readouterr().err == ""


async def test_workers_are_born_with_what_they_will_write_to(io_uring: None) -> None:
    pinned = await faults_with(forbid_nothing)
    one_by_one = await faults_with(refuse_an_io_uring)
    assert pinned < one_by_one - 100, (pinned, one_by_one)


async def test_only_the_fork_server_has_the_ring(io_uring: None) -> None:
    async with ProcessPool(num_idle_processes=1) as pool:
        assert pool._workers is not None
        here = Path(f"/proc/{pool._workers.forkserver_pid}/fd")
        assert "anon_inode:[io_uring]" in [os.readlink(each) for each in here.iterdir()]
        assert "anon_inode:[io_uring]" not in await soon(pool.submit(descriptors))
