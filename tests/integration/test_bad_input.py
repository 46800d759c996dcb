"""Bad input: each is an error that names the thing and the remedy, and loses no other job."""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import os
import pickle
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ipc.errors import PayloadTooLarge
from supervisor import (
    AgentServer,
    JobContext,
    JobProcess,
    JobRejected,
    JobRequest,
    JobStatus,
    NotAdmitted,
    PreloadFailed,
    ProcessPool,
    ProcessPoolExecutor,
    ResultError,
    SetupFailed,
)
from supervisor.errors import JobRaised
from tests.integration import jobs
from tests.integration.conftest import soon
from tests.integration.reports import Reports, reports_in
from tests.integration.serving import run_job, serving

MB = 2**20


@pytest.fixture(autouse=True)
def _private_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GREENROOM_SOCKET", str(tmp_path / "control.sock"))


@pytest.fixture
def reports(leaves_nothing: None, tmp_path: Path) -> Iterator[Reports]:
    with reports_in(tmp_path) as opened:
        yield opened


@pytest.fixture
async def pool(leaves_nothing: None) -> AsyncIterator[ProcessPool]:
    """A pool that a job of somebody else uses: it must come through unharmed."""
    async with ProcessPool(num_idle_processes=2, max_jobs=2, max_payload_mb=1) as opened:
        neighbour = opened.submit(asyncio.sleep, 0.05, "unharmed")
        yield opened
        assert await soon(neighbour) == "unharmed"
        assert await soon(opened.submit(jobs.double, 21)) == 42


# ── options ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [AgentServer, ProcessPool], ids=["server", "pool"])
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"num_idle_processes": "3"}, "num_idle_processes='3': expected a whole number"),
        (
            {"num_idle_processes": -1},
            "num_idle_processes=-1: expected a whole number of at least 0",
        ),
        ({"max_jobs": 0}, "max_jobs=0: expected a whole number of at least 1"),
        ({"max_processes": True}, "max_processes=True: expected a whole number"),
        ({"job_timeout": 0}, "job_timeout=0: expected a number above 0"),
        ({"shutdown_process_timeout": -1}, "shutdown_process_timeout=-1: expected"),
        ({"setup_fnc": "prewarm"}, "setup_fnc='prewarm': expected a function, or None"),
        ({"preload_modules": "numpy"}, "preload_modules='numpy': expected a list"),
        ({"job_limits": 5}, "job_limits=5: expected a ResourceLimits"),
        ({"multiprocessing_context": "fork"}, "multiprocessing_context='fork': expected one of"),
        ({"ping_interval": 5, "ping_timeout": 4}, "ping_timeout=4: expected more than ping_inter"),
        ({"num_idle_processes": 3, "max_processes": 2}, "num_idle_processes=3: expected at most"),
        ({"num_idle": 3}, "num_idle=3: expected an option that exists: .*num_idle_processes"),
    ],
    ids=str,
)
def test_an_option_that_is_not_allowed_is_named_with_its_value(
    kind: Callable[..., object], options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        kind(**options)
    with pytest.raises(TypeError, match=complaint):
        kind(**options)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"drain_timeout": "soon"}, "drain_timeout='soon': expected a number"),
        ({"port": 70000}, "port=70000: expected at most 65535"),
        ({"load_threshold": None}, "load_threshold=None: expected a number"),
        ({"load_fnc": 0.5}, "load_fnc=0.5: expected a function, or None"),
        ({"permissions": {}}, "permissions={}: expected an AgentServerPermissions"),
        ({"ws_url": "ftp://a"}, "ws_url='ftp://a': expected an address with ws, wss, http, https"),
        ({"api_secret": 4711}, "api_secret=<class 'int'>: expected a string"),
    ],
    ids=str,
)
def test_so_is_an_option_of_a_server(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        AgentServer(**options)


@pytest.mark.parametrize("timeout", ["soon", -1, float("nan")], ids=str)
async def test_a_drain_with_a_bad_timeout_does_not_begin(timeout: Any) -> None:
    async with serving(lambda ctx: None) as server:
        with pytest.raises(ValueError, match=r"timeout=.*: expected a number"):
            await server.drain(timeout)
        assert not server.draining


# ── registering ──────────────────────────────────────────────────────────────


async def test_a_server_without_an_entrypoint_says_how_to_get_one() -> None:
    with pytest.raises(RuntimeError, match=r"decorate a function with @server.rtc_session\(\)"):
        await AgentServer().run()


def test_an_entrypoint_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(
        TypeError, match="entrypoint=3: expected a function that takes a JobContext"
    ):
        AgentServer().rtc_session()(3)  # type: ignore[type-var]


def test_a_second_entrypoint_is_refused() -> None:
    server = AgentServer()
    server.rtc_session(lambda ctx: None)
    with pytest.raises(RuntimeError, match="has an entrypoint already; use one server for each"):
        server.rtc_session(lambda ctx: None)


@pytest.mark.parametrize("name", ["on_request", "on_session_end"])
def test_hooks_that_cannot_be_called_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}=3: expected a function, or None"):
        AgentServer().rtc_session(**{name: 3})  # type: ignore[call-overload]


