"""``submit`` and ``drain``: talk to a server that runs, over its control socket.

Exit status: 0; 1 when something or a job that was waited for failed, 2 for a
usage error, 124 when the time to wait was over.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from supervisor import clock
from supervisor.cli import values
from supervisor.cli.client import LONG_POLL, ControlClient, ControlError, Refused, find_socket
from supervisor.cli.serve import FAILED, fail
from supervisor.cli.text import harmless

USAGE: Final = 2
TIMED_OUT: Final = 124  # as timeout(1)
BAD_REQUEST: Final = 400
# The server reads no longer requests: what is larger need not be read to its end.
_MAX_METADATA: Final = 2**20

Socket = Annotated[
    str | None,
    typer.Option(
        envvar="GREENROOM_SOCKET",
        metavar="PATH",
        help="The control socket; not needed as long as one server of this user runs.",
    ),
]


def submit(
    room: Annotated[
        str,
        typer.Argument(
            parser=values.text,
            metavar="ROOM",
            help="The room's name; {n} in it is the job's number.",
        ),
    ],
    metadata: Annotated[
        str,
        typer.Option(
            parser=values.text, metavar="TEXT", help="Text, @FILE, or - for standard input."
        ),
    ] = "",
    publisher: Annotated[
        list[str] | None,
        typer.Option(
            parser=values.text,
            metavar="IDENTITY",
            help="A publisher to start a job for; repeatable.",
        ),
    ] = None,
    agent_name: Annotated[
        str | None,
        typer.Option(parser=values.text, metavar="NAME", help="The agent the job is for."),
    ] = None,
    job_id: Annotated[
        str | None,
        typer.Option(parser=values.text, metavar="ID", help="The job's id; made up unless given."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the job has ended.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            parser=values.patience, metavar="SECONDS", help="With --wait: wait no longer."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, metavar="N", help="Submit so many jobs.")] = 1,
    rate: Annotated[
        float | None,
        typer.Option(
            parser=values.rate, metavar="N", help="So many a second; as fast as it goes without."
        ),
    ] = None,
    socket: Socket = None,
) -> None:
    """Ask the running server for a job. With --wait: 0 if it succeeded.

    A job that is not admitted counts as failed; with --count the others are
    submitted all the same.
    """
    if job_id is not None and count > 1:
        raise typer.BadParameter("--job-id names one job, --count asks for several")
    if timeout is not None and not wait:
        raise typer.BadParameter(
            "it bounds the waiting, so it needs --wait; how long a job may take is the "
            "server's --job-timeout",
            param_hint="--timeout",
        )
    body = {
        "metadata": _text(metadata),
        "publishers": publisher or [],
        "agent_name": agent_name,
        "job_id": job_id,
    }
    began = clock.monotonic()
    try:
        client = ControlClient(find_socket(socket))
        accepted: list[str] = []
        worst = 0
        for number in _paced(count, rate):
            try:
                wanted = {**body, "room": room.replace("{n}", str(number))}
                for job in client.request("POST", "/jobs", wanted)["jobs"]:
                    # One that is over already is shown when it is waited for, and once.
                    if not wait or job["outcome"] is None:
                        print(line_of(job), flush=True)
                    accepted.append(job["id"])
            except Refused as exc:  # those that were accepted are waited for all the same
                worst = fail(str(exc), USAGE if exc.status == BAD_REQUEST else FAILED)
                if exc.status == BAD_REQUEST:
                    break
        if wait:
            ended = _Ended(client, clock.monotonic() + (math.inf if timeout is None else timeout))
            worst = max([worst, *(ended.wait(each) for each in accepted)])
            if count > 1:
                print(ended.summary(clock.monotonic() - began))
    except ControlError as exc:
        worst = fail(str(exc))
    raise typer.Exit(worst)


def _paced(count: int, rate: float | None) -> Iterator[int]:
    """Yield 1 to *count*, each at its moment; a moment that was missed is not waited for."""
    began = clock.monotonic()
    for number in range(1, count + 1):
        if rate is not None:
            time.sleep(max(0.0, began + (number - 1) / rate - clock.monotonic()))
        yield number


def _text(given: str) -> str:
    if given != "-" and not given.startswith("@"):
        return given
    try:
        if given == "-":
            content = sys.stdin.buffer.read(_MAX_METADATA + 1)
        else:
            with Path(given[1:]).open("rb") as file:
                content = file.read(_MAX_METADATA + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as exc:
        raise typer.BadParameter(f"--metadata {given}: {exc}") from exc
    if len(content) > _MAX_METADATA:
        raise typer.BadParameter(f"--metadata {given}: over the limit of {_MAX_METADATA} bytes")
    return text


class _Ended:
    """Waits for jobs one after the other, and counts how they ended."""

    def __init__(self, client: ControlClient, deadline: float) -> None:
        self._client = client
        self._deadline = deadline
        self._how: Counter[str] = Counter()
        self._handovers: list[float] = []

    def wait(self, job_id: str) -> int:
        """Wait for a job's end, print it, and return the exit status that stands for it."""
        while True:
            left = max(0.0, self._deadline - clock.monotonic())
            try:
                job = self._client.job(job_id, wait=min(left, LONG_POLL))
            except Refused as exc:
                return fail(str(exc))
            if job["outcome"] is not None:
                return self._ended(job)
            if left == 0.0:
                self._how["not ended"] += 1
                return fail(f"job {job_id} has not ended; it goes on", TIMED_OUT)

    def _ended(self, job: dict[str, Any]) -> int:
        print(line_of(job), flush=True)
        self._how[job["status"]] += 1
        if job["outcome"].get("handover_seconds") is not None:
            self._handovers.append(job["outcome"]["handover_seconds"])
        return 0 if job["status"] == "succeeded" else FAILED

    def summary(self, seconds: float) -> str:
        """Return all of it in one line."""
        text = f"{self._how.total()} jobs in {seconds:.2f} s: " + ", ".join(
            f"{count} {status}" for status, count in sorted(self._how.items())
        )
        if self._handovers:
            middle, worst = statistics.median(self._handovers), max(self._handovers)
            text += f"; hand-over {middle * 1e6:.0f} µs median, {worst * 1e6:.0f} µs at worst"
        return text


def line_of(job: dict[str, Any]) -> str:
    """Return a job in one line: id, status, and why if it failed."""
    outcome = job["outcome"] or {}
    why = outcome.get("error") or outcome.get("reason")
    text = f"{job['id']} {job['status']}" + (f": {why.splitlines()[0]}" if why else "")
    return harmless(text)


def drain(
    timeout: Annotated[
        float | None,
        typer.Option(
            parser=values.patience,
            metavar="SECONDS",
            help="How long running jobs may go on, instead of drain_timeout; none: for ever.",
        ),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for its end.")] = False,
    socket: Socket = None,
) -> None:
    """Drain the running server: it takes no more jobs.

    Returns when the running ones have ended and the server is gone.
    """
    body = {} if timeout is None else {"timeout": None if timeout == math.inf else timeout}
    try:
        client = ControlClient(find_socket(socket))
        with client.departure() as gone:
            client.request("POST", "/drain", body)
            if not no_wait:
                gone.wait()
    except (ControlError, Refused) as exc:
        raise typer.Exit(fail(str(exc))) from exc
