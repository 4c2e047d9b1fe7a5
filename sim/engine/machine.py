"""The relay's process: the real core on a disk, worked in turns of virtual time, killed and started again.

    receive ─▶ core.receive                   for each packet of the moment
    pump    ─▶ tick, batches, commits, reads  until the core has nothing to do; what it says is taken out

It is relay/service.py's loop without threads and sockets. A commit on a slow disk ends later: meanwhile the next batch
gathers, as there.
"""

from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from relay.core import CoreConfig, RelayCore, RelayIdentity
from relay.core.directory import Account, Device
from relay.core.events import Batch, CoreCounters
from relay.core.mailboxes import Mailbox
from relay.log import RelayLog
from relay.store.protocol import StoreError
from sim.engine.disk import Disk, PowerCut
from wire.codec import encode
from wire.identity import DeviceEntry, SignedList, list_hash
from wire.signing import SigningKey

__all__ = ["Machine"]


class Machine:
    """One relay.

    Args:
        config: its limits.
        identity: who it is.
        disk: its rows.
        entropy: random bytes.
        now_ms: true time.
        later: calls something at a moment, in true milliseconds.
        died: called when a torn write has ended the process.
        log: what it writes about itself.
        timer_grid_ms: the core's timers are rounded up to this: a thousand of one moment cost one turn.
    """

    def __init__(
        self,
        config: CoreConfig,
        identity: RelayIdentity,
        disk: Disk,
        entropy: Callable[[int], bytes],
        now_ms: Callable[[], int],
        later: Callable[[int, Callable[[], None]], None],
        died: Callable[[], None],
        log: RelayLog,
        timer_grid_ms: int = 1_000,
    ) -> None:
        self.disk = disk
        self.clock_offset_ms = 0
        self.core: RelayCore | None = None
        self.starts = 0
        self._config = config
        self._identity = identity
        self._entropy = entropy
        self._now_ms = now_ms
        self._later = later
        self._died = died
        self._log = log
        self._counted = CoreCounters()
        self._under_way: Batch | None = None
        self._due_ms: int | None = None
        self._is_asked = False
        self._ghosts: dict[str, Account] = {}
        self._timer_grid_ms = timer_grid_ms

    @property
    def is_up(self) -> bool:
        """Whether a process runs."""
        return self.core is not None

    def start(self) -> None:
        """Begin on what the disk holds."""
        assert self.core is None, "it runs already"
        self.starts += 1
        self.core = RelayCore(self._config, self._identity, self.disk.load(), self._entropy)
        self.core.not_before(self._log.time_s * 1_000)
        self._is_asked = True
        self._log.started(self.starts, self._identity.partition)
        self._log.ready()

    def kill(self) -> None:
        """End without a trace."""
        if self.core is not None:
            _add(self._counted, self.core.counters)
        self.core = None
        self._under_way = None
        self._due_ms = None
        self._ghosts.clear()

    def preserve(self, account: str, until_s: int, leaf: int) -> None:
        """Keep what would be erased of somebody's mailboxes, as a preservation order asks.

        Args:
            account: whose.
            until_s: until when, Unix time in seconds.
            leaf: the order's place in the public log.
        """
        if self.core is not None:
            found = self.core._directory.accounts.get(account)
            if found is not None:
                self.core.preserve(tuple(found.mailboxes), until_s, leaf)
                self._is_asked = True

    def release(self, leaf: int, instead: Callable[[bytes, str], tuple[int, int] | None]) -> None:
        """End what an order preserves before its day.

        Args:
            leaf: the order's place in the public log.
            instead: of a mailbox and its account, until when and by which leaf it goes on; None: it does not.
        """
        if self.core is not None:
            found = {mailbox: instead(mailbox, account) for mailbox, account in self.core.preserved_by(leaf)}
            self.core.release(leaf, {mailbox: other for mailbox, other in found.items() if other is not None})
            self._is_asked = True

    @property
    def preserving(self) -> frozenset[int] | None:
        """The leaves of the orders by which something is preserved; None while no process runs."""
        return self.core.preserving() if self.core is not None else None

    def put_ghost(self, account: str, entry: DeviceEntry) -> bool:
        """As the operator is ordered to: put a device on somebody's list that the owner did not sign.

        The list names the owner's account key, which the operator has not; its signature is another key's. It is not
        stored: a restart forgets it.

        Returns:
            whether there is such an account, and a relay that runs.
        """
        if self.core is None:
            return False
        directory = self.core._directory
        real = directory.accounts.get(account)
        if real is None:
            return False
        self._ghosts[account] = real
        devices = replace(
            real.devices,
            version=real.devices.version + 1,
            previous=real.list_hash,
            devices=(*real.devices.devices, entry),
        )
        encoded = encode(devices)
        forged = SignedList(encoded, SigningKey(self._identity.seed).sign("device-list", encoded))
        box = Mailbox(0, entry.mailbox, entry.device_key, account)
        directory.devices[entry.device_key] = Device(account, box)
        boxes = {**real.mailboxes, entry.mailbox: box}
        directory.accounts[account] = Account(forged, devices, list_hash(forged), boxes)
        return True

    def take_ghosts_away(self) -> None:
        """The order is over: the lists are those of their owners again."""
        if self.core is not None:
            self.core._directory.accounts.update(self._ghosts)
        self._ghosts.clear()

    def disclosed(self, at_s: int) -> None:
        """An order was served: no later commit or line is dated before."""
        self._log.not_before(at_s)
        self._log.disclosed(_FILES, 0)
        if self.core is not None:
            self.core.not_before(1_000 * at_s)

    @property
    def counters(self) -> CoreCounters:
        """Of all starts together; what is of now is of now."""
        whole = CoreCounters()
        _add(whole, self._counted)
        if self.core is not None:
            _add(whole, self.core.counters)
            whole.links = self.core.counters.links
            whole.envelopes_held = self.core.counters.envelopes_held
        return whole

    @property
    def envelopes_held(self) -> int:
        """Undelivered envelopes."""
        return self.core.counters.envelopes_held if self.core is not None else 0

    def receive(self, tag: bytes, packet: bytes, now_ms: int) -> None:
        """A packet has come from the broker; a relay that is down does not hear it."""
        if self.core is not None:
            self._is_asked = True
            self.core.receive(tag, packet, now_ms + self.clock_offset_ms)

    def pump(self, now_ms: int) -> list[tuple[bytes, bytes]]:
        """Do what is to be done at this moment; returns what is to be sent."""
        core = self.core
        is_due = self._due_ms is not None and self._due_ms <= now_ms
        if core is None or not (self._is_asked or is_due):
            return []
        self._is_asked = False
        clock_ms = now_ms + self.clock_offset_ms
        if is_due:
            self._due_ms = None
            core.tick(clock_ms)
        try:
            self._commit_all(core, now_ms, clock_ms)
        except PowerCut:
            self.kill()
            self._died()
            return []
        while core.has_reads():
            reads = core.take_reads()
            if not reads:
                break
            core.loaded([(read, self.disk.read(read.seqs)) for read in reads], clock_ms)
        packets = core.take_packets()
        self._arm(core, now_ms)
        return packets

    def _commit_all(self, core: RelayCore, now_ms: int, clock_ms: int) -> None:
        if self._under_way is not None:
            return
        idle = 0
        while core.has_work() and idle < 2:
            batch = core.take_batch(clock_ms)
            if batch is None:
                idle += 1
                continue
            if self.disk.delay_ms:
                self._under_way = batch
                self._later(now_ms + self.disk.delay_ms, partial(self._end_slow, core, batch))
                return
            self._store(core, batch, clock_ms)

    def _store(self, core: RelayCore, batch: Batch, clock_ms: int) -> None:
        try:
            self.disk.commit(batch)
        except StoreError as error:
            core.aborted(batch, error, clock_ms)
            self._log.aborted(len(batch.envelopes))
        else:
            core.committed(batch, clock_ms)
            index = batch.commit.idx if batch.commit is not None else 0
            self._log.committed(index, len(batch.envelopes), batch.acks, batch.body_bytes)

    def _end_slow(self, core: RelayCore, batch: Batch) -> None:
        """The slow disk is done; unless the process has died meanwhile."""
        if self.core is not core or self._under_way is not batch:
            return
        self._under_way = None
        self._is_asked = True
        try:
            self._store(core, batch, self._now_ms() + self.clock_offset_ms)
        except PowerCut:
            self.kill()
            self._died()

    def _arm(self, core: RelayCore, now_ms: int) -> None:
        deadline_ms = core.next_deadline()
        if deadline_ms is None:
            return
        grid_ms = self._timer_grid_ms
        due_ms = max(-(-(deadline_ms - self.clock_offset_ms) // grid_ms), now_ms // grid_ms + 1) * grid_ms
        if self._due_ms is None or due_ms < self._due_ms:
            self._due_ms = due_ms
            self._later(due_ms, _nothing)


def _nothing() -> None:
    """The moment itself is what is wanted: the relay is pumped at each."""


_FILES = 4
"""Of a disclosure without a memory image (protocol.md section 11)."""
_SUMS = (
    "links_made",
    "packets",
    "packets_dropped",
    "frames",
    "frames_sent",
    "envelopes",
    "body_bytes",
    "acks",
    "withdrawals",
    "expired",
    "deliveries",
    "commits",
    "aborted",
    "reads_missing",
)


def _add(whole: CoreCounters, part: CoreCounters) -> None:
    for name in _SUMS:
        setattr(whole, name, getattr(whole, name) + getattr(part, name))
    for code, count in part.refusals.items():
        whole.refusals[code] = whole.refusals.get(code, 0) + count
