"""The options that deployment may set: one table, from which everything else is made.

Each row gives an option's flag, its environment variable, how its text becomes a
value, and its line of help. ``start`` and ``dev`` have the same rows. What a value
may be is checked where it is checked for everybody, in ``supervisor.options``.

Where a value comes from, first come first served: the command line, the
environment, the constructor, the default. ``--help`` shows what counts if the
command line says nothing, and where that comes from.
"""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from supervisor.checks import LOG_LEVELS
from supervisor.cli.values import (
    NONE,
    Parser,
    count,
    level,
    number,
    or_none,
    patience_or_none,
    port,
    seconds,
)
from supervisor.options import START_METHODS, ServerOptions

PREFIX: Final = "GREENROOM_"


# ── the table ────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Setting:
    """One option of the server that the command line and the environment can set.

    Args:
        name: its name in ``ServerOptions``.
        group: the section of the help that it stands in.
        help: one line.
        parser: makes a value of text; None for a switch.
        metavar: what the help calls the value.
        flag: its name on the command line, where it is not ``--name``.
        variable: its environment variable, where it is not ``GREENROOM_NAME``.
        choices: what the shell completes.
        secret: never shown, and warned about on the command line.
        in_dev: what ``dev`` takes unless the command line or the environment says
            otherwise: how long production waits is nothing to somebody at a terminal.
    """

    name: str
    group: str
    help: str
    parser: Parser | None = str
    metavar: str = "TEXT"
    flag: str = ""
    variable: str = ""
    choices: tuple[str, ...] = ()
    secret: bool = False
    in_dev: object = None

    @property
    def option(self) -> str:
        """The flag, such as ``--drain-timeout``."""
        return self.flag or "--" + self.name.replace("_", "-")

    @property
    def envvar(self) -> str:
        """The environment variable."""
        return self.variable or PREFIX + self.name.upper()


def _row(name: str, group: str, parser: Parser | None, metavar: str, help: str) -> Setting:
    return Setting(name, group, help, parser, metavar)


_MAYBE_COUNT: Final = or_none(count)
_MAYBE_SECONDS: Final = or_none(seconds)

SETTINGS: Final = (
    Setting(
        "log_level",
        "Logs",
        f"{', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}, in any case; "
        "for the server and all its jobs.",
        level,
        "LEVEL",
        choices=LOG_LEVELS,
    ),
    _row("capture_output", "Logs", None, "", "Log what jobs print."),
    _row("num_idle_processes", "Workers", count, "N", "Warm workers to keep."),
    _row(
        "max_idle_processes",
        "Workers",
        _MAYBE_COUNT,
        "N",
        "Up to so many warm workers when demand is high.",
    ),
    _row("max_processes", "Workers", _MAYBE_COUNT, "N", "Ceiling on live workers."),
    _row("max_idle_age", "Workers", _MAYBE_SECONDS, "SECONDS", "Older idle workers are replaced."),
    _row(
        "max_jobs_per_process",
        "Workers",
        _MAYBE_COUNT,
        "N",
        "Jobs before a worker is recycled; none: no limit.",
    ),
    _row("initialize_process_timeout", "Workers", number, "SECONDS", "For setup and preload."),
    _row(
        "cgroup",
        "Workers",
        or_none(str),
        "WHERE",
        "Where workers get control groups: auto, a directory, or none.",
    ),
    Setting(
        "multiprocessing_context",
        "Workers",
        f"How workers are made: {' or '.join(START_METHODS)}.",
        metavar="METHOD",
        choices=START_METHODS,
    ),
    _row("max_jobs", "Jobs", _MAYBE_COUNT, "N", "Ceiling on jobs at a time."),
    _row(
        "load_threshold", "Jobs", number, "LOAD", "At or above it no job is admitted; inf: never."
    ),
    _row("job_timeout", "Jobs", _MAYBE_SECONDS, "SECONDS", "Wall time of one job."),
    _row("job_memory_warn_mb", "Jobs", number, "MB", "Warn when a job uses more; 0: never."),
    _row("job_memory_limit_mb", "Jobs", number, "MB", "Kill a job that uses more; 0: never."),
    _row("session_end_timeout", "Jobs", number, "SECONDS", "For on_session_end."),
    _row("max_payload_mb", "Jobs", number, "MB", "The largest job."),
    _row("ping_interval", "Jobs", number, "SECONDS", "Between pings to each worker."),
    _row("ping_timeout", "Jobs", number, "SECONDS", "A worker silent for so long is killed."),
    _row("high_ping_threshold", "Jobs", number, "SECONDS", "A loop stuck for so long is logged."),
    Setting(
        "drain_timeout",
        "Ending",
        "How long running jobs may go on after SIGTERM; none: for ever.",
        patience_or_none,
        "SECONDS",
        in_dev=0.0,
    ),
    Setting(
        "shutdown_process_timeout",
        "Ending",
        "The grace of a job that was asked to stop.",
        number,
        "SECONDS",
        in_dev=2.0,
    ),
    _row("host", "HTTP", str, "ADDRESS", "Where health and metrics are served."),
    _row("port", "HTTP", port, "PORT", "The port for them; 0: any free one; none: no HTTP."),
    _row("http_proxy", "HTTP", str, "URL", "The proxy that jobs are told of."),
    Setting(
        "ws_url",
        "LiveKit",
        "The LiveKit server that jobs come from.",
        metavar="URL",
        flag="--url",
        variable="LIVEKIT_URL",
    ),
    Setting(
        "api_key", "LiveKit", "Its API key.", metavar="KEY", variable="LIVEKIT_API_KEY", secret=True
    ),
    Setting(
        "api_secret",
        "LiveKit",
        "Its API secret. The variable is safer: others can see a command line.",
        metavar="SECRET",
        variable="LIVEKIT_API_SECRET",
        secret=True,
    ),
    _row("max_retry", "LiveKit", count, "N", "Connection attempts in a row."),
)

