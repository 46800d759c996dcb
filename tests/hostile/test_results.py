"""What a job hands back is bytes until its caller asks, and with data-only results for ever."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ipc import fds
from ipc.frames import encode_frame
from ipc.messages import ErrorText, Finished, encode
from supervisor import JobStatus, ProcessPool, ResultError
from tests.children import breaks_the_protocol
from tests.hostile.stage import Stage, SteppedLoop, finished
from tests.integration.conftest import soon

TOUCHED: list[str] = []


def touch(what: str) -> str:
    TOUCHED.append(what)
    return what


class Touches:
    """Runs code of the sender's where it is opened."""

    def __reduce__(self) -> Any:
        return touch, ("opened",)


class Exits:
    def __reduce__(self) -> Any:
        return exit, (3,)


CRAFTED = pickle.dumps(Touches())


@pytest.fixture(autouse=True)
def _untouched() -> None:
    TOUCHED.clear()


def test_a_crafted_pickle_is_opened_by_its_caller_and_by_nobody_before(stage: Stage) -> None:
    child, handle = stage.running()
    child.says(finished("J-1", CRAFTED))
    child.exits()
    assert handle.status is JobStatus.SUCCEEDED
    assert TOUCHED == [], "somebody opened it"
    assert handle.result() == "opened"
    assert TOUCHED == ["opened"]


def test_a_crafted_pickle_in_memory_of_its_own_is_opened_by_its_caller_only(stage: Stage) -> None:
    child, handle = stage.running()
    memory = fds.write_memory(CRAFTED)
    child.sends(encode_frame(encode(finished("J-1", b"")), 1), [memory])
    os.close(memory)
    child.exits()
    assert TOUCHED == []
    assert handle.result() == "opened"


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled", "anything"])
def test_with_data_only_results_no_pickle_is_ever_opened(stage: Stage, status: str) -> None:
    child, handle = stage.running(data_only=True)
    error = ErrorText("ValueError", "no", "")
    child.says(Finished("J-1", status, "", CRAFTED, error, 0.0, 0.0, 0.0, 0))
    child.exits()
    try:
        handle.result()
    except Exception as exc:  # noqa: BLE001 - which error is another test's subject
        str(exc), repr(exc), str(exc.__cause__)
    assert TOUCHED == []


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x80\x05", id="half a pickle"),
        pytest.param(b"\xff" * 1000, id="noise"),
        pytest.param(pickle.dumps(Exits()), id="SystemExit while it is opened"),
        pytest.param(b"cno.such\nname\n.", id="a module that is not there"),
        pytest.param(b"\x80\x05\x8e" + b"\xff" * 8, id="a text of 2**64 bytes"),
        pytest.param(b"(" * 100_000 + b".", id="marks without end"),
    ],
)
def test_a_pickle_that_cannot_be_opened_is_an_error_of_its_caller_only(
    stage: Stage, payload: bytes
) -> None:
    child, handle = stage.running()
    child.says(finished("J-1", payload[:60_000]))
    with pytest.raises(ResultError):
        handle.result()
    assert not stage.errors


def test_a_pickle_that_is_no_exception_cannot_be_raised(stage: Stage) -> None:
    child, handle = stage.running()
    error = ErrorText("ValueError", "no", "")
    child.says(Finished("J-1", "failed", "", pickle.dumps("a text"), error, 0.0, 0.0, 0.0, 0))
    with pytest.raises(ResultError, match="expected an exception"):
        handle.result()


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\x91" * 60_000 + b"\x01", id="nested 60,000 deep"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="an array of four billion"),
        pytest.param(b"\xa2\xff\xfe", id="a text that is not UTF-8"),
        pytest.param(b"\x81\x80\x01", id="a map for a key"),
        pytest.param(b"\x01\x02", id="more than one value"),
    ],
)
def test_data_that_cannot_be_read_is_an_error_of_its_caller_only(
    stage: Stage, payload: bytes
) -> None:
    child, handle = stage.running(data_only=True)
    child.says(finished("J-1", payload))
    with pytest.raises(ResultError):
        handle.result()
    assert not stage.errors


def test_data_is_plain(loop: SteppedLoop) -> None:
    stage = Stage(loop)
    child, handle = stage.running(data_only=True)
    child.says(finished("J-1", msgspec.msgpack.encode({"a": [1, None, "x", 2.5, b"y"]})))
    assert handle.result() == {"a": [1, None, "x", 2.5, b"y"]}
    stage.finish()


# ── the same with a real process ─────────────────────────────────────────────


class WritesAFile:
    """Writes the number of the process that opens it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return _write_pid, (self.path,)


def _write_pid(path: str) -> str:
    Path(path).write_text(str(os.getpid()))
    return "opened"


def forges_its_result(path: str) -> None:
    """Send a pickle of its own making as the result, past the worker's code."""
    content = pickle.dumps(WritesAFile(path))
    message = breaks_the_protocol.finished(breaks_the_protocol.this_job(), content)
    breaks_the_protocol.channel().sendall(encode_frame(encode(message)))
    breaks_the_protocol.sleep_for_ever()


@pytest.mark.slow
async def test_a_job_that_forges_its_result_runs_no_code_until_its_caller_asks(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pid"
    async with ProcessPool(num_idle_processes=1, shutdown_process_timeout=0.5) as pool:
        handle = pool.submit(forges_its_result, os.fspath(path))
        outcome = await soon(handle.wait())
        assert outcome.status is JobStatus.SUCCEEDED
        assert not path.exists(), f"process {path.read_text()} opened it"
        assert await handle == "opened"  # type: ignore[func-returns-value]  # that is the forgery
        assert path.read_text() == str(os.getpid())


@pytest.mark.slow
async def test_a_job_that_forges_its_result_runs_no_code_at_all_with_data_only_results(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pid"
    async with ProcessPool(
        num_idle_processes=1, results="data", shutdown_process_timeout=0.5
    ) as pool:
        handle = pool.submit(forges_its_result, os.fspath(path))
        with pytest.raises(ResultError):
            await soon(handle)
        assert not path.exists()
