"""The whole table of targets, from the results that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import results, table
from benchmarks.noise import Noise
from benchmarks.table import Row

# What follows it in the README is written by ``table``.
MARK = "## Latest results"

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
    "logs",
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


def page(directory: Path, pictures: str = "") -> list[str]:
    """Return the table, the machine, and each benchmark's figures and plot, as Markdown.

    Args:
        directory: where the results are.
        pictures: put before the plots' names, to find them from where the page is.
    """
    found = contents(directory)
    text = [_taken(found), "", *table.markdown([row.cells() for row in rows(directory)])]
    for content in found:
        name, detail = content["benchmark"], content["detail"]
        text += [
            "",
            f"### {name}",
            "",
            content["question"][0].upper() + content["question"][1:] + ".",
        ]
        text += ["", str(Noise(**content["noise"])).capitalize() + " meanwhile."]
        if (directory / f"{name}.png").exists():
            text += ["", f"![{content['question']}]({pictures}{name}.png)"]
        if detail:
            text += ["", *table.markdown(detail[1:], detail[0])]
        for who, why in content["out"].items():
            text += ["", f"{who}: {why}"]
    return text


def _taken(found: list[dict[str, Any]]) -> str:
    if not found:
        return "Nothing has been measured yet."
    newest = max(found, key=lambda content: str(content["taken"]))
    about, versions = newest["machine"], newest["versions"]
    elsewhere: dict[str, list[str]] = {}  # names of results, by the other commits
    for content in found:
        if content["versions"]["commit"] != versions["commit"]:
            elsewhere.setdefault(content["versions"]["commit"], []).append(content["benchmark"])
    others = "".join(f"; at {commit}: {', '.join(names)}" for commit, names in elsewhere.items())
    packages = ", ".join(f"{k} {v}" for k, v in versions.items() if k != "commit")
    return (
        f"Taken {newest['taken'][:10]} on {about['cpu']}, {about['cpus']} CPUs, "
        f"{about['memory_gib']} GiB, Linux {about['kernel']}, Python {about['python']}; "
        f"greenroom at {versions['commit']}{others}; {packages}."
    )


def write(directory: Path) -> Path:
    """Write the page: into the README of the benchmarks, or beside results that are elsewhere."""
    if directory.resolve() != results.RESULTS.resolve():
        path = directory / "README.md"
        path.write_text("\n".join(page(directory)) + "\n", encoding="utf-8")
        return path
    path = results.HERE / "README.md"
    before, _, _ = path.read_text("utf-8").partition(MARK)
    text = "\n".join(page(directory, f"{directory.name}/"))
    path.write_text(f"{before}{MARK}\n\n{text}\n", encoding="utf-8")
    return path
