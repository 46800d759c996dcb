"""How long from ``submit`` to the first line of the user's function, with workers idle?

Both moments are read from CLOCK_MONOTONIC, the second one in the job itself. The
floor is a forked child that is woken by one message, measured turn by turn with
ours. A pause between jobs lets the pool refill, as in a server that is not
overrun.
"""

from __future__ import annotations

import asyncio
import time

from benchmarks.measure import FloorProcess, Summary, machine
from supervisor import ProcessPool

IDLE = 4
ROUNDS = 200
PAUSE = 0.03


def stamp() -> float:
    """The job: say when it began."""
    return time.monotonic()


async def stamp_async() -> float:
    """The same as a coroutine."""
    return time.monotonic()


async def measure(rounds: int = ROUNDS) -> dict[str, Summary]:
    """Return the three samples, taken in turns."""
    samples: dict[str, list[float]] = {"floor": [], "plain": [], "async": []}
    floor = FloorProcess()
    async with ProcessPool(num_idle_processes=IDLE, preload_modules=[__name__]) as pool:
        for _ in range(rounds):
            samples["floor"].append(floor.wake())
            for name, job in (("plain", stamp), ("async", stamp_async)):
                await asyncio.sleep(PAUSE)
                submitted = time.monotonic()
                samples[name].append(await pool.submit(job) - submitted)
    floor.close()
    return {name: Summary.of(sample) for name, sample in samples.items()}


def main() -> None:
    """Measure and print."""
    print(f"hand-over from {IDLE} idle workers, {machine()}")
    summaries = asyncio.run(measure())
    for name, summary in summaries.items():
        ratio = summary.p50 / summaries["floor"].p50
        print(f"{name:6} {summary.microseconds()}   {ratio:5.2f} of the floor")


if __name__ == "__main__":
    main()
