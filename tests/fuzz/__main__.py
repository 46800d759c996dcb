"""``python -m tests.fuzz --inputs N --seed S``: fuzz, and print the figures."""

from __future__ import annotations

import argparse
import platform
import secrets
import sys
from collections.abc import Callable
from typing import Final

from tests.fuzz import decoders, forkserver, handler
from tests.fuzz.measure import Figures

TARGETS: Final[dict[str, tuple[Callable[[int, int], Figures], float]]] = {
    # The share of --inputs that a target gets: a decoder is ten times as fast as
    # a supervisor.
    "decoder": (decoders.run, 1.0),
    "handler": (handler.run, 0.1),
    "forkserver": (forkserver.run, 0.02),
}


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="inputs for the decoder")
    parser.add_argument("--seed", type=int, help="one that was printed; random without it")
    parser.add_argument("--target", choices=sorted(TARGETS), help="only this one")
    given = parser.parse_args(arguments)
    seed = secrets.randbits(32) if given.seed is None else given.seed
    print(f"seed {seed}; Python {platform.python_version()}, Linux {platform.release()}")
    for name, (run, share) in TARGETS.items():
        if given.target in (None, name):
            print(run(max(1, int(given.inputs * share)), seed), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
