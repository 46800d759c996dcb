"""A CPU-bound script with a progress bar: the standard library's executor, one import changed.

    python examples/cpu_bound_tqdm.py

Instead of ``from concurrent.futures import ProcessPoolExecutor``. What is gained:
a crash costs one task instead of the whole run, a task can be stopped while it
runs, and the workers are warm.
"""

from __future__ import annotations

import os
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool

from tqdm import tqdm

from supervisor import ProcessPoolExecutor

LIMITS = [*range(10_000, 60_000, 2_500), 13]


def count_primes(limit: int) -> int:
    """Return how many primes there are below *limit*. One number is unlucky."""
    if limit == 13:
        os.abort()
    sieve = bytearray([1]) * limit
    sieve[:2] = b"\0\0"
    for number in range(2, int(limit**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, limit, number)))
    return sum(sieve)


def main() -> None:
    """Count primes, and show how far it is."""
    with ProcessPoolExecutor(max_tasks_per_child=None) as executor:
        limits = {executor.submit(count_primes, limit): limit for limit in LIMITS}
        for future in tqdm(as_completed(limits), total=len(limits), unit="task"):
            try:
                tqdm.write(f"{future.result():6} primes below {limits[future]}")
            except BrokenProcessPool as exc:
                tqdm.write(f"{limits[future]}: {exc}")


if __name__ == "__main__":
    main()
