"""Job functions that end badly, do not end, or leave things behind. Entrypoints of them too."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time

from supervisor import JobContext


def sleep_for_ever() -> None:
    while True:
        time.sleep(1000)


def wait_for_file(path: str) -> str:
    """Return once *path* exists: a job that ends when the test says so."""
    while not os.path.exists(path):
        time.sleep(0.005)
    return "done"


def note_pid(path: str, *pids: int) -> None:
    """Add a line for each of *pids* to *path*, this process's own without any."""
    with open(path, "a", encoding="ascii") as file:
        file.write("".join(f"{pid}\n" for pid in pids or (os.getpid(),)))


# ── ends of a process ────────────────────────────────────────────────────────


def exits_hard(status: int = 3) -> None:
    os._exit(status)


def exits_softly(status: int = 3) -> None:
    sys.exit(status)


def dies_of(number: int) -> None:
    os.kill(os.getpid(), number)
    sleep_for_ever()


async def dies_of_later(number: int) -> None:
    dies_of(number)


def raises(text: str) -> None:
    raise RuntimeError(text)


def raises_once_there_is(path: str) -> None:
    wait_for_file(path)
    raises("no such luck")


# ── silence ──────────────────────────────────────────────────────────────────


def stops_itself() -> None:
    dies_of(signal.SIGSTOP)


def holds_the_gil() -> None:
    """Wait in C without letting go of the GIL: no thread of this process runs any more."""
    ctypes.PyDLL(None).pause()


def ignores_being_stopped(path: str) -> None:
    """Say so in *path* once nothing but a kill can end this."""
    while True:
        try:
            note_pid(path)
            time.sleep(1000)
        except BaseException:  # noqa: BLE001 - the point
            continue


async def blocks_its_loop_then_holds_the_gil(path: str) -> None:
    waits_where_the_loop_cannot_turn(path)


def waits_where_the_loop_cannot_turn(path: str) -> None:
    wait_for_file(path)
    holds_the_gil()


# ── leftovers ────────────────────────────────────────────────────────────────


def leaves_a_child(path: str) -> None:
    note_pid(path, subprocess.Popen(["sleep", "1000"]).pid)


def leaves_a_child_in_its_own_session(path: str) -> None:
    note_pid(path, subprocess.Popen(["sleep", "1000"], start_new_session=True).pid)


def leaves_a_daemon(path: str) -> None:
    """Fork twice, the classic way: the daemon has no parent and a session of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        daemon = os.fork()
        if daemon == 0:
            os.close(reader)
            os.write(writer, b"%d" % os.getpid())
            os.close(writer)
            os.execvp("sleep", ["sleep", "1000"])
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    note_pid(path, int(os.read(reader, 32)))
    os.close(reader)


def leaves_a_child_and_goes_on(path: str) -> None:
    leaves_a_child(path)
    sleep_for_ever()


def leaves_a_child_in_its_own_session_and_goes_on(path: str) -> None:
    leaves_a_child_in_its_own_session(path)
    sleep_for_ever()


def leaves_a_daemon_and_goes_on(path: str) -> None:
    leaves_a_daemon(path)
    sleep_for_ever()


def leaves_all_three(path: str) -> None:
    leaves_a_child(path)
    leaves_a_child_in_its_own_session(path)
    leaves_a_daemon(path)


def leaves_all_three_and_crashes(path: str) -> None:
    leaves_all_three(path)
    dies_of(signal.SIGSEGV)


def leaves_all_three_and_goes_on(path: str) -> None:
    leaves_all_three(path)
    sleep_for_ever()


def leaves_a_thread() -> int:
    threading.Thread(target=sleep_for_ever, name="forgotten", daemon=False).start()
    return os.getpid()


def takes_memory_with_a_child(megabytes: int) -> None:
    """Hold half of it here and half in a child, and say so by waiting for ever."""
    half = megabytes // 2
    program = f"import time; held = b'x' * ({half} << 20); time.sleep(1000)"
    subprocess.Popen([sys.executable, "-S", "-c", program])
    held = b"x" * (half << 20)
    assert held
    sleep_for_ever()


# ── floods ───────────────────────────────────────────────────────────────────


def logs_for_ever() -> None:
    logger = logging.getLogger("flood")
    while True:
        logger.error("water " * 100)


def prints_for_ever() -> None:
    while True:
        print("water " * 100)


# ── entrypoints ──────────────────────────────────────────────────────────────


def entrypoint(ctx: JobContext) -> None:
    """Do what the room is called; ``ctx.job.metadata`` is a path for those that need one."""
    name, path = ctx.room.name, ctx.job.metadata
    if name == "raises":
        raises("the entrypoint failed")
    elif name == "exits hard":
        exits_hard()
    elif name == "exits softly":
        exits_softly()
    elif name == "exits softly with 0":
        exits_softly(0)
    elif name == "waits":
        wait_for_file(path)
    elif name.startswith("SIG"):
        dies_of(signal.Signals[name])
    elif name == "holds the gil":
        holds_the_gil()


async def async_entrypoint(ctx: JobContext) -> None:
    entrypoint(ctx)
