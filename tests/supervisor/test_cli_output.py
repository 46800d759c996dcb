"""cli.output: lines in order, bounded, and never a wait for who reads them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from supervisor.cli.output import LineWriter


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


def notice(count: int) -> bytes:
    return f"{count} dropped\n".encode()


def read_all(fd: int) -> bytes:
    with open(fd, "rb", closefd=False) as stream:
        return stream.read()


def test_lines_of_several_threads_arrive_whole_and_each_threads_in_order(
    pipe: tuple[int, int],
) -> None:
    reader, writer = pipe
    lines = LineWriter(writer, notice)

    def write(name: int) -> None:
        for number in range(500):
            lines.write(f"{name} {number} {'x' * 300}\n".encode())

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    got: list[bytes] = []
    reading = threading.Thread(target=lambda: got.append(read_all(reader)))
    reading.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines.close()
    reading.join()
    words = [line.split() for line in got[0].decode().splitlines()]
    assert len(words) == 2000
    for name in range(4):
        assert [int(word[1]) for word in words if word[0] == str(name)] == list(range(500))


def test_beyond_the_bound_lines_are_dropped_counted_and_told(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    lines = LineWriter(writer, notice, max_bytes=200_000)
    line = b"x" * 999 + b"\n"
    for _ in range(1000):  # the pipe takes 64 KiB and nobody reads
        lines.write(line)
    first = os.read(reader, 1_000_000)
    got = [first]
    reading = threading.Thread(target=lambda: got.append(read_all(reader)))
    reading.start()
    lines.close()
    reading.join()
    *kept, last = b"".join(got).splitlines(keepends=True)
    assert set(kept) == {line}
    assert len(kept) >= 200, "nothing is lost below the bound"
    assert last == f"{1000 - len(kept)} dropped\n".encode()


def test_the_end_does_not_wait_for_a_reader_who_takes_nothing(pipe: tuple[int, int]) -> None:
    _, writer = pipe
    lines = LineWriter(writer, notice)
    for _ in range(200):
        lines.write(b"x" * 999 + b"\n")
    lines.close()
    assert lines._lines, "what was left was given up"
    read_a_pipeful(pipe[0])
    lines._thread.join(10)
    assert not lines._thread.is_alive(), "it writes no more: the descriptor may be another's by now"
    os.close(writer)


def read_a_pipeful(fd: int) -> None:
    os.read(fd, 64 * 1024)


def test_a_descriptor_that_somebody_made_non_blocking_loses_nothing(
    pipe: tuple[int, int],
) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)
    lines = LineWriter(writer, notice)
    for number in range(1000):
        lines.write(f"{number:04} {'x' * 200}\n".encode())
    got: list[bytes] = []
    reading = threading.Thread(target=lambda: got.append(read_all(reader)))
    reading.start()
    lines.close()
    reading.join()
    assert len(got[0].splitlines()) == 1000


def test_a_reader_that_is_gone_is_told_once(
    pipe: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = pipe
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), reader)
    lines = LineWriter(writer, notice)
    for _ in range(3):
        lines.write(b"x\n")
        lines.write(b"y\n")
    lines.close()
    assert capsys.readouterr().err.count("cannot write the log") == 1
