"""What the command lines of the benchmarks and of ``warm_start`` take, and how they say no."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line, warm_start
from benchmarks.arguments import peers
from benchmarks.drivers.registry import PEERS
from benchmarks.effort import Effort


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


@pytest.mark.parametrize(
    ("words", "samples"),
    [("", 20), ("--quick", 3), ("--quick --samples 7", 7), ("--samples 7", 7)],
)
def test_quick_takes_few_samples_unless_told_how_many(words: str, samples: int) -> None:
    assert warm_start.parse(words.split()).samples == samples


def test_help_says_how_many_samples_quick_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        warm_start.parse(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "hand-overs; 20 unless given, 3 with --quick" in said
    assert "--quick few samples: shows that it runs" in said


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nope", "nope"),
        ("livekit,nope", "nope"),
        ("ours", "ours"),
        ("", ""),
        ("loky,", ""),
        ("none,loky", "none"),
    ],
)
def test_a_peer_that_there_is_not_is_told_which_there_are(text: str, name: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        peers(text)
    assert str(caught.value) == f"no peer {name!r}; there are: {', '.join(PEERS)}; or none"


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ([], ["ours", "pebble", "loky"]),
        (["--only", "loky, livekit"], ["ours", "loky"]),
        (["--only", "none"], ["ours"]),
    ],
)
def test_ours_takes_part_with_the_peers_that_are_named(words: list[str], field: list[str]) -> None:
    effort = Effort(only=command_line.parse(words).only)
    assert effort.field(["ours", "pebble", "loky"]) == field
