"""Going down, step by step, with real server processes and real signals."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor import (
    AgentServer,
    JobContext,
    JobStatus,
    PoolClosed,
    ProcessPool,
    get_job_context,
)
from tests.integration import jobs
from tests.integration.conftest import PATIENCE, children, soon, wait_until
from tests.integration.reports import Report, Reports, reports_in

ROOT = Path(__file__).parents[2]

# Long enough to be told from a deadline that was kept.
NEVER = 3600.0

# From the deadline to the exit never more than the grace and this, whatever the jobs do.
BEYOND_GRACE = 0.5


class Served:
    """One server process.

    Args:
        reports: where it and its jobs report.
        rooms: jobs to submit when it has started.
        hooks: names of functions in the script, by what they are for.
        options: the server's.
    """

    def __init__(
        self,
        reports: Reports,
        rooms: tuple[str, ...],
        hooks: dict[str, str],
        options: dict[str, Any],
        terminal: int | None = None,
    ) -> None:
        self.reports = reports
        config = {"reports": reports.say.path, "rooms": rooms, "hooks": hooks, "options": options}
        log = Path(reports.say.path).with_name("log")
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.children.drain_server", json.dumps(config)],
                cwd=ROOT,
                env={**os.environ, "GREENROOM_SOCKET": reports.say.path + ".sock"},
                stdin=subprocess.PIPE if terminal is None else terminal,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=None if terminal is None else _take_terminal,
            )
        self.pid = self.process.pid
        self.log = log

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def signal(self, number: int = signal.SIGTERM) -> None:
        os.kill(self.pid, number)

    def begin_drain(self) -> Report:
        """Send SIGTERM and return the report that the drain began."""
        self.signal()
        return self.reports.wait_for("draining")

    def wait(self) -> int:
        """Return the exit status."""
        pidfd = os.pidfd_open(self.pid)
        try:
            ended = select.select([pidfd], [], [], PATIENCE)[0]
            self.ended_at = time.monotonic()
            assert ended, f"it does not end; its log:\n{self.log.read_text()}"
        finally:
            os.close(pidfd)
        return self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            # The test has failed: this is shown with it.
            print(self.log.read_text())
            self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def reports(leaves_nothing: None, tmp_path: Path) -> Iterator[Reports]:
    with reports_in(tmp_path) as opened:
        yield opened


Serve = Callable[..., Served]


@pytest.fixture
def serve(reports: Reports) -> Iterator[Serve]:
    """Return what starts a server; wait for it to have started unless told otherwise."""
    served = []

    def start(
        *rooms: str,
        hooks: dict[str, str] | None = None,
        wait: bool = True,
        terminal: int | None = None,
        **options: Any,
    ) -> Served:
        options = {
            "port": None,
            "num_idle_processes": 1,
            # This machine may be busy with other things than our jobs.
            "load_threshold": 1e9,
            "drain_timeout": NEVER,
            **options,
        }
        served.append(Served(reports, rooms, hooks or {}, options, terminal))
        if wait:
            reports.wait_for("started")
            for room in rooms:
                reports.wait_for("entered", room=room)
        return served[-1]

    yield start
    for each in served:
        each.close()


# ── 1, 2: jobs may end by themselves ─────────────────────────────────────────


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_an_idle_server_exits_with_0_at_once(serve: Serve, number: int) -> None:
    server = serve()
    server.signal(number)
    assert server.wait() == 0


def test_jobs_that_end_by_themselves_mean_status_0(serve: Serve, reports: Reports) -> None:
    server = serve("ends_when_told", drain_timeout=100)
    assert server.begin_drain()["remaining"] == 100
    told = reports.wait_for("told")
    assert server.wait() == 0
    assert reports.wait_for("ended", room="ends_when_told")["status"] == "succeeded"
    assert told["draining"]
    assert told["same"]
    assert 0 < told["left"] <= 100


def test_a_plain_job_is_told_in_a_thread(serve: Serve, reports: Reports) -> None:
    server = serve("ends_when_told_plainly")
    server.begin_drain()
    assert server.wait() == 0
    assert reports.wait_for("ended")["status"] == "succeeded"


def test_without_a_deadline_jobs_go_on_until_they_end(serve: Serve, reports: Reports) -> None:
    server = serve("ends_when_told", "ends_when_released", drain_timeout=None)
    assert server.begin_drain()["remaining"] is None
    assert reports.wait_for("told")["left"] is None
    reports.wait_for("ended", room="ends_when_told")
    os.kill(reports.wait_for("entered", room="ends_when_released")["pid"], signal.SIGUSR1)
    assert server.wait() == 0


def test_a_draining_server_admits_nothing_and_says_why(serve: Serve, reports: Reports) -> None:
    server = serve("ends_when_released")
    server.begin_drain()
    server.tell("submit ends")
    assert reports.wait_for("not admitted")["reason"] == "draining"
    os.kill(reports.wait_for("entered")["pid"], signal.SIGUSR1)
    assert server.wait() == 0


def test_accepted_jobs_that_wait_for_a_worker_still_start(serve: Serve, reports: Reports) -> None:
    server = serve("ends_when_released", max_processes=1)
    for number in (1, 2):
        server.tell(f"submit ends/{number}")
        reports.wait_for("accepted", room=f"ends/{number}")
    server.begin_drain()
    assert not reports.of("entered", room="ends/1")
    os.kill(reports.wait_for("entered")["pid"], signal.SIGUSR1)
    assert server.wait() == 0
    assert {each["room"]: each["status"] for each in reports.of("ended")} == {
        "ends_when_released": "succeeded",
        "ends/1": "succeeded",
        "ends/2": "succeeded",
    }


def test_a_job_that_starts_during_the_drain_knows_of_it(serve: Serve, reports: Reports) -> None:
    server = serve("ends_when_released", max_processes=1, drain_timeout=100)
    server.tell("submit ends_when_told")
    reports.wait_for("accepted", room="ends_when_told")
    draining = server.begin_drain()
    os.kill(reports.wait_for("entered")["pid"], signal.SIGUSR1)
    assert server.wait() == 0
    assert reports.wait_for("entered", room="ends_when_told")["draining"]
    told = reports.wait_for("told")
    # The same moment for whoever hears of it late.
    assert draining["at"] + 100 == pytest.approx(told["at"] + told["left"], abs=1.0)


def test_a_request_that_is_being_answered_is_waited_for(serve: Serve, reports: Reports) -> None:
    server = serve(hooks={"on_request": "answers_when_told"})
    server.tell("submit ends/slowly")
    reports.wait_for("asked for a job")
    server.begin_drain()
    server.tell("answer")
    assert server.wait() == 0
    assert reports.wait_for("ended", room="ends/slowly")["status"] == "succeeded"


def test_idle_workers_stop_at_once(serve: Serve, reports: Reports) -> None:
    server = serve("ends_when_released", num_idle_processes=2)
    reports.wait_for("worker warm", 3)  # one of which has the job
    server.begin_drain()
    for count in (1, 2):
        gone = reports.wait_for("worker exited", count)
        assert gone["jobs"] == 0
    assert not reports.of("ended")
    os.kill(reports.wait_for("entered")["pid"], signal.SIGUSR1)
    assert server.wait() == 0


def test_warming_workers_stop_at_once(serve: Serve, reports: Reports) -> None:
    server = serve("ends_when_released", hooks={"setup_fnc": "setup_hangs_but_once"})
    warming = reports.wait_for("warming")
    server.begin_drain()
    gone = reports.wait_for("worker exited")
    assert (gone["worker"], gone["how"]) == (warming["pid"], "killed by SIGKILL")
    os.kill(reports.wait_for("entered")["pid"], signal.SIGUSR1)
    assert server.wait() == 0


# ── 3: the deadline ──────────────────────────────────────────────────────────

# What each job is, when nothing but the deadline ends it.
AT_THE_DEADLINE = {
    "cleans_up": {("cancelled", "drain")},
    "ignores_sigterm": {("cancelled", "drain")},
    "sleeps_plainly": {("cancelled", "drain")},
    "swallows_cancelled": {("cancelled", "drain")},  # the session is closed over it
    "swallows_plainly": {("killed", "grace")},
    "blocks_the_loop": {("killed", "grace")},
    "stuck_in_c": {("killed", "grace")},
    "stuck_with_the_gil": {("killed", "grace")},
    "stuck_with_the_gil_plainly": {("killed", "grace")},
    "stops_itself": {("killed", "grace")},
    "blocks_in_a_shutdown_callback": {("killed", "grace")},
    # Cancelled at the end of the grace, which is when it is killed as well.
    "hangs_in_a_shutdown_callback": {("cancelled", "drain"), ("killed", "grace")},
}


# One of each kind; the next test has all of them.
@pytest.mark.parametrize(
    "room",
    [
        pytest.param("cleans_up", id="a job that cleans up"),
        pytest.param("swallows_cancelled", id="a job that swallows CancelledError"),
        pytest.param("blocks_the_loop", id="a job that blocks its loop"),
        pytest.param("stuck_with_the_gil_plainly", id="a job that is stuck in C with the GIL"),
        pytest.param("blocks_in_a_shutdown_callback", id="a shutdown callback that blocks"),
    ],
)
def test_from_the_deadline_to_the_exit_it_takes_no_longer_than_the_grace(
    serve: Serve, reports: Reports, room: str
) -> None:
    server = serve(room, drain_timeout=0.1, shutdown_process_timeout=0.4)
    deadline = server.begin_drain()["at"] + 0.1
    assert server.wait() == 124
    assert server.ended_at - deadline <= 0.4 + BEYOND_GRACE
    ended = reports.wait_for("ended")
    assert (ended["status"], ended["reason"]) in AT_THE_DEADLINE[room]


def test_all_of_them_together_take_no_longer(serve: Serve, reports: Reports) -> None:
    server = serve(*AT_THE_DEADLINE, drain_timeout=0.1, shutdown_process_timeout=1.0)
    deadline = server.begin_drain()["at"] + 0.1
    assert server.wait() == 124
    assert server.ended_at - deadline <= 1.0 + BEYOND_GRACE
    ended = {each["room"]: (each["status"], each["reason"]) for each in reports.of("ended")}
    assert all(ended[room] in expected for room, expected in AT_THE_DEADLINE.items()), ended


def test_shutdown_callbacks_and_the_sessions_end_run_at_the_deadline(
    serve: Serve, reports: Reports
) -> None:
    server = serve("cleans_up", hooks={"on_session_end": "session_ends"}, drain_timeout=0.0)
    server.begin_drain()
    assert server.wait() == 124
    assert reports.wait_for("cleaned up")["reason"] == "drain"
    assert reports.wait_for("session end")["room"] == "cleans_up"


def test_a_drain_timeout_of_0_asks_at_once(serve: Serve, reports: Reports) -> None:
    server = serve("cleans_up", drain_timeout=0)
    assert server.begin_drain()["remaining"] == 0
    assert server.wait() == 124
    assert reports.wait_for("cleaned up")["reason"] == "drain"


def test_a_drain_timeout_of_0_without_jobs_means_status_0(serve: Serve) -> None:
    server = serve(drain_timeout=0)
    server.begin_drain()
    assert server.wait() == 0


def test_jobs_that_still_wait_at_the_deadline_are_cancelled(serve: Serve, reports: Reports) -> None:
    server = serve("cleans_up", max_processes=1, drain_timeout=0)
    server.tell("submit ends")
    reports.wait_for("accepted", room="ends")
    server.begin_drain()
    assert server.wait() == 124
    ended = reports.wait_for("ended", room="ends")
    assert (ended["status"], ended["reason"]) == ("cancelled", "drain")


def test_a_request_that_is_being_answered_at_the_deadline_is_refused(
    serve: Serve, reports: Reports
) -> None:
    server = serve(hooks={"on_request": "answers_when_told"}, drain_timeout=0)
    server.tell("submit ends/slowly")
    reports.wait_for("asked for a job")
    server.begin_drain()
    assert server.wait() == 0, "there was no job to stop"
    assert not reports.of("entered")


def test_a_job_that_hangs_at_its_exit_has_the_grace_for_it(serve: Serve, reports: Reports) -> None:
    server = serve("hangs_at_exit", shutdown_process_timeout=0.4)
    reports.wait_for("at exit")
    server.signal()
    assert server.wait() == 0
    assert reports.wait_for("ended")["status"] == "succeeded"


# ── 4: more signals ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_second_signal_asks_now(serve: Serve, reports: Reports, number: int) -> None:
    server = serve("cleans_up", drain_timeout=None)
    server.begin_drain()
    server.signal(number)
    assert server.wait() == 128 + number
    assert reports.wait_for("cleaned up")["reason"] == "drain"


def test_a_second_signal_leaves_the_grace_to_whoever_needs_it(
    serve: Serve, reports: Reports
) -> None:
    server = serve("stuck_in_c", drain_timeout=None, shutdown_process_timeout=0.4)
    server.begin_drain()
    server.signal()
    sent = time.monotonic()
    assert server.wait() == 128 + signal.SIGTERM
    assert 0.4 <= server.ended_at - sent <= 0.4 + BEYOND_GRACE
    assert reports.wait_for("ended")["reason"] == "grace"


def test_a_third_signal_kills_now(serve: Serve, reports: Reports) -> None:
    server = serve("hangs_in_a_shutdown_callback", shutdown_process_timeout=NEVER)
    server.begin_drain()
    server.signal(signal.SIGINT)
    assert reports.wait_for("asked")["reason"] == "drain"
    server.signal(signal.SIGTERM)
    assert server.wait() == 128 + signal.SIGTERM
    ended = reports.wait_for("ended")
    assert (ended["status"], ended["reason"]) == ("killed", "drain")


def test_who_insists_ends_a_server_whose_loop_is_blocked_and_is_told_by_what(
    serve: Serve, reports: Reports
) -> None:
    server = serve("ends_when_released")
    server.tell("block")
    reports.wait_for("blocking")

    def insist() -> bool:
        server.signal()
        return "the event loop has been blocked" in server.log.read_text()

    wait_until(insist)
    server.signal()
    assert server.wait() == 128 + signal.SIGTERM
    assert "time.sleep(LONG)" in server.log.read_text()
    # The fork server ends the job, which is what the check for leftovers looks at.


def test_signals_reach_exit_hooks_that_hang_when_no_job_is_left(
    serve: Serve, reports: Reports
) -> None:
    server = serve(hooks={"setup_fnc": "setup_hangs_at_exit"}, shutdown_process_timeout=NEVER)
    server.begin_drain()
    reports.wait_for("at exit")
    # The second one has nobody to ask: whoever is left was asked already.
    for number in (signal.SIGINT, signal.SIGTERM):
        server.signal(number)
    # Which of two pending signals is delivered first is the kernel's choice.
    assert server.wait() in (128 + signal.SIGTERM, 128 + signal.SIGINT)


# ── signals at other times and from elsewhere ────────────────────────────────


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize(
    ("hooks", "report"),
    [
        pytest.param({"setup_fnc": "setup_hangs"}, "warming", id="while workers warm up"),
        pytest.param({"preload_fnc": "preload_hangs"}, "preloading", id="while it preloads"),
    ],
)
def test_a_signal_ends_a_start_at_once(
    serve: Serve, reports: Reports, hooks: dict[str, str], report: str, number: int
) -> None:
    server = serve(
        hooks=hooks, wait=False, initialize_process_timeout=NEVER, shutdown_process_timeout=NEVER
    )
    reports.wait_for(report)
    server.signal(number)
    sent = time.monotonic()
    assert server.wait() == 0
    # Nobody has a claim to any grace.
    assert server.ended_at - sent < 2.0
    assert not reports.of("started")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_to_the_whole_group_does_not_hit_the_jobs(
    serve: Serve, reports: Reports, number: int
) -> None:
    server = serve("ends_when_released")
    os.killpg(server.pid, number)
    reports.wait_for("draining")
    os.kill(reports.wait_for("entered")["pid"], signal.SIGUSR1)
    assert server.wait() == 0
    assert reports.wait_for("ended")["status"] == "succeeded"


def test_a_signal_to_every_process_of_the_unit_does_not_end_the_jobs(
    serve: Serve, reports: Reports
) -> None:
    server = serve("ends_when_released")
    for process in children():
        process.send_signal(signal.SIGTERM)
    reports.wait_for("draining")
    os.kill(reports.wait_for("entered")["pid"], signal.SIGUSR1)
    assert server.wait() == 0
    assert reports.wait_for("ended")["status"] == "succeeded"


def test_control_c_on_the_terminal_drains_and_does_not_hit_the_jobs(
    serve: Serve, reports: Reports
) -> None:
    ours, theirs = pty.openpty()
    try:
        server = serve("ends_when_released", terminal=theirs)
        os.write(ours, b"\x03")
        reports.wait_for("draining")
        os.kill(reports.wait_for("entered")["pid"], signal.SIGUSR1)
        assert server.wait() == 0
        assert reports.wait_for("ended")["status"] == "succeeded"
    finally:
        os.close(ours)
        os.close(theirs)


# ── by hand ──────────────────────────────────────────────────────────────────


def test_drain_by_hand_waits_for_the_jobs_and_returns_the_status(
    serve: Serve, reports: Reports
) -> None:
    server = serve("ends_when_told", drain_timeout=0)
    server.tell("drain 3600")
    assert server.wait() == 0
    assert reports.wait_for("draining")["remaining"] == 3600
    assert reports.wait_for("ended")["status"] == "succeeded"
    assert reports.wait_for("drain returned")["status"] == 0


def test_drain_by_hand_has_a_deadline_of_its_own(serve: Serve, reports: Reports) -> None:
    server = serve("cleans_up")
    server.tell("drain 0")
    assert server.wait() == 124
    assert reports.wait_for("drain returned")["status"] == 124


def test_aclose_asks_at_once(serve: Serve, reports: Reports) -> None:
    server = serve("cleans_up")
    server.tell("aclose")
    assert server.wait() == 124
    assert reports.wait_for("cleaned up")["reason"] == "drain"
    reports.wait_for("aclose returned")


def test_aclose_cuts_a_drain_short(serve: Serve, reports: Reports) -> None:
    server = serve("cleans_up")
    server.begin_drain()
    server.tell("aclose")
    assert server.wait() == 124
    assert reports.wait_for("cleaned up")["reason"] == "drain"


# ── inside another program ───────────────────────────────────────────────────

HANDLED = (signal.SIGTERM, signal.SIGINT)


def handler(number: int, frame: object) -> None:
    """The host program's own."""