def yields(job: object) -> Iterator[None]:
    yield


async def yields_later(job: object) -> AsyncIterator[None]:
    yield


class Yields:
    """Called, it gives a generator."""

    def __call__(self, job: object) -> Iterator[None]:
        yield


@pytest.mark.parametrize(
    "function",
    [yields, yields_later, Yields(), functools.partial(yields)],
    ids=["plain", "async", "object", "partial"],
)
def test_functions_that_would_run_nothing_are_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"entrypoint=.* without yield: with it, a call runs noth"):
        AgentServer().rtc_session(function)
    for hook in ("on_request", "on_session_end"):
        with pytest.raises(ValueError, match=f"{hook}=.* without yield"):
            AgentServer().rtc_session(lambda ctx: None, **{hook: function})  # type: ignore[call-overload]
    for hook in ("setup_fnc", "preload_fnc", "load_fnc"):
        with pytest.raises(ValueError, match=f"{hook}=.* without yield"):
            AgentServer(**{hook: function})
    with pytest.raises(ValueError, match=r"initializer=.* without yield"):
        ProcessPool(initializer=function)


def takes_nothing() -> None: ...


def takes_two(one: object, two: object) -> None: ...


@pytest.mark.parametrize("function", [takes_nothing, takes_two], ids=["nothing", "two"])
def test_functions_that_cannot_be_called_with_what_they_get_are_refused(
    function: Callable[..., Any],
) -> None:
    with pytest.raises(ValueError, match=r"entrypoint=.* expected a function that takes a JobCont"):
        AgentServer().rtc_session(function)
    with pytest.raises(ValueError, match=r"on_request=.* expected a function that takes a JobReq"):
        AgentServer().rtc_session(lambda ctx: None, on_request=function)
    if function is takes_two:
        with pytest.raises(
            ValueError, match=r"on_session_end=.* a JobContext, or nothing, or None"
        ):
            AgentServer().rtc_session(lambda ctx: None, on_session_end=function)
    for hook in ("setup_fnc", "preload_fnc"):
        kinds: list[Callable[..., Any]] = [AgentServer, ProcessPool]
        for kind in kinds:
            with pytest.raises(ValueError, match=f"{hook}=.* expected a function that takes a Job"):
                kind(**{hook: function})


@functools.wraps(takes_two)
def passes_one_more(job: object) -> None:
    takes_two(job, None)


class Method:
    """Has functions of every kind."""

    def bound(self, job: object) -> None: ...

    @classmethod
    def of_the_class(cls, job: object) -> None: ...

    @staticmethod
    def plain(job: object, more: object = None) -> None: ...

    def __call__(self, *jobs: object) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        passes_one_more,
        Method().bound,
        Method.of_the_class,
        Method.plain,
        Method(),
        functools.partial(takes_two, None),
        len,
        dict,
        JobRejected,
        takes_two.__get__(None.__class__),
    ],
    ids=["wraps", "method", "class", "static", "object", "partial", "C", "type", "error", "bound"],
)
def test_functions_of_every_kind_are_taken(function: Callable[..., Any]) -> None:
    server = AgentServer(setup_fnc=function, preload_fnc=function)
    server.rtc_session(function, on_request=function, on_session_end=function)
    ProcessPool(setup_fnc=function, initializer=function)


