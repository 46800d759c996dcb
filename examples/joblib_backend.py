"""joblib's ``Parallel`` on warm workers.

    python examples/joblib_backend.py

What joblib asks of a backend is what an executor does: take a batch of calls,
call back when it is done.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from joblib import Parallel, delayed, parallel_config, register_parallel_backend
from joblib.parallel import ParallelBackendBase

from supervisor import ProcessPoolExecutor


class GreenroomBackend(ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """Runs joblib's batches in a ``ProcessPoolExecutor``."""

    supports_retrieve_callback = True
    uses_threads = False

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return how many jobs run at a time; -1 means one for each CPU."""
        return ProcessPoolExecutor(None if n_jobs == -1 else n_jobs)._max_workers

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Start the executor for one ``Parallel``."""
        self.parallel = parallel
        n_jobs = self.effective_n_jobs(n_jobs)
        self._executor = ProcessPoolExecutor(n_jobs, max_tasks_per_child=None)
        return n_jobs

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Future[Any]], Any] | None = None
    ) -> Future[Any]:
        """Run one batch."""
        future = self._executor.submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return what a batch returned, or raise what it raised."""
        return out.result()

    def terminate(self) -> None:
        """All is done."""
        self._executor.shutdown()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """A batch failed: stop the others, and start anew if there is more to come."""
        self._executor.kill_workers()
        self._executor.shutdown()
        if ensure_ready:
            self.configure(self.parallel.n_jobs, self.parallel)


def main() -> None:
    """Take square roots in other processes."""
    register_parallel_backend("greenroom", GreenroomBackend)
    with parallel_config(backend="greenroom", n_jobs=2):
        roots = Parallel()(delayed(math.sqrt)(number * number) for number in range(10))
        print(roots)
        try:
            Parallel()(delayed(math.sqrt)(number) for number in (4, -1, 9))
        except ValueError as exc:
            print(f"as in this process: {exc}")


if __name__ == "__main__":
    main()
