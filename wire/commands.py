"""The commands that a frame carries (protocol.md sections 6.3 and 6.4).

Each is a MessagePack array whose first element is its tag; a frame's plaintext is the array of them. Commands of the
two directions have types of their own, so that neither side can read its own words as the other's.
"""

from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta

from wire.codec import U16, U32, U64, Hash, Id, Key, Positive, Record, Signature, decode_with, decoder, encode
from wire.envelope import Body, Envelope
from wire.identity import Account, SignedList, Token
from wire.limits import (
    COMMANDS_PER_FRAME_MAX,
    CREDIT_MAX,
    DEVICES_PER_ACCOUNT_MAX,
    DEVICES_PER_LINK_MAX,
    ENVELOPES_PER_SUBMIT_MAX,
    HELD_BYTES_MAX,
    HELD_PIECE_BYTES_MAX,
    ONE_TIME_PREKEYS_PER_UPLOAD_MAX,
    REFUSAL_FIELD_BYTES_MAX,
    TOKENS_PER_ACK_MAX,
)
from wire.prekeys import Bundle, OneTimePrekey, Prekeys
from wire.receipt import ReceiptEntry

__all__ = [
    "Ack",
    "AddPrekeys",
    "AskRecord",
    "Delivered",
    "Delivery",
    "DeviceCommand",
    "Directory",
    "Done",
    "Enrol",
    "Linked",
    "LinkedDevice",
    "LookUp",
    "PublishList",
    "PublishPrekeys",
    "Receipts",
    "RecordPiece",
    "Refusal",
    "RelayCommand",
    "Submit",
    "Subscribe",
    "Withdraw",
    "decode_device_commands",
    "decode_relay_commands",
    "encode_commands",
]

Tokens = Annotated[tuple[Id, ...], Meta(min_length=1, max_length=TOKENS_PER_ACK_MAX)]


class Submit(Record, frozen=True, tag=1):
    """Store these envelopes for devices of one account, whole or not at all; `list_hash` is the list encrypted to."""

    ref: U32
    account: Account
    list_hash: Hash
    envelopes: Annotated[tuple[Envelope, ...], Meta(min_length=1, max_length=ENVELOPES_PER_SUBMIT_MAX)]


class Ack(Record, frozen=True, tag=2):
    """The recipient has these, durably: erase them. Each is named by its ack token."""

    ref: U32
    mailbox: Id
    tokens: Tokens


class Withdraw(Record, frozen=True, tag=3):
    """The sender takes these back: erase them if they are still there."""

    ref: U32
    mailbox: Id
    tokens: Tokens


class Subscribe(Record, frozen=True, tag=4):
    """Deliver numbers above `after`, at most `credit` of them unacknowledged at a time; credit 0 stops delivery."""

    ref: U32
    mailbox: Id
    after: U64
    credit: Annotated[int, Meta(ge=0, le=CREDIT_MAX)]


class Enrol(Record, frozen=True, tag=5):
    """Enrol the first device of an account with its activation token."""

    ref: U32
    token: Token
    signed_list: SignedList
    prekeys: Prekeys


class PublishList(Record, frozen=True, tag=6):
    """Publish the account's next device list."""

    ref: U32
    signed_list: SignedList


class PublishPrekeys(Record, frozen=True, tag=7):
    """Publish prekeys of the link's device; replaces everything."""

    ref: U32
    prekeys: Prekeys


class AddPrekeys(Record, frozen=True, tag=8):
    """Add one-time prekeys of the link's device."""

    ref: U32
    one_time: Annotated[tuple[OneTimePrekey, ...], Meta(min_length=1, max_length=ONE_TIME_PREKEYS_PER_UPLOAD_MAX)]


class LookUp(Record, frozen=True, tag=9):
    """Ask for an account's device list; with bundles, one one-time prekey of each device is taken."""

    ref: U32
    account: Account
    want_bundles: bool


class AskRecord(Record, frozen=True, tag=10):
    """Ask for what is held about the account of a mailbox of this link, as a record (wire/held.py), in pieces.

    `record` is 32 zero bytes for a record of now, or the SHA-256 of the one of which the bytes from `offset` on are
    wanted. If the relay does not keep that one any more, it answers with the beginning of a new one.
    """

    ref: U32
    mailbox: Id
    record: Hash
    offset: U32


