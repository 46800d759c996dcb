"""``python -I -S tether.py PARENT COMMAND…``: run a command that ends when its parent does.

Run as a program, in between ``fork`` and the command: asking the kernel for a
signal at the parent's death has to happen in the child, before any code of the
user's, and a Python function between fork and exec is no option in a program with
threads. What is set here survives ``exec``.

A Ctrl-C in the terminal is not for the command either: its parent gets it too,
and tells the command in an orderly way. A command that wants it installs a handler.
"""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(parent: int, command: list[str]) -> None:
    """Become *command*, tied to the life of the process *parent*."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
