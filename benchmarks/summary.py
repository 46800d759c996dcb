"""The whole table of targets, from the results that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import results, table
from benchmarks.table import Row

# In the order of the table.
NAMES = (
    "handover",
    "churn",
    "preloaded",
    "back_to_back",
    "burst",
    "memory",
    "idle_cpu",
    "many",
    "supervisor_cost",
    "drain",
    "import_time",
)


def contents(directory: Path) -> list[dict[str, Any]]:
    """Return what was written there last, of each benchmark that was run."""
    found = (results.read(name, directory) for name in NAMES)
    return [content for content in found if content is not None]


def rows(directory: Path) -> list[Row]:
    """Return every line of the table."""
    return [Row(**row) for content in contents(directory) for row in content["rows"]]


def printed(directory: Path) -> list[str]:
    """Return the table as text, with a count under it."""
    every = rows(directory)
    judged = [row for row in every if row.met is not None]
    met = sum(row.met is True for row in judged)
    return [*table.lines([row.cells() for row in every]), "", f"{met} of {len(judged)} targets met"]


def write(directory: Path) -> Path:
    """Write the table, and what it was taken on, as ``README.md`` beside the results."""
    found = contents(directory)
    text = ["# Results", ""]
    if found:
        newest = max(found, key=lambda content: str(content["taken"]))
        about, versions = newest["machine"], newest["versions"]
        packages = ", ".join(f"{k} {v}" for k, v in versions.items() if k != "commit")
        taken = (
            f"Taken {newest['taken'][:10]} on {about['cpu']}, {about['cpus']} CPUs, "
            f"{about['memory_gib']} GiB, Linux {about['kernel']}, Python {about['python']}; "
            f"greenroom at {versions['commit']}; {packages}."
        )
        text += [taken, ""]
    text += table.markdown([row.cells() for row in rows(directory)])
    for content in found:
        text += ["", f"## {content['benchmark']}", "", content["question"] + ".", ""]
        detail = content["detail"]
        if detail:
            text += table.markdown(detail[1:], detail[0])
        text += [f"\n{who}: {why}" for who, why in content["out"].items()]
        if (directory / f"{content['benchmark']}.png").exists():
            text += ["", f"![{content['question']}]({content['benchmark']}.png)"]
    path = directory / "README.md"
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path
