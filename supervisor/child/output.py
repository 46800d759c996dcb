"""What a worker prints: its standard output and error, led to the supervisor.

At the level of descriptors, so that C libraries and the programs that a job
starts are captured as well. The pipes are bounded and writing waits: a job that
prints megabytes slows down.
"""

from __future__ import annotations

import io
import os
import sys


def redirect_output(stdout_fd: int, stderr_fd: int) -> None:
    """Make what this process and its children print go to these descriptors.

    They are duplicated over 1 and 2 and stay the caller's to close. ``sys.stdout``
    and ``sys.stderr`` become text streams on 1 and 2: UTF-8, a line at a time, so
    that a line is on its way when the job crashes after it. What was in the old
    streams goes out first, to where they led.

    Runs on: the main thread, before user code.
    """
    flush_output()
    os.dup2(stdout_fd, 1)
    os.dup2(stderr_fd, 2)
    sys.stdout, sys.stderr = _text_stream(1), _text_stream(2)
    # What libraries put back after they had replaced sys.stdout for a while.
    sys.__stdout__ = sys.stdout  # type: ignore[misc]  # "final": for programs, not for us
    sys.__stderr__ = sys.stderr  # type: ignore[misc]  # the same


def flush_output() -> None:
    """Send on what was printed without a newline; wait while the supervisor is slow.

    Runs on: any thread.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # None, a broken pipe, or closed by the user: there is nobody to tell


def _text_stream(fd: int) -> io.TextIOWrapper:
    # closefd=False: the descriptor outlives the stream, as with the interpreter's own.
    raw = open(fd, "wb", closefd=False)  # noqa: SIM115 - it lives as long as the process
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
