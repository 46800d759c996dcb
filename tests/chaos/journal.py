"""The evidence: one line for each thing that happened, written by whoever it happened to.

A file that is only ever appended to, with one ``write`` a line, which the kernel
keeps whole. Nothing of it passes through the supervisor: a job writes that it
began before it does anything else, and it is the file that says whether it ran
twice, not what the supervisor believes.

    b <job> <pid> <parent> <seconds>
                                a job began
    e <job> <pid> <seconds>     its function came to its end
    g <job> <pid> <ticks>       a process that a job left behind, and when it was started
    o <job> <seconds>           the pool beside the server was offered a job
    a <job> <seconds>           and took it
    f <job> <status> <seconds>  and told its outcome
    x <fault> <seconds>         a fault was injected

Seconds are those of CLOCK_MONOTONIC, which is one for all processes of the machine.
"""

from __future__ import annotations

import os
import time
from pathlib import Path


class Journal:
    """Appends lines to a file.

    Args:
        path: of the file.
        held: open it once: for a writer that may run out of descriptors. Otherwise
            it is opened anew for each line: jobs close what they find open.
    """

    def __init__(self, path: str | os.PathLike[str], *, held: bool = False) -> None:
        self._path = os.fspath(path)
        self._held = self._open() if held else None

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def __call__(self, *words: object) -> None:
        """Write one line."""
        line = (" ".join(map(str, words)) + "\n").encode("ascii")
        if self._held is not None:
            os.write(self._held, line)
            return
        fd = self._open()
        try:
            os.write(fd, line)
        finally:
            os.close(fd)

    def now(self, *words: object) -> None:
        """Write one line that ends with this moment."""
        self(*words, f"{time.monotonic():.6f}")


class Reader:
    """Reads what was appended since it last looked: whole lines only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def lines(self) -> list[list[str]]:
        """Return the new lines, each cut into its words."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [line.split() for line in whole.decode("ascii").splitlines()]


def birth_of(pid: int) -> int | None:
    """Return when *pid* was started, in clock ticks after boot; None if it is dead or a zombie.

    Together with the number it names one process for ever. Source: proc_pid_stat(5).
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])
