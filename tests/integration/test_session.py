"""What a job of a server sees, and what becomes of it."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import multiprocessing
import multiprocessing.resource_tracker
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import multiprocess
import psutil
import pytest

from supervisor import (
    AgentServer,
    JobCancelled,
    JobContext,
    JobExecutorType,
    JobHandle,
    JobProcess,
    JobRequest,
    JobStatus,
    NotAdmitted,
    Participant,
    PayloadTooLarge,
    ProcessPool,
    ResourceLimits,
    ServerType,
    get_job_context,
)
from tests.integration import jobs
from tests.integration.conftest import soon, wait_until
from tests.integration.reports import Reports, reports_in
from tests.integration.serving import run_job, serving
from tests.integration.watch import until

# Longer than any test.
LONG = 3600.0


@pytest.fixture
def reports(leaves_nothing: None, tmp_path: Path) -> Iterator[Reports]:
    with reports_in(tmp_path) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _private_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GREENROOM_SOCKET", str(tmp_path / "control.sock"))


@pytest.fixture(scope="session")
def _tracker() -> None:
    """The standard library's helper process, there before the first snapshot."""
    multiprocessing.resource_tracker.ensure_running()


# ── what it is told ──────────────────────────────────────────────────────────


async def test_what_was_passed_to_accept_reaches_the_job_whole(reports: Reports) -> None:
    say = reports.say

    async def on_request(request: JobRequest) -> None:
        await request.accept(
            name="Agent Ü",
            identity="agent-7",
            metadata="m" * 500,
            attributes={"tier": "vip", "": ""},
        )

    async def entrypoint(ctx: JobContext) -> None:
        given = ctx.accept_arguments
        say("given", name=given.name, identity=given.identity, metadata=given.metadata,
            attributes=given.attributes, agent=ctx.agent.identity, tier=ctx.agent.attributes["tier"])  # fmt: skip

    async with serving(entrypoint, on_request=on_request) as server:
        assert (await run_job(server)).status is JobStatus.SUCCEEDED
    (given,) = reports.of("given")
    assert given["name"] == "Agent Ü"
    assert given["identity"] == given["agent"] == "agent-7"
    assert given["metadata"] == "m" * 500
    assert given["attributes"] == {"tier": "vip", "": ""}
    assert given["tier"] == "vip"


async def test_the_job_knows_its_room_its_server_and_its_process(reports: Reports) -> None:
    say = reports.say

    def setup(proc: JobProcess) -> None:
        proc.userdata["model"] = f"warmed in {proc.pid}"

    async def entrypoint(ctx: JobContext) -> None:
        await ctx.connect()
        say(
            "seen",
            job=ctx.job.id,
            room=ctx.room.name,
            metadata=ctx.job.metadata,
            agent_name=ctx.job.agent_name,
            identity=ctx.agent.identity,
            server=ctx.worker_id,
            fake=ctx.is_fake_job(),
            claims=ctx.token_claims(),
            model=ctx.proc.userdata["model"],
            executor=ctx.proc.executor_type is JobExecutorType.PROCESS,
            arguments=ctx.proc.user_arguments,
            proxy=ctx.proc.http_proxy,
        )

    async with serving(
        entrypoint,
        agent_name="greeter",
        setup_fnc=setup,
        user_arguments={"voice": ["low", 1]},
        http_proxy="http://proxy:3128",
    ) as server:
        (handle,) = await server.submit_job(room="studio", metadata="hello", job_id="J-17")
        outcome = await soon(handle.wait())
        identity = server.id
    (seen,) = reports.of("seen")
    expected = {
        "job": "J-17",
        "room": "studio",
        "metadata": "hello",
        "agent_name": "greeter",
        "identity": "agent-J-17",
        "server": identity,
        "fake": True,
        "claims": {},
        "model": f"warmed in {outcome.pid}",
        "executor": True,
        "arguments": {"voice": ["low", 1]},
        "proxy": "http://proxy:3128",
    }
    assert {name: seen[name] for name in expected} == expected


async def test_a_job_without_metadata_has_empty_metadata(reports: Reports) -> None:
    say = reports.say

    def entrypoint(ctx: JobContext) -> None:
        say("seen", metadata=ctx.job.metadata, room=ctx.room.metadata, publisher=ctx.publisher)

    async with serving(entrypoint) as server:
        await run_job(server)
    (seen,) = reports.of("seen")
    assert (seen["metadata"], seen["room"], seen["publisher"]) == ("", "", None)


async def test_a_publisher_server_runs_one_job_for_each_publisher(reports: Reports) -> None:
    say = reports.say

    async def entrypoint(ctx: JobContext) -> None:
        await ctx.connect()
        person = await ctx.wait_for_participant()
        assert ctx.publisher is not None
        say("seen", publisher=ctx.publisher.identity, same=person == ctx.publisher)

    async with serving(entrypoint, type=ServerType.PUBLISHER) as server:
        handles = await server.submit_job(room="studio", publishers=["ada", "bob"], job_id="J")
        assert [handle.id for handle in handles] == ["J-1", "J-2"]
        for handle in handles:
            assert (await soon(handle.wait())).status is JobStatus.SUCCEEDED
    seen = reports.of("seen")
    assert {each["publisher"] for each in seen} == {"ada", "bob"}
    assert all(each["same"] for each in seen)
    assert len({each["pid"] for each in seen}) == 2


