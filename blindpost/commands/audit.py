"""`blindpost audit`: the verifier, which imports nothing of ours; also `python -m audit`."""

from pathlib import Path

from blindpost.files import check_absent
from blindpost.parser import Options, Parser, Subparsers, add_command

__all__ = ["add_commands"]


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "audit",
        summary="check a disclosure: is there anything in it to read?",
        description=(
            "Checks what a relay handed over against the protocol, and what participants volunteered against that. "
            "Ends with a verdict: BLIND (exit status 0), NOT BLIND (1), or INCOMPLETE (2) where something is missing "
            "to decide: above all the relay's card, without which nobody knows whose signature to expect."
        ),
        examples=(
            "blindpost audit disclosure --relay-card relay-card.toml",
            "blindpost audit disclosure --relay-card disclosure/relay-card.toml --volunteered ana.bin omar.bin",
            "blindpost audit disclosure --relay-card relay-card.toml --order disclosure/order.toml",
            "blindpost audit disclosure --relay-card relay-card.toml --commitments canaries.bin --json",
            "blindpost audit disclosure --relay-card relay-card.toml --key-search --html verdict.html",
            "blindpost audit disclosure --relay-card relay-card.toml --earlier disclosure-of-may",
            "blindpost audit disclosure --relay-card relay-card.toml --controls controls.jsonl",
            "blindpost audit --capture omar.capture --relay-card relay-card.toml --log relay/transparency",
        ),
        run=_run,
    )
    parser.add_argument(
        "disclosure", type=Path, metavar="DIR", nargs="?", help="the directory that the relay handed over"
    )
    parser.add_argument(
        "--capture",
        type=Path,
        metavar="FILE",
        help="check the file of an interception or a pen register instead, as 'order capture' writes it",
    )
    parser.add_argument("--log", type=Path, metavar="MIRROR", help="with --capture: a mirror of the relay's public log")
    parser.add_argument("--relay-card", type=Path, metavar="FILE", help="the relay's card, as you had it before")
    parser.add_argument(
        "--volunteered",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="what participants gave (blindpost volunteer); may be repeated",
    )
    parser.add_argument(
        "--commitments",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="commitments to canaries that were made before (blindpost canary)",
    )
    parser.add_argument(
        "--canary-file",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="texts to look for that nobody committed to, one a line; may be repeated",
    )
    parser.add_argument(
        "--order",
        type=Path,
        metavar="FILE",
        help="your own times of the order, as 'order wholesale' lays them beside the disclosure (order.toml)",
    )
    parser.add_argument(
        "--earlier",
        type=Path,
        metavar="DIR",
        help="another disclosure of this relay, made before, that this one must continue",
    )
    parser.add_argument(
        "--key-search",
        type=int,
        nargs="?",
        const=8,
        choices=(8, 4, 1),
        metavar="ALIGNMENT",
        help=(
            "try each window of 32 bytes in memory and files as a key, whoever's; takes minutes. Alignment in memory: "
            "8 (default), 4 or 1"
        ),
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes of the key search (default: 2)")
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="search without the bounds that keep an audit short, however long it takes",
    )
    parser.add_argument(
        "--controls",
        type=Path,
        metavar="FILE",
        help="the cheats that the verifier was tried on, as 'python -m sim.mutants' prints them",
    )
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the verdict as one HTML page")


def _run(options: Options) -> int:
    from audit.__main__ import main

    if options.html is not None:
        check_absent(options.html)
    arguments = [str(options.disclosure)] if options.disclosure is not None else []
    if options.capture is not None:
        arguments += ["--capture", str(options.capture)]
    if options.log is not None:
        arguments += ["--log", str(options.log)]
    if options.relay_card is not None:
        arguments += ["--relay-card", str(options.relay_card)]
    for path in options.volunteered:
        arguments += ["--volunteered", str(path)]
    for path in options.commitments:
        arguments += ["--commitments", str(path)]
    for path in options.canary_file:
        arguments += ["--canary-file", str(path)]
    if options.order is not None:
        arguments += ["--order", str(options.order)]
    if options.earlier is not None:
        arguments += ["--earlier", str(options.earlier)]
    if options.key_search is not None:
        arguments += [f"--key-search={options.key_search}", "--workers", str(options.workers)]
    if options.thorough:
        arguments += ["--thorough"]
    if options.controls is not None:
        arguments += ["--controls", str(options.controls)]
    if options.json:
        arguments += ["--json"]
    if options.html is not None:
        arguments += ["--html", str(options.html)]
    return main(arguments)
