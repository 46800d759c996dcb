"""What the hooks of the server under test are to do just now: a file that the harness replaces.

``setup_fnc`` runs in workers and ``load_fnc`` on a thread of the server; both look
here each time, so that the weather can change without a restart.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class Weather:
    """What hooks do.

    Args:
        setup_seconds: how long ``setup_fnc`` takes.
        setup_fails: whether it raises.
        load_flaps: whether ``load_fnc`` gives good answers and bad ones in turns.
    """

    setup_seconds: float = 0.0
    setup_fails: bool = False
    load_flaps: bool = False

    def write(self, path: Path) -> None:
        """Make it the weather, in one step."""
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)), encoding="ascii")
        os.replace(new, path)

    @classmethod
    def read(cls, path: str) -> Weather:
        """Return the weather as it is."""
        with open(path, encoding="ascii") as file:
            return cls(**json.load(file))


class SetupRefused(Exception):
    """What ``setup_fnc`` raises in bad weather."""


def set_up(path: str) -> None:
    """Warm a worker, as the weather allows."""
    weather = Weather.read(path)
    time.sleep(weather.setup_seconds)
    if weather.setup_fails:
        raise SetupRefused("bad weather")


# One after the other, as long as the load flaps. The last but one takes longer
# than a load function may.
_ANSWERS: Final = (0.0, math.nan, 0.2, 1.0, -3.0, "raise", 0.9, "wait", 0.0)


class Load:
    """A load function that is fine, or not."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._calls = 0

    def __call__(self) -> object:
        """Return what is called the load."""
        if not Weather.read(self._path).load_flaps:
            return 0.0
        self._calls += 1
        answer = _ANSWERS[self._calls % len(_ANSWERS)]
        if answer == "raise":
            raise RuntimeError("no load today")
        if answer == "wait":
            time.sleep(1.2)
            return 0.0
        return answer
