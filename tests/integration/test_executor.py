"""ProcessPoolExecutor: jobs and their futures, from the caller's side."""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing.resource_tracker
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from supervisor import (
    JobKilled,
    JobStatus,
    JobTimedOut,
    ProcessPoolExecutor,
    ResultError,
    SetupFailed,
    WorkerLost,
)
from supervisor.futures import JobFuture
from tests.integration import jobs
from tests.integration.conftest import PATIENCE, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _tracker() -> None:
    # The standard library's locks start its helper process, once for the life of
    # this process: there before the first snapshot.
    multiprocessing.resource_tracker.ensure_running()


@pytest.fixture(params=["single-use", "reusing"])
def executor(request: pytest.FixtureRequest) -> Iterator[ProcessPoolExecutor]:
    tasks = 1 if request.param == "single-use" else None
    with ProcessPoolExecutor(2, max_tasks_per_child=tasks, shutdown_process_timeout=5.0) as made:
        yield made


def wait_running(future: concurrent.futures.Future[Any]) -> None:
    wait_until(future.running)


class TestResults:
    def test_a_value_comes_back(self, executor: ProcessPoolExecutor) -> None:
        future = executor.submit(jobs.double, 21)
        assert future.result(PATIENCE) == 42
        assert future.exception() is None
        assert isinstance(future, JobFuture)
        assert future.outcome is not None
        assert future.outcome.status is JobStatus.SUCCEEDED

    def test_a_coroutine_function_is_awaited(self, executor: ProcessPoolExecutor) -> None:
        assert executor.submit(jobs.double_later, 4).result(PATIENCE) == 8

    def test_the_same_object_comes_back_each_time(self, executor: ProcessPoolExecutor) -> None:
        future = executor.submit(jobs.identity, [1, 2])
        assert future.result(PATIENCE) is future.result()

    @pytest.mark.parametrize("size", [0, 100_000, 20_000_000], ids="{} bytes".format)
    def test_values_of_any_size(self, executor: ProcessPoolExecutor, size: int) -> None:
        content = os.urandom(size)
        assert executor.submit(jobs.identity, content).result(PATIENCE) == content

    def test_an_exception_has_the_remote_traceback_as_cause(
        self, executor: ProcessPoolExecutor
    ) -> None:
        error = executor.submit(jobs.raise_value_error, "no such thing").exception(PATIENCE)
        assert isinstance(error, ValueError)
        assert type(error.__cause__).__name__ == "_RemoteTraceback"
        assert "raise_value_error" in str(error.__cause__)

    def test_sys_exit_is_an_exception_of_the_job(self, executor: ProcessPoolExecutor) -> None:
        assert isinstance(executor.submit(jobs.exit_softly, 3).exception(PATIENCE), SystemExit)

    def test_so_is_a_keyboard_interrupt_that_the_job_raised(
        self, executor: ProcessPoolExecutor
    ) -> None:
        future = executor.submit(jobs.interrupt_oneself)
        error = future.exception(PATIENCE)  # given, not raised: nobody interrupted us
        assert isinstance(error, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt, match="in the job") as caught:
            future.result()
        assert caught.value is error
        assert executor.submit(jobs.double, 1).result(PATIENCE) == 2

    def test_a_result_is_unpickled_in_the_thread_that_asks(
        self, executor: ProcessPoolExecutor
    ) -> None:
        future = executor.submit(jobs.thread_that_unpickles)
        assert future.result(PATIENCE) == threading.get_ident()

    def test_a_result_whose_unpickling_raises_is_a_result_error(
        self, executor: ProcessPoolExecutor
    ) -> None:
        future = executor.submit(jobs.FailsToUnpickle)
        error = future.exception(PATIENCE)
        assert isinstance(error, ResultError)
        assert isinstance(error.__cause__, ZeroDivisionError)
        assert executor.submit(jobs.double, 1).result(PATIENCE) == 2

    def test_only_data_where_only_data_is_allowed(self) -> None:
        with ProcessPoolExecutor(1, results="data") as executor:
            assert executor.submit(jobs.identity, {"a": [1, 2.5]}).result(PATIENCE) == {
                "a": [1, 2.5]
            }
            error = executor.submit(jobs.FailsToUnpickle).exception(PATIENCE)
            assert "plain data only" in str(error)


class TestWhatCannotTravel:
    def test_an_argument(self, executor: ProcessPoolExecutor) -> None:
        error = executor.submit(jobs.identity, threading.Lock()).exception(0)
        assert isinstance(error, (TypeError, pickle.PicklingError))
        assert "argument 1 of identity" in str(error)

    def test_a_result(self, executor: ProcessPoolExecutor) -> None:
        error = executor.submit(threading.Lock).exception(PATIENCE)
        assert isinstance(error, (TypeError, pickle.PicklingError))
        assert "the result" in str(error)

    def test_what_is_no_function(self, executor: ProcessPoolExecutor) -> None:
        error = executor.submit(5, 6).exception(0)  # type: ignore[call-overload]
        assert isinstance(error, TypeError)
        assert "got 5" in str(error)

    def test_the_future_does_not_keep_the_arguments(self, executor: ProcessPoolExecutor) -> None:
        error = executor.submit(jobs.identity, threading.Lock()).exception(0)
        assert error is not None
        assert error.__traceback__ is None
        assert "pickle" in str(error.__cause__)


