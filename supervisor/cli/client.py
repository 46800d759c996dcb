"""The other end of the control socket: plain blocking HTTP, as curl would speak it.

Also finds the socket. A server announces itself by the socket's place alone, so
the one running server of this user is found without being told where it is.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import socket
import struct
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec

from supervisor.dispatch.sockets import answers, check_directory, peer_uid, socket_directory
from supervisor.errors import SupervisorError

# The server answers within seconds: an offer is the slowest, with on_request's
# 2.5 s and a load function's 2 s for each publisher.
ANSWER_TIMEOUT: Final = 30.0
# One request waits no longer, so that a connection lost on the way is noticed.
LONG_POLL: Final = 60.0
# Several servers are asked who they are, one after the other.
INTRODUCTION_TIMEOUT: Final = 2.0
# From the closed socket to the end of the process: the interpreter's own exit.
EXIT_PATIENCE: Final = 5.0


class ControlError(SupervisorError):
    """There is no server to talk to, or no talking to it; the text says what to do."""


class Refused(SupervisorError):
    """The server answered, and the answer is no.

    Args:
        status: the HTTP status.
        error: the server's sentence.
    """

    def __init__(self, status: int, error: str) -> None:
        self.status = status
        self.error = error
        super().__init__(status, error)

    def __str__(self) -> str:
        return self.error


def find_socket(named: str | None) -> Path:
    """Return *named*, or the socket of the one server of this user that runs.

    Raises:
        ControlError: there is none, there are several, or the directory is not ours.
    """
    if named:
        return Path(named)
    directory = socket_directory()
    try:
        check_directory(directory)
    except FileNotFoundError:
        alive = []
    except SupervisorError as exc:
        raise ControlError(str(exc)) from exc
    else:
        alive = [path for path in sorted(directory.glob("*.sock")) if answers(path)]
    if not alive:
        raise ControlError(
            f"no server of this user is running: nothing listens in {directory} "
            "(one that was given a socket of its own is found with --socket)"
        )
    if len(alive) > 1:
        names = "".join(f"\n  --socket {path}  {_introduction(path)}" for path in alive)
        raise ControlError(f"several servers are running; choose one with --socket:{names}")
    return alive[0]


def _introduction(path: Path) -> str:
    """Return which server it is, as far as it says so."""
    try:
        now = ControlClient(path).request("GET", "/status", timeout=INTRODUCTION_TIMEOUT)
    except (ControlError, Refused) as exc:
        return f"({exc})"
    stage = "ready" if now.get("ready") else f"not ready: {now.get('reason')}"
    return f"pid {now.get('pid')}, agent {now.get('agent_name') or '(any)'}, {stage}"


class ControlClient:
    """One server, by its control socket. Blocks; for the command line only.

    Args:
        path: the socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def request(
        self, method: str, target: str, body: object = None, *, timeout: float = ANSWER_TIMEOUT
    ) -> dict[str, Any]:
        """Ask and return the answer.

        Args:
            method: of HTTP.
            target: path and query.
            body: sent as JSON; None for none.
            timeout: seconds to wait for the answer.

        Raises:
            Refused: the answer is an error.
            ControlError: there was no answer.
        """
        connection = http.client.HTTPConnection("localhost", timeout=timeout)
        try:
            connection.sock = self.connect(timeout)
            data = None if body is None else msgspec.json.encode(body)
            connection.request(method, target, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = msgspec.json.decode(response.read())
        except TimeoutError as exc:
            raise ControlError(f"{self._path} did not answer within {timeout:g} s") from exc
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as exc:
            raise ControlError(f"the server at {self._path} went away: {exc!r}") from exc
        finally:
            connection.close()
        if response.status >= 400:
            raise Refused(response.status, answer.get("error", f"HTTP status {response.status}"))
        return dict(answer)

    def job(self, job_id: str, *, wait: float = 0.0) -> dict[str, Any]:
        """Return a job, after at most *wait* seconds (bounded by LONG_POLL) if it goes on."""
        seconds = min(wait, LONG_POLL)
        target = f"/jobs/{quote(job_id, safe='')}?wait={seconds:.3f}"
        return self.request("GET", target, timeout=seconds + ANSWER_TIMEOUT)

    def connect(self, timeout: float | None = None) -> socket.socket:
        """Return a connected socket whose other end is a server of this user, or of root.

        Args:
            timeout: of the socket, in seconds; None: for ever.

        Raises:
            ControlError: nobody listens there, or somebody else's process.
        """
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(timeout)
            sock.connect(str(self._path))
            uid = peer_uid(sock)
            if os.geteuid() not in (0, uid) and uid != 0:
                raise ControlError(
                    f"the server at {self._path} belongs to uid {uid}, not to this user"
                )
        except PermissionError as exc:
            sock.close()
            raise ControlError(
                f"{self._path} belongs to another user: a server can be reached by "
                "the user who runs it, and by root"
            ) from exc
        except OSError as exc:
            sock.close()
            reason = exc.strerror or str(exc)
            if isinstance(exc, ConnectionRefusedError):
                reason = "the socket is there, but its server is gone"
            raise ControlError(f"no server listens on {self._path}: {reason}") from exc
        except ControlError:
            sock.close()
            raise
        return sock

    @contextlib.contextmanager
    def departure(self) -> Generator[Departure, None, None]:
        """Watch the server from now on, to wait for its end inside the block."""
        watch = Departure(self)
        try:
            yield watch
        finally:
            watch.close()


class Departure:
    """The end of a server, as the kernel tells it: its socket closes, its process exits.

    A connection that asks nothing stays open as long as the server listens; its
    end of stream is the sign. The process is watched too, since a script that goes
    on to start the successor wants the predecessor gone.
    """

    def __init__(self, client: ControlClient) -> None:
        self._client = client
        self._sock = client.connect()
        self._pid = _peer_pid(self._sock)
        self._pidfd: int | None = None
        if self._pid:
            # No race: the connection is open, so this pid is the server's still
            # when the drain is answered; a stranger's could only follow later.
            # It has ended, or no descriptor is left: the connection's end has to do.
            with contextlib.suppress(OSError):
                self._pidfd = os.pidfd_open(self._pid)

    def wait(self) -> None:
        """Wait until the server has closed its socket, and a moment for its process.

        A program that embeds the server may go on after it: that is not waited for.
        """
        while (again := self._after_the_end()) is not None:
            # Only this connection ended, not the server: watch another.
            self._sock.close()
            self._sock = again
        if self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(EXIT_PATIENCE * 1000)

    def close(self) -> None:
        """Let go of the descriptors."""
        self._sock.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _after_the_end(self) -> socket.socket | None:
        """Wait for the end of the connection; return a new one if the server still listens."""
        with contextlib.suppress(ConnectionError):  # a reset is an end as well
            self._sock.recv(1)
        try:
            again = self._client.connect()
        except ControlError:
            return None
        if _peer_pid(again) == self._pid:
            return again
        again.close()  # a successor took the same path
        return None


def _peer_pid(sock: socket.socket) -> int | None:
    if sys.platform != "linux":
        return None
    size = struct.calcsize("3i")
    pid: int = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0]
    return pid or None  # 0: it lives in another pid namespace
