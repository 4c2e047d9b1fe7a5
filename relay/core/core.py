"""The relay's core: all of protocol.md sections 2, 5, 6 and 9, with no I/O, no clock and no randomness of its own.

It joins the machines beside it: links.py (who speaks), commands.py (what is asked), mailboxes.py, delivery.py,
directory.py and commitlog.py (what is kept), batch.py (what one commit makes durable), finishing.py (what follows it),
operated.py (what the operator asks). Packets, bodies and times are handed in, packets, reads and batches taken out; the
same inputs give the same outputs, to the byte.

    packet ─receive─▶ queue ─take_batch─▶ batch ─(store)─▶ committed ─▶ outboxes ─take_packets─▶ packets
                        ▲                    │                └─ or aborted: refusals, and the state as before
                        └── meanwhile the next commands gather here, untouched

Rules: a command is looked at only when its batch is made, so that nothing in the queue ever depends on a commit that
may still fail; a receipt is given only in `committed`; what does not fit a queue is refused by code.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from relay.core.batch import Refused, Staged
from relay.core.commands import ANSWERED, DEFERRED, Commands
from relay.core.delivery import Deliveries
from relay.core.events import (
    Batch,
    CoreConfig,
    CoreCounters,
    Read,
    RecordRead,
    RelayIdentity,
    RotationRow,
    Snapshot,
)
from relay.core.finishing import Finishing
from relay.core.links import Link, Links
from relay.core.operated import Operated
from relay.core.queue import CommandQueue
from relay.core.rotations import chain_of
from wire.codec import encode
from wire.commands import DeviceCommand, Linked, LinkedDevice, decode_device_commands
from wire.errors import BlindpostError, FormatError, RefusalCode
from wire.rotation import Rotation, sign_rotation
from wire.signing import SigningKey

__all__ = ["RelayCore"]

# Used tokens that are past their date are looked for once in so many seconds, and so many go with one batch.
_TOKENS_SWEPT_S = 3_600
_TOKENS_SWEPT_MAX = 512


class RelayCore(Operated):
    """One relay, as a state machine.

    The service's loop: `receive` each packet; while no batch is under way and `has_work()`, `take_batch`; commit it
    in a thread, then `committed` or `aborted`; `take_reads`, read, `loaded`; `take_packets` after any of these, and
    publish; `tick` at `next_deadline()`. What its operator asks of it is in operated.py.

    Args:
        config: limits.
        identity: relay id, current signing seed, rotations, partition.
        snapshot: what the store holds.
        entropy: gives n random bytes (handshake keys and nonces).

    Raises:
        FormatError: the snapshot contradicts itself, or the identity: another relay's store, or another key's.
    """

    def __init__(
        self, config: CoreConfig, identity: RelayIdentity, snapshot: Snapshot, entropy: Callable[[int], bytes]
    ) -> None:
        self.config = config
        self.counters = CoreCounters()
        self._relay_id = identity.relay_id
        self._signing_key = SigningKey(identity.seed)
        self._rotations, rotations_waiting = chain_of(identity, snapshot, self._signing_key.public)
        super().__init__(config, identity, snapshot)
        self._links = Links(
            config,
            self.counters,
            identity.relay_id,
            self._signing_key,
            self._rotations,
            entropy,
            self._on_linked,
            self._on_closed,
            self._on_reduced,
        )
        self._deliveries = Deliveries(config, self.counters, self._links, self._captures)
        self._commands = Commands(
            config,
            self.counters,
            self._links,
            self._mailboxes,
            self._deliveries,
            self._directory,
            self._log,
            self.belongings,
            self._captures,
        )
        self._finishing = Finishing(
            self.counters,
            self._links,
            self._mailboxes,
            self._deliveries,
            self._commands,
            self._log,
            self._captures,
        )
        self._queue = CommandQueue(config)
        self._staged: Staged | None = None
        self._unconfirmed: list[Link] = []
        self._rotations_waiting: list[bytes] = rotations_waiting
        self._now_ms = 0
        self._resting_until_ms = 0
        # When a batch with envelopes was last made; at first long ago.
        self._stored_ms = -self.config.shared_ms
        self._tokens_swept_s = 0
        self._stopping = False
        self.counters.envelopes_held = self._mailboxes.live

    # ---- packets

    def receive(self, device_tag: bytes, packet: bytes, now_ms: int) -> None:
        """Take one broker packet that came on `bp/R/<device_tag>/up`. Never raises, whatever the bytes are."""
        self._pass_time(now_ms)
        counters = self.counters
        counters.packets += 1
        try:
            frame = self._links.receive(device_tag, packet, now_ms)
        except BlindpostError:
            counters.packets_dropped += 1
            return
        if frame is None:
            return
        link, plain = frame
        counters.frames += 1
        try:
            commands = decode_device_commands(plain)
        except FormatError as error:
            # It is genuine, so the device is told; whose ref it would be is not known.
            self._refuse(link, 0, Refused(RefusalCode.MALFORMED, f"{error.field}: {error.problem}", error.limit))
            return
        self._commands.entitle_anew(link)
        share = -(-len(packet) // len(commands))
        if not self._stopping and self._queue.put_all(link, commands, share):
            return
        for command in commands:
            self._enqueue(link, command, share)

    def _enqueue(self, link: Link, command: DeviceCommand, size: int) -> None:
        try:
            if self._stopping:
                raise Refused(RefusalCode.STOPPING, "relay", 0, self.config.retry_after_ms)
            self._queue.put(link, command, size)
        except Refused as refused:
            self._refuse(link, command.ref, refused)

    def _refuse(self, link: Link, ref: int, refused: Refused) -> None:
        self._links.talk(link).other(self._commands.refusal(ref, refused))

    def take_packets(self) -> list[tuple[bytes, bytes]]:
        """Return (device_tag, packet) to publish on `bp/R/<device_tag>/down`, sealed now; the queue is empty then."""
        return self._links.take_packets()

    def has_backlog(self) -> bool:
        """Tell whether so much waits to be sent that nothing more should be received before some of it is taken."""
        return self._links.outgoing_bytes >= self.config.outgoing_bytes_max

    def _on_linked(self, link: Link) -> None:
        self._commands.entitle(link)
        if self._staged is not None and self._staged.directory_changed:
            # What the directory will be is not known before the commit ends; the link says nothing until then.
            link.confirmed = False
            self._unconfirmed.append(link)
            return
        link.confirmed = True
        self._links.talk(link).linked(Linked(self._now_ms // 1_000, tuple(map(self._linked_device, link.device_keys))))

    def _linked_device(self, device_key: bytes) -> LinkedDevice:
        device = self._directory.devices.get(device_key)
        if device is None:
            return LinkedDevice(device_key, False, 0, 0)
        return LinkedDevice(device_key, True, len(device.one_time), device.mailbox.newest)

    def _on_closed(self, link: Link) -> None:
        self._commands.records.forget(link)
        for mailbox_id in list(link.subscribed):
            mailbox = self._mailboxes.by_id.get(mailbox_id)
            if mailbox is not None and mailbox.subscription is not None and mailbox.subscription.link is link:
                self._deliveries.end(mailbox)

    def _on_reduced(self, link: Link) -> None:
        self._commands.entitle(link)
        self._commands.records.forget(link)
        for mailbox_id in [one for one in link.subscribed if one not in link.mailboxes]:
            self._deliveries.end(self._mailboxes.by_id[mailbox_id])

    # ---- bodies

    def take_reads(self) -> list[Read]:
        """Return the bodies that deliveries wait for; read them and hand them to `loaded`."""
        config = self.config
        shared = self._now_ms < self._stored_ms + config.shared_ms
        bytes_max = min(config.read_bytes_max, config.read_bytes_shared) if shared else config.read_bytes_max
        return self._deliveries.take_reads(self._now_ms, bytes_max)

    def has_reads(self) -> bool:
        """Tell whether `take_reads` has something to look at, and what it brings may be sent."""
        return self._deliveries.has_reads()

    def loaded(self, reads: list[tuple[Read, list[bytes | None]]], now_ms: int) -> None:
        """Take bodies read from the store, in the order of each read's seqs."""
        self._pass_time(now_ms)
        self._deliveries.loaded(reads, now_ms)

    # ---- records

    def take_record(self, now_ms: int) -> RecordRead | None:
        """Return the rows of a record that a device asked for; make it (wire/held.py) and hand it to `record_made`.

        May be called only while no batch is under way, and the rows must be read before the next one is committed.
        """
        assert self._staged is None, "no record while a batch is under way"
        return self._commands.records.take(now_ms)

    def wants_record(self, now_ms: int) -> bool:
        """Tell whether `take_record` has something to look at."""
        return self._commands.records.is_wanted(now_ms)

    def record_made(self, read: RecordRead, data: bytes | None, now_ms: int) -> None:
        """Take a record that was asked for; None if its rows could not be read."""
        self._pass_time(now_ms)
        self._commands.records.made(read, data, now_ms)

    # ---- batches

    def has_work(self) -> bool:
        """Tell whether `take_batch` has something to look at. After an abort only new commands count, for a second."""
        if self._queue:
            return True
        if self._now_ms < self._resting_until_ms:
            return False
        return bool(
            self._tenants_waiting or self._rotations_waiting or self._mailboxes.gather_due(self._now_ms // 1_000)
        )

    def take_batch(self, now_ms: int) -> Batch | None:
        """Apply what was received; return what must be made durable, or None. Only one batch may be under way."""
        assert self._staged is None, "one batch at a time"
        self._pass_time(now_ms)
        staged = Staged(self._seqs.copy())
        batch = staged.batch
        self._stage_waiting(staged)
        if now_ms >= self._resting_until_ms:
            self._mailboxes.stage_due(staged, now_ms // 1_000)
        self._handle_queue(staged, now_ms)
        if batch.is_empty():
            # Nothing to make durable; what waited (for prekeys added and taken at once) waits for nothing.
            self._finishing.finish(staged, now_ms, self._stopping)
            self._end(staged)
            return None
        if batch.envelopes:
            self._stored_ms = now_ms
            batch.commit, staged.tree = self._log.stage(staged.leaves, self._signing_key, now_ms)
        batch.commits_below = self._log.prunable_below(self.config.commits_pruned_max)
        if now_ms // 1_000 >= self._tokens_swept_s + _TOKENS_SWEPT_S:
            self._tokens_swept_s = now_ms // 1_000
            self._directory.stage_old_tokens(staged, now_ms // 1_000, _TOKENS_SWEPT_MAX)
        self._staged = staged
        return batch

    def _stage_waiting(self, staged: Staged) -> None:
        for domain, admin_key in self._tenants_waiting:
            self._directory.stage_tenant(staged, domain, admin_key)
        for record in self._rotations_waiting:
            staged.batch.rotations.append(RotationRow(self._seqs.take("rotations"), record))
        staged.tenants = len(self._tenants_waiting)
        staged.rotations = len(self._rotations_waiting)

    def _handle_queue(self, staged: Staged, now_ms: int) -> None:
        config = self.config
        batch = staged.batch
        envelopes_max, bytes_max = config.batch_envelopes_max, config.batch_bytes_max
        if self._queue.is_shared(now_ms):
            envelopes_max = min(envelopes_max, config.batch_envelopes_shared)
            bytes_max = min(bytes_max, config.batch_bytes_shared)
        release, handle = self._queue.release, self._commands.handle
        with closing(self._queue.take(config.batch_commands_max, envelopes_max)) as items:
            for item in items:
                outcome = handle(staged, item[0], item[1], now_ms)
                if outcome == ANSWERED:
                    release(item[0], item[2])
                elif outcome == DEFERRED:
                    staged.deferred.append(item)
                else:
                    staged.waiting.append(item)
                if len(batch.envelopes) >= envelopes_max or batch.body_bytes >= bytes_max:
                    break

    def committed(self, batch: Batch, now_ms: int) -> None:
        """The batch is durable: receipts, deliveries and answers go out."""
        self._pass_time(now_ms)
        self._resting_until_ms = 0
        staged = self._ending(batch)
        self.counters.commits += 1
        self._finishing.finish(staged, now_ms, self._stopping)
        del self._tenants_waiting[: staged.tenants]
        del self._rotations_waiting[: staged.rotations]
        self._end(staged)

    def aborted(self, batch: Batch, error: Exception, now_ms: int) -> None:
        """The batch was not stored: its senders get `storage_failed`, and the state is as before `take_batch`."""
        staged = self._ending(batch)
        self._pass_time(now_ms)
        self._resting_until_ms = now_ms + self.config.retry_after_ms
        for undo in reversed(staged.undo):
            undo()
        self._mailboxes.aborted(staged)
        self._seqs.restore(staged.seqs_before)
        self._deliveries.restored([item[0] for item in staged.leaving])
        for link, command, _size in staged.waiting:
            refused = Refused(RefusalCode.STORAGE_FAILED, "commit", 0, self.config.retry_after_ms)
            self._refuse(link, command.ref, refused)
        self.counters.aborted += 1
        self._end(staged)

    def _ending(self, batch: Batch) -> Staged:
        staged = self._staged
        assert staged is not None, "no batch is under way"
        assert staged.batch is batch, "not the batch under way"
        self._staged = None
        return staged

    def _end(self, staged: Staged) -> None:
        self._queue.release_all(staged.waiting)
        self._queue.put_back(staged.deferred)
        unconfirmed, self._unconfirmed = self._unconfirmed, []
        for link in unconfirmed:
            self._on_linked(link)

    # ---- time

    def _pass_time(self, now_ms: int) -> None:
        if now_ms < self._now_ms:
            self._deliveries.set_back(self._now_ms - now_ms)
        self._now_ms = now_ms

    def tick(self, now_ms: int) -> None:
        """Do what is due by time: redeliveries, dead handshakes; what expires goes into the next batch."""
        self._pass_time(now_ms)
        self._links.tick(now_ms)
        self._deliveries.tick(now_ms)
        self._commands.records.tick(now_ms)
        self._mailboxes.gather_due(now_ms // 1_000)

    def next_deadline(self) -> int | None:
        """Return when `tick` has something to do, in ms; None: never, as things stand."""
        records = self._commands.records
        deadlines = [self._links.next_deadline(), self._deliveries.next_deadline(), records.next_deadline()]
        expiry_s = self._mailboxes.next_expiry_s()
        if expiry_s is not None:
            deadlines.append(expiry_s * 1_000)
        if self._now_ms < self._resting_until_ms:
            deadlines.append(self._resting_until_ms)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    # ---- the key, the end

    def rotate(self, new_seed: bytes, now_ms: int) -> Rotation:
        """Sign from now on with a new key, cross-signed by the old one (section 2.6); goes into the next batch.

        Closes all links. May be called only while no batch is under way.

        Raises:
            FormatError: not a seed, or the current one.
        """
        assert self._staged is None, "no rotation while a batch is under way"
        new = SigningKey(new_seed)
        if new.public == self._signing_key.public:
            raise FormatError("signing seed", "is the current one")
        self._pass_time(now_ms)
        rotation = sign_rotation(
            self._relay_id, self._signing_key, new, self._log.head_index, self._log.head_hash, now_ms // 1_000
        )
        self._signing_key = new
        self._rotations = (*self._rotations, rotation)
        self._rotations_waiting.append(encode(rotation))
        self._links.rotate(new, self._rotations)
        return rotation

    def stop(self) -> None:
        """Refuse every command that comes from now on with `stopping`; what was received is still answered."""
        self._stopping = True
        self._commands.records.stop()
        self._links.flush_late()
