"""From the fork to a worker: what the child of a fork server does first."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from ipc.messages import Name
from supervisor.child import isolate
from supervisor.child.boot import Ends, Hooks, Settings
from supervisor.child.context import JobProcess
from supervisor.child.handlers import set_default
from supervisor.child.hello import report_failure, say_hello
from supervisor.child.logs import LogForwarder
from supervisor.child.worker import Worker


@dataclass(frozen=True)
class Birth:
    """What every worker of a fork server is born with.

    Args:
        hooks: the user's functions.
        settings: the options.
        proc: with what ``preload_fnc`` left in it.
        forwarder: takes what the process logs; each worker connects it to a socket of its own.
    """

    hooks: Hooks
    settings: Settings
    proc: JobProcess
    forwarder: LogForwarder

    def become_worker(
        self,
        number: int,
        descriptors: list[int],
        shed: Callable[[], None],
        *,
        awaited: bool = False,
        familiar: tuple[Name, ...] = (),
    ) -> NoReturn:
        """Be worker *number*. In the child of a fork, at once.

        Args:
            number: its name towards the supervisor.
            descriptors: its ends, in travelling order.
            shed: closes what is its parent's.
            awaited: a job waits for it.
            familiar: functions that it is likely to be asked for.
        """
        try:
            signal.set_wakeup_fd(-1)
            set_default(signal.SIGCHLD)
            set_default(signal.SIGHUP)
            isolate.become_session_leader()
            isolate.join_cgroup(self.settings.cgroup, number)
            shed()
            ends = Ends.received(descriptors)
            channel = say_hello(ends, at_once=self.hooks.for_each_worker)
            worker: Worker | None = None
            try:
                self._isolate(number)
                worker = Worker(self.hooks, self.settings, channel, ends, self.proc, self.forwarder)
                worker.run(awaited=awaited, familiar=familiar)
            except BaseException as exc:
                if worker is None or not worker.is_ready:
                    report_failure(channel, exc)
                raise
        except BaseException:  # noqa: BLE001 - the last line of a process: say it and go
            traceback.print_exc()
        finally:
            os._exit(70)  # EX_SOFTWARE; Worker.run never returns

    def _isolate(self, number: int) -> None:
        isolate.prefer_for_oom()
        isolate.apply_limits(self.settings.job_limits)
        isolate.reseed()
        isolate.take_multiprocessing_number(number)