async def test_a_caller_that_leaves_while_it_is_asked_about_takes_no_place() -> None:
    asked = asyncio.Event()

    async def on_request(request: JobRequest) -> None:
        if request.publisher is not None and request.publisher.identity == "bob":
            asked.set()
            await asyncio.Event().wait()
        await request.accept()

    async with serving(
        lambda ctx: None, type=ServerType.PUBLISHER, on_request=on_request
    ) as server:
        caller = asyncio.ensure_future(
            server.submit_job(room="studio", publishers=["ada", "bob", "eve"])
        )
        await soon(asked.wait())
        assert len(server.active_jobs) == 2  # ada has a place, bob's is asked for
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(caller)
        assert server.active_jobs == []
        assert await soon(server.drain(None)) == 0  # nobody is waited for


async def test_if_one_of_several_jobs_cannot_be_started_none_of_them_begins() -> None:
    seen: list[JobHandle[Any]] = []
    large = Participant("bob", metadata="x" * 100_000)
    async with serving(sleeps_for_ever, type=ServerType.PUBLISHER, max_payload_mb=0.05) as server:
        server.on("job_started", seen.append)
        server.on("job_ended", seen.append)
        with pytest.raises(PayloadTooLarge, match="max_payload_mb"):
            await soon(server.submit_job(room="studio", publishers=["ada", large, "eve"]))
        assert server.active_jobs == []
        assert (server.stats().total_jobs, server.stats().waiting) == (0, 0)
    assert seen == []


async def sleeps_for_ever(ctx: JobContext) -> None:
    await asyncio.Event().wait()


async def test_the_context_is_found_from_threads_tasks_and_callbacks(reports: Reports) -> None:
    say = reports.say

    async def entrypoint(ctx: JobContext) -> None:
        def tell(where: str) -> None:
            say("found", where=where, same=get_job_context() is ctx)

        async def task() -> None:
            tell("task")

        ctx.add_shutdown_callback(lambda: tell("callback"))
        thread = threading.Thread(target=tell, args=("thread",))
        thread.start()
        thread.join()
        await asyncio.create_task(task())

    async with serving(entrypoint) as server:
        await run_job(server)
    found = reports.of("found")
    assert [each["where"] for each in found] == ["thread", "task", "callback"]
    assert all(each["same"] for each in found)


def test_there_is_no_context_outside_a_job() -> None:
    with pytest.raises(RuntimeError, match="no job runs in this process"):
        get_job_context()


# ── how it ends ──────────────────────────────────────────────────────────────


def plainly_or_not(body: Callable[[JobContext], object], is_async: bool) -> Callable[..., Any]:
    """Return *body* as a plain or an async entrypoint."""

    def plain(ctx: JobContext) -> None:
        body(ctx)

    async def coroutine(ctx: JobContext) -> None:
        body(ctx)

    return coroutine if is_async else plain


plain_and_async = pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])


@plain_and_async
@pytest.mark.parametrize(
    ("code", "status"),
    [
        pytest.param(None, JobStatus.SUCCEEDED, id="without a code succeeds"),
        pytest.param(0, JobStatus.SUCCEEDED, id="with 0 succeeds"),
        pytest.param(3, JobStatus.FAILED, id="with 3 fails"),
        pytest.param("no such room", JobStatus.FAILED, id="with a text fails"),
    ],
)
async def test_sys_exit_ends_the_job_and_its_callbacks_run(
    reports: Reports, code: object, status: JobStatus, is_async: bool
) -> None:
    say = reports.say

    def body(ctx: JobContext) -> None:
        ctx.add_shutdown_callback(lambda: say("callback"))
        sys.exit(code)  # type: ignore[arg-type]

    async def on_session_end(ctx: JobContext) -> None:
        say("session end")

    async with serving(plainly_or_not(body, is_async), on_session_end=on_session_end) as server:
        outcome = await run_job(server)
    assert outcome.status is status
    if status is JobStatus.FAILED:
        assert outcome.error is not None
        assert (outcome.error.type, outcome.error.message) == ("SystemExit", str(code))
    assert [each["what"] for each in reports.all] == []
    assert len(reports.of("callback")) == len(reports.of("session end")) == 1


@plain_and_async
async def test_a_keyboard_interrupt_is_an_exception_like_others_and_callbacks_run(
    reports: Reports, is_async: bool
) -> None:
    say = reports.say

    def body(ctx: JobContext) -> None:
        ctx.add_shutdown_callback(lambda: say("callback"))
        raise KeyboardInterrupt

    async def on_session_end(ctx: JobContext) -> None:
        say("session end")

    async with serving(plainly_or_not(body, is_async), on_session_end=on_session_end) as server:
        outcome = await run_job(server)
    assert outcome.status is JobStatus.FAILED
    assert outcome.error is not None
    assert outcome.error.type == "KeyboardInterrupt"
    assert len(reports.of("callback")) == len(reports.of("session end")) == 1


