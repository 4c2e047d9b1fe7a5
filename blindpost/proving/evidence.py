"""`blindpost prove evidence`: check a file of evidence against a relay; also `python -m audit.evidence`."""

from pathlib import Path

from blindpost.parser import Options, Parser, Subparsers, add_command

__all__ = ["add_command_to"]


def add_command_to(family: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        family,
        "evidence",
        summary="check evidence against a relay, and say of what it convicts it",
        description=(
            "Checks one file that 'blindpost prove completeness' wrote, trusting nobody but the relay's card: every "
            "signature and hash in it, and the contradiction itself. Exit status 0: the relay is convicted; 1: "
            "refused, the file shows nothing; 2: convicted under conditions that are printed, such as that a memory "
            "image hands the relay's key to whoever took it."
        ),
        examples=(
            "blindpost prove evidence evidence/hidden-3f1c0a2b9d4e.evidence --relay-card relay-card.toml",
            "blindpost prove evidence forked.evidence --relay-card relay-card.toml --rotations later-disclosure",
        ),
        run=_run,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the evidence")
    parser.add_argument(
        "--relay-card", type=Path, required=True, metavar="FILE", help="the relay's card, as you have it"
    )
    parser.add_argument(
        "--disclosure",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a disclosure whose store the evidence does not carry, found by its hash; may be repeated",
    )
    parser.add_argument(
        "--rotations", type=Path, metavar="DIR", help="a disclosure that you trust to name the relay's changes of key"
    )
    # A plain switch here, as with `audit`: what is printed is the whole document.
    parser.add_argument("--json", action="store_true", help="print as JSON")


def _run(options: Options) -> int:
    from audit.evidence.__main__ import main

    arguments = [str(options.file), "--relay-card", str(options.relay_card)]
    for directory in options.disclosure:
        arguments += ["--disclosure", str(directory)]
    if options.rotations is not None:
        arguments += ["--rotations", str(options.rotations)]
    if options.json:
        arguments += ["--json"]
    return main(arguments)
