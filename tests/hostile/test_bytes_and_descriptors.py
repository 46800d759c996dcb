"""Bytes that are no messages, and descriptors that are not what they should be."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from ipc import fds
from ipc.frames import HEADER, MAX_FRAME_BYTES, encode_frame
from ipc.messages import Hello, Pong, Ready, Started, encode
from supervisor import JobStatus, clock
from supervisor.results import SealedMemory
from tests.hostile.stage import Stage, finished
from tests.hostile.test_messages import broke_the_protocol
from tests.integration.conftest import descriptors, wait_until

F_ADD_SEALS, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE = 1033, 1, 2, 4, 8
ALL_SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff" * 1000, id="noise"),
        pytest.param(bytes(1000), id="zeros"),
        pytest.param(HEADER.pack(2**32 - 1, 0), id="four gigabytes announced"),
        pytest.param(HEADER.pack(MAX_FRAME_BYTES + 1, 0), id="one byte too many announced"),
        pytest.param(HEADER.pack(10, 255), id="255 descriptors announced"),
        pytest.param(encode_frame(b"\xc1"), id="a frame of no MessagePack"),
        pytest.param(encode_frame(b"\xdd\xff\xff\xff\xff"), id="an array of four billion"),
        pytest.param(encode_frame(b"\xdb\xff\xff\xff\xffHello"), id="a text of four gigabytes"),
        pytest.param(encode_frame(b"\x91" * 900_000 + b"\x01"), id="nested 900,000 deep"),
        pytest.param(encode_frame(b"\x92\xa5Hello\xa2\xff\xfe"), id="a text that is not UTF-8"),
        pytest.param(encode_frame(b"\x92\xa5Hello\xcf" + b"\xff" * 8), id="a number over 63 bits"),
        pytest.param(encode_frame(b"\x92\xa5Hello\xcb\x7f\xf8" + bytes(6)), id="NaN for a pid"),
        pytest.param(encode_frame(b"\x92\xa8KillSelf\x01"), id="a message of its own making"),
        pytest.param(encode_frame(b"\x93\xa6RunJob\xa1x\xa1y"), id="one of our own direction"),
    ],
)
def test_bytes_that_are_no_message_cost_the_child_its_life(stage: Stage, data: bytes) -> None:
    child, _ = stage.running()
    child.sends(data)
    stage.loop.turn(20)
    assert broke_the_protocol(stage)


def test_half_a_frame_holds_nobody_up_and_takes_one_frame_of_memory(stage: Stage) -> None:
    child, handle = stage.running()
    child.sends(HEADER.pack(MAX_FRAME_BYTES, 0))
    for _ in range(40):
        child.sends(bytes(16 * 1024))
        stage.loop.turn()
    (worker,) = (each for each in stage.workers.all if each.pid == child.pid)
    assert worker._channel._frames.buffered <= MAX_FRAME_BYTES + HEADER.size
    assert not child.killed
    stage.child.gets_warm()
    other = stage.submit("J-2")
    stage.child.says(Started("J-2", clock.monotonic()), finished("J-2"))
    assert other.status is JobStatus.SUCCEEDED
    child.exits(1)
    assert handle.status is JobStatus.FAILED


def test_a_message_byte_by_byte_is_a_message(stage: Stage) -> None:
    child, handle = stage.running()
    for byte in encode_frame(encode(finished("J-1"))):
        child.sends(bytes([byte]))
    assert handle.status is JobStatus.SUCCEEDED


# ── descriptors ──────────────────────────────────────────────────────────────


def unsealed() -> int:
    fd = os.memfd_create("soft", os.MFD_ALLOW_SEALING)
    os.write(fd, b"\x80\x05N.")
    return fd


def sealed_but_for(missing: int) -> Callable[[], int]:
    def make() -> int:
        fd = unsealed()
        fcntl.fcntl(fd, F_ADD_SEALS, ALL_SEALS & ~missing)
        return fd

    return make


def too_large() -> int:
    """Costs its maker nothing: no page of it exists."""
    fd = os.memfd_create("sparse", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 2**40)
    fcntl.fcntl(fd, F_ADD_SEALS, ALL_SEALS)
    return fd


def shared_file() -> int:
    fd = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, b"\x80\x05N.")
    return fd


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(unsealed, id="memory without seals"),
        pytest.param(sealed_but_for(F_SEAL_SHRINK), id="memory that can shrink under a reader"),
        pytest.param(sealed_but_for(F_SEAL_WRITE), id="memory that can change under a reader"),
        pytest.param(sealed_but_for(F_SEAL_GROW), id="memory that can grow"),
        pytest.param(sealed_but_for(F_SEAL_SEAL), id="memory whose seals are open"),
        pytest.param(too_large, id="a terabyte of nothing"),
        pytest.param(shared_file, id="a file in shared memory"),
        pytest.param(lambda: os.pipe()[0], id="a pipe that nobody writes to"),
        pytest.param(lambda: os.open("/dev/zero", os.O_RDONLY), id="an endless device"),
        pytest.param(lambda: os.open("/", os.O_RDONLY), id="a directory"),
        pytest.param(lambda: os.pidfd_open(os.getpid()), id="a pidfd"),
        pytest.param(lambda: socket.socket().detach(), id="a socket"),
        pytest.param(lambda: os.open("/etc/hostname", os.O_PATH), id="a mere path"),
    ],
)
def test_a_result_in_anything_but_sealed_memory_is_refused(
    stage: Stage, make: Callable[[], int]
) -> None:
    child, _ = stage.running()
    before = set(descriptors())
    fd = make()
    made = set(descriptors()) - before
    child.sends(encode_frame(encode(finished("J-1", b"")), 1), [fd])
    fds.close_all(made)
    assert broke_the_protocol(stage)


def test_a_result_of_gigabytes_of_zeros_is_not_read_by_the_loop(stage: Stage) -> None:
    child, handle = stage.running(max_payload_bytes=8 * 2**20)
    fd = fds.write_memory(bytes(5 * 2**20))
    child.sends(encode_frame(encode(finished("J-1", b"")), 1), [fd])
    os.close(fd)
    assert handle.status is JobStatus.SUCCEEDED
    assert handle._parcel is not None
    memory = handle._parcel.content
    assert isinstance(memory, SealedMemory), "its caller reads it"
    memory.close()


def test_the_kernel_keeps_sealed_memory_as_it_is() -> None:
    fd = fds.write_memory(b"as it was")
    try:
        for change in (
            lambda: os.ftruncate(fd, 0),
            lambda: os.ftruncate(fd, 2**20),
            lambda: os.write(fd, b"x"),
            lambda: fcntl.fcntl(fd, F_ADD_SEALS, 0),
        ):
            with pytest.raises(PermissionError):
                change()
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(Hello(1), id="HELLO"),
        pytest.param(Ready(0.1), id="READY"),
        pytest.param(Pong(1), id="PONG"),
    ],
)
def test_descriptors_beside_a_message_that_takes_none_break_the_protocol(
    stage: Stage, message: Hello | Ready | Pong
) -> None:
    child = stage.child
    child.born()
    if not isinstance(message, Hello):
        child.says(Hello(1))
    with open(os.devnull) as null:
        child.sends(encode_frame(encode(message), 1), [null.fileno()])
    assert child.killed


def test_descriptors_that_nobody_announces_are_closed_and_end_the_child(stage: Stage) -> None:
    child, _ = stage.running()
    before = len(descriptors())
    with open(os.devnull) as null:
        child.sends(HEADER.pack(1000, 0), [null.fileno()] * 4)
        for _ in range(10):
            child.sends(b"x", [null.fileno()] * 4)
    assert len(descriptors()) <= before + 20
    assert broke_the_protocol(stage)
    wait_until(lambda: len(descriptors()) <= before)


def test_descriptors_on_the_log_socket_never_arrive(stage: Stage) -> None:
    child, _ = stage.running()
    before = len(descriptors())
    with open(os.devnull) as null, contextlib.suppress(PermissionError):  # since Linux 6.16
        fds.send_with_descriptors(child.logs, b"\0", [null.fileno()] * 4)
    stage.loop.turn()
    assert len(descriptors()) == before


@contextlib.contextmanager
def lingering_socket() -> Iterator[socket.socket]:
    """A connection whose last close takes twenty seconds: nobody reads what it has to send."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname())
        other, _ = server.accept()
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(bytes(2**16))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 20))
        with other:
            yield sock
            # Reset from the other side: the close that waits in a thread is over.
            other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("how", ["beside a message", "unannounced", "unread", "on the log socket"])
def test_a_descriptor_that_takes_long_to_close_holds_up_nobody(stage: Stage, how: str) -> None:
    child, _ = stage.running()
    with lingering_socket() as sock:
        if how == "beside a message":
            data = encode_frame(encode(finished("J-1", b"")), 1)
            fds.send_with_descriptors(child.channel, data, [sock.fileno()])
        elif how == "on the log socket":
            try:
                fds.send_with_descriptors(child.logs, b"\0", [sock.fileno()])
            except PermissionError:  # refused by the kernel, since Linux 6.16: ours to close
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
            else:
                pytest.skip("before Linux 6.16 nothing can be done against it")
        else:
            fds.send_with_descriptors(child.channel, b"\xff" * 10, [sock.fileno()])
            if how == "unread":
                for _ in range(4):
                    fds.send_with_descriptors(child.channel, b"\xff" * 10, [sock.fileno()])
        sock.close()
        began = time.perf_counter()
        stage.loop.turn()
        stage.bury()
        stage.finish()
        assert time.perf_counter() - began < 10.0, "it waited for the close"
