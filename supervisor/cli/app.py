"""``start`` and ``dev``: settle the options, set up the logs, run the server.

Exit status: that of the server; 1 when it could not start, 2 for a usage error.

What is set on the command line counts before ``GREENROOM_…`` variables, these
before the constructor, that before the defaults.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from typing import Annotated, Any, Final

import typer

from supervisor.cli.commands import Socket, drain, fail, patience, status, submit
from supervisor.cli.entry import Server
from supervisor.cli.logging import configure_logging
from supervisor.errors import OptionError, SupervisorError
from supervisor.options import PerMode, check_log_level

logger = logging.getLogger("greenroom.cli")

INTERRUPTED: Final = 130  # 128 + SIGINT


# ── options that more than one command has ───────────────────────────────────


def _level(text: str) -> str:
    try:
        return check_log_level("log_level", text)
    except OptionError as exc:
        raise typer.BadParameter(str(exc)) from exc


def _port(text: str) -> int:
    """Return a port; -1 for "none", which means no HTTP."""
    if text.lower() == "none":
        return -1
    if not text.isdecimal() or int(text) > 65535:
        raise typer.BadParameter(f"{text!r}: expected 0 to 65535 (0: any free one), or none")
    return int(text)


LogLevel = Annotated[
    str | None,
    typer.Option(
        parser=_level,
        metavar="LEVEL",
        envvar="GREENROOM_LOG_LEVEL",
        help="DEBUG, INFO, WARNING, ERROR or CRITICAL, in any case.",
    ),
]
DrainTimeout = Annotated[
    float | None,
    typer.Option(
        parser=patience,
        metavar="SECONDS",
        envvar="GREENROOM_DRAIN_TIMEOUT",
        help="How long running jobs may go on after SIGTERM; none: for ever.",
    ),
]
IdleProcesses = Annotated[
    int | None,
    typer.Option(envvar="GREENROOM_NUM_IDLE_PROCESSES", help="Warm workers to keep."),
]
LoadThreshold = Annotated[
    float | None,
    typer.Option(
        envvar="GREENROOM_LOAD_THRESHOLD", help="At or above it no job is admitted; inf: no limit."
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        parser=_port,
        metavar="PORT",
        envvar="GREENROOM_PORT",
        help="Where health and metrics are served; 0: any free port; none: not at all.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--host", envvar="GREENROOM_HOST", help="Address on which health and metrics are served."
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        envvar="LIVEKIT_URL",
        help="The LiveKit server that jobs come from, such as wss://example.livekit.cloud.",
    ),
]
# Their values stay out of --help, which would show what the environment holds.
Key = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", envvar="LIVEKIT_API_KEY", help="LiveKit's API key."),
]
Secret = Annotated[
    str | None,
    typer.Option(
        "--api-secret",
        metavar="SECRET",
        envvar="LIVEKIT_API_SECRET",
        help="Its secret. Better in the environment: ps shows command lines to everybody.",
    ),
]


# ── running the server ───────────────────────────────────────────────────────


def build_app(server: Server) -> typer.Typer:
    """Return the command line for *server*."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # errors are one line, in a terminal as in a log
    )

    @app.callback()
    def about() -> None:
        """Run this server, or talk to one that runs."""

    @app.command()
    def start(
        log_level: LogLevel = None,
        drain_timeout: DrainTimeout = None,
        num_idle_processes: IdleProcesses = None,
        load_threshold: LoadThreshold = None,
        port: Port = None,
        address: Address = None,
        url: Url = None,
        api_key: Key = None,
        api_secret: Secret = None,
        socket: Socket = None,
    ) -> None:
        """Run the server for production: logs are one JSON object a line."""
        _change(
            server,
            log_level=log_level,
            drain_timeout=drain_timeout,
            num_idle_processes=num_idle_processes,
            load_threshold=load_threshold,
            port=port,
            host=address,
            ws_url=url,
            api_key=api_key,
            api_secret=api_secret,
        )
        raise typer.Exit(serve(server, devmode=False, socket=socket))

    @app.command()
    def dev(
        log_level: LogLevel = None,
        drain_timeout: DrainTimeout = None,
        num_idle_processes: IdleProcesses = None,
        load_threshold: LoadThreshold = None,
        port: Port = None,
        address: Address = None,
        url: Url = None,
        api_key: Key = None,
        api_secret: Secret = None,
        socket: Socket = None,
    ) -> None:
        """Run the server for development: readable logs, no load limit, ends at once."""
        _change(
            server,
            log_level=log_level,
            drain_timeout=drain_timeout,
            num_idle_processes=num_idle_processes,
            load_threshold=load_threshold,
            port=port,
            host=address,
            ws_url=url,
            api_key=api_key,
            api_secret=api_secret,
        )
        raise typer.Exit(serve(server, devmode=True, socket=socket))

    app.command()(submit)
    app.command()(status)
    app.command()(drain)
    return app


def _change(server: Server, **given: Any) -> None:
    """Apply what the command line and the environment say; None: they say nothing."""
    changes = {name: value for name, value in given.items() if value is not None}
    if changes.get("drain_timeout") == math.inf:
        changes["drain_timeout"] = None
    if changes.get("port") == -1:
        changes["port"] = None
    try:
        server.update_options(**changes)
    except OptionError as exc:
        raise typer.BadParameter(str(exc)) from exc


def serve(server: Server, *, devmode: bool, socket: str | None = None) -> int:
    """Run *server* to its end and return the exit status.

    Runs on: the main thread, without a running event loop.

    Args:
        server: with its options settled.
        devmode: the defaults and the logs for development.
        socket: where the control socket shall be; None for the default.
    """
    if socket is not None:
        os.environ["GREENROOM_SOCKET"] = socket  # where the local dispatcher looks
    try:
        level = server.options.resolve(devmode=devmode).log_level
        assert not isinstance(level, PerMode), "resolve() settles it"
        configure_logging(level or "INFO", readable=devmode)
        return asyncio.run(server.run(devmode=devmode))
    except KeyboardInterrupt:  # before the server took over the signal
        return INTERRUPTED
    except (SupervisorError, OSError) as exc:
        first, *rest = str(exc).splitlines() or [type(exc).__name__]
        if rest:  # a child's traceback: the line says what, the log says where
            logger.error("%s", exc)
        else:
            logger.debug("the server ended with an error", exc_info=exc)
        return fail(first)
