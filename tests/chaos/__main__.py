"""``python -m tests.chaos --minutes N --seed S``: run chaos, print the summary, say whether it was good."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.harness import Harness
from tests.chaos.processes import become_subreaper, kill_all_below_us
from tests.chaos.verdict import describe, judge


def main(arguments: list[str]) -> int:
    """Run; return 0 if nothing was lost, run twice, untrue or left, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="how long faults are injected")
    parser.add_argument("--seed", type=int, default=None, help="drawn unless given; printed")
    parser.add_argument("--keep", type=Path, default=None, help="keep all files here")
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    own_disk = os.geteuid() == 0 and shutil.which("unshare") is not None
    print(f"chaos: seed {seed}, {given.minutes:g} minutes", flush=True)
    if not own_disk:
        print("not possible here: a full disk for logs (it takes root and unshare)", flush=True)
    directory = given.keep or Path(tempfile.mkdtemp(prefix="greenroom-chaos-"))
    directory.mkdir(parents=True, exist_ok=True)
    become_subreaper()
    harness = Harness(directory, seed, given.minutes * 60, own_disk=own_disk)
    began = time.strftime("%Y-%m-%d %H:%M")
    try:
        evidence = asyncio.run(harness.run())
    finally:
        kill_all_below_us()
    verdict = judge(evidence)
    head = f"Seed {seed}, {given.minutes:g} minutes, {began}, {machine()}."
    print(describe(verdict, head), flush=True)
    if verdict.is_good and given.keep is None:
        shutil.rmtree(directory)
    else:
        print(f"the evidence is in {directory}")
    return 0 if verdict.is_good else 1


def machine() -> str:
    """Return what it ran on."""
    return (
        f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
