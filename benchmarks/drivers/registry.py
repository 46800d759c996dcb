"""Who takes part. Pure data: nothing of a peer is imported to read it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.Enum):
    """What a contestant is to us."""

    FLOOR = "floor"
    OURS = "ours"
    PEER = "peer"


@dataclass(frozen=True)
class Entry:
    """One contestant."""

    label: str  # in tables and plots
    module: str
    driver: str  # the class in that module
    isolates: bool = True  # each job has a process of its own, that nobody had before
    grows: bool = False  # starts more workers than are idle, when more jobs are there
    package: str = ""  # the distribution that has to be installed
    kind: Kind = Kind.PEER


def _entry(label: str, module: str, driver: str, **more: object) -> Entry:
    return Entry(label, f"benchmarks.drivers.{module}", driver, **more)  # type: ignore[arg-type]


REGISTRY: dict[str, Entry] = {
    "floor": _entry("floor: fork, exit, wait", "floor", "Floor", kind=Kind.FLOOR),
    "ours": _entry("ProcessPool", "ours", "Pool", grows=True, kind=Kind.OURS),
    "server": _entry("AgentServer", "ours", "Server", grows=True, kind=Kind.OURS),
    "pool-fork": _entry("multiprocessing.Pool, fork", "stdlib", "ForkPool"),
    "pool-forkserver": _entry("multiprocessing.Pool, forkserver", "stdlib", "ForkserverPool"),
    "futures": _entry("concurrent.futures, forkserver", "stdlib", "FuturesPool", grows=True),
    "pebble": _entry("pebble", "pebble_pool", "PebblePool", package="pebble"),
    "loky": _entry(
        "loky (reuses processes)",
        "loky_pool",
        "LokyPool",
        isolates=False,
        grows=True,
        package="loky",
    ),
    # Not said to grow: it has all the workers that it may have from the start.
    "deadpool": _entry("deadpool", "deadpool_pool", "DeadPool", package="deadpool-executor"),
    "warmpool": _entry(
        "warmpool (1 + 1 spare)", "warmpool_pool", "WarmestPool", package="warmpool"
    ),
    "livekit": _entry(
        "LiveKit ProcPool", "livekit_pool", "LiveKitPool", grows=True, package="livekit-agents"
    ),
}

PEERS = tuple(name for name, entry in REGISTRY.items() if entry.kind is Kind.PEER)
