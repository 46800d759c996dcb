"""What one worker is, and what may happen to it next.

Rule 1: every transition of a worker is a cell of :data:`TABLE`. The state is
assigned in one place, ``Worker.apply``.

Rule 2: this file does no I/O and reads no clock. Timers, messages and exit
statuses reach it as events; what must be done leaves it as acts, which
``worker.py`` carries out.

Rule 3: every pair of state and event is decided, one of three ways: a step; a
step to itself (a late event: true when sent, of no consequence now); or no cell.
No cell means impossible. For an event of ours that is a bug of this library, and
it raises. For an event that a child's message causes (:data:`FROM_CHILD`) it
means that the child broke the protocol, and its worker is killed for it.

A worker's life::

    SPAWNING ──hello──► WARMING ──ready──► IDLE ◄──job done── RUNNING
        │                  │                │ └───hand over────►│
        │                  │              retire      stop job, timeout,
        │                  │                │          last job done
        │                  │                ▼                   │
        │                  └─setup failed─►STOPPING ◄───────────┘
        │ retire, timeout  │ the same       │ grace is over
        └──────────────────┴──────► KILLED ◄┘

    and from every state but REAPED: kill leads to KILLED, exited to REAPED.

Each state has at most one clock (:data:`CLOCKS`), and TIMEOUT means that this
one ran out.

Only the kernel moves a worker with a process to REAPED, by handing over its exit
status. A death is never inferred from silence: silence is answered with a kill.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class _Key(enum.Enum):
    """A member that is looked up in tables on a job's way to its worker."""

    # By identity, which for members is the same as by name, and needs no Python code.
    __hash__ = object.__hash__


class State(_Key):
    """What a worker is."""

    SPAWNING = "spawning"  # a process was asked for; it has not spoken
    WARMING = "warming"  # it said hello; setup_fnc is running
    IDLE = "idle"  # warm and without a job: this is what a spare is
    RUNNING = "running"  # a job was handed over
    STOPPING = "stopping"  # leaving, asked or by itself; the grace clock runs
    KILLED = "killed"  # SIGKILL was sent; only the exit status is missing
    REAPED = "reaped"  # exit status collected. Terminal.


class Event(_Key):
    """What somebody said or did."""

    HELLO = "hello"
    READY = "ready"
    SETUP_FAILED = "setup failed"
    JOB_DONE = "job done"  # and its process may serve another
    LAST_JOB_DONE = "last job done"  # its share is served; it leaves by itself
    HAND_OVER = "hand over"
    STOP_JOB = "stop job"
    RETIRE = "retire"
    TIMEOUT = "timeout"
    KILL = "kill"
    LAUNCH_FAILED = "launch failed"  # there is no process and there never was
    EXITED = "exited"


class Act(_Key):
    """What has to be done because of a step."""

    SEND_JOB = "send the job"
    ASK_TO_STOP = "ask it to stop"
    KILL = "kill its process group"
    OFFER = "offer it to the next job"
    COUNT_WARM = "count a successful warm-up"
    COUNT_FAILURE = "count a failed warm-up"
    COUNT_IDLE_DEATH = "count the death of an idle worker"
    SETTLE_JOB = "give its job an outcome, or hand it to the next worker"
    RELEASE = "close its descriptors and forget it"


Step = tuple[State, tuple[Act, ...]]

# Events that a message of the child causes. See Rule 3.
FROM_CHILD: Final = frozenset(
    {Event.HELLO, Event.READY, Event.SETUP_FAILED, Event.JOB_DONE, Event.LAST_JOB_DONE}
)

# The states that count as on their way to being idle.
COMING: Final = frozenset({State.SPAWNING, State.WARMING})

# The states that count as on their way out. Their memory is still taken.
GOING: Final = frozenset({State.STOPPING, State.KILLED})

# The one clock of each state, by the name of the option or constant behind it.
CLOCKS: Final[Mapping[State, str]] = {
    State.SPAWNING: "spawn_timeout",
    State.WARMING: "initialize_process_timeout",
    State.IDLE: "max_idle_age",
    State.RUNNING: "job_timeout",
    State.STOPPING: "shutdown_process_timeout",
}