# Variables of ours that are no rows of the table.
OTHER_VARIABLES: Final = ("GREENROOM_SOCKET",)


# ── options for typer ────────────────────────────────────────────────────────


def takes_settings(
    options: ServerOptions, *, devmode: bool
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that puts the table's options behind a command's own.

    The command gets those that were set as keyword arguments; None: not set.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for each in inspect.signature(command, eval_str=True).parameters.values()
            if each.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        rows = [_parameter(row, options, devmode=devmode) for row in SETTINGS]
        signature = inspect.Signature([*own, *rows])
        command.__signature__ = signature  # type: ignore[attr-defined]  # read by typer
        command.__annotations__ = {}  # the signature's own annotations are no text
        return command

    return decorate


def _parameter(row: Setting, options: ServerOptions, *, devmode: bool) -> inspect.Parameter:
    flags = [row.option] if row.parser else [f"{row.option}/--no-{row.option[2:]}"]
    info = typer.Option(
        *flags,
        parser=row.parser,
        metavar=row.metavar or None,
        envvar=row.envvar,
        show_envvar=False,
        show_default=False,
        rich_help_panel=row.group,
        autocompletion=(lambda: list(row.choices)) if row.choices else None,
        help=f"{row.help} [{row.envvar}; {_default(row, options, devmode=devmode)}]",
    )
    kind: Any = Annotated[bool | None if row.parser is None else str | None, info]
    return inspect.Parameter(
        row.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind
    )


def _default(row: Setting, options: ServerOptions, *, devmode: bool) -> str:
    """Return what counts if the command line says nothing, and who said so."""
    given = os.environ.get(row.envvar)
    if given:
        return f"set by {row.envvar}" if row.secret else f"default: {given}, from the environment"
    if devmode and row.in_dev is not None:
        return f"default: {_text(row.in_dev)}"
    value = getattr(options.resolve(devmode=devmode), row.name)
    if value != getattr(ServerOptions().resolve(devmode=devmode), row.name):
        return "set in the program" if row.secret else f"default: {_text(value)}, from the program"
    return f"default: {_text(value)}"


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


# ── what was set ─────────────────────────────────────────────────────────────


def changes(given: Mapping[str, object], *, devmode: bool) -> dict[str, object]:
    """Return what to change in *options*, from what typer read of the table.

    Args:
        given: by name; None where nothing was set.
        devmode: also what ``dev`` takes where nothing was set.
    """
    found = {
        name: None if value is NONE else value for name, value in given.items() if value is not None
    }
    for row in SETTINGS if devmode else ():
        if row.in_dev is not None and row.name not in found:
            found[row.name] = row.in_dev
    return found


def names_of(option: str) -> list[str] | None:
    """Return how users may have set *option*: its flag and its variable. None: not by these."""
    return next(([row.option, row.envvar] for row in SETTINGS if row.name == option), None)


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """Return a sentence for each variable that looks like ours and is not."""
    known = [row.envvar for row in SETTINGS] + list(OTHER_VARIABLES)
    sentences = []
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            sentences.append(f"{name} is set and is no option of this server{hint}")
    return sentences


def move_secrets(words: list[str], given: Mapping[str, object]) -> list[str]:
    """Move secrets from the command line to the environment; return their flags.

    *words* are changed in place: they reach every job as ``sys.argv``. The
    variables are known as secrets, and children lose them.

    Args:
        words: ``sys.argv``.
        given: what typer read, by name.
    """
    rows = [row for row in SETTINGS if row.secret]
    found = []
    for row in rows:
        for index in reversed(range(len(words))):
            if words[index] == row.option:
                del words[index : index + 2]
            elif words[index].startswith(row.option + "="):
                del words[index]
            else:
                continue
            found.append(row.option)
            os.environ[row.envvar] = str(given[row.name])
    return found
