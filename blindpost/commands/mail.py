"""`blindpost mail`: email, byte for byte."""

from pathlib import Path

from blindpost.parser import (
    Options,
    Parser,
    Subparsers,
    add_command,
    add_family,
    add_home,
    add_recipients,
    seconds,
)
from blindpost.passphrase import add_passphrase_options

__all__ = ["add_commands"]


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the family."""
    family = add_family(subparsers, "mail", "send email")
    parser = add_command(
        family,
        "send",
        summary="send a mail file; returns when the relay's receipts are in, and prints them",
        description=(
            "Encrypts a mail for every device of its recipients and hands it to the relay. The file arrives byte for "
            "byte as it is, but for Bcc header fields. Who gets it is what --to, --cc and --bcc say, whatever the "
            "file says. Returns when the relay has receipted every envelope. Without a relay, or after --wait "
            "seconds, the mail stays in the outbox and the next command on this home goes on with it."
        ),
        examples=(
            "blindpost mail send --home ana --to omar@globex.example letter.eml",
            "blindpost mail send --home ana --to omar@globex.example zara@globex.example --cc li@acme.example a.eml",
            "blindpost mail send --home ana --to omar@globex.example --bcc li@acme.example - < letter.eml",
        ),
        run=_send,
    )
    add_home(parser, "the sender's device")
    add_recipients(parser, copies=True)
    parser.add_argument("file", type=Path, metavar="FILE.eml", help="the mail, - for standard input; at most 25 MiB")
    add_wait(parser, 60)
    add_passphrase_options(parser)


def add_wait(parser: Parser, default_s: int) -> None:
    """Add `--wait S` to a command that sends."""
    parser.add_argument(
        "--wait",
        type=seconds,
        default=float(default_s),
        metavar="S",
        help=f"give up waiting for receipts after that many seconds (default: {default_s})",
    )


def _send(options: Options) -> int:
    from blindpost.files import read_bounded
    from blindpost.handset import open_device, run_async, running, send_and_print
    from client.content import Kind
    from client.mail import without_bcc
    from wire.limits import MESSAGE_BYTES_MAX

    mail = without_bcc(read_bounded(options.file, str(options.file), MESSAGE_BYTES_MAX))

    async def send() -> int:
        async with running(open_device(options)) as device:
            shown = tuple(dict.fromkeys((*options.to, *options.cc)))
            content = device.compose(Kind.EMAIL, mail, shown)
            return await send_and_print(options, content, device, shown, options.bcc)

    return run_async(send())
