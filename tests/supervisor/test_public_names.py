"""What `from supervisor import …` gives. A change here is a decision."""

from __future__ import annotations

import builtins
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator

import supervisor
from supervisor import errors

NAMES = """
AgentServer AgentServerPermissions ChannelBroken ChannelClosed IpcError JobCancelled JobContext JobWasCancelled
JobExecutorType JobHandle JobInfo JobKilled JobOutcome JobProcess JobRaised JobRejected JobRequest
JobStatus JobTimedOut NotAdmitted NotRunnable OptionError Participant PayloadTooLarge PoolClosed PoolStats
PreloadFailed ProcessPool ProcessPoolExecutor ProtocolError ResourceLimits ResultError Room ServerOptions
ServerType SetupFailed SupervisorError TooManyRestarts WorkerLost cli get_job_context
""".split()


def test_exactly_these_names_are_public() -> None:
    assert sorted(supervisor.__all__) == sorted(NAMES)


def test_each_name_can_be_had() -> None:
    assert all(getattr(supervisor, name) is not None for name in NAMES)
    assert set(NAMES) <= set(dir(supervisor))


def test_every_error_of_the_library_is_public() -> None:
    ours = {
        name
        for name, each in vars(errors).items()
        if isinstance(each, type) and each.__module__ == errors.__name__ and name[0] != "_"
    }
    assert ours <= set(supervisor.__all__)


# Of the standard library, where everybody knows to find them.
STANDARD = {"BrokenProcessPool", "PicklingError", "asyncio.InvalidStateError"}


def docstrings() -> Iterator[tuple[str, str]]:
    for name in NAMES:
        public = getattr(supervisor, name)
        yield name, inspect.getdoc(public) or ""
        for member in dir(public) if isinstance(public, type) else ():
            if not member.startswith("_"):
                yield f"{name}.{member}", inspect.getdoc(getattr(public, member)) or ""


def test_what_a_docstring_says_is_raised_can_be_caught_by_a_public_name() -> None:
    raised = {
        (error, where)
        for where, text in docstrings()
        for section in re.findall(r"^Raises:\n((?: +.*\n?|\n)+)", text, re.MULTILINE)
        for names in re.findall(r"^ {4}([\w., ]+):", section, re.MULTILINE)
        for error in names.split(", ")
    }
    assert {"OptionError", "PayloadTooLarge", "NotRunnable"} <= {error for error, _ in raised}
    unknown = {
        (error, where)
        for error, where in raised
        if not (error in supervisor.__all__ or hasattr(builtins, error) or error in STANDARD)
    }
    assert not unknown


def test_importing_the_package_imports_none_of_its_parts_and_none_of_the_extras() -> None:
    code = (
        "import sys; import supervisor; "
        "heavy = {'asyncio', 'multiprocess', 'cloudpickle', 'msgspec', 'loguru', 'aiohttp', "
        "'typer', 'rich', 'prometheus_client', 'watchfiles', 'psutil'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_the_pools_and_the_server_need_none_of_the_extras() -> None:
    code = (
        "import sys; from supervisor import AgentServer, ProcessPool, ProcessPoolExecutor; "
        "extras = {'aiohttp', 'typer', 'rich', 'prometheus_client', 'watchfiles', 'livekit'}; "
        "print(sorted(extras & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_a_program_with_a_server_imports_nothing_of_what_runs_it() -> None:
    """Its children import it too, and never run a server."""
    code = (
        "import sys; from supervisor import AgentServer, JobContext, cli; "
        "server = AgentServer(drain_timeout=1); server.rtc_session(print); "
        "running = {'multiprocess', 'psutil', 'cloudpickle', 'loguru', 'setproctitle'}; "
        "running |= {'supervisor.' + name for name in "
        "('serving', 'workers', 'forkserver', 'launch', 'succession', 'load', 'observers')}; "
        "print(sorted(running & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