@plain_and_async
async def test_an_entrypoint_that_raises_has_failed_with_its_traceback(
    reports: Reports, is_async: bool
) -> None:
    say = reports.say

    def body(ctx: JobContext) -> None:
        ctx.add_shutdown_callback(lambda: say("callback"))
        raise ValueError("no such room")

    async with serving(plainly_or_not(body, is_async)) as server:
        outcome = await run_job(server)
    assert outcome.status is JobStatus.FAILED
    assert outcome.error is not None
    assert str(outcome.error) == "ValueError: no such room"
    assert "in body" in outcome.error.traceback
    reports.wait_for("callback")


async def test_threads_that_were_left_running_do_not_hold_the_job_up() -> None:
    def entrypoint(ctx: JobContext) -> None:
        threading.Thread(target=time.sleep, args=(LONG,)).start()

    async with serving(entrypoint) as server:
        outcome = await run_job(server)
        assert outcome.status is JobStatus.SUCCEEDED
        assert outcome.pid is not None
        wait_until(lambda: not psutil.pid_exists(outcome.pid or 0))


async def test_shutdown_lets_the_entrypoint_end_by_itself(reports: Reports) -> None:
    say = reports.say

    async def entrypoint(ctx: JobContext) -> None:
        ctx.add_shutdown_callback(lambda reason: say("callback", reason=reason))
        ctx.shutdown("caller hung up")
        ctx.shutdown("a second call does not count")
        await asyncio.sleep(0.01)
        say("ended by itself")

    async with serving(entrypoint, shutdown_process_timeout=30) as server:
        outcome = await run_job(server)
    assert (outcome.status, outcome.reason) == (JobStatus.SUCCEEDED, "caller hung up")
    reports.wait_for("ended by itself")
    assert reports.wait_for("callback")["reason"] == "caller hung up"


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
async def test_after_shutdown_and_the_grace_the_entrypoint_is_cancelled(
    reports: Reports, is_async: bool
) -> None:
    say = reports.say

    def plain(ctx: JobContext) -> None:
        ctx.add_shutdown_callback(lambda reason: say("callback", reason=reason))
        ctx.shutdown("caller hung up")
        time.sleep(LONG)

    async def coroutine(ctx: JobContext) -> None:
        ctx.add_shutdown_callback(lambda reason: say("callback", reason=reason))
        threading.Thread(target=ctx.shutdown, args=("caller hung up",)).start()
        await asyncio.sleep(LONG)

    async with serving(coroutine if is_async else plain, shutdown_process_timeout=0.3) as server:
        outcome = await run_job(server)
    assert (outcome.status, outcome.reason) == (JobStatus.CANCELLED, "caller hung up")
    assert not outcome.asked_to_stop, "it ended its session itself"
    assert reports.wait_for("callback")["reason"] == "caller hung up"


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
async def test_an_entrypoint_that_ignores_its_own_shutdown_is_killed(is_async: bool) -> None:
    def plain(ctx: JobContext) -> None:
        ctx.shutdown("caller hung up")
        while True:
            try:
                time.sleep(LONG)
            except JobCancelled:
                pass

    async def coroutine(ctx: JobContext) -> None:
        ctx.shutdown("caller hung up")
        time.sleep(LONG)

    async with serving(coroutine if is_async else plain, shutdown_process_timeout=0.3) as server:
        outcome = await run_job(server)
    assert outcome.status is JobStatus.KILLED


async def test_callbacks_take_the_reason_or_not_and_may_raise(reports: Reports) -> None:
    say = reports.say

    async def entrypoint(ctx: JobContext) -> None:
        def bare() -> None:
            say("bare")

        def raising(reason: str) -> None:
            raise ValueError("in a callback")

        def exiting() -> None:
            sys.exit(3)

        async def async_raising() -> None:
            raise ValueError("in an async callback")

        async def with_reason(reason: str) -> None:
            await asyncio.sleep(0.01)
            say("with a reason", reason=reason)

        for callback in (raising, exiting, async_raising, bare, with_reason):
            ctx.add_shutdown_callback(callback)
        with pytest.raises(TypeError, match="expected a function to call, got 3"):
            ctx.add_shutdown_callback(3)  # type: ignore[arg-type]

    async with serving(entrypoint) as server:
        outcome = await run_job(server)
    assert outcome.status is JobStatus.SUCCEEDED
    assert reports.wait_for("with a reason")["reason"] == ""
    reports.wait_for("bare")


@plain_and_async
async def test_on_session_end_gets_the_context_after_the_callbacks(
    reports: Reports, is_async: bool
) -> None:
    say = reports.say

    async def entrypoint(ctx: JobContext) -> None:
        ctx.add_shutdown_callback(lambda: say("callback"))

    def body(ctx: JobContext) -> None:
        say("session end", room=ctx.room.name, same=get_job_context() is ctx)

    async with serving(entrypoint, on_session_end=plainly_or_not(body, is_async)) as server:
        outcome = await run_job(server)
    assert outcome.status is JobStatus.SUCCEEDED
    reports.of("")
    assert [each["what"] for each in reports.all] == ["callback", "session end"]
    assert reports.of("session end", room="studio", same=True)


