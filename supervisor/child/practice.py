"""What each worker will do, done often enough beforehand in the process that workers are forked from.

Since Python 3.11 the interpreter rewrites a function's code during its first calls.
In a worker each such write would cost a page of its own, in every worker anew. Done
here, workers share the pages as they are.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
from typing import Final

from ipc.channel import BlockingChannel
from ipc.messages import Decoder, Finished, RunJob, Started, ToWorker
from supervisor import travel
from supervisor.child.context import JobContext, JobProcess
from supervisor.job import JobInfo, Session

# More than the interpreter's warm-up of any instruction; in all a few milliseconds.
ROUNDS: Final = 20

_decoder: Final[Decoder[ToWorker]] = Decoder(ToWorker)


def practise() -> None:
    """Run the parts of a worker's life that leave nothing behind. Single-threaded."""
    for _ in range(ROUNDS):
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(_tasks())
        finally:
            loop.close()
        _talk()


async def _tasks() -> None:
    task = asyncio.get_running_loop().create_task(asyncio.sleep(0))
    await asyncio.wait({task}, return_when=asyncio.FIRST_COMPLETED)


def _talk() -> None:
    ours, theirs = socket.socketpair()
    near: BlockingChannel[ToWorker] = BlockingChannel(ours, _decoder)
    far: BlockingChannel[ToWorker] = BlockingChannel(theirs, _decoder)
    try:
        near.send(RunJob("practice", "call", True, travel.pack_call(_nothing, (), {})))
        received = far.receive()
        assert received is not None
        job = received[0]
        assert isinstance(job, RunJob)
        JobContext(JobProcess(), Session(JobInfo(job.job)))
        function, args, kwargs = pickle.loads(job.body)  # our own bytes
        result = travel.pack(function(*args, **kwargs), "the result")
        far.send(Started(job.job, 0.0))
        far.send(Finished(job.job, "succeeded", "", result, None, 0.0, 0.0, 0.0, 0))
    finally:
        near.close()
        far.close()


def _nothing() -> None:
    """The job of the practice."""
