"""`blindpost prove keysearch`: a disclosure is searched for keys that nobody volunteered."""

from pathlib import Path

from blindpost.errors import CommandError
from blindpost.exit_status import ExitStatus
from blindpost.parser import Options, Parser, Subparsers, add_command
from blindpost.proving.shown import add_json, conclude

__all__ = ["add_command_to"]


def add_command_to(family: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        family,
        "keysearch",
        summary="try every window of a disclosure and its memory image as a key, whoever's it may be",
        description=(
            "Each window of 32 bytes is tried by what it would open: as the message, chain, header or file key of a "
            "stored body, and as the X25519 private key of any public key in the directory; with --full as an Ed25519 "
            "and ML-KEM seed too, and in raw deflate streams. Hexadecimal, base64, zlib and gzip are decoded first. "
            "Then relays that keep keys in hard places are run, and each key must be found at its place. The whole of "
            "it takes a minute or two on two quiet cores for a demonstration's image, with --full up to five."
        ),
        examples=(
            "blindpost prove keysearch disclosure --relay-card relay-card.toml",
            "blindpost prove keysearch disclosure --relay-card relay-card.toml --full --json keysearch.json",
        ),
        run=_run,
    )
    parser.add_argument("disclosure", type=Path, metavar="DIR", help="the directory that the relay handed over")
    parser.add_argument("--relay-card", type=Path, metavar="FILE", required=True, help="the relay's card")
    parser.add_argument(
        "--alignment", type=int, choices=(8, 4, 1), default=8, help="of windows in memory, in bytes (default: 8)"
    )
    parser.add_argument("--full", action="store_true", help="every kind of key and every form")
    parser.add_argument("--thorough", action="store_true", help="decode beyond the bounds, however long it takes")
    parser.add_argument(
        "--volunteered",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="what participants gave: public keys on their lists are looked for as well; may be repeated",
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes (default: 2)")
    add_json(parser)


def _run(options: Options) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from audit.errors import AuditError
    from sim.experiments import keysearch

    columns = (TextColumn("{task.description:28}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    # Without a thread of its own that draws it: workers are forked, which is safe only while there is one thread.
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        searching = bar.add_task("windows of the disclosure", total=None)
        controls = bar.add_task("relays that keep keys", total=None)
        try:
            settings = keysearch.settings_of(
                alignment=options.alignment, full=options.full, workers=options.workers, thorough=options.thorough
            )
            result = keysearch.run(
                options.disclosure,
                options.relay_card,
                settings,
                volunteered=options.volunteered,
                progress=lambda done, total: bar.update(searching, completed=done, total=total, refresh=True),
                control_progress=lambda _, done, total: bar.update(controls, completed=done, total=total, refresh=True),
            )
        except AuditError as error:
            hint = "blindpost audit says what is wrong with a disclosure"
            raise CommandError(str(error), hint, ExitStatus.DATA) from None
    return conclude(result, options)
