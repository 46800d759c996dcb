"""A channel for code that may block: the children's end.

One socket, a decoder fed from it, and a lock around sending. Receiving has no
lock: one thread at a time reads, and which one that is, is the business of
whoever owns the channel (see ``supervisor.child.control``).
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from ipc import fds
from ipc.errors import ChannelBroken, ChannelClosed, ProtocolError
from ipc.frames import HEADER, FrameDecoder, Need
from ipc.messages import Decoder, Message, framed

M = TypeVar("M")

# One read. Larger than any control message, so that a read takes what there is.
READ_BYTES = 64 * 1024

# Of a frame: where it says how many descriptors came with it, and where its payload begins.
_PAYLOAD_AT: Final = HEADER.size
_COUNT_AT: Final = _PAYLOAD_AT - 1
_NO_DESCRIPTORS: Final = b"\0"


class BlockingChannel(Generic[M]):
    """Send messages, receive messages, wait while the peer is slow.

    Args:
        sock: a connected stream socket; owned by the channel from here on.
        decoder: for the messages that arrive here.
    """

    def __init__(self, sock: socket.socket, decoder: Decoder[M]) -> None:
        self._sock = sock
        self._decoder = decoder
        self._frames = FrameDecoder()
        self._descriptors: deque[int] = deque()
        self._send_lock = threading.Lock()
        self._held = b""
        self._closed = False

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 once closed."""
        return self._sock.fileno()

    def hold(self, message: Message) -> None:
        """Send *message* together with the next one, so that the peer is woken once for both.

        Raises:
            ProtocolError: it is over the frame limit, or cannot be encoded.
        """
        frame = framed(message)
        with self._send_lock:
            self._held += frame

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send *message*; return when the kernel has all of it.

        Runs on: any thread.

        Raises:
            ProtocolError: it is over the frame limit, or cannot be encoded.
            ChannelClosed: this end was closed.
            ChannelBroken: the peer is gone.
        """
        data = framed(message, len(descriptors))
        with self._send_lock:
            if self._held:
                data, self._held = self._held + data, b""
            try:
                if descriptors:
                    sent = fds.send_with_descriptors(self._sock, data, descriptors)
                    data = data[sent:]
                    if not data:
                        return
                self._sock.sendall(data)
            except OSError as exc:
                raise self._gone(exc) from exc

    def receive(self) -> tuple[M, list[int]] | None:
        """Wait for the next message; None at the end of the stream.

        The descriptors that came with it are the caller's to close.

        Raises:
            ProtocolError: what came is no message, or ended in the middle of one.
            ChannelClosed: this end was closed.
            ChannelBroken: reading failed.
        """
        while True:
            taken = self.next_buffered()
            if taken is Need.NOTHING:
                return None
            if not isinstance(taken, Need):
                return taken
            is_boundary = not self._frames.buffered
            data, ancillary = self._read()
            # A worker that was idle has its job here, in the fewest steps. A message ends where
            # it says itself: of less or more than one, nothing is decoded.
            if is_boundary and not ancillary and data[_COUNT_AT:_PAYLOAD_AT] == _NO_DESCRIPTORS:
                try:
                    return self._decoder.decode(data[_PAYLOAD_AT:]), []
                except ProtocolError:
                    pass  # the frames tell what it is, or what is wrong with it
            self._keep(data, ancillary)

    def next_buffered(self) -> tuple[M, list[int]] | Need:
        """Return a message that was read already, or say why there is none. Never waits.

        Raises:
            ProtocolError: what came is no message, or ended in the middle of one.
        """
        frame = self._frames.next_frame()
        if isinstance(frame, Need):
            return frame
        if len(self._descriptors) < frame.descriptors:
            raise ProtocolError(
                f"{frame.descriptors} descriptors announced, {len(self._descriptors)} came"
            )
        mine: list[int] = []
        if frame.descriptors:
            mine = [self._descriptors.popleft() for _ in range(frame.descriptors)]
        try:
            return self._decoder.decode(frame.payload), mine
        except ProtocolError:
            fds.close_all(mine)
            raise

    def fill(self) -> None:
        """Read once, waiting for bytes if there are none, and keep them for :meth:`next_buffered`.

        Raises:
            ChannelClosed: this end was closed.
            ChannelBroken: reading failed.
        """
        self._keep(*self._read())

    def _read(self) -> tuple[bytes, list[fds.Ancillary]]:
        try:
            data, ancillary, _, _ = self._sock.recvmsg(
                READ_BYTES, fds.ANCILLARY_BYTES, fds.RECEIVE_FLAGS
            )
        except ConnectionResetError:
            return b"", []
        except OSError as exc:
            raise self._gone(exc) from exc
        return data, ancillary

    def _keep(self, data: bytes, ancillary: list[fds.Ancillary]) -> None:
        if ancillary:
            self._descriptors.extend(fds.descriptors_in(ancillary))
        self._frames.feed(data)

    def close(self) -> None:
        """Close the socket and every descriptor that nobody took. May be called again."""
        self._closed = True
        self._sock.close()
        fds.close_all(self._descriptors)
        self._descriptors.clear()

    def _gone(self, exc: OSError) -> ChannelBroken | ChannelClosed:
        if self._closed:
            return ChannelClosed("this end of the channel was closed")
        return ChannelBroken(f"the peer is gone: {os.strerror(exc.errno or 0)}")
