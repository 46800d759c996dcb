"""What was done so far, printed when something does not hold."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

from supervisor import clock


class History:
    """Lines with the seconds since the beginning.

    Args:
        describe: returns lines about how things are, for the end of the print.
    """

    def __init__(self, describe: Callable[[], list[str]]) -> None:
        self.failed = False
        self._describe = describe
        self._began_at = clock.monotonic()
        self._lines: list[str] = []

    def tell(self, line: str) -> None:
        """Add a line."""
        self._lines.append(f"{clock.monotonic() - self._began_at:8.3f} {line}")

    @contextlib.contextmanager
    def checking(self) -> Iterator[None]:
        """Print everything to stderr when the block raises."""
        try:
            yield
        except BaseException as exc:
            if not self.failed:
                self.failed = True
                head = ["", f"This history ended in {type(exc).__name__}: {exc}"]
                text = "\n".join([*head, *self._lines, *self._describe()])
                sys.stderr.write(f"{text}\n")
            raise


def picked(candidates: list[Any], pick: int) -> Any:
    """Return one of the candidates, None if there are none.

    A number is drawn and not a candidate: who there is depends on the processes,
    and what hypothesis draws must not.
    """
    return random.Random(pick).choice(candidates) if candidates else None
