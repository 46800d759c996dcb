"""A quarter of a minute of chaos with a fixed seed, and as long with another one each time.

``GREENROOM_SEED`` repeats the second. The long runs: ``make chaos``.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SECONDS = 15


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", ["fixed", "drawn"])
def test_nothing_is_lost_run_twice_or_left_behind(seed: str, tmp_path: Path) -> None:
    drawn = os.environ.get("GREENROOM_SEED", random.SystemRandom().randrange(2**32))
    number = 1 if seed == "fixed" else int(drawn)
    print(f"GREENROOM_SEED={number}")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.chaos", "--minutes", str(SECONDS / 60)),
            *("--seed", str(number), "--keep", os.fspath(tmp_path / "evidence")),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    assert "| **lost** | **0** |" in done.stdout