def test_an_on_session_end_may_take_nothing() -> None:
    AgentServer().rtc_session(lambda ctx: None, on_session_end=takes_nothing)


@pytest.mark.parametrize("initargs", [5, "ab", None])
def test_the_initializers_arguments_are_a_tuple(initargs: Any) -> None:
    for kind in (ProcessPool, ProcessPoolExecutor):
        with pytest.raises(ValueError, match=r"initargs=.* expected a tuple of arguments"):
            kind(initializer=print, initargs=initargs)


@pytest.mark.parametrize("name", [None, 3, b"greeter", "\ud800"])
def test_an_agents_name_is_text(name: Any) -> None:
    with pytest.raises(ValueError, match=r"agent_name=.*: expected a string"):
        AgentServer().rtc_session(lambda ctx: None, agent_name=name)


async def test_a_server_says_whether_it_does_not_run_yet_or_not_any_more() -> None:
    server = AgentServer(port=None, num_idle_processes=1)
    server.rtc_session(lambda ctx: None)
    with pytest.raises(NotAdmitted, match="the server does not run yet"):
        await server.submit_job(room="r")
    async with serving(server):
        pass
    with pytest.raises(NotAdmitted, match="the server has ended"):
        await server.submit_job(room="r")


async def test_a_server_runs_once() -> None:
    async with serving(lambda ctx: None) as server:
        with pytest.raises(RuntimeError, match="runs once; make another one"):
            await server.run()


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        ({"room": ""}, "room='': expected a room's name"),
        ({"room": 7}, "room=7: expected a room's name"),
        ({"room": "r", "metadata": {"a": 1}}, "metadata={'a': 1}: expected a string"),
        ({"room": "r", "job_id": ""}, "job_id='': expected"),
        ({"room": "r", "agent_name": "other"}, "agent_name='other': expected 'greeter'"),
        ({"room": "r", "publishers": [3]}, r"publishers\[0]=3: expected an identity"),
    ],
    ids=str,
)
async def test_a_bad_request_is_refused_and_takes_no_place(
    request_: dict[str, Any], complaint: str
) -> None:
    async with serving(lambda ctx: None, agent_name="greeter") as server:
        with pytest.raises(ValueError, match=complaint):
            await server.submit_job(**request_)
        assert server.active_jobs == []


# ── what cannot travel ───────────────────────────────────────────────────────


async def test_a_function_that_cannot_travel_is_named_with_what_is_at_fault(
    pool: ProcessPool,
) -> None:
    lock = threading.Lock()

    def guarded() -> None:
        with lock:
            pass

    with pytest.raises(TypeError, match=r"guarded, closed over lock cannot be sent.*setup_fnc"):
        pool.submit(guarded)


class Application:
    """What users have: an object with the pool in it."""

    def __init__(self, pool: ProcessPool) -> None:
        self.pool = pool

    def work(self) -> None:
        """Run nowhere."""


class Unwilling:
    """Raises what nobody expects when it is to be pickled."""

    def __reduce__(self) -> Any:
        raise KeyError("no reduce")


async def test_what_has_the_pool_in_it_cannot_travel_and_is_named(pool: ProcessPool) -> None:
    application = Application(pool)
    with pytest.raises(TypeError, match=r"work\.__self__\.pool cannot be sent.*ProcessPool cannot"):
        pool.submit(application.work)
    with pytest.raises(TypeError, match=r"argument 1 of identity cannot be sent.*ProcessPool"):
        pool.submit(jobs.identity, pool)
    with pytest.raises(pickle.PicklingError, match="argument 1 of identity"):
        pool.submit(jobs.identity, asyncio.get_running_loop())
    handle = pool.submit(jobs.identity, 1)
    with pytest.raises(TypeError, match=r"argument 1 of identity.*send its id"):
        pool.submit(jobs.identity, handle)
    assert await soon(handle) == 1


