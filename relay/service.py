"""The relay's loop: joins core, store and transport, and is the only part that knows time and threads.

    transport.receive ─▶ core.receive            packets become commands that wait
    core.take_batch ─▶ store.commit (thread) ─▶ core.committed or core.aborted
    core.take_reads ─▶ store.read (thread) ─▶ core.loaded
    core.take_record ─▶ store.rows (thread) ─▶ records.py ─▶ core.record_made
    core.take_packets ─▶ transport.send          receipts, deliveries, refusals; sealed when they leave

Rules:
- one job of the store at a time, in one thread of its own; while it runs, the next batch gathers: commits
  group by themselves. A small batch on a disk that was quick the last time is committed here instead: to hand it over
  and back would take as long as the disk does, and its receipts leave before the next batch is begun;
- nothing is answered before its commit; a failed commit is told to its senders by the core and stops nothing else;
- packets are taken from the core only when the transport can take them; what waits is bounded by the core's own limits;
- the write-ahead log is emptied at the latest half a second after a commit, and when nothing happened for 50 ms
  (protocol.md section 9, bounds of erasure: one second);
- whoever needs the store to stand still (a disclosure, a rotation) holds it with `held`; commands go on
  waiting meanwhile.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from relay.core import Batch, Read, RelayCore, Snapshot
from relay.core.events import CoreCounters, RowNumbers
from relay.log import RelayLog
from relay.records import RecordMaker
from relay.store.protocol import Store, StoreError
from relay.tasks import end_tasks
from relay.transport import RelayTransport, TransportClosed
from wire.codec import decode
from wire.errors import BlindpostError
from wire.receipt import CommitHeader, commit_hash
from wire.rotation import Rotation

CHECKPOINT_LATEST_MS = 500
CHECKPOINT_IDLE_MS = 50
CHECKPOINT_RETRY_MS = 1_000
READ_RETRY_MS = 1_000
REPORT_MS = 1_000
RECEIVE_PACKETS_MAX = 32
BEGIN_BYTES_MAX = 2 * 1_048_576
"""A batch with no more bytes to write is applied here, and only its end, with its fsync, waits in the thread."""
INLINE_ROWS_MAX = 128
INLINE_BYTES_MAX = 131_072
INLINE_S_MAX = 0.003
"""A batch with no more rows and bytes is committed without the thread, if the last COMMIT took no longer than that."""

T = TypeVar("T")


class RelayStopping(BlindpostError):
    """The relay is shutting down and takes no more orders."""


class RelayFailed(BlindpostError):
    """The relay cannot go on, and has stopped; what was receipted is safe."""


def head_of(snapshot: Snapshot) -> tuple[int, bytes]:
    """Index and hash of the last commit that a store holds; 0 and zeros if it holds none."""
    if not snapshot.commits:
        return 0, bytes(32)
    header = snapshot.commits[-1].header
    return decode(CommitHeader, header, "commit header").index, commit_hash(header)


class RelayService:
    """One relay at work.

    Args:
        core: made from the store's snapshot.
        store: where batches go; this service closes it.
        transport: where packets come from and go to; this service starts and closes it.
        log: where events go.
        clock_ms: Unix time in milliseconds.
        head: index and hash of the last commit in the store (`head_of`).
    """

    def __init__(
        self,
        core: RelayCore,
        store: Store,
        transport: RelayTransport,
        log: RelayLog,
        clock_ms: Callable[[], int],
        head: tuple[int, bytes],
    ) -> None:
        self.core = core
        self.store = store
        self.transport = transport
        self.log = log
        self.head = head
        self._clock_ms = clock_ms
        self._thread = ThreadPoolExecutor(1, "relay-store")
        self._standing = asyncio.Lock()
        self._work = asyncio.Event()
        self._packets = asyncio.Event()
        self._taken = asyncio.Event()
        self._stop = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._tenants: list[asyncio.Future[None]] = []
        self._reads: list[Read] = []
        self._reads_after_ms = 0
        self._last_commit_ms = 0
        self._first_commit_ms: int | None = None
        self._checkpoint_after_ms = 0
        self._reported_ms = 0
        self._reported_links = 0
        self._reported_refusals: dict[int, int] = {}
        self._closed = False
        self._ran = False
        self._failure: str | None = None
        self._records = RecordMaker(core, self._rows, clock_ms, self._record_made)
        # What the last COMMIT took; the first goes to the thread.
        self._commit_s = float("inf")

    # ---- life

    async def run(self, on_ready: Callable[[], Awaitable[None]] | None = None) -> None:
        """Serve until `stop`; then commit what was received, empty the write-ahead log, close.

        Args:
            on_ready: called once devices can reach the relay.

        Raises:
            Exception: whatever stopped a part that must not stop; the store is closed all the same.
        """
        self._ran = True
        tasks: list[asyncio.Task[object]] = []
        try:
            tasks.append(asyncio.create_task(self._stop.wait(), name="stop"))
            starting: asyncio.Task[object] = asyncio.create_task(self.transport.start(), name="start")
            await asyncio.wait((starting, tasks[0]), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                return
            await starting
            tasks.append(asyncio.create_task(self._receive_loop(), name="receive"))
            tasks.append(asyncio.create_task(self._store_loop(), name="store"))
            tasks.append(asyncio.create_task(self._send_loop(), name="send"))
            self.log.ready()
            self._work.set()
            if on_ready is not None:
                await on_ready()
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self.log.stopping()
            self.core.stop()
            # A commit that is under way is let end: its outcome must reach the core.
            async with self._standing:
                await end_tasks(tasks)
            await self.close()
        if self._failure is not None:
            raise RelayFailed(self._failure)

    def stop(self) -> None:
        """Ask the relay to stop; `run` returns when it has."""
        self._stop.set()

    def fail(self, reason: str) -> None:
        """Stop because the relay cannot go on; nothing more is committed, and `run` raises `RelayFailed`."""
        self._failure = reason
        self._stop.set()

    async def close(self) -> None:
        """Commit what waits, answer it, and close transport, store and log. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await self._records.close()
        try:
            async with self._standing:
                # Two rounds are enough for what waits, and under a full disk the stop does not take for ever.
                for _ in range(2 if self._failure is None else 0):
                    if self.core.has_work():
                        await self._commit()
                if packets := self.core.take_packets():
                    await self.transport.send(packets)
        finally:
            for tenant in self._tenants:
                if not tenant.done():
                    tenant.set_exception(RelayStopping("the relay is stopping"))
            await self.transport.close()
            try:
                await self.in_thread(self.store.close)
            finally:
                self._thread.shutdown()
                self._report(self._clock_ms())
                if self._ran:
                    self.log.stopped()
                self.log.close()

    # ---- the operator

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold the store still: no commit, no read, no checkpoint but the holder's own.

        Raises:
            RelayStopping: it is closed.
        """
        async with self._standing:
            if self._closed:
                raise RelayStopping("the relay is stopping")
            try:
                yield
            finally:
                self._work.set()

    async def commit_waiting(self) -> None:
        """Commit what waits for the next batch; to be called while the store is held.

        A commit that fails raises nothing: what waits goes on waiting, as after any that fails.
        """
        if self.core.has_work():
            await self._commit()

    async def checkpoint(self) -> int:
        """Empty the write-ahead log; to be called while the store is held. Returns pages moved.

        Raises:
            StoreError: it cannot be emptied.
        """
        pages = await self.in_thread(self.store.checkpoint)
        self._first_commit_ms = None
        self.log.checkpointed(pages)
        return pages

    async def admit_tenant(self, domain: str, admin_key: bytes) -> None:
        """Admit a company; durable on return.

        Raises:
            FormatError: the domain or key is malformed, or the domain has another key.
            StoreError: the commit failed.
        """
        self.core.admit_tenant(domain, admin_key)
        await self.durable()

    async def preserve(self, mailbox_ids: tuple[bytes, ...], until_s: int, leaf: int) -> None:
        """Stop expiry and deletion for mailboxes until then; durable on return.

        Raises:
            FormatError: one of them is not there.
            StoreError: the commit failed.
        """
        self.core.preserve(mailbox_ids, until_s, leaf)
        await self.durable()

    async def durable(self) -> None:
        """Wait until what the core was asked for is committed: at least the next batch of it.

        Raises:
            StoreError: the commit failed.
        """
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tenants.append(committed)
        self._work.set()
        await committed

    def rotate(self, seed: bytes) -> Rotation:
        """Change the signing key; to be called while the store is held. The caller saves the key before it lets go."""
        rotation = self.core.rotate(seed, self._clock_ms())
        self.log.rotated(self.head[0])
        return rotation

    @property
    def counters(self) -> CoreCounters:
        """The core's counters."""
        return self.core.counters

    # ---- the parts

    async def _receive_loop(self) -> None:
        receive, clock_ms = self.core.receive, self._clock_ms
        with contextlib.suppress(TransportClosed):
            while True:
                if self.core.has_backlog():
                    # The broker takes less than it gives: what is received now would only make it worse.
                    self._taken.clear()
                    self._packets.set()
                    await self._taken.wait()
                for device_tag, packet in await self.transport.receive(RECEIVE_PACKETS_MAX):
                    receive(device_tag, packet, clock_ms())
                self._work.set()
                self._packets.set()
                # A full queue gives its packets without waiting: the other parts must have their turn.
                await asyncio.sleep(0)

    async def _send_loop(self) -> None:
        while True:
            await self._packets.wait()
            self._packets.clear()
            packets = self.core.take_packets()
            self._taken.set()
            # While a failed read waits to be repeated, the timer wakes the store: nothing else is read before it.
            if self.core.has_reads() and not self._reads:
                self._work.set()
            if packets:
                await self.transport.send(packets)

    async def _store_loop(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            async with self._standing:
                if self._failure is None:
                    await self._step()
            self._packets.set()
            self._arm()
            if self._commit_s <= INLINE_S_MAX:
                # What was committed here is answered before the next batch is begun.
                await asyncio.sleep(0)

    async def step(self) -> None:
        """Do what is due now, without a transport: for a relay that is not served."""
        async with self._standing:
            await self._step()

    async def _step(self) -> None:
        now_ms = self._clock_ms()
        deadline_ms = self.core.next_deadline()
        if deadline_ms is not None and deadline_ms <= now_ms:
            self.core.tick(now_ms)
        if self._tenants or self.core.has_work():
            await self._commit()
        await self._read()
        await self._records.step()
        now_ms = self._clock_ms()
        if self._checkpoint_due_ms() <= now_ms:
            await self._checkpoint()
        if now_ms >= self._reported_ms + REPORT_MS:
            self._report(now_ms)

    async def _commit(self) -> None:
        tenants, self._tenants = self._tenants, []
        batch = self.core.take_batch(self._clock_ms())
        error: StoreError | None = None
        if batch is not None:
            # The reason of the failure is the store's business; whatever it was, this batch is not stored.
            try:
                if batch.body_bytes + batch.erased_bytes <= BEGIN_BYTES_MAX:
                    self.store.begin(batch)
                if self._is_small(batch):
                    self._commit_timed(batch)
                else:
                    await self.in_thread(self._commit_timed, batch)
            except Exception as failure:
                error = StoreError(f"the commit failed: {type(failure).__name__}")
                self.core.aborted(batch, failure, self._clock_ms())
                self.log.aborted(len(batch.envelopes))
            else:
                self._committed(batch)
        for tenant in tenants:
            if tenant.done():
                continue
            if error is None:
                tenant.set_result(None)
            else:
                tenant.set_exception(error)
        self._packets.set()

    def _is_small(self, batch: Batch) -> bool:
        """Tell whether the disk is likely done before a thread would have been woken."""
        return (
            self._commit_s <= INLINE_S_MAX
            and len(batch.envelopes) + len(batch.tombstones) <= INLINE_ROWS_MAX
            and batch.body_bytes + batch.erased_bytes <= INLINE_BYTES_MAX
        )

    def _commit_timed(self, batch: Batch) -> None:
        start_s = time.perf_counter()
        try:
            self.store.commit(batch)
        finally:
            self._commit_s = time.perf_counter() - start_s

    def _committed(self, batch: Batch) -> None:
        now_ms = self._clock_ms()
        index = 0
        if batch.commit is not None:
            index = batch.commit.idx
            self.head = index, commit_hash(batch.commit.header)
        self.core.committed(batch, now_ms)
        self.log.committed(index, len(batch.envelopes), batch.acks, batch.body_bytes)
        self._last_commit_ms = now_ms
        if self._first_commit_ms is None:
            self._first_commit_ms = now_ms

    async def _read(self) -> None:
        now_ms = self._clock_ms()
        if self._reads and now_ms < self._reads_after_ms:
            return
        reads = self._reads or self.core.take_reads()
        self._reads = []
        if not reads:
            return
        try:
            loaded = await self.in_thread(self._read_all, reads)
        except Exception:  # a disk that cannot be read now is asked again; deliveries wait
            self._reads = reads
            self._reads_after_ms = now_ms + READ_RETRY_MS
            return
        self.core.loaded(loaded, self._clock_ms())
        self._packets.set()

    def _read_all(self, reads: Sequence[Read]) -> list[tuple[Read, list[bytes | None]]]:
        bodies = iter(self.store.read([seq for read in reads for seq in read.seqs]))
        return [(read, [next(bodies) for _ in read.seqs]) for read in reads]

    async def _rows(self, numbers: RowNumbers) -> Snapshot:
        return await self.in_thread(self.store.rows, numbers)

    def _record_made(self) -> None:
        self._packets.set()
        self._work.set()

    def _checkpoint_due_ms(self) -> int | float:
        if self._first_commit_ms is None:
            return float("inf")
        due_ms = min(self._first_commit_ms + CHECKPOINT_LATEST_MS, self._last_commit_ms + CHECKPOINT_IDLE_MS)
        return max(due_ms, self._checkpoint_after_ms)

    async def _checkpoint(self) -> None:
        try:
            await self.checkpoint()
        except Exception:  # the next attempt follows; commits do not depend on it
            self._checkpoint_after_ms = self._clock_ms() + CHECKPOINT_RETRY_MS

    def _arm(self) -> None:
        """Wake up again when the next thing is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_ms = self._clock_ms()
        due_ms: int | float = self._checkpoint_due_ms()
        deadline_ms = self.core.next_deadline()
        if deadline_ms is not None:
            due_ms = min(due_ms, deadline_ms)
        if self._reads:
            due_ms = min(due_ms, self._reads_after_ms)
        if self._unreported():
            due_ms = min(due_ms, self._reported_ms + REPORT_MS)
        if self.core.has_work() or (self.core.has_reads() and not self._reads) or self.core.wants_record(now_ms):
            due_ms = now_ms
        if due_ms != float("inf"):
            self._timer = asyncio.get_running_loop().call_later(max(0.0, (due_ms - now_ms) / 1_000), self._work.set)

    def _unreported(self) -> bool:
        return self.counters.links != self._reported_links or self.counters.refusals != self._reported_refusals

    def _report(self, now_ms: int) -> None:
        """Log what has changed in the counters, at most once a second."""
        self._reported_ms = now_ms
        if self.counters.links != self._reported_links:
            self._reported_links = self.counters.links
            self.log.linked(self._reported_links)
        for code, count in sorted(self.counters.refusals.items()):
            if count != (before := self._reported_refusals.get(code, 0)):
                self._reported_refusals[code] = count
                self.log.refused(code, count - before)

    # ---- threads

    async def in_thread(self, job: Callable[..., T], *arguments: object) -> T:
        """Run a job of the store to its end, even if the waiting task is cancelled meanwhile."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, job, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if not future.done():
                await asyncio.wait((future,))
            raise
