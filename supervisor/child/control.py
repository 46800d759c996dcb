"""The thread that talks to the supervisor while user code has the main thread.

The channel has one reader at a time, and the turn is passed explicitly:

* while the worker is idle, its main thread blocks in ``recv`` itself, so that a
  job reaches user code without a switch between threads;
* while user code runs (``setup_fnc``, a job), this thread reads: it answers
  pings, takes requests to stop, and sees the end of the channel, whatever the
  main thread is doing.

It takes its turn when the supervisor rings, which it does some milliseconds after a
job has begun, if it is not over by then. A thread that is woken in the very moment
when a job begins competes with the job, for the CPU and for the interpreter's lock;
most short jobs are over before anybody would have had something to say to them; and
no system call is needed here for any of it. The bell is the log socket, on which the
supervisor has nothing else to say.

It blocks on nothing but the channel, the bell and its wake-up pipe. The end of
the channel means that the supervisor is gone; then the whole group goes at once.
"""

from __future__ import annotations

import _thread
import asyncio
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final, NoReturn

from ipc import fds
from ipc.channel import BlockingChannel
from ipc.errors import ChannelBroken, IpcError
from ipc.frames import Need
from ipc.messages import DrainBegan, Lagging, Ping, Pong, Stop, ToWorker, cut
from supervisor.child.lag import LagProbe, Loop
from supervisor.child.strays import kill_descendants

# A moment may be as far away as infinity, and poll takes 24 days at most.
_LONGEST_WAIT: Final = 3600.0

# How soon a request to stop that nobody acted on is repeated, in seconds: too late to
# be felt by a job that stops at once, early enough in any grace.
_REPEAT_SECONDS: Final = 0.1

# How soon it is repeated where it was lost: by then the main thread is elsewhere.
_SOON: Final = 0.005

# The interpreter's switch interval while a request to stop is repeated. With 5 ms the thread that
# repeats it may be kept from the lock for seconds; with this, for 5 ms where code lets go of it
# less often than each 100 µs, and 0.3 s where it does more often (measured). Seconds.
_SWITCHING: Final = 1e-5

# How long the main thread leaves the interpreter to this one, which mostly needs 100 µs: a
# machine that does not run it for so long has other threads that want the lock. Seconds.
_WAY: Final = 0.2

# How long the stack of a stuck loop may be on the wire.
_STACK_TEXT: Final = 8 * 1024

_OUR_FILES: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_ASYNCIO_FILES: Final = os.path.dirname(asyncio.__file__) + os.sep


def die_with_group() -> NoReturn:
    """End this process, its descendants and everything in its group, for certain."""
    kill_descendants()
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(137)


