"""The relay's receipts as a device checks and keeps them (protocol.md sections 2.6 and 5.2).

A receipt is believed only for the very envelope that this device submitted: its leaf must be under the root that the
relay's key of that time signed, for the right relay and partition. Headers are kept by commit index, so that two
histories signed by the relay convict it: one index with two headers, or neighbours that do not name each other.
Receipts are evidence, so they are kept until a week after the envelope's expiry and can be volunteered (section 12.2).
"""

from collections.abc import Sequence
from hashlib import sha256

from client.errors import Forked, ReceiptForged
from client.records import HeaderRow, HeldReceipt, Prepared
from client.store import Kind, Step, Store
from wire.card import RelayCard
from wire.codec import decode, encode
from wire.errors import BlindpostError
from wire.receipt import CommitHeader, ReceiptEntry, commit_hash, receipt_of, verify_receipt
from wire.rotation import RotationRecord, key_at

__all__ = ["RECEIPTS_KEPT_S", "Evidence"]

RECEIPTS_KEPT_S = 7 * 86_400
"""How long after an envelope's expiry its receipt is still kept: the time to dispute it."""


class Evidence:
    """Checks receipts and keeps them.

    Args:
        store: where receipts and headers are kept.
        card: the relay's card.
    """

    def __init__(self, store: Store, card: RelayCard) -> None:
        self._store = store
        self._card = card
        self.rotations: Sequence[RotationRecord] = ()

    def check(
        self, prepared: Prepared, message_id: bytes, header: bytes, signature: bytes, entry: ReceiptEntry
    ) -> HeldReceipt:
        """The verified receipt of an envelope. Changes nothing; `keep` does.

        Raises:
            ReceiptForged: it does not verify for this envelope, relay and partition.
            Forked: it verifies, but cannot be of one history with headers seen before.
        """
        receipt = receipt_of(prepared.envelope, header, signature, entry)
        try:
            # The index tells which key counts; it is believed only because that key then verifies the header.
            index = decode(CommitHeader, header, "commit header").index
            parsed = verify_receipt(key_at(self._card.signing_key, self.rotations, index), receipt)
        except BlindpostError as error:
            raise ReceiptForged(f"receipt of envelope {prepared.envelope.envelope_id.hex()}: {error}") from None
        if parsed.relay_id != self._card.relay_id or parsed.partition != self._card.partition:
            raise ReceiptForged(f"receipt of envelope {prepared.envelope.envelope_id.hex()}: is of another relay")
        self._check_history(parsed, header)
        return HeldReceipt(
            prepared.account,
            message_id,
            header,
            signature,
            prepared.envelope.mailbox,
            prepared.envelope.envelope_id,
            prepared.envelope.expiry,
            entry.number,
            entry.leaf,
            entry.path,
            sha256(prepared.envelope.body).digest(),
            prepared.token,
            withdrawn=False,
        )

    def keep(self, step: Step, held: HeldReceipt) -> None:
        """Keep a receipt that `check` returned, within a step."""
        step.put(Kind.RECEIPT, held.mailbox + held.envelope_id, encode(held))
        index = decode(CommitHeader, held.header, "commit header").index
        step.put(Kind.HEADER, index.to_bytes(8, "big"), encode(HeaderRow(held.header, held.signature)))

    def held(self) -> list[HeldReceipt]:
        """Every receipt that is kept."""
        return [decode(HeldReceipt, value, "receipt") for _name, value in self._store.items(Kind.RECEIPT)]

    def sweep(self, step: Step, now_s: int) -> None:
        """Forget receipts, and the headers that only they need, when their time is over."""
        needed = set()
        for name, value in self._store.items(Kind.RECEIPT):
            held = decode(HeldReceipt, value, "receipt")
            if held.expiry + RECEIPTS_KEPT_S < now_s:
                step.delete(Kind.RECEIPT, name)
            else:
                needed.add(held.header)
        for name, value in self._store.items(Kind.HEADER):
            if decode(HeaderRow, value, "header").header not in needed:
                step.delete(Kind.HEADER, name)

    def _check_history(self, parsed: CommitHeader, header: bytes) -> None:
        for index in (parsed.index - 1, parsed.index, parsed.index + 1):
            value = self._store.get(Kind.HEADER, index.to_bytes(8, "big")) if index >= 1 else None
            if value is None:
                continue
            other = decode(HeaderRow, value, "header").header
            fits = {
                parsed.index - 1: parsed.previous == commit_hash(other),
                parsed.index: other == header,
                parsed.index + 1: decode(CommitHeader, other, "commit header").previous == commit_hash(header),
            }
            if not fits[index]:
                raise Forked(parsed.index)
