"""What is inside a body once it is decrypted and unpadded: the content structure (protocol.md section 7).

    Content = [token, kind, message_id, sent_ms, reply_to, audience, payload]

This module encodes, decodes and checks. What a payload means is for `client.mail`, `client.chat` and
`client.attachments`; sealing it is for `keys`. Rules:

* one encoding of a content; what does not re-encode to itself is refused;
* a content is checked in both directions by the same function, so nothing leaves that a peer would refuse;
* the ack token comes first and names the envelope: `envelope_id = hash16("envelope-id", token)`. Each envelope needs a
  token of its own, so one message to many devices is one content under many tokens (`with_token`);
* an own copy wraps the very same message for the sender's other devices, and tells them the recipients, Bcc included;
* no `repr` shows a token, an address or a payload.
"""

from enum import IntEnum, unique
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from wire.codec import U64, Id, Record, decode, encode
from wire.envelope import envelope_id_of
from wire.errors import FormatError
from wire.identity import Account, check_account
from wire.limits import ACCOUNT_BYTES_MAX, AUDIENCE_MAX, ID_BYTES, INLINE_CONTENT_BYTES_MAX, MESSAGE_BYTES_MAX

__all__ = [
    "CONTENT_BYTES_MAX",
    "NO_REPLY",
    "OWN_COPY_BYTES_MAX",
    "RECEIPT_IDS_MAX",
    "Content",
    "Kind",
    "OwnCopy",
    "check_content",
    "decode_content",
    "encode_content",
    "is_inline",
    "payload_bytes_max",
    "unwrap_own_copy",
    "with_token",
    "wrap_own_copy",
]

NO_REPLY: Final = bytes(ID_BYTES)
"""`reply_to` of a message that answers none."""

# An address takes at most two bytes of MessagePack header; kind, the array's and the payload's headers take the rest.
_ADDRESSES_BYTES_MAX: Final = AUDIENCE_MAX * (ACCOUNT_BYTES_MAX + 2)
OWN_COPY_BYTES_MAX: Final = MESSAGE_BYTES_MAX + _ADDRESSES_BYTES_MAX + 16
"""The payload of an own copy: a message of the largest size and its recipients."""
CONTENT_BYTES_MAX: Final = OWN_COPY_BYTES_MAX + _ADDRESSES_BYTES_MAX + 80
"""An encoded content, which is what a decoder looks at at all."""

# As `wire.codec.U64`: what a decoder takes.
_SENT_MS_MAX: Final = 2**63 - 1

RECEIPT_IDS_MAX: Final = 1_024
"""Message ids in one delivered or read notice: 16 KiB, well inside one envelope."""


@unique
class Kind(IntEnum):
    """What a payload is (protocol.md section 7)."""

    EMAIL = 1
    CHAT = 2
    PING = 3
    DELIVERED = 4
    READ = 5
    MANIFEST = 6
    RENEWAL = 7
    OWN_COPY = 8


_EMPTY_KINDS: Final = frozenset({Kind.PING, Kind.RENEWAL})
_NOTICE_KINDS: Final = frozenset({Kind.DELIVERED, Kind.READ})

Addresses = Annotated[tuple[Account, ...], Meta(max_length=AUDIENCE_MAX)]


class Content(Record, frozen=True):
    """One message as one device reads it.

    Attributes:
        token: the ack token t, 16 random bytes; whoever knows it can have the envelope erased.
        kind: what the payload is.
        message_id: 16 bytes that the sender chose; the same in every copy of the message.
        sent_ms: when the sender wrote it, Unix milliseconds, by the sender's word only.
        reply_to: the message id that it answers, or `NO_REPLY`.
        audience: the accounts that the message was addressed to and that may be shown (never Bcc).
        payload: the bytes, by kind.
    """

    token: Id
    kind: Kind
    message_id: Id
    sent_ms: U64
    reply_to: Id
    audience: Addresses
    payload: bytes

    @property
    def envelope_id(self) -> bytes:
        """The id of the envelope that carries this content (protocol.md section 5.1)."""
        return envelope_id_of(self.token)

    def __repr__(self) -> str:
        """Kind and size only: token, addresses and payload are nobody's business in a log or a traceback."""
        return f"Content(kind={self.kind.name}, payload=<{len(self.payload)} bytes>)"


class OwnCopy(Record, frozen=True):
    """The payload of an own copy: `[kind, recipients, payload]`."""

    kind: Kind
    recipients: Addresses
    payload: bytes

    def __repr__(self) -> str:
        """Kind and size only."""
        return f"OwnCopy(kind={self.kind.name}, payload=<{len(self.payload)} bytes>)"


def payload_bytes_max(kind: Kind) -> int:
    """The limit of a payload of that kind, in bytes."""
    return OWN_COPY_BYTES_MAX if kind is Kind.OWN_COPY else MESSAGE_BYTES_MAX


