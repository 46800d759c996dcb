"""A server whose jobs do what the name of their room says. Started by the drain tests.

Its one argument is a JSON object: ``reports`` (a FIFO), ``rooms`` (jobs to submit
when it has started), ``hooks`` (names of functions below) and ``options``. Each
line on its standard input is a command, see ``Commands``.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from supervisor import AgentServer, JobContext, JobProcess, JobRequest, NotAdmitted
from tests.children.reporting import Say

CONFIG: dict[str, Any] = json.loads(sys.argv[1])
say = Say(CONFIG["reports"])

# Longer than any test.
LONG = 3600.0


# ── jobs, by room ────────────────────────────────────────────────────────────


async def ends(ctx: JobContext) -> None:
    say("entered", room=ctx.room.name, draining=ctx.draining, left=left(ctx.drain_deadline))


async def ends_when_told(ctx: JobContext) -> None:
    told = asyncio.Event()

    async def drain(deadline: float | None) -> None:
        say("told", draining=ctx.draining, left=left(deadline), same=deadline == ctx.drain_deadline)
        told.set()

    ctx.add_drain_callback(drain)
    say("entered", room=ctx.room.name, draining=ctx.draining)
    await told.wait()


def ends_when_told_plainly(ctx: JobContext) -> None:
    told = threading.Event()
    ctx.add_drain_callback(told.set)
    say("entered", room=ctx.room.name)
    told.wait(LONG)


async def ends_when_released(ctx: JobContext) -> None:
    """SIGUSR1 releases it."""
    released = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, released.set)
    say("entered", room=ctx.room.name)
    await released.wait()


async def cleans_up(ctx: JobContext) -> None:
    ctx.add_shutdown_callback(lambda reason: say("cleaned up", reason=reason))
    say("entered", room=ctx.room.name)
    await asyncio.sleep(LONG)


async def ignores_sigterm(ctx: JobContext) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    await cleans_up(ctx)


async def swallows_cancelled(ctx: JobContext) -> None:
    say("entered", room=ctx.room.name)
    while True:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            pass


async def blocks_the_loop(ctx: JobContext) -> None:
    say("entered", room=ctx.room.name)
    time.sleep(LONG)


async def stuck_in_c(ctx: JobContext) -> None:
    say("entered", room=ctx.room.name)
    while True:
        ctypes.CDLL(None).pause()


async def stuck_with_the_gil(ctx: JobContext) -> None:
    pause = ctypes.PyDLL(None).pause
    say("entered", room=ctx.room.name)
    while True:
        pause()


async def hangs_in_a_shutdown_callback(ctx: JobContext) -> None:
    async def hang(reason: str) -> None:
        say("asked", reason=reason)
        await asyncio.sleep(LONG)

    ctx.add_shutdown_callback(hang)
    say("entered", room=ctx.room.name)
    await asyncio.sleep(LONG)


async def blocks_in_a_shutdown_callback(ctx: JobContext) -> None:
    def block(reason: str) -> None:
        say("asked", reason=reason)
        time.sleep(LONG)

    ctx.add_shutdown_callback(block)
    say("entered", room=ctx.room.name)
    await asyncio.sleep(LONG)


def sleeps_plainly(ctx: JobContext) -> None:
    ctx.add_shutdown_callback(lambda reason: say("cleaned up", reason=reason))
    say("entered", room=ctx.room.name)
    time.sleep(LONG)


def swallows_plainly(ctx: JobContext) -> None:
    wait_swallowing(time.sleep, LONG, room=ctx.room.name)


def wait_swallowing(wait: Callable[..., object], *arguments: float, room: str) -> None:
    entered = False
    while True:
        try:
            # In here: the exception may come the moment the test has read this.
            if not entered:
                say("entered", room=room)
                entered = True
            wait(*arguments)
        except BaseException:  # noqa: BLE001 - it swallows everything: that is its fault
            pass


def stuck_with_the_gil_plainly(ctx: JobContext) -> None:
    wait_swallowing(ctypes.PyDLL(None).pause, room=ctx.room.name)


def stops_itself(ctx: JobContext) -> None:
    say("entered", room=ctx.room.name)
    os.kill(os.getpid(), signal.SIGSTOP)


def hangs_at_exit(ctx: JobContext) -> None:
    atexit.register(hang_at_exit)
    say("entered", room=ctx.room.name)


def left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.monotonic()


# Plain, and returns the coroutine of an async job: so one entrypoint is both.
def entrypoint(ctx: JobContext) -> Any:
    return globals()[ctx.room.name.partition("/")[0]](ctx)


# ── hooks ────────────────────────────────────────────────────────────────────


def hang_at_exit() -> None:
    say("at exit")
    time.sleep(LONG)


def setup_hangs(proc: JobProcess) -> None:
    say("warming")
    time.sleep(LONG)


def setup_hangs_but_once(proc: JobProcess) -> None:
    try:
        Path(CONFIG["reports"] + ".first").touch(exist_ok=False)
    except FileExistsError:
        setup_hangs(proc)


def setup_hangs_at_exit(proc: JobProcess) -> None:
    atexit.register(hang_at_exit)


def preload_hangs(proc: JobProcess) -> None:
    say("preloading")
    time.sleep(LONG)


async def session_ends(ctx: JobContext) -> None:
    say("session end", room=ctx.room.name)


answer = asyncio.Event()


async def answers_when_told(request: JobRequest) -> None:
    if request.room.name.endswith("/slowly"):
        say("asked for a job")
        await answer.wait()
    await request.accept()


# ── the server ───────────────────────────────────────────────────────────────


class Commands:
    """What the test may ask for, a line each: ``submit ROOM``, ``answer``, ``drain SECONDS``, ``block``, ``aclose``."""

    def __init__(self, server: AgentServer) -> None:
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()

    def read(self) -> None:
        for line in os.read(0, 4096).decode().splitlines():
            self.do(line)
        # Standard input stays readable at its end; nobody sends commands then.

    def do(self, line: str) -> None:
        name, _, argument = line.partition(" ")
        task = asyncio.ensure_future(getattr(self, name)(argument))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def submit(self, room: str) -> None:
        try:
            handles = await self._server.submit_job(room=room)
        except NotAdmitted as exc:
            say("not admitted", room=room, reason=exc.reason)
            return
        say("accepted", room=room)
        outcome = await handles[0].wait()
        say("ended", room=room, status=outcome.status.value, reason=outcome.reason)

    async def finish(self) -> None:
        """Let those report that wait for the server's end."""
        await asyncio.wait_for(asyncio.gather(*self._tasks), 10)

    async def answer(self, argument: str) -> None:
        answer.set()

    async def drain(self, seconds: str) -> None:
        say("drain returned", status=await self._server.drain(float(seconds)))

    async def block(self, argument: str) -> None:
        say("blocking")
        time.sleep(LONG)

    async def aclose(self, argument: str) -> None:
        await self._server.aclose()
        say("aclose returned")


