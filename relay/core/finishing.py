"""What a batch lets out once it is durable: receipts, deliveries, answers, and what captures record of it.

    Staged (batch.py) ─finish─▶ mailboxes, directory and log as they are on disk ─▶ outboxes (links.py)

Rules: called by `committed`, and for a batch that had nothing to make durable. Captures record what leaves while the
mailboxes still have it, and a delivery once it was handed out.
"""

from __future__ import annotations

from relay.core.batch import Staged
from relay.core.capture import Captures
from relay.core.commands import Commands
from relay.core.commitlog import CommitLog, paths_in
from relay.core.delivery import Deliveries
from relay.core.events import CoreCounters
from relay.core.links import Links
from relay.core.mailboxes import Mailboxes
from wire.receipt import ReceiptEntry

__all__ = ["Finishing"]

# About what a receipt takes beside its path; the header is shared.
_RECEIPT_BYTES = 64


class Finishing:
    """Ends batches well, over the core's machines."""

    def __init__(
        self,
        counters: CoreCounters,
        links: Links,
        mailboxes: Mailboxes,
        deliveries: Deliveries,
        commands: Commands,
        log: CommitLog,
        captures: Captures,
    ) -> None:
        self._counters = counters
        self._links = links
        self._mailboxes = mailboxes
        self._deliveries = deliveries
        self._commands = commands
        self._log = log
        self._captures = captures

    def finish(self, staged: Staged, now_ms: int, stopping: bool) -> None:
        """Keep what a batch promised, as it is durable now.

        Args:
            staged: the batch and its promises.
            now_ms: Unix time in milliseconds.
            stopping: the relay is shutting down, so that no answer may wait for a later frame.
        """
        batch = staged.batch
        captures = self._captures
        if captures.on:
            captures.committed(staged, now_ms)
        self._mailboxes.committed(staged)
        self._give_receipts(staged)
        self._deliveries.gone([item[0] for item in staged.leaving])
        self._deliveries.gone(staged.expiring)
        self._deliveries.fresh(staged.fresh, batch.envelopes, now_ms)
        if captures.on:
            captures.delivered_fresh(staged.fresh, batch.envelopes, now_ms)
        for mailbox in staged.closed:
            self._deliveries.end(mailbox)
            self._mailboxes.close(mailbox)
        for link, ref in staged.done:
            self._links.talk(link).done(ref)
        for link, ref in staged.acked:
            if stopping:
                self._links.talk(link).done(ref)
            else:
                self._links.done_late(link, ref, now_ms)
        for link, answer in staged.answers:
            self._commands.say(link, answer)
        if batch.commits_below:
            self._log.pruned(batch.commits_below)
        self._count(staged)

    def _give_receipts(self, staged: Staged) -> None:
        row = staged.batch.commit
        if row is None:
            for link, ref, kept in staged.submits:
                for position, held in enumerate(kept):
                    self._commands.receipt(link, ref, position, held)
            return
        self._log.committed(row)
        index, header, signature = row.idx, row.header, row.signature
        paths = paths_in(staged.tree)
        self._links.outgoing_bytes += len(staged.fresh) * (_RECEIPT_BYTES + len(paths[0]))
        talk = self._links.talk
        for link, ref, kept in staged.submits:
            outbox = talk(link)
            for position, held in enumerate(kept):
                if held.commit_index == index:
                    leaf = held.leaf
                    outbox.receipt(header, signature, ReceiptEntry(ref, position, held.number, leaf, paths[leaf]))
                else:
                    self._commands.receipt(link, ref, position, held)

    def _count(self, staged: Staged) -> None:
        batch, counters = staged.batch, self._counters
        withdrawn = staged.withdrawn
        counters.envelopes += len(batch.envelopes)
        counters.body_bytes += batch.body_bytes
        counters.acks += batch.acks - withdrawn
        counters.withdrawals += withdrawn
        counters.expired += len(staged.expiring) - len(batch.tombstones_erased)
        counters.envelopes_held = self._mailboxes.live
