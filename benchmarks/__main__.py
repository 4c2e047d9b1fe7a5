"""`python -m benchmarks NAME …`: one benchmark by its name; `--help` after a name tells its options."""

import importlib
import sys

NAMES = {
    "ratchet": "the ratchet beside python-doubleratchet and vodozemac",
    "relay": "durable receipted messages a second, and relay CPU for each",
}


def main(argv: list[str]) -> int:
    """Run the benchmark that the first argument names; returns the exit status."""
    if not argv or argv[0] not in NAMES:
        known = "\n".join(f"  {name:10} {what}" for name, what in NAMES.items())
        print(f"usage: python -m benchmarks NAME [options]\n\n{known}", file=sys.stderr)
        return 0 if argv[:1] in (["-h"], ["--help"]) else 64
    status: int = importlib.import_module(f"benchmarks.{argv[0]}").main(argv[1:])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
