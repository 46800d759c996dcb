"""The supervisor's side, real, and children that the test plays.

What is real: workers, their channels and log sockets, the queue, the outcomes,
the loop. What is played: the processes. A :class:`Child` holds the other ends of
a worker's sockets and says whatever the test wants, in any order; its birth and
its exit status are told by the stage, in the place of the fork server.

Nothing here waits. A turn of the loop handles what is there, and time passes
when :meth:`Stage.pass_time` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from ipc import fds
from ipc.frames import HEADER, FrameDecoder, Need, encode_frame
from ipc.messages import Decoder, Finished, Hello, Message, Ready, RunJob, Started, ToWorker, encode
from supervisor import clock
from supervisor.child.boot import Hooks, Settings
from supervisor.handle import JobHandle
from supervisor.job import Exit, ExitReport, JobInfo, JobOutcome
from supervisor.launch import Blueprint, SideOfChild
from supervisor.options import PoolOptions
from supervisor.outcome import Ask
from supervisor.record import JobRecord
from supervisor.settling import Listener
from supervisor.workers import Workers

# Above any pid of the kernel (PID_MAX_LIMIT is 2**22): a mistake here kills nobody.
_FIRST_PID: Final = 2**22 + 1
_PAYLOAD_MB: Final = 1


class SteppedLoop(asyncio.SelectorEventLoop):
    """A loop whose clock a test can put forward. Real time passes as well."""

    skew = 0.0

    def time(self) -> float:
        return super().time() + self.skew

    def turn(self, times: int = 3) -> None:
        """Handle what is there: bytes, timers that are due, and what follows from them."""
        for _ in range(times):
            self.call_soon(self.stop)
            self.run_forever()


@contextlib.contextmanager
def stepped_loop() -> Iterator[SteppedLoop]:
    """Provide a loop whose clock is also the supervisor's, for as long as the block lasts."""
    loop = SteppedLoop()
    loop.set_debug(False)  # it notes where each callback comes from: ten times as slow
    before = clock.monotonic
    # Not by assignment: for the library the clock is what it is.
    setattr(clock, "monotonic", lambda: time.monotonic() + loop.skew)  # noqa: B010
    try:
        yield loop
    finally:
        setattr(clock, "monotonic", before)  # noqa: B010
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