def hook(name: str) -> Callable[..., Any] | None:
    found = CONFIG["hooks"].get(name)
    return None if found is None else globals()[found]


async def serve() -> int:
    server = AgentServer(
        setup_fnc=hook("setup_fnc"), preload_fnc=hook("preload_fnc"), **CONFIG["options"]
    )
    server.rtc_session(
        entrypoint, on_request=hook("on_request"), on_session_end=hook("on_session_end")
    )
    commands = Commands(server)

    def started(event: object) -> None:
        say("started")
        for room in CONFIG["rooms"]:
            commands.do(f"submit {room}")

    server.on("started", started)
    server.on("worker_warm", lambda event: say("worker warm", worker=event.pid))
    server.on("draining", lambda event: say("draining", remaining=event.remaining))
    server.on(
        "worker_exited",
        lambda event: say(
            "worker exited", worker=event.pid, how=str(event.exit), jobs=event.jobs_served
        ),
    )
    if not os.isatty(0):
        asyncio.get_running_loop().add_reader(0, commands.read)
    status = await server.run()
    await commands.finish()
    return status


if __name__ == "__main__":
    # Without it an interrupt that comes before the server listens would be an error of the test.
    say("up")
    # Into the file that a failing test shows.
    logging.basicConfig(level=logging.DEBUG, format="%(relativeCreated)d %(name)s %(message)s")
    sys.exit(asyncio.run(serve()))