class LinkedDevice(Record, frozen=True):
    """What the relay holds of a device that the link speaks for."""

    device_key: Key
    enrolled: bool
    prekeys_left: U16
    newest_number: U64


class Linked(Record, frozen=True, tag=0):
    """The link stands: first command of the relay's first frame. `time` is the relay's, Unix seconds."""

    time: U64
    devices: Annotated[tuple[LinkedDevice, ...], Meta(min_length=1, max_length=DEVICES_PER_LINK_MAX)]


class Receipts(Record, frozen=True, tag=1):
    """Receipts of one commit for this link's submits."""

    header: Annotated[bytes, Meta(min_length=1, max_length=256)]
    signature: Signature
    entries: Annotated[tuple[ReceiptEntry, ...], Meta(min_length=1)]


class Delivered(Record, frozen=True):
    """One envelope on its way to its mailbox's device."""

    number: Positive
    envelope_id: Id
    expiry: U64
    body: Body


class Delivery(Record, frozen=True, tag=2):
    """Envelopes of one mailbox, by number ascending."""

    mailbox: Id
    envelopes: Annotated[tuple[Delivered, ...], Meta(min_length=1)]


class Refusal(Record, frozen=True, tag=3):
    """A command was refused: code, field and limit; `attachment` is the current SignedList for `stale_list`."""

    ref: U32
    code: U16
    field: Annotated[str, Meta(max_length=REFUSAL_FIELD_BYTES_MAX)]
    limit: U64
    retry_after_ms: U32
    attachment: Annotated[bytes, Meta(max_length=8_192)]


class Directory(Record, frozen=True, tag=4):
    """Answer to a look-up."""

    ref: U32
    signed_list: SignedList
    bundles: Annotated[tuple[Bundle, ...], Meta(max_length=DEVICES_PER_ACCOUNT_MAX)]


class Done(Record, frozen=True, tag=5):
    """These commands are done, and durable."""

    refs: Annotated[tuple[U32, ...], Meta(min_length=1)]


class RecordPiece(Record, frozen=True, tag=6):
    """The bytes from `offset` on of the record with this SHA-256, which has `total` bytes."""

    ref: U32
    record: Hash
    total: Annotated[int, Meta(ge=1, le=HELD_BYTES_MAX)]
    offset: U32
    piece: Annotated[bytes, Meta(min_length=1, max_length=HELD_PIECE_BYTES_MAX)]


DeviceCommand = (
    Submit | Ack | Withdraw | Subscribe | Enrol | PublishList | PublishPrekeys | AddPrekeys | LookUp | AskRecord
)
RelayCommand = Linked | Receipts | Delivery | Refusal | Directory | Done | RecordPiece

_DeviceCommands = Annotated[tuple[DeviceCommand, ...], Meta(min_length=1, max_length=COMMANDS_PER_FRAME_MAX)]
_RelayCommands = Annotated[tuple[RelayCommand, ...], Meta(min_length=1, max_length=COMMANDS_PER_FRAME_MAX)]
_DEVICE_DECODER: Final = decoder(_DeviceCommands)
_RELAY_DECODER: Final = decoder(_RelayCommands)


def encode_commands(commands: Sequence[DeviceCommand] | Sequence[RelayCommand]) -> bytes:
    """The plaintext of a frame."""
    return encode(commands)


def decode_device_commands(data: bytes) -> tuple[DeviceCommand, ...]:
    """What a device's frame says.

    Raises:
        FormatError: naming the path in the array and the limit that was passed.
    """
    commands: tuple[DeviceCommand, ...] = decode_with(_DEVICE_DECODER, data, "frame")
    return commands


def decode_relay_commands(data: bytes) -> tuple[RelayCommand, ...]:
    """What a relay's frame says.

    Raises:
        FormatError: naming the path in the array and the limit that was passed.
    """
    commands: tuple[RelayCommand, ...] = decode_with(_RELAY_DECODER, data, "frame")
    return commands
