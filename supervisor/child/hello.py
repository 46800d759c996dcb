"""A worker's first words to the supervisor; its last where it cannot become one."""

from __future__ import annotations

import os
import socket
from typing import Final

from ipc.channel import BlockingChannel
from ipc.errors import IpcError
from ipc.messages import Decoder, Hello, SetupError, ToWorker
from supervisor.child.answer import error_text
from supervisor.child.boot import Ends
from supervisor.child.control import die_with_group

# Made once, in the process that workers are forked from.
DECODER: Final[Decoder[ToWorker]] = Decoder(ToWorker)


def say_hello(ends: Ends, *, at_once: bool = True) -> BlockingChannel[ToWorker]:
    """Open the channel and tell the supervisor that this process runs our code.

    Args:
        ends: the worker's.
        at_once: False where no code of the user can keep the next message from following.
    """
    channel = BlockingChannel(socket.socket(fileno=ends.channel), DECODER)
    hello = Hello(os.getpid())
    if at_once:
        channel.send(hello)
    else:
        channel.hold(hello)
    return channel


def report_failure(channel: BlockingChannel[ToWorker], error: BaseException) -> None:
    """Tell the supervisor why this process cannot become a worker."""
    try:
        channel.send(SetupError(error_text(error), "the worker's start"))
    except IpcError:
        die_with_group()
