"""The asyncio channel, over real socket pairs, with peers of every sort."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio

from ipc import fds
from ipc.aio import MAX_WAITING_BYTES, READ_BYTES, AsyncChannel
from ipc.channel import BlockingChannel
from ipc.errors import ChannelBroken, ChannelClosed, IpcError, PayloadTooLarge, ProtocolError
from ipc.frames import HEADER, MAX_FRAME_BYTES, encode_frame
from ipc.messages import (
    Decoder,
    Fork,
    FromWorker,
    Message,
    Ping,
    Pong,
    Ready,
    RunJob,
    Started,
    Stop,
    ToWorker,
    encode,
)

Pair = tuple[socket.socket, socket.socket]
Child = BlockingChannel[ToWorker]

PATIENCE = 20.0  # seconds; only a failing test waits so long


class Parent:
    """The supervisor's end, and a record of everything it was told."""

    def __init__(self, sock: socket.socket) -> None:
        self.messages: list[tuple[Message, list[int]]] = []
        self.ends: list[IpcError | None] = []
        self._changed = asyncio.Event()
        self.channel: AsyncChannel[FromWorker] = AsyncChannel(
            asyncio.get_running_loop(),
            sock,
            Decoder(FromWorker),
            on_message=self.on_message,
            on_end=self._on_end,
        )

    def on_message(self, message: Message, descriptors: list[int]) -> None:
        self.messages.append((message, descriptors))
        self._changed.set()

    def _on_end(self, error: IpcError | None) -> None:
        self.ends.append(error)
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something arrived that makes *condition* true."""
        async with asyncio.timeout(PATIENCE) if hasattr(asyncio, "timeout") else _no_limit():
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def end(self) -> IpcError | None:
        """Wait for the end and return what it was called with; it must be the only one."""
        await self.until(lambda: self.ends)
        await one_turn()
        [end] = self.ends
        assert self.channel.ended
        return end

    async def received(self, count: int) -> list[Message]:
        """Wait for *count* messages; return them. None of them may carry descriptors."""
        await self.until(lambda: len(self.messages) >= count)
        assert not any(descriptors for _, descriptors in self.messages)
        return [message for message, _ in self.messages]


class _no_limit:  # noqa: N801 - stands for asyncio.timeout, which Python 3.10 does not have
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


async def one_turn() -> None:
    """Let the loop run what is ready, callbacks of callbacks included."""
    for _ in range(5):
        await asyncio.sleep(0)
