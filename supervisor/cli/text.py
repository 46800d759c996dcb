"""Text of strangers, on its way to somebody's terminal."""

from __future__ import annotations

import re
from typing import Final

# Control characters, and what changes the direction of text: a job's room or its
# error could move the cursor, or make a line say something else than it does.
_UNSAFE: Final = re.compile("[\0-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """Return *text* in one line that does nothing to a terminal, as escapes where it would."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
