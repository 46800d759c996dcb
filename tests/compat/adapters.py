"""Our executor under the names that the standard library's tests expect.

Imported by the runner and by the scripts that some of the tests start.
"""

from __future__ import annotations

from typing import Any

from supervisor import ProcessPoolExecutor


class NoQueue:
    """Stands for the standard library's call queue, whose feeder thread tests wait for.

    Ours has neither: the job goes from the caller into the loop's inbox. Waiting
    for it is done at once.
    """

    def join_thread(self) -> None:
        """Return: there is no thread."""


class SingleUse(ProcessPoolExecutor):
    """As it comes: each job in a fresh process."""

    _call_queue = NoQueue()


class Reusing(ProcessPoolExecutor):
    """With workers that are used again, like the standard library's."""

    _call_queue = NoQueue()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_tasks_per_child", None)
        super().__init__(*args, **kwargs)
