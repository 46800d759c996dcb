"""The door to the command line: light, since every program with a server imports it.

The program's main file is imported again in the fork server, and it imports this.
So nothing heavy stands at the top here; what needs the extra ``server`` is
imported when somebody really runs a command.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from supervisor.options import ServerOptions

if TYPE_CHECKING:
    from supervisor.succession import Succession

EXTRA_MODULES: Final = ("typer", "rich", "aiohttp", "prometheus_client", "watchfiles")


class Server(Protocol):
    """What the command line needs of an ``AgentServer``."""

    @property
    def options(self) -> ServerOptions:
        """The options as they are now, two-fold defaults unsettled."""
        ...

    def update_options(self, **changes: Any) -> None:
        """Change any option before the server runs.

        Raises:
            OptionError: an unknown option, or a value that is not allowed.
        """
        ...

    @property
    def active_jobs(self) -> list[Any]:
        """The jobs that wait or run."""
        ...

    def on(self, event: str, callback: Callable[[Any], object]) -> object:
        """Have *callback* called with each event of that name."""
        ...

    def run(
        self, *, devmode: bool = False, succession: Succession | None = None
    ) -> Coroutine[Any, Any, int]:
        """Run until it is drained; return the exit status."""
        ...


def run_app(server: Server) -> NoReturn:
    """Do what the command line says, and exit.

    Reads ``sys.argv``: ``start``, ``dev``, ``submit``, ``status``, ``drain``.
    Exit status: that of the server; 1 for a failure, 2 for a usage error.

    Runs on: the main thread, without a running event loop.
    """
    missing = [name for name in EXTRA_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        names = ", ".join(missing)
        print(
            f"greenroom: the command line needs {names}: pip install 'greenroom[server]'",
            file=sys.stderr,
        )
        sys.exit(1)
    _warn_of_supervisord()

    from supervisor.cli.app import build_app

    build_app(server)()
    sys.exit(0)


def _warn_of_supervisord() -> None:
    from importlib import metadata

    try:
        version = metadata.version("supervisor")
    except metadata.PackageNotFoundError:  # as it should be
        return
    print(
        f"greenroom: warning: the distribution supervisor {version} (supervisord) is installed "
        "here too; both provide the import package 'supervisor' and cannot share an environment",
        file=sys.stderr,
    )
