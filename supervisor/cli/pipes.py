"""Commands whose standard output ends before they do, as under ``| head -1``."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import Final, NoReturn, TypeVar

import typer

from supervisor.cli.serve import fail

T = TypeVar("T")

BROKEN_PIPE: Final = 128 + signal.SIGPIPE


def quiet(command: Callable[..., T]) -> Callable[..., T]:
    """Return *command*, which ends like other programs when nobody reads what it prints.

    Python ignores SIGPIPE, and it has to: a server that hangs up would end us
    before we could say so. So the signal is not switched on for the whole command,
    but sent when a write has failed. Errors of our sockets do not come so far.
    """

    @functools.wraps(command)
    def wrapped(*args: object, **kwargs: object) -> T:
        try:
            try:
                return command(*args, **kwargs)
            finally:
                # Here and not when the interpreter ends, where an error is a riddle.
                if sys.stdout is not None:
                    sys.stdout.flush()
        except BrokenPipeError:
            end_of_readers()
        except OSError as exc:
            _discard_output()
            raise typer.Exit(fail(str(exc))) from exc

    return wrapped


def end_of_readers() -> NoReturn:
    """End this process by SIGPIPE, silently: nobody reads any more."""
    _discard_output()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    sys.exit(BROKEN_PIPE)  # whoever started us has blocked the signal


def _discard_output() -> None:
    """Have what is still buffered go nowhere, so that the interpreter's end does not trip over it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
