"""Functions that tests run in workers. By name here, so that they travel by reference."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from typing import Any

from supervisor import JobProcess, get_job_context


def double(number: int) -> int:
    return number * 2


def pid() -> int:
    return os.getpid()


def raise_value_error(text: str) -> None:
    raise ValueError(text)


async def double_later(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


def exit_hard(status: int) -> None:
    os._exit(status)


def exit_softly(status: int) -> None:
    sys.exit(status)


def interrupt_oneself() -> None:
    raise KeyboardInterrupt("in the job")


def die_by(number: int) -> None:
    os.kill(os.getpid(), number)
    signal.pause()


def sleep_for_ever() -> None:
    while True:
        time.sleep(1000)


def compute_for_ever() -> None:
    while True:
        pass


async def sleep_for_ever_async() -> None:
    await asyncio.Event().wait()


def setup_marker(proc: JobProcess) -> None:
    proc.userdata["marker"] = "warm"


def read_marker() -> Any:
    return get_job_context().proc.userdata.get("marker")


def identity(value: Any) -> Any:
    return value


_mark: list[str] = []


def be_nice(value: int, seconds: float) -> tuple[int, int]:
    """Set it as first thing, and stay; return it, and the time slice in nanoseconds."""
    from tests.integration.test_slices import said

    os.nice(value)
    time.sleep(seconds)
    _, nice, runtime = said(os.getpid())
    return nice, runtime


def note(path: str) -> None:
    with open(path, "a") as file:
        file.write("called\n")


def set_mark(text: str) -> None:
    _mark.append(text)


def get_mark() -> str:
    return _mark[-1]


def put_pid(queue: Any, lock: Any) -> None:
    with lock:
        queue.put(os.getpid())


def sleep_if(wanted: bool) -> None:
    if wanted:
        time.sleep(1000)


def note_its_end(path: str) -> None:
    """Write down by which exception it was ended."""
    try:
        # Inside: whoever sees the file may stop the job before its next line.
        with open(path + ".begun", "w") as file:
            file.write(str(os.getpid()))
        sleep_for_ever()
    except BaseException as exc:
        with open(path + ".new", "w") as file:
            file.write(type(exc).__name__)
        os.rename(path + ".new", path)
        raise


def ignore_being_stopped() -> None:
    while True:
        try:
            time.sleep(1000)
        except BaseException:  # noqa: BLE001 - the point
            continue


class TellsItsThread:
    """Arrives as the number of the thread that unpickled it."""

    def __reduce__(self) -> Any:
        return threading.get_ident, ()


def thread_that_unpickles() -> Any:
    return TellsItsThread()


class FailsToUnpickle:
    def __reduce__(self) -> Any:
        return divmod, (1, 0)


async def sleep_until_cancelled() -> None:
    await asyncio.Event().wait()


def one_over(number: int) -> float:
    return 1 / number


def lose_the_first_signal(path: str) -> None:
    """Be asked to stop in the instant in which Python does not look for signals."""
    came: list[int] = []
    handler = signal.signal(signal.SIGURG, lambda number, frame: came.append(number))
    with open(path + ".waits", "w"):
        pass
    while not came:
        time.sleep(0.01)
    signal.signal(signal.SIGURG, handler)
    note_its_end(path)
