"""`blindpost mydata`: a person's own copy of what the relay holds about them: the bytes that an authority would get."""

from pathlib import Path
from typing import TYPE_CHECKING

from blindpost.parser import Options, Parser, Subparsers, account, add_command, add_home, home_of, seconds
from blindpost.passphrase import add_passphrase_options

if TYPE_CHECKING:
    from wire.held import Held

__all__ = ["add_commands"]


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "mydata",
        summary="a person's own copy of what the relay holds about them",
        description=(
            "Asks the relay over your own device's link, and checks that what comes is a record of your account and "
            "device with every column of the schema; any device of the account may ask, each account once in 10 s. "
            "No mail is fetched meanwhile. "
            "With --account the operator makes it for a person, from the relay's home. Either way it has the same "
            "bytes as the answer to an order for the subscriber record at the same moment. Shows each column with its "
            "meaning, its resolution and who else sees it; with --out also writes the record itself. With --read it "
            "shows a record that somebody was given, and refuses one that holds more or less than the schema."
        ),
        examples=(
            "blindpost mydata --home omar",
            "blindpost mydata --home omar --out omar.held --passphrase-file omar.pass",
            "blindpost mydata --home relay --account omar@karachi.example --out omar.held",
            "blindpost mydata --read omar.held",
        ),
        run=_run,
    )
    add_home(parser, "your device's folder; with --account the relay's")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--account", type=account, metavar="ADDRESS", help="the operator's copy: whose")
    which.add_argument("--read", type=Path, metavar="FILE", help="show this record; no relay is asked")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the record there")
    parser.add_argument(
        "--wait",
        type=seconds,
        default=60.0,
        metavar="S",
        help="give up waiting for the relay after that many seconds (default: 60)",
    )
    add_passphrase_options(parser)


def _run(options: Options) -> int:
    from blindpost.files import check_absent, read_bounded, write_new
    from wire.held import held_text, read_held
    from wire.limits import HELD_BYTES_MAX

    if options.read is not None:
        print(held_text(read_held(read_bounded(options.read, "held record", HELD_BYTES_MAX))), end="")
        return 0
    if options.out is not None:
        check_absent(options.out)
    held = _of_own_device(options) if options.account is None else _of_operator(options)
    print(held_text(held), end="")
    if options.out is not None:
        write_new(options.out, held.data, secret=True)
        print(f"{options.out}: the record, {len(held.data)} bytes")
    return 0


def _of_own_device(options: Options) -> "Held":
    from blindpost.handset import open_device, run_async, running
    from client.state import Settings

    async def ask() -> "Held":
        # To look must change nothing: no mail is fetched meanwhile, which would be acknowledged and erased.
        async with running(open_device(options, Settings(credit=0))) as device:
            return await device.held_record(wait_s=options.wait)

    return run_async(ask())


def _of_operator(options: Options) -> "Held":
    from blindpost.errors import CommandError
    from blindpost.exit_status import ExitStatus
    from relay.asking import find_held
    from relay.core.docket import Scope, ScopeKind
    from wire.held import read_held

    found = find_held(home_of(options), Scope(ScopeKind.ACCOUNT, options.account))
    if not found.held:
        raise CommandError(f"there is no account {options.account} at this relay", "", ExitStatus.UNAVAILABLE)
    return read_held(found.held[0])