async def test_on_session_end_is_cancelled_at_its_limit_and_the_outcome_stays(
    reports: Reports,
) -> None:
    say = reports.say

    async def entrypoint(ctx: JobContext) -> None: ...

    async def on_session_end(ctx: JobContext) -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            say("cancelled")
            raise

    async with serving(
        entrypoint, on_session_end=on_session_end, session_end_timeout=0.05
    ) as server:
        outcome = await run_job(server)
    assert outcome.status is JobStatus.SUCCEEDED
    reports.wait_for("cancelled")


@pytest.mark.parametrize("how", ["cancel", "drain"])
async def test_an_on_session_end_that_runs_is_cancelled_before_the_grace_is_over(
    reports: Reports, how: str
) -> None:
    say = reports.say

    async def entrypoint(ctx: JobContext) -> None: ...

    async def on_session_end(ctx: JobContext) -> None:
        say("closing")
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            say("cancelled")
            raise

    async with serving(
        entrypoint, on_session_end=on_session_end, shutdown_process_timeout=2.0
    ) as server:
        (handle,) = await server.submit_job(room="studio")
        await asyncio.to_thread(reports.wait_for, "closing")
        if how == "cancel":
            handle.cancel()
        else:
            server.begin_drain(0.0)
        outcome = await soon(handle.wait())
    assert outcome.status is JobStatus.SUCCEEDED, "its session was over"
    assert outcome.asked_to_stop
    assert outcome.exit is None or outcome.exit.signal is None
    reports.wait_for("cancelled")


async def test_one_that_blocks_on_is_killed_with_the_reason() -> None:
    async def entrypoint(ctx: JobContext) -> None: ...

    def on_session_end(ctx: JobContext) -> None:
        time.sleep(LONG)

    async with serving(
        entrypoint,
        on_session_end=on_session_end,
        session_end_timeout=0.05,
        shutdown_process_timeout=0.05,
    ) as server:
        outcome = await run_job(server)
    assert (outcome.status, outcome.reason) == (JobStatus.KILLED, "hung")
    assert outcome.error is not None
    assert "on_session_end did not end within 1.05 s" in outcome.error.message


async def test_a_shutdown_callback_that_blocks_on_does_not_have_the_sessions_end_time() -> None:
    async def entrypoint(ctx: JobContext) -> None:
        ctx.add_shutdown_callback(lambda: time.sleep(LONG))

    async with serving(
        entrypoint,
        on_session_end=lambda ctx: None,
        session_end_timeout=LONG,
        shutdown_process_timeout=0.05,
    ) as server:
        outcome = await run_job(server)
    assert (outcome.status, outcome.reason) == (JobStatus.KILLED, "hung")
    assert outcome.error is not None
    assert "a shutdown callback did not end within 1.05 s" in outcome.error.message


async def test_one_that_swallows_its_cancellation_does_not_hide_the_outcome() -> None:
    started = asyncio.Event()

    async def entrypoint(ctx: JobContext) -> None:
        ctx.shutdown("done")

    async def on_session_end(ctx: JobContext) -> None:
        logging.getLogger("closing").warning("begins")
        while True:
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                continue

    class Begins(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            started.set()

    logger = logging.getLogger("closing")
    logger.addHandler(begins := Begins())
    try:
        async with serving(
            entrypoint, on_session_end=on_session_end, shutdown_process_timeout=4.0
        ) as server:
            (handle,) = await server.submit_job(room="studio")
            await soon(started.wait())
            handle.cancel()
            outcome = await soon(handle.wait())
    finally:
        logger.removeHandler(begins)
    assert outcome.status is JobStatus.SUCCEEDED


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), SystemExit(3), JobCancelled("x"), asyncio.CancelledError()],
    ids=["raises", "exits", "stops", "cancels"],
)
async def test_an_on_session_end_that_fails_does_not_change_the_outcome(
    error: BaseException,
) -> None:
    def entrypoint(ctx: JobContext) -> None: ...

    def on_session_end(ctx: JobContext) -> None:
        raise error

    async with serving(entrypoint, on_session_end=on_session_end) as server:
        assert (await run_job(server)).status is JobStatus.SUCCEEDED


# ── logs and output ──────────────────────────────────────────────────────────


async def test_records_of_a_job_arrive_with_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    async def entrypoint(ctx: JobContext) -> None:
        ctx.log_context_fields["customer"] = 17
        logging.getLogger("app.voice").warning("it %s", "begins")
        ctx.log_context_fields = {"customer": 18, "tier": "vip"}
        try:
            raise ValueError("no such voice")
        except ValueError:
            logging.getLogger("app.voice").exception("it fails")

    async with serving(entrypoint) as server:
        outcome = await run_job(server, job_id="J-17")
    first, second = (each for each in caplog.records if each.name == "app.voice")
    assert first.getMessage() == "it begins"
    assert (first.levelname, first.process, first.funcName) == (
        "WARNING",
        outcome.pid,
        "entrypoint",
    )
    told: dict[str, object] = vars(first)["greenroom"]
    assert told == {"pid": outcome.pid, "job_id": "J-17", "room": "studio", "customer": 17}
    assert vars(second)["greenroom"]["tier"] == "vip"
    assert "ValueError: no such voice" in str(second.exc_text)