@pytest.fixture
def hosts_handlers() -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in HANDLED}
    yield
    for number, was in before.items():
        signal.signal(number, was)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in HANDLED]


@pytest.mark.usefixtures("hosts_handlers")
async def test_an_embedded_pool_touches_no_handler() -> None:
    async with ProcessPool(num_idle_processes=1) as pool:
        assert handlers() == [handler, handler]
        assert await soon(pool.submit(jobs.double, 2)) == 4
        assert handlers() == [handler, handler]
    assert handlers() == [handler, handler]


@pytest.mark.usefixtures("hosts_handlers")
async def test_a_pool_that_was_asked_to_handles_signals_and_puts_the_handlers_back(
    reports: Reports,
) -> None:
    def ends_when_told(say: Callable[..., None]) -> str:
        told = threading.Event()
        get_job_context().add_drain_callback(told.set)
        say("entered")
        told.wait(NEVER)
        return "ended by itself"

    async with ProcessPool(num_idle_processes=1, handle_signals=True) as pool:
        assert handler not in handlers()
        handle = pool.submit(ends_when_told, reports.say)
        await reports.seen("entered")
        os.kill(os.getpid(), signal.SIGTERM)
        assert await soon(handle) == "ended by itself"
        with pytest.raises(PoolClosed):
            pool.submit(jobs.double, 2)
    assert handlers() == [handler, handler]


