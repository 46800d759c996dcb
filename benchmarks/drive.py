"""The process of one contestant: ``python -m benchmarks.drive NAME FD``.

Imports nothing at the top: children that are spawned import their parent's main
module anew, and would pay for what only the parent needs.
"""

if __name__ == "__main__":
    import sys

    from benchmarks.drivers.loop import main

    sys.exit(main(sys.argv[1], int(sys.argv[2])))
