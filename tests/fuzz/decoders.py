"""The frame decoder and the message decoders, fed with streams of broken frames."""

from __future__ import annotations

import random
from typing import Any, Final

from ipc.errors import ProtocolError
from ipc.frames import MAX_FRAME_BYTES, MAX_FRAME_DESCRIPTORS, FrameDecoder, Need
from ipc.messages import Decoder, FromForkServer, FromWorker, Log, Message
from tests.fuzz.measure import Figures, watched
from tests.fuzz.mutate import Mutator, from_fork_server, from_log, from_worker

DIRECTIONS: Final[tuple[tuple[Any, list[Message]], ...]] = (
    (FromWorker, from_worker()),
    (FromForkServer, from_fork_server()),
    (Log, from_log()),
)

# A stream is so many frames: what is left over from one must not spoil the next.
_FRAMES: Final = 3
_SAMPLE_EVERY: Final = 20_000


def run(inputs: int, seed: int) -> Figures:
    """Decode *inputs* streams of broken frames.

    Raises:
        Hang: one was not done within the limit.
        Exception: anything but ProtocolError, which is what a decoder may raise.
    """
    figures = Figures("decoder", seed)
    chance = random.Random(seed)
    mutator = Mutator(chance)
    decoders: list[tuple[Decoder[Any], list[Message]]] = [
        (Decoder(kind), messages) for kind, messages in DIRECTIONS
    ]
    with watched(figures):
        while figures.inputs < inputs:
            decoder, messages = decoders[chance.randrange(len(decoders))]
            frames = [mutator.frame(mutator.payload(messages)) for _ in range(_FRAMES)]
            _one_stream(figures, decoder, mutator.cuts(b"".join(frames)))
            if figures.inputs % _SAMPLE_EVERY == 0:
                figures.sample(of=inputs)
    return figures


def _one_stream(figures: Figures, decoder: Decoder[Any], pieces: list[bytes]) -> None:
    stream = FrameDecoder()
    taken = 0
    with figures.timed():
        for piece in [*pieces, b""]:
            stream.feed(piece)
            try:
                taken += _frames_of(stream, decoder, figures)
            except ProtocolError:
                figures.refused += 1
                _stays_in_error(stream)
                break


def _frames_of(stream: FrameDecoder, decoder: Decoder[Any], figures: Figures) -> int:
    taken = 0
    while not isinstance(frame := stream.next_frame(), Need):
        assert 1 <= len(frame.payload) <= MAX_FRAME_BYTES
        assert 0 <= frame.descriptors <= MAX_FRAME_DESCRIPTORS
        taken += 1
        try:
            decoder.decode(frame.payload)
            figures.accepted += 1
        except ProtocolError:
            figures.refused += 1
    assert stream.buffered <= MAX_FRAME_BYTES + 5, "more than one frame was kept"
    return taken


def _stays_in_error(stream: FrameDecoder) -> None:
    stream.feed(b"\0\0\0\1\0x")
    try:
        stream.next_frame()
    except ProtocolError:
        return
    raise AssertionError("a stream that broke the rules was read on")
