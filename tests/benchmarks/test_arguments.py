"""What the command line of ``warm_start`` takes, and how it says no."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import warm_start


@pytest.mark.parametrize(
    ("flag", "value", "complaint"),
    [
        ("--rate", "0", "'0': expected a number above 0"),
        ("--rate", "-1", "'-1': expected a number above 0"),
        ("--rate", "nan", "expected a number above 0"),
        ("--rate", "inf", "expected a number above 0"),
        ("--rate", "often", "expected a number above 0"),
        ("--allowed", "0", "expected a number between 0 and 1"),
        ("--allowed", "1", "expected a number between 0 and 1"),
        ("--allowed", "nan", "expected a number between 0 and 1"),
        ("--samples", "0", "expected a whole number of at least 1"),
        ("--samples", "2.5", "expected a whole number of at least 1"),
        ("--setup", "json", "'json': expected MODULE:FUNCTION"),
        ("--setup", "not_there:f", "ModuleNotFoundError: No module named 'not_there'"),
        ("--setup", "json:nope", "module 'json' has no attribute 'nope'"),
        ("--preload", "json:__doc__", "'json:__doc__' is not a function"),
        ("--preload", "raising:f", "'raising:f': RuntimeError: no licence"),
        ("--preload", "exiting:f", "'exiting:f': SystemExit: 3"),
        ("--preload", "broken:f", "'broken:f': SyntaxError"),
        ("--preload-modules", "json,not_there", "'not_there': there is no such module"),
        ("--preload-modules", "not_there.part", "No module named 'not_there'"),
    ],
)
def test_a_value_that_makes_no_sense_is_one_line_and_exit_2(
    flag: str,
    value: str,
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "raising.py").write_text("raise RuntimeError('no licence')")
    (tmp_path / "exiting.py").write_text("raise SystemExit(3)")
    (tmp_path / "broken.py").write_text("def f(:")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit) as caught:
        warm_start.main([f"{flag}={value}"])
    assert caught.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"error: argument {flag}: " in last
    assert complaint in last


def test_values_that_make_sense_are_taken() -> None:
    words = "--rate .5 --allowed 0.001 --samples 3 --setup json:loads --preload-modules json,csv"
    given = warm_start.parse(words.split())
    assert (given.rate, given.allowed, given.samples) == (0.5, 0.001, 3)
    assert given.setup is json.loads
    assert given.preload_modules == ["json", "csv"]
