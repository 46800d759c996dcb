"""The commands: what each takes, and what it calls."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from supervisor.cli import settings
from supervisor.cli.commands import Socket, drain, submit
from supervisor.cli.entry import Server
from supervisor.cli.init import stay_behind_as_init
from supervisor.cli.pipes import quiet
from supervisor.cli.program import own_command
from supervisor.cli.serve import serve, warn
from supervisor.cli.status import status
from supervisor.cli.usage import CLIENT_EXITS, SERVING_EXITS, GroupedCommand, show_version
from supervisor.errors import OptionError

Reload = Annotated[
    bool, typer.Option("--reload/--no-reload", help="Run the new code when a file has changed.")
]
ReloadInclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Files to watch besides *.py under this directory: a pattern such as *.yaml, "
        "or a path; repeatable.",
    ),
]
Version = Annotated[
    bool,
    typer.Option(
        "--version", is_eager=True, callback=show_version, help="Show the version and exit."
    ),
]


def build_app(server: Server) -> typer.Typer:
    """Return the command line for *server*."""
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"max_content_width": 100},
        rich_markup_mode=None,  # errors are one line, in a terminal as in a log
    )

    @app.callback(epilog="Options also come from the environment: see start --help.")
    def about(version: Version = False) -> None:
        """Run this server, or talk to one that runs."""

    @app.command(cls=GroupedCommand, epilog=SERVING_EXITS)
    @settings.takes_settings(server.options, devmode=False)
    def start(socket: Socket = None, **given: Any) -> None:
        """Run the server for production.

        Its log is one JSON object a line on stdout, where nothing else is written.
        """
        _settle(server, given, devmode=False)
        raise typer.Exit(serve(server, devmode=False, socket=socket))

    @app.command(cls=GroupedCommand, epilog=SERVING_EXITS)
    @settings.takes_settings(server.options, devmode=True)
    def dev(
        reload: Reload = True,
        reload_include: ReloadInclude = None,
        socket: Socket = None,
        **given: Any,
    ) -> None:
        """Run the server for development, with reload.

        Readable logs at DEBUG, no load threshold, one idle worker; Ctrl-C ends it at once.
        """
        # Here, since the modules behind it are not needed for production.
        from supervisor.cli.development import serve_and_reload
        from supervisor.cli.generation import given_succession

        _settle(server, given, devmode=True)
        succession = given_succession()
        if reload and succession is None:
            _check_includes(reload_include or ())
            raise typer.Exit(serve_and_reload(server, include=reload_include or (), socket=socket))
        raise typer.Exit(serve(server, devmode=True, socket=socket, succession=succession))

    for command in (submit, status, drain):
        app.command(cls=GroupedCommand, epilog=CLIENT_EXITS)(quiet(command))
    return app


def _check_includes(patterns: Iterable[str]) -> None:
    from supervisor.cli.watching import why_never

    for each in patterns:
        reason = why_never(Path.cwd(), each)
        if reason is not None:
            raise typer.BadParameter(f"{each!r}: {reason}", param_hint="--reload-include")


def _settle(server: Server, given: dict[str, Any], *, devmode: bool) -> None:
    """Apply what the command line and the environment say, and become what the kernel expects."""
    for flag in settings.move_secrets(sys.argv, given):
        warn(f"{flag} can be seen by every user of this machine: use the variable instead")
    try:
        server.update_options(**settings.changes(given, devmode=devmode))
    except OptionError as exc:
        raise typer.BadParameter(str(exc), param_hint=settings.names_of(exc.name)) from exc
    stay_behind_as_init(own_command())
