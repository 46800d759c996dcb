"""A worker in a fresh interpreter: the portable way, without a fork server."""

from __future__ import annotations

import importlib
import os

from supervisor.child import isolate, logs
from supervisor.child.boot import Boot
from supervisor.child.context import JobProcess
from supervisor.child.hello import report_failure, say_hello
from supervisor.child.worker import Worker


def main(boot: Boot) -> None:
    """Be a worker. The target of the process that multiprocess starts."""
    isolate.become_session_leader()
    isolate.join_cgroup(boot.settings.cgroup, boot.worker)
    isolate.ignore_supervisor_signals()
    isolate.forget_environment(boot.settings.without_environment)
    isolate.restore_signals_in_forks()
    settings = boot.settings
    ends = boot.received_ends()
    channel = say_hello(ends)
    isolate.prefer_for_oom()
    isolate.take_multiprocessing_identity(boot.supervisor_pid, boot.authkey)
    isolate.take_multiprocessing_number(boot.worker)
    if settings.titles:
        isolate.set_title("idle")
    try:
        isolate.apply_limits(settings.job_limits)
        for name in settings.preload_modules:
            importlib.import_module(name)
        hooks = boot.hooks.open()
    except BaseException as exc:  # noqa: BLE001 - around the user's imports: reported
        report_failure(channel, exc)
        os._exit(1)
    proc = JobProcess(user_arguments=hooks.user_arguments, http_proxy=settings.http_proxy)
    forwarder = logs.install(settings.log_level)
    Worker(hooks, settings, channel, ends, proc, forwarder, preload_here=True).run()