@pytest.mark.parametrize(
    "thing", [Unwilling(), multiprocessing.Lock()], ids=["raises", "a lock of multiprocessing"]
)
async def test_whatever_pickling_raises_the_argument_is_named(
    pool: ProcessPool, thing: object
) -> None:
    with pytest.raises(pickle.PicklingError, match=r"argument 1 of identity\[0\] cannot be sent"):
        pool.submit(jobs.identity, [thing])


async def test_an_argument_that_cannot_travel_is_named_down_to_the_object(
    pool: ProcessPool,
) -> None:
    deep = {"rooms": [{"lock": threading.Lock()}]}
    with pytest.raises(TypeError, match=r"argument 2 of identity\['rooms'\]\[0\]\['lock'\] cannot"):
        pool.submit(jobs.identity, 1, deep)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="argument value= of identity cannot be sent"):
        pool.submit(jobs.identity, value=threading.Lock())


@pytest.mark.parametrize("function", [None, 3, "print"], ids=repr)
async def test_what_cannot_be_called_is_refused(pool: ProcessPool, function: Any) -> None:
    with pytest.raises(TypeError, match="expected a function, and its arguments after it, got"):
        pool.submit(function)


@pytest.mark.parametrize("context", ["forkserver", "spawn"])
@pytest.mark.parametrize("name", ["setup_fnc", "preload_fnc"])
async def test_a_hook_that_cannot_travel_is_named_when_the_pool_starts(
    name: str, context: str
) -> None:
    lock = threading.Lock()

    def prewarm(proc: JobProcess) -> None:
        proc.userdata["lock"] = lock

    options: dict[str, Any] = {name: prewarm, "multiprocessing_context": context}
    pool = ProcessPool(num_idle_processes=1, **options)
    with pytest.raises(Exception, match=f"hooks.{name}, closed over lock cannot be sent"):
        await soon(pool.start())


async def test_so_is_an_entrypoint_when_the_server_starts() -> None:
    lock = threading.Lock()

    def entrypoint(ctx: JobContext) -> None:
        lock.acquire()

    with pytest.raises(TypeError, match="entrypoint, closed over lock cannot be sent"):
        async with serving(entrypoint):
            pass


# ── results ──────────────────────────────────────────────────────────────────


def returns_a_lock() -> Any:
    return {"a": [threading.Lock()]}


async def test_a_result_that_cannot_travel_fails_its_job_and_is_named(pool: ProcessPool) -> None:
    handle = pool.submit(returns_a_lock)
    with pytest.raises(TypeError, match=r"the result\['a'\]\[0\] cannot be sent"):
        await soon(handle)
    assert handle.status is JobStatus.FAILED


class Opens:
    """Calls *function* where it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


def fail(text: str) -> None:
    raise ValueError(text)


def make(function: Callable[..., object], *arguments: object) -> Opens:
    return Opens(function, *arguments)


@pytest.mark.parametrize(
    ("function", "argument", "complaint"),
    [
        pytest.param(fail, "no such class", "ValueError: no such class", id="raises"),
        pytest.param(sys.exit, 3, "SystemExit: 3", id="calls sys.exit"),
    ],
)
async def test_a_result_whose_unpickling_fails_reaches_only_who_awaits_it(
    pool: ProcessPool, function: Callable[..., object], argument: object, complaint: str
) -> None:
    handle = pool.submit(make, function, argument)
    assert (await soon(handle.wait())).status is JobStatus.SUCCEEDED
    with pytest.raises(ResultError, match=f"could not be unpickled: {complaint}") as caught:
        await soon(handle)
    assert type(caught.value.__cause__).__name__ in complaint


@pytest.mark.parametrize(
    ("function", "argument", "error"),
    [(fail, "no such class", ValueError), (sys.exit, 3, SystemExit)],
    ids=["raises", "calls sys.exit"],
)
async def test_an_argument_whose_unpickling_fails_fails_its_job(
    pool: ProcessPool,
    function: Callable[..., object],
    argument: object,
    error: type[BaseException],
) -> None:
    handle = pool.submit(jobs.identity, Opens(function, argument))
    assert (await soon(handle.wait())).status is JobStatus.FAILED
    with pytest.raises(error):
        handle.result()


class NeedsTwo(Exception):
    """Its pickle cannot be opened: the base class keeps one argument only."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def raise_needs_two() -> None:
    raise NeedsTwo("a", "b")


