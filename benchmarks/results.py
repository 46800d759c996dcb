"""What a benchmark hands back, as JSON in ``benchmarks/results``, and what it was taken on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.drivers.registry import REGISTRY
from benchmarks.noise import Noise
from benchmarks.table import Row

HERE = Path(__file__).parent
RESULTS = HERE / "results"


@dataclass(frozen=True)
class Result:
    """One benchmark's run.

    Args:
        name: the benchmark's.
        question: what it asks, in one line.
        rows: its lines of the target table.
        detail: further lines that were printed: head and rows.
        samples: for the plots: by contestant, whatever the benchmark took.
        out: who could not take part, and why.
    """

    name: str
    question: str
    rows: Sequence[Row]
    samples: Mapping[str, Any]
    detail: Sequence[Sequence[str]] = ()
    out: Mapping[str, str] = field(default_factory=dict)

    def write(self, directory: Path, noise: Noise) -> Path:
        """Write it as NAME.json, the machine and its noise included; return the path."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.name}.json"
        content = {
            "benchmark": self.name,
            "question": self.question,
            "taken": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": machine(),
            "noise": asdict(noise),
            "versions": versions(),
            "rows": [row.as_dict() for row in self.rows],
            "detail": [list(line) for line in self.detail],
            "out": dict(self.out),
            "samples": _short(self.samples),
        }
        path.write_text(_as_text(content), encoding="utf-8")
        return path


def read(name: str, directory: Path = RESULTS) -> dict[str, Any] | None:
    """Return what was written last under that name, None if nothing was."""
    try:
        content: dict[str, Any] = json.loads((directory / f"{name}.json").read_text("utf-8"))
    except FileNotFoundError:
        return None
    return content


def _as_text(content: Mapping[str, Any]) -> str:
    """Return it as JSON with a line for each entry; thousands of samples do not get one each."""
    parts = []
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            inner = ",\n".join(f"  {_dumps(name)}: {_dumps(each)}" for name, each in value.items())
            parts.append(f" {_dumps(key)}: {{\n{inner}\n }}")
        else:
            parts.append(f" {_dumps(key)}: {_dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _short(value: Any) -> Any:
    """Return *value* with its floats cut to four digits: nothing here is known better."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: _short(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(each) for each in value]
    return value


def machine() -> dict[str, Any]:
    """Return what the figures were taken on."""
    return {
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def machine_line() -> str:
    """Return it as one line."""
    about = machine()
    return (
        f"{about['cpu']}, {about['cpus']} CPUs, {about['memory_gib']} GiB, "
        f"Linux {about['kernel']}, Python {about['python']}"
    )


def versions() -> dict[str, str]:
    """Return what is measured: our commit, and each peer's version."""
    found = {"commit": _commit()}
    for entry in REGISTRY.values():
        if entry.package:
            try:
                found[entry.package] = metadata.version(entry.package)
            except metadata.PackageNotFoundError:
                found[entry.package] = "not installed"
    return found


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.machine()


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=HERE,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # not a checkout
    return done.stdout.strip()
