"""What goes into the relay's core and comes out of it: settings, rows, the snapshot, reads, batches, counters.

Rows have the columns of protocol.md section 9, in that order, so that a store writes them as they are. The core gives
every row its `seq`; a store never invents one. Nothing here does anything: the machines beside this module do.

Rules: everything that crosses the border is a named tuple or a frozen struct, but for `Batch` and `CoreCounters`, which
the core fills. Whatever holds the relay's signing seed has a repr that does not show it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from wire.limits import HELD_BYTES_MAX

__all__ = [
    "CoreConfig",
    "RelayIdentity",
    "EnvelopeRow",
    "EnvelopeIndexRow",
    "TombstoneRow",
    "CommitRow",
    "MailboxRow",
    "ListRow",
    "PrekeyRow",
    "TenantRow",
    "UsedTokenRow",
    "RotationRow",
    "Snapshot",
    "RowNumbers",
    "Read",
    "RecordRead",
    "Batch",
    "CoreCounters",
    "REASON_ACKED",
    "REASON_WITHDRAWN",
    "REASON_CLOSED",
    "PREKEY_SIGNED",
    "PREKEY_KEM",
    "PREKEY_ONE_TIME",
]

# `tombstones.reason` (protocol.md section 9). An expired envelope needs no tombstone: a tombstone lives until expiry.
REASON_ACKED = 1
REASON_WITHDRAWN = 2
REASON_CLOSED = 4

# `prekeys.kind` (protocol.md section 9).
PREKEY_SIGNED = 1
PREKEY_KEM = 2
PREKEY_ONE_TIME = 3


@dataclass(frozen=True, slots=True)
class CoreConfig:
    """The limits of one relay. The first three are public: they stand in the disclosure's settings (section 11).

    Every queue in the core is bounded by one of these; what does not fit is refused by code, never dropped in silence.
    """

    retention_s: int = 30 * 86_400
    """How far ahead an expiry may lie; at most 30 days."""
    mailbox_envelopes_max: int = 10_000
    """Envelopes and tombstones of one mailbox."""
    mailbox_bytes_max: int = 256 * 1024 * 1024
    """Bodies of one mailbox, and `tombstone_bytes` for each tombstone."""
    tombstone_bytes: int = 128

    link_commands_max: int = 4_096
    """Commands of one link that wait for a batch, or for the commit of theirs."""
    link_bytes_max: int = 8 * 1024 * 1024
    """Bytes of frames of one link that do."""
    link_bytes_unentitled_max: int = 256 * 1024
    """The same of a link that speaks for no enrolled device: enough to enrol."""
    pending_bytes_max: int = 128 * 1024 * 1024
    """Bytes of frames of all links that do; no link may hold more of it than what is left."""
    batch_envelopes_max: int = 512
    """A batch is what everybody waits for: larger ones save nothing a message, and cost everybody's latency."""
    batch_bytes_max: int = 4 * 1024 * 1024
    batch_erasures_max: int = 4_096
    """Envelopes or tombstones that expiry and closed mailboxes add to one batch: the cost of a commit stays flat."""
    batch_commands_max: int = 4_096
    batch_envelopes_shared: int = 64
    """The same while somebody who sends little sends beside somebody who sends much: who waits for few envelopes need
    not wait for hundreds of another's."""
    batch_bytes_shared: int = 512 * 1024
    shared_ms: int = 250
    """How long a batch is made so after such neighbours were last seen waiting."""

    links_max: int = 20_000
    """Links; beyond, the one that was silent longest is closed (its device starts a new handshake)."""
    pending_handshakes_max: int = 2_000
    topic_handshakes_max: int = 4
    topics_max: int = 20_000
    """Topics whose token buckets are remembered."""
    hello_topic_burst: int = 5
    hello_topic_per_s: int = 1
    hello_relay_burst: int = 200
    hello_relay_per_s: int = 200
    prove_signatures_burst: int = 1_024
    prove_signatures_per_s: int = 1_024
    """Signatures of proves checked for all links: the public-key work that an unknown sender can ask for."""
    link_work_burst: int = 2_048
    link_work_per_s: int = 128
    """Signature checks and look-ups that one link may ask for."""
    handshake_ms: int = 10_000

    credit_max: int = 1_024
    """Envelopes of one mailbox under way, whatever the device allows (section 6.3)."""
    delivery_bytes_max: int = 4 * 1024 * 1024
    """Bytes of one mailbox under way; one envelope may always be."""
    read_bytes_max: int = 4 * 1024 * 1024
    """Bytes asked of the store by one `take_reads`."""
    read_bytes_shared: int = 512 * 1024
    """The same while envelopes are stored, within `shared_ms`: a full mailbox is drained between commits."""
    read_turn_bytes: int = 192 * 1024
    """Bytes of one mailbox read before it is the next one's turn; one envelope may always be."""
    outgoing_bytes_max: int = 32 * 1024 * 1024
    """Bytes that wait to be sent, beyond which nothing is received, read and delivered until some have left."""
    ack_answer_ms: int = 100
    """How long the answer to an ack may wait for a frame that goes to its link anyway; 0: it does not."""
    redeliver_first_ms: int = 5_000
    redeliver_most_ms: int = 60_000
    redeliver_whole_times: int = 6
    """After so many repeats without an ack only the lowest number is repeated, until the device acks again."""
    retry_after_ms: int = 1_000
    """What a refusal of kind 'again' asks a device to wait."""
    mailbox_full_retry_ms: int = 60_000
    """The same, for a full mailbox: room comes with acks and expiries."""
    commits_pruned_max: int = 512
    """Commits that one batch prunes."""
    bundle_answers_kept: int = 64
    """Answers with one-time prekeys kept for each link, so that a repeated look-up takes no second key."""

    records_every_ms: int = 10_000
    """How often an account's devices get a new record of what is held about it."""
    records_idle_ms: int = 30_000
    """How long a record is kept whose next piece nobody asks for."""
    records_whole_ms: int = 300_000
    """How long one is kept at most: until then all its pieces must have been asked for."""
    records_rest: int = 4
    """After a record none is made for so many times as long as it took: commits wait while its rows are read."""
    records_bytes_max: int = 2 * HELD_BYTES_MAX
    """Bytes of all records that are kept or wanted."""