class RaisesWhilePickled:
    def __reduce__(self) -> Any:
        raise NeedsTwo("while", "pickled")


async def test_neither_the_result_nor_the_error_of_pickling_it_can_travel(
    pool: ProcessPool,
) -> None:
    handle = pool.submit(RaisesWhilePickled)
    outcome = await soon(handle.wait())
    assert outcome.status is JobStatus.FAILED
    assert outcome.error is not None
    assert outcome.error.type == "PicklingError"
    assert outcome.error.message.startswith("the result cannot be sent to another process")
    assert "(NeedsTwo: while)" in outcome.error.message


async def test_an_exception_that_cannot_be_rebuilt_still_tells_what_it_was(
    pool: ProcessPool,
) -> None:
    handle = pool.submit(raise_needs_two)
    with pytest.raises(JobRaised, match="NeedsTwo: a") as caught:
        await soon(handle)
    assert "raise_needs_two" in str(caught.value.__cause__)
    assert handle.outcome is not None
    assert handle.outcome.error is not None
    assert handle.outcome.error.type == "NeedsTwo"
    assert "raise_needs_two" in handle.outcome.error.traceback


async def test_data_only_results_refuse_what_is_no_plain_data() -> None:
    async with ProcessPool(num_idle_processes=1, results="data") as pool:
        assert await soon(pool.submit(jobs.identity, [1, {"a": None}])) == [1, {"a": None}]
        with pytest.raises(Exception, match="results='data' takes plain data only"):
            await soon(pool.submit(make, print))


# ── size ─────────────────────────────────────────────────────────────────────


async def test_a_call_over_the_limit_is_refused_with_the_remedy(pool: ProcessPool) -> None:
    with pytest.raises(PayloadTooLarge, match=r"limit is 1048576.*raise max_payload_mb"):
        pool.submit(len, os.urandom(MB + 1))


async def test_a_result_over_the_limit_fails_its_job_with_the_remedy(pool: ProcessPool) -> None:
    with pytest.raises(
        PayloadTooLarge, match=r"the result has .* limit is 1048576; raise max_payload_mb"
    ):
        await soon(pool.submit(os.urandom, MB + 1))


async def test_a_request_over_the_limit_is_refused_and_takes_no_place() -> None:
    async with serving(lambda ctx: None, max_payload_mb=0.01) as server:
        with pytest.raises(PayloadTooLarge, match="raise max_payload_mb"):
            await server.submit_job(room="studio", metadata="x" * 20_000)
        assert server.active_jobs == []
        assert (await run_job(server)).status is JobStatus.SUCCEEDED


# ── callbacks of the user that fail ──────────────────────────────────────────


async def raise_in_on_request(request: JobRequest) -> None:
    raise ValueError("no database")


def raise_plainly_in_on_request(request: JobRequest) -> None:
    raise ValueError("no database")


async def exit_in_on_request(request: JobRequest) -> None:
    sys.exit(3)


def exit_plainly_in_on_request(request: JobRequest) -> None:
    sys.exit(3)


async def say_nothing_in_on_request(request: JobRequest) -> None: ...


def block_in_on_request(request: JobRequest) -> None:
    time.sleep(3)