class TestWorkersThatDie:
    @pytest.mark.parametrize(
        ("function", "argument", "kind", "text"),
        [
            pytest.param(jobs.exit_hard, 3, WorkerLost, "exit status 3", id="os._exit"),
            pytest.param(jobs.die_by, signal.SIGSEGV, WorkerLost, "SIGSEGV", id="segfault"),
            pytest.param(jobs.die_by, signal.SIGKILL, JobKilled, "SIGKILL", id="kill"),
        ],
    )
    def test_only_their_own_job_fails(
        self,
        executor: ProcessPoolExecutor,
        function: Any,
        argument: int,
        kind: type[BaseException],
        text: str,
    ) -> None:
        other = executor.submit(jobs.double, 1)
        error = executor.submit(function, argument).exception(PATIENCE)
        assert isinstance(error, kind)
        assert isinstance(error, BrokenProcessPool)
        assert text in str(error)
        assert other.result(PATIENCE) == 2
        assert executor.submit(jobs.double, 2).result(PATIENCE) == 4

    def test_a_job_over_its_time_is_stopped(self) -> None:
        with ProcessPoolExecutor(1, job_timeout=0.1) as executor:
            error = executor.submit(jobs.sleep_for_ever).exception(PATIENCE)
            assert isinstance(error, JobTimedOut)
            assert isinstance(error, TimeoutError)

    def test_a_process_seen_from_outside_can_be_ended(self, executor: ProcessPoolExecutor) -> None:
        future = executor.submit(jobs.sleep_for_ever)
        wait_running(future)
        busy = [each for each in executor._processes.values() if each._worker.job is not None]
        (process,) = busy
        assert process.is_alive()
        assert process.exitcode is None
        process.terminate()
        assert isinstance(future.exception(PATIENCE), BrokenProcessPool)
        process.join()
        wait_until(lambda: process.exitcode == -signal.SIGKILL)
        assert not process.is_alive()


class TestCancel:
    def test_a_running_job_is_really_stopped(
        self, executor: ProcessPoolExecutor, tmp_path: Path
    ) -> None:
        future = executor.submit(jobs.note_its_end, str(tmp_path / "end"))
        wait_until((tmp_path / "end.begun").exists)
        wait_running(future)
        assert future.cancel()
        assert future.cancelled()
        assert future.done()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result()
        wait_until((tmp_path / "end").exists)
        assert (tmp_path / "end").read_text() == "JobCancelled"
        wait_until(lambda: executor.stats().running == 0)

    def test_a_signal_that_is_lost_is_sent_again(
        self, executor: ProcessPoolExecutor, tmp_path: Path
    ) -> None:
        future = executor.submit(jobs.lose_the_first_signal, str(tmp_path / "end"))
        wait_until((tmp_path / "end.waits").exists)
        wait_running(future)
        assert future.cancel()
        wait_until((tmp_path / "end").exists)
        assert (tmp_path / "end").read_text() == "JobCancelled"

    def test_one_that_ignores_it_is_killed(self) -> None:
        with ProcessPoolExecutor(1, shutdown_process_timeout=0.1) as executor:
            future = executor.submit(jobs.ignore_being_stopped)
            wait_running(future)
            assert future.cancel()
            assert executor.submit(jobs.double, 1).result(PATIENCE) == 2

    def test_a_waiting_job_never_runs(self, tmp_path: Path) -> None:
        with ProcessPoolExecutor(1) as executor:
            first = executor.submit(jobs.sleep_for_ever)
            waiting = executor.submit(jobs.note_its_end, str(tmp_path / "end"))
            wait_running(first)
            assert waiting.cancel()
            assert waiting.cancel()
            first.cancel()
            assert executor.submit(jobs.double, 1).result(PATIENCE) == 2
        assert not (tmp_path / "end.begun").exists()

    def test_a_finished_job_is_not_cancelled(self, executor: ProcessPoolExecutor) -> None:
        future = executor.submit(jobs.double, 1)
        assert future.result(PATIENCE) == 2
        assert not future.cancel()
        assert future.result() == 2

    def test_those_who_wait_are_woken(self, executor: ProcessPoolExecutor) -> None:
        future = executor.submit(jobs.sleep_for_ever)
        wait_running(future)
        threading.Thread(target=future.cancel).start()
        done, waiting = concurrent.futures.wait([future], timeout=PATIENCE)
        assert done == {future}
        assert not waiting

    def test_many_at_once(self) -> None:
        with ProcessPoolExecutor(1) as executor:
            futures = [executor.submit(jobs.sleep_for_ever) for _ in range(300)]
            for future in reversed(futures):
                assert future.cancel()
        assert all(future.cancelled() for future in futures)


