"""A fork server that says what cannot be: it is ended, and a new one is started."""

from __future__ import annotations

import os

import pytest

from ipc.frames import encode_frame
from ipc.messages import Exited, Forked, ForkFailed, FromForkServer, encode
from supervisor.pidinfo import pid_of
from tests.fuzz.forkserver import Impostor
from tests.hostile.stage import SteppedLoop

NAN = float("nan")
NO_PID = 2**22 + 7


@pytest.fixture
def impostor(loop: SteppedLoop) -> Impostor:
    made = Impostor(loop)
    assert len(made.asked) == 2
    return made


def is_ended(impostor: Impostor) -> bool:
    killed = impostor.process.killed
    impostor.ends()
    assert not impostor.errors, f"raised on the loop: {impostor.errors}"
    assert not impostor.workers.all
    return killed


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(Forked(99, NO_PID), id="a worker that nobody asked for"),
        pytest.param(Exited(99, 0, 0.0, 0), id="the end of one that nobody knows"),
        pytest.param(Exited(1, 0, 0.0, 0), id="the end of one that was not born"),
        pytest.param(ForkFailed(99, 11), id="no process for one that nobody asked for"),
        pytest.param(ForkFailed(1, 2**40), id="an errno that there is not"),
        pytest.param(ForkFailed(1, -1), id="an errno below zero"),
        pytest.param(Forked(1, 0), id="pid 0: every process of our group"),
        pytest.param(Forked(1, -1), id="pid -1: every process there is"),
    ],
)
def test_a_report_about_a_worker_that_it_has_not_ends_it(
    impostor: Impostor, message: FromForkServer
) -> None:
    impostor.child.says(message)
    assert is_ended(impostor)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(Exited(1, 2**20, 0.0, 0), id="a wait status of 21 bits"),
        pytest.param(Exited(1, -1, 0.0, 0), id="a wait status below zero"),
        pytest.param(Exited(1, 0, NAN, 0), id="CPU time that is no number"),
        pytest.param(Exited(1, 0, 0.0, -1), id="memory below zero"),
        pytest.param(Forked(1, NO_PID), id="a second birth"),
    ],
)
def test_a_report_that_cannot_be_true_ends_it(impostor: Impostor, message: FromForkServer) -> None:
    impostor.child.says(Forked(1, NO_PID))
    assert not impostor.process.killed
    impostor.child.says(message)
    assert is_ended(impostor)


def test_a_second_end_of_a_worker_ends_it(impostor: Impostor) -> None:
    impostor.child.says(Forked(1, NO_PID), Exited(1, 0, 0.0, 0))
    assert not impostor.process.killed
    impostor.child.says(Exited(1, 0, 0.0, 0))
    assert is_ended(impostor)


@pytest.mark.parametrize("kind", ["another process", "a file", "a directory"])
def test_a_pidfd_of_another_process_is_not_believed(impostor: Impostor, kind: str) -> None:
    if kind == "another process":
        fd = os.pidfd_open(os.getppid())  # it would get our SIGKILL
    else:
        fd = os.open("/dev/null" if kind == "a file" else "/", os.O_RDONLY)
    impostor.child.sends(encode_frame(encode(Forked(1, NO_PID)), 1), [fd])
    os.close(fd)
    assert is_ended(impostor)


def test_whose_a_pidfd_is() -> None:
    own = os.pidfd_open(os.getpid())
    assert pid_of(own) == os.getpid()
    os.close(own)
    with open(os.devnull) as file:
        assert pid_of(file.fileno()) is None
