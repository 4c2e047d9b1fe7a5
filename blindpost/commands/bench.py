"""`blindpost bench`: the benchmarks, by name; the same as `python -m benchmarks`."""

import argparse
import importlib

from blindpost.errors import CommandError
from blindpost.exit_status import ExitStatus
from blindpost.parser import Options, Parser, Subparsers, add_command

__all__ = ["add_commands"]


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "bench",
        summary="measure the relay, its store, the verifier, and what others would have done",
        description=(
            "Runs one benchmark on this machine, with servers of its own on loopback and data in a temporary folder. "
            "Prints the figures, and writes them with machine, versions, command and seed as JSON, with a plot as SVG "
            "and one page. Without a name it lists the benchmarks; a name and --help lists its options."
        ),
        examples=(
            "blindpost bench",
            "blindpost bench relay --transports nats --rounds 5",
            "blindpost bench peers --only blindpost-gateways,mosquitto",
            "blindpost bench compare old/relay.json new/relay.json",
        ),
        run=_run,
    )
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="NAME …", help="the benchmark's name, then its own options"
    )


def _run(options: Options) -> int:
    # By name: a benchmark loads every room, and none of them is wanted before it runs.
    benchmarks = importlib.import_module("benchmarks.__main__")
    if not options.words:
        print(benchmarks.known())
        return ExitStatus.OK
    if options.words[0] not in benchmarks.NAMES:
        raise CommandError(f"there is no benchmark {options.words[0]!r}", "'blindpost bench' lists them")
    return int(benchmarks.main(options.words))
