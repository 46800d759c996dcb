"""docs/threat-model.md names tests: they exist. And its figures are of this tool."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


def test_it_names_many_tests() -> None:
    assert len(NAMED) > 40


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_each_test_that_it_names_exists(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = {
        node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert name in functions


def test_each_hostile_test_file_is_named() -> None:
    files = {f"tests/hostile/{path.name}" for path in (ROOT / "tests/hostile").glob("test_*.py")}
    assert files <= {path for path, _ in NAMED}


def test_the_limits_that_it_names_are_those_of_the_code() -> None:
    from supervisor import visitors
    from supervisor.dispatch import local
    from supervisor.logs import MAX_LINE_BYTES
    from tests.fuzz.measure import HANG_SECONDS

    assert f"A head has {visitors.HEAD_SECONDS:g} s on the port" in PAGE
    assert f"{local.HEAD_TIMEOUT:g} s on the socket" in PAGE
    assert f"a body {local.BODY_TIMEOUT:g} s and {local.MAX_BODY_BYTES // 2**20} MiB" in PAGE
    assert f"in pieces of {MAX_LINE_BYTES // 1024} KiB" in PAGE
    assert f"An input that takes {HANG_SECONDS:g} s counts as a hang" in PAGE
