"""What this library raises, and what each error asks of the caller.

::

    SupervisorError
    ├── PoolClosed       shut, or shut while the caller waited       (also RuntimeError)
    ├── NotRunnable      a server without an entrypoint             (also RuntimeError)
    ├── ResultError      a job's result could not be unpickled here
    ├── NotAdmitted      refused on purpose: draining, full, or over the load threshold
    ├── JobRejected      the user's ``on_request`` said no, or the id is in use
    ├── SetupFailed      ``setup_fnc`` fails again and again         (also BrokenProcessPool)
    ├── PreloadFailed    the fork server could not get ready         (also BrokenProcessPool)
    ├── TooManyRestarts  workers die faster than restarting helps    (also BrokenExecutor)
    ├── WorkerLost       the worker ended while it ran the job       (also BrokenProcessPool)
    ├── JobKilled        the job was killed: limit, silence, grace   (also BrokenProcessPool)
    ├── JobTimedOut      the job ran longer than its timeout         (also TimeoutError)
    ├── JobWasCancelled  somebody asked the job to stop             (also JobCancelled)
    ├── JobRaised        the job's own exception, of which only the text could travel
    └── OptionError      an option has the wrong type or range       (also ValueError, TypeError)

``JobCancelled`` is raised in a plain function that is asked to stop, and is no
``Exception``. A job's own exception is none of these where it can be pickled: it travels home as
itself, with the remote traceback as its cause. From ``ipc.errors``: a job or a result
over the limit is a ``PayloadTooLarge``. All of them can be had ``from supervisor``.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supervisor.job import Exit


class SupervisorError(Exception):
    """Base of everything that this library raises on purpose."""


class PoolClosed(SupervisorError, RuntimeError):
    """The pool is shut: it takes no more jobs."""


class NotRunnable(SupervisorError, RuntimeError):
    """The server lacks what it needs to run; the text says what."""


class ResultError(SupervisorError):
    """What the job returned or raised could not be unpickled in this process.

    The cause is what unpickling raised.
    """


class NotAdmitted(SupervisorError):
    """The server does not take one more job now.

    Args:
        reason: ``"draining"``, ``"load"``, ``"max_jobs"`` or ``"not ready"``.
        detail: the figures behind it. For ``"load"`` those are the load that was measured, what
            jobs that are too new to be in it are expected to add, and ``load_threshold``;
            to admit more, raise that, or give a ``load_fnc`` that knows the jobs better.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(reason, detail)

    def __str__(self) -> str:
        return f"not admitted: {self.reason}" + (f" ({self.detail})" if self.detail else "")


class JobRejected(SupervisorError):
    """``on_request`` rejected the job, or one of that id is here already.

    Args:
        reason: why, as far as it is known.
        terminate: the job is to be dropped, not offered to somebody else.
    """

    def __init__(self, reason: str = "rejected by on_request", *, terminate: bool = False) -> None:
        self.reason = reason
        self.terminate = terminate
        super().__init__(reason)


class SetupFailed(SupervisorError, BrokenProcessPool):
    """``setup_fnc`` raised, exited or ran out of time, as often as is allowed.

    Args:
        what: one sentence.
        traceback: the child's traceback, where there is one.
    """

    def __init__(self, what: str, traceback: str = "") -> None:
        self.what = what
        self.traceback = traceback
        super().__init__(what, traceback)

    def __str__(self) -> str:
        return f"{self.what}\n\n{self.traceback}" if self.traceback else self.what


class PreloadFailed(SetupFailed):
    """The fork server could not get ready: an import, ``preload_fnc`` or a thread it left."""


class TooManyRestarts(SupervisorError, BrokenExecutor):
    """Restarting does not help any more; the text says what kept failing."""


class _WorkerEnded(SupervisorError, BrokenProcessPool):
    """The job's process came to its end, and the job with it."""

    def __init__(
        self, pid: int | None, exit: Exit | None, reason: str = "", detail: str = ""
    ) -> None:
        self.pid = pid
        self.exit = exit
        self.reason = reason
        self.detail = detail
        super().__init__(pid, exit, reason, detail)


class WorkerLost(_WorkerEnded):
    """The worker ended while it ran the job, which may have run in part.

    Args:
        pid: its process id; None if it never had one.
        exit: how it ended, as far as the kernel told.
        reason: what is known about why, in a word.
        detail: all that is known, as the outcome's ``error`` has it.
    """

    def __str__(self) -> str:
        if self.detail:
            return f"the job was lost: {self.detail}"
        return _ending(f"worker {self.pid} ended while it ran the job", self.exit, self.reason)


class JobKilled(_WorkerEnded):
    """The job's process was killed with SIGKILL.

    Args:
        pid: its process id.
        exit: how the kernel reported it.
        reason: ``"memory"``, ``"silent"``, ``"hung"``, ``"grace"`` and so on; empty when
            somebody else sent the signal.
        detail: all that is known, figures included, as the outcome's ``error`` has it.
    """

    def __str__(self) -> str:
        if self.detail:
            return f"the job was killed: {self.detail}"
        return _ending(f"the job in worker {self.pid} was killed", self.exit, self.reason)


class JobTimedOut(SupervisorError, TimeoutError):
    """The job ran longer than its timeout.

    Args:
        seconds: the timeout, counted from the hand-over.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(seconds)

    def __str__(self) -> str:
        return f"the job ran longer than its timeout of {self.seconds:g} s"


class JobCancelled(BaseException):
    """Raised in a plain function, wherever it is, when its job is asked to stop.

    No ``Exception``: libraries catch those, around an import that may fail or a line of
    a log, and what was to stop would go on.

    Args:
        reason: who or why.
    """

    def __init__(self, reason: str = "cancelled") -> None:
        self.reason = reason
        super().__init__(reason)


class JobWasCancelled(JobCancelled, SupervisorError):
    """Somebody asked the job to stop: raised where it is awaited. An ``Exception``."""


class JobRaised(SupervisorError):
    """Stands for a job's exception of which only the text could travel.

    Args:
        type: name of the exception's class.
        message: its text.
    """

    def __init__(self, type: str, message: str) -> None:
        self.type = type
        self.message = message
        super().__init__(type, message)

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


class OptionError(SupervisorError, ValueError, TypeError):
    """An option has the wrong type or is out of range.

    Both a ``ValueError`` and a ``TypeError``, since which of the two a caller
    expects depends on the option.

    Args:
        name: the option.
        value: what was given.
        expected: what is allowed.
    """

    def __init__(self, name: str, value: object, expected: str) -> None:
        self.name = name
        self.value = value
        self.expected = expected
        super().__init__(name, value, expected)

    def __str__(self) -> str:
        return f"{self.name}={self.value!r}: expected {self.expected}"


def text_of(error: BaseException) -> str:
    """Return ``str(error)``, or that there is none: a user's ``__str__`` may raise anything."""
    try:
        return str(error)
    except Exception as exc:  # noqa: BLE001 - see above
        return f"<its __str__ raised {type(exc).__name__}>"


def _ending(what: str, exit: Exit | None, reason: str) -> str:
    parts = [what]
    if exit is not None:
        parts.append(str(exit))
    text = ": ".join(parts)
    return f"{text} ({reason})" if reason else text
