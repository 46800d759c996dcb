"""``python -m benchmarks [NAME …]``: run the benchmarks named, or all."""

from __future__ import annotations

import importlib
import sys

NAMES = ("handover", "churn", "sharing", "logs")


def main(names: list[str]) -> int:
    """Run them; return the exit status."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    for name in names or NAMES:
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
