"""`python -m benchmarks.load`: one load process; benchmarks/load/job.py tells what it reads and writes."""

import asyncio
import sys

from benchmarks.load.worker import loop_factory, work


def main() -> int:
    """Run one job; returns the exit status."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(work(sys.stdin, sys.stdout))


if __name__ == "__main__":
    sys.exit(main())