_KILL: Final[Step] = (State.KILLED, (Act.KILL,))
_KILL_COMING: Final[Step] = (State.KILLED, (Act.KILL, Act.COUNT_FAILURE))
_STOP: Final[Step] = (State.STOPPING, (Act.ASK_TO_STOP,))
_GONE_COMING: Final[Step] = (State.REAPED, (Act.COUNT_FAILURE, Act.RELEASE))
_GONE: Final[Step] = (State.REAPED, (Act.SETTLE_JOB, Act.RELEASE))


def _late(state: State, *events: Event) -> dict[Event, Step]:
    return dict.fromkeys(events, (state, ()))


TABLE: Final[Mapping[State, Mapping[Event, Step]]] = {
    State.SPAWNING: {
        Event.HELLO: (State.WARMING, ()),
        Event.RETIRE: _KILL,  # it holds nothing of the user's yet: no need to ask
        Event.TIMEOUT: _KILL_COMING,
        Event.KILL: _KILL_COMING,
        Event.LAUNCH_FAILED: (State.REAPED, (Act.RELEASE,)),
        Event.EXITED: _GONE_COMING,
    },
    State.WARMING: {
        Event.READY: (State.IDLE, (Act.COUNT_WARM, Act.OFFER)),
        Event.SETUP_FAILED: (State.STOPPING, (Act.COUNT_FAILURE,)),
        Event.RETIRE: _KILL,  # nobody waits for it, and setup_fnc cannot be asked
        Event.TIMEOUT: _KILL_COMING,
        Event.KILL: _KILL_COMING,
        Event.EXITED: _GONE_COMING,
    },
    State.IDLE: {
        Event.HAND_OVER: (State.RUNNING, (Act.SEND_JOB,)),
        Event.RETIRE: _STOP,
        Event.TIMEOUT: _STOP,  # older than max_idle_age
        Event.KILL: _KILL,
        Event.EXITED: (State.REAPED, (Act.COUNT_IDLE_DEATH, Act.RELEASE)),
    },
    State.RUNNING: {
        Event.JOB_DONE: (State.IDLE, (Act.OFFER,)),
        Event.LAST_JOB_DONE: (State.STOPPING, ()),
        Event.STOP_JOB: _STOP,
        Event.TIMEOUT: _STOP,  # the job's own timeout
        Event.KILL: _KILL,
        Event.EXITED: _GONE,
    },
    State.STOPPING: {
        # The job may end while our request is on its way.
        **_late(State.STOPPING, Event.JOB_DONE, Event.LAST_JOB_DONE),
        **_late(State.STOPPING, Event.STOP_JOB, Event.RETIRE),
        Event.TIMEOUT: _KILL,  # the grace is over
        Event.KILL: _KILL,
        Event.EXITED: _GONE,
    },
    State.KILLED: {
        # What it said before the signal hit it.
        **_late(State.KILLED, *FROM_CHILD),
        **_late(State.KILLED, Event.STOP_JOB, Event.RETIRE, Event.TIMEOUT, Event.KILL),
        # The launcher found no process to kill.
        Event.LAUNCH_FAILED: _GONE,
        Event.EXITED: _GONE,
    },
    # Terminal: its channel is closed, so nothing of the child's can arrive; a
    # timer or a caller that held on to it may still come.
    State.REAPED: _late(State.REAPED, Event.STOP_JOB, Event.RETIRE, Event.TIMEOUT, Event.KILL),
}


class IllegalTransition(Exception):
    """An event reached a worker in a state where it cannot happen.

    Outside the library's error tree: unless a child caused it, it is our bug.
    """

    def __init__(self, state: State, event: Event) -> None:
        self.state = state
        self.event = event
        super().__init__(state, event)

    def __str__(self) -> str:
        return f"{self.event.name} reached a worker in {self.state.name}"


def step(state: State, event: Event) -> Step:
    """Return the state after *event* in *state*, and what has to be done.

    Raises:
        IllegalTransition: the pair has no cell.
    """
    try:
        return TABLE[state][event]
    except KeyError:
        raise IllegalTransition(state, event) from None


def describe() -> str:
    """Return the table as text, one cell a line, in the order of the enums."""
    lines = []
    for state in State:
        for event in Event:
            cell = TABLE[state].get(event)
            if cell is None:
                continue
            after, acts = cell
            told = f" [{', '.join(act.value for act in acts)}]" if acts else ""
            lines.append(f"{state.value:9} ── {event.value:13} ──► {after.value}{told}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(describe())  # noqa: T201 - asked for on the command line