async def accept_with_a_number(request: JobRequest) -> None:
    await request.accept(name=7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("on_request", "complaint"),
    [
        (raise_in_on_request, "on_request raised ValueError: no database"),
        (raise_plainly_in_on_request, "on_request raised ValueError: no database"),
        (exit_in_on_request, r"on_request raised RuntimeError: it called sys.exit\(3\)"),
        (exit_plainly_in_on_request, r"on_request raised RuntimeError: it called sys.exit\(3\)"),
        (say_nothing_in_on_request, "on_request neither accepted nor rejected"),
        (block_in_on_request, "on_request did not answer within"),
        (accept_with_a_number, "OptionError: name=7: expected a string"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_an_on_request_that_fails_rejects_its_job_only(
    on_request: Callable[[JobRequest], Any], complaint: str
) -> None:
    async def either(request: JobRequest) -> None:
        if request.room.name == "good":
            await request.accept()
            return
        if asyncio.iscoroutinefunction(on_request):
            await on_request(request)
            return
        await asyncio.get_running_loop().run_in_executor(None, on_request, request)

    hook = either if asyncio.iscoroutinefunction(on_request) else on_request
    async with serving(lambda ctx: None, on_request=hook) as server:
        bad = asyncio.ensure_future(server.submit_job(room="bad"))
        if hook is either:
            assert (await run_job(server, room="good")).status is JobStatus.SUCCEEDED
        with pytest.raises(JobRejected, match=complaint):
            await soon(bad)
        assert server.active_jobs == []


async def test_what_is_cancelled_inside_on_request_does_not_cancel_who_submits() -> None:
    async def on_request(request: JobRequest) -> None:
        lookup = asyncio.get_running_loop().create_future()
        lookup.cancel()
        await lookup

    async with serving(lambda ctx: None, on_request=on_request) as server:
        with pytest.raises(JobRejected, match="on_request raised CancelledError"):
            await soon(server.submit_job(room="r"))
        assert server.active_jobs == []


async def test_a_server_that_is_cancelled_while_it_asks_does_not_admit() -> None:
    asked = asyncio.Event()

    async def on_request(request: JobRequest) -> None:
        asked.set()
        await asyncio.Event().wait()

    server = AgentServer(port=None, num_idle_processes=1, load_threshold=float("inf"))
    server.rtc_session(lambda ctx: None, on_request=on_request)
    started = asyncio.Event()
    server.on("started", lambda event: started.set())
    running = asyncio.ensure_future(server.run())
    await soon(started.wait())
    submitting = asyncio.ensure_future(server.submit_job(room="r"))
    await soon(asked.wait())
    running.cancel()
    with pytest.raises(NotAdmitted, match="draining"):
        await soon(submitting)
    with pytest.raises(asyncio.CancelledError):
        await soon(running)


async def test_a_job_id_that_is_taken_is_refused(reports: Reports) -> None:
    async def entrypoint(ctx: JobContext) -> None:
        await asyncio.sleep(3600)

    async with serving(entrypoint) as server:
        await server.submit_job(room="studio", job_id="J-1")
        with pytest.raises(JobRejected, match="job J-1 is here already"):
            await server.submit_job(room="studio", job_id="J-1")


async def test_done_callbacks_and_events_that_raise_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def raise_(event: object) -> None:
        raise ValueError("in a callback")

    pool = ProcessPool(num_idle_processes=1)
    pool.on("job_ended", raise_)
    pool.on("worker_exited", raise_)
    async with pool:
        handle = pool.submit(jobs.double, 2)
        handle.add_done_callback(raise_)
        assert await soon(handle) == 4
        assert await soon(pool.submit(jobs.double, 3)) == 6
    assert any("a callback for 'job_ended' raised" in line for line in caplog.messages)
    assert any(f"a done callback of job {handle.id} raised" in line for line in caplog.messages)


async def test_a_setup_that_raises_is_told_with_its_traceback() -> None:
    def prewarm(proc: JobProcess) -> None:
        raise ValueError("no model")

    with pytest.raises(SetupFailed, match="setup_fnc raised ValueError: no model") as caught:
        async with ProcessPool(num_idle_processes=1, setup_fnc=prewarm):
            pass
    assert "in prewarm" in caught.value.traceback


async def test_a_preload_that_raises_is_told_with_its_traceback() -> None:
    def preload(proc: JobProcess) -> None:
        raise ValueError("no model")

    with pytest.raises(PreloadFailed, match="ValueError: no model") as caught:
        async with ProcessPool(num_idle_processes=1, preload_fnc=preload):
            pass
    assert "in preload" in caught.value.traceback


async def test_a_module_that_cannot_be_preloaded_is_named() -> None:
    with pytest.raises(PreloadFailed, match="no_such_module_anywhere"):
        async with ProcessPool(num_idle_processes=1, preload_modules=["no_such_module_anywhere"]):
            pass


def test_the_examples_of_bad_pickles_are_bad_here_too() -> None:
    with pytest.raises(ValueError, match="x"):
        pickle.loads(pickle.dumps(Opens(fail, "x")))
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(NeedsTwo("a", "b")))
