"""``python -m tests.chaos --minutes N --seed S``: run chaos, print the summary, say whether it was good."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from supervisor.cgroupfs import own_place
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
    began = time.strftime("%Y-%m-%d %H:%M")
    with a_cgroup() as cgroup:
        harness = Harness(directory, seed, given.minutes * 60, own_disk=own_disk, cgroup=cgroup)
        try:
            evidence = asyncio.run(harness.run())
        finally:
            kill_all_below_us()
        if cgroup is not None:
            groups = [str(each) for each in cgroup.iterdir() if each.is_dir()]
            evidence.leftovers.extend(f"the control group {group}" for group in groups)
    verdict = judge(evidence)
    groups_or_not = "without control groups" if cgroup is None else "in control groups"
    head = f"Seed {seed}, {given.minutes:g} minutes, {began}, {machine()}, {groups_or_not}."
    print(describe(verdict, head), flush=True)
    if verdict.is_good and given.keep is None:
        shutil.rmtree(directory)
    else:
        print(f"the evidence is in {directory}")
    return 0 if verdict.is_good else 1


@contextlib.contextmanager
def a_cgroup() -> Iterator[Path | None]:
    """Return a group of cgroup v2 that nobody else uses, for as long as the block lasts; or None."""
    place = own_place()
    path = None if place is None else place.directory / f"chaos-{os.getpid()}"
    try:
        if path is not None:
            path.mkdir()
    except OSError:  # not ours to write to
        path = None
    try:
        yield path
    finally:
        if path is not None:
            for group in [*path.glob("*/*/"), *path.glob("*/"), path]:
                group.rmdir()


def machine() -> str:
    """Return what it ran on."""
    return (
        f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
