"""The blocking channel, over real socket pairs."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, strategies as st

from ipc import fds
from ipc.channel import BlockingChannel
from ipc.errors import ChannelBroken, ChannelClosed, PayloadTooLarge, ProtocolError
from ipc.frames import HEADER, MAX_FRAME_BYTES, Frame, FrameDecoder, Need, encode_frame
from ipc.messages import (
    Decoder,
    DrainBegan,
    Fork,
    FromWorker,
    Ping,
    Pong,
    RunJob,
    Started,
    Stop,
    ToWorker,
    encode,
)

Pair = tuple[socket.socket, socket.socket]
Parent = BlockingChannel[FromWorker]
Child = BlockingChannel[ToWorker]

to_worker: Decoder[ToWorker] = Decoder(ToWorker)
from_worker: Decoder[FromWorker] = Decoder(FromWorker)


@pytest.fixture
def parent(pair: Pair) -> Iterator[Parent]:
    channel = BlockingChannel(pair[0], from_worker)
    yield channel
    channel.close()


@pytest.fixture
def child(pair: Pair) -> Iterator[Child]:
    channel = BlockingChannel(pair[1], to_worker)
    yield channel
    channel.close()


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def large_job(number: int = 0) -> RunJob:
    """A message as large as a frame allows, nearly: no socket buffer holds it."""
    return RunJob(f"J-{number}", "call", False, os.urandom(MAX_FRAME_BYTES - 100))


def make_narrow(pair: Pair) -> None:
    """Let the kernel take little at a time, so that sends are cut into many."""
    for sock in pair:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)


def expect(received: tuple[object, list[int]] | None) -> tuple[object, list[int]]:
    assert received is not None, "the stream ended"
    return received


# ── messages ─────────────────────────────────────────────────────────────────


def test_messages_arrive_in_order_and_both_ways(parent: Parent, child: Child) -> None:
    for number in range(100):
        parent.send(Ping(number))
        child.send(Pong(number))
    for number in range(100):
        assert child.receive() == (Ping(number), [])
        assert parent.receive() == (Pong(number), [])


def test_what_is_held_goes_out_with_the_next_message_and_before_it(
    pair: Pair, parent: Parent, child: Child
) -> None:
    child.hold(Pong(1))
    child.hold(Pong(2))
    pair[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        pair[0].recv(1)
    pair[0].setblocking(True)
    child.send(Pong(3))
    assert pair[0].recv(4096) == b"".join(encode_frame(encode(Pong(n))) for n in (1, 2, 3))
    child.send(Pong(4))
    assert parent.receive() == (Pong(4), [])


def test_a_message_larger_than_the_socket_buffer_arrives(
    pair: Pair, parent: Parent, child: Child, thread: ThreadPoolExecutor
) -> None:
    make_narrow(pair)
    job = large_job()
    sending = thread.submit(parent.send, job)
    assert child.receive() == (job, [])
    sending.result(10)


def test_messages_that_arrive_together_are_read_at_once_and_taken_one_by_one(
    parent: Parent, child: Child
) -> None:
    for number in range(3):
        parent.send(Ping(number))
    child.fill()
    assert [child.next_buffered() for _ in range(4)] == [
        *[(Ping(number), []) for number in range(3)],
        Need.DATA,
    ]


few_messages = st.lists(
    st.sampled_from(
        [Ping(1), Stop("drain", 2.0), DrainBegan(None), RunJob("J-1", "call", True, b"\0" * 300)]
    ),
    max_size=4,
)


@given(few_messages, st.lists(st.integers(1, 400), max_size=6), st.binary(max_size=8))
def test_the_same_is_received_whatever_came_with_each_read(
    sent: list[ToWorker], cuts: list[int], more: bytes
) -> None:
    """What is alone in its read is taken by a shorter way: that one takes nothing else."""
    wire = b"".join(encode_frame(encode(message)) for message in sent) + more
    frames = FrameDecoder()
    frames.feed(wire)
    frames.feed(b"")
    # Packets instead of a stream: each that is sent is what one read takes.
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = BlockingChannel(far, to_worker)
    with near:
        for cut in sorted({0, *(cut for cut in cuts if cut < len(wire))}):
            later = [each for each in cuts if cut < each < len(wire)]
            piece = wire[cut : min(later, default=len(wire))]
            if piece:
                near.send(piece)
    assert list(received_by(channel)) == list(taken_from(frames))
    channel.close()


def received_by(channel: Child) -> Iterator[object]:
    """Return each message, and what ends them: None, or the class of an error."""
    with contextlib.suppress(ProtocolError):
        while (received := channel.receive()) is not None:
            yield received[0]
        yield None


def taken_from(frames: FrameDecoder) -> Iterator[object]:
    """Return the same from a decoder that was fed all at once."""
    with contextlib.suppress(ProtocolError):
        while isinstance(frame := frames.next_frame(), Frame):
            if frame.descriptors:
                return
            yield to_worker.decode(frame.payload)
        yield None


def test_what_is_buffered_is_told_without_waiting(pair: Pair, child: Child) -> None:
    assert child.next_buffered() is Need.DATA
    wire = encode_frame(encode(Ping(1)))
    pair[0].send(wire[:3])
    child.fill()
    assert child.next_buffered() is Need.DATA
    pair[0].send(wire[3:])
    child.fill()
    assert child.next_buffered() == (Ping(1), [])


def test_two_threads_may_send_at_once(
    pair: Pair, parent: Parent, child: Child, thread: ThreadPoolExecutor
) -> None:
    make_narrow(pair)
    together = threading.Barrier(2)

    def send_all(sender: str) -> None:
        together.wait(10)
        for number in range(100):
            parent.send(Stop(sender * 3000, number))

    sending = [thread.submit(send_all, sender) for sender in "AB"]
    received: dict[str, list[float]] = {"A": [], "B": []}
    for _ in range(200):
        message, _ = expect(child.receive())
        assert isinstance(message, Stop)
        assert message.reason == message.reason[0] * 3000, "two messages were mixed"
        received[message.reason[0]].append(message.grace)
    for each in sending:
        each.result(10)
    assert received == {"A": list(range(100)), "B": list(range(100))}


# ── descriptors ──────────────────────────────────────────────────────────────


def test_descriptors_are_passed_both_ways(parent: Parent, child: Child) -> None:
    reader, writer = os.pipe()
    parent.send(Ping(1), [writer])
    os.close(writer)
    message, [at_child] = expect(child.receive())
    assert message == Ping(1)
    child.send(Pong(1), [at_child])
    os.close(at_child)
    message, [back] = expect(parent.receive())
    assert message == Pong(1)
    os.write(back, b"there and back")
    os.close(back)
    assert os.read(reader, 100) == b"there and back"
    os.close(reader)


def test_descriptors_stay_with_their_message(parent: Parent, child: Child) -> None:
    reader, writer = os.pipe()
    for number in range(5):
        parent.send(Ping(number), [writer] * number)
    for number in range(5):
        message, received = expect(child.receive())
        assert (message, len(received)) == (Ping(number), number)
        fds.close_all(received)
    fds.close_all([reader, writer])


def test_descriptors_beside_a_message_that_is_sent_in_pieces_arrive_once(
    pair: Pair, parent: Parent, child: Child, thread: ThreadPoolExecutor
) -> None:
    make_narrow(pair)
    reader, writer = os.pipe()
    job = large_job()
    sending = thread.submit(parent.send, job, [reader, writer])
    message, received = expect(child.receive())
    sending.result(10)
    assert message == job
    assert len(received) == 2
    fds.close_all([reader, writer, *received])
    pair[0].close()
    assert child.receive() is None


def test_a_message_of_which_only_the_beginning_was_sent_beside_its_descriptors_is_completed(
    parent: Parent, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    # sendmsg(2) may be interrupted by a signal when it has sent a part.
    whole = fds.send_with_descriptors
    monkeypatch.setattr(
        fds, "send_with_descriptors", lambda sock, data, given: whole(sock, data[:7], given)
    )
    reader, writer = os.pipe()
    parent.send(Stop("a long reason", 1.0), [writer])
    message, [at_child] = expect(child.receive())
    assert message == Stop("a long reason", 1.0)
    fds.close_all([reader, writer, at_child])


def test_descriptors_that_nobody_announced_are_closed_with_the_channel(
    pair: Pair, child: Child
) -> None:
    reader, writer = os.pipe()
    fds.send_with_descriptors(pair[0], encode_frame(encode(Ping(1))), [writer])
    os.close(writer)
    assert child.receive() == (Ping(1), [])
    child.close()
    assert os.read(reader, 1) == b"", "the unannounced copy is still open"
    os.close(reader)


def test_descriptors_that_were_announced_and_did_not_come_are_an_error(
    pair: Pair, child: Child
) -> None:
    pair[0].send(encode_frame(encode(Ping(1)), 2))
    with pytest.raises(ProtocolError, match="2 descriptors announced, 0 came"):
        child.receive()


def test_the_descriptors_of_a_message_that_is_refused_are_closed(pair: Pair, child: Child) -> None:
    reader, writer = os.pipe()
    fds.send_with_descriptors(pair[0], encode_frame(encode(Pong(1)), 1), [writer])
    os.close(writer)
    with pytest.raises(ProtocolError, match="not a message of this direction"):
        child.receive()
    assert os.read(reader, 1) == b"", "the copy of the refused message is still open"
    os.close(reader)


# ── the end ──────────────────────────────────────────────────────────────────


def test_a_clean_end_is_none_after_the_last_words(pair: Pair, parent: Parent, child: Child) -> None:
    parent.send(Ping(1))
    parent.close()
    assert child.receive() == (Ping(1), [])
    assert [child.receive(), child.receive()] == [None, None]
    assert child.next_buffered() is Need.NOTHING


def test_a_peer_that_leaves_without_reading_ends_the_stream_after_its_last_words(
    parent: Parent, child: Child
) -> None:
    # It had bytes of ours unread, so the kernel says ECONNRESET and not end of stream.
    child.send(Started("J-1", 0.0))
    parent.send(Ping(1))
    child.close()
    assert parent.receive() == (Started("J-1", 0.0), [])
    assert parent.receive() is None


@pytest.mark.parametrize("length", [1, HEADER.size, HEADER.size + 1])
def test_an_end_in_the_middle_of_a_message_is_an_error(
    pair: Pair, child: Child, length: int
) -> None:
    pair[0].send(encode_frame(encode(Ping(1)))[:length])
    pair[0].close()
    for _ in range(2):
        with pytest.raises(ProtocolError, match="in the middle of a frame"):
            child.receive()


@pytest.mark.parametrize(
    ("garbage", "text"),
    [
        pytest.param(b"\xff" * 100, "announced 4294967295 bytes", id="a length without sense"),
        pytest.param(encode_frame(b"\xc1"), "not a message", id="a frame without sense"),
        pytest.param(
            encode_frame(encode(Fork(1))), "not a message", id="a message for the fork server"
        ),
    ],
)
def test_garbage_is_a_protocol_error(pair: Pair, child: Child, garbage: bytes, text: str) -> None:
    pair[0].send(garbage)
    with pytest.raises(ProtocolError, match=text):
        child.receive()


def test_a_message_over_the_limit_is_refused_and_nothing_of_it_is_sent(
    parent: Parent, child: Child
) -> None:
    with pytest.raises(PayloadTooLarge):
        parent.send(RunJob("J-1", "call", False, bytes(MAX_FRAME_BYTES)))
    parent.send(DrainBegan(None))
    assert child.receive() == (DrainBegan(None), [])


def test_a_message_that_cannot_be_encoded_is_refused_and_nothing_of_it_is_sent(
    parent: Parent, child: Child
) -> None:
    with pytest.raises(ProtocolError):
        parent.send(Stop("\udcff", 1.0))
    parent.send(Ping(1))
    assert child.receive() == (Ping(1), [])


@pytest.mark.parametrize(
    "send",
    [
        pytest.param(lambda channel: channel.send(Ping(1)), id="a message"),
        pytest.param(lambda channel: channel.send(Ping(1), [0]), id="a message with a descriptor"),
        pytest.param(lambda channel: channel.send(large_job()), id="a large message"),
    ],
)
def test_a_peer_that_is_gone_breaks_the_sending_of(
    pair: Pair, parent: Parent, send: Callable[[Parent], None]
) -> None:
    pair[1].close()
    for _ in range(2):
        with pytest.raises(ChannelBroken, match="the peer is gone: Broken pipe"):
            send(parent)


def test_a_peer_that_goes_while_a_message_is_on_its_way_breaks_it(
    pair: Pair, parent: Parent, thread: ThreadPoolExecutor
) -> None:
    make_narrow(pair)
    sending = thread.submit(parent.send, large_job())
    pair[1].recv(10)
    pair[1].close()
    with pytest.raises(ChannelBroken):
        sending.result(10)


def test_reading_that_fails_is_a_broken_channel(pair: Pair, child: Child) -> None:
    with open("/dev/null", "rb") as no_socket:
        os.dup2(no_socket.fileno(), pair[1].fileno(), inheritable=False)
    with pytest.raises(ChannelBroken, match="Socket operation on non-socket"):
        child.receive()


def test_after_closing_everything_says_that_we_closed_it(parent: Parent) -> None:
    parent.close()
    parent.close()
    assert parent.fileno() == -1
    with pytest.raises(ChannelClosed):
        parent.send(Ping(1))
    with pytest.raises(ChannelClosed):
        parent.send(Ping(1), [0])
    with pytest.raises(ChannelClosed):
        parent.receive()


def test_a_channel_can_be_waited_for(parent: Parent, pair: Pair) -> None:
    assert parent.fileno() == pair[0].fileno()
