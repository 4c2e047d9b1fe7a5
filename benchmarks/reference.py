"""The reference results of docs/performance.md, made again: `python -m benchmarks.reference [NAME …]`.

Runs each benchmark as documented, replaces its JSON and SVG in benchmarks/results/, and writes the tables of the page.
A benchmark that fails leaves its old result in place. To be run on a quiet machine: figures of a busy one are those of
its neighbours too.
"""

import argparse
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import documented
from benchmarks.__main__ import main as run

__all__ = ["COMMANDS", "PARTS", "main"]


@dataclass(frozen=True, slots=True)
class Part:
    """One benchmark of the reference."""

    command: str
    minutes: float
    """About how long it takes on two cores that do nothing else; a result says how long its own run took."""


PARTS = {
    "peers": Part("peers --rounds 3", 11),
    "relay": Part(
        "relay --rounds 3 --transports nats,nats-mqtt,mosquitto,amqtt --frames 1,64 --content 1024,256,16384,196608 "
        "--stores disk,tmpfs --linked 0,5000 --ways online,away --count-fsyncs",
        9,
    ),
    "mqtt": Part("mqtt --rounds 3", 1),
    "gateway": Part("gateway --rounds 3", 1),
    "scale": Part("scale --rounds 3", 3),
    "store": Part("store --rounds 5", 3),
    "audit": Part("audit --rounds 3", 3),
    "ratchet": Part("ratchet --rounds 9", 0.5),
    "fairness": Part("fairness --rounds 3", 1),
    "soak": Part("soak --minutes 3 --rate 2000", 3),
    "simulate": Part("simulate --devices 100000 --messages 1000000 --days 30", 5.5),
}
COMMANDS = {name: part.command for name, part in PARTS.items()}


def main(argv: Sequence[str]) -> int:
    """Run the named ones, or all; returns the exit status."""
    names = list(_parser().parse_args(argv).names) or list(PARTS)
    begun_s, failed = time.monotonic(), []
    left = sum(PARTS[name].minutes for name in names)
    for number, name in enumerate(names, 1):
        part = PARTS[name]
        print(
            f"--- {number} of {len(names)}: {part.command} (about {part.minutes:g} min, all that is left {left:g})",
            flush=True,
        )
        start_s = time.monotonic()
        if not _made_again(part.command):
            failed.append(name)
        left -= part.minutes
        print(f"--- {name} took {_minutes(start_s)}, all so far {_minutes(begun_s)}", flush=True)
    print(f"failed: {', '.join(failed)}" if failed else "done")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    total = sum(part.minutes for part in PARTS.values())
    lines = [f"  {name:9} {part.minutes:4g} min   {part.command}" for name, part in PARTS.items()]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reference",
        description=f"{(__doc__ or '').strip()}\n\nAbout {total:g} minutes on two cores:\n\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", type=_known, metavar="NAME", help="which (default: all)")
    return parser


def _known(name: str) -> str:
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(PARTS)}")
    return name


def _minutes(since_s: float) -> str:
    return f"{(time.monotonic() - since_s) / 60:.1f} min"


def _made_again(command: str) -> bool:
    with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder:
        # The folder is not part of the command that the result names: anybody's is another.
        if _measured([*shlex.split(command), "--out", folder]):
            return False
        documented.RESULTS.mkdir(exist_ok=True)
        for made in Path(folder).iterdir():
            if made.suffix == ".json":
                text = made.read_text(encoding="utf-8").replace(f" --out {folder}", "")
                (documented.RESULTS / made.name).write_text(text, encoding="utf-8")
            elif made.suffix == ".svg":
                shutil.copyfile(made, documented.RESULTS / made.name)
    if documented.PAGE.exists():
        documented.main([])
    return True


def _measured(words: list[str]) -> int:
    try:
        return run(words)
    except Exception as error:  # the next one is measured all the same
        print(f"FAILED: {type(error).__name__}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
