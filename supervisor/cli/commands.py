"""``submit``, ``status``, ``drain``: talk to a server that runs, over its control socket.

Exit status: 0; 1 when something or a job that was waited for failed, 2 for a
usage error, 124 when the time to wait was over.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from supervisor import clock
from supervisor.cli.client import LONG_POLL, ControlClient, ControlError, Refused, find_socket

FAILED: Final = 1
USAGE: Final = 2
TIMED_OUT: Final = 124  # as timeout(1)

Socket = Annotated[
    str | None,
    typer.Option(envvar="GREENROOM_SOCKET", metavar="PATH", help="The control socket."),
]


def patience(text: str) -> float:
    """Return seconds for an option that takes them; infinity for "none", which means for ever."""
    if text.lower() == "none":
        return math.inf
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise typer.BadParameter(f"{text!r}: expected seconds, 0 or more, or none: for ever")
    return seconds


def fail(sentence: str, status: int = FAILED) -> int:
    """Print *sentence* to stderr and return *status*."""
    print(f"greenroom: {sentence}", file=sys.stderr)
    return status


def submit(
    room: Annotated[str, typer.Argument(metavar="ROOM", help="The room's name.")],
    metadata: Annotated[
        str, typer.Option(metavar="TEXT", help="Text, @FILE, or - for standard input.")
    ] = "",
    publisher: Annotated[
        list[str] | None,
        typer.Option(metavar="IDENTITY", help="A publisher to start a job for; repeatable."),
    ] = None,
    agent_name: Annotated[str | None, typer.Option(help="The agent the job is for.")] = None,
    job_id: Annotated[str | None, typer.Option(help="The job's id; made up unless given.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the job has ended.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="With --wait: wait no longer.")
    ] = math.inf,
    count: Annotated[int, typer.Option(min=1, help="Submit so many jobs.")] = 1,
    socket: Socket = None,
) -> None:
    """Ask the running server for a job. With --wait: 0 if it succeeded."""
    if job_id is not None and count > 1:
        raise typer.BadParameter("--job-id names one job, --count asks for several")
    body = {
        "room": room,
        "metadata": _text(metadata),
        "publishers": publisher or [],
        "agent_name": agent_name,
        "job_id": job_id,
    }
    accepted: list[str] = []
    worst = 0
    try:
        client = ControlClient(find_socket(socket))
        try:
            for _ in range(count):
                for job in client.request("POST", "/jobs", body)["jobs"]:
                    print(_line(job), flush=True)
                    accepted.append(job["id"])
        except Refused as exc:  # those that were accepted are waited for all the same
            worst = fail(str(exc), USAGE if exc.status == 400 else FAILED)
        if wait:
            deadline = clock.monotonic() + timeout
            worst = max([worst, *(_await(client, each, deadline) for each in accepted)])
    except ControlError as exc:
        worst = fail(str(exc))
    raise typer.Exit(worst)


def _text(given: str) -> str:
    try:
        if given == "-":
            return sys.stdin.read()
        return Path(given[1:]).read_text(encoding="utf-8") if given.startswith("@") else given
    except (OSError, UnicodeDecodeError) as exc:
        raise typer.BadParameter(f"--metadata {given}: {exc}") from exc


def _await(client: ControlClient, job_id: str, deadline: float) -> int:
    """Wait for a job's end, print it, and return the exit status that stands for it."""
    while True:
        left = max(0.0, deadline - clock.monotonic())
        try:
            job = client.job(job_id, wait=min(left, LONG_POLL))
        except Refused as exc:
            return fail(str(exc))
        if job["outcome"] is not None:
            print(_line(job), flush=True)
            return 0 if job["status"] == "succeeded" else FAILED
        if left == 0.0:
            return fail(f"job {job_id} has not ended; it goes on", TIMED_OUT)


def _line(job: dict[str, Any]) -> str:
    outcome = job["outcome"] or {}
    why = outcome.get("error") or outcome.get("reason")
    return f"{job['id']} {job['status']}" + (f": {why.splitlines()[0]}" if why else "")


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    socket: Socket = None,
) -> None:
    """Show how the running server is, and its jobs."""
    try:
        client = ControlClient(find_socket(socket))
        now = client.request("GET", "/status")
        jobs = [] if as_json else client.request("GET", "/jobs?ended=0")["jobs"]
    except (ControlError, Refused) as exc:
        raise typer.Exit(fail(str(exc))) from exc
    if as_json:
        print(json.dumps(now, indent=2))
        return
    ready, reason = now.pop("ready", False), now.pop("reason", None)
    print(f"{now.pop('id', 'server')}: " + ("ready" if ready else f"not ready: {reason}"))
    for name, value in _flat(now):
        print(f"  {name:<24} {value}")
    for job in jobs:
        print(f"  job {_line(job)}  room {job['room']}  pid {job['pid']}")


def _flat(data: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, value in data.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, "-" if value is None else value))
    return rows


def drain(
    timeout: Annotated[
        float | None,
        typer.Option(
            parser=patience,
            metavar="SECONDS",
            help="How long running jobs may go on, instead of drain_timeout; none: for ever.",
        ),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for its end.")] = False,
    socket: Socket = None,
) -> None:
    """Let the running server take no more jobs, and wait until it is gone."""
    body = {} if timeout is None else {"timeout": None if timeout == math.inf else timeout}
    try:
        client = ControlClient(find_socket(socket))
        with client.departure() as gone:
            client.request("POST", "/drain", body)
            if not no_wait:
                gone.wait()
    except (ControlError, Refused) as exc:
        raise typer.Exit(fail(str(exc))) from exc
