"""A channel on an asyncio loop: the supervisor's end. It never waits.

Reading: the loop calls us when there are bytes; we read once, feed the decoder
and hand each message on. One read a turn, so that a peer that floods us gets
its share of the loop and no more.

Writing: what the kernel takes at once is gone at once, without a task switch;
that is the whole hand-over of a job. What it does not take waits in a bounded
buffer. A peer that lets the buffer fill up is not reading: that is reported like
any other broken channel.

Why not asyncio's streams: they have no descriptor passing, and they cost two
task switches a message.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from ipc import fds
from ipc.errors import ChannelBroken, ChannelClosed, IpcError, ProtocolError
from ipc.frames import HEADER, MAX_FRAME_BYTES, Frame, FrameDecoder, Need
from ipc.messages import Decoder, Message, framed

M = TypeVar("M")

READ_BYTES: Final = 64 * 1024

# What may wait for a peer that is slow to read: two of the largest frames, so
# that one large message never makes a healthy peer look dead.
MAX_WAITING_BYTES: Final = 2 * MAX_FRAME_BYTES

# Reads that take what a dead peer left: more than a socket buffer holds (it is
# under 1 MiB) even if some reads end early at a descriptor. The end is needed: a
# living peer, or a stray that holds a dead one's socket, may write for ever.
_LAST_READS: Final = 32

# Descriptors nobody announced yet. More than this is a peer that sends them for
# the sake of filling our table.
_MAX_UNCLAIMED: Final = 16


class AsyncChannel(Generic[M]):
    """Send without waiting, be told of each message that arrives.

    Args:
        loop: the loop that everything runs on.
        sock: a connected stream socket; owned by the channel from here on.
        decoder: for the messages that arrive here.
        on_message: called with each message and its descriptors, which are the
            callee's to close. Must not raise.
        on_end: called once, when no more will come: with None at a clean end of
            stream, else with what went wrong. The channel still has to be closed.

    Runs on: the loop, every method.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        decoder: Decoder[M],
        *,
        on_message: Callable[[M, list[int]], None],
        on_end: Callable[[IpcError | None], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._decoder = decoder
        self._on_message = on_message
        self._on_end = on_end
        self._frames = FrameDecoder()
        self._descriptors: deque[int] = deque()
        # Positions in the stream: what was fed, and up to where the kernel may
        # have dropped descriptors because this process may open no more.
        self._fed = 0
        self._without_descriptors_before = 0
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._waiting_bytes = 0
        self._ended = False
        self._failure: ChannelBroken | None = None  # why nothing can be sent any more
        self._closed = False
        sock.setblocking(False)
        loop.add_reader(self._fd, self._readable)

    @property
    def ended(self) -> bool:
        """True once ``on_end`` was called or the channel was closed."""
        return self._ended or self._closed

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send *message*, or leave it in the buffer until the peer reads.

        The descriptors are duplicated where they must wait; the caller may close
        its own as soon as this returns.

        Raises:
            ProtocolError: it is over the frame limit, or cannot be encoded. Nothing
                was sent.
            ChannelClosed: this end was closed.
            ChannelBroken: the peer is gone, or does not read. ``on_end`` follows,
                unless it was called already.
            OSError: EMFILE or ENFILE, for a descriptor that must wait. Nothing was
                sent.
        """
        if self._closed:
            raise ChannelClosed("this end of the channel was closed")
        if self._failure is not None:
            raise ChannelBroken(*self._failure.args)
        data = framed(message, len(descriptors))
        if self._waiting:
            self._queue(data, descriptors)
            return
        try:
            # Mostly without _write, which is one function more on a job's way.
            sent = self._write(data, descriptors) if descriptors else self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as exc:
            raise self._broken(exc) from exc
        if sent < len(data):
            self._queue(data[sent:], () if sent else descriptors)

    def drain_received(self) -> None:
        """Read and hand on whatever the kernel holds, before the peer is judged.

        A dead peer's last words are in the socket when its death is known; and what a
        living one said in time, while this loop stood still. It counts.
        """
        for _ in range(_LAST_READS):
            if self.ended or not self._read_once():
                return

    def close(self) -> None:
        """Close the socket and every descriptor that nobody took. May be called again."""
        if self._closed:
            return
        self._closed = True
        if not self._ended:
            self._unwatch()
        fds.close_socket(self._sock)
        fds.close_strangers(self._descriptors)
        self._descriptors.clear()
        for _, descriptors in self._waiting:
            fds.close_all(descriptors)
        self._waiting.clear()

    # ── reading ──────────────────────────────────────────────────────────────

    def _readable(self) -> None:
        self._read_once()

    def _read_once(self) -> bool:
        """Read once; say whether it is worth reading again."""
        try:
            data, received, dropped = fds.receive_with_descriptors(self._sock, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as exc:
            self._end(ChannelBroken(f"the peer is gone: {exc.strerror}"))
            return False
        self._fed += len(data)
        if dropped:
            # Which of them are missing cannot be told, so every message that has
            # begun by now counts as having come without. Their receivers see that.
            fds.close_strangers(received)
            fds.close_strangers(self._descriptors)
            self._descriptors.clear()
            self._without_descriptors_before = self._fed
        else:
            self._descriptors.extend(received)
        self._frames.feed(data)
        try:
            self._hand_on()
        except ProtocolError as exc:
            self._end(exc)
        return not self.ended

    def _hand_on(self) -> None:
        while not self._closed:
            frame = self._frames.next_frame()
            if frame is Need.NOTHING:
                self._end(None)
                return
            if isinstance(frame, Need):
                if len(self._descriptors) > _MAX_UNCLAIMED:
                    raise ProtocolError("the peer sends descriptors that it does not announce")
                return
            mine = self._descriptors_of(frame) if frame.descriptors else []
            try:
                message = self._decoder.decode(frame.payload)
            except ProtocolError:
                fds.close_strangers(mine)
                raise
            self._on_message(message, mine)

    def _descriptors_of(self, frame: Frame) -> list[int]:
        begins = self._fed - self._frames.buffered - HEADER.size - len(frame.payload)
        if begins < self._without_descriptors_before:
            return []
        count = frame.descriptors
        if len(self._descriptors) < count:
            raise ProtocolError(f"{count} descriptors announced, {len(self._descriptors)} came")
        return [self._descriptors.popleft() for _ in range(count)]

    # ── writing ──────────────────────────────────────────────────────────────

    def _write(self, data: bytes, descriptors: Sequence[int]) -> int:
        try:
            if descriptors:
                return fds.send_with_descriptors(self._sock, data, descriptors)
            return self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    def _queue(self, data: bytes, descriptors: Sequence[int]) -> None:
        waiting_bytes = self._waiting_bytes + len(data)
        if waiting_bytes > MAX_WAITING_BYTES:
            raise self._end_soon(ChannelBroken(f"the peer leaves {waiting_bytes} bytes unread"))
        self._waiting.append((data, fds.duplicate(descriptors)))
        self._waiting_bytes = waiting_bytes
        if len(self._waiting) == 1:
            self._loop.add_writer(self._fd, self._writable)

    def _writable(self) -> None:
        while self._waiting:
            data, descriptors = self._waiting[0]
            try:
                sent = self._write(data, descriptors)
            except OSError as exc:
                self._loop.remove_writer(self._fd)
                self._broken(exc)
                return
            if sent == 0:
                return
            fds.close_all(descriptors)
            self._waiting_bytes -= sent
            if sent < len(data):
                self._waiting[0] = (data[sent:], ())
                return
            self._waiting.popleft()
        self._loop.remove_writer(self._fd)

    # ── the end ──────────────────────────────────────────────────────────────

    def _broken(self, exc: OSError) -> ChannelBroken:
        # What the peer said before it went is still to be read, so a failed send
        # ends the channel only after the reader has come to the end by itself.
        # A peer that only closed its reading half would never get there: hence
        # the call on the next turn.
        return self._end_soon(ChannelBroken(f"the peer is gone: {exc.strerror}"))

    def _end_soon(self, error: ChannelBroken) -> ChannelBroken:
        def end() -> None:
            self.drain_received()
            self._end(error)

        # From here on nothing is sent: after a message that was dropped, the
        # next one would arrive in its place.
        self._failure = error
        self._loop.call_soon(end)
        return error

    def _end(self, error: IpcError | None) -> None:
        if self.ended:
            return
        self._ended = True
        if self._failure is None:
            self._failure = ChannelBroken("the peer has ended the channel")
        self._unwatch()
        self._on_end(error)

    def _unwatch(self) -> None:
        self._loop.remove_reader(self._fd)
        if self._waiting:
            self._loop.remove_writer(self._fd)
