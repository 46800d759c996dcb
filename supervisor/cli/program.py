"""The command that this process was started with, to start it once more."""

from __future__ import annotations

import sys
from typing import Final

# As it was when the command line was read: secrets are taken out of it later.
_ARGUMENTS: Final = len(sys.argv) - 1


def own_command() -> list[str]:
    """Return the interpreter, its options, the script or module, and ``sys.argv`` as it is now."""
    return [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - _ARGUMENTS], *sys.argv[1:]]