async def test_what_a_job_prints_becomes_records(caplog: pytest.LogCaptureFixture) -> None:
    def entrypoint(ctx: JobContext) -> None:
        print("from python")
        os.write(2, b"from below\n")
        subprocess.run(["echo", "from a program"], check=True)
        print("no newline", end="")

    with caplog.at_level(logging.INFO, "greenroom"):
        async with serving(entrypoint) as server:
            outcome = await run_job(server, job_id="J-17")
            wait_until(lambda: not psutil.pid_exists(outcome.pid or 0))
    lines = [
        (each.name, each.getMessage(), vars(each)["greenroom"]["job_id"])
        for each in caplog.records
        if each.name in ("greenroom.stdout", "greenroom.stderr")
    ]
    assert sorted(lines) == [
        ("greenroom.stderr", "from below", "J-17"),
        ("greenroom.stdout", "from a program", "J-17"),
        ("greenroom.stdout", "from python", "J-17"),
        ("greenroom.stdout", "no newline", "J-17"),
    ]


# ── its process ──────────────────────────────────────────────────────────────


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


async def test_process_titles_say_what_each_process_is(reports: Reports) -> None:
    say = reports.say
    before = title(os.getpid())

    async def entrypoint(ctx: JobContext) -> None:
        say("entered")
        await asyncio.sleep(LONG)

    async with serving(entrypoint) as server:
        await server.submit_job(room="studio", job_id="J-17")
        pid = (await reports.seen("entered"))["pid"]
        assert title(os.getpid()) == before, "the program's own title is left alone"
        parent = psutil.Process(pid).ppid()
        assert title(parent) == "greenroom: fork server"
        # The title is set off the way to the user's code; and the loop has to turn
        # for there to be another idle worker.
        await until(lambda: title(pid) == "greenroom: job J-17")
        await until(
            lambda: (
                "greenroom: idle"
                in [title(child.pid) for child in psutil.Process(parent).children()]
            )
        )


