"""ProcessPoolExecutor: how it starts and how it ends, also when nobody ends it."""

from __future__ import annotations

import concurrent.futures
import gc
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from supervisor import PoolClosed, ProcessPoolExecutor
from supervisor.errors import OptionError
from tests.integration import jobs
from tests.integration.conftest import PATIENCE, wait_until

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]


class TestConstructor:
    def test_it_starts_nothing(self) -> None:
        executor = ProcessPoolExecutor(1)
        assert executor._executor_manager_thread is None
        assert executor._processes == {}
        assert executor.stats().alive == 0
        executor.shutdown()

    @pytest.mark.parametrize("number", [0, -1])
    def test_max_workers_is_positive(self, number: int) -> None:
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            ProcessPoolExecutor(number)

    @pytest.mark.parametrize("number", [1.5, "4", True])
    def test_max_workers_is_a_whole_number(self, number: Any) -> None:
        with pytest.raises(TypeError, match="max_workers="):
            ProcessPoolExecutor(number)

    def test_max_workers_is_the_number_of_cpus(self) -> None:
        assert ProcessPoolExecutor()._max_workers >= 1

    @pytest.mark.parametrize("number", [0, "1", 1.0])
    def test_max_tasks_per_child_is_a_positive_whole_number(self, number: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="max_tasks_per_child="):
            ProcessPoolExecutor(1, max_tasks_per_child=number)

    def test_the_initializer_can_be_called(self) -> None:
        with pytest.raises(TypeError, match="initializer must be a callable, got 5"):
            ProcessPoolExecutor(1, initializer=5)  # type: ignore[arg-type]

    @pytest.mark.parametrize("tasks", [1, 5, None])
    @pytest.mark.parametrize(
        "context", ["fork", multiprocessing.get_context("fork")], ids=["name", "context"]
    )
    def test_fork_is_refused(self, context: Any, tasks: int | None) -> None:
        with pytest.raises(ValueError, match="preload_fnc"):
            ProcessPoolExecutor(1, context, max_tasks_per_child=tasks)

    @pytest.mark.parametrize("context", ["forkserver", "spawn"])
    def test_a_context_or_its_name(self, context: str) -> None:
        for given in (context, multiprocessing.get_context(context)):
            with ProcessPoolExecutor(1, given) as executor:
                assert executor.submit(jobs.double, 1).result(PATIENCE) == 2

    @pytest.mark.parametrize(("context", "error"), [("tea", ValueError), (5, TypeError)])
    def test_other_contexts_are_refused(self, context: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="mp_context must be"):
            ProcessPoolExecutor(1, context)

    @pytest.mark.parametrize(
        "name", ["max_jobs", "max_jobs_per_process", "multiprocessing_context"]
    )
    def test_options_that_have_another_name_here(self, name: str) -> None:
        with pytest.raises(OptionError, match="under the name of"):
            ProcessPoolExecutor(1, None, None, (), **{name: 1})  # type: ignore[arg-type]

    def test_an_option_that_does_not_exist(self) -> None:
        with pytest.raises(OptionError, match="colour"):
            ProcessPoolExecutor(1, colour="red")


