"""What became of one receipted envelope, by one disclosure (protocol.md sections 5.2, 5.3 and 9).

The one place where it is decided whether a relay broke its word: the audit's check of receipts, the gathering of
evidence and the proof before a third party all ask here. An honest relay must never be convicted, whatever a client
volunteers, so that:

* a receipt past its expiry binds to nothing; a relay erases by its own clock, so the expiry counts 300 s late;
* the same envelope id may come again after its expiry: an old receipt says nothing of the new envelope;
* a tombstone with t explains an absence, whoever holds the receipt, and whether or not he says so;
* a receipt of a commit after the disclosure says nothing of it, and a commit after it is never dated before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from audit import decoder
from audit.crypto import envelope_id_of, leaf_of, tombstone_key_of
from audit.errors import AuditError, EvidenceError
from audit.evidence.bundle import Kind
from audit.manifest import Header, KeyRing, Manifest, read_header
from audit.material import ReceiptItem
from audit.merkle import verify_inclusion
from audit.rows import EnvelopeRow, LiveEnvelopes, RowsByKey, StoredRow
from audit.schema import REASON_ACKED, REASON_CLOSED, REASON_WITHDRAWN
from audit.store import Store

MARGIN_S: Final = 300
"""How far two moments of one relay may be apart before an order of them is held against it."""


@dataclass(frozen=True, slots=True)
class View:
    """What a judge looks up in a disclosed store."""

    headers: Mapping[int, Header]
    live: Mapping[tuple[bytes, bytes], EnvelopeRow]
    tombstones: Mapping[bytes, StoredRow]
    mailboxes: Sequence[StoredRow]
    lists: Sequence[StoredRow]

    @classmethod
    def of(cls, store: Store) -> View:
        """The view of a store that was read by itself."""
        headers = {}
        for row in store.tables["commits"]:
            try:
                headers[row.seq] = read_header(row.blob("header"), f"commit {row.seq}")
            except AuditError:
                # What does not decode is no header; the receipt's commit is then missing, as the judge will say.
                continue
        return cls(
            headers,
            LiveEnvelopes(store.envelopes),
            RowsByKey(store.tables["tombstones"], "key"),
            store.tables["mailboxes"],
            store.tables["lists"],
        )

    def tombstone_of(self, mailbox: bytes, envelope_id: bytes) -> StoredRow | None:
        """The tombstone of an envelope, if there is one."""
        return self.tombstones.get(tombstone_key_of(mailbox, envelope_id))

    def is_closed(self, mailbox: bytes) -> bool:
        """Whether the mailbox is marked closed, and its account's newest signed list does not name it (section 2.2)."""
        rows = [row for row in self.mailboxes if row.blob("mailbox") == mailbox]
        if not rows or rows[-1].integer("closed") != 1:
            return False
        newest = [row for row in self.lists if row.text("account") == rows[-1].text("account")][-1:]
        return bool(newest) and not _names(newest[0], mailbox)


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a receipt was honoured, in a word; or of what it convicts, and why."""

    how: str
    kind: Kind | None = None
    text: str = ""


def time_of(time_s: int) -> str:
    """A moment as it is printed."""
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"second {time_s}"


def verify_receipt(
    item: ReceiptItem, ring: KeyRing, relay_id: bytes | None = None, partition: int | None = None
) -> Header:
    """Check that the relay did sign this receipt, for this very envelope.

    Args:
        item: The receipt.
        ring: The relay's keys.
        relay_id: The relay and, with `partition`, the chain that is spoken of; None: not known.

    Raises:
        AuditError: It did not, or the receipt is of another relay or partition, or contradicts itself.
    """
    header = read_header(item.header, "receipt header")
    if (relay_id, partition) != (None, None) and (header.relay_id, header.partition) != (relay_id, partition):
        # A relay signs each partition's chain with one key: beside this one, another's would look forked.
        raise EvidenceError("receipt header", "is another relay's or partition's")
    ring.verify_header(header, item.signature)
    leaf = leaf_of(item.mailbox, item.envelope_id, item.expiry, item.number, item.body_hash)
    path = [item.path[i : i + 32] for i in range(0, len(item.path), 32)]
    verify_inclusion(leaf, item.leaf, header.leaf_count, path, header.root)
    return header


def judge(item: ReceiptItem, header: Header, manifest: Manifest, view: View) -> Judgement:
    """Judge a receipt that `verify_receipt` accepted against a disclosure.

    Args:
        item: The receipt.
        header: Its commit.
        manifest: The disclosure's manifest, its signature checked.
        view: The disclosure's store, its hash checked.
    """
    if header.index > manifest.head_index:
        if header.time_ms < 1_000 * manifest.taken_at:
            return Judgement(
                "broken",
                Kind.TRUNCATED,
                f"is of commit {header.index}, which the disclosure does not have: it ends at {manifest.head_index}",
            )
        return Judgement("later than the disclosure")
    contradiction = _of_the_chain(header, manifest, view)
    if contradiction is not None:
        return contradiction
    row = view.live.get((item.mailbox, item.envelope_id))
    if row is not None and _is_the_receipted(row, item, header):
        return Judgement("in the store")
    stone = view.tombstone_of(item.mailbox, item.envelope_id)
    if item.expiry <= manifest.taken_at + MARGIN_S:
        # Whatever lies under this id now came after it.
        proven = stone is not None and is_proven(stone) and stone.integer("expiry") == item.expiry
        return Judgement("acknowledged or withdrawn" if proven else "expired")
    if row is not None:
        return _swapped(row, item)
    if stone is not None:
        return _of_the_tombstone(item, stone, view)
    if item.token and envelope_id_of(item.token) == item.envelope_id:
        return Judgement(
            "acknowledged or withdrawn",
            text="acknowledged or withdrawn as its holder says, and the tombstone that should be there is not",
        )
    return Judgement(
        "broken",
        Kind.HIDDEN,
        "the relay signed for this envelope, and disclosed neither it, nor an ack, nor a withdrawal, before its expiry "
        f"at {time_of(item.expiry)}",
    )


def _of_the_chain(header: Header, manifest: Manifest, view: View) -> Judgement | None:
    """The commit of the receipt is the commit of the store, or was pruned."""
    stored = view.headers.get(header.index)
    if stored is not None:
        if stored.raw == header.raw:
            return None
        return Judgement(
            "broken", Kind.FORKED, f"the relay signed two different commits {header.index}: its chain is forked"
        )
    if header.index == manifest.head_index and header.commit_hash != manifest.head_hash:
        return Judgement(
            "broken", Kind.HEAD_FORKED, f"is of another commit {header.index} than the one that the manifest ends with"
        )
    if view.headers and header.index > min(view.headers):
        return Judgement(
            "broken", Kind.COMMIT_LEFT_OUT, f"commit {header.index} is missing from the middle of the chain"
        )
    return None


def _is_the_receipted(row: EnvelopeRow, item: ReceiptItem, header: Header) -> bool:
    return (row.body_sha256, row.number, row.expiry, row.commit_index, row.leaf) == (
        item.body_hash,
        item.number,
        item.expiry,
        header.index,
        item.leaf,
    )


def _swapped(row: EnvelopeRow, item: ReceiptItem) -> Judgement:
    if row.body_sha256 != item.body_hash:
        what = "has another body than the one that the relay receipted"
    else:
        what = "has another number, expiry or place than the receipt"
    return Judgement("broken", Kind.SWAPPED, f"envelopes row {row.seq} {what}")


def is_proven(stone: StoredRow) -> bool:
    """Whether a tombstone's t leads to its key: only recipient and sender could reveal it (section 5.3)."""
    token = stone.blob("token")
    return (
        stone.integer("reason") in {REASON_ACKED, REASON_WITHDRAWN}
        and len(token) == 16
        and tombstone_key_of(stone.blob("mailbox"), envelope_id_of(token)) == stone.blob("key")
    )


