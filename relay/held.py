"""Collects what the relay holds about one person, column by column, as the schema lists them (wire/held.py).

It reads a snapshot of the store, so that nothing which only the process knows gets in and nothing which is stored stays
out. A table or column that the schema names and the store lacks is an error, never an empty answer.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from relay.control import Found
from relay.core.docket import Scope, ScopeKind
from relay.core.events import Snapshot
from wire import held as schema
from wire.errors import BlindpostError

__all__ = ["NobodyThere", "find", "held_of", "mailboxes_of"]


class NobodyThere(BlindpostError):
    """No account, mailbox or tenant of that name is at this relay."""


class _Row(Protocol):
    @property
    def _fields(self) -> tuple[str, ...]: ...


def mailboxes_of(snapshot: Snapshot, scope: Scope) -> tuple[bytes, ...]:
    """The mailboxes that a scope covers."""
    return tuple(row.mailbox for row in snapshot.mailboxes if scope.covers(row.mailbox, row.account))


def find(snapshot: Snapshot, scope: Scope) -> Found:
    """What is held about a scope; for an account, or the one of a mailbox, with its record."""
    mailboxes = set(mailboxes_of(snapshot, scope))
    waiting = [row.body_bytes for row in snapshot.envelopes if row.mailbox in mailboxes]
    held: tuple[bytes, ...] = ()
    if mailboxes and scope.kind in {ScopeKind.ACCOUNT, ScopeKind.MAILBOX}:
        account = next(row.account for row in snapshot.mailboxes if row.mailbox in mailboxes)
        held = (held_of(snapshot, account).data,)
    return Found(len(mailboxes), len(waiting), sum(waiting), held)


def held_of(snapshot: Snapshot, account: str) -> schema.Held:
    """All that is held about an account.

    Raises:
        NobodyThere: there is none.
    """
    boxes = [row for row in snapshot.mailboxes if row.account == account]
    if not boxes:
        raise NobodyThere(f"there is no account {account} at this relay")
    mailboxes = {row.mailbox for row in boxes}
    devices = {row.device_key for row in boxes}
    mine: Final[dict[str, Iterable[_Row]]] = {
        "mailboxes": boxes,
        "lists": [row for row in snapshot.lists if row.account == account],
        "prekeys": [row for row in snapshot.prekeys if row.device_key in devices],
        "envelopes": [row for row in snapshot.envelopes if row.mailbox in mailboxes],
        "tombstones": [row for row in snapshot.tombstones if row.mailbox in mailboxes],
    }
    return schema.Held(account, tuple(_rows(table, list(mine[table.name])) for table in schema.HELD))


def _rows(table: schema.HeldTable, rows: Sequence[_Row]) -> schema.TableRows:
    columns = tuple(column.name for column in table.columns)
    return schema.TableRows(table.name, columns, tuple(tuple(getattr(row, name) for name in columns) for row in rows))