class TestShutdown:
    def test_accepted_jobs_are_done(self) -> None:
        executor = ProcessPoolExecutor(1)
        futures = [executor.submit(jobs.double, number) for number in range(5)]
        executor.shutdown()
        assert [future.result(0) for future in futures] == [0, 2, 4, 6, 8]

    def test_no_job_is_taken_afterwards(self) -> None:
        executor = ProcessPoolExecutor(1)
        executor.submit(jobs.double, 1)
        executor.shutdown()
        with pytest.raises(RuntimeError, match="cannot schedule new futures"):
            executor.submit(jobs.double, 1)
        with pytest.raises(PoolClosed):
            executor.map(jobs.double, [1])
        executor.shutdown()

    def test_one_that_never_started(self) -> None:
        executor = ProcessPoolExecutor(1)
        executor.shutdown()
        executor.kill_workers()
        with pytest.raises(RuntimeError):
            executor.submit(jobs.double, 1)

    def test_waiting_jobs_are_cancelled_if_asked(self) -> None:
        executor = ProcessPoolExecutor(1, shutdown_process_timeout=0.1)
        running = executor.submit(jobs.sleep_until_cancelled)
        wait_until(running.running)
        waiting = [executor.submit(jobs.double, number) for number in range(20)]
        executor.shutdown(wait=False, cancel_futures=True)
        done, _ = concurrent.futures.wait(waiting, PATIENCE)
        assert all(future.cancelled() for future in done)
        assert len(done) == 20
        assert not running.done()
        running.cancel()
        executor.shutdown()

    def test_from_a_callback(self) -> None:
        executor = ProcessPoolExecutor(1)
        ended = threading.Event()

        def end(future: concurrent.futures.Future[int]) -> None:
            executor.shutdown(wait=True)
            ended.set()

        executor.submit(jobs.double, 1).add_done_callback(end)
        assert ended.wait(PATIENCE)
        executor.shutdown()

    def test_nothing_is_left_when_it_returns(self) -> None:
        executor = ProcessPoolExecutor(2)
        executor.submit(jobs.double, 1).result(PATIENCE)
        processes = list(executor._processes.values())
        executor.shutdown()
        assert not any(process.is_alive() for process in processes)
        assert executor._executor_manager_thread is not None
        assert not executor._executor_manager_thread.is_alive()

    @pytest.mark.parametrize("way", ["kill_workers", "terminate_workers"])
    def test_ending_by_force(self, way: str) -> None:
        executor = ProcessPoolExecutor(1, shutdown_process_timeout=0.2)
        running = executor.submit(jobs.ignore_being_stopped)
        wait_until(running.running)
        waiting = executor.submit(jobs.double, 1)
        getattr(executor, way)()
        assert isinstance(running.exception(PATIENCE), BrokenProcessPool)
        assert way in str(running.exception()) or "grace" in str(running.exception())
        with pytest.raises(concurrent.futures.CancelledError):
            waiting.result(PATIENCE)
        with pytest.raises(RuntimeError):
            executor.submit(jobs.double, 1)
        executor.shutdown()

    def test_terminated_jobs_may_clean_up(self, tmp_path: Path) -> None:
        executor = ProcessPoolExecutor(1)
        running = executor.submit(jobs.note_its_end, str(tmp_path / "end"))
        wait_until((tmp_path / "end.begun").exists)
        executor.terminate_workers()
        assert isinstance(running.exception(PATIENCE), BrokenProcessPool)
        assert "terminate_workers" in str(running.exception())
        executor.shutdown()
        assert (tmp_path / "end").read_text() == "JobCancelled"

    @pytest.mark.parametrize("way", ["kill_workers", "terminate_workers", "shutdown"])
    def test_in_the_middle_of_starting(self, way: str) -> None:
        executor = ProcessPoolExecutor(2)
        future = executor.submit(jobs.double, 1)
        getattr(executor, way)()
        executor.shutdown()
        assert future.done()

    def test_ctrl_c_inside_the_context_stops_what_runs(self) -> None:
        running: concurrent.futures.Future[None] | None = None
        with (
            pytest.raises(KeyboardInterrupt),
            ProcessPoolExecutor(1, shutdown_process_timeout=5.0) as executor,
        ):
            running = executor.submit(jobs.sleep_for_ever)
            wait_until(running.running)
            raise KeyboardInterrupt
        assert running is not None
        assert isinstance(running.exception(0), BrokenProcessPool)


class TestDropped:
    def test_its_jobs_are_finished_and_all_of_it_goes(self) -> None:
        executor = ProcessPoolExecutor(1)
        futures = [executor.submit(jobs.double, number) for number in range(4)]
        thread = executor._executor_manager_thread
        assert thread is not None
        gone = weakref.ref(executor)
        del executor
        gc.collect()
        assert gone() is None
        assert [future.result(PATIENCE) for future in futures] == [0, 2, 4, 6]
        thread.join(PATIENCE)
        assert not thread.is_alive()

    def test_with_its_future(self) -> None:
        executor = ProcessPoolExecutor(1)
        executor.submit(jobs.double, 1)
        thread = executor._executor_manager_thread
        assert thread is not None
        del executor
        gc.collect()
        thread.join(PATIENCE)
        assert not thread.is_alive()

    def test_a_done_future_keeps_nothing_alive(self) -> None:
        executor = ProcessPoolExecutor(1)
        futures = [executor.submit(jobs.identity, 1), executor.submit(jobs.exit_hard, 1)]
        futures[0].result(PATIENCE)
        futures[1].exception(PATIENCE)
        executor.shutdown()
        thread = executor._thread
        assert thread is not None
        gone = weakref.ref(thread)
        del thread
        del executor
        gc.collect()
        assert gone() is None


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_that_it_is_not_its_executor() -> None:
    with ProcessPoolExecutor(1) as executor:
        assert executor.submit(jobs.double, 1).result(PATIENCE) == 2
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                executor.submit(jobs.double, 1)
            except RuntimeError as exc:
                status = 0 if "belongs to process" in str(exc) else 2
            executor.shutdown()
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert executor.submit(jobs.double, 2).result(PATIENCE) == 4


