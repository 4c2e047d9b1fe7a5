"""`python -m sim.mutants`: run the controls, one JSON object a line as each ends; exit status 0 if all were caught."""

import argparse
import json
import sys
from dataclasses import asdict

from sim.mutants.catalogue import CATALOGUE
from sim.mutants.controls import ControlResult, run_controls

__all__ = ["main"]


def main() -> int:
    """Run what the command line names; all without names."""
    parser = argparse.ArgumentParser(prog="python -m sim.mutants", description="Run the controls.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants of the catalogue (default: all)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes (default: 2)")
    options = parser.parse_args()
    known = {mutant.name for mutant in CATALOGUE}
    if unknown := sorted(set(options.names) - known):
        parser.error(f"no mutant is named {unknown[0]!r}; there are {', '.join(sorted(known))}")
    results = run_controls(max(1, options.workers), options.names or None, _print)
    return 0 if all(result.caught for result in results) else 1


def _print(result: ControlResult) -> None:
    line = {**asdict(result), "caught": result.caught}
    print(json.dumps(line, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    sys.exit(main())
