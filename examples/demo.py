"""Show what the product promises, on a real server, and check it. Takes under 30 s.

    python examples/demo.py

1. Start ``quickstart.py`` and wait until its workers are warm.
2. Ask it a few dozen questions; two are bad, and only those two fail.
3. Kill a worker in the middle of its job: that job is lost, its neighbours are not.
4. Send SIGTERM while jobs run: new ones are refused, those that run may finish,
   and the server leaves with status 0 and without a trace.

Exits with 1, and says why, if anything is not as promised.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parent

QUESTIONS = (
    "compress data with gzip",
    "open a temporary file",
    "how do I parse a date?",
    "heap queue",
    "random number",
    "what is the median of some data?",
    "how can a thread wait for a lock?",
    "socket",
    "how do I walk a directory tree?",
    "encode a string as base64",
    "",
    "shuffle a list in place",
    "read a csv file with a header row",
    "send an email message over smtp",
    "wrap a paragraph of text",
    "split a shell command into words",
    "secure token for a password reset",
    "which function returns a new string object value",
    "unified diff of two sequences",
    "copy an object and what is in it",
    "walrus",
    "parse command line arguments",
    "cancel an asyncio task",
    "weak reference to an object",
    "round a decimal number",
    "address of an ip network",
    "mock a method in a test",
    "handler that rotates a log file",
)
FAILS_WITH = {"": "ValueError", "walrus": "LookupError"}

# Each takes a second or two, because so many sentences mention one of its words.
LONG_QUESTIONS = (
    "which function returns a new string object value",
    "how is a class method called with keyword arguments and what value does it return",
    "what type of object does a method return given a file name string",
    "set the value of an optional argument of a function or method",
)

# Before anything here is over, a machine three times as slow has done it too.
READY_TIMEOUT = 20.0
JOB_TIMEOUT = 20.0
EXIT_TIMEOUT = 15.0


class NotAsPromisedError(Exception):
    """What was seen is not what the documentation says."""


def check(condition: bool, sentence: str) -> None:
    """Raise unless *condition*.

    Raises:
        NotAsPromisedError: with *sentence*, which says what was seen.
    """
    if not condition:
        raise NotAsPromisedError(sentence)


# ── talking to the server ────────────────────────────────────────────────────


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True)
class Client:
    """The control socket of one server. Runs on: any thread."""

    path: Path

    def call(
        self, method: str, target: str, body: Mapping[str, object] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Return the status and the JSON of the answer.

        Raises:
            OSError: nobody listens.
        """
        connection = UnixConnection(self.path, timeout=JOB_TIMEOUT + 5)
        with contextlib.closing(connection):
            headers = {"Content-Type": "application/json"}
            connection.request(method, target, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def submit(self, room: str, question: str) -> str:
        """Submit a job and return its id."""
        status, answer = self.call("POST", "/jobs", {"room": room, "metadata": question})
        check(status == 202, f"a job was not accepted: {status} {answer}")
        job_id: str = answer["jobs"][0]["id"]
        return job_id

    def job(self, job_id: str, *, wait: float = 0.0) -> dict[str, Any]:
        """Return how a job stands, after at most *wait* seconds of waiting for its end."""
        status, answer = self.call("GET", f"/jobs/{job_id}?wait={wait:g}")
        check(status == 200, f"the server does not know job {job_id}: {status} {answer}")
        return answer

    def ended(self, job_id: str) -> dict[str, Any]:
        """Wait until a job has ended, and return it with its outcome."""
        job = self.job(job_id, wait=JOB_TIMEOUT)
        check(job["outcome"] is not None, f"job {job_id} got no outcome in {JOB_TIMEOUT:g} s")
        return job


class Log:
    """What the server writes: one JSON object a line. Read by a thread of its own."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._answers: dict[str, str] = {}
        self._changed = threading.Condition()
        self.last: deque[str] = deque(maxlen=20)
        self._thread = threading.Thread(target=self._read, args=(lines,), daemon=True)
        self._thread.start()

    def answer(self, job_id: str) -> str:
        """Return what the job logged as its answer; empty if nothing came within a second."""
        with self._changed:
            self._changed.wait_for(lambda: job_id in self._answers, timeout=1.0)
            return self._answers.get(job_id, "")

    def close(self) -> None:
        """Wait until the server's output has ended."""
        self._thread.join(timeout=5.0)

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.last.append(line.rstrip())
            with contextlib.suppress(ValueError):
                self._note(json.loads(line))

    def _note(self, record: object) -> None:
        if not isinstance(record, dict):
            return
        answer = re.match(r"best of \d+ sentences: (.*)", str(record.get("message")))
        if answer and "job_id" in record:
            with self._changed:
                self._answers[record["job_id"]] = answer[1]
                self._changed.notify_all()


@dataclass(frozen=True)
class Running:
    """The server that is under test."""

    process: subprocess.Popen[str]
    client: Client
    log: Log


@contextlib.contextmanager
def running_server() -> Generator[Running]:
    """Start the quickstart as a user would, with a control socket of its own; kill it at the end.

    Nothing of the surroundings counts: no LiveKit server, no fixed port.
    """
    with tempfile.TemporaryDirectory(prefix="greenroom-demo-") as directory:
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GREENROOM_", "LIVEKIT_"))
        }
        path = Path(directory, "control.sock")
        environ |= {"GREENROOM_SOCKET": str(path), "GREENROOM_PORT": "0"}
        environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(EXAMPLES.parent), os.environ.get("PYTHONPATH")])
        )
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "quickstart.py"), "start"],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert process.stdout is not None, "it was asked for a pipe"
        with process:
            log = Log(process.stdout)
            try:
                yield Running(process, Client(path), log)
            except NotAsPromisedError:
                print("\nThe server's last words:", *log.last, sep="\n  ", file=sys.stderr)
                raise
            finally:
                process.kill()  # nothing happens if it has ended, as it should have
                log.close()