@pytest.mark.usefixtures("hosts_handlers")
async def test_more_signals_to_a_pool_ask_and_then_kill(reports: Reports) -> None:
    def swallow(say: Callable[..., None]) -> None:
        while True:
            try:
                # In here: the exception may come the moment the test has read this.
                say("entered")
                time.sleep(NEVER)
            except BaseException as exc:  # noqa: BLE001 - it swallows everything: that is its fault
                say("asked", error=type(exc).__name__)

    draining: list[object] = []
    async with ProcessPool(
        num_idle_processes=1, handle_signals=True, shutdown_process_timeout=NEVER
    ) as pool:
        pool.on("draining", draining.append)
        handle = pool.submit(swallow, reports.say)
        await reports.seen("entered")
        os.kill(os.getpid(), signal.SIGINT)
        await wait_for_it(lambda: bool(draining))
        os.kill(os.getpid(), signal.SIGINT)
        assert (await reports.seen("asked"))["error"] == "JobCancelled"
        os.kill(os.getpid(), signal.SIGINT)
        outcome = await soon(handle.wait())
        assert (outcome.status, outcome.reason) == (JobStatus.KILLED, "drain")
    assert handlers() == [handler, handler]


@pytest.mark.usefixtures("hosts_handlers")
async def test_a_signal_while_a_pool_starts_ends_the_start(reports: Reports) -> None:
    say = reports.say

    def setup(proc: object) -> None:
        say("warming")
        time.sleep(NEVER)

    pool = ProcessPool(
        num_idle_processes=1,
        setup_fnc=setup,
        handle_signals=True,
        initialize_process_timeout=NEVER,
    )
    starting = asyncio.ensure_future(pool.start())
    await reports.seen("warming")
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(PoolClosed):
        await soon(starting)
    assert handlers() == [handler, handler]


