"""The handling of the fork server's messages, against a fork server that says anything.

It is our own code with the user's ``preload_fnc`` in it, and it names pids that get
signals: so it is believed only about workers that it was asked for, and only when
the pidfd beside a pid is that pid's.
"""

from __future__ import annotations

import os
import random
import signal
from typing import Any, Final

from ipc import fds
from ipc.aio import AsyncChannel
from ipc.frames import encode_frame
from ipc.messages import Exited, Forked, encode
from supervisor import forkserver
from supervisor.child.boot import Hooks, Settings
from supervisor.familiar import Familiar
from supervisor.job import Exit, ExitReport
from supervisor.launch import Blueprint, make_ends
from supervisor.options import PoolOptions
from supervisor.settling import Listener
from supervisor.workers import Workers
from tests.fuzz.handler import formats_everything
from tests.fuzz.measure import Figures, watched
from tests.fuzz.mutate import Mutator, from_fork_server
from tests.hostile.stage import Child, SteppedLoop, kinds_of_descriptors, stepped_loop

_SAMPLE_EVERY: Final = 100  # episodes
_NO_PID: Final = 2**22 + 7


def run(inputs: int, seed: int) -> Figures:
    """Send *inputs* broken messages in the fork server's name.

    Raises:
        Hang: one was not done within the limit.
        AssertionError: something raised on the loop, or a worker was left.
    """
    figures = Figures("fork server", seed)
    with formats_everything(), stepped_loop() as loop, watched(figures):
        episode = 0
        while figures.inputs < inputs:
            _episode(loop, random.Random(f"{seed}/{episode}"), figures, episode)
            episode += 1
            if episode % _SAMPLE_EVERY == 0:
                figures.sample(of=inputs)
    return figures


class _Process:
    """The fork server's process, in name only."""

    pid = _NO_PID
    killed = False

    def kill_group(self) -> None:
        self.killed = True

    def send_signal(self, number: signal.Signals) -> None:
        """Nobody is there."""

    def reap(self) -> ExitReport:
        return ExitReport(Exit(signal=signal.SIGKILL), 0.0, 0)


class Impostor:
    """A fork server whose process a test plays, and the workers that rely on it."""

    def __init__(self, loop: SteppedLoop) -> None:
        self.loop = loop
        self.errors: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: self.errors.append(context))
        blueprint = Blueprint(Hooks(), Settings())
        options = PoolOptions(num_idle_processes=2, max_jobs=1)
        self.workers = Workers(loop, options, blueprint, Listener(), gives_up=False)
        supply = self.workers._supply
        self.server = forkserver.ForkServer(loop, blueprint, supply, 10.0, Familiar())
        near, far = make_ends(capture_output=False)
        near.logs.close()
        os.close(near.mark)
        self.server._channel = AsyncChannel(
            loop,
            near.channel,
            forkserver._decoder,
            on_message=self.server._received,
            on_end=self.server._ended,
        )
        self.process = _Process()
        self.server._process = self.process  # type: ignore[assignment]  # in name only
        self.server._serving = True
        supply._launcher = self.server
        supply._closed = True  # nobody starts a real one in its place
        self.child = Child(self, 0, far)  # type: ignore[arg-type]  # it needs the loop only
        self.workers._compare_soon()
        loop.turn()

    @property
    def asked(self) -> list[int]:
        """The workers that it was asked for and has not announced."""
        return sorted(self.server._asked)

    def ends(self) -> None:
        """Its process ends, and with it everything."""
        self.child.close()
        self.server._exited()
        self.workers.launcher_lost(Exit())
        self.loop.turn()
        self.workers._closed = self.workers._draining = True


def _episode(loop: SteppedLoop, chance: random.Random, figures: Figures, number: int) -> None:
    impostor = Impostor(loop)
    mutator = Mutator(chance)
    for _ in range(chance.randint(1, 6)):
        with figures.timed():
            _deed(impostor, mutator, chance)
        if impostor.process.killed:
            figures.refused += 1
            break
        figures.accepted += 1
    impostor.ends()
    where = f"episode {number} of seed {figures.seed}"
    assert not impostor.errors, f"{where}: raised on the loop: {impostor.errors}"
    assert not impostor.workers.all, f"{where}: left: {impostor.workers.all}"


def _deed(impostor: Impostor, mutator: Mutator, chance: random.Random) -> None:
    worker = chance.choice((*impostor.asked, 1, 99))
    kind = chance.random()
    if kind < 0.2 and impostor.asked:
        impostor.child.says(Forked(impostor.asked[0], _NO_PID + worker))
    elif kind < 0.3:
        impostor.child.says(Exited(worker, chance.choice((0, 9, 256, 0x7F)), 0.1, 4096))
    elif kind < 0.5:
        sent = kinds_of_descriptors(chance)
        message = chance.choice((Forked(worker, _NO_PID), *from_fork_server(worker)))
        impostor.child.sends(encode_frame(encode(message), chance.choice((1, len(sent)))), sent)
        fds.close_all(sent)
    else:
        payload = mutator.payload(from_fork_server(worker))
        for piece in mutator.cuts(mutator.frame(payload)):
            impostor.child.sends(piece)