def _of_the_tombstone(item: ReceiptItem, stone: StoredRow, view: View) -> Judgement:
    reason = stone.integer("reason")
    if is_proven(stone) and stone.blob("mailbox") == item.mailbox:
        return Judgement("acknowledged or withdrawn")
    if reason == REASON_CLOSED:
        if view.is_closed(item.mailbox):
            return Judgement("closed with its mailbox")
        return Judgement(
            "broken",
            Kind.INVENTED_CLOSURE,
            "a tombstone says reason 4, that its mailbox was closed, and nothing in the disclosure bears that out",
        )
    return Judgement(
        "broken",
        Kind.INVENTED_ACK,
        f"a tombstone says reason {reason}, and nothing in the disclosure bears that out: its t is not the envelope's",
    )


def _names(row: StoredRow, mailbox: bytes) -> bool:
    """Whether a list that its account signed names the mailbox; one that nobody signed names all that it likes."""
    from audit.checks.directory import verify_list  # noqa: PLC0415  # the checks import this module

    where = f"lists row {row.seq}"
    try:
        signed = decoder.array(decoder.decode(row.blob("signed_list"), where, 4096), where, 2)
        device_list = verify_list(decoder.binary(signed[0], where), decoder.binary(signed[1], where, 64), where)
    except AuditError:
        return True
    return any(device.mailbox == mailbox for device in device_list.devices)
