"""The wire format: what was framed comes out again, and nothing else does."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st

from ipc.errors import PayloadTooLarge, ProtocolError
from ipc.frames import (
    HEADER,
    MAX_FRAME_BYTES,
    MAX_FRAME_DESCRIPTORS,
    Frame,
    FrameDecoder,
    Need,
    encode_frame,
)

SMALL = 64  # a payload limit that examples can exceed

frames = st.builds(
    Frame, st.binary(min_size=1, max_size=SMALL), st.integers(0, MAX_FRAME_DESCRIPTORS)
)
widths = st.lists(st.integers(1, 40), min_size=1)


def encoded(sent: list[Frame]) -> bytes:
    return b"".join(encode_frame(frame.payload, frame.descriptors) for frame in sent)


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """Cut *data* into pieces as long as *cuts* say, over and over."""
    begin = turn = 0
    while begin < len(data):
        width = cuts[turn % len(cuts)]
        yield data[begin : begin + width]
        begin += width
        turn += 1


def taken(decoder: FrameDecoder) -> list[Frame]:
    """Take every whole frame."""
    whole: list[Frame] = []
    while not isinstance(frame := decoder.next_frame(), Need):
        whole.append(frame)
    return whole


def decoded(data: bytes, cuts: list[int]) -> list[Frame]:
    decoder = FrameDecoder(max_payload_bytes=SMALL)
    received: list[Frame] = []
    for piece in pieces(data, cuts):
        decoder.feed(piece)
        received += taken(decoder)
    decoder.feed(b"")
    assert decoder.next_frame() is Need.NOTHING
    return received


@given(st.lists(frames, max_size=12), widths)
def test_frames_survive_any_cut(sent: list[Frame], cuts: list[int]) -> None:
    assert decoded(encoded(sent), cuts) == sent


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 7, 1000])
def test_frames_survive_a_cut_of_every_width(cut: int) -> None:
    sent = [Frame(b"x" * size, size % 5) for size in range(1, SMALL + 1)]
    assert decoded(encoded(sent), [cut]) == sent


@given(st.lists(frames, max_size=12))
def test_frames_that_are_taken_late_are_the_same(sent: list[Frame]) -> None:
    decoder = FrameDecoder()
    decoder.feed(encoded(sent))
    assert taken(decoder) == sent
    assert decoder.buffered == 0


@pytest.mark.parametrize("length", range(1, HEADER.size + 3))
def test_a_frame_that_is_not_complete_is_waited_for(length: int) -> None:
    decoder = FrameDecoder()
    decoder.feed(encode_frame(b"abc")[:length])
    assert decoder.next_frame() is Need.DATA
    assert decoder.next_frame() is Need.DATA
    assert decoder.buffered == length


def test_the_end_on_a_boundary_is_no_error_however_often_one_asks() -> None:
    decoder = FrameDecoder()
    decoder.feed(encode_frame(b"abc"))
    decoder.feed(b"")
    assert decoder.next_frame() == Frame(b"abc")
    assert [decoder.next_frame() for _ in range(3)] == [Need.NOTHING] * 3


@pytest.mark.parametrize("length", range(1, HEADER.size + 3))
def test_the_end_in_the_middle_of_a_frame_is_an_error(length: int) -> None:
    decoder = FrameDecoder()
    decoder.feed(encode_frame(b"abc")[:length])
    decoder.feed(b"")
    with pytest.raises(ProtocolError, match=f"in the middle of a frame, after {length} bytes"):
        decoder.next_frame()


LIES = [
    pytest.param(HEADER.pack(0, 0), "announced 0 bytes", id="a frame of nothing"),
    pytest.param(HEADER.pack(SMALL + 1, 0), "announced 65 bytes", id="one byte over the limit"),
    pytest.param(b"\xff" * 5, "announced 4294967295 bytes", id="four gigabytes"),
    pytest.param(b"GET / HTTP/1.1\r\n", "announced 1195725856 bytes", id="another protocol"),
    pytest.param(HEADER.pack(1, 6), "announced 6 descriptors", id="one descriptor too many"),
]


@pytest.mark.parametrize(("lie", "text"), LIES)
def test_a_header_that_lies_is_refused_before_its_payload_is_waited_for(
    lie: bytes, text: str
) -> None:
    decoder = FrameDecoder(max_payload_bytes=SMALL)
    decoder.feed(lie)
    with pytest.raises(ProtocolError, match=text):
        decoder.next_frame()


@pytest.mark.parametrize(("lie", "text"), LIES)
def test_an_error_stays_and_nothing_is_kept_after_it(lie: bytes, text: str) -> None:
    decoder = FrameDecoder(max_payload_bytes=SMALL)
    decoder.feed(lie)
    with pytest.raises(ProtocolError, match=text) as first:
        decoder.next_frame()
    for _ in range(3):
        decoder.feed(encode_frame(b"a good frame"))
        with pytest.raises(ProtocolError) as again:
            decoder.next_frame()
        assert again.value is first.value
        assert decoder.buffered == 0


def test_frames_before_a_lie_are_still_handed_out() -> None:
    decoder = FrameDecoder(max_payload_bytes=SMALL)
    decoder.feed(encode_frame(b"true") + b"\xff" * 50)
    assert decoder.next_frame() == Frame(b"true")
    with pytest.raises(ProtocolError):
        decoder.next_frame()


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=20))
def test_whatever_arrives_less_than_one_frame_stays_buffered(received: list[bytes]) -> None:
    decoder = FrameDecoder(max_payload_bytes=SMALL)
    for data in received:
        decoder.feed(data)
        try:
            taken(decoder)
        except ProtocolError:
            assert decoder.buffered == 0
        assert decoder.buffered < HEADER.size + SMALL


def test_frames_that_were_taken_do_not_stay_in_memory() -> None:
    limit = 4096
    decoder = FrameDecoder(max_payload_bytes=limit)
    frame = encode_frame(b"x" * 1000)
    # Always half a frame ahead, so that the buffer is never empty in between.
    decoder.feed(frame[:500])
    tracemalloc.start()
    try:
        for _ in range(500):
            decoder.feed(frame[500:] + frame[:500])
            assert len(taken(decoder)) == 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.buffered == 500
    assert peak < 16 * limit


def test_the_largest_frame_passes() -> None:
    decoder = FrameDecoder()
    payload = bytes(MAX_FRAME_BYTES)
    decoder.feed(encode_frame(payload, MAX_FRAME_DESCRIPTORS))
    assert decoder.next_frame() == Frame(payload, MAX_FRAME_DESCRIPTORS)


@given(st.integers(0, SMALL + 5), st.integers(0, 255))
def test_the_sender_refuses_what_the_receiver_would_refuse(length: int, descriptors: int) -> None:
    decoder = FrameDecoder(max_payload_bytes=SMALL)
    decoder.feed(HEADER.pack(length, descriptors) + b"x" * length)
    try:
        expected: Frame | None = taken(decoder)[0]
    except ProtocolError:
        expected = None
    try:
        sent = encode_frame(b"x" * length, descriptors, max_payload_bytes=SMALL)
    except ProtocolError:
        assert expected is None
    else:
        assert expected == Frame(b"x" * length, descriptors)
        assert len(sent) == HEADER.size + length


@pytest.mark.parametrize(
    ("payload", "descriptors", "error"),
    [
        pytest.param(b"", 0, "a frame without payload means nothing", id="no payload"),
        pytest.param(b"x", 6, "6 descriptors, the limit is 5", id="too many descriptors"),
        pytest.param(b"x", -1, "-1 descriptors, the limit is 5", id="fewer than no descriptors"),
        pytest.param(
            bytes(65), 0, "a message has 65 bytes, the limit is 64", id="a payload over the limit"
        ),
    ],
)
def test_the_senders_refusals_say_which_rule(payload: bytes, descriptors: int, error: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        encode_frame(payload, descriptors, max_payload_bytes=SMALL)
    assert str(caught.value) == error


def test_a_payload_over_the_limit_carries_its_figures() -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        encode_frame(bytes(MAX_FRAME_BYTES + 1))
    assert caught.value.size == MAX_FRAME_BYTES + 1
    assert caught.value.limit == MAX_FRAME_BYTES
