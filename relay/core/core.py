"""The relay's core: all of protocol.md sections 2, 5, 6 and 9, with no I/O, no clock and no randomness of its own."""

from __future__ import annotations

from collections.abc import Callable

from relay.core.events import Batch, CoreConfig, CoreCounters, Read, RelayIdentity, Snapshot
from wire.rotation import Rotation

__all__ = ["RelayCore"]


class RelayCore:
    """One relay, as a state machine.

    The service's loop: `receive` each packet; when no batch is under way `take_batch`, then `take_packets` (refusals
    and answers that need no commit); commit the batch in a thread, then `committed` or `aborted`; `take_reads`, read,
    `loaded`; `take_packets` and publish; `tick` at `next_deadline()`.

    Args:
        config: limits.
        identity: relay id, current signing seed, rotations, partition.
        snapshot: what the store holds.
        entropy: gives n random bytes (handshake keys and nonces).
    """

    def __init__(
        self, config: CoreConfig, identity: RelayIdentity, snapshot: Snapshot, entropy: Callable[[int], bytes]
    ) -> None:
        self.config = config
        self.counters = CoreCounters()
        raise NotImplementedError

    def receive(self, device_tag: bytes, packet: bytes, now_ms: int) -> None:
        """Take one broker packet that came on `bp/R/<device_tag>/up`. Never raises, whatever the bytes are."""

    def take_packets(self) -> list[tuple[bytes, bytes]]:
        """Return (device_tag, packet) to publish on `bp/R/<device_tag>/down`, sealed now; the queue is empty then."""

    def take_reads(self) -> list[Read]:
        """Return the bodies that deliveries wait for; read them and hand them to `loaded`."""

    def loaded(self, reads: list[tuple[Read, list[bytes | None]]], now_ms: int) -> None:
        """Take bodies read from the store, in the order of each read's seqs."""

    def take_batch(self, now_ms: int) -> Batch | None:
        """Apply what was received; return what must be made durable, or None. Only one batch may be under way."""

    def committed(self, batch: Batch, now_ms: int) -> None:
        """The batch is durable: receipts, deliveries and answers go out."""

    def aborted(self, batch: Batch, error: Exception, now_ms: int) -> None:
        """The batch was not stored: its senders get `storage_failed`, and the state is as before `take_batch`."""

    def tick(self, now_ms: int) -> None:
        """Do what is due by time: redeliveries, expiry, dead handshakes."""

    def next_deadline(self) -> int | None:
        """Return when `tick` has something to do, in ms; None: never, as things stand."""

    def has_work(self) -> bool:
        """Tell whether `take_batch` has something to look at."""

    def admit_tenant(self, domain: str, admin_key: bytes) -> None:
        """Admit a company; goes into the next batch. The same key again changes nothing.

        Raises:
            FormatError: the domain or the key is malformed, or the domain has another key.
        """

    def rotate(self, new_seed: bytes, now_ms: int) -> Rotation:
        """Sign from now on with a new key, cross-signed by the old one (section 2.6); goes into the next batch.

        Closes all links. May be called only while no batch is under way.
        """

    def stop(self) -> None:
        """Refuse every command that comes from now on with `stopping`; what was received is still answered."""