class TestCallbacks:
    def test_they_run_off_the_executors_thread_in_order(
        self, executor: ProcessPoolExecutor
    ) -> None:
        seen: list[tuple[int, str]] = []
        futures = [executor.submit(jobs.double, number) for number in range(5)]
        for future in futures:
            future.add_done_callback(
                lambda each: seen.append((each.result(), threading.current_thread().name))
            )
        assert [future.result(PATIENCE) for future in futures] == [0, 2, 4, 6, 8]
        wait_until(lambda: len(seen) == 5)
        ours = executor._executor_manager_thread
        assert ours is not None
        assert ours.name not in {name for _, name in seen}

    def test_one_that_blocks_delays_no_job(self, executor: ProcessPoolExecutor) -> None:
        release = threading.Event()
        first = executor.submit(jobs.double, 1)
        first.add_done_callback(lambda future: release.wait(PATIENCE))
        assert executor.submit(jobs.double, 2).result(PATIENCE) == 4
        release.set()

    @pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
    def test_whatever_one_raises_the_others_are_called(
        self,
        executor: ProcessPoolExecutor,
        error: BaseException,
        caplog: pytest.LogCaptureFixture,
        tmp_path: Path,
    ) -> None:
        def fails(future: object) -> None:
            raise error

        called: list[str] = []
        gate = tmp_path / "gate"
        os.mkfifo(gate)
        future = executor.submit(gate.read_text)  # ends when it has its callbacks
        future.add_done_callback(fails)
        future.add_done_callback(lambda each: called.append("the same future's"))
        gate.write_text("")
        executor.submit(jobs.double, 2).add_done_callback(lambda each: called.append("another's"))
        wait_until(lambda: len(called) == 2)
        (record,) = (each for each in caplog.records if each.name == "concurrent.futures")
        assert record.exc_info is not None
        assert record.exc_info[1] is error

    def test_one_may_submit_and_wait(self, executor: ProcessPoolExecutor) -> None:
        got: list[int] = []
        future = executor.submit(jobs.double, 1)
        future.add_done_callback(
            lambda each: got.append(executor.submit(jobs.double, each.result()).result(PATIENCE))
        )
        wait_until(lambda: got == [4])

    def test_as_completed_gives_each_once(self, executor: ProcessPoolExecutor) -> None:
        futures = [executor.submit(jobs.double, number) for number in range(6)]
        found = [each.result() for each in concurrent.futures.as_completed(futures, PATIENCE)]
        assert sorted(found) == [0, 2, 4, 6, 8, 10]


class TestBesideAnotherLoop:
    async def test_run_in_executor(self, executor: ProcessPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(executor, jobs.double, 4) == 8
        with pytest.raises(ValueError, match="no such thing"):
            await loop.run_in_executor(executor, jobs.raise_value_error, "no such thing")

    async def test_cancelling_the_awaiting_task_stops_the_job(
        self, executor: ProcessPoolExecutor
    ) -> None:
        future = executor.submit(jobs.sleep_for_ever)
        task = asyncio.ensure_future(asyncio.wrap_future(future))
        await asyncio.sleep(0)
        await asyncio.to_thread(wait_running, future)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # asyncio passes it on in the loop's next turn.
        await asyncio.to_thread(wait_until, future.cancelled)

    async def test_a_large_result_is_opened_by_the_loop_that_awaits_it(
        self, executor: ProcessPoolExecutor
    ) -> None:
        future = executor.submit(jobs.thread_that_unpickles)
        assert await asyncio.wrap_future(future) == threading.get_ident()


class TestMap:
    @pytest.mark.parametrize("buffersize", [None, 1, 3], ids="{} ahead".format)
    @pytest.mark.parametrize("chunksize", [1, 3, 50], ids="chunks of {}".format)
    def test_values_come_in_order(
        self, executor: ProcessPoolExecutor, chunksize: int, buffersize: int | None
    ) -> None:
        values = executor.map(pow, range(10), [2] * 10, chunksize=chunksize, buffersize=buffersize)
        assert list(values) == [number * number for number in range(10)]

    def test_coroutine_functions_in_chunks(self, executor: ProcessPoolExecutor) -> None:
        assert list(executor.map(jobs.double_later, range(5), chunksize=2)) == [0, 2, 4, 6, 8]

    def test_a_buffer_reads_only_so_far_ahead(self, executor: ProcessPoolExecutor) -> None:
        taken: list[int] = []

        def endless() -> Iterator[int]:
            number = 0
            while True:
                taken.append(number)
                yield number
                number += 1

        values = executor.map(jobs.double, endless(), buffersize=2)
        assert taken == [0, 1]
        assert next(values) == 0
        assert taken == [0, 1, 2]

    def test_a_failed_call_ends_it_and_cancels_what_waits(
        self, executor: ProcessPoolExecutor
    ) -> None:
        values = executor.map(divmod, [1] * 100, [1, 0] + [1] * 98)
        assert next(values) == (1, 0)
        with pytest.raises(ZeroDivisionError):
            next(values)
        with pytest.raises(StopIteration):
            next(values)

    def test_the_timeout_is_for_the_whole(self, executor: ProcessPoolExecutor) -> None:
        executor.submit(jobs.sleep_if, False).result()  # it starts when it is first used
        values = executor.map(jobs.sleep_if, [False, True], timeout=3.0)
        assert next(values) is None
        with pytest.raises(concurrent.futures.TimeoutError):
            next(values)
        executor.kill_workers()

    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            pytest.param({"chunksize": 0}, ValueError, "chunksize must be at least 1", id="chunk"),
            pytest.param({"buffersize": 0}, ValueError, "buffersize must be at least 1", id="zero"),
            pytest.param({"buffersize": 1.5}, TypeError, "a whole number or None", id="fraction"),
        ],
    )
    def test_bad_numbers(
        self,
        executor: ProcessPoolExecutor,
        options: dict[str, Any],
        error: type[Exception],
        text: str,
    ) -> None:
        with pytest.raises(error, match=text):
            executor.map(jobs.double, [1], **options)


