"""`blindpost chat`: texts and PINGs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from blindpost.commands.mail import add_wait
from blindpost.errors import CommandError
from blindpost.exit_status import ExitStatus
from blindpost.parser import Options, Parser, Subparsers, add_command, add_family, add_home, add_recipients
from blindpost.passphrase import add_passphrase_options

if TYPE_CHECKING:
    from client.content import Kind
    from client.device import Device

__all__ = ["add_commands"]


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the family."""
    family = add_family(subparsers, "chat", "send a text or a PING")
    parser = add_command(
        family,
        "send",
        summary="send a text; returns when the relay's receipts are in, and prints them",
        description=(
            "Sends a text to one account or several. The words of a command line can be read by others on this "
            "machine and are kept in the shell's history: TEXT - reads the text from standard input instead."
        ),
        examples=(
            "blindpost chat send --home ana --to omar@globex.example 'see you at nine'",
            "blindpost chat send --home ana --to omar@globex.example zara@globex.example 'see you at nine'",
            "blindpost chat send --home ana --to omar@globex.example --reply-to 00112233 yes",
            "blindpost chat send --home ana --to omar@globex.example - < text.txt",
        ),
        run=_send,
    )
    add_home(parser, "the sender's device")
    add_recipients(parser, copies=False)
    parser.add_argument("text", metavar="TEXT", help="what is said, - for standard input")
    parser.add_argument(
        "--reply-to", type=_digits, metavar="MESSAGE", help="what it answers: 8 digits of it, or all 32"
    )
    add_wait(parser, 60)
    add_passphrase_options(parser)
    parser = add_command(
        family,
        "ping",
        summary="send a PING",
        description="Sends a PING, which says nothing but that you want to be heard.",
        examples=("blindpost chat ping --home ana --to omar@globex.example",),
        run=_ping,
    )
    add_home(parser, "the sender's device")
    add_recipients(parser, copies=False)
    add_wait(parser, 60)
    add_passphrase_options(parser)
    parser = add_command(
        family,
        "status",
        summary="tell what became of a message: receipted, delivered (D), read (R)",
        description=(
            "Prints whether the relay has receipted a message of this device for everybody, and whose device has said "
            "that it was delivered (D) or read (R), as far as this device has received those notices."
        ),
        examples=("blindpost chat status --home ana 00112233445566778899aabbccddeeff",),
        run=_status,
    )
    add_home(parser, "the sender's device")
    parser.add_argument("message", type=_digits, metavar="MESSAGE", help="the message: its first 8 digits, or all 32")
    add_passphrase_options(parser)

    parser = add_command(
        family,
        "withdraw",
        summary="take back a message, text or mail, wherever nobody has fetched it yet",
        description=(
            "What has not left is dropped; of what the relay holds it is asked to erase each envelope, with the token "
            "that only sender and recipient have. A device that has fetched the message keeps it. It is also for what "
            "waits for people whose company the relay serves no more."
        ),
        examples=("blindpost chat withdraw --home ana 00112233445566778899aabbccddeeff",),
        run=_withdraw,
    )
    add_home(parser, "the sender's device")
    parser.add_argument("message", type=_digits, metavar="MESSAGE", help="the message: its first 8 digits, or all 32")
    add_wait(parser, 60)
    add_passphrase_options(parser)


def _digits(text: str) -> str:
    digits = text.lower()
    if not 8 <= len(digits) <= 32 or set(digits) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no message: 8 to 32 hex digits")
    return digits


def _message_id(device: "Device", digits: str) -> bytes:
    """The message that these digits begin; whole ids need not be known here.

    Raises:
        CommandError: none, or several.
    """
    found = [bytes.fromhex(digits)] if len(digits) == 32 else device.message_ids(digits)
    if len(found) != 1:
        problem = "is no message of this device" if not found else f"begins {len(found)} messages"
        raise CommandError(f"{digits} {problem}", "give more of its digits", ExitStatus.NO_INPUT)
    return found[0]


def _send(options: Options) -> int:
    from blindpost.files import read_bounded
    from client.chat import text_payload
    from client.content import Kind
    from wire.limits import MESSAGE_BYTES_MAX

    if options.text == "-":
        data = read_bounded(Path("-"), "text", MESSAGE_BYTES_MAX)
        try:
            text = data.decode("utf-8").removesuffix("\n")
        except UnicodeDecodeError:
            raise CommandError("text: not UTF-8", "", ExitStatus.DATA) from None
    else:
        text = options.text
    return _say(options, Kind.CHAT, text_payload(text), options.reply_to)


def _ping(options: Options) -> int:
    from client.chat import PING_PAYLOAD
    from client.content import Kind

    return _say(options, Kind.PING, PING_PAYLOAD, None)


def _say(options: Options, kind: "Kind", payload: bytes, answered: str | None) -> int:
    from blindpost.handset import open_device, run_async, running, send_and_print
    from client.content import NO_REPLY

    async def say() -> int:
        async with running(open_device(options)) as device:
            to = tuple(dict.fromkeys(options.to))
            reply_to = NO_REPLY if answered is None else _message_id(device, answered)
            content = device.compose(kind, payload, to, reply_to)
            return await send_and_print(options, content, device, to)

    return run_async(say())


def _status(options: Options) -> int:
    from blindpost.handset import open_device

    device = open_device(options)
    try:
        message_id = _message_id(device, options.message)
        status = device.status(message_id)
    finally:
        device.close()
    if status is None:
        hint = "messages are known to the device that sent them"
        raise CommandError(f"this device sent no message {message_id.hex()}", hint, ExitStatus.NO_INPUT)
    state = "failed" if status.failed else "receipted" if status.receipted else "in the outbox"
    print(f"message {message_id.hex()} {status.kind.name.lower()} {state}")
    for account in status.recipients:
        marks = [mark for mark, who in (("D", status.delivered_to), ("R", status.read_by)) if account in who]
        print(f"{account} {' '.join(marks) or '-'}")
    return 0


def _withdraw(options: Options) -> int:
    from blindpost.handset import open_device, run_async, running
    from client.errors import Unknown

    async def take_back() -> int:
        async with running(open_device(options)) as device:
            message_id = _message_id(device, options.message)
            if device.status(message_id) is None:
                hint = "messages are known to the device that sent them"
                raise CommandError(f"this device sent no message {message_id.hex()}", hint, ExitStatus.NO_INPUT)
            try:
                asked = await device.withdraw(message_id, options.wait)
            except Unknown as error:
                problem = f"the relay has not answered: {error.why}"
                raise CommandError(problem, "withdraw it again: nothing happens twice", ExitStatus.TRY_AGAIN) from None
        print(f"message {message_id.hex()} withdrawn: the relay was asked to erase {asked} envelopes")
        return 0

    return run_async(take_back())
