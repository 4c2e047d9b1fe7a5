"""What `blindpost receive` does with messages that arrived: mail into a Maildir, chat onto the screen.

Order: the device has kept and acknowledged a message before it is seen here; here it is delivered first, and marked as
taken after. A crash in between delivers it again: the Maildir knows it by name, and a line of chat is printed twice at
worst, never lost.
"""

import sys
import time
from pathlib import Path
from typing import Final

from client.chat import printable, render
from client.content import NO_REPLY, Content, Kind
from client.device import Device
from client.errors import Unknown
from client.maildir import Maildir
from client.message import Message

__all__ = ["line_of", "receive_all"]

# How long nothing may come before what was waiting is taken for all.
_QUIET_S: Final = 1.0
_LINK_WAIT_S: Final = 30.0
# The D and R notices of what arrived leave within this time, or with the next command.
_NOTICES_WAIT_S: Final = 10.0
# Mail of the largest size: one at a time is in memory.
_MESSAGES_AT_ONCE: Final = 8
_CHAT_KINDS: Final = frozenset({Kind.CHAT, Kind.PING})


async def receive_all(device: Device, maildir_path: Path | None, *, wait_s: float, read_notices: bool) -> int:
    """Fetch and deliver what is waiting, and what comes within `wait_s` seconds.

    Returns:
        The exit status: 75 if the relay could not be reached.
    """
    maildir = None if maildir_path is None else Maildir(maildir_path, int(time.time()))
    try:
        until_s = time.monotonic() + wait_s
        # What was kept before is delivered whether or not the relay can be reached.
        await _deliver(device, maildir, read_notices)
        await device.caught_up(_QUIET_S, wait_s=max(_LINK_WAIT_S, wait_s))
        await _deliver(device, maildir, read_notices)
        while (left_s := until_s - time.monotonic()) > 0:
            await device.receive(left_s, take=False, messages_max=1, kinds=_kinds(maildir))
            await _deliver(device, maildir, read_notices)
        await _finish(device)
        return 0
    finally:
        if maildir is not None:
            maildir.close()


def _kinds(maildir: Maildir | None) -> frozenset[Kind]:
    return _CHAT_KINDS if maildir is None else _CHAT_KINDS | {Kind.EMAIL}


async def _deliver(device: Device, maildir: Maildir | None, read_notices: bool) -> None:
    while messages := await device.receive(take=False, messages_max=_MESSAGES_AT_ONCE, kinds=_kinds(maildir)):
        for message in messages:
            _deliver_one(message, maildir)
        sys.stdout.flush()
        device.mark_taken(messages)
        if read_notices:
            device.mark_read([message for message in messages if message.kind in _CHAT_KINDS])


def _deliver_one(message: Message, maildir: Maildir | None) -> None:
    place = ""
    if message.kind is Kind.EMAIL:
        assert maildir is not None, "mail is not asked for without a Maildir"
        path = maildir.deliver(message.payload, message.message_id, message.device_key)
        place = "already delivered" if path is None else str(path)
    print(line_of(message, place))


def line_of(message: Message, place: str = "") -> str:
    """One line for a message; for mail also where it lies."""
    sender = message.account
    if message.own_copy:
        sender += f" (sent to {', '.join(message.recipients)})"
    if message.kind is Kind.EMAIL:
        when = time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(message.received_ms // 1_000))
        name = message.message_id.hex()[:8]
        return f"{when} {name} {printable(sender)}: mail, {len(message.payload)} bytes, {printable(place)}"
    content = Content(
        NO_REPLY, message.kind, message.message_id, message.sent_ms, message.reply_to, message.audience, message.payload
    )
    return render(content, sender)


async def _finish(device: Device) -> None:
    """Let the D and R notices leave."""
    try:
        await device.idle(wait_s=_NOTICES_WAIT_S)
    except Unknown as error:
        print(f"blindpost: notice: the outbox is not empty yet: {printable(error.why)}", file=sys.stderr)
