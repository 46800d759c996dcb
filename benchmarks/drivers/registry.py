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
    module: str  # beside this one
    driver: str  # the class in that module
    isolates: bool = True  # each job has a process of its own, that nobody had before
    grows: bool = False  # starts more workers than are idle, when more jobs are there
    package: str = ""  # the distribution that has to be installed
    kind: Kind = Kind.PEER


REGISTRY: dict[str, Entry] = {
    "floor": Entry("floor: fork, exit, wait", "floor", "Floor", kind=Kind.FLOOR),
    "life": Entry("the same with a call", "floor", "LeastLife", kind=Kind.FLOOR),
    "ours": Entry("ProcessPool", "ours", "Pool", grows=True, kind=Kind.OURS),
    "server": Entry("AgentServer", "ours", "Server", grows=True, kind=Kind.OURS),
    "pool-fork": Entry("multiprocessing.Pool, fork", "stdlib", "ForkPool"),
    "pool-forkserver": Entry("multiprocessing.Pool, forkserver", "stdlib", "ForkserverPool"),
    "futures": Entry("concurrent.futures, forkserver", "stdlib", "FuturesPool", grows=True),
    "pebble": Entry("pebble", "pebble_pool", "PebblePool", package="pebble"),
    "loky": Entry(
        "loky (reuses processes)",
        "loky_pool",
        "LokyPool",
        isolates=False,
        grows=True,
        package="loky",
    ),
    # Not said to grow: it has all the workers that it may have from the start.
    "deadpool": Entry("deadpool", "deadpool_pool", "DeadPool", package="deadpool-executor"),
    "warmpool": Entry("warmpool (1 + 1 spare)", "warmpool_pool", "WarmestPool", package="warmpool"),
    "livekit": Entry(
        "LiveKit ProcPool", "livekit_pool", "LiveKitPool", grows=True, package="livekit-agents"
    ),
}

PEERS = tuple(name for name, entry in REGISTRY.items() if entry.kind is Kind.PEER)