class TestInitializer:
    def test_it_has_run_before_a_job(self) -> None:
        with ProcessPoolExecutor(1, initializer=jobs.set_mark, initargs=("warm",)) as executor:
            assert executor.submit(jobs.get_mark).result(PATIENCE) == "warm"

    @pytest.mark.parametrize("context", ["forkserver", "spawn"])
    def test_its_arguments_may_be_queues_and_locks(self, context: str) -> None:
        standard = multiprocessing.get_context(context)
        queue = standard.SimpleQueue()
        with ProcessPoolExecutor(
            1, standard, initializer=jobs.put_pid, initargs=(queue, standard.Lock())
        ) as executor:
            assert executor.submit(jobs.double, 1).result(PATIENCE) == 2
            assert isinstance(queue.get(), int)
        queue.close()

    def test_one_that_fails_breaks_the_executor(self) -> None:
        with ProcessPoolExecutor(
            2, initializer=jobs.raise_value_error, initargs=("not today",)
        ) as executor:
            futures = [executor.submit(jobs.double, number) for number in range(3)]
            errors = [future.exception(PATIENCE) for future in futures]
            for error in errors:
                assert isinstance(error, SetupFailed)
                assert isinstance(error, BrokenProcessPool)
                assert "raise_value_error" in str(error)
            assert len({id(error) for error in errors}) == 3, "each future has its own"
            with pytest.raises(SetupFailed, match="not today"):
                executor.submit(jobs.double, 1)
            assert executor._broken

    def test_one_that_cannot_travel_breaks_the_executor(self) -> None:
        with ProcessPoolExecutor(1, setup_fnc=jobs.identity, user_arguments=iter(())) as executor:
            assert executor.submit(jobs.double, 1).result(PATIENCE) == 2
        with (
            ProcessPoolExecutor(1, user_arguments=threading.Lock()) as executor,
            # By the future, or by submit itself if it is known already.
            pytest.raises(SetupFailed, match="lock"),
        ):
            executor.submit(jobs.double, 1).result(PATIENCE)


def test_jobs_from_many_threads() -> None:
    with (
        ProcessPoolExecutor(2, max_tasks_per_child=None) as executor,
        concurrent.futures.ThreadPoolExecutor(8) as threads,
    ):
        found = list(
            threads.map(lambda n: executor.submit(jobs.double, n).result(PATIENCE), range(200))
        )
    assert found == [number * 2 for number in range(200)]


def test_several_executors_at_once() -> None:
    with ProcessPoolExecutor(1) as one, ProcessPoolExecutor(1, "spawn") as two:
        futures = [one.submit(jobs.pid), two.submit(jobs.pid)]
        assert len({future.result(PATIENCE) for future in futures}) == 2


@pytest.mark.parametrize(("tasks", "shares"), [(1, [1] * 6), (3, [3, 3]), (None, [6])])
def test_how_many_jobs_a_process_gets(tasks: int | None, shares: list[int]) -> None:
    with ProcessPoolExecutor(1, max_tasks_per_child=tasks) as executor:
        pids = [executor.submit(jobs.pid).result(PATIENCE) for _ in range(6)]
    assert [pids.count(each) for each in dict.fromkeys(pids)] == shares
