"""`blindpost mydata`: a person's own copy of what the relay holds about them: the bytes that an authority would get."""

from pathlib import Path

from blindpost.parser import Options, Parser, Subparsers, account, add_command, add_home, home_of

__all__ = ["add_commands"]


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "mydata",
        summary="a person's own copy of what the relay holds about them",
        description=(
            "The operator makes it for the person, from the same schema and with the same bytes as the answer to an "
            "order for the subscriber record. Shows each column with its meaning, its resolution and who else sees "
            "it; with --out also writes the record itself. With --read it shows a record that somebody was given, and "
            "refuses one that holds more or less than the schema."
        ),
        examples=(
            "blindpost mydata --home relay --account omar@karachi.example",
            "blindpost mydata --home relay --account omar@karachi.example --out omar.held",
            "blindpost mydata --read omar.held",
        ),
        run=_run,
    )
    add_home(parser, "the relay's folder")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--account", type=account, metavar="ADDRESS", help="the person")
    which.add_argument("--read", type=Path, metavar="FILE", help="show this record; no relay is asked")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the record there")


def _run(options: Options) -> int:
    from blindpost.errors import CommandError
    from blindpost.exit_status import ExitStatus
    from blindpost.files import check_absent, read_bounded, write_new
    from relay.asking import find_held
    from relay.core.docket import Scope, ScopeKind
    from wire.held import HELD_BYTES_MAX, held_text, read_held

    if options.read is not None:
        print(held_text(read_held(read_bounded(options.read, "held record", HELD_BYTES_MAX))), end="")
        return 0
    if options.out is not None:
        check_absent(options.out)
    found = find_held(home_of(options), Scope(ScopeKind.ACCOUNT, options.account))
    if not found.held:
        raise CommandError(f"there is no account {options.account} at this relay", "", ExitStatus.UNAVAILABLE)
    print(held_text(read_held(found.held[0])), end="")
    if options.out is not None:
        write_new(options.out, found.held[0], secret=True)
        print(f"{options.out}: the record, {len(found.held[0])} bytes")
    return 0
