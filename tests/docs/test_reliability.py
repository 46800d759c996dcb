"""What docs/reliability.md says can be done can be done, and its figures are those that were measured."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.chaos.deeds import HOG_MB
from tests.chaos.plan import RATES

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition(" #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
]


def test_every_make_target_exists() -> None:
    if shutil.which("make") is None:
        pytest.skip("no make")
    targets = [line.split()[1] for line in COMMANDS if line.startswith("make ")]
    assert targets == ["chaos", "soak"]
    for target in targets:
        # Only what would be done: both take from minutes to an hour. Short ones are
        # run by tests/chaos and tests/stress.
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_every_file_that_is_named_exists() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", TEXT)) | set(
        re.findall(r"\]\(([\w.]+)\)", TEXT)
    )
    assert len(named) > 4
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "docs" / name).exists(), name


def test_the_soak_s_figures_are_those_of_its_file() -> None:
    figures = json.loads((ROOT / "docs" / "soak.json").read_text(encoding="utf-8"))
    assert figures["jobs"] == 100_000
    assert figures["growth_mb"] < 5.0
    assert figures["descriptors_grown"] == figures["threads_grown"] == 0
    assert f"{figures['jobs']:,} jobs" in TEXT
    assert f"grew by {figures['growth_mb']:.2f} MB" in TEXT
    assert figures["machine"] in TEXT


def test_the_hour_s_summary_has_every_kind_of_fault_and_nothing_lost_or_run_twice() -> None:
    for kind in RATES:
        assert re.search(rf"^\| {re.escape(kind)} \| [\d,]+ \|", TEXT, re.MULTILINE), kind
    for name in ("lost", "run twice", "untrue outcomes", "leftovers", "anything else wrong"):
        assert f"| **{name}** | **0** |" in TEXT
    assert "Seed " in TEXT and ", 60 minutes, " in TEXT


def test_the_memory_hog_is_as_big_as_is_said() -> None:
    assert f"take {HOG_MB} MB" in TEXT
