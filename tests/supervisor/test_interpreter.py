"""What a fresh interpreter is told, here and where others start one."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
from multiprocess import spawn

from supervisor.interpreter import told
from supervisor.travel import main_travels

FIRST = "begun = True"


def program() -> str:
    words: list[str] = spawn.get_command_line(pipe_handle=3)
    return words[words.index("-c") + 1]


def test_a_child_of_ours_runs_the_first_lines_before_anything_else() -> None:
    usual = program()
    with told(first=FIRST):
        assert program() == f"{FIRST}\n{usual}"
    assert program() == usual


def test_a_child_that_another_thread_starts_meanwhile_does_not() -> None:
    usual, seen = program(), []
    with told(first=FIRST):
        thread = threading.Thread(target=lambda: seen.append(program()))
        thread.start()
        thread.join()
    assert seen == [usual]


def test_first_lines_are_forgotten_when_the_start_fails() -> None:
    usual = program()
    with pytest.raises(OSError, match="no process"), told(first=FIRST):
        raise OSError("no process")
    assert program() == usual


def test_a_frozen_program_has_no_lines_to_add_to(monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with told(first=FIRST):
        assert FIRST not in " ".join(spawn.get_command_line(pipe_handle=3))


@pytest.mark.parametrize(("exists", "runs"), [(True, True), (False, False)])
def test_a_main_file_is_run_where_it_exists(
    exists: bool, runs: bool, tmp_path: Any, monkeypatch: Any
) -> None:
    main = sys.modules["__main__"]
    file = tmp_path / "script.py"
    if exists:
        file.touch()
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.setattr(main, "__file__", str(file), raising=False)
    with told():
        data = spawn.get_preparation_data("child")
    assert ("init_main_from_path" in data) is runs
    assert main.__file__ == str(file)


def test_a_main_file_that_was_deleted_is_missed_and_not_left_out(
    tmp_path: Any, monkeypatch: Any
) -> None:
    # Functions of it travel by name: children without it would not know them.
    main = sys.modules["__main__"]
    file = tmp_path / "script.py"
    file.touch()
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.setattr(main, "__file__", str(file), raising=False)
    with told():
        before = spawn.get_preparation_data("child")
        file.unlink()
        assert main_travels()
        assert spawn.get_preparation_data("child") == before