class ControlThread:
    """Serve the channel whenever the main thread has given it away.

    Args:
        channel: the worker's channel.
        bell: the worker's log socket.
        on_stop: called with a Stop, in this thread.
        on_drain: called with a DrainBegan, in this thread.
        repeat_stop: asks the main thread once more if it has not acted on a request
            to stop; returns whether it had not.
        lag_threshold: seconds that the job's loop may stand still before its
            stack is reported.
    """

    def __init__(
        self,
        channel: BlockingChannel[ToWorker],
        bell: socket.socket,
        *,
        on_stop: Callable[[Stop], None],
        on_drain: Callable[[DrainBegan], None],
        repeat_stop: Callable[[], bool],
        lag_threshold: float,
    ) -> None:
        self._channel = channel
        self._bell = bell
        self._on_stop = on_stop
        self._on_drain = on_drain
        self._repeat_stop = repeat_stop
        self._repeat_at: float | None = None
        self._usual_switching: float | None = None  # while it is shorter
        self._probe = LagProbe(lag_threshold, self._report_lag)
        self._main = threading.get_ident()
        # Whose turn it is. Given is not taken: the thread takes it when it is rung for.
        self._turn_lock = threading.Lock()
        self._given = False
        self._taken = False
        self._bell_is_gone = False
        self._on_turn: Callable[[], None] | None = None
        # A lock as baton: released by one thread and acquired by the other.
        self._returned = threading.Lock()
        self._returned.acquire()
        self._wake_reader, self._wake_writer = os.pipe()
        # The same for what the main thread waits for in give_way.
        self._let_in = threading.Lock()
        self._let_in.acquire()
        self._is_let_in = False
        self._alarm: tuple[float, Callable[[], None]] | None = None

    def start(self) -> None:
        """Start the thread, without the channel. Runs on: the main thread.

        Below ``threading``, which would wait for the thread to say that it runs: a
        switch there and back for each worker that is born, and forty pages.
        """
        _thread.start_new_thread(self._run, ())

    def close(self) -> None:
        """Close its descriptors. For one whose thread was never started."""
        fds.close_all((self._wake_reader, self._wake_writer))

    def use(self, channel: BlockingChannel[ToWorker]) -> None:
        """Serve *channel* from the next turn on. Runs on: the main thread, on its turn."""
        self._channel = channel

    def give(self, on_turn: Callable[[], None] | None = None) -> None:
        """Let the thread have the channel when the bell rings; it first calls *on_turn*.

        To be called before the supervisor can see that the job has begun: it rings no more
        then. Runs on: the main thread. Returns at once.
        """
        self._on_turn = on_turn
        self._given = True
        # After that, not before: the thread looks at the two the other way round.
        if self._bell_is_gone:
            self._wake()

    def give_now(self) -> None:
        """Give the thread the channel without waiting for the bell. Runs on: the main thread."""
        self.give()
        self._wake()

    def _wake(self) -> None:
        os.write(self._wake_writer, b"g")

    def take_back(self) -> None:
        """Take the channel back; when this returns the thread does not touch it.

        Runs on: the main thread.
        """
        with self._turn_lock:
            self._given = False
            taken, self._taken = self._taken, False
        self._alarm = None
        if taken:
            os.write(self._wake_writer, b"b")
            self._returned.acquire()
        self._switch_as_usual()  # now: the thread may have repeated something until now

    def give_way(self) -> bool:
        """Leave the interpreter to the thread until it has done what there was to do.

        A thread that wants the interpreter's lock asks for it when it has not changed hands
        for 5 ms, and one that is woken because it is free comes some 50 µs later. From code
        that lets go of it for a microsecond, time and again, as each turn of a busy event loop
        does, it may get nothing for as long as that goes on.

        Runs on: the main thread, wherever that is. Returns after 0.2 seconds at the latest, at
        once and False if the main thread has the channel itself.
        """
        if not self._given:
            return False
        self._let_in.acquire(blocking=False)  # what came too late, the last time
        os.write(self._wake_writer, b"l")
        self._let_in.acquire(timeout=_WAY)
        return True

    def watch_loop(self, loop: Loop | None) -> None:
        """Probe *loop* for lag at each ping from now on; None: stop that."""
        self._probe.loop = loop

    def set_alarm(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call *callback* in this thread *seconds* from now, if it still serves then.

        One alarm at a time; a new one replaces it. Runs on: any thread.
        """
        self._alarm = (time.monotonic() + seconds, callback)
        os.write(self._wake_writer, b"a")

    def repeat_soon(self) -> None:
        """Repeat the request to stop, which was lost. Runs on: the main thread."""
        self._repeat_in(_SOON)
        os.write(self._wake_writer, b"r")

    # ── the thread ───────────────────────────────────────────────────────────

    def _run(self) -> None:
        waiting = select.poll()
        waiting.register(self._bell.fileno(), select.POLLIN)
        waiting.register(self._wake_reader, select.POLLIN)
        while True:
            try:
                self._heard(waiting, dict(waiting.poll()))
                if not self._take_turn():
                    continue  # the job was over first
                if self._on_turn is not None:
                    self._on_turn()
                self._serve()
            except ChannelBroken:
                die_with_group()
            except (IpcError, OSError, MemoryError) as exc:
                # The supervisor's messages are ours, so this is a bug of the library; or
                # the job closed descriptors that are not its own, or has used up its memory.
                sys.stderr.write(f"greenroom: worker {os.getpid()}: {exc}\n")
                die_with_group()
            self._returned.release()

    def _heard(self, waiting: select.poll, ready: dict[int, int]) -> None:
        """Take what woke the thread off its descriptors, so that the next wait is one."""
        if self._wake_reader in ready:
            self._awoken()
        bell = [fd for fd in ready if fd != self._wake_reader]
        if bell and not self._ring_was_read():
            # The supervisor is gone, which the channel tells as well, or the job has
            # closed a descriptor that is not its own. From now on each turn is taken at once.
            waiting.unregister(bell[0])
            self._bell_is_gone = True

    def _awoken(self) -> bytes:
        what_for = os.read(self._wake_reader, 64)
        self._is_let_in = self._is_let_in or b"l" in what_for
        return what_for

    def _ring_was_read(self) -> bool:
        try:
            return self._bell.recv(64, socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True  # read by a process that the job has forked
        except OSError:
            return False

    def _take_turn(self) -> bool:
        with self._turn_lock:
            self._taken = self._given
        return self._taken

    def _serve(self) -> None:
        """Serve the channel until it is wanted back."""
        poll = select.poll()
        poll.register(self._wake_reader, select.POLLIN)
        poll.register(self._channel.fileno(), select.POLLIN)
        while True:
            while not isinstance(taken := self._channel.next_buffered(), Need):
                self._handle(*taken)
            if taken is Need.NOTHING:
                die_with_group()
            ready = dict(poll.poll(self._patience()))
            self._ring_alarm()
            self._repeat()
            self._probe.check(time.monotonic())
            if self._wake_reader in ready and b"b" in self._awoken():
                return
            if self._channel.fileno() in ready:
                self._channel.fill()
            elif self._is_let_in and not ready:
                self._thank()

    def _thank(self) -> None:
        """Give the interpreter back to the main thread, if that still waits."""
        self._is_let_in = False
        if self._let_in.locked():
            self._let_in.release()

    def _handle(self, message: ToWorker, descriptors: list[int]) -> None:
        fds.close_all(descriptors)
        if isinstance(message, Ping):
            self._channel.send(Pong(message.number))
            self._probe.begin(time.monotonic())
        elif isinstance(message, Stop):
            self._on_stop(message)
            self._repeat_in(_REPEAT_SECONDS)
        elif isinstance(message, DrainBegan):
            self._on_drain(message)
        else:
            raise IpcError(f"{type(message).__name__} came while a job runs")

    def _patience(self) -> float | None:
        """Return how long to wait, in milliseconds; None for ever."""
        if self._is_let_in:
            return 0
        all_moments = (self._probe.due, self._alarm_at(), self._repeat_at)
        moments = [moment for moment in all_moments if moment is not None]
        if not moments:
            return None
        seconds = max(0.0, min(moments) - time.monotonic())
        return min(seconds, _LONGEST_WAIT) * 1000 + 1

    def _repeat(self) -> None:
        if self._repeat_at is not None and time.monotonic() >= self._repeat_at:
            self._repeat_at = None  # first: the main thread may set it at any time
            if self._repeat_stop():
                self._repeat_in(_REPEAT_SECONDS)
            else:
                self._switch_as_usual()

    def _repeat_in(self, seconds: float) -> None:
        self._repeat_at = time.monotonic() + seconds
        usual = sys.getswitchinterval()
        if usual > 2 * _SWITCHING:  # not so yet
            self._usual_switching = usual
            sys.setswitchinterval(_SWITCHING)

    def _switch_as_usual(self) -> None:
        usual, self._usual_switching = self._usual_switching, None
        if usual is not None:
            sys.setswitchinterval(usual)

    def _alarm_at(self) -> float | None:
        alarm = self._alarm
        return None if alarm is None else alarm[0]

    def _ring_alarm(self) -> None:
        alarm = self._alarm
        if alarm is not None and time.monotonic() >= alarm[0]:
            self._alarm = None
            alarm[1]()
            self._repeat_in(_REPEAT_SECONDS)

    def end_stuck(self, seconds: float, why: str) -> NoReturn:
        """Send the main thread's stack and *why*, and end this process with its group.

        Runs on: this thread.
        """
        self._report_lag(seconds, why)
        die_with_group()

    def _report_lag(self, seconds: float, fatal: str = "") -> None:
        # Not logged here: a log call may have to wait for the supervisor, and pings
        # would wait with it.
        frame = sys._current_frames().get(self._main)
        stack = "" if frame is None else "".join(_users_part(traceback.extract_stack(frame)))
        self._channel.send(Lagging(seconds, cut(stack, _STACK_TEXT), fatal))


def _users_part(frames: traceback.StackSummary) -> list[str]:
    """Return the stack from the user's first line on: what is above it is always the same."""
    ours = [n for n, frame in enumerate(frames) if frame.filename.startswith(_OUR_FILES)]
    below = frames[ours[-1] + 1 :] if ours else frames
    theirs = [frame for frame in below if not frame.filename.startswith(_ASYNCIO_FILES)]
    return traceback.format_list(theirs or list(below))
