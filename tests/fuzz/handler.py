"""The supervisor's message handling, against children that say anything in any order.

An episode is one worker's life. It is played properly up to some point, then
hostile: broken messages, right ones out of order or for other jobs, descriptors
of odd kinds, bytes on the log socket, time that passes, nonsense in its mark and a
supervisor that reads it just then. Then the child dies, good
children run what is left, and it is looked at what must hold: every job has one
outcome, nothing raised on the loop, nothing is left open.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from ipc import fds
from ipc.frames import encode_frame
from ipc.messages import Started, encode
from supervisor import clock
from supervisor.handle import JobHandle
from supervisor.job import JobOutcome
from tests.fuzz.measure import Figures, watched
from tests.fuzz.mutate import FLOATS, NUMBERS, Mutator, from_log, from_worker
from tests.hostile.stage import Stage, finished, kinds_of_descriptors, stepped_loop

_SAMPLE_EVERY: Final = 200  # episodes
_JOBS: Final = ("J-1", "J-2")
_FIGURES: Final = (
    "handover_seconds",
    "cpu_seconds",
    "max_rss_bytes",
    "queued_at",
    "started_at",
    "ended_at",
)


def run(inputs: int, seed: int) -> Figures:
    """Send *inputs* hostile inputs into the supervisor's message handling.

    Raises:
        Hang: one was not done within the limit.
        AssertionError: something that must hold did not; the text names the episode.
    """
    figures = Figures("message handler", seed)
    with formats_everything(), stepped_loop() as loop, watched(figures):
        episode = 0
        while figures.inputs < inputs:
            chance = random.Random(f"{seed}/{episode}")
            _Episode(Stage(loop, **_options(chance)), chance, figures).play(episode)
            episode += 1
            if episode % _SAMPLE_EVERY == 0:
                figures.sample(of=inputs)
    return figures


def _options(chance: random.Random) -> dict[str, Any]:
    return {
        "num_idle_processes": chance.choice((0, 1, 2)),
        "max_jobs_per_process": chance.choice((1, 1, 2, None)),
        "shutdown_process_timeout": 1.0,
        "job_timeout": chance.choice((None, 5.0)),
    }


@contextlib.contextmanager
def formats_everything() -> Iterator[None]:
    """Log nothing anywhere, but make each record's text: formatting is part of handling."""
    root, ours = logging.getLogger(), logging.getLogger("greenroom")
    before = root.handlers, root.level, ours.level
    root.handlers = [_Formats()]
    root.setLevel(logging.DEBUG)
    ours.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.handlers = before[0]
        root.setLevel(before[1])
        ours.setLevel(before[2])


class _Formats(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)


