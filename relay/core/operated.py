"""What the operator asks of a core between packets and batches: companies, orders, the dates of commits.

    admit_tenant ─▶ the next batch              preserve, release ─▶ preservation.py ─▶ the next batch
    end_service: from now on                    capture ─▶ take_captured, … ─▶ end_capture: capture.py, in memory only

The core (core.py) is one of these that speaks with devices too. What is kept is made here: mailboxes, directory, commit
log, and whose each row is (belongings.py).

Rules: nothing here answers a device. What is to be durable is staged with the next batch, and nothing before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from relay.core.batch import Seqs
from relay.core.belongings import Belongings
from relay.core.capture import TAKEN_BYTES, Captures, Taken
from relay.core.commitlog import CommitLog
from relay.core.directory import Directory
from relay.core.docket import OrderKind, Scope
from relay.core.events import CoreConfig, RelayIdentity, Snapshot
from relay.core.mailboxes import Mailboxes
from wire.errors import FormatError
from wire.identity import check_domain
from wire.limits import KEY_BYTES

__all__ = ["Operated"]


class Operated:
    """What a core keeps, as its operator has it.

    Args:
        config: limits.
        identity: relay id and partition.
        snapshot: what the store holds.

    Raises:
        FormatError: the snapshot contradicts itself.
    """

    def __init__(self, config: CoreConfig, identity: RelayIdentity, snapshot: Snapshot) -> None:
        self._seqs = Seqs.after(snapshot)
        self._log = CommitLog(identity.relay_id, identity.partition, snapshot)
        self._mailboxes = Mailboxes(config, snapshot, self._log, self._seqs)
        self._directory = Directory(snapshot, self._mailboxes, self._seqs)
        self.belongings = Belongings(self._mailboxes, self._directory, config.tombstone_bytes)
        self._captures = Captures()
        self._tenants_waiting: list[tuple[str, bytes]] = []

    # ---- companies

    def admit_tenant(self, domain: str, admin_key: bytes) -> None:
        """Admit a company; goes into the next batch. The same key again changes nothing.

        Raises:
            FormatError: the domain or the key is malformed, or the domain has another key.
        """
        check_domain(domain)
        if len(admin_key) != KEY_BYTES:
            raise FormatError("admin key", f"has {len(admin_key)} bytes", KEY_BYTES)
        known = self._directory.tenants.setdefault(domain, admin_key)
        if known != admin_key:
            raise FormatError("admin key", f"{domain} has another one already")
        if (domain, admin_key) not in self._tenants_waiting and not self._directory.is_stored(domain):
            self._tenants_waiting.append((domain, admin_key))

    def end_service(self, domains: Iterable[str]) -> None:
        """Take nothing new to or from these companies, and admit nobody of theirs; what waits is delivered as always.

        Raises:
            FormatError: one of them is not admitted here.
        """
        ended = set(domains)
        if missing := ended - self._directory.tenants.keys():
            raise FormatError("tenant", f"{min(missing)} is not admitted here")
        self._directory.ended |= ended

    # ---- orders

    def preserve(self, mailbox_ids: tuple[bytes, ...], until_s: int, leaf: int) -> None:
        """Stop expiry and deletion for mailboxes until then (preservation.py); goes into the next batch.

        Raises:
            FormatError: one of the mailboxes is not there.
        """
        self._mailboxes.preservations.ask(mailbox_ids, until_s, leaf)

    def release(self, leaf: int, instead: Mapping[bytes, tuple[int, int]]) -> None:
        """End what an order preserves before its day (preservation.py); goes into the next batch.

        Args:
            leaf: the order's in the public log.
            instead: mailboxes for which another order stands: until when, Unix time in seconds, and its leaf.
        """
        self._mailboxes.preservations.release(leaf, instead)

    def preserved_by(self, leaf: int) -> tuple[tuple[bytes, str], ...]:
        """What the order of a leaf preserves: each mailbox, and the account whose it is."""
        return self._mailboxes.preservations.preserved_by(leaf)

    def preserving(self) -> frozenset[int]:
        """The leaves of the orders by which something is preserved now."""
        return self._mailboxes.preservations.leaves()

    def capture(self, number: int, kind: OrderKind, scope: Scope, until_s: int, now_ms: int) -> None:
        """Record from now on what passes through the mailboxes of a scope (capture.py), until its day or `end_capture`.

        Another capture under the same number ends. Nothing of it outlives this core.

        Args:
            number: the order's.
            kind: interception, with bodies, or a pen register, without.
            scope: whose mailboxes; those that are enrolled later are covered too.
            until_s: Unix time in seconds.
            now_ms: Unix time in milliseconds.

        Raises:
            FormatError: the kind is another, the day has passed, or there are too many captures.
        """
        self._captures.begin(number, kind, scope, until_s, self.belongings.covered(scope), now_ms)

    def take_captured(self, number: int, now_ms: int, bytes_max: int = TAKEN_BYTES) -> Taken:
        """Return what an order's capture has recorded since the last time; to be asked often enough.

        Raises:
            FormatError: nothing is captured for that order.
        """
        return self._captures.take(number, bytes_max, now_ms)

    def end_capture(self, number: int, reason: str, now_ms: int) -> None:
        """End a capture; what waits can still be taken. If there is none of this number, nothing happens."""
        self._captures.end(number, reason, now_ms)

    def forget_capture(self, number: int) -> None:
        """End a capture that nobody takes from any more: what waits is thrown away."""
        self._captures.forget(number)

    # ---- the dates of commits

    @property
    def time_ms(self) -> int:
        """The time below which no commit will be dated."""
        return self._log.time_ms

    def not_before(self, time_ms: int) -> None:
        """Date no later commit before this (sections 5.2 and 11)."""
        self._log.not_before(time_ms)
