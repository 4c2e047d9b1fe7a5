"""The reference results of docs/performance.md, made again: `python -m benchmarks.reference [NAME …]`.

Runs each benchmark as documented, replaces its JSON and SVG in benchmarks/results/, and writes the tables of the page.
A benchmark that fails leaves its old result in place. To be run on a quiet machine: figures of a busy one are those of
its neighbours too.
"""

import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks import documented
from benchmarks.__main__ import main as run

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "peers": "peers --rounds 3",
    "relay": (
        "relay --rounds 3 --transports nats,nats-mqtt,mosquitto,amqtt --frames 1,64 --content 1024,256,16384,196608 "
        "--stores disk,tmpfs --linked 0,5000 --ways online,away --count-fsyncs"
    ),
    "scale": "scale --rounds 3",
    "store": "store --rounds 5",
    "audit": "audit --rounds 3",
    "ratchet": "ratchet --rounds 9",
    "fairness": "fairness --rounds 3",
    "soak": "soak --minutes 3 --rate 2000",
}


def main(argv: list[str]) -> int:
    """Run the named ones, or all; returns the exit status."""
    failed = []
    for name in argv or COMMANDS:
        words = shlex.split(COMMANDS[name])
        with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder:
            print(f"--- {COMMANDS[name]}", flush=True)
            # The folder is not part of the command that the result names: anybody's is another.
            status = _measured([*words, "--out", folder])
            if status:
                failed.append(name)
                continue
            documented.RESULTS.mkdir(exist_ok=True)
            for made in Path(folder).iterdir():
                if made.suffix == ".json":
                    text = made.read_text(encoding="utf-8").replace(f" --out {folder}", "")
                    (documented.RESULTS / made.name).write_text(text, encoding="utf-8")
                elif made.suffix == ".svg":
                    shutil.copyfile(made, documented.RESULTS / made.name)
        if documented.PAGE.exists():
            documented.main([])
    print(f"failed: {', '.join(failed)}" if failed else "done")
    return 1 if failed else 0


def _measured(words: list[str]) -> int:
    try:
        return run(words)
    except Exception as error:  # the next one is measured all the same
        print(f"FAILED: {type(error).__name__}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
