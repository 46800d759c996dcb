"""The command that this process was started with, to start it once more."""

from __future__ import annotations

import sys
from typing import Final

# As they were when the command line was read: secrets are taken out of them later.
_ARGUMENTS: Final = tuple(sys.argv[1:])


def own_command() -> list[str]:
    """Return the interpreter, its options, the script or module, and ``sys.argv`` as it is now.

    A program that made up its ``sys.argv`` itself will do so again.
    """
    before, arguments = _split(sys.orig_argv[1:])
    return [sys.executable, *before, *(sys.argv[1:] if arguments == _ARGUMENTS else arguments)]


def _split(words: list[str]) -> tuple[list[str], tuple[str, ...]]:
    at = len(words) - len(_ARGUMENTS)
    return words[:at], tuple(words[at:])
