"""A device as a command uses it: opened with a passphrase, running while the command runs, and closed after it.

What every command does in the same way is here: ask for the passphrase, tell what nobody was waiting for (alarms and
failures, on stderr), print receipts, and say what became of a message whose receipts did not come in time.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import gmtime, strftime
from typing import TypeVar

from blindpost.errors import CommandError
from blindpost.exit_status import ExitStatus
from blindpost.parser import Options, home_of
from blindpost.passphrase import read_passphrase
from client.chat import printable
from client.content import Content
from client.device import Device
from client.errors import Unknown
from client.records import HeldReceipt
from client.state import Settings
from wire.codec import decode
from wire.receipt import CommitHeader

__all__ = ["check_no_home", "open_device", "receipt_line", "run_async", "running", "send_and_print"]

T = TypeVar("T")


def run_async(work: Coroutine[None, None, T]) -> T:
    """Run a command's coroutine to its end."""
    return asyncio.run(work)


def check_no_home(home: Path) -> None:
    """Refuse a folder that is a device's home already, before a passphrase is asked for.

    Raises:
        CommandError: something lies there.
    """
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise CommandError(f"{home} is not empty", "a new device needs a folder of its own", ExitStatus.CANNOT_CREATE)


def open_device(options: Options, settings: Settings | None = None) -> Device:
    """Open the device that the options name.

    Args:
        options: the parsed options, with a home and those of a passphrase.
        settings: how the device behaves while the command runs; without them as always.

    Raises:
        UsageError: no home is named, or no passphrase can be had.
        HomeInvalid, HomeInUse, WrongPassphrase: as `Device.open`.
    """
    home = home_of(options)
    if not home.is_dir():
        raise CommandError(f"{home} is no folder", "see 'blindpost device new --help'", ExitStatus.CONFIGURATION)
    return Device.open(home, read_passphrase(options, f"the device in {home}"), settings=settings)


@asynccontextmanager
async def running(device: Device) -> AsyncIterator[Device]:
    """The device, connected; at the end what nobody was waiting for is told."""
    async with device:
        try:
            yield device
        finally:
            _tell_notices(device)


def _tell_notices(device: Device) -> None:
    notices = device.notices()
    for notice in notices:
        about = f" (message {notice.message_id.hex()})" if notice.message_id else ""
        print(f"blindpost: notice: {printable(notice.text)}{about}", file=sys.stderr)
    sys.stderr.flush()
    device.clear_notices(notices)


async def send_and_print(
    options: Options, content: Content, device: Device, to: Sequence[str], bcc: Sequence[str] = ()
) -> int:
    """Send a message, wait for the relay's receipts, and print them.

    Raises:
        CommandError: not all receipts came in time; the message stays in the outbox.
        Refused, Alarm, Expired: as `Device.send`.
    """
    print(f"message {content.message_id.hex()}", flush=True)
    try:
        receipts = await device.send(content, to, bcc, wait_s=options.wait)
    except Unknown as error:
        if device.engine.enrolment.failure is not None:
            raise device.engine.enrolment.failure from None
        raise CommandError(
            f"not all receipts are in: {error.why}",
            "the message is in the outbox: do not send it again, the next command on this home goes on with it",
            ExitStatus.TRY_AGAIN,
        ) from None
    for held in receipts:
        print(receipt_line(held))
    return 0


def receipt_line(held: HeldReceipt) -> str:
    """A receipt in one line: for whom, which envelope, and where the relay committed it."""
    header = decode(CommitHeader, held.header, "commit header")
    time = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(header.time_ms // 1_000))
    return (
        f"receipt {held.account} envelope {held.envelope_id.hex()} number {held.number} "
        f"commit {header.index} leaf {held.leaf} of {header.leaf_count} at {time}"
    )
