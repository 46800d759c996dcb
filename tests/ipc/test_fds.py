"""Descriptors on their way, and memory that nobody can change any more."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import tempfile
from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from ipc import fds
from ipc.errors import ChannelBroken, PayloadTooLarge, ProtocolError
from ipc.frames import MAX_FRAME_DESCRIPTORS

Pair = tuple[socket.socket, socket.socket]

MIB = 2**20


@given(st.binary(max_size=5000))
def test_sealed_memory_holds_what_was_written(payload: bytes) -> None:
    fd = fds.write_memory(payload)
    try:
        assert fds.read_memory(fd, max_bytes=len(payload)) == payload
    finally:
        os.close(fd)


def test_sealed_memory_takes_a_view_of_many_megabytes() -> None:
    payload = memoryview(os.urandom(5 * MIB))
    fd = fds.write_memory(payload)
    try:
        assert fds.read_memory(fd, max_bytes=5 * MIB) == payload
    finally:
        os.close(fd)


def test_sealed_memory_can_be_read_twice_and_is_not_closed_by_reading() -> None:
    fd = fds.write_memory(b"payload")
    try:
        assert fds.read_memory(fd, max_bytes=100) == b"payload"
        assert fds.read_memory(fd, max_bytes=100) == b"payload"
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda fd: os.pwrite(fd, b"x", 0), id="overwritten"),
        pytest.param(lambda fd: os.ftruncate(fd, 1), id="made shorter"),
        pytest.param(lambda fd: os.ftruncate(fd, 100), id="made longer"),
    ],
)
def test_sealed_memory_can_not_be(change: Callable[[int], object]) -> None:
    fd = fds.write_memory(b"payload")
    try:
        with pytest.raises(PermissionError):
            change(fd)
        assert fds.read_memory(fd, max_bytes=100) == b"payload"
    finally:
        os.close(fd)


def test_sealed_memory_is_closed_on_exec() -> None:
    fd = fds.write_memory(b"payload")
    try:
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_memory_over_the_limit_is_refused_before_it_is_read() -> None:
    fd = fds.write_memory(bytes(101))
    try:
        with pytest.raises(PayloadTooLarge) as caught:
            fds.read_memory(fd, max_bytes=100, what="a result")
        assert str(caught.value) == "a result has 101 bytes, the limit is 100"
        assert len(fds.read_memory(fd, max_bytes=101)) == 101
    finally:
        os.close(fd)


def unsealed_memfd() -> int:
    fd = os.memfd_create("unsealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, b"payload")
    return fd


def half_sealed_memfd() -> int:
    fd = unsealed_memfd()
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


def pipe_end() -> int:
    reader, writer = os.pipe()
    os.close(writer)
    return reader


def plain_file() -> int:
    fd, path = tempfile.mkstemp()
    os.unlink(path)
    return fd


def endless_device() -> int:
    return os.open("/dev/zero", os.O_RDONLY)


def one_socket() -> int:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).detach()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        pytest.param(unsealed_memfd, "that it can still change", id="memory without a seal"),
        pytest.param(half_sealed_memfd, "that it can still change", id="memory half sealed"),
        pytest.param(pipe_end, "no sealed memory", id="a pipe"),
        pytest.param(one_socket, "no sealed memory", id="a socket"),
        pytest.param(endless_device, "no sealed memory", id="a device that never ends"),
    ],
)
def test_what_is_no_sealed_memory_is_refused(make: Callable[[], int], text: str) -> None:
    fd = make()
    try:
        with pytest.raises(ProtocolError, match=text):
            fds.read_memory(fd, max_bytes=100)
    finally:
        os.close(fd)


def test_a_plain_file_is_refused() -> None:
    # On tmpfs a plain file can be asked for its seals (it has F_SEAL_SEAL), on
    # other file systems it cannot: the text depends on it, the refusal does not.
    fd = plain_file()
    try:
        with pytest.raises(ProtocolError):
            fds.read_memory(fd, max_bytes=100)
    finally:
        os.close(fd)


def test_a_descriptor_that_is_closed_is_refused() -> None:
    fd = fds.write_memory(b"payload")
    os.close(fd)
    with pytest.raises(ProtocolError):
        fds.read_memory(fd, max_bytes=100)


def test_memory_that_cannot_be_sealed_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError("no seals here")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with pytest.raises(OSError, match="no seals here"):
        fds.write_memory(b"payload")


def test_without_memfd_the_payload_goes_to_a_file_that_has_no_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    fd = fds.write_memory(b"payload")
    try:
        assert os.fstat(fd).st_nlink == 0
        assert os.pread(fd, 100, 0) == b"payload"
    finally:
        os.close(fd)


def test_memory_that_ends_early_is_a_broken_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only where memory cannot be sealed: 1. we ask for its size, 2. the peer makes it shorter.
    fd = fds.write_memory(b"payload")
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "preadv", lambda *_: 0)
            with pytest.raises(ChannelBroken, match="ended early"):
                fds.read_memory(fd, max_bytes=100)
    finally:
        os.close(fd)


def test_copies_of_descriptors_are_closed_when_one_cannot_be_made() -> None:
    reader, writer = os.pipe()
    with pytest.raises(OSError, match="Bad file descriptor"):
        fds.duplicate([writer, -1])
    [copy] = fds.duplicate([writer])
    os.close(writer)
    os.write(copy, b"through")
    os.close(copy)
    assert os.read(reader, 100) == b"through"
    assert os.read(reader, 100) == b"", "the first copy of the failed call is still open"
    os.close(reader)


# ── descriptors beside bytes ─────────────────────────────────────────────────


def test_a_descriptor_arrives_beside_its_bytes_and_is_closed_on_exec(pair: Pair) -> None:
    ours, theirs = pair
    reader, writer = os.pipe()
    assert fds.send_with_descriptors(ours, b"here", [writer]) == 4
    os.close(writer)
    data, received, dropped = fds.receive_with_descriptors(theirs, 100)
    assert (data, len(received), dropped) == (b"here", 1, False)
    assert not os.get_inheritable(received[0])
    os.write(received[0], b"through")
    fds.close_all(received)
    assert os.read(reader, 100) == b"through"
    os.close(reader)


def test_bytes_without_descriptors_bring_none(pair: Pair) -> None:
    ours, theirs = pair
    ours.send(b"plain")
    assert fds.receive_with_descriptors(theirs, 100) == (b"plain", [], False)


def test_the_end_of_the_stream_is_empty_bytes(pair: Pair) -> None:
    ours, theirs = pair
    ours.close()
    assert fds.receive_with_descriptors(theirs, 100) == (b"", [], False)


def test_descriptors_over_the_limit_are_dropped_by_the_kernel_and_that_is_told(pair: Pair) -> None:
    ours, theirs = pair
    reader, writer = os.pipe()
    fds.send_with_descriptors(ours, b"x", [reader, writer] * 10)
    data, received, dropped = fds.receive_with_descriptors(theirs, 100)
    assert (data, dropped) == (b"x", True)
    # The kernel's own rounding may make room for one more.
    assert MAX_FRAME_DESCRIPTORS <= len(received) <= MAX_FRAME_DESCRIPTORS + 1
    fds.close_all([*received, reader, writer])


def test_closing_a_descriptor_that_is_closed_already_is_passed_over() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    fds.close_all([reader, writer])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writer)


def test_the_two_ends_of_a_channel_are_closed_on_exec(pair: Pair) -> None:
    assert not any(sock.get_inheritable() for sock in pair)


def test_memory_whose_pages_are_in_use_for_a_moment_is_sealed_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    control, refusals = fcntl.fcntl, [errno.EBUSY, errno.EBUSY]

    def busy_at_first(fd: int, command: int, argument: int = 0) -> int:
        if command == 1033 and refusals:
            raise OSError(refusals.pop(), "in use")
        return control(fd, command, argument)

    monkeypatch.setattr("ipc.fds.fcntl.fcntl", busy_at_first)
    fd = fds.write_memory(b"x")
    assert fds.read_memory(fd, max_bytes=10) == b"x"
    os.close(fd)


def test_memory_whose_pages_stay_in_use_is_an_error_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def busy(fd: int, command: int, argument: int = 0) -> int:
        raise OSError(errno.EBUSY, "in use")

    monkeypatch.setattr("ipc.fds.fcntl.fcntl", busy)
    with pytest.raises(OSError, match="in use"):
        fds.write_memory(b"x")
