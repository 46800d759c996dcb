"""The command line of a server: ``cli.run_app(server)``."""

from supervisor.cli.entry import run_app

__all__ = ["run_app"]
