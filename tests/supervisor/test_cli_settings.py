"""cli.settings: one table of options, and what the help says of it."""

from __future__ import annotations

import dataclasses

import pytest

from supervisor.cli import settings
from supervisor.cli.settings import SETTINGS
from supervisor.cli.values import NONE
from supervisor.options import ServerOptions


def default_text(name: str, *, devmode: bool = False, **options: object) -> str:
    row = next(row for row in SETTINGS if row.name == name)
    return settings._default(row, ServerOptions(**options), devmode=devmode)  # type: ignore[arg-type]


def test_every_row_is_an_option_of_the_server() -> None:
    names = {field.name for field in dataclasses.fields(ServerOptions)}
    assert {row.name for row in SETTINGS} <= names
    # What a line of text cannot say is left to the program.
    assert names - {row.name for row in SETTINGS} == {
        "setup_fnc", "preload_fnc", "preload_modules", "load_fnc", "job_limits",
        "permissions", "user_arguments",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "devmode", "options", "environment", "expected"),
    [
        pytest.param("port", False, {}, None, "default: 8081", id="the default of start"),
        pytest.param("port", True, {}, None, "default: 0", id="the default of dev"),
        pytest.param("port", False, {"port": 9}, None, "default: 9, from the program", id="ctor"),
        pytest.param("port", False, {"port": 9}, "7", "default: 7, from the environment", id="env"),
        pytest.param("job_timeout", False, {}, None, "default: none", id="none"),
        pytest.param("load_threshold", True, {}, None, "default: inf", id="infinite"),
        pytest.param("shutdown_process_timeout", True, {}, None, "default: 2", id="dev's own"),
        pytest.param("api_secret", False, {"api_secret": "x"}, None, "set in the program", id="s1"),
        pytest.param("api_secret", False, {}, "x", "set by LIVEKIT_API_SECRET", id="s2"),
    ],
)
def test_the_help_tells_the_effective_default(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    devmode: bool,
    options: dict[str, object],
    environment: str | None,
    expected: str,
) -> None:
    row = next(row for row in SETTINGS if row.name == name)
    monkeypatch.delenv(row.envvar, raising=False)
    if environment is not None:
        monkeypatch.setenv(row.envvar, environment)
    assert default_text(name, devmode=devmode, **options) == expected


def test_what_was_set_is_changed_and_nothing_else() -> None:
    given = {"port": NONE, "host": None, "max_jobs": 3}
    assert settings.changes(given, devmode=False) == {"port": None, "max_jobs": 3}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({}, (0.0, 2.0), id="nobody said anything"),
        pytest.param({"drain_timeout": 5.0}, (5.0, 2.0), id="the command line did, of the drain"),
        pytest.param({"shutdown_process_timeout": 9.0}, (0.0, 9.0), id="and of the grace"),
    ],
)
def test_dev_ends_soon_whatever_the_program_wants_in_production(
    given: dict[str, object], expected: tuple[float, float]
) -> None:
    found = settings.changes(given, devmode=True)
    assert (found["drain_timeout"], found["shutdown_process_timeout"]) == expected
    assert "drain_timeout" not in settings.changes({}, devmode=False)


def test_a_misspelt_variable_is_named_with_what_was_probably_meant() -> None:
    said = settings.unknown_variables(["GREENROOM_MAX_JOB", "GREENROOM_PORT", "GREENROOM_SOCKET"])
    assert said == [
        "GREENROOM_MAX_JOB is set and is no option of this server; did you mean GREENROOM_MAX_JOBS?"
    ]


def test_secrets_leave_the_command_line_for_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
        monkeypatch.setenv(name, "old")
    words = ["agent.py", "start", "--api-secret", "s", "--port", "1", "--api-key=k"]
    flags = settings.move_secrets(words, {"api_key": "k", "api_secret": "s"})
    assert words == ["agent.py", "start", "--port", "1"]
    assert sorted(flags) == ["--api-key", "--api-secret"]
    import os

    assert (os.environ["LIVEKIT_API_KEY"], os.environ["LIVEKIT_API_SECRET"]) == ("k", "s")
