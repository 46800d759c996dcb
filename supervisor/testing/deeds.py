"""What jobs may do, how each may end, and whether it ended as its history allows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final

from supervisor.errors import JobKilled, JobTimedOut, JobWasCancelled, WorkerLost
from supervisor.handle import JobHandle
from supervisor.job import Exit, JobOutcome, JobStatus

# An entrypoint is the server's, returns nothing, and has the limits of the server's options:
# of these, nothing would be looked at in a server's deed.
_FOR_A_POOL: Final = ("function", "args", "check", "raises", "memory_limit_mb")
_FOR_A_SERVER: Final = ("room", "metadata")

SUCCEEDS: Final = frozenset({JobStatus.SUCCEEDED})
NEVER_ENDS: Final[frozenset[JobStatus]] = frozenset()

_RAISED: Final[dict[JobStatus, type[BaseException]]] = {
    JobStatus.CANCELLED: JobWasCancelled,
    JobStatus.TIMED_OUT: JobTimedOut,
    JobStatus.KILLED: JobKilled,
}


@dataclass(frozen=True)
class Deed:
    """One kind of job.

    Args:
        name: for the history that is printed.
        function: for a pool: what is submitted; plain or async.
        args: its arguments.
        room: for a server: the room that is asked for.
        metadata: for a server: the job's.
        ends: how it may end if nobody interferes; empty if it never ends by itself.
        check: for a pool: whether a value is what it should return.
        raises: for a pool: what it raises where it fails by itself.
        exit: how its process ends, where the job decides that.
        reason: the outcome's reason, where the job decides that.
        memory_limit_mb: for a pool.
        leaves_strays: it leaves processes that left its group. Nobody finds them if the
            fork server dies as well, so no history has both.

    Raises:
        TypeError: *ends* is no collection of JobStatus.
    """

    name: str
    function: Callable[..., Any] | None = None
    args: tuple[Any, ...] = ()
    room: str = ""
    metadata: str = ""
    ends: frozenset[JobStatus] = SUCCEEDS
    check: Callable[[Any], bool] | None = None
    raises: type[BaseException] | None = None
    exit: Exit | None = None
    reason: str | None = None
    memory_limit_mb: float | None = None
    leaves_strays: bool = False

    def __post_init__(self) -> None:
        ends: object = self.ends
        # A text is a collection as well, and an empty one would say that it never ends.
        if not isinstance(ends, (frozenset, set, list, tuple)) or not all(
            isinstance(each, JobStatus) and each.is_final for each in ends
        ):
            raise TypeError(
                f"deed {self.name!r}: ends={ends!r}: expected a set of final JobStatus, such as "
                "frozenset({JobStatus.FAILED}), empty if it never ends by itself"
            )


def check_deeds(deeds: Collection[object], *, is_server: bool) -> None:
    """Check that each can be done and judged by what is driven.

    Raises:
        TypeError: one is no deed.
        ValueError: one says what only the other kind would look at, or lacks its
            function; or there is none that leaves nothing behind.
    """
    kinds = "Deed('name', function) for a pool, Deed('name', room='...') for a server"
    found = []
    for deed in deeds:
        if not isinstance(deed, Deed):
            raise TypeError(f"{deed!r}: expected a Deed: {kinds}")
        found.append(deed)
    if all(deed.leaves_strays for deed in found):
        raise ValueError("name at least one deed that leaves nothing behind")
    for deed in found:
        if is_server:
            _refuse(deed, _FOR_A_POOL, "for a pool only; a server's deed has room and metadata")
        else:
            why = "and no entrypoint was given; a pool's deed has function and args"
            _refuse(deed, _FOR_A_SERVER, f"for a server only, {why}")
            if deed.function is None:
                raise ValueError(f"deed {deed.name!r}: function is missing, {why}")


def _refuse(deed: Deed, names: tuple[str, ...], remedy: str) -> None:
    given = [name for name in names if getattr(deed, name) != getattr(Deed, name)]
    if given:
        verb = "is" if len(given) == 1 else "are"
        raise ValueError(f"deed {deed.name!r}: {', '.join(given)} {verb} {remedy}")


@dataclass
class Story:
    """One job: what it was to do, and what was done to it."""

    id: str
    deed: Deed
    handle: JobHandle[Any]
    asked: bool = False  # somebody asked it to stop
    has_timeout: bool = False
    killed: bool = False  # its worker got our SIGKILL
    crashed: bool = False  # its worker got our SIGSEGV
    stopped: bool = False  # its worker got our SIGSTOP
    harmed_in_it: bool = False  # and it had begun: it cannot go on
    endings: list[JobStatus] = field(default_factory=list)

    @property
    def is_undisturbed(self) -> bool:
        """True if nothing was done to it."""
        return not (self.asked or self.has_timeout or self.killed or self.stopped or self.crashed)

    def possible_ends(self) -> set[JobStatus]:
        """Return how it may have ended."""
        ends = set(self.deed.ends)
        if self.asked:
            ends |= {JobStatus.CANCELLED, JobStatus.KILLED}
        if self.has_timeout:
            ends.add(JobStatus.TIMED_OUT)
        if self.killed or self.stopped:
            ends.add(JobStatus.KILLED)
        if self.crashed:
            ends.add(JobStatus.FAILED)
        return ends

    def __str__(self) -> str:
        names = ("asked", "has_timeout", "killed", "crashed", "stopped")
        done = ", ".join(name for name in names if getattr(self, name))
        return f"{self.id} ({self.deed.name}{'; ' if done else ''}{done})"


@dataclass(frozen=True)
class Circumstances:
    """What happened to the pool and not to one job."""

    harmed_workers: int
    fork_server_died: bool
    is_server: bool


def check_ending(story: Story, circumstances: Circumstances) -> None:
    """Check that a job ended once, and as its history allows.

    Raises:
        AssertionError: it did not.
    """
    told = story.handle.outcome
    assert told is not None, f"{story} has no outcome"
    ends = story.possible_ends()
    if told.started_at is None and circumstances.harmed_workers >= 3:
        # It was handed to three workers, and each had been harmed before.
        ends |= {JobStatus.KILLED, JobStatus.FAILED}
    unknown = circumstances.fork_server_died and told.exit == Exit()
    if unknown:
        # Nobody could tell how it ended: the kernel is too old for that.
        ends.add(JobStatus.FAILED)
    assert told.status in ends, f"{story} ended as {told}: expected {_in_words(ends)}"
    if story.is_undisturbed and told.started_at is not None:
        if story.deed.exit is not None and not unknown:
            wanted_exit = f"expected {story.deed.exit}"
            assert told.exit == story.deed.exit, f"{story} ended as {told}: {wanted_exit}"
        if story.deed.reason is not None:
            wanted_reason = f"expected the reason {story.deed.reason!r}"
            assert told.reason == story.deed.reason, f"{story} ended as {told}: {wanted_reason}"
    _check_times(story, told)
    if not circumstances.is_server:
        _check_result(story, told)


def _in_words(ends: Collection[JobStatus]) -> str:
    words = [status.value for status in JobStatus if status in ends]
    if not words:
        return "that it never ends by itself"
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _check_times(story: Story, told: JobOutcome) -> None:
    in_order = f"{story} ended as {told}: expected that it is queued, starts and ends in this order"
    assert told.queued_at <= told.ended_at, in_order
    if told.started_at is not None:
        assert told.queued_at <= told.started_at <= told.ended_at, in_order
        assert told.pid is not None, f"{story} ended as {told}: expected a pid, for it had started"


def _check_result(story: Story, told: JobOutcome) -> None:
    error: BaseException | None = None
    value: Any = None
    try:
        value = story.handle.result()
    except BaseException as exc:  # noqa: BLE001 - whatever the job raised
        error = exc
    if told.status is JobStatus.SUCCEEDED:
        assert error is None, f"{story} ended as {told} and raised {error!r}"
        check = story.deed.check
        assert check is None or check(value), f"{story} returned {value!r}: its check says no"
    elif told.status is JobStatus.FAILED and told.exit is None:
        wanted: type[BaseException] = story.deed.raises or BaseException
        assert isinstance(error, wanted), f"{story} raised {error!r}: expected {wanted.__name__}"
    else:
        wanted = _RAISED.get(told.status, WorkerLost)
        assert isinstance(error, wanted), f"{story} ended as {told} and raised {error!r}"
