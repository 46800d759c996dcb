"""``dev`` with reload: the reloader, set up."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from supervisor.child import isolate
from supervisor.cli.entry import Server
from supervisor.cli.output import log_to_stdout
from supervisor.cli.program import own_command
from supervisor.cli.reload import Reloader
from supervisor.cli.serve import INTERRUPTED, fail, level_of
from supervisor.cli.watching import Sources
from supervisor.errors import SupervisorError

logger = logging.getLogger("greenroom.reload")


def serve_and_reload(server: Server, *, include: Sequence[str], socket: str | None) -> int:
    """Have the server run in a process of its own, and again when its code changes.

    Runs on: the main thread, without a running event loop.

    Args:
        server: with its options settled; it is not run in this process.
        include: what to watch besides Python files under the working directory.
        socket: where the control socket shall be; None for the default.

    Returns:
        The exit status of the last server.
    """
    isolate.set_title("reloader")
    root = Path.cwd()
    options = server.options.resolve(devmode=True)
    reloader = Reloader(
        own_command(),
        os.environ,
        Sources(root, [*include, *_beside_the_program(root)]),
        grace=options.shutdown_process_timeout,
        socket_path=socket or os.environ.get("GREENROOM_SOCKET"),
    )
    with log_to_stdout(level_of(server, devmode=True), readable=True):
        for pattern in Sources(root, include).unmatched:
            logger.warning("no file matches --reload-include %s; one may come later", pattern)
        try:
            return asyncio.run(reloader.run())
        except KeyboardInterrupt:  # before the reloader took over the signal
            return INTERRUPTED
        except (SupervisorError, OSError) as exc:
            return fail(str(exc))


def _beside_the_program(root: Path) -> list[str]:
    """Return a pattern for the program's own directory, if it lies outside of *root*."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if file is None:
        return []
    directory = Path(file).resolve().parent
    return [] if directory.is_relative_to(root) else [str(directory / "*.py")]
