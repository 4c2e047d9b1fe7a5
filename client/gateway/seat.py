"""A device's place on a gateway's link: what it asked, what it is to hear, and what it may ask at all.

The relay checks entitlement for a whole link, so between the devices of one link the gateway has to: a device may
acknowledge, subscribe and ask what is held for its own mailbox only, publish its own prekeys only, and ask nothing but
its enrolment before the relay knows it. Mailboxes are what devices claim; two that claim the same one are never put on
one link (client/gateway/service.py), so that the relay decides, as it would for links of their own.

A command is decoded before it comes here: one that is malformed would make the relay refuse a whole frame, and with it
what others said.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from client.errors import Refused
from client.gateway.messages import Heard
from wire.commands import Ack, AddPrekeys, AskRecord, DeviceCommand, Enrol, PublishPrekeys, Subscribe
from wire.errors import RefusalCode

__all__ = ["Asked", "Seat", "check_entitled", "is_admitted", "offers_prekeys"]

# An honest device has two of them under way at most, an upload and an addition.
_DROPPED_MAX: Final = 64


@dataclass(slots=True, eq=False, repr=False)
class Asked:
    """A command of a device on its way.

    `sent` is whether it counts in the window of what waits for the relay; `queued` whether it waits for its turn;
    `gone` whether nobody waits for it.
    """

    seat: "Seat"
    kind: type
    ref: int
    ref_of_device: int
    encoded: bytes
    unreceipted: set[int] | None
    wait_s: float
    due_s: float = float("-inf")
    sent: bool = False
    queued: bool = True
    gone: bool = False

    def __repr__(self) -> str:
        return f"Asked({self.kind.__name__}, {len(self.encoded)} bytes)"


@dataclass(slots=True, eq=False, repr=False)
class Seat:
    """One device of a link.

    `known` is whether the relay has told of it, and `enrolled` what; `on_link` is whether the standing link speaks for
    it; `unsigned` whether it was offered a handshake and has not signed since; `silent` whether it was left out of one
    for that; `dropped` are refs of its commands that the gateway has given up and must not take again.

    Args:
        device_key: 32 bytes.
        mailbox: the mailbox that it claims.
    """

    device_key: bytes
    mailbox: bytes
    known: bool = False
    enrolled: bool = False
    on_link: bool = False
    unsigned: bool = False
    silent: bool = False
    asked: dict[int, Asked] = field(default_factory=dict)
    asked_bytes: int = 0
    waiting: deque[Asked] = field(default_factory=deque)
    turning: bool = False
    allowance: int = 0
    sent_bytes: int = 0
    sent_commands: int = 0
    heard: deque[Heard] = field(default_factory=deque)
    heard_bytes: int = 0
    unheard: int = 0
    dropped: dict[int, None] = field(default_factory=dict)

    def drop(self, ref: int) -> None:
        """Remember that a command is not to be taken again: the device repeats it until it hears of the new link."""
        self.dropped[ref] = None
        while len(self.dropped) > _DROPPED_MAX:
            del self.dropped[next(iter(self.dropped))]

    def has_dropped(self, ref: int) -> bool:
        """Whether a command of that ref was dropped, and the device has not settled it yet."""
        return ref in self.dropped

    def __repr__(self) -> str:
        return f"Seat(device_key={self.device_key.hex()[:16]}, asked={len(self.asked)}, heard={len(self.heard)})"


def check_entitled(seat: Seat, command: DeviceCommand) -> None:
    """Whether a device may ask this on a link that it shares, as far as it can be told now.

    Raises:
        Refused: not_entitled, in the words that the relay would use.
    """
    what = type(command).__name__.lower()
    if isinstance(command, Enrol | PublishPrekeys) and command.prekeys.device_key != seat.device_key:
        raise Refused(what, RefusalCode.NOT_ENTITLED, "device_key")
    if isinstance(command, Ack | Subscribe | AskRecord) and command.mailbox != seat.mailbox:
        raise Refused(what, RefusalCode.NOT_ENTITLED, "mailbox")
    if seat.known and not is_admitted(seat, type(command)):
        raise Refused(what, RefusalCode.NOT_ENTITLED, "link")


def is_admitted(seat: Seat, kind: type) -> bool:
    """Whether the device may ask commands of this kind: before it is enrolled only those that may make it so.

    Of these two the relay says by itself whether it knows the device; all others it would take from any device of the
    link as soon as one of them is enrolled.
    """
    return seat.enrolled or kind in {Enrol, PublishPrekeys}


def offers_prekeys(asked: Asked) -> bool:
    """Whether a command offers one-time prekeys of a device that is enrolled.

    An enrolment offers some too, but the relay takes it once: it keeps the account's list, whatever else it forgets.
    """
    return asked.kind in {PublishPrekeys, AddPrekeys}
