"""The wire format, as bytes in and frames out. No I/O in this file.

A frame is a 5-byte header and a payload::

    0        4             5                      5 + length
    ┌────────┬─────────────┬──────────────────────┐
    │ length │ descriptors │ payload              │
    └────────┴─────────────┴──────────────────────┘

    length       u32, big-endian: bytes of payload, 1 .. max_payload_bytes
    descriptors  u8: how many file descriptors travel beside this frame

Why the decoder checks ``length`` before it waits for the payload: a wrong
length is the first thing a confused peer sends, and a reader that believes it
allocates gigabytes, or waits for ever for bytes that nobody will write. With
the check, a decoder never holds more than one frame and one read of bytes.

Why the header counts descriptors: on a stream socket they arrive beside the
bytes, not inside them (unix(7), SCM_RIGHTS). The count says which frame they
belong to, so that a message never has to be opened to find that out.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

import msgspec

from ipc.errors import PayloadTooLarge, ProtocolError

HEADER: Final = struct.Struct(">IB")

# Generous for control messages (ours are under 4 KiB, and a job's arguments
# under 64 KiB travel inside one), small enough that a garbage header cannot
# make us buffer much. Larger things travel in a memfd, see ipc.fds.
MAX_FRAME_BYTES: Final = 1024 * 1024

# The kernel takes 253 descriptors in one message (SCM_MAX_FD); a worker gets five
# at most: its channel, its log socket, its mark, its stdout and its stderr.
MAX_FRAME_DESCRIPTORS: Final = 5


class Need(enum.Enum):
    """Why there is no frame: ordinary values, not errors."""

    DATA = "data"  # the frame is not complete yet
    NOTHING = "nothing"  # the stream ended on a frame boundary


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One payload, and how many descriptors came with it."""

    payload: bytes
    descriptors: int = 0


def encode_frame(
    payload: bytes, descriptors: int = 0, *, max_payload_bytes: int = MAX_FRAME_BYTES
) -> bytes:
    """Return *payload* with its header.

    Raises:
        ProtocolError: it is empty, or it announces too many descriptors.
        PayloadTooLarge: it is longer than *max_payload_bytes*.
    """
    if not payload:
        raise ProtocolError("a frame without payload means nothing")
    if len(payload) > max_payload_bytes:
        raise PayloadTooLarge("a message", len(payload), max_payload_bytes)
    if not 0 <= descriptors <= MAX_FRAME_DESCRIPTORS:
        raise ProtocolError(f"{descriptors} descriptors, the limit is {MAX_FRAME_DESCRIPTORS}")
    return HEADER.pack(len(payload), descriptors) + payload


class FrameDecoder:
    """Turn a byte stream back into frames, however the bytes were cut up.

    Args:
        max_payload_bytes: the longest payload that the peer may announce.

    Invariant: it never holds more than one incomplete frame once the caller has
    taken every complete one. After an error it stays in error: there is no way
    to find the next frame boundary in a stream that lied about the last one.
    """

    def __init__(self, *, max_payload_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_payload_bytes = max_payload_bytes
        # What was read, as it came; joined only where a frame came in pieces.
        self._buffer: bytes | bytearray = b""
        self._start = 0
        self._ended = False
        self._error: ProtocolError | None = None

    @property
    def buffered(self) -> int:
        """Bytes that were fed and are not part of a frame taken yet."""
        return len(self._buffer) - self._start

    def feed(self, data: bytes) -> None:
        """Add received bytes. Empty *data* means end of stream, as ``recv`` says it."""
        if self._error is not None:
            return  # nothing will ever be taken out again
        if not data:
            self._ended = True
            return
        if self._start == len(self._buffer):
            self._buffer = data
            self._start = 0
            return
        if not isinstance(self._buffer, bytearray):
            self._buffer = bytearray(self._buffer)
        self._buffer += data

    def next_frame(self) -> Frame | Need:
        """Return the next whole frame, or say why there is none.

        Raises:
            ProtocolError: the announced payload is empty or over the limit, too
                many descriptors were announced, or the stream ended in the
                middle of a frame.
        """
        if self._error is not None:
            raise self._error
        available = len(self._buffer) - self._start
        if available < HEADER.size:
            return self._nothing_yet(available)
        length, descriptors = HEADER.unpack_from(self._buffer, self._start)
        if not 1 <= length <= self._max_payload_bytes:
            raise self._fail(
                f"the peer announced {length} bytes, allowed are 1 to {self._max_payload_bytes}"
            )
        if descriptors > MAX_FRAME_DESCRIPTORS:
            raise self._fail(
                f"the peer announced {descriptors} descriptors, the limit is {MAX_FRAME_DESCRIPTORS}"
            )
        if available < HEADER.size + length:
            return self._nothing_yet(available)
        begin = self._start + HEADER.size
        self._start = begin + length
        payload = bytes(self._buffer[begin : self._start])
        # Frames that were taken are dropped once they are worth a move: doing it
        # for each frame would copy a full read once per frame in it.
        if self._start > self._max_payload_bytes and isinstance(self._buffer, bytearray):
            del self._buffer[: self._start]
            self._start = 0
        return Frame(payload, descriptors)

    def _nothing_yet(self, available: int) -> Need:
        if not self._ended:
            return Need.DATA
        if available == 0:
            return Need.NOTHING
        raise self._fail(f"the stream ended in the middle of a frame, after {available} bytes")

    def _fail(self, text: str) -> ProtocolError:
        self._error = ProtocolError(text)
        self._buffer = b""
        self._start = 0
        return self._error