def sleeps(say: Callable[..., None]) -> None:
    say("child", disposition=signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
    time.sleep(LONG)


async def test_sigterm_passes_the_job_but_not_what_it_starts(reports: Reports) -> None:
    say = reports.say

    def entrypoint(ctx: JobContext) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        program = subprocess.Popen(["sleep", str(LONG)])
        program.terminate()
        say("program", status=program.wait())
        for package in (multiprocessing, multiprocess):
            for method in ("fork", "spawn"):
                context = package.get_context(method)
                child = context.Process(target=sleeps, args=(say,))
                child.start()
                say("started", child=child.pid)
                # Terminated only once it stands: before that nothing is proven.
                while not Path(say.path + ".go").exists():
                    time.sleep(0.005)
                Path(say.path + ".go").unlink()
                child.terminate()
                child.join()
                say("exit code", code=child.exitcode)

    async with serving(entrypoint) as server:
        (handle,) = await server.submit_job(room="studio")
        for number in range(1, 5):
            await reports.seen("child", number)
            Path(say.path + ".go").touch()
            await reports.seen("exit code", number)
        assert (await soon(handle.wait())).status is JobStatus.SUCCEEDED
    assert reports.wait_for("program")["status"] == -signal.SIGTERM
    assert [each["code"] for each in reports.of("exit code")] == [-signal.SIGTERM] * 4


@pytest.mark.parametrize("context", ["forkserver", "spawn"])
async def test_secrets_stay_out_of_the_jobs_environment(
    reports: Reports, monkeypatch: pytest.MonkeyPatch, context: str
) -> None:
    for name in ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
        monkeypatch.setenv(name, f"open {'sesame'}")
    monkeypatch.setenv("APP_SETTING", "kept")
    say = reports.say

    def entrypoint(ctx: JobContext) -> None:
        say(
            "environment",
            names=[name for name in os.environ if name.startswith("LIVEKIT_API")],
            block="sesame" in Path("/proc/self/environ").read_text(errors="replace"),
            parent="sesame" in Path(f"/proc/{os.getppid()}/environ").read_text(errors="replace"),
            program=b"sesame" in subprocess.run(["env"], capture_output=True, check=True).stdout,
            kept=os.environ["APP_SETTING"],
        )

    async with serving(entrypoint, multiprocessing_context=context) as server:
        await run_job(server)
    seen = reports.wait_for("environment")
    assert (seen["names"], seen["block"], seen["program"]) == ([], False, False)
    # Under spawn the parent is the supervisor itself.
    assert context == "spawn" or not seen["parent"]
    assert seen["kept"] == "kept"
    assert os.environ["LIVEKIT_API_SECRET"] == "open sesame"


async def test_no_two_workers_draw_the_same_numbers(reports: Reports) -> None:
    numpy = pytest.importorskip("numpy")
    say = reports.say

    def preload(proc: JobProcess) -> None:
        random.seed(1)
        numpy.random.seed(1)

    def entrypoint(ctx: JobContext) -> None:
        say("drew", plain=random.random(), numpy=float(numpy.random.random()))

    async with serving(entrypoint, preload_fnc=preload, num_idle_processes=2) as server:
        for _ in range(3):
            assert (await run_job(server)).status is JobStatus.SUCCEEDED
    drew = reports.of("drew")
    assert len({each["plain"] for each in drew}) == len({each["numpy"] for each in drew}) == 3


async def test_the_kernel_would_kill_a_job_before_the_supervisor(reports: Reports) -> None:
    say = reports.say

    def entrypoint(ctx: JobContext) -> None:
        say("score", score=int(Path("/proc/self/oom_score_adj").read_text()))

    async with serving(entrypoint) as server:
        await run_job(server)
    assert reports.wait_for("score")["score"] == 500
    assert int(Path("/proc/self/oom_score_adj").read_text()) < 500


async def test_resource_limits_are_in_force(reports: Reports) -> None:
    say = reports.say

    def entrypoint(ctx: JobContext) -> None:
        try:
            files = [open(os.devnull) for _ in range(200)]  # noqa: SIM115
        except OSError as exc:
            say("refused", errno=exc.errno)
        else:
            say("got them all", count=len(files))
        say(
            "limits",
            files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            core=resource.getrlimit(resource.RLIMIT_CORE)[0],
            size=resource.getrlimit(resource.RLIMIT_FSIZE)[0],
        )

    limits = ResourceLimits(open_files=64, core_dumps=False, file_size_mb=5)
    async with serving(entrypoint, job_limits=limits) as server:
        await run_job(server)
    reports.wait_for("refused")
    seen = reports.wait_for("limits")
    assert (seen["files"], seen["core"], seen["size"]) == (64, 0, 5 * 2**20)


async def test_a_job_over_its_cpu_time_is_ended_by_the_kernel() -> None:
    def entrypoint(ctx: JobContext) -> None:
        while True:
            pass

    async with serving(entrypoint, job_limits=ResourceLimits(cpu_seconds=1)) as server:
        outcome = await run_job(server)
    assert outcome.status is JobStatus.FAILED
    assert outcome.exit is not None
    assert outcome.exit.signal == signal.SIGXCPU


@pytest.mark.usefixtures("_tracker")
async def test_multiprocessing_sees_a_child_of_the_supervisor() -> None:
    def look() -> Any:
        return [
            (
                package.current_process().name.startswith("GreenroomWorker-"),
                package.current_process().daemon,
                package.parent_process().pid,
                package.parent_process().is_alive(),
                bytes(package.current_process().authkey),
            )
            for package in (multiprocessing, multiprocess)
        ]

    async with ProcessPool(num_idle_processes=1) as pool:
        seen = await soon(pool.submit(look))
    for package, (named, daemon, parent, alive, authkey) in zip(
        (multiprocessing, multiprocess), seen, strict=True
    ):
        assert (named, daemon, parent, alive) == (True, False, os.getpid(), True)
        assert authkey == bytes(package.current_process().authkey)


# ── time, cancellation ───────────────────────────────────────────────────────


async def test_a_job_over_its_timeout_has_timed_out(reports: Reports) -> None:
    say = reports.say

    async def entrypoint(ctx: JobContext) -> None:
        ctx.add_shutdown_callback(lambda reason: say("callback", reason=reason))
        await asyncio.sleep(LONG)

    async with serving(entrypoint, job_timeout=0.2) as server:
        outcome = await run_job(server)
    assert (outcome.status, outcome.reason) == (JobStatus.TIMED_OUT, "timeout")
    assert reports.wait_for("callback")["reason"] == "timeout"


async def test_a_stuck_job_over_its_timeout_has_timed_out_all_the_same() -> None:
    async def entrypoint(ctx: JobContext) -> None:
        time.sleep(LONG)

    async with serving(entrypoint, job_timeout=0.1, shutdown_process_timeout=0.2) as server:
        outcome = await run_job(server)
    assert (outcome.status, outcome.reason) == (JobStatus.TIMED_OUT, "timeout")
    assert outcome.exit is not None
    assert outcome.exit.signal == signal.SIGKILL


@plain_and_async
async def test_a_running_job_that_is_cancelled_is_asked(reports: Reports, is_async: bool) -> None:
    say = reports.say

    def plain(ctx: JobContext) -> None:
        ctx.add_shutdown_callback(lambda reason: say("callback", reason=reason))
        try:
            # In here: the exception may come the moment the test has read this.
            say("entered")
            time.sleep(LONG)
        except JobCancelled as exc:
            say("asked", reason=exc.reason)
            raise

    async def coroutine(ctx: JobContext) -> None:
        ctx.add_shutdown_callback(lambda reason: say("callback", reason=reason))
        say("entered")
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            say("asked")
            raise

    async with serving(coroutine if is_async else plain) as server:
        (handle,) = await server.submit_job(room="studio")
        await reports.seen("entered")
        assert handle.cancel("caller hung up")
        outcome = await soon(handle.wait())
        assert not handle.cancel()
    assert (outcome.status, outcome.reason) == (JobStatus.CANCELLED, "caller hung up")
    assert outcome.asked_to_stop
    reports.wait_for("asked")
    assert reports.wait_for("callback")["reason"] == "caller hung up"
    with pytest.raises(JobCancelled, match="caller hung up"):
        handle.result()


async def test_a_stuck_job_that_is_cancelled_is_killed_at_the_end_of_the_grace(
    reports: Reports,
) -> None:
    say = reports.say

    def entrypoint(ctx: JobContext) -> None:
        pause = ctypes.PyDLL(None).pause
        while True:
            try:
                say("entered")
                pause()
            except JobCancelled:
                pass  # it came just before the pause

    async with serving(entrypoint, shutdown_process_timeout=0.2) as server:
        (handle,) = await server.submit_job(room="studio")
        await reports.seen("entered")
        assert handle.cancel()
        outcome = await soon(handle.wait())
    assert (outcome.status, outcome.reason) == (JobStatus.KILLED, "grace")


async def test_a_waiting_job_that_is_cancelled_ends_at_once(reports: Reports) -> None:
    say = reports.say

    async def entrypoint(ctx: JobContext) -> None:
        say("entered", room=ctx.room.name)
        await asyncio.sleep(LONG)

    async with serving(entrypoint, max_processes=1) as server:
        await server.submit_job(room="first")
        await reports.seen("entered")
        (waiting,) = await server.submit_job(room="second")
        assert waiting.status is JobStatus.PENDING
        assert waiting.cancel("not needed")
        assert waiting.done()
        assert waiting.outcome is not None
        assert (waiting.outcome.status, waiting.outcome.pid) == (JobStatus.CANCELLED, None)
        assert waiting.outcome.asked_to_stop
        assert [job.room.name for job in server.active_jobs] == ["first"]
    assert len(reports.of("entered")) == 1


# ── events, changing options ─────────────────────────────────────────────────


async def test_each_event_tells_its_part_of_the_story() -> None:
    story: list[tuple[str, Any]] = []

    def note(name: str) -> Callable[[Any], None]:
        def callback(event: Any) -> None:
            story.append((name, event))
            raise ValueError("a callback of the user must not end the server")

        return callback

    names = ("started", "worker_warm", "job_started", "job_ended", "worker_exited", "draining")

    def entrypoint(ctx: JobContext) -> None: ...

    async with serving(entrypoint, on={name: note(name) for name in names}) as server:
        outcome = await run_job(server, job_id="J-17")
    told = {name: [event for each, event in story if each == name] for name in names}
    assert told["started"] == [server]
    assert outcome.pid in [event.pid for event in told["worker_warm"]]
    assert [handle.id for handle in told["job_started"]] == ["J-17"]
    assert [handle.outcome for handle in told["job_ended"]] == [outcome]
    served = {event.pid: event.jobs_served for event in told["worker_exited"]}
    assert served[outcome.pid] == 1
    assert [event.remaining for event in told["draining"]] == [0.0]
    order = [name for name, _ in story]
    assert order.index("worker_warm") < order.index("started") < order.index("job_started")
    assert order.index("job_started") < order.index("job_ended") < order.index("draining")


def test_an_event_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="event='finished': expected one of started"):
        AgentServer().on("finished", print)


