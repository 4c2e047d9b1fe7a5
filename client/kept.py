"""Messages that this home keeps: their rows, which of them are not taken yet, and what a program reads of them.

A message is kept once, by sender account and message id, whatever envelopes carry it, until the person erases it. Taken
means safe with the program, read means that the person has read it. Large payloads stand in rows of their own
(client/downloads.py) and are put together when the message is read from here.

Functions that take a step change rows within it and nothing else. Putting messages in is client/inbox.py's, and
client/sending.py's for what one sends to oneself.
"""

from collections.abc import Collection, Iterable
from typing import Final

from msgspec.structs import replace

from client.attachments import CHUNKS_MAX
from client.content import Content
from client.content import Kind as ContentKind
from client.downloads import payload_of
from client.message import Message
from client.records import KeptRow
from client.state import State
from client.store import Kind, Step, Store
from wire.codec import decode, encode
from wire.limits import ID_BYTES

__all__ = [
    "SHOWN_KINDS",
    "Untaken",
    "all_messages",
    "erase",
    "is_kept",
    "kept_name",
    "mark_read",
    "mark_taken",
    "message_ids",
    "message_of",
    "names_untaken",
    "put_kept",
    "read_untaken",
]

SHOWN_KINDS: Final = frozenset({ContentKind.EMAIL, ContentKind.CHAT, ContentKind.PING})

Untaken = dict[bytes, tuple[int, ContentKind]]
"""Names of kept messages that were not taken yet, each with its place in the order of arrival and its kind."""


def kept_name(account: str, message_id: bytes) -> bytes:
    """The name of a kept message's row: who sent it, and its id."""
    return account.encode("ascii") + b"\0" + message_id


# Keeping


def put_kept(
    step: Step,
    state: State,
    account: str,
    device_key: bytes,
    content: Content,
    *,
    recipients: tuple[str, ...] = (),
    own_copy: bool = False,
    pieces: int = 0,
    size: int | None = None,
) -> KeptRow:
    """Keep a message within a step; returns its row, neither taken nor read.

    Args:
        step: the step.
        state: the device's state.
        account: who sent it.
        device_key: with which device.
        content: the message; its payload is empty where it stands in pieces.
        recipients: of an own copy, everybody that it was sent to.
        own_copy: whether it is one.
        pieces: rows of a large payload.
        size: bytes of a large payload.
    """
    row = KeptRow(
        account,
        device_key,
        content.kind,
        content.message_id,
        content.sent_ms,
        content.reply_to,
        content.audience,
        recipients,
        own_copy,
        content.payload,
        pieces,
        len(content.payload) if size is None else size,
        state.now_ms,
        state.next_order(),
        taken=False,
        read=False,
    )
    step.put(Kind.KEPT, kept_name(account, content.message_id), encode(row))
    return row


def is_kept(store: Store, name: bytes) -> bool:
    """Whether a message of that name is kept already."""
    return store.get(Kind.KEPT, name) is not None


def read_untaken(store: Store) -> Untaken:
    """What was not taken yet."""
    untaken: Untaken = {}
    for name, value in store.items(Kind.KEPT):
        row = decode(KeptRow, value, "kept")
        if not row.taken:
            untaken[name] = (row.order, ContentKind(row.kind))
    return untaken


def names_untaken(untaken: Untaken, kinds: Collection[ContentKind]) -> list[bytes]:
    """The names of what was not taken yet and is of these kinds, in the order of arrival."""
    return sorted((name for name, (_order, kind) in untaken.items() if kind in kinds), key=untaken.__getitem__)


# Reading


def message_of(state: State, name: bytes) -> Message | None:
    """The kept message of that name, or None if it was erased."""
    value = state.store.get(Kind.KEPT, name)
    if value is None:
        return None
    row = decode(KeptRow, value, "kept")
    return Message(
        row.account,
        row.device_key,
        ContentKind(row.kind),
        row.message_id,
        row.sent_ms,
        row.reply_to,
        row.audience,
        row.recipients,
        row.own_copy,
        payload_of(state, name, row),
        row.received_ms,
        row.read,
    )


def all_messages(state: State) -> list[Message]:
    """Every message that is kept, in the order of arrival. Large payloads are read as well."""
    rows = [(decode(KeptRow, value, "kept").order, name) for name, value in state.store.items(Kind.KEPT)]
    messages = (message_of(state, name) for _order, name in sorted(rows))
    return [message for message in messages if message is not None]


def message_ids(store: Store, digits: str) -> list[bytes]:
    """Ids of messages that were kept or sent here and begin with these hexadecimal digits."""
    kept = {name[-ID_BYTES:] for name, _value in store.items(Kind.KEPT)}
    sent = {name for name, _value in store.items(Kind.SENT)}
    return sorted(message_id for message_id in kept | sent if message_id.hex().startswith(digits))


# Changing


def mark_taken(step: Step, store: Store, messages: Iterable[Message]) -> None:
    """These are safe with the program, within a step."""
    for message in messages:
        name = kept_name(message.account, message.message_id)
        value = store.get(Kind.KEPT, name)
        if value is not None:
            step.put(Kind.KEPT, name, encode(replace(decode(KeptRow, value, "kept"), taken=True)))


def mark_read(step: Step, state: State, messages: Iterable[Message]) -> dict[str, list[bytes]]:
    """The person has read these, within a step; returns whom to tell of which messages: other accounts, once each."""
    by_account: dict[str, list[bytes]] = {}
    for message in messages:
        name = kept_name(message.account, message.message_id)
        value = state.store.get(Kind.KEPT, name)
        row = decode(KeptRow, value, "kept") if value is not None else None
        if row is None or row.read or row.own_copy or row.account == state.account:
            continue
        step.put(Kind.KEPT, name, encode(replace(row, read=True)))
        by_account.setdefault(row.account, []).append(row.message_id)
    return by_account


def erase(step: Step, store: Store, messages: Iterable[Message]) -> None:
    """Erase kept messages, within a step."""
    for message in messages:
        name = kept_name(message.account, message.message_id)
        value = store.get(Kind.KEPT, name)
        if value is None:
            continue
        for index in range(min(decode(KeptRow, value, "kept").pieces, CHUNKS_MAX)):
            step.delete(Kind.PIECE, name + index.to_bytes(4, "big"))
        step.delete(Kind.KEPT, name)
