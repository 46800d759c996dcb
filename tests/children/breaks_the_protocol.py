"""Jobs that write into the worker's own channel what does not belong there.

Each writes and then waits for ever, unless it says otherwise: that it ends is the
supervisor's doing.
"""

from __future__ import annotations

import os
import socket
import struct
import time

import multiprocess.process

from ipc import fds
from ipc.frames import HEADER, encode_frame
from ipc.messages import (
    ErrorText,
    Finished,
    Hello,
    Lagging,
    Pong,
    Ready,
    SetupError,
    Started,
    encode,
)
from supervisor import get_job_context


def our_sockets() -> list[socket.socket]:
    """Return this worker's channel and its log socket.

    The kernel remembers who made a socket pair: these two the supervisor made,
    in this order.
    """
    parent = multiprocess.process.parent_process()
    assert parent is not None
    # Looked through before anything is opened: a copy would be found as well.
    numbers = [number for number in _open_numbers() if _is_socket(number)]
    made_there = [number for number in numbers if _maker(number) == parent.pid]
    channel, logs = (socket.socket(fileno=os.dup(number)) for number in made_there)
    return [channel, logs]


def _open_numbers() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc/self/fd"))


def _is_socket(number: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
    except FileNotFoundError:
        return False  # the listing's own


def _maker(number: int) -> int:
    with socket.socket(fileno=os.dup(number)) as sock:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def channel() -> socket.socket:
    return our_sockets()[0]


def sleep_for_ever() -> None:
    while True:
        time.sleep(1000)


def this_job() -> str:
    return get_job_context().job.id


def finished(job: str, payload: bytes | None = None, status: str = "succeeded") -> Finished:
    now = time.monotonic()
    return Finished(job, status, "", payload, None, now, now, 0.0, 0)


# ── bytes that are no messages ───────────────────────────────────────────────


def writes_noise() -> None:
    channel().sendall(b"\xff" * 1000)
    sleep_for_ever()


def writes_zeros() -> None:
    channel().sendall(bytes(1000))
    sleep_for_ever()


def writes_a_frame_of_noise() -> None:
    channel().sendall(encode_frame(b"\xc1 no MessagePack"))
    sleep_for_ever()


def announces_two_gigabytes() -> None:
    channel().sendall(HEADER.pack(2**31, 0))
    sleep_for_ever()


def writes_half_a_frame_and_exits() -> None:
    channel().sendall(HEADER.pack(1000, 0) + b"half")
    os._exit(0)


def writes_half_a_frame_and_shuts_down() -> None:
    sock = channel()
    sock.sendall(HEADER.pack(1000, 0) + b"half")
    sock.shutdown(socket.SHUT_WR)
    sleep_for_ever()


def writes_half_a_frame_and_returns() -> None:
    """What the worker sends next is swallowed by the frame that was announced."""
    channel().sendall(HEADER.pack(100_000, 0) + b"half")


def writes_noise_into_the_log() -> None:
    our_sockets()[1].sendall(b"\xff" * 1000)
    sleep_for_ever()


# ── messages out of place ────────────────────────────────────────────────────


def _says(*messages: object) -> None:
    sock = channel()
    for message in messages:
        sock.sendall(encode_frame(encode(message)))  # type: ignore[arg-type]  # messages, all
    sleep_for_ever()


def says_hello_again() -> None:
    _says(Hello(os.getpid()))


def says_ready_again() -> None:
    _says(Ready(0.1))


def says_that_setup_failed() -> None:
    _says(SetupError(ErrorText("LookupError", "no model", "")))


def says_started_again() -> None:
    _says(Started(this_job(), time.monotonic()))


def says_started_for_another() -> None:
    _says(Started("J-another", time.monotonic()))


def says_finished_for_another(job: str = "J-another") -> None:
    _says(finished(job))


def answers_a_ping_to_come() -> None:
    _says(Pong(10**9))


# ── descriptors ──────────────────────────────────────────────────────────────


def announces_descriptors_that_do_not_come() -> None:
    channel().sendall(encode_frame(encode(finished(this_job(), b"")), 1))
    sleep_for_ever()


def sends_a_pipe_for_a_result() -> None:
    """The supervisor must not read it: nobody will ever write to it."""
    reader, _ = os.pipe()
    data = encode_frame(encode(finished(this_job(), b"")), 1)
    fds.send_with_descriptors(channel(), data, [reader])
    sleep_for_ever()


def sends_descriptors_without_end() -> None:
    sock = channel()
    reader, _ = os.pipe()
    # The bytes are the beginning of a frame that never ends.
    data = HEADER.pack(1_000_000, 0)
    for _ in range(10_000):
        fds.send_with_descriptors(sock, data, [reader])
        data = b"x"
    sleep_for_ever()


# ── its own end, told by itself ──────────────────────────────────────────────


def says_finished_and_returns() -> None:
    """The worker says it as well: twice."""
    channel().sendall(encode_frame(encode(finished(this_job()))))


def says_finished_and_goes_on() -> None:
    """A worker that may run more than one job is handed the next while this one runs."""
    channel().sendall(encode_frame(encode(finished(this_job()))))
    sleep_for_ever()


def closes_its_channel() -> None:
    channel().shutdown(socket.SHUT_RDWR)
    sleep_for_ever()


def floods_with_messages() -> None:
    """Send what is allowed at any time, as fast as it goes."""
    sock = channel()
    data = encode_frame(encode(Lagging(0.0, ""))) * 100
    while True:
        sock.sendall(data)