def run_script(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own; the whole of it, its exit included, is the test."""
    head = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
    return subprocess.run(
        [sys.executable, *arguments, "-c", head + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class TestInterpreterExit:
    def test_pending_work_is_finished(self) -> None:
        done = run_script(
            """
            from supervisor import ProcessPoolExecutor
            executor = ProcessPoolExecutor(1)
            for number in range(3):
                executor.submit(print, number, flush=True)
            """
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "0\n1\n2\n", "")

    @pytest.mark.parametrize("context", ["forkserver", "spawn"])
    def test_workers_made_during_the_exit_know_the_script(
        self, context: str, tmp_path: Path
    ) -> None:
        # Python takes __file__ from the main module before its exit waits for threads.
        script = tmp_path / "script.py"
        script.write_text(
            textwrap.dedent(
                f"""
                import sys
                sys.path.insert(0, {str(REPOSITORY)!r})
                from supervisor import ProcessPoolExecutor
                def say(number):
                    print(number, flush=True)
                def main():
                    executor = ProcessPoolExecutor(1, {context!r})
                    for number in range(4):
                        executor.submit(say, number)
                if __name__ == "__main__":
                    main()
                """
            )
        )
        done = subprocess.run(
            [sys.executable, str(script)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "0\n1\n2\n3\n", "")

    def test_after_shutdown_without_waiting(self) -> None:
        done = run_script(
            """
            from supervisor import ProcessPoolExecutor
            executor = ProcessPoolExecutor(1)
            executor.submit(print, "done", flush=True)
            executor.shutdown(wait=False)
            """
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")

    def test_nothing_is_taken_any_more(self) -> None:
        done = run_script(
            """
            import atexit
            from supervisor import ProcessPoolExecutor
            executor = ProcessPoolExecutor(1)
            executor.submit(int).result()
            atexit.register(lambda: executor.submit(int))
            """
        )
        assert "RuntimeError: cannot schedule new futures" in done.stderr

    def test_an_unhandled_error_is_the_programs_own(self) -> None:
        done = run_script(
            """
            from supervisor import ProcessPoolExecutor
            executor = ProcessPoolExecutor(1)
            executor.submit(print, "done", flush=True)
            raise SystemExit(7)
            """
        )
        assert (done.returncode, done.stdout) == (7, "done\n")

    def test_ctrl_c_during_the_exit_ends_the_jobs(self) -> None:
        began = time.monotonic()
        done = run_script(
            """
            import os, signal, threading, time
            from supervisor import ProcessPoolExecutor
            executor = ProcessPoolExecutor(1)
            future = executor.submit(time.sleep, 1000)
            def press():
                while not future.running():
                    time.sleep(0.01)
                time.sleep(0.2)  # the main thread gets to its exit meanwhile
                os.kill(os.getpid(), signal.SIGINT)
            threading.Thread(target=press, daemon=True).start()
            """
        )
        assert time.monotonic() - began < PATIENCE
        assert "KeyboardInterrupt" in done.stderr


@pytest.mark.parametrize("times", [20])
def test_many_short_lives(times: int) -> None:
    for number in range(times):
        with ProcessPoolExecutor(1) as executor:
            future = executor.submit(jobs.double, number)
        assert future.result(0) == number * 2


def test_a_thousand_jobs_are_handed_over_in_order() -> None:
    order: list[int] = []

    def note(future: concurrent.futures.Future[int]) -> None:
        order.append(future.result())

    with ProcessPoolExecutor(1, max_tasks_per_child=None) as executor:
        for number in range(1000):
            executor.submit(jobs.identity, number).add_done_callback(note)
    assert order == list(range(1000))
