"""`blindpost receive`: fetch, verify, decrypt, keep, acknowledge."""

from pathlib import Path

from blindpost.parser import Options, Parser, Subparsers, add_command, add_home, seconds
from blindpost.passphrase import add_passphrase_options

__all__ = ["add_commands"]


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "receive",
        summary="fetch what is waiting: mail goes into a Maildir, chat is printed",
        description=(
            "Fetches what waits in the device's mailbox, verifies and decrypts it, keeps it in the device's sealed "
            "store, and only then acknowledges it, so that the relay erases it. Mail lands in the Maildir, byte for "
            "byte, where a mail reader finds it; without --maildir it stays in the sealed store until a later "
            "receive. Chat is printed, one message a line, with what could act on a terminal made visible."
        ),
        examples=(
            "blindpost receive --home omar --maildir Mail",
            "blindpost receive --home omar --maildir Mail --wait 30",
        ),
        run=_receive,
    )
    add_home(parser, "the device")
    parser.add_argument("--maildir", type=Path, metavar="DIR", help="where mail lands; it is made if it is not there")
    parser.add_argument(
        "--wait",
        type=seconds,
        default=0.0,
        metavar="S",
        help="go on receiving for that many seconds (default: 0, what is waiting now)",
    )
    parser.add_argument(
        "--no-read-notices", action="store_true", help="do not tell senders that their chat was printed (R)"
    )
    add_passphrase_options(parser)


def _receive(options: Options) -> int:
    from blindpost.delivery import receive_all
    from blindpost.handset import open_device, run_async, running

    async def receive() -> int:
        async with running(open_device(options)) as device:
            return await receive_all(
                device, options.maildir, wait_s=options.wait, read_notices=not options.no_read_notices
            )

    return run_async(receive())