class Child:
    """A worker's process, as a test plays it."""

    def __init__(self, stage: Stage, number: int, ends: SideOfChild) -> None:
        self.number = number
        self.pid = _FIRST_PID + number
        self.killed = False
        self.gone = False
        self._stage = stage
        channel, logs, mark = ends.descriptors
        self.channel = _own(channel)
        self.logs = _own(logs)
        self.mark = os.dup(mark)
        ends.close()
        self._frames = FrameDecoder()
        self._decoder: Decoder[ToWorker] = Decoder(ToWorker)

    def born(self) -> None:
        """The fork server says that it exists."""
        self._stage.workers.launched(self.number, self.pid, None)
        self._stage.loop.turn()

    def says(self, *messages: Message) -> None:
        """Send well-formed messages and let the supervisor hear each."""
        for message in messages:
            self.sends(encode_frame(encode(message)))

    def sends(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send any bytes, with descriptors beside them, while the supervisor listens."""
        with contextlib.suppress(OSError):  # it has closed its end
            if descriptors:
                data = data[fds.send_with_descriptors(self.channel, data, descriptors) :]
                self._stage.loop.turn()
            while data:
                data = data[self.channel.send(data) :]
                self._stage.loop.turn()
        self._stage.loop.turn()

    def logs_frame(self, payload: bytes) -> None:
        """Send one frame on the log socket."""
        self.logs_bytes(HEADER.pack(len(payload), 0) + payload)

    def logs_bytes(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.logs.send(data)
        self._stage.loop.turn()

    def hears(self) -> list[ToWorker]:
        """Return what the supervisor has sent since the last look."""
        with contextlib.suppress(OSError):
            while data := self._receive():
                self._frames.feed(data)
        messages = []
        while not isinstance(frame := self._frames.next_frame(), Need):
            messages.append(self._decoder.decode(frame.payload))
        return messages

    def _receive(self) -> bytes:
        data, received, _ = fds.receive_with_descriptors(self.channel, 2**16)
        fds.close_all(received)
        return data

    def exits(self, status: int | None = None) -> None:
        """End, as the kernel would tell it: by SIGKILL if it was killed, else with *status*."""
        if self.gone:
            return
        self.gone = True
        self.close()
        how = Exit(signal=signal.SIGKILL) if self.killed else Exit(status=status or 0)
        self._stage.workers.exited(self.number, ExitReport(how, 0.0, 0))
        self._stage.loop.turn()

    def close(self) -> None:
        self.channel.close()
        self.logs.close()
        if self.mark >= 0:
            os.close(self.mark)
            self.mark = -1

    def gets_warm(self) -> None:
        """Do what a good child does until it is idle."""
        self.born()
        self.says(Hello(self.pid), Ready(0.001))

    def does_its_jobs(self) -> None:
        """Run what it was handed, as a good child does."""
        for message in self.hears():
            if isinstance(message, RunJob):
                now = clock.monotonic()
                self.says(Started(message.job, now), finished(message.job))


class Stage(Listener):
    """A pool's workers without processes.

    Args:
        loop: the loop; several stages may follow each other on it.
        options: the pool's.
    """

    def __init__(self, loop: SteppedLoop, **options: Any) -> None:
        self.loop = loop
        self.children: list[Child] = []
        self.errors: list[dict[str, Any]] = []
        self.outcomes: dict[str, list[JobOutcome]] = {}
        self.handles: list[JobHandle[Any]] = []
        self.warmed: list[float] = []
        loop.set_exception_handler(lambda _, context: self.errors.append(context))
        defaults = {"num_idle_processes": 1, "max_jobs": 2, "job_memory_warn_mb": 0}
        settings = PoolOptions(**{**defaults, "max_payload_mb": _PAYLOAD_MB, **options})
        self.workers = Workers(loop, settings, Blueprint(Hooks(), Settings()), self, gives_up=False)
        self.workers._supply._launcher = self
        self.workers._compare_soon()
        loop.turn()

    # ── the launcher, played ─────────────────────────────────────────────────

    async def start(self) -> float:
        return 0.0

    def launch(self, worker: int, ends: SideOfChild, *, awaited: bool) -> None:
        self.children.append(Child(self, worker, ends))

    def kill(self, worker: int, pid: int, pidfd: int | None) -> None:
        next(child for child in self.children if child.number == worker).killed = True

    async def close(self) -> None:
        """Nothing of the launcher's own is left."""

    # ── listening ────────────────────────────────────────────────────────────

    def worker_warm(self, worker: Any, seconds: float) -> None:
        self.warmed.append(seconds)

    def job_ended(self, job: JobRecord, result: JobOutcome) -> None:
        self.outcomes.setdefault(job.id, []).append(result)

    # ── for tests ────────────────────────────────────────────────────────────

    @property
    def child(self) -> Child:
        """The youngest child."""
        return self.children[-1]

    def submit(
        self,
        job: str = "J-1",
        *,
        data_only: bool = False,
        timeout: float | None = None,
        max_payload_bytes: int = _PAYLOAD_MB * 2**20,
    ) -> JobHandle[Any]:
        """Submit a job that nobody will really run."""
        handle: JobHandle[Any] = JobHandle(JobInfo(job), cancel=self._cancel)
        record = JobRecord(
            handle.id,
            handle,
            "call",
            b"never opened",
            clock.monotonic(),
            max_payload_bytes,
            data_only,
            timeout,
        )
        handle.record = record
        self.handles.append(handle)
        self.workers.submit(record)
        self.loop.turn()
        return handle

    def _cancel(self, handle: JobHandle[Any], reason: str) -> bool:
        return self.workers.stop_job(handle.record, Ask(reason))

    def running(self, job: str = "J-1", **options: Any) -> tuple[Child, JobHandle[Any]]:
        """Return a child that has begun *job*, and the job's handle."""
        child = self.child
        child.gets_warm()
        handle = self.submit(job, **options)
        child.says(Started(job, clock.monotonic()))
        return child, handle

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass at once."""
        self.loop.skew += seconds
        self.loop.turn()

    def bury(self) -> None:
        """Let those who were killed be dead."""
        for child in self.children:
            if child.killed:
                child.exits()

    def finish(self) -> None:
        """Let good children run what is left, and end everything. Then nothing is left."""
        for child in list(self.children):
            child.exits()
        for _ in range(100):
            if self.workers.jobs == 0:
                break
            self.pass_time(60.0)  # the backoff after failed warm-ups, and every grace
            for child in [each for each in self.children if not each.gone]:
                if child.pid not in {worker.pid for worker in self.workers.all}:
                    child.gets_warm()
                child.does_its_jobs()
                child.exits()
        closing = self.loop.create_task(self.workers.close(kill=True))
        for _ in range(100):
            self.loop.turn()
            self.bury()
            for child in self.children:
                if not child.gone and child.number in self.workers._all:
                    if self.workers._all[child.number].pid is None:
                        child.born()
                    child.exits()
            if closing.done():
                break
        assert closing.done(), f"these stay: {self.workers.all}"
        closing.result()


def finished(
    job: str, payload: bytes | None = b"\x80\x05N.", status: str = "succeeded"
) -> Finished:
    """Return what a child says at the end of a job."""
    now = clock.monotonic()
    return Finished(job, status, "", payload, None, now, now, 0.01, 4096)


def kinds_of_descriptors(chance: Any) -> list[int]:
    """Return up to four descriptors of odd kinds, the caller's to close."""
    makers = (
        lambda: fds.write_memory(b"\x80\x05K\x07."),
        lambda: fds.write_memory(bytes(2 * 2**20)),
        lambda: os.memfd_create("unsealed", os.MFD_ALLOW_SEALING),
        lambda: os.open("/dev/null", os.O_RDWR),
        lambda: os.open("/tmp", os.O_RDONLY),
        lambda: os.pidfd_open(os.getpid()),
        lambda: socket.socket(socket.AF_UNIX).detach(),
        os.dup,
    )
    made = []
    for _ in range(chance.randint(1, 4)):
        maker = chance.choice(makers)
        made.append(os.dup(0) if maker is os.dup else maker())
    return made


def _own(fd: int) -> socket.socket:
    own = socket.socket(fileno=os.dup(fd))
    own.setblocking(False)
    return own