def wait_until(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Ask *condition* every 20 ms until it is true.

    Raises:
        NotAsPromisedError: it was not within *timeout* seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        check(time.monotonic() < deadline, f"{what} took more than {timeout:g} s")
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Return whether a process with that number exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# ── the four acts ────────────────────────────────────────────────────────────


def wait_until_ready(server: Running) -> None:
    """The server reads its library, then warms its workers, then says so."""

    def ready() -> bool:
        exit_status = server.process.poll()
        check(exit_status is None, f"the server left with {exit_status} before it was ready")
        try:
            return server.client.call("GET", "/status")[1]["ready"] is True
        except OSError:
            return False  # it does not listen yet

    began = time.monotonic()
    wait_until(ready, READY_TIMEOUT, "getting ready")
    print(f"ready after {time.monotonic() - began:.1f} s, supervisor is pid {server.process.pid}")


def show(server: Running, job: Mapping[str, Any], question: str) -> None:
    """Print one line of the table."""
    outcome = job["outcome"]
    handover = outcome["handover_seconds"]
    micros = "-" if handover is None else f"{handover * 1e6:.0f}"
    if outcome["status"] == "succeeded":
        said = server.log.answer(job["id"])
    else:
        said = outcome["error"] or outcome["exit"] or outcome["reason"] or ""
    seconds = outcome["ended_at"] - (outcome["started_at"] or outcome["ended_at"])
    print(
        f"{job['id'][:14]:14} {job['pid'] or '-':>7} {outcome['status']:9} {micros:>7} "
        f"{seconds:6.2f}  {question[:32]:32}  {said[:70]}",
        flush=True,
    )


def show_header(title: str) -> None:
    """Print a title and the table's head."""
    print(f"\n{title}\n")
    print(
        f"{'job':14} {'pid':>7} {'outcome':9} {'µs':>7} {'s':>6}  {'question':32}  answer or error",
        flush=True,
    )


def own_processes(server: Running) -> list[int]:
    """Return the server's and its fork server's process ids."""
    status = server.client.call("GET", "/status")[1]
    return [status["pid"], status["forkserver_pid"]]


def ask_all(server: Running) -> list[int]:
    """Ask every question, four at a time, and check each outcome. Return the workers' pids."""
    show_header(f"{len(QUESTIONS)} questions, four at a time; µs is the hand-over to a warm worker")

    def ask(question: str) -> dict[str, Any]:
        return server.client.ended(server.client.submit("reading-room", question))

    pids: list[int] = []
    handovers: list[float] = []
    with ThreadPoolExecutor(4) as readers:
        for question, job in zip(QUESTIONS, readers.map(ask, QUESTIONS), strict=True):
            show(server, job, question)
            outcome = job["outcome"]
            expected = FAILS_WITH.get(question)
            if expected is None:
                check(outcome["status"] == "succeeded", f"{question!r}: {outcome}")
            else:
                check(outcome["status"] == "failed", f"{question!r} did not fail: {outcome}")
                check(expected in outcome["error"], f"{question!r} failed otherwise: {outcome}")
            pids.append(job["pid"])
            handovers.append(outcome["handover_seconds"])
    check(len(set(pids)) == len(pids), "two jobs shared a process")
    median = sorted(handovers)[len(handovers) // 2]
    print(f"\neach in a process of its own; median hand-over {median * 1e6:.0f} µs")
    return pids


def workers(server: Running) -> dict[str, int]:
    """Return how many workers the server has, by state."""
    counts: dict[str, int] = server.client.call("GET", "/status")[1]["workers"]
    return counts


def has_begun(server: Running, job_id: str) -> bool:
    """Say whether a worker has the job."""
    status: str = server.client.job(job_id)["status"]
    return status != "pending"


def start_long_jobs(server: Running) -> list[str]:
    """Submit the long questions and wait until each runs. Return the jobs' ids.

    Waits for as many warm workers first, so that all of them begin together.
    """
    many = len(LONG_QUESTIONS)
    wait_until(lambda: workers(server)["idle"] >= many, READY_TIMEOUT, "refilling the pool")
    ids = [server.client.submit("reading-room", question) for question in LONG_QUESTIONS]
    for job_id in ids:
        begun = functools.partial(has_begun, server, job_id)
        wait_until(begun, JOB_TIMEOUT, f"starting job {job_id}")
    return ids


def kill_one(server: Running) -> list[int]:
    """Kill one of four running workers; check that exactly its job is lost. Return the pids."""
    show_header("Four long jobs run, and one worker gets SIGKILL")
    ids = start_long_jobs(server)
    victim = server.client.job(ids[0])
    check(victim["status"] == "running", f"the job to kill is over already: {victim}")
    os.kill(victim["pid"], signal.SIGKILL)
    jobs = [server.client.ended(job_id) for job_id in ids]
    for job, question in zip(jobs, LONG_QUESTIONS, strict=True):
        show(server, job, question)
    lost = jobs[0]["outcome"]
    check(lost["status"] in ("killed", "failed"), f"the killed job has another end: {lost}")
    check("SIGKILL" in f"{lost['exit']} {lost['error']}", f"the outcome hides the signal: {lost}")
    for job in jobs[1:]:
        check(job["outcome"]["status"] == "succeeded", f"a neighbour suffered: {job}")
    return [job["pid"] for job in jobs]


def drain(server: Running) -> list[int]:
    """Send SIGTERM while four jobs run; check that they finish and no other is taken."""
    show_header("Four long jobs run, and the server gets SIGTERM")
    ids = start_long_jobs(server)
    with ThreadPoolExecutor(len(ids)) as waiters:
        # Asked for before the signal: the socket goes with the server.
        coming = [waiters.submit(server.client.ended, job_id) for job_id in ids]
        running = [server.client.job(job_id) for job_id in ids]
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        refused = refusal(server)
        jobs = [future.result() for future in coming]
    for job, question in zip(jobs, LONG_QUESTIONS, strict=True):
        show(server, job, question)
        check(job["outcome"]["status"] == "succeeded", f"the drain cut a job short: {job}")
    check(any(job["outcome"] is None for job in running), "all jobs ended before the signal")
    try:
        status = server.process.wait(EXIT_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise NotAsPromisedError(f"the drain took more than {EXIT_TIMEOUT:g} s") from None
    print(f"\nrefused during the drain: {refused}")
    print(f"drained in {time.monotonic() - began:.1f} s, exit status {status}")
    check(status == 0, f"the drain was complete, yet the exit status is {status}")
    return [job["pid"] for job in jobs]


def refusal(server: Running) -> str:
    """Submit jobs until one is refused because of the drain, and return the reason.

    The signal is noticed a moment after it was sent, so a first job may still be taken.
    """
    answers: list[dict[str, Any]] = []

    def refused() -> bool:
        status, answer = server.client.call("POST", "/jobs", {"room": "too-late", "metadata": "?"})
        answers.append(answer)
        return status == 503

    wait_until(refused, 1.0, "refusing jobs after SIGTERM")
    check("draining" in str(answers[-1]), f"refused, but not for the drain: {answers[-1]}")
    return str(answers[-1].get("error", answers[-1]))


def main() -> int:
    """Run the four acts; return the exit status."""
    began = time.monotonic()
    try:
        with running_server() as server:
            wait_until_ready(server)
            pids = own_processes(server)
            pids += ask_all(server) + kill_one(server) + drain(server)
        left = [pid for pid in pids if is_alive(pid)]
        check(not left, f"processes were left behind: {left}")
    except (NotAsPromisedError, OSError, http.client.HTTPException) as exc:
        print(f"\nNot as promised: {exc}", file=sys.stderr)
        return 1
    print(f"\nAll as promised, in {time.monotonic() - began:.1f} s; no process was left behind.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