class Warm:
    """Counts the workers of a pool or a server, and waits for a count."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self.exited = 0

    def changed(self, event: object) -> None:
        self._changed.set()

    def gone(self, event: object) -> None:
        self.exited += 1
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not condition():
                self._changed.clear()
                await self._changed.wait()

        await soon(wait())


async def test_the_idle_target_follows_update_options() -> None:
    warm = Warm()
    pool = ProcessPool(num_idle_processes=1)
    pool.on("worker_warm", warm.changed)
    pool.on("worker_exited", warm.gone)
    async with pool:
        pool.update_options(num_idle_processes=3)
        # worker_warm comes a moment before the worker counts as idle.
        await warm.until(lambda: pool.stats().idle + pool.stats().warming == 3)
        pool.update_options(num_idle_processes=1)
        await warm.until(lambda: warm.exited == 2)
        assert pool.stats().alive == 1
        with pytest.raises(ValueError, match=r"setup_fnc=.*: expected an option that can change"):
            pool.update_options(setup_fnc=print)
        with pytest.raises(ValueError, match="num_idle_processes=-1: expected"):
            pool.update_options(num_idle_processes=-1)
        assert await soon(pool.submit(jobs.double, 4)) == 8


async def test_options_of_a_server_change_for_the_jobs_to_come(reports: Reports) -> None:
    async def entrypoint(ctx: JobContext) -> None:
        await asyncio.sleep(LONG)

    async with serving(entrypoint, job_timeout=LONG) as server:
        server.update_options(job_timeout=0.1)
        assert (await run_job(server)).status is JobStatus.TIMED_OUT
        server.update_options(max_jobs=1)
        await server.submit_job(room="first")
        with pytest.raises(NotAdmitted, match="max_jobs"):
            await server.submit_job(room="second")


async def test_a_drain_that_has_begun_keeps_its_deadline_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def entrypoint(ctx: JobContext) -> None:
        await asyncio.sleep(LONG)

    async with serving(entrypoint) as server:
        (job,) = await server.submit_job(room="r")
        server.begin_drain(LONG)
        server.begin_drain(0.0)
        server.begin_drain()
        assert [each.message for each in caplog.records if each.levelname == "WARNING"] == [
            "the drain has begun, and keeps its deadline: 0.0 is not used"
        ]
        await server.aclose()
        assert (await soon(job.wait())).status is JobStatus.CANCELLED


async def test_workers_that_are_reused_stay_up_to_max_idle_processes() -> None:
    warm = Warm()
    pool = ProcessPool(
        num_idle_processes=1, max_idle_processes=1, max_jobs=3, max_jobs_per_process=None
    )
    pool.on("worker_exited", warm.gone)
    async with pool:
        together = [pool.submit(time.sleep, 0.05) for _ in range(3)]
        for handle in together:
            await soon(handle)
        most = pool.stats().peak_alive
        await warm.until(lambda: warm.exited == most - 1)
        assert pool.stats().idle == 1


async def test_an_idle_worker_that_is_too_old_is_replaced() -> None:
    warm = Warm()
    pool = ProcessPool(num_idle_processes=1, max_idle_age=0.2)
    pool.on("worker_exited", warm.gone)
    async with pool:
        await warm.until(lambda: warm.exited >= 2)
        assert await soon(pool.submit(jobs.double, 4)) == 8


async def test_there_are_never_more_than_max_processes() -> None:
    async with ProcessPool(num_idle_processes=1, max_processes=2, max_jobs=8) as pool:
        handles = [pool.submit(jobs.pid) for _ in range(6)]
        assert len({await soon(handle) for handle in handles}) == 6
        assert pool.stats().peak_alive <= 2


async def test_max_jobs_queues_on_a_pool(reports: Reports) -> None:
    say = reports.say

    def enter(number: int) -> None:
        say("entered", number=number)
        while not Path(f"{say.path}.{number}").exists():
            time.sleep(0.005)

    started = Warm()
    pool = ProcessPool(num_idle_processes=3, max_jobs=2)
    pool.on("job_started", started.changed)
    async with pool:
        handles = [pool.submit(enter, number) for number in range(3)]
        running = [JobStatus.RUNNING, JobStatus.RUNNING, JobStatus.PENDING]
        await started.until(lambda: [handle.status for handle in handles] == running)
        assert pool.stats().waiting == 1
        Path(f"{say.path}.0").touch()
        await reports.seen("entered", number=2)
        for number in (1, 2):
            Path(f"{say.path}.{number}").touch()
        for handle in handles:
            await soon(handle)
        assert pool.stats().peak_running <= 2


async def test_max_jobs_is_not_admitted_on_a_server(reports: Reports) -> None:
    say = reports.say

    async def entrypoint(ctx: JobContext) -> None:
        say("entered")
        await asyncio.sleep(LONG)

    async with serving(entrypoint, max_jobs=1, num_idle_processes=2) as server:
        (first,) = await server.submit_job(room="first")
        with pytest.raises(NotAdmitted) as caught:
            await server.submit_job(room="second")
        assert (caught.value.reason, caught.value.detail) == ("max_jobs", "1 of 1")
        await reports.seen("entered")
        first.cancel()
        await soon(first.wait())
        (third,) = await server.submit_job(room="third")
        assert third.status in (JobStatus.PENDING, JobStatus.RUNNING)


# ── what multiprocessing gave the host ───────────────────────────────────────


def keep(*inherited: Any) -> None:
    """The initializer: what it gets is inherited while the worker is made."""
    globals()["inherited"] = inherited


def use_inherited(number: int) -> int:
    lock, queue, event = globals()["inherited"]
    with lock:
        queue.put(number * 2)
    event.set()
    return os.getpid()


@pytest.mark.usefixtures("_tracker")
@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
@pytest.mark.parametrize("package", [multiprocessing, multiprocess], ids=lambda p: str(p.__name__))
async def test_locks_queues_and_events_travel_in_initargs(package: Any, start_method: str) -> None:
    context = package.get_context("spawn")
    lock, queue, event = context.Lock(), context.SimpleQueue(), context.Event()
    try:
        async with ProcessPool(
            num_idle_processes=1,
            initializer=keep,
            initargs=(lock, queue, event),
            multiprocessing_context=start_method,
        ) as pool:
            assert await soon(pool.submit(use_inherited, 21)) != os.getpid()
            assert queue.get() == 42
            assert event.is_set()
    finally:
        queue.close()


@pytest.mark.usefixtures("_tracker")
async def test_locks_and_events_travel_in_hooks(reports: Reports) -> None:
    context = multiprocessing.get_context("spawn")
    lock, event = context.Lock(), context.Event()

    def setup(proc: JobProcess) -> None:
        proc.userdata["lock"] = lock

    def entrypoint(ctx: JobContext) -> None:
        with ctx.proc.userdata["lock"]:
            ctx.proc.user_arguments.set()

    async with serving(entrypoint, setup_fnc=setup, user_arguments=event) as server:
        assert (await run_job(server)).status is JobStatus.SUCCEEDED
    assert event.is_set()


def append_to(proxy: Any, value: int) -> list[int]:
    proxy.append(value)
    return list(proxy)


@pytest.mark.usefixtures("_tracker")
@pytest.mark.parametrize("package", [multiprocessing, multiprocess], ids=lambda p: str(p.__name__))
async def test_proxies_of_a_manager_work_as_arguments(package: Any) -> None:
    with package.get_context("spawn").Manager() as manager:
        shared = manager.list([1])
        async with ProcessPool(num_idle_processes=1) as pool:
            assert await soon(pool.submit(append_to, shared, 2)) == [1, 2]
        assert list(shared) == [1, 2]
    gc.collect()  # Python 3.12's manager leaves its descriptors to it
