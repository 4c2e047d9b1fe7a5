"""All traffic, as an adversary at the relay records it: every body that was ever stored, in order, and never erased.

Used by the experiments in which somebody gets keys later (seizure.py, harvest.py). What a recording holds is what the
relay's store was given, and so also what is long acknowledged and erased there.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from relay.core.events import Batch
from relay.store.sqlite import SqliteStore
from sim.world import World, replaced

__all__ = ["Recorded", "Recording", "recording"]


@dataclass(frozen=True)
class Recorded:
    """One body, when it was stored.

    Attributes:
        mailbox: whose it was stored for.
        envelope_id: its id.
        body: the ciphertext.
    """

    mailbox: bytes
    envelope_id: bytes
    body: bytes


@dataclass
class Recording:
    """What was recorded, in the order of commits; the length at a moment marks that moment."""

    bodies: list[Recorded] = field(default_factory=list)
    acknowledged: set[bytes] = field(default_factory=set)
    """Ids of envelopes that the relay has erased again."""

    def mailboxes(self, world: World) -> dict[bytes, str]:
        """Whose mailbox is whose."""
        return {device.state.keys.entry.mailbox: account for account, device in world.devices.items()}


@contextlib.contextmanager
def recording() -> Iterator[Recording]:
    """Record whatever the stores of this process are given until the block ends."""
    kept = Recording()
    ids: dict[int, bytes] = {}
    begin = SqliteStore.begin

    def recorded_begin(store: SqliteStore, batch: Batch) -> None:
        begin(store, batch)
        for row in batch.envelopes:
            ids[row.seq] = row.envelope_id
            kept.bodies.append(Recorded(row.mailbox, row.envelope_id, row.body))
        kept.acknowledged.update(ids[seq] for seq in batch.envelopes_erased if seq in ids)

    with replaced(SqliteStore, "begin", recorded_begin):
        yield kept