def encode_content(content: Content) -> bytes:
    """The canonical bytes of a content.

    Raises:
        FormatError: the content breaks a rule of section 7; the field and limit are named.
    """
    check_content(content)
    return encode(content)


def decode_content(data: bytes) -> Content:
    """The content that these bytes encode.

    Args:
        data: what was left after decryption and unpadding.

    Raises:
        FormatError: not the canonical encoding of a content, or it breaks a rule of section 7.
    """
    if len(data) > CONTENT_BYTES_MAX:
        raise FormatError("content", f"has {len(data)} bytes", CONTENT_BYTES_MAX)
    content = decode(Content, data, "content")
    check_content(content)
    return content


def check_content(content: Content) -> None:
    """Check the rules that types do not say.

    Raises:
        FormatError: the field and, where there is one, the limit.
    """
    _check_id("token", content.token)
    _check_id("message_id", content.message_id)
    _check_id("reply_to", content.reply_to)
    if not 0 <= content.sent_ms <= _SENT_MS_MAX:
        raise FormatError("sent_ms", f"is {content.sent_ms}", _SENT_MS_MAX)
    _check_addresses("audience", content.audience)
    _check_payload(content.kind, content.payload)


def is_inline(kind: Kind, encoded_bytes: int) -> bool:
    """Whether an encoded content of that length goes into one envelope (else in chunks, section 8).

    A manifest always does: with 256 of the longest addresses it is a little longer than others may be, and its body is
    still far below the largest.
    """
    return kind is Kind.MANIFEST or encoded_bytes <= INLINE_CONTENT_BYTES_MAX


def with_token(content: Content, token: bytes) -> Content:
    """The same message for another envelope."""
    return msgspec.structs.replace(content, token=token)


def wrap_own_copy(content: Content, recipients: tuple[str, ...], token: bytes) -> Content:
    """The copy of a message that the sender's other devices get.

    Args:
        content: the message as its recipients get it.
        recipients: everybody it was sent to, Bcc included, at most 256.
        token: the ack token of the copy's own envelope, 16 bytes.

    Raises:
        FormatError: an own copy of an own copy, or a limit of section 7.
    """
    inner = OwnCopy(content.kind, recipients, content.payload)
    _check_own_copy(inner)
    return msgspec.structs.replace(content, token=token, kind=Kind.OWN_COPY, payload=encode(inner))


def unwrap_own_copy(content: Content) -> tuple[Content, tuple[str, ...]]:
    """The message inside an own copy, and everybody it was sent to.

    Raises:
        FormatError: it is none, or breaks a rule of section 7.
    """
    if content.kind is not Kind.OWN_COPY:
        raise FormatError("kind", f"is {content.kind.name.lower()}, not own_copy")
    inner = decode(OwnCopy, content.payload, "own_copy")
    _check_own_copy(inner)
    return msgspec.structs.replace(content, kind=inner.kind, payload=inner.payload), inner.recipients


def _check_own_copy(inner: OwnCopy) -> None:
    if inner.kind is Kind.OWN_COPY:
        raise FormatError("own_copy.kind", "is an own copy of an own copy")
    _check_addresses("own_copy.recipients", inner.recipients)
    _check_payload(inner.kind, inner.payload)


def _check_id(field: str, value: bytes) -> None:
    if len(value) != ID_BYTES:
        raise FormatError(field, f"has {len(value)} bytes, not {ID_BYTES}", ID_BYTES)


def _check_addresses(field: str, addresses: tuple[str, ...]) -> None:
    if len(addresses) > AUDIENCE_MAX:
        raise FormatError(field, f"names {len(addresses)} accounts", AUDIENCE_MAX)
    for address in addresses:
        check_account(address)


def _check_payload(kind: Kind, payload: bytes) -> None:
    limit = payload_bytes_max(kind)
    if len(payload) > limit:
        raise FormatError("payload", f"of kind {kind.name.lower()} has {len(payload)} bytes", limit)
    if kind in _EMPTY_KINDS and payload:
        raise FormatError("payload", f"of kind {kind.name.lower()} has {len(payload)} bytes and must be empty")
    if kind is Kind.CHAT:
        _check_utf8(payload)
    if kind in _NOTICE_KINDS:
        _check_notice(kind, payload)


def _check_utf8(payload: bytes) -> None:
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError as error:
        # `from None`: the exception of the decoder carries the text, which has no place in a traceback.
        raise FormatError("payload", f"of kind chat is not UTF-8 at byte {error.start}") from None


def _check_notice(kind: Kind, payload: bytes) -> None:
    if not payload or len(payload) % ID_BYTES:
        raise FormatError("payload", f"of kind {kind.name.lower()} is not whole message ids of {ID_BYTES} bytes")
    if len(payload) > RECEIPT_IDS_MAX * ID_BYTES:
        raise FormatError(
            "payload", f"of kind {kind.name.lower()} names {len(payload) // ID_BYTES} messages", RECEIPT_IDS_MAX
        )