@pytest.mark.usefixtures("hosts_handlers")
async def test_handlers_are_put_back_when_a_pool_does_not_start() -> None:
    def setup(proc: object) -> None:
        raise ValueError("no model")

    pool = ProcessPool(num_idle_processes=1, setup_fnc=setup, handle_signals=True)
    with pytest.raises(Exception, match="no model"):
        await soon(pool.start())
    assert handlers() == [handler, handler]


def a_server(**options: Any) -> AgentServer:
    server = AgentServer(port=None, num_idle_processes=1, **options)

    @server.rtc_session()
    def entrypoint(ctx: JobContext) -> None: ...

    return server


@pytest.fixture
def private_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GREENROOM_SOCKET", str(tmp_path / "control.sock"))


@pytest.mark.usefixtures("hosts_handlers", "private_socket")
async def test_a_server_puts_back_the_handlers_that_were_there() -> None:
    server = a_server()
    server.on("started", lambda event: os.kill(os.getpid(), signal.SIGTERM))
    assert await soon(server.run()) == 0
    assert handlers() == [handler, handler]


@pytest.mark.usefixtures("hosts_handlers", "private_socket")
async def test_a_server_outside_the_main_thread_leaves_signals_alone() -> None:
    status: list[int] = []
    seen: list[object] = []
    server = a_server()

    def started(event: object) -> None:
        seen.extend(handlers())
        server.begin_drain()

    server.on("started", started)
    thread = threading.Thread(target=lambda: status.append(asyncio.run(server.run())))
    thread.start()
    await asyncio.get_running_loop().run_in_executor(None, thread.join, PATIENCE)
    assert status == [0]
    assert seen == handlers() == [handler, handler]
    await asyncio.get_running_loop().shutdown_default_executor()


