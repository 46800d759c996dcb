"""The asyncio channel, over real socket pairs, with peers of every sort."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

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
        self.messages: list[Message] = []
        self.descriptors: list[int] = []
        self.ends: list[IpcError | None] = []
        self.on_message: Callable[[], object] = lambda: None
        self.on_end: Callable[[], object] = lambda: None
        self._changed = asyncio.Event()
        self.channel: AsyncChannel[FromWorker] = AsyncChannel(
            asyncio.get_running_loop(),
            sock,
            Decoder(FromWorker),
            on_message=self._message_came,
            on_end=self._end_came,
        )

    def _message_came(self, message: Message, descriptors: list[int]) -> None:
        self.messages.append(message)
        self.descriptors += descriptors
        self._changed.set()
        self.on_message()

    def _end_came(self, error: IpcError | None) -> None:
        self.ends.append(error)
        self._changed.set()
        self.on_end()

    async def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def received(self, count: int) -> list[Message]:
        """Wait for *count* messages and return all that came."""
        await asyncio.wait_for(self._until(lambda: len(self.messages) >= count), PATIENCE)
        return self.messages

    async def end(self) -> IpcError | None:
        """Wait for the end and return what it was called with; it must come once."""
        await asyncio.wait_for(self._until(lambda: self.ends), PATIENCE)
        await some_turns()
        [end] = self.ends
        assert self.channel.ended
        return end


async def some_turns() -> None:
    """Let the loop do what is ready, and what follows from that."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def parent(pair: Pair) -> AsyncIterator[Parent]:
    end = Parent(pair[0])
    yield end
    end.channel.close()
    fds.close_all(end.descriptors)


@pytest.fixture
def peer(pair: Pair) -> socket.socket:
    """The other end, bare: it can say what a channel would not."""
    return pair[1]


@pytest.fixture
def child(peer: socket.socket) -> Iterator[Child]:
    """The other end as the child uses it."""
    channel: Child = BlockingChannel(peer, Decoder(ToWorker))
    yield channel
    channel.close()


def make_narrow(pair: Pair) -> None:
    """Let the kernel take little at a time, so that sends are cut into many."""
    for sock in pair:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)


def large_job() -> RunJob:
    """A message nearly as large as a frame may be."""
    return RunJob("J-1", "call", False, os.urandom(MAX_FRAME_BYTES - 100))


def wire(message: Message, descriptors: int = 0) -> bytes:
    return encode_frame(encode(message), descriptors)


