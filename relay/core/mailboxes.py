"""Mailboxes: numbers, idempotency, quotas, acks, tombstones, expiry, closing (protocol.md sections 5 and 9).

An envelope is one `Held` from its submit until its tombstone is gone: a few numbers, never a body.

    ─submit─▶ STAGED ─commit─▶ LIVE ─ack, withdraw, close─▶ LEAVING ─commit─▶ TOMBSTONE ─expiry─▶ LEAVING ─▶ GONE
                 └─abort─▶ GONE  └─────────expiry─────────▶ LEAVING ─commit─▶ GONE   (abort: back to where it was)

Rules: a number is given once and never again; what is LEAVING or STAGED is not delivered; the same envelope again
gets the receipt that it has, live or tombstoned, and other content under its id is a conflict: the leaf hash, which
the commit log keeps, tells. Who may do what is left to the caller (commands.py), delivery to delivery.py, the log to
commitlog.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from relay.core.batch import Refused, Seqs, Staged
from relay.core.commitlog import CommitLog
from relay.core.events import REASON_CLOSED, CoreConfig, EnvelopeRow, Snapshot, TombstoneRow
from relay.core.expiry import ExpiryBuckets
from relay.core.preservation import Preservation, Preservations
from wire.envelope import Envelope, envelope_id_of
from wire.errors import FormatError, RefusalCode
from wire.hashing import label
from wire.limits import CLOCK_SKEW_S, ID_BYTES
from wire.receipt import leaf_hash

if TYPE_CHECKING:
    from relay.core.delivery import Subscription

__all__ = ["Held", "Mailbox", "Mailboxes", "tombstone_key", "STAGED", "LIVE", "LEAVING", "TOMBSTONE", "GONE"]

STAGED: Final = 0
LIVE: Final = 1
LEAVING: Final = 2
TOMBSTONE: Final = 3
GONE: Final = 4


# Once for each ack: the label is looked up once, and rows are made without their checks.
_TOMBSTONE_PREFIX: Final = label("tombstone")
_row: Final = tuple.__new__


def tombstone_key(mailbox: bytes, envelope_id: bytes) -> bytes:
    """Return the key of a tombstone, hash16("tombstone", …) (protocol.md section 9): it does not name the envelope."""
    return blake2b(_TOMBSTONE_PREFIX + mailbox + envelope_id, digest_size=ID_BYTES).digest()


class Held(Struct, gc=False, eq=False):
    """One envelope, or what is left of it; `seq` is that of its row, `state` one of the five above.

    There are a million of them, so they are small and the garbage collector does not look at them: they die by
    counting, since a mailbox that is gone from the relay is gone with the relay.
    """

    mailbox: Mailbox
    seq: int
    number: int
    id: bytes
    expiry: int
    commit_index: int
    leaf: int
    body_bytes: int
    state: int


class Mailbox:
    """One mailbox. `given` is the highest number given, staged ones included; `newest` the highest that is durable."""

    __slots__ = (
        "account",
        "closed",
        "device_key",
        "entries",
        "given",
        "gone",
        "held",
        "held_bytes",
        "id",
        "newest",
        "preservation",
        "seq",
        "subscription",
        "tombstones",
    )

    def __init__(
        self, seq: int, mailbox_id: bytes, device_key: bytes, account: str, gone: int = 0, closed: bool = False
    ) -> None:
        self.seq = seq
        self.id = mailbox_id
        self.device_key = device_key
        self.account = account
        self.gone = gone
        self.closed = closed
        self.given = gone
        self.newest = gone
        self.held = 0
        self.held_bytes = 0
        self.entries: dict[bytes, Held] = {}
        self.tombstones: dict[bytes, Held] = {}
        self.subscription: Subscription | None = None
        self.preservation: Preservation | None = None


class Mailboxes:
    """All mailboxes of the relay.

    Args:
        config: quotas.
        snapshot: rows of `mailboxes`, `envelopes` and `tombstones`; the last two are taken out of it, so that a
            million of them are not held twice.
        log: holds the leaf hashes.
        seqs: numbers rows.
    """

    def __init__(self, config: CoreConfig, snapshot: Snapshot, log: CommitLog, seqs: Seqs) -> None:
        self._config = config
        self._log = log
        self._seqs = seqs
        self._expiry: ExpiryBuckets[Held] = ExpiryBuckets()
        self._closing: deque[Mailbox] = deque()
        self.by_id: dict[bytes, Mailbox] = {}
        self.live = 0
        self._load(snapshot)

    def _load(self, snapshot: Snapshot) -> None:
        for row in snapshot.mailboxes:
            self.by_id[row.mailbox] = Mailbox(
                row.seq, row.mailbox, row.device_key, row.account, row.newest, bool(row.closed)
            )
        self.preservations = Preservations(self, snapshot.relay)
        # Rows of one commit, hour, place and size share these numbers: a million of each is 30 MB.
        shared: dict[int, int] = {}
        # Delivery goes through `entries` in their order, so that they must be in that of their numbers.
        rows, snapshot.envelopes = snapshot.envelopes, []
        rows.sort(key=lambda row: row.number, reverse=True)
        while rows:
            envelope = rows.pop()
            mailbox = self._loaded_mailbox(envelope.mailbox)
            held = Held(
                mailbox,
                envelope.seq,
                envelope.number,
                envelope.envelope_id,
                shared.setdefault(envelope.expiry, envelope.expiry),
                shared.setdefault(envelope.commit_index, envelope.commit_index),
                shared.setdefault(envelope.leaf, envelope.leaf),
                shared.setdefault(envelope.body_bytes, envelope.body_bytes),
                LIVE,
            )
            mailbox.entries[held.id] = held
            mailbox.held_bytes += held.body_bytes
            self.live += 1
            self._hold(held)
        stones, snapshot.tombstones = snapshot.tombstones, []
        stones.reverse()
        while stones:
            stone = stones.pop()
            mailbox = self._loaded_mailbox(stone.mailbox)
            held = Held(
                mailbox,
                stone.seq,
                stone.number,
                envelope_id_of(stone.token) if stone.token else stone.key,
                shared.setdefault(stone.expiry, stone.expiry),
                shared.setdefault(stone.commit_index, stone.commit_index),
                stone.leaf,
                0,
                TOMBSTONE,
            )
            if mailbox.preservation is not None and (kept := mailbox.entries.pop(held.id, None)) is not None:
                self._loaded_kept(mailbox.preservation, kept)
            mailbox.tombstones[held.id] = held
            mailbox.held_bytes += self._config.tombstone_bytes
            self._hold(held)
        for mailbox in self.by_id.values():
            self.close_if_closed(mailbox)

    def _loaded_kept(self, preservation: Preservation, kept: Held) -> None:
        """An envelope that its tombstone says is acknowledged is a row that preservation kept, and nothing more."""
        preservation.kept.append(kept.seq)
        kept.state = GONE
        kept.mailbox.held -= 1
        kept.mailbox.held_bytes -= kept.body_bytes
        self.live -= 1
        self._log.release(kept.commit_index)

    def _loaded_mailbox(self, mailbox_id: bytes) -> Mailbox:
        mailbox = self.by_id.get(mailbox_id)
        if mailbox is None:
            raise FormatError("mailboxes", "an envelope or tombstone names one that is not there")
        return mailbox

    def _hold(self, held: Held) -> None:
        mailbox = held.mailbox
        mailbox.held += 1
        mailbox.given = mailbox.newest = max(mailbox.given, held.number)
        self._log.hold(held.commit_index)
        self._expiry.add(held.expiry, held)

    # ---- submit

    @staticmethod
    def is_new(mailbox: Mailbox, envelope_id: bytes) -> bool:
        """Tell whether an id was certainly not submitted before; of a closed mailbox, `known` must look."""
        return not (envelope_id in mailbox.entries or envelope_id in mailbox.tombstones or mailbox.closed)

    def known(self, mailbox: Mailbox, envelope: Envelope) -> Held | None:
        """Return the envelope if it was submitted before with this very expiry and body; None if its id is new.

        Raises:
            Refused: `conflict`, the id was used with other content.
        """
        held = mailbox.entries.get(envelope.envelope_id)
        if held is None:
            held = mailbox.tombstones.get(envelope.envelope_id)
            if held is None and mailbox.closed:
                held = mailbox.tombstones.get(tombstone_key(mailbox.id, envelope.envelope_id))
            if held is None:
                return None
        if held.state == STAGED:
            # Its leaf is not in the log yet; the body is still at hand in the batch, so compare the leaf there.
            return held
        leaf = leaf_hash(mailbox.id, envelope.envelope_id, envelope.expiry, held.number, sha256(envelope.body).digest())
        if leaf != self._log.commits[held.commit_index].leaf(held.leaf):
            raise Refused(RefusalCode.CONFLICT, "envelope_id")
        return held

    def check_staged(self, staged: Staged, held: Held, envelope: Envelope) -> None:
        """Check a repeated envelope against the one that the batch under construction holds.

        Raises:
            Refused: `conflict`.
        """
        row = staged.batch.envelopes[held.leaf]
        if row.expiry != envelope.expiry or row.body != envelope.body:
            raise Refused(RefusalCode.CONFLICT, "envelope_id")

    def check_room(self, mailbox: Mailbox, envelopes: int, body_bytes: int) -> None:
        """Check that a mailbox has room for so many new envelopes.

        Raises:
            Refused: `mailbox_full`, naming the quota.
        """
        config = self._config
        if mailbox.held + envelopes > config.mailbox_envelopes_max:
            raise Refused(
                RefusalCode.MAILBOX_FULL, "envelopes", config.mailbox_envelopes_max, config.mailbox_full_retry_ms
            )
        if mailbox.held_bytes + body_bytes > config.mailbox_bytes_max:
            raise Refused(RefusalCode.MAILBOX_FULL, "bytes", config.mailbox_bytes_max, config.mailbox_full_retry_ms)

    def check_expiry(self, expiry: int, now_s: int) -> None:
        """Check that an expiry lies ahead, and not too far (a clock may be off by 300 s).

        Raises:
            Refused: `expiry_invalid`.
        """
        if not now_s < expiry <= now_s + self._config.retention_s + CLOCK_SKEW_S:
            raise Refused(RefusalCode.EXPIRY_INVALID, "expiry", self._config.retention_s)

    def stage(self, staged: Staged, mailbox: Mailbox, envelope: Envelope, commit_index: int) -> Held:
        """Give a new envelope its number and put it into the batch."""
        batch = staged.batch
        seqs = self._seqs
        seq = seqs.envelopes
        seqs.envelopes = seq + 1
        number = mailbox.given = mailbox.given + 1
        leaf = len(batch.envelopes)
        body = envelope.body
        envelope_id = envelope.envelope_id
        expiry = envelope.expiry
        body_bytes = len(body)
        mailbox.held += 1
        mailbox.held_bytes += body_bytes
        held = Held(mailbox, seq, number, envelope_id, expiry, commit_index, leaf, body_bytes, STAGED)
        mailbox.entries[envelope_id] = held
        batch.envelopes.append(
            _row(EnvelopeRow, (seq, mailbox.id, number, envelope_id, expiry, commit_index, leaf, body))
        )
        batch.body_bytes += body_bytes
        staged.fresh.append(held)
        staged.leaves.append(leaf_hash(mailbox.id, envelope_id, expiry, number, sha256(body).digest()))
        return held

    # ---- ack, withdraw, close

    def find(self, mailbox: Mailbox, tokens: Iterable[bytes]) -> list[tuple[Held, bytes]]:
        """Return the envelopes that ack tokens name, with each token; those that are not there (any more) left out."""
        entries = mailbox.entries
        found = []
        for token in tokens:
            held = entries.get(envelope_id_of(token))
            if held is not None:
                found.append((held, token))
        return found

    def stage_leaving(self, staged: Staged, held: Held, reason: int, token: bytes) -> None:
        """Erase a live envelope with this batch, and leave a tombstone."""
        mailbox = held.mailbox
        mailbox_id = mailbox.id
        key = tombstone_key(mailbox_id, held.id)
        seqs = self._seqs
        seq = seqs.tombstones
        seqs.tombstones = seq + 1
        held.state = LEAVING
        batch = staged.batch
        if mailbox.preservation is None:
            batch.envelopes_erased.append(held.seq)
            batch.erased_bytes += held.body_bytes
        else:
            staged.kept.append((mailbox.preservation, held.seq))
        fields = (seq, key, mailbox_id, held.expiry, held.commit_index, held.leaf, held.number, reason, token)
        batch.tombstones.append(_row(TombstoneRow, fields))
        staged.leaving.append((held, reason, seq, key))

    def close(self, mailbox: Mailbox) -> None:
        """A mailbox is durably closed: its envelopes leave, some with each batch; not while they are preserved."""
        if mailbox.entries and mailbox.preservation is None:
            self._closing.append(mailbox)

    def close_if_closed(self, mailbox: Mailbox) -> None:
        """A mailbox whose preservation ended, or did not begin, leaves if its device is gone."""
        if mailbox.closed:
            self.close(mailbox)

    def stop_closing(self, mailbox: Mailbox) -> None:
        """A mailbox is preserved: what has not left yet stays."""
        if mailbox in self._closing:
            self._closing.remove(mailbox)

    # ---- expiry

    def gather_due(self, now_s: int) -> bool:
        """Tell whether something is to be erased: past its expiry, or of a closed mailbox."""
        return self._expiry.gather(now_s) or bool(self._closing) or self.preservations.is_due(now_s)

    def next_expiry_s(self) -> int | None:
        """Return when the next envelope or tombstone expires, rounded up to a minute."""
        times = (self._expiry.next_s(), self.preservations.next_end_s())
        return min((time_s for time_s in times if time_s is not None), default=None)

    def stage_due(self, staged: Staged, now_s: int) -> None:
        """Stage what is due, at most `batch_erasures_max` envelopes and tombstones."""
        room = self.preservations.stage(staged, now_s, self._config.batch_erasures_max)
        batch = staged.batch
        self._expiry.gather(now_s)
        gone: dict[Mailbox, int] = {}
        while room and (held := self._expiry.take()) is not None:
            if held.state == GONE:
                continue
            if held.mailbox.preservation is not None:
                held.mailbox.preservation.suspended.append(held)
                continue
            if held.state == LIVE:
                batch.envelopes_erased.append(held.seq)
                batch.erased_bytes += held.body_bytes
            else:
                assert held.state == TOMBSTONE, "what waits for its expiry is live or a tombstone"
                batch.tombstones_erased.append(held.seq)
            held.state = LEAVING
            staged.expiring.append(held)
            gone[held.mailbox] = max(gone.get(held.mailbox, held.mailbox.gone), held.number)
            room -= 1
        batch.mailboxes_newest.extend((number, mailbox.seq) for mailbox, number in gone.items())
        for mailbox in self._closing:
            for held in mailbox.entries.values():
                if not room:
                    return
                if held.state == LIVE:
                    self.stage_leaving(staged, held, REASON_CLOSED, b"")
                    room -= 1

    # ---- the end of a batch

    def committed(self, staged: Staged) -> None:
        """The batch is durable: what was on its way has arrived."""
        log = self._log
        tombstone_bytes = self._config.tombstone_bytes
        expiry, put = -1, list[Held]().append
        for held in staged.fresh:
            held.state = LIVE
            held.mailbox.newest = held.number
            if held.expiry != expiry:
                # Expiries are whole hours: most of a batch share one bucket.
                expiry = held.expiry
                put = self._expiry.bucket(expiry).append
            put(held)
        self.live += len(staged.fresh) - len(staged.leaving)
        for held, reason, seq, key in staged.leaving:
            mailbox = held.mailbox
            del mailbox.entries[held.id]
            mailbox.held_bytes += tombstone_bytes - held.body_bytes
            if reason == REASON_CLOSED:
                held.id = key
            held.seq = seq
            held.body_bytes = 0
            held.state = TOMBSTONE
            mailbox.tombstones[held.id] = held
        for preservation, seq in staged.kept:
            preservation.kept.append(seq)
        for mailbox, preservation in staged.released:
            for held in preservation.suspended:
                self._expiry.add(held.expiry, held)
            self.close_if_closed(mailbox)
        for held in staged.expiring:
            mailbox = held.mailbox
            if mailbox.tombstones.get(held.id) is held:
                del mailbox.tombstones[held.id]
                mailbox.held_bytes -= tombstone_bytes
            else:
                del mailbox.entries[held.id]
                mailbox.held_bytes -= held.body_bytes
                self.live -= 1
            mailbox.held -= 1
            mailbox.gone = max(mailbox.gone, held.number)
            held.state = GONE
            log.release(held.commit_index)
        while self._closing and not self._closing[0].entries:
            self._closing.popleft()

    def aborted(self, staged: Staged) -> None:
        """The batch was not stored: all is as it was, numbers and quotas included."""
        for held in reversed(staged.fresh):
            mailbox = held.mailbox
            del mailbox.entries[held.id]
            mailbox.given = held.number - 1
            mailbox.held -= 1
            mailbox.held_bytes -= held.body_bytes
            held.state = GONE
        for held, _reason, _seq, _key in staged.leaving:
            held.state = LIVE
        for held in staged.expiring:
            held.state = TOMBSTONE if held.mailbox.tombstones.get(held.id) is held else LIVE
        self._expiry.give_back(staged.expiring)
