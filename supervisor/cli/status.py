"""``status``: how the running server is, once or again and again."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from supervisor.cli import values
from supervisor.cli.client import ControlClient, ControlError, Refused, find_socket
from supervisor.cli.commands import Socket
from supervisor.cli.pipes import end_of_readers
from supervisor.cli.serve import fail
from supervisor.cli.text import harmless

# What is piped is read by programs: nothing of it may be cut off.
PIPED_COLUMNS: Final = 1000
USUAL_INTERVAL: Final = 1.0
_STATES: Final = ("idle", "running", "warming", "spawning", "stopping")
_ENDINGS: Final = ("succeeded", "failed", "cancelled", "timed_out", "killed")
_MINUTE: Final = 60.0
_HOUR: Final = 3600.0


def status(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; with --watch one object a line.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again and again, until Ctrl-C.")
    ] = False,
    interval: Annotated[
        float | None,
        typer.Option(
            parser=values.interval,
            metavar="SECONDS",
            help=f"With --watch: how often; {USUAL_INTERVAL:g} unless given.",
        ),
    ] = None,
    socket: Socket = None,
) -> None:
    """Show how the running server is, and its jobs."""
    if interval is not None and not watch:
        raise typer.BadParameter("it needs --watch", param_hint="--interval")
    try:
        client = ControlClient(find_socket(socket))
        if watch:
            _watch(client, interval or USUAL_INTERVAL, as_json=as_json)
        elif as_json:
            print(json.dumps(client.request("GET", "/status"), indent=2))
        else:
            _console().print(_picture(client))
    except (ControlError, Refused) as exc:
        raise typer.Exit(fail(str(exc))) from exc


def _watch(client: ControlClient, interval: float, *, as_json: bool) -> None:
    try:
        if as_json:
            _again(
                interval,
                lambda: print(json.dumps(client.request("GET", "/status")), flush=True),
            )
        console = _console()
        if not console.is_terminal:
            _again(interval, lambda: console.print(_picture(client)))
        with Live(_picture(client), console=console, auto_refresh=False) as live:
            _again(interval, lambda: live.update(_picture(client), refresh=True))
    except KeyboardInterrupt:  # the way to end it
        return


def _again(interval: float, show: Callable[[], object]) -> None:
    while True:
        show()
        time.sleep(interval)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """End as the other commands do; rich would exit with 1."""
        end_of_readers()


def _console() -> Console:
    piped = not sys.stdout.isatty()
    return _Console(highlight=False, soft_wrap=True, width=PIPED_COLUMNS if piped else None)


def _picture(client: ControlClient) -> Group:
    now = client.request("GET", "/status")
    jobs = client.request("GET", "/jobs?ended=0")["jobs"]
    parts: list[Any] = [_head(now), *_figures(now)]
    if jobs:
        parts += [Text(), _jobs(jobs)]
    return Group(*parts)


def _head(now: dict[str, Any]) -> Text:
    text = Text(f"{now.get('agent_name', '')} {now.get('id', '')}: ".lstrip(), style="bold")
    if now.get("ready"):
        text.append("ready", style="bold green")
    else:
        text.append(harmless(f"not ready: {now.get('reason')}"), style="bold yellow")
    return text


def _figures(now: dict[str, Any]) -> list[Text]:
    workers = now.get("workers", {})
    rows = [
        ("process", f"pid {now.get('pid')}, up {_span(now.get('uptime_seconds'))}"),
        ("load", f"{now.get('load', 0.0):.2f}"),
        ("workers", ", ".join(f"{workers.get(name, 0)} {name}" for name in _STATES)),
        (
            "jobs",
            f"{now.get('active_jobs', 0)} active, {workers.get('waiting', 0)} of them waiting",
        ),
        (
            "ended",
            ", ".join(f"{workers.get('total_' + name, 0)} {_word(name)}" for name in _ENDINGS),
        ),
    ]
    if now.get("http_port"):
        rows.append(("http", f"port {now['http_port']}"))
    return [Text.assemble((f"  {name:<9}", "dim"), text) for name, text in rows]


def _jobs(jobs: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    for name in ("JOB", "STATUS", "ROOM", "PID", "AGE"):
        table.add_column(
            name, overflow="fold", justify="right" if name in ("PID", "AGE") else "left"
        )
    for job in jobs:
        pid = job["pid"] or "-"
        # Text, not markup: a room may be called [red].
        cells = (job["id"], job["status"], job["room"], str(pid), _span(job.get("age_seconds")))
        table.add_row(*(Text(harmless(cell)) for cell in cells))
    return table


def _word(name: str) -> str:
    return name.replace("_", " ")


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h"
