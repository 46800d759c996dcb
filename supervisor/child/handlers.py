"""Setting a signal's handler in a process that has just been forked.

``signal.signal`` looks for an enum member that stands for the signal and one for the
handler: ten functions, whose pages each worker would copy, and their answer is for
readers. This is the function underneath.
"""

from __future__ import annotations

import signal

# In CPython since 3.5; typeshed leaves it out.
from _signal import signal as _set  # type: ignore[import-not-found]
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

# It takes a plain number only.
_DEFAULT: Final = int(signal.SIG_DFL)


def set_handler(number: int, handler: Callable[[int, FrameType | None], Any]) -> None:
    """Have *handler* called for signal *number*, as ``signal.signal``. Runs on: the main thread."""
    _set(number, handler)


def set_default(number: int) -> None:
    """Let signal *number* do what it does by default. Runs on: the main thread."""
    _set(number, _DEFAULT)
