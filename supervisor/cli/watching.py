"""Which files' changes mean a reload, and the waiting for them.

Python files under the working directory, and whatever ``--reload-include`` names:
a pattern (``*.yaml``, ``prompts/*.txt``) or a file, which may lie elsewhere.
Directories that tools fill (``.git``, ``__pycache__``, virtual environments) do
not count.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Final

from watchfiles import Change, DefaultFilter, awatch

# An editor's save is several events, a formatter's or a checkout's many files.
# Quiet for the first means that it was all; nobody waits longer than the second.
QUIET_MS: Final = 50
DEBOUNCE_MS: Final = 400

_MORE_DIRECTORIES: Final = (
    "site-packages",
    ".ruff_cache",
    ".nox",
    ".eggs",
    ".ipynb_checkpoints",
    ".import_linter_cache",
)


class Sources(DefaultFilter):
    """The files that count.

    Args:
        root: the directory that is watched.
        include: patterns, relative to *root*, or absolute paths.
    """

    def __init__(self, root: Path, include: Iterable[str] = ()) -> None:
        super().__init__(ignore_dirs=(*DefaultFilter.ignore_dirs, *_MORE_DIRECTORIES))
        self.root = root
        self.inside: list[str] = []  # patterns, relative to the root
        self.outside: list[Path] = []  # patterns, absolute
        for each in (os.path.join(root, pattern) for pattern in include):
            relative = _relative(each, root)
            if relative is not None:
                self.inside.append(relative)
            else:  # as the kernel reports it: links on the way are resolved
                self.outside.append(_resolved(each))
        self._environments = {each.parent for each in root.glob("*/pyvenv.cfg")}

    def __call__(self, change: Change, path: str) -> bool:
        """Return whether *path* counts."""
        if change is Change.added and os.path.isdir(path):
            # What was written into a new directory before the kernel could be asked
            # to watch it is told by nobody.
            return any(
                self._counts(os.path.join(directory, name))
                for directory, _, names in os.walk(path)
                for name in names
            )
        return self._counts(path)

    def _counts(self, path: str) -> bool:
        inside = _relative(path, self.root)
        if self._is_included(path, inside):
            return True
        if inside is None or not inside.endswith(".py"):
            return False
        if any(Path(path).is_relative_to(each) for each in self._environments):
            return False
        # The part below the root only: the root itself may lie in a `.venv`.
        return super().__call__(Change.modified, inside)

    def _is_included(self, path: str, inside: str | None) -> bool:
        if inside is None:
            return any(fnmatch.fnmatch(path, str(pattern)) for pattern in self.outside)
        return any(_matches(inside, pattern) for pattern in self.inside)

    @property
    def unmatched(self) -> list[str]:
        """Those of ``inside`` and ``outside`` that no file matches now. Walks the directories."""
        missing = [*self.inside, *map(str, self.outside)]
        for directory, _, names in os.walk(self.root):
            if not missing:
                break
            paths = (_relative(os.path.join(directory, name), self.root) for name in names)
            for inside in filter(None, paths):
                missing = [each for each in missing if not _matches(inside, each)]
        for elsewhere in self.elsewhere:
            for path in elsewhere.iterdir():
                missing = [each for each in missing if not fnmatch.fnmatch(str(path), each)]
        return missing

    @property
    def elsewhere(self) -> set[Path]:
        """Directories outside of the root that may hold something included."""
        return {pattern.parent for pattern in self.outside if pattern.parent.is_dir()}


def _relative(path: str, root: Path) -> str | None:
    relative = os.path.relpath(path, root)
    return None if relative == ".." or relative.startswith("../") else relative


def _resolved(path: str) -> Path:
    parent, name = os.path.split(path)
    return Path(parent).resolve() / name


def _matches(inside: str, pattern: str) -> bool:
    # `*.yaml` means any, wherever it lies, as in .gitignore.
    return fnmatch.fnmatch(inside, pattern) or (
        "/" not in pattern and fnmatch.fnmatch(os.path.basename(inside), pattern)
    )


def why_never(root: Path, pattern: str) -> str | None:
    """Return why no file that *pattern* names will ever be seen to change; None: one may be.

    Args:
        root: the directory that is watched.
        pattern: as for :class:`Sources`.
    """
    path = os.path.join(root, pattern)
    if os.path.isdir(path):
        inside = os.path.join(pattern, "*")
        return f"expected files, not a directory; those in it are named by {inside!r}"
    if _relative(path, root) is None and not (parent := _resolved(path).parent).is_dir():
        return f"expected files in a directory that exists; there is no {parent}"
    return None


async def changed_files(sources: Sources, *, recursive: bool = True) -> AsyncIterator[set[Path]]:
    """Yield the files that changed, a save or a checkout at a time. For ever.

    Args:
        sources: which files count.
        recursive: the root and all below; without it the directories elsewhere.
    """
    roots = [sources.root] if recursive else sorted(sources.elsewhere)
    if not roots:
        return
    async for changes in awatch(
        *roots,
        watch_filter=sources,
        debounce=DEBOUNCE_MS,
        step=QUIET_MS,
        recursive=recursive,
        ignore_permission_denied=True,
    ):
        yield {Path(path) for _, path in changes}


def forget_bytecode(files: Iterable[Path]) -> None:
    """Remove the cached bytecode of *files*.

    The cache knows a file by its size and the second of its change. Two edits of
    one size within a second would be taken for one, and the old code would run.
    """
    for path in files:
        if path.suffix == ".py":
            try:
                cached = Path(importlib.util.cache_from_source(str(path)))
            except NotImplementedError:  # an interpreter that caches none
                return
            cached.unlink(missing_ok=True)


def saved_at(files: Iterable[Path], now: float) -> float:
    """Return when the last of *files* was saved, seconds since the epoch.

    *now* where the files do not tell: they were removed, or carry an old date, as
    a file does that was moved here.
    """
    times = []
    for path in files:
        try:
            times.append(path.stat().st_mtime)
        except OSError:  # removed
            continue
    latest = max(times, default=now)
    return latest if 0.0 <= now - latest < 10.0 else now