@dataclass(frozen=True, slots=True, repr=False)
class RelayIdentity:
    """Who the relay is: its id, its current signing seed, and how that key follows from the card's.

    Args:
        relay_id: 16 bytes (section 2.1).
        seed: the 32-byte seed of the current Ed25519 signing key; secret.
        rotations: the rotation records from the card's key to the current one, as encoded for `rotations.record`.
        partition: 0 to 65535.
    """

    relay_id: bytes
    seed: bytes
    rotations: tuple[bytes, ...] = ()
    partition: int = 0

    def __repr__(self) -> str:
        return (
            f"RelayIdentity(relay_id={self.relay_id.hex()}, seed=<secret>, rotations={len(self.rotations)}, "
            f"partition={self.partition})"
        )


class EnvelopeRow(NamedTuple):
    """One row of `envelopes`."""

    seq: int
    mailbox: bytes
    number: int
    envelope_id: bytes
    expiry: int
    commit_index: int
    leaf: int
    body: bytes


class EnvelopeIndexRow(NamedTuple):
    """One row of `envelopes`, with the length of the body in its place."""

    seq: int
    mailbox: bytes
    number: int
    envelope_id: bytes
    expiry: int
    commit_index: int
    leaf: int
    body_bytes: int


class TombstoneRow(NamedTuple):
    """One row of `tombstones`."""

    seq: int
    key: bytes
    mailbox: bytes
    expiry: int
    commit_index: int
    leaf: int
    number: int
    reason: int
    token: bytes


class CommitRow(NamedTuple):
    """One row of `commits`."""

    idx: int
    header: bytes
    signature: bytes
    leaves: bytes


class MailboxRow(NamedTuple):
    """One row of `mailboxes`."""

    seq: int
    mailbox: bytes
    device_key: bytes
    account: str
    enrolled_day: int
    newest: int
    closed: int


class ListRow(NamedTuple):
    """One row of `lists`; the row of an account with the highest seq is its current list."""

    seq: int
    account: str
    version: int
    signed_list: bytes


class PrekeyRow(NamedTuple):
    """One row of `prekeys`."""

    seq: int
    device_key: bytes
    kind: int
    id: bytes
    record: bytes


class TenantRow(NamedTuple):
    """One row of `tenants`."""

    seq: int
    domain: str
    admin_key: bytes


class UsedTokenRow(NamedTuple):
    """One row of `used_tokens`."""

    seq: int
    nonce: bytes
    not_after: int


class RotationRow(NamedTuple):
    """One row of `rotations`."""

    seq: int
    record: bytes


