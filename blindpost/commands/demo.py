"""`blindpost demo`: the whole story, on this machine, with nothing faked."""

import importlib
from pathlib import Path

from blindpost.parser import Options, Parser, Subparsers, add_command

__all__ = ["add_commands"]


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "demo",
        summary="watch the main job: messages, an order for everything, and the verdict",
        description=(
            "Starts a broker, a relay and devices of two companies, exchanges mail and chat, serves a wholesale order "
            "with the relay's memory image, audits the disclosure, lets cheats be caught, and runs the same story in "
            "the historical mode. Exit status 0 only if all came out as it should."
        ),
        examples=(
            "blindpost demo",
            "blindpost demo --mail inbox.mbox --out story",
            "blindpost demo --mail letters/ --broker mqtt://127.0.0.1:1883",
        ),
        run=_run,
    )
    parser.add_argument(
        "--mail",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="send this mail: an .eml file, a folder of them, or an mbox; may be repeated (default: the samples)",
    )
    parser.add_argument(
        "--broker",
        metavar="URL",
        help="use this MQTT broker, mqtt://HOST:PORT (default: one inside the relay's process)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write disclosures, verdicts and transcript here (default: a new folder)",
    )


def _run(options: Options) -> int:
    # By name: the story imports every room, and none of them is wanted before somebody watches it.
    story = importlib.import_module("blindpost.demo")
    return int(story.run_demo(options))
