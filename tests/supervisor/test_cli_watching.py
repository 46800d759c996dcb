"""cli.watching: which files' changes mean a reload."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from watchfiles import Change

from supervisor.cli.watching import Sources, forget_bytecode, saved_at, why_never


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("agent.py", True),
        ("package/deep/module.py", True),
        ("notes.txt", False),
        ("agent.pyc", False),
        (".venv/lib/x.py", False),
        ("venv/lib/x.py", False),
        ("package/__pycache__/x.py", False),
        (".git/x.py", False),
        ("node_modules/x.py", False),
        (".#agent.py", False),
        ("agent.py~", False),
        ("prompts/greeting.yaml", True),
        ("greeting.yaml", True),
        ("data/table.csv", True),
        ("other/table.csv", False),
        ("../elsewhere.toml", True),
        ("../elsewhere.py", False),
    ],
)
def test_which_files_count(tmp_path: Path, path: str, counts: bool) -> None:
    # The root's own name does not matter, even if it is one that is left out.
    root = tmp_path / ".venv" / "project"
    (root / "venv").mkdir(parents=True)
    (root / "venv" / "pyvenv.cfg").touch()
    sources = Sources(root, ["*.yaml", "data/*.csv", "../elsewhere.toml"])
    assert sources(Change.modified, os.path.normpath(root / path)) is counts
    assert sources.elsewhere == {tmp_path / ".venv"}


def test_a_new_directory_counts_for_what_is_in_it(tmp_path: Path) -> None:
    sources = Sources(tmp_path)
    package, cache = tmp_path / "package", tmp_path / "__pycache__"
    for directory in (package / "deep", cache):
        directory.mkdir(parents=True)
        (directory / "x.py").touch()
    assert sources(Change.added, str(package))
    assert not sources(Change.modified, str(package))
    assert not sources(Change.added, str(cache))
    (package / "deep" / "x.py").unlink()
    assert not sources(Change.added, str(package))


def test_a_path_that_is_included_may_be_a_link(tmp_path: Path) -> None:
    real, root = tmp_path / "real", tmp_path / "root"
    real.mkdir()
    root.mkdir()
    (tmp_path / "link").symlink_to(real)
    sources = Sources(root, [str(tmp_path / "link" / "x.toml")])
    assert sources.elsewhere == {real}
    assert sources(Change.added, str(real / "x.toml"))


def test_what_no_file_matches_now_is_known_until_one_comes(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "data").mkdir(parents=True)
    (root / "data" / "a.yaml").touch()
    patterns = ["*.yaml", "data/*.csv", "../*.toml", str(root / "later" / "x.txt")]
    sources = Sources(root, patterns)
    assert sources.unmatched == ["data/*.csv", "later/x.txt", str(tmp_path / "*.toml")]
    (root / "data" / "b.csv").touch()
    (tmp_path / "c.toml").touch()
    assert sources.unmatched == ["later/x.txt"]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("*.yaml", None),
        ("later/x.txt", None),
        ("../*.toml", None),
        ("data", "expected files, not a directory; those in it are named by 'data/*'"),
        ("", "expected files, not a directory"),
        ("../other/x", "expected files in a directory that exists; there is no "),
        ("/no/such/*.yaml", "expected files in a directory that exists; there is no /no/such"),
    ],
)
def test_what_can_never_match_is_known_at_once(
    tmp_path: Path, pattern: str, reason: str | None
) -> None:
    root = tmp_path / "root"
    (root / "data").mkdir(parents=True)
    told = why_never(root, pattern)
    assert told == reason or (told is not None and reason is not None and told.startswith(reason))


def test_two_edits_of_one_size_within_a_second_are_two(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("x = 1")
    cached = Path(importlib.util.cache_from_source(str(path)))
    cached.parent.mkdir()
    cached.touch()
    forget_bytecode([path, tmp_path / "gone.py", tmp_path / "x.yaml"])
    assert not cached.exists()


def test_the_moment_of_the_save_is_the_files_own(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.touch()
    os.utime(path, (1000.0, 1000.0))
    assert saved_at([path], 1002.5) == 1000.0
    assert saved_at([path], 2000.0) == 2000.0, "moved here, with an old date"
    assert saved_at([path], 999.0) == 999.0, "a clock that is ahead"
    assert saved_at([tmp_path / "gone"], 5.0) == 5.0
