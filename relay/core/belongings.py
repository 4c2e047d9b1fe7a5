"""Which rows of the store are about whom, by number, without looking at the store (protocol.md section 9).

The core knows the number of each row of a mailbox: it wrote them. So an answer about one person costs what is held
about that person (`Store.rows`), however much is held of others.

Rules: to be asked only while no batch is under way, when memory and store hold the same; nothing is changed here. A
mailbox that is closed, and rows that only a preservation keeps, are held and therefore named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import nsmallest
from typing import Final

from relay.core.directory import Directory
from relay.core.docket import Scope, ScopeKind
from relay.core.events import RowNumbers
from relay.core.mailboxes import Mailbox, Mailboxes
from wire.identity import domain_of
from wire.limits import ACCOUNT_BYTES_MAX, HELD_BYTES_MAX, ML_KEM_768_PUBLIC_BYTES, SIGNED_LIST_BYTES_MAX

__all__ = ["Belongings"]

# Upper bounds of what a row takes in a record: its values, and what MessagePack adds to them.
_HEAD_BYTES: Final = 2_048
_MAILBOX_BYTES: Final = 128 + ACCOUNT_BYTES_MAX
_LIST_BYTES: Final = 128 + ACCOUNT_BYTES_MAX + SIGNED_LIST_BYTES_MAX
_PREKEY_BYTES: Final = 256 + ML_KEM_768_PUBLIC_BYTES
_MAIL_BYTES: Final = 128


class Belongings:
    """Rows by person, over the core's machines.

    Args:
        mailboxes: all mailboxes.
        directory: all accounts.
        tombstone_bytes: what a tombstone counts in a mailbox's bytes.
    """

    def __init__(self, mailboxes: Mailboxes, directory: Directory, tombstone_bytes: int) -> None:
        self._mailboxes = mailboxes
        self._directory = directory
        self._tombstone_bytes = tombstone_bytes

    def covered(self, scope: Scope) -> list[Mailbox]:
        """The mailboxes that a scope covers, closed ones too, in the order of their rows."""
        found: Iterable[Mailbox]
        if scope.kind is ScopeKind.ACCOUNT:
            found = self._of_account(scope.name)
        elif scope.kind is ScopeKind.MAILBOX:
            named = self._mailboxes.by_id.get(bytes.fromhex(scope.name))
            found = () if named is None else (named,)
        elif scope.kind is ScopeKind.TENANT:
            found = (one for one in self._mailboxes.by_id.values() if domain_of(one.account) == scope.name)
        else:
            found = self._mailboxes.by_id.values()
        return sorted(found, key=_seq)

    def _of_account(self, account: str) -> list[Mailbox]:
        known = self._directory.accounts.get(account)
        named = list(known.mailboxes.values()) if known is not None else []
        return named + self._directory.former.get(account, [])

    def account_of(self, scope: Scope) -> str | None:
        """The account of a scope that is one person's: by name, or by a mailbox; None if there is none."""
        if scope.kind not in {ScopeKind.ACCOUNT, ScopeKind.MAILBOX}:
            return None
        covered = self.covered(scope)
        return covered[0].account if covered else None

    def rows_of(self, account: str) -> RowNumbers:
        """Every row that is about one account; none, if there is no such account."""
        mailboxes = self._of_account(account)
        known = self._directory.accounts.get(account)
        prekeys: list[int] = []
        for mailbox in mailboxes:
            device = self._directory.devices.get(mailbox.device_key)
            if device is not None:
                kept = (device.signed_prekey, device.kem_prekey, *device.one_time.values())
                prekeys.extend(one[0] for one in kept if one is not None)
        return RowNumbers(
            mailboxes=tuple(sorted(mailbox.seq for mailbox in mailboxes)),
            lists=known.list_rows if known is not None else (),
            prekeys=tuple(sorted(prekeys)),
            envelopes=tuple(sorted(_envelopes(mailboxes))),
            tombstones=tuple(sorted(held.seq for one in mailboxes for held in one.tombstones.values())),
        )

    def record_bytes_most(self, account: str) -> int:
        """At most so many bytes has the record of an account; also while a batch is under way."""
        mailboxes = self._of_account(account)
        known = self._directory.accounts.get(account)
        lists = len(known.list_rows) if known is not None else 0
        rows = sum(len(one.entries) + len(one.tombstones) for one in mailboxes)
        rows += sum(len(one.preservation.kept) for one in mailboxes if one.preservation is not None)
        devices = (self._directory.devices.get(one.device_key) for one in mailboxes)
        prekeys = sum(2 + len(device.one_time) for device in devices if device is not None)
        size = _HEAD_BYTES + len(mailboxes) * _MAILBOX_BYTES + lists * _LIST_BYTES
        return min(size + prekeys * _PREKEY_BYTES + rows * _MAIL_BYTES, HELD_BYTES_MAX)

    @staticmethod
    def envelopes_after(mailboxes: Iterable[Mailbox], after: int, rows_max: int) -> RowNumbers:
        """The first rows of envelopes of mailboxes whose number is above `after`, so many at most."""
        above: Callable[[int], bool] = after.__lt__
        return RowNumbers(envelopes=tuple(nsmallest(rows_max, filter(above, _envelopes(mailboxes)))))

    def waiting(self, mailboxes: Iterable[Mailbox]) -> tuple[int, int, RowNumbers]:
        """How many envelopes wait in mailboxes, the bytes of their bodies, and the rows that are not counted in these
        two because preservation alone keeps them.
        """
        envelopes = body_bytes = 0
        kept: list[int] = []
        for mailbox in mailboxes:
            envelopes += len(mailbox.entries)
            body_bytes += mailbox.held_bytes - self._tombstone_bytes * len(mailbox.tombstones)
            if mailbox.preservation is not None:
                kept.extend(mailbox.preservation.kept)
        return envelopes, body_bytes, RowNumbers(envelopes=tuple(sorted(kept)))


def _envelopes(mailboxes: Iterable[Mailbox]) -> Iterator[int]:
    for mailbox in mailboxes:
        for held in mailbox.entries.values():
            yield held.seq
        if mailbox.preservation is not None:
            yield from mailbox.preservation.kept


def _seq(mailbox: Mailbox) -> int:
    return mailbox.seq