class _Episode:
    def __init__(self, stage: Stage, chance: random.Random, figures: Figures) -> None:
        self._stage = stage
        self._chance = chance
        self._figures = figures
        self._mutator = Mutator(chance)
        self._deeds: tuple[Callable[[], None], ...] = (
            *[self._broken_message] * 8,
            *[self._message_out_of_order] * 4,
            self._half_a_frame,
            self._frame_with_descriptors,
            self._frame_with_descriptors,
            self._log,
            self._log,
            self._log_bytes,
            self._time_passes,
            self._is_cancelled,
            *[self._scribbles] * 3,
            self._is_looked_at,
        )

    def play(self, number: int) -> None:
        stage, chance = self._stage, self._chance
        handles = [
            stage.submit(job, data_only=chance.random() < 0.3, timeout=chance.choice((None, 5.0)))
            for job in _JOBS[: chance.randint(1, 2)]
        ]
        self._child = chance.choice(stage.children)
        self._live_properly(chance.choice((0, 1, 2, 3, 4, 4, 4)))
        for _ in range(chance.randint(1, 12)):
            with self._figures.timed():
                chance.choice(self._deeds)()
            if self._child.killed:
                self._figures.refused += 1
                break
            self._figures.accepted += 1
        self._child.exits(chance.choice((0, 1, 70)))
        stage.finish()
        self._check(number, handles)

    def _live_properly(self, depth: int) -> None:
        child, now = self._child, clock.monotonic()
        if depth >= 1:
            child.born()
        if depth >= 2:
            child.says(from_worker()[0])
        if depth >= 3:
            child.says(from_worker()[1])
        if depth >= 4:
            jobs = [each.job for each in child.hears() if hasattr(each, "job")]
            child.says(*[Started(job, now) for job in jobs])

    # ── hostile ──────────────────────────────────────────────────────────────

    def _job(self) -> str:
        """Return a job's name, most often that of a job that the child may have."""
        return self._chance.choice((*["J-1"] * 6, "J-2", "J-2", "J-3", "\0"))

    def _broken_message(self) -> None:
        payload = self._mutator.payload(from_worker(self._job()))
        for piece in self._mutator.cuts(self._mutator.frame(payload)):
            self._child.sends(piece)

    def _message_out_of_order(self) -> None:
        messages = [*from_worker(self._job()), finished(self._job())]
        said = [self._chance.choice(messages) for _ in range(self._chance.randint(1, 3))]
        self._child.sends(b"".join(encode_frame(encode(each)) for each in said))

    def _half_a_frame(self) -> None:
        whole = encode_frame(encode(self._chance.choice(from_worker())))
        self._child.sends(whole[: self._chance.randrange(1, len(whole))])

    def _frame_with_descriptors(self) -> None:
        sent = kinds_of_descriptors(self._chance)
        announced = self._chance.choice((0, 1, len(sent), 4))
        message = self._chance.choice((finished(self._job(), b""), *from_worker(self._job())))
        self._child.sends(encode_frame(encode(message), announced), sent)
        fds.close_all(sent)

    def _log(self) -> None:
        record = self._chance.choice(from_log())
        if self._chance.random() < 0.5:
            number = self._chance.choice([each for each in NUMBERS if isinstance(each, int)])
            if -(2**63) <= number < 2**64:
                record = msgspec.structs.replace(record, level=number)
            self._child.logs_frame(encode(record))
        else:
            self._child.logs_frame(self._mutator.payload([record]))

    def _log_bytes(self) -> None:
        self._child.logs_bytes(self._mutator.frame(self._mutator.payload(from_log())))

    def _scribbles(self) -> None:
        """Write into the mark what it is not meant for, through the descriptor that it came by."""
        chance, mark = self._chance, self._child.mark
        with contextlib.suppress(PermissionError):  # its size is sealed
            if chance.random() < 0.3:
                os.ftruncate(mark, chance.choice((0, 1, 7, 9, 4096, 2**40)))
            elif chance.random() < 0.5:
                os.pwrite(
                    mark, chance.randbytes(chance.choice((1, 7, 8, 64))), chance.randint(0, 9)
                )
            else:
                moment = chance.choice((*FLOATS, *self._moments()))
                os.pwrite(mark, struct.pack("d", moment), 0)

    def _moments(self) -> tuple[float, ...]:
        now = clock.monotonic()
        return (now, now - 1e-6, now - 0.5, now - 1e5, now + 1e-6, now + 0.5, now + 1e5, -now)

    def _is_looked_at(self) -> None:
        self._stage.loop.call_soon(self._stage.workers.learn_who_has_begun)
        self._stage.loop.turn()

    def _time_passes(self) -> None:
        self._stage.pass_time(self._chance.choice((0.01, 0.5, 2.0, 20.0, 100.0)))

    def _is_cancelled(self) -> None:
        self._chance.choice(self._stage.handles).cancel()
        self._stage.loop.turn()

    # ── what must hold ───────────────────────────────────────────────────────

    def _check(self, number: int, handles: list[JobHandle[Any]]) -> None:
        stage = self._stage
        where = f"episode {number} of seed {self._figures.seed}"
        assert not stage.errors, f"{where}: raised on the loop: {stage.errors}"
        for handle in handles:
            ended = stage.outcomes.get(handle.id, [])
            assert len(ended) == 1, f"{where}: {handle.id} has {len(ended)} outcomes"
            assert handle.done(), f"{where}: {handle} was not told"
        for outcome in itertools.chain(*stage.outcomes.values()):
            _check_figures(outcome, where)
        assert all(0.0 <= seconds < 1e6 for seconds in stage.warmed), f"{where}: {stage.warmed}"
        assert not stage.workers.all, f"{where}: left: {stage.workers.all}"
        assert stage.workers.census.alive == 0, f"{where}: {stage.workers.census}"


def _check_figures(outcome: JobOutcome, where: str) -> None:
    """What a child says of itself goes into metrics: no NaN, nothing below zero."""
    for name in _FIGURES:
        value = getattr(outcome, name)
        assert value is None or (math.isfinite(value) and value >= 0), f"{where}: {name} is {value}"
    if outcome.started_at is not None:
        assert outcome.queued_at <= outcome.started_at <= outcome.ended_at, f"{where}: {outcome}"
    msgspec.json.encode(outcome.as_dict(), enc_hook=str)