@pytest.mark.usefixtures("private_socket")
async def test_a_server_says_why_it_takes_no_job_from_its_start_to_its_end() -> None:
    said: list[str | None] = []
    server = a_server(load_threshold=float("inf"))
    said.append(server.not_ready())

    def started(event: object) -> None:
        said.append(server.not_ready())
        server.begin_drain()
        said.append(server.not_ready())

    server.on("started", started)
    assert await soon(server.run()) == 0
    assert [*said, server.not_ready()] == ["starting", None, "draining", "gone"]


@pytest.mark.usefixtures("private_socket")
async def test_a_cancelled_run_leaves_nothing() -> None:
    server = a_server()
    started = asyncio.Event()
    server.on("started", lambda event: started.set())
    running = asyncio.ensure_future(server.run())
    await soon(started.wait())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(running)


@pytest.mark.parametrize("moment", [0.0, 0.005, 0.05, 0.2], ids="after {} s".format)
async def test_a_start_that_is_cancelled_leaves_nothing(moment: float) -> None:
    """The pause is no wait for anything: it chooses where in the start the cancellation hits."""
    pool = ProcessPool(num_idle_processes=2)
    starting = asyncio.ensure_future(pool.start())
    await asyncio.sleep(moment)
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await soon(starting)
        await pool.aclose()  # it was quicker than the cancellation


async def wait_for_it(condition: Callable[[], bool]) -> None:
    """Return once *condition* holds, which a callback on this loop makes true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
