"""`blindpost transparency-report`: the public report of a relay's orders, from its log alone."""

from pathlib import Path

from blindpost.commands.order import day
from blindpost.errors import CommandError, UsageError
from blindpost.exit_status import ExitStatus
from blindpost.parser import Options, Parser, Subparsers, add_command, add_home, home_of

__all__ = ["add_commands"]


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "transparency-report",
        summary="the public report of a relay's orders, from its log alone",
        description=(
            "Writes a page for people and two tables of CSV, in the columns of GitHub's reports and of the "
            "transparency-aggregator. Everything in them follows from the public log: anybody with a mirror of it and "
            "the relay's card can make the report again and compare (blindpost log verify --report)."
        ),
        examples=(
            "blindpost transparency-report --home relay --from 2015-01-01 --to 2015-12-31",
            "blindpost transparency-report --home relay --from 2015-01-01 --to 2015-12-31 --out report-2015",
        ),
        run=_run,
    )
    add_home(parser, "the relay's folder")
    parser.add_argument("--from", dest="first", type=day, metavar="DATE", required=True, help="the first day")
    parser.add_argument("--to", dest="last", type=day, metavar="DATE", required=True, help="the last day")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=Path("transparency-report"),
        help="the report's folder, which is made (default: transparency-report)",
    )


def _run(options: Options) -> int:
    from audit.material import CARD_BYTES_MAX, read_card
    from audit.order_log import verify_log
    from blindpost.files import read_bounded, write_new
    from blindpost.transparency import files_of
    from relay.home import CARD_NAME
    from relay.logkey import LOG_FOLDER, log_key_of

    if options.last < options.first:
        raise UsageError("--to is before --from", "")
    home, out = home_of(options), options.out
    log_key_of(home)
    if out.exists():
        raise CommandError(f"{out} is there already", "name another folder with --out", ExitStatus.CANNOT_CREATE)
    card = read_card(read_bounded(home / CARD_NAME, "relay card", CARD_BYTES_MAX), CARD_NAME)
    log = verify_log(home / LOG_FOLDER, card)
    if not log.holds:
        raise CommandError(f"the log does not hold: {log.findings[0]}", "blindpost log verify", ExitStatus.DATA)
    out.mkdir(parents=True)
    for name, data in files_of(log, options.first, options.last).items():
        write_new(out / name, data, secret=False)
        print(f"{out / name}: {len(data)} bytes")
    print(f"check: blindpost log verify MIRROR --relay-card CARD --report {out}")
    return 0
