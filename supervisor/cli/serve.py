"""Running a server: the logs are set up, errors become one line and an exit status."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Final

from supervisor.child import isolate
from supervisor.cli.entry import Server
from supervisor.cli.leaving import leave_quickly
from supervisor.cli.notify import Notifier, StatusLine
from supervisor.cli.output import log_to_stdout
from supervisor.cli.running import run_to_its_end
from supervisor.cli.settings import unknown_variables
from supervisor.errors import SupervisorError
from supervisor.options import PerMode
from supervisor.succession import Succession

logger = logging.getLogger("greenroom.cli")

FAILED: Final = 1
INTERRUPTED: Final = 130  # 128 + SIGINT


def fail(sentence: str, status: int = FAILED) -> int:
    """Print *sentence* to stderr and return *status*."""
    print(f"greenroom: {sentence}", file=sys.stderr)
    return status


def warn(sentence: str) -> None:
    """Print a warning to stderr."""
    print(f"greenroom: warning: {sentence}", file=sys.stderr)


def level_of(server: Server, *, devmode: bool) -> str:
    """Return the lowest level to log."""
    level = server.options.resolve(devmode=devmode).log_level
    assert not isinstance(level, PerMode), "resolve() settles it"
    return level or "INFO"


def serve(
    server: Server,
    *,
    devmode: bool,
    socket: str | None = None,
    succession: Succession | None = None,
) -> int:
    """Run *server* to its end and return the exit status.

    Runs on: the main thread, without a running event loop.

    Args:
        server: with its options settled.
        devmode: the defaults and the logs for development.
        socket: where the control socket shall be; None for the default.
        succession: under a reloader, the link to it.
    """
    isolate.set_title("supervisor")
    if socket is not None:
        os.environ["GREENROOM_SOCKET"] = socket  # where the local dispatcher looks
    leave_quickly()
    notifier = Notifier()
    if notifier.listening:
        StatusLine(server, notifier)
    more: dict[str, Any] = {} if succession is None else {"succession": succession}
    with log_to_stdout(level_of(server, devmode=devmode), readable=devmode):
        for sentence in unknown_variables(os.environ):
            logger.warning("%s", sentence)
        try:
            return run_to_its_end(server.run(devmode=devmode, **more))
        except KeyboardInterrupt:  # before the server took over the signal
            return INTERRUPTED
        except (SupervisorError, OSError) as exc:
            return _report(exc, notifier)


def _report(exc: Exception, notifier: Notifier) -> int:
    first, *rest = str(exc).splitlines() or [type(exc).__name__]
    notifier.send(STATUS=f"failed: {first}")
    if rest:  # a child's traceback: the line says what, the log says where
        logger.error("%s", exc)
    return fail(first)