@dataclass(slots=True)
class Snapshot:
    """All that a store holds but the bodies; each list in the order of `seq` (commits: of `idx`)."""

    relay: dict[str, bytes] = field(default_factory=dict)
    envelopes: list[EnvelopeIndexRow] = field(default_factory=list)
    tombstones: list[TombstoneRow] = field(default_factory=list)
    commits: list[CommitRow] = field(default_factory=list)
    mailboxes: list[MailboxRow] = field(default_factory=list)
    lists: list[ListRow] = field(default_factory=list)
    prekeys: list[PrekeyRow] = field(default_factory=list)
    tenants: list[TenantRow] = field(default_factory=list)
    used_tokens: list[UsedTokenRow] = field(default_factory=list)
    rotations: list[RotationRow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RowNumbers:
    """Some rows of the tables that name a person, a device or a mailbox of one, by `seq`, ascending in each."""

    mailboxes: tuple[int, ...] = ()
    lists: tuple[int, ...] = ()
    prekeys: tuple[int, ...] = ()
    envelopes: tuple[int, ...] = ()
    tombstones: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Bodies that the core needs for deliveries.

    Args:
        seqs: the rows to read, for `Store.read`.
        mailbox: whose they are.
        handle: the core's own; hand it back untouched.
    """

    seqs: tuple[int, ...]
    mailbox: bytes
    handle: object


@dataclass(frozen=True, slots=True, eq=False)
class RecordRead:
    """A record that a device asked for about its own account (records.py).

    Args:
        account: whose.
        rows: the rows to read, for `Store.rows`.
        handle: the core's own; hand it back untouched.
    """

    account: str
    rows: RowNumbers
    handle: object


@dataclass(slots=True, eq=False)
class Batch:
    """What one commit makes durable, all of it or nothing.

    A store applies erasures before insertions and may assume that no seq is inserted twice.
    """

    envelopes: list[EnvelopeRow] = field(default_factory=list)
    envelopes_erased: list[int] = field(default_factory=list)
    """`seq` of envelopes to delete."""
    tombstones: list[TombstoneRow] = field(default_factory=list)
    tombstones_erased: list[int] = field(default_factory=list)
    commit: CommitRow | None = None
    """The commit's header; None if the batch stores no envelope."""
    commits_below: int = 0
    """Commits with an idx below this are pruned; 0: none."""
    mailboxes: list[MailboxRow] = field(default_factory=list)
    mailboxes_newest: list[tuple[int, int]] = field(default_factory=list)
    """(newest, seq): updates of `mailboxes.newest`."""
    mailboxes_closed: list[int] = field(default_factory=list)
    """`seq` of mailboxes whose `closed` becomes 1."""
    lists: list[ListRow] = field(default_factory=list)
    prekeys: list[PrekeyRow] = field(default_factory=list)
    prekeys_erased: list[int] = field(default_factory=list)
    tenants: list[TenantRow] = field(default_factory=list)
    used_tokens: list[UsedTokenRow] = field(default_factory=list)
    used_tokens_erased: list[int] = field(default_factory=list)
    rotations: list[RotationRow] = field(default_factory=list)
    statements: list[tuple[str, bytes]] = field(default_factory=list)
    """(name, value) of rows of `relay` to insert: preservations (preservation.py)."""
    statements_erased: list[str] = field(default_factory=list)
    """Names of such rows to delete first."""
    body_bytes: int = 0
    """Bytes of the bodies in `envelopes`, for the log."""
    erased_bytes: int = 0
    """Bytes of the bodies of `envelopes_erased`: they are overwritten."""
    acks: int = 0
    """Envelopes erased by ack or withdrawal, for the log."""

    def is_empty(self) -> bool:
        """Tell whether there is nothing to commit."""
        return not (
            self.envelopes
            or self.envelopes_erased
            or self.tombstones
            or self.tombstones_erased
            or self.prekeys
            or self.prekeys_erased
            or self.lists
            or self.mailboxes
            or self.mailboxes_newest
            or self.mailboxes_closed
            or self.tenants
            or self.used_tokens
            or self.used_tokens_erased
            or self.rotations
            or self.statements
            or self.statements_erased
            or self.commits_below
        )


@dataclass(slots=True)
class CoreCounters:
    """What the core counted since it was made; `links`, `mailboxes`, `envelopes_held` are of now. No identifiers."""

    links: int = 0
    links_made: int = 0
    packets: int = 0
    packets_dropped: int = 0
    """Packets that got no answer: not decodable, replayed, forged, out of tokens."""
    frames: int = 0
    frames_sent: int = 0
    envelopes: int = 0
    """Envelopes committed."""
    body_bytes: int = 0
    acks: int = 0
    withdrawals: int = 0
    expired: int = 0
    deliveries: int = 0
    """Envelopes handed to links, repeats included."""
    commits: int = 0
    aborted: int = 0
    envelopes_held: int = 0
    reads_missing: int = 0
    """Bodies that the store did not have though the index did: a fault of the store."""
    refusals: dict[int, int] = field(default_factory=dict)
    """Count by refusal code."""
