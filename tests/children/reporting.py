"""How a child tells a test what happens, across any number of processes: lines in a FIFO."""

from __future__ import annotations

import json
import os
import time
from typing import Any


class Say:
    """Writes one line for each call. Travels to any process, and works in any thread.

    Args:
        path: the FIFO; the test has it open for reading.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, what: str, **details: Any) -> None:
        line = json.dumps({"what": what, "pid": os.getpid(), "at": time.monotonic(), **details})
        # One write of less than PIPE_BUF is never mixed with another's.
        assert len(line) < 4096, line
        fd = os.open(self.path, os.O_WRONLY)
        try:
            os.write(fd, line.encode() + b"\n")
        finally:
            os.close(fd)
