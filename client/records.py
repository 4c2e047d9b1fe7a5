"""What the sealed rows of a device hold, as frozen records in the protocol's own encoding.

Each record is the value of one kind of row (client/store.py); the name under which it stands is given in its docstring.
None of them travels. Records that hold secrets show only what their `__repr__` lists.
"""

from typing import Annotated

from msgspec import Meta

from wire.codec import U32, U64, Hash, Id, Key, Record
from wire.envelope import Envelope
from wire.identity import Account, SignedList, Token

__all__ = [
    "AckPending",
    "AccountRow",
    "BodyPin",
    "CanaryRow",
    "DeviceRow",
    "HeaderRow",
    "HeldReceipt",
    "KeptRow",
    "MetaRow",
    "NoticeRow",
    "Outgoing",
    "Partial",
    "Pin",
    "Prepared",
    "Seen",
    "Sent",
    "Target",
    "Unresolved",
    "Upload",
]


class DeviceRow(Record, frozen=True):
    """`DEVICE`, named empty: this device's own keys, its mailbox and how far its enrolment has come.

    `account` is empty before the approval of a second device; `token` is there until the enrolment is done.
    """

    card: str
    keys: bytes
    account: str
    mailbox: Id
    token: tuple[Token, ...]
    enrolled: bool
    prekeys_stale: bool

    def __repr__(self) -> str:
        return f"DeviceRow(account={self.account!r}, enrolled={self.enrolled}, keys=<redacted>)"


class AccountRow(Record, frozen=True):
    """`ACCOUNT`, named empty, on the first device only: the account key."""

    key: bytes

    def __repr__(self) -> str:
        return "AccountRow(key=<redacted>)"


class MetaRow(Record, frozen=True):
    """`META`, named empty: the relay's verified rotations, and the number up to which all mail is accounted for."""

    rotations: tuple[bytes, ...]
    cursor: U64


class Pin(Record, frozen=True):
    """`PIN`, named by the account: the account key as first seen, and the newest device list of it."""

    account_key: Key
    signed_list: SignedList
    pinned_s: U64
    compared: bool


class Target(Record, frozen=True):
    """One account of an outgoing message, and which of its mailboxes have the relay's receipt."""

    account: Account
    done: tuple[Id, ...]


class Outgoing(Record, frozen=True):
    """`OUTGOING`, named by 16 random bytes: a message that the relay has not receipted for every device yet.

    A large message has an empty payload here and its chunks in `PAYLOAD` rows, named by outgoing name and number.
    """

    kind: U32
    message_id: Id
    sent_ms: U64
    reply_to: Id
    audience: tuple[Account, ...]
    payload: bytes
    large: bool
    size: U64
    digest: bytes
    expiry: U64
    targets: tuple[Target, ...]
    order: U64

    def __repr__(self) -> str:
        return f"Outgoing(message_id={self.message_id.hex()}, targets={len(self.targets)}, payload=<redacted>)"


class Prepared(Record, frozen=True):
    """`PREPARED`, named by outgoing name and mailbox: an envelope that is encrypted and waits for its receipt."""

    account: Account
    device_key: Key
    token: Id
    envelope: Envelope

    def __repr__(self) -> str:
        return f"Prepared(envelope_id={self.envelope.envelope_id.hex()}, token=<redacted>)"


class Upload(Record, frozen=True):
    """`UPLOAD`, named by outgoing name and mailbox: chunks of a large message for one device, and which are receipted.

    Nonces come from `nonce_seed`, so that a chunk that is sent again after a crash has the same bytes.
    """

    account: Account
    device_key: Key
    file_key: Key
    nonce_seed: Key
    receipted: tuple[U32, ...]

    def __repr__(self) -> str:
        return f"Upload(account={self.account!r}, keys=<redacted>)"


class Seen(Record, frozen=True):
    """`SEEN`, named by the envelope id: its ack token, and when it may be forgotten."""

    token: Id
    forget_s: U64

    def __repr__(self) -> str:
        return "Seen(token=<redacted>)"


class AckPending(Record, frozen=True):
    """`ACK`, named by the envelope id: an ack that the relay has not answered yet."""

    token: Id

    def __repr__(self) -> str:
        return "AckPending(token=<redacted>)"


class KeptRow(Record, frozen=True):
    """`KEPT`, named by sender account and message id: what arrived. A large payload stands in `PIECE` rows."""

    account: Account
    device_key: Key
    kind: U32
    message_id: Id
    sent_ms: U64
    reply_to: Id
    audience: tuple[Account, ...]
    recipients: tuple[Account, ...]
    own_copy: bool
    payload: bytes
    pieces: U32
    size: U64
    received_ms: U64
    order: U64
    taken: bool
    read: bool

    def __repr__(self) -> str:
        return f"KeptRow(message_id={self.message_id.hex()}, kind={self.kind}, payload=<redacted>)"


class Unresolved(Record, frozen=True):
    """`UNRESOLVED`, named by the envelope id: mail that no session opens (yet); the body is kept within a bound.

    Of a first message that waits for the relay's directory, `contact` is the sender's account and `contact_key` the
    account key that came with it; of other mail both are empty.
    """

    number: U64
    expiry: U64
    slot: Id
    body: bytes
    contact: str
    contact_key: bytes


class Partial(Record, frozen=True):
    """`PARTIAL`, named by sender account and message id: a manifest whose chunks have not all arrived."""

    account: Account
    device_key: Key
    kind: U32
    message_id: Id
    sent_ms: U64
    reply_to: Id
    audience: tuple[Account, ...]
    manifest: bytes
    have: tuple[U32, ...]
    expiry: U64

    def __repr__(self) -> str:
        return f"Partial(message_id={self.message_id.hex()}, manifest=<redacted>)"


class HeldReceipt(Record, frozen=True):
    """`RECEIPT`, named by mailbox and envelope id: the relay's receipt, verified, and the ack token of the envelope."""

    account: Account
    message_id: Id
    header: bytes
    signature: bytes
    mailbox: Id
    envelope_id: Id
    expiry: U64
    number: U64
    leaf: U32
    path: bytes
    body_hash: Hash
    token: Id
    withdrawn: bool

    def __repr__(self) -> str:
        return f"HeldReceipt(envelope_id={self.envelope_id.hex()}, number={self.number}, token=<redacted>)"


class HeaderRow(Record, frozen=True):
    """`HEADER`, named by the commit index as u64: a commit header that a receipt held; two of one index are a fork."""

    header: bytes
    signature: bytes


class NoticeRow(Record, frozen=True):
    """`NOTICE`, named by a number: something that the person must be told, also after a restart."""

    kind: str
    text: str
    message_id: bytes
    accounts: tuple[str, ...]
    time_s: U64


class Sent(Record, frozen=True):
    """`SENT`, named by the message id: what became of a message that was sent. `pending` names its outgoing rows."""

    kind: U32
    recipients: tuple[Account, ...]
    sent_ms: U64
    pending: tuple[Id, ...]
    failed: bool
    delivered_to: tuple[Account, ...]
    read_by: tuple[Account, ...]


class CanaryRow(Record, frozen=True):
    """`CANARY`, named by the commitment: nonce and text that open it."""

    nonce: Annotated[bytes, Meta(min_length=32, max_length=32)]
    text: bytes

    def __repr__(self) -> str:
        return "CanaryRow(<redacted>)"


class BodyPin(Record, frozen=True):
    """`BODY_PIN`, named by the envelope id: the body whose key was volunteered; another one is refused later."""

    body_hash: Hash
    expiry: U64
