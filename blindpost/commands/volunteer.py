"""`blindpost volunteer`: what a participant may give the verifier, each by choice."""

from pathlib import Path
from typing import TYPE_CHECKING

from blindpost.errors import UsageError
from blindpost.files import check_absent, write_new
from blindpost.parser import Options, Parser, Subparsers, add_command, add_home
from blindpost.passphrase import add_passphrase_options

if TYPE_CHECKING:
    from client.device import Device
    from client.volunteer import Item

__all__ = ["add_commands"]


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "volunteer",
        summary="write what you choose to give the verifier",
        description=(
            "Writes a file for 'blindpost audit --volunteered'. Each kind helps to check another thing, and each shows "
            "something: read what a kind shows before you give the file away. Without a choice it is --receipts and "
            "--lists, and with --disclosure also --openings; secrets and canaries are given only when they are named."
        ),
        examples=(
            "blindpost volunteer --home ana --out ana.volunteered",
            "blindpost volunteer --home omar --out omar.volunteered --disclosure disclosure",
            "blindpost volunteer --home ana --out ana.volunteered --secrets --receipts",
            "blindpost volunteer --home omar --out omar.volunteered --disclosure disclosure --openings --canary",
        ),
        run=_volunteer,
    )
    add_home(parser, "your device")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="where it is written, mode 0600")
    kinds = parser.add_argument_group("what to give")
    kinds.add_argument(
        "--receipts",
        action="store_true",
        help="the relay's receipts for what you sent, so that nothing can be left out of a disclosure; shows the "
        "mailboxes that you wrote to, and when",
    )
    kinds.add_argument(
        "--secrets",
        action="store_true",
        help="your device's private keys and session secrets, to be searched for in everything that the relay had; "
        "whoever gets the file has your device: for demonstrations, and devices that you give up",
    )
    kinds.add_argument(
        "--openings",
        action="store_true",
        help="with --disclosure: the message keys of the rows there that are yours, each of which opens that one "
        "message and no other; shows those messages",
    )
    kinds.add_argument(
        "--canary",
        action="store_true",
        help="the texts and nonces of the canaries that you committed to before; shows those texts",
    )
    kinds.add_argument("--lists", action="store_true", help="the signed device lists that your device knows; public")
    parser.add_argument("--disclosure", type=Path, metavar="DIR", help="the disclosure in which to look for your rows")
    add_passphrase_options(parser)


def _volunteer(options: Options) -> int:
    chosen = [name for name in ("receipts", "secrets", "openings", "canary", "lists") if getattr(options, name)]
    if not chosen:
        # What costs least and proves most; never what gives a device away.
        chosen = ["receipts", "lists"] + (["openings"] if options.disclosure is not None else [])
    if options.openings and options.disclosure is None:
        raise UsageError("--openings needs --disclosure DIR", "the rows to open are looked for there")
    check_absent(options.out)

    from blindpost.handset import open_device
    from client.volunteer import volunteered_file

    device = open_device(options)
    try:
        counts, items = [], []
        for name in chosen:
            made = _items(device, name, options.disclosure)
            counts.append(f"{len(made)} {name}")
            items += made
        write_new(options.out, volunteered_file(device.account, items), secret=True)
    finally:
        device.close()
    print(f"{options.out}: {', '.join(counts)} of {device.account}")
    return 0


def _items(device: "Device", name: str, disclosure: Path | None) -> "list[Item]":
    from blindpost.disclosed import rows_of
    from client import volunteer

    match name:
        case "receipts":
            return volunteer.receipt_items(device)
        case "secrets":
            return volunteer.secret_items(device)
        case "canary":
            return volunteer.canary_items(device)
        case "lists":
            return volunteer.list_items(device)
        case _:
            assert disclosure is not None, "was asked for before"
            return volunteer.opening_items(device, list(rows_of(disclosure, device.mailbox)))
