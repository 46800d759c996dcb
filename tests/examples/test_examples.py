"""The examples run, and say what their texts promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"

# Each takes a second or two; what hangs must not hold up the others.
SECONDS = 60


@pytest.mark.parametrize(
    ("name", "needs", "expected"),
    [
        pytest.param(
            "embed_asyncio",
            (),
            ["short: [('cat', 1), ('sat', 1)]", "timeout of 1 s", "SIGABRT", "cancelled"],
            id="embed in an asyncio program",
        ),
        pytest.param(
            "embed_starlette",
            ("starlette", "httpx2"),
            ["200 {'factors': [71, 839, 1471, 6857]", "/factors/0 504", "/status 200"],
            id="embed in a web application",
        ),
        pytest.param(
            "cpu_bound_tqdm",
            ("tqdm",),
            ["1229 primes below 10000", "13: the job was lost", "SIGABRT"],
            id="a script with a progress bar",
        ),
        pytest.param(
            "joblib_backend",
            ("joblib",),
            ["[0.0, 1.0, 2.0", "as in this process"],
            id="a backend of joblib",
        ),
    ],
)
def test_it_runs(name: str, needs: tuple[str, ...], expected: list[str]) -> None:
    for module in needs:
        pytest.importorskip(module)
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:supervisor", f"{EXAMPLES / name}.py"],
        cwd=EXAMPLES.parent,
        env={"PYTHONPATH": str(EXAMPLES.parent), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for text in expected:
        assert text in done.stdout, f"{text!r} is not in:\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
