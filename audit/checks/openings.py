"""Volunteered message keys open the very rows that hold the canaries (protocol.md sections 4.3, 7 and 12.2, item 3)."""

from __future__ import annotations

from typing import Any, Final

from audit import decoder
from audit.case import Case
from audit.crypto import CHUNK_OFFSET, ORDINARY_OFFSET, body_kinds, envelope_id_of, open_content
from audit.errors import AuditError, OpenError
from audit.material import MessageKeyItem
from audit.outcome import About, Outcome

ABOUT = About(
    "evidence.openings",
    "volunteered message keys open the rows that they name, and the canaries are in them",
    "The content was there, in these very bytes: the demonstration is not a store of random numbers.",
    "That other rows hold what their senders say; the relay never had these keys if search.keys and "
    "search.secrets found none.",
    "4.3, 12.2",
)
CONTENT_BYTES_MAX: Final = 200_000
CANARY_PART_BYTES: Final = 4096


def check(case: Case, outcome: Outcome) -> None:
    """Open each row that a key was given for, and look for canaries in what it holds."""
    items = case.material.message_keys
    if not items:
        outcome.nothing_to_do("no message key was volunteered")
        return
    if case.store is None:
        outcome.miss("a store that can be read")
        return
    opened = 0
    contents: list[bytes] = []
    for item in items:
        row = case.live.get((item.mailbox, item.envelope_id))
        where = f"envelope {item.envelope_id.hex()[:8]}… of {item.who}"
        if row is None:
            if case.tombstone_of(item.mailbox, item.envelope_id):
                outcome.note(f"{where}: erased, a tombstone says so")
            else:
                outcome.miss(f"{where}: a message key was given, and no such row is in the store")
            continue
        try:
            contents.append(_open(case.store.body(row), item))
            opened += 1
        except AuditError as error:
            outcome.miss(f"{where}: does not open ({error})")
    whole = b"\0".join(contents)
    canaries = case.canaries
    found = sum(_holds(whole, canary.text) for canary in canaries)
    if canaries and opened and not found:
        outcome.miss("a canary in any of the rows that were opened")
    elif found < len(canaries):
        outcome.note(
            f"{len(canaries) - found} canaries are in none of the rows that were opened: not sent, erased, or in "
            "other rows"
        )
    outcome.figures.update(
        {"keys": len(items), "rows opened": opened, "canaries": len(canaries), "canaries in opened rows": found}
    )
    outcome.evidence = f"{opened} of {len(items)} rows opened; {found} of {len(canaries)} canaries are in them"


def _holds(whole: bytes, text: bytes) -> bool:
    """Whether a text is in the contents; of a long one its first part is enough, since chunks cut it."""
    return bool(text) and text[:CANARY_PART_BYTES] in whole


def _open(body: bytes, item: MessageKeyItem) -> bytes:
    """Open a body; return its payload, or its bytes if it is a chunk.

    Raises:
        AuditError: Offset, key, ciphertext, padding, content or token is not as it must be.
    """
    if item.offset not in _offsets(body):
        raise OpenError("offset", f"content does not begin at {item.offset} in a body of {len(body)} bytes")
    content = open_content(
        item.message_key, body, item.offset, item.envelope_id, item.sender_device, item.recipient_device
    )
    if item.offset == CHUNK_OFFSET:
        return content
    fields: list[Any] = decoder.array(decoder.decode(content, "content", CONTENT_BYTES_MAX), "content", 7)
    token = decoder.binary(fields[0], "content, t", 16)
    if envelope_id_of(token) != item.envelope_id:
        raise OpenError("t", "does not lead to the envelope id")
    return decoder.binary(fields[6], "content, payload")


def _offsets(body: bytes) -> set[int]:
    """Where content may begin in a body of this length (section 4.3)."""
    offsets = set()
    kinds = body_kinds(len(body))
    if "ordinary" in kinds:
        offsets.add(ORDINARY_OFFSET)
    if "chunk" in kinds:
        offsets.add(CHUNK_OFFSET)
    if "first" in kinds:
        sealed_at = ORDINARY_OFFSET + 32 + 1088
        offsets.add(sealed_at + 2 + int.from_bytes(body[sealed_at : sealed_at + 2], "big"))
    return offsets
