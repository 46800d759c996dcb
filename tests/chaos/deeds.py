"""What the jobs do. Runs in the workers.

Every job says that it began before it does anything, and that it came to its end
if it does: the two lines are the evidence of what really ran.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn

from tests.chaos.journal import Journal, birth_of
from tests.children import breaks_the_protocol

# Users that nobody else is: fork bombs become one of them. The kernel does not
# count root's processes, whatever its limit is. Source: setrlimit(2).
BOMBERS: Final = range(64_000, 64_008)

# Over the server's limit, far below what the machine has.
HOG_MB: Final = 400


class JobFailed(Exception):
    """What a job raises that shall fail."""


def run(journal_path: str, job: str, deed: str) -> None:
    """Do *deed* as job *job*."""
    journal = Journal(journal_path)
    journal.now("b", job, os.getpid(), os.getppid())
    DEEDS[deed](journal, job)
    journal.now("e", job, os.getpid())


def returns(journal: Journal, job: str) -> None:
    pass


def sleeps(journal: Journal, job: str) -> None:
    # A digit of its number decides for how long: up to 45 ms.
    time.sleep(0.005 * int(job[-1]))


def raises(journal: Journal, job: str) -> None:
    raise JobFailed(job)


def exits(journal: Journal, job: str) -> None:
    os._exit(int(job[-1]))


def segfaults(journal: Journal, job: str) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def prints_a_lot(journal: Journal, job: str) -> None:
    for _ in range(1000):
        print("water " * 20)


# ── what is left behind ──────────────────────────────────────────────────────


def leaves_grandchildren(journal: Journal, job: str) -> None:
    """One in the group, one in a session of its own, and a daemon that forked twice."""
    for way in (_stays, _leaves, _becomes_a_daemon):
        pid = os.fork()
        if pid == 0:
            way()
            _lingers(journal, job)
        if way is _becomes_a_daemon:
            os.waitpid(pid, 0)


def leaves_grandchildren_and_crashes(journal: Journal, job: str) -> None:
    leaves_grandchildren(journal, job)
    segfaults(journal, job)


def leaves_the_channel_open(journal: Journal, job: str) -> None:
    """A grandchild keeps the ends of the channel, and its parent is gone without a word."""
    if os.fork() == 0:
        _leaves()
        _lingers(journal, job)
    os._exit(0)


def _stays() -> None:
    pass


def _leaves() -> None:
    os.setsid()


def _becomes_a_daemon() -> None:
    os.setsid()
    if os.fork():
        os._exit(0)


def _lingers(journal: Journal, job: str) -> NoReturn:
    try:
        journal("g", job, os.getpid(), birth_of(os.getpid()))
        time.sleep(1000)
    finally:
        os._exit(0)


# ── what breaks the worker ───────────────────────────────────────────────────

_GARBAGE: Final[tuple[Callable[[], None], ...]] = (
    breaks_the_protocol.writes_noise,
    breaks_the_protocol.writes_a_frame_of_noise,
    breaks_the_protocol.announces_two_gigabytes,
    breaks_the_protocol.writes_half_a_frame_and_exits,
    breaks_the_protocol.writes_noise_into_the_log,
    breaks_the_protocol.says_hello_again,
    breaks_the_protocol.says_started_again,
    breaks_the_protocol.says_finished_for_another,
    breaks_the_protocol.announces_descriptors_that_do_not_come,
    breaks_the_protocol.closes_its_channel,
)


def writes_garbage(journal: Journal, job: str) -> None:
    _GARBAGE[int(job[-1]) % len(_GARBAGE)]()


def closes_every_descriptor(journal: Journal, job: str) -> None:
    os.closerange(0, 4096)
    time.sleep(0.01)


def swallows_its_cancellation(journal: Journal, job: str) -> None:
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(1000)


def hogs_memory(journal: Journal, job: str) -> None:
    """Half of it in a child."""
    half = HOG_MB // 2
    program = f"import time; held = b'x' * ({half} << 20); time.sleep(1000)"
    subprocess.Popen([sys.executable, "-S", "-c", program])
    held = b"x" * (half << 20)
    time.sleep(1000)
    assert held


def is_a_fork_bomb(journal: Journal, job: str) -> None:
    """Fork without end, as a user whose processes the kernel counts.

    Nothing here limits it: RLIMIT_NPROC does, which the worker was born with.
    """
    assert resource.getrlimit(resource.RLIMIT_NPROC)[0] < 10_000, "nobody would hold it"
    if os.geteuid() == 0:
        os.setuid(BOMBERS[int(job[-1]) % len(BOMBERS)])
    while True:
        try:
            os.fork()
        except BlockingIOError:
            time.sleep(0.05)


DEEDS: Final[dict[str, Callable[[Journal, str], Any]]] = {
    "returns": returns,
    "sleeps for a moment": sleeps,
    "raises": raises,
    "exits": exits,
    "segfaults": segfaults,
    "prints a lot": prints_a_lot,
    "leaves grandchildren": leaves_grandchildren,
    "leaves grandchildren and crashes": leaves_grandchildren_and_crashes,
    "writes garbage into the channel": writes_garbage,
    "closes every descriptor": closes_every_descriptor,
    "leaves the channel open in a grandchild": leaves_the_channel_open,
    "swallows its cancellation": swallows_its_cancellation,
    "hogs memory": hogs_memory,
    "is a fork bomb": is_a_fork_bomb,
}
