"""How the help looks: options in groups, and what the exit status means."""

from __future__ import annotations

from typing import Any, Final

import typer
from typer.core import TyperCommand

SERVING_EXITS: Final = """\b
Exit status:
  0    every job ended by itself
  1    the server could not start, or failed
  2    a usage error: an unknown option, or a value that is not allowed
  124  the drain's deadline was enforced: jobs were asked to stop
  128+N  cut short by a second signal N (130: SIGINT, 143: SIGTERM)
"""

CLIENT_EXITS: Final = """\b
Exit status:
  0    done
  1    no server, a refusal, or a job that was waited for did not succeed
  2    a usage error
  124  the time to wait was over
  130  interrupted
"""


class GroupedCommand(TyperCommand):
    """A command whose options are listed by their groups, in plain text."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for the arguments and one for each group of options."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                group = getattr(param, "rich_help_panel", None)
                usual = "Arguments" if param.param_type_name == "argument" else "Options"
                groups.setdefault(group or usual, []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records, col_max=26)


def version_text() -> str:
    """Return the version of this distribution, and of what it runs on."""
    import platform
    from importlib import metadata

    try:
        version = metadata.version("greenroom")
    except metadata.PackageNotFoundError:  # run from a checkout
        version = "(not installed)"
    return f"greenroom {version}, Python {platform.python_version()}, {platform.system()}"


def show_version(wanted: bool) -> None:
    """Print the version and exit, if *wanted*."""
    if wanted:
        print(version_text())
        raise typer.Exit