@contextlib.contextmanager
def no_descriptor_free() -> Iterator[None]:
    """Until the block ends this process can open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.dup(0)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def receive(child: Child) -> tuple[Message, list[int]]:
    """Receive at the child without holding up the loop."""
    received = await asyncio.wait_for(asyncio.to_thread(child.receive), PATIENCE)
    assert received is not None, "the stream ended"
    return received


# ── messages ─────────────────────────────────────────────────────────────────


async def test_messages_arrive_in_order_and_both_ways(parent: Parent, child: Child) -> None:
    for number in range(100):
        parent.channel.send(Ping(number))
        child.send(Pong(number))
    assert await parent.received(100) == [Pong(number) for number in range(100)]
    for number in range(100):
        assert child.receive() == (Ping(number), [])


async def test_what_the_kernel_takes_is_sent_before_send_returns(
    parent: Parent, peer: socket.socket
) -> None:
    parent.channel.send(Ping(1))
    assert peer.recv(100, socket.MSG_DONTWAIT) == wire(Ping(1))


async def test_a_message_in_many_pieces_arrives(pair: Pair, parent: Parent, child: Child) -> None:
    make_narrow(pair)
    job = large_job()
    parent.channel.send(job)
    assert await receive(child) == (job, [])
    answer = Started("x" * (MAX_FRAME_BYTES - 100), 0.0)
    await asyncio.wait_for(asyncio.to_thread(child.send, answer), PATIENCE)
    assert await parent.received(1) == [answer]


async def test_what_is_sent_while_something_waits_keeps_its_place(
    pair: Pair, parent: Parent, child: Child
) -> None:
    make_narrow(pair)
    sent = [large_job(), *[Ping(number) for number in range(100)], large_job(), Ping(100)]
    for message in sent[:-2]:
        parent.channel.send(message)
    received = [(await receive(child))[0] for _ in sent[:-2]]
    for message in sent[-2:]:
        parent.channel.send(message)
    received += [(await receive(child))[0] for _ in sent[-2:]]
    assert received == sent


async def test_a_large_message_does_not_make_a_slow_peer_look_dead(
    pair: Pair, parent: Parent, child: Child
) -> None:
    make_narrow(pair)
    first, second = large_job(), large_job()
    parent.channel.send(first)
    parent.channel.send(second)
    assert [await receive(child), await receive(child)] == [(first, []), (second, [])]
    assert not parent.channel.ended


async def test_a_flood_is_read_in_portions_so_that_others_get_their_turn(
    parent: Parent, peer: socket.socket
) -> None:
    frame = wire(Started("x" * 1000, 0.0))
    count = 150_000 // len(frame)
    peer.sendall(frame * count)
    in_one_turn = 0
    while len(parent.messages) < count:
        before = len(parent.messages)
        await asyncio.sleep(0)
        in_one_turn = max(in_one_turn, len(parent.messages) - before)
    assert in_one_turn <= READ_BYTES // len(frame) + 1


async def test_a_message_over_the_limit_is_refused_and_nothing_of_it_is_sent(
    parent: Parent, child: Child
) -> None:
    with pytest.raises(PayloadTooLarge):
        parent.channel.send(RunJob("J-1", "call", False, bytes(MAX_FRAME_BYTES)))
    with pytest.raises(ProtocolError):
        parent.channel.send(Stop("\udcff", 1.0))
    parent.channel.send(Ping(1))
    assert child.receive() == (Ping(1), [])


# ── descriptors ──────────────────────────────────────────────────────────────


async def test_descriptors_are_passed_both_ways(parent: Parent, child: Child) -> None:
    reader, writer = os.pipe()
    parent.channel.send(Ping(1), [writer])
    os.close(writer)
    message, [at_child] = await receive(child)
    assert message == Ping(1)
    child.send(Pong(1), [at_child])
    os.close(at_child)
    assert await parent.received(1) == [Pong(1)]
    [back] = parent.descriptors
    os.write(back, b"there and back")
    assert os.read(reader, 100) == b"there and back"
    os.close(reader)


async def test_descriptors_that_wait_may_be_closed_by_their_sender(
    pair: Pair, parent: Parent, child: Child
) -> None:
    make_narrow(pair)
    reader, writer = os.pipe()
    job = large_job()
    parent.channel.send(job, [reader])  # goes out with the first byte, at once
    parent.channel.send(Ping(1), [writer])  # waits
    fds.close_all([reader, writer])
    message, [at_child] = await receive(child)
    assert message == job
    message, [its_writer] = await receive(child)
    assert message == Ping(1)
    os.write(its_writer, b"through")
    assert os.read(at_child, 100) == b"through"
    fds.close_all([at_child, its_writer])


async def test_a_message_that_the_kernel_takes_nothing_of_keeps_its_descriptors(
    pair: Pair, parent: Parent, child: Child
) -> None:
    # Full to the brim, by somebody else than the channel: its own buffer is empty.
    pair[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            pair[0].send(wire(Ping(0)))
    reader, writer = os.pipe()
    parent.channel.send(Ping(1), [writer])
    os.close(writer)
    while (received := await receive(child)) == (Ping(0), []):
        pass
    message, [at_child] = received
    assert message == Ping(1)
    fds.close_all([at_child, reader])


async def test_descriptors_that_wait_are_closed_with_the_channel(
    pair: Pair, parent: Parent
) -> None:
    make_narrow(pair)
    reader, writer = os.pipe()
    parent.channel.send(large_job())
    parent.channel.send(Ping(1), [writer] * 4)
    os.close(writer)
    parent.channel.close()
    assert os.read(reader, 1) == b"", "a copy is still open"
    os.close(reader)


async def test_a_descriptor_that_cannot_be_kept_is_told_and_the_channel_goes_on(
    pair: Pair, parent: Parent, child: Child
) -> None:
    make_narrow(pair)
    job = large_job()
    parent.channel.send(job)
    with no_descriptor_free(), pytest.raises(OSError, match="Too many open files"):
        parent.channel.send(Ping(1), [0, 1])
    parent.channel.send(Ping(2))
    assert [await receive(child), await receive(child)] == [(job, []), (Ping(2), [])]


async def test_a_message_counts_though_its_descriptors_were_dropped_for_want_of_room(
    parent: Parent, peer: socket.socket
) -> None:
    reader, writer = os.pipe()
    fds.send_with_descriptors(peer, wire(Pong(1), 2), [reader, writer])
    with no_descriptor_free():
        parent.channel.drain_received()
    assert parent.messages == [Pong(1)]
    assert parent.descriptors == []
    assert not parent.channel.ended
    fds.close_all([reader, writer])


async def test_descriptors_that_were_announced_and_did_not_come_are_an_error(
    parent: Parent, peer: socket.socket
) -> None:
    peer.send(wire(Pong(1), 2))
    end = await parent.end()
    assert isinstance(end, ProtocolError)
    assert str(end) == "2 descriptors announced, 0 came"


async def test_a_few_descriptors_that_nobody_announced_are_closed_with_the_channel(
    parent: Parent, peer: socket.socket
) -> None:
    reader, writer = os.pipe()
    fds.send_with_descriptors(peer, wire(Pong(1)), [writer])
    os.close(writer)
    assert await parent.received(1) == [Pong(1)]
    assert parent.descriptors == []
    parent.channel.close()
    assert os.read(reader, 1) == b"", "the unannounced copy is still open"
    os.close(reader)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(wire(Pong(1)), id="beside good messages"),
        pytest.param(b"\0", id="beside the bytes of a frame that never ends"),
    ],
)
async def test_a_flood_of_descriptors_ends_the_channel(
    parent: Parent, peer: socket.socket, data: bytes
) -> None:
    reader, writer = os.pipe()
    for _ in range(5):
        fds.send_with_descriptors(peer, data, [writer] * 4)
    os.close(writer)
    end = await parent.end()
    assert isinstance(end, ProtocolError)
    parent.channel.close()
    assert os.read(reader, 1) == b"", "copies are still open"
    os.close(reader)


async def test_the_descriptors_of_a_message_that_is_refused_are_closed(
    parent: Parent, peer: socket.socket
) -> None:
    reader, writer = os.pipe()
    fds.send_with_descriptors(peer, wire(Ping(1), 1), [writer])
    os.close(writer)
    assert isinstance(await parent.end(), ProtocolError)
    assert os.read(reader, 1) == b"", "the copy of the refused message is still open"
    os.close(reader)


# ── what a peer can do wrong ─────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("garbage", "text"),
    [
        pytest.param(b"\xff" * 100, "announced 4294967295 bytes", id="a length without sense"),
        pytest.param(b"\0" * 100, "announced 0 bytes", id="zeros"),
        pytest.param(encode_frame(b"\xc1"), "not a message", id="a frame without sense"),
        pytest.param(wire(Fork(1)), "not a message", id="a message for the fork server"),
    ],
)
async def test_garbage_ends_the_channel_and_what_came_before_it_counts(
    parent: Parent, peer: socket.socket, garbage: bytes, text: str
) -> None:
    peer.send(wire(Pong(1)) + garbage + wire(Pong(2)))
    end = await parent.end()
    assert isinstance(end, ProtocolError)
    assert text in str(end)
    assert parent.messages == [Pong(1)]


@pytest.mark.parametrize("length", [1, HEADER.size, HEADER.size + 1])
async def test_an_end_in_the_middle_of_a_message_is_an_error(
    parent: Parent, peer: socket.socket, length: int
) -> None:
    peer.send(wire(Pong(1)) + wire(Pong(2))[:length])
    peer.close()
    end = await parent.end()
    assert isinstance(end, ProtocolError)
    assert str(end) == f"the stream ended in the middle of a frame, after {length} bytes"
    assert parent.messages == [Pong(1)]


def fill(parent: Parent) -> ChannelBroken:
    """Send to a peer that does not read until the channel gives up."""
    message = Stop("x" * 50_000, 0.0)
    for _ in range(2 * MAX_WAITING_BYTES // 50_000):
        try:
            parent.channel.send(message)
        except ChannelBroken as exc:
            return exc
    raise AssertionError("the buffer has no bound")


async def test_a_peer_that_does_not_read_is_reported_as_broken(
    parent: Parent, peer: socket.socket
) -> None:
    error = fill(parent)
    assert "bytes unread" in str(error)
    assert parent.ends == [], "the end is told from the loop, not from inside send"
    end = await parent.end()
    assert isinstance(end, ChannelBroken)
    assert str(end) == str(error)
    assert peer.recv(1) == wire(Ping(0))[:1]


async def test_after_a_peer_was_given_up_nothing_is_kept_for_it(parent: Parent) -> None:
    error = fill(parent)
    reader, writer = os.pipe()
    job = large_job()
    tracemalloc.start()
    try:
        for ended in (False, True):
            assert parent.channel.ended == ended
            for _ in range(20):
                with pytest.raises(ChannelBroken) as again:
                    parent.channel.send(job, [writer])
                assert str(again.value) == str(error)
            await parent.end()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < MAX_FRAME_BYTES / 2
    os.close(writer)
    assert os.read(reader, 1) == b"", "a copy was kept for a peer that was given up"
    os.close(reader)


async def test_no_message_takes_the_place_of_one_that_was_dropped(
    parent: Parent, child: Child
) -> None:
    fill(parent)
    with pytest.raises(ChannelBroken):
        parent.channel.send(Ping(1))
    await parent.end()
    parent.channel.close()
    received: list[object] = []
    with contextlib.suppress(ProtocolError):  # the end, in the middle of a message
        while (message := child.receive()) is not None:
            received.append(message[0])
    assert Ping(1) not in received


async def test_a_peer_that_floods_us_and_does_not_read_does_not_hold_the_loop(
    parent: Parent, peer: socket.socket
) -> None:
    def flood() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer.sendall(wire(Pong(1)) * 1000)

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        fill(parent)
        assert isinstance(await parent.end(), ChannelBroken)
    finally:
        parent.channel.close()
        await asyncio.to_thread(flooding.join, PATIENCE)


# ── the end ──────────────────────────────────────────────────────────────────


async def test_a_clean_end_is_no_error(parent: Parent, peer: socket.socket) -> None:
    peer.send(wire(Pong(1)))
    peer.close()
    assert await parent.end() is None
    assert parent.messages == [Pong(1)]


async def test_a_peer_that_leaves_without_reading_is_broken_after_its_last_words(
    parent: Parent, peer: socket.socket
) -> None:
    parent.channel.send(Ping(1))
    peer.send(wire(Pong(1)))
    peer.close()
    end = await parent.end()
    assert isinstance(end, ChannelBroken)
    assert str(end) == "the peer is gone: Connection reset by peer"
    assert parent.messages == [Pong(1)]


LAST_WORDS = wire(Started("x" * 1000, 0.0)) * 130  # more than two reads, and the kernel takes it


async def test_the_last_words_of_a_dead_peer_are_read_at_once(
    parent: Parent, peer: socket.socket
) -> None:
    peer.sendall(LAST_WORDS)
    peer.close()
    parent.channel.drain_received()
    assert len(parent.messages) == 130
    assert parent.ends == [None]
    parent.channel.drain_received()
    assert parent.ends == [None]


async def test_reading_the_last_words_of_a_peer_that_lives_returns(
    parent: Parent, peer: socket.socket
) -> None:
    peer.send(wire(Pong(1)))
    parent.channel.drain_received()
    assert parent.messages == [Pong(1)]
    assert parent.ends == []


async def test_reading_the_last_words_comes_to_an_end_though_the_peer_does_not(
    parent: Parent, peer: socket.socket
) -> None:
    # A stray of a dead worker that holds its socket: 1. we read a message, 2. before
    # we read again, there is another. For ever.
    parent.on_message = lambda: peer.send(wire(Pong(1)))
    peer.send(wire(Pong(1)))
    parent.channel.drain_received()
    assert 1 < len(parent.messages) < 1000


@pytest.mark.parametrize("how", ["a send that fails", "a send that waited and fails"])
async def test_the_last_words_count_when_it_is_noticed_by(
    parent: Parent, peer: socket.socket, how: str
) -> None:
    if how == "a send that waited and fails":
        parent.channel.send(large_job())
    peer.sendall(LAST_WORDS)
    peer.close()
    if how == "a send that fails":
        with pytest.raises(ChannelBroken, match="the peer is gone: Broken pipe"):
            parent.channel.send(Ping(1))
    await parent.end()
    assert len(parent.messages) == 130


async def test_a_peer_that_only_stopped_reading_for_good_is_broken(
    parent: Parent, peer: socket.socket
) -> None:
    peer.shutdown(socket.SHUT_RD)
    with pytest.raises(ChannelBroken):
        parent.channel.send(Ping(1))
    assert str(await parent.end()) == "the peer is gone: Broken pipe"


async def test_after_the_end_sending_says_that_the_peer_is_gone(
    parent: Parent, peer: socket.socket
) -> None:
    peer.shutdown(socket.SHUT_WR)  # it still reads: a send would succeed and reach nobody
    assert await parent.end() is None
    with pytest.raises(ChannelBroken, match="the peer has ended the channel"):
        parent.channel.send(Ping(1))


async def test_what_waits_when_the_end_comes_is_not_sent_any_more(
    parent: Parent, peer: socket.socket
) -> None:
    parent.channel.send(large_job())
    peer.shutdown(socket.SHUT_WR)
    assert await parent.end() is None
    while peer.recv(READ_BYTES, socket.MSG_DONTWAIT):
        try:
            peer.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            break
    await some_turns()
    with pytest.raises(BlockingIOError):
        peer.recv(1, socket.MSG_DONTWAIT)


async def test_closing_twice_is_closing_once_and_is_no_end(
    parent: Parent, peer: socket.socket
) -> None:
    parent.channel.close()
    parent.channel.close()
    assert peer.recv(1) == b""
    await some_turns()
    assert parent.ends == []
    assert parent.channel.ended
    with pytest.raises(ChannelClosed):
        parent.channel.send(Ping(1))
    parent.channel.drain_received()


async def test_closing_right_after_a_send_that_failed_is_no_end(
    parent: Parent, peer: socket.socket
) -> None:
    peer.close()
    with pytest.raises(ChannelBroken):
        parent.channel.send(Ping(1))
    parent.channel.close()
    await some_turns()
    assert parent.ends == []


async def test_a_channel_that_is_closed_by_a_message_hands_on_no_other(
    parent: Parent, peer: socket.socket
) -> None:
    parent.on_message = parent.channel.close
    peer.sendall(wire(Pong(1)) * 3)
    assert await parent.received(1) == [Pong(1)]
    await some_turns()
    assert parent.messages == [Pong(1)]
    assert parent.ends == []


async def test_a_channel_may_be_closed_by_its_end(parent: Parent, peer: socket.socket) -> None:
    parent.on_end = parent.channel.close
    peer.close()
    assert await parent.end() is None
