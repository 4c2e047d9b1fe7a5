"""What the running relay does for an order that is no disclosure: find, preserve, read ciphertext of one scope.

Commits wait only while the rows that are asked for are read, so that each answer is of one moment, and costs what is
held about its scope and not what is held in all: the core knows their numbers (core/belongings.py). Whoever asks is
asking.py's.
"""

from __future__ import annotations

from typing import Final

from relay.control import Content, Found
from relay.core.docket import Scope
from relay.core.events import EnvelopeIndexRow, RowNumbers, Snapshot
from relay.held import find
from relay.service import RelayService

__all__ = ["content", "found", "preserve"]

# One answer with content: far below what the control socket carries.
_CONTENT_BYTES: Final = 16 * 1024 * 1024
_CONTENT_ROWS: Final = 4_096


async def found(service: RelayService, scope: Scope) -> Found:
    """What the relay holds about a scope.

    Raises:
        StoreError: it cannot be read.
    """
    return (await _found(service, scope))[0]


async def _found(service: RelayService, scope: Scope) -> tuple[Found, tuple[bytes, ...]]:
    """What is held about a scope, and its mailboxes at the same moment."""
    belongings = service.core.belongings
    async with service.held():
        covered = belongings.covered(scope)
        mailboxes = tuple(mailbox.id for mailbox in covered)
        account = belongings.account_of(scope)
        if account is None:
            envelopes, body_bytes, kept = belongings.waiting(covered)
            more = [row.body_bytes for row in (await _rows(service, kept)).envelopes]
            return Found(len(covered), envelopes + len(more), body_bytes + sum(more), held=()), mailboxes
        snapshot = await _rows(service, belongings.rows_of(account))
    return find(snapshot, scope), mailboxes


async def content(service: RelayService, scope: Scope, after: int) -> Content:
    """The undelivered envelopes of a scope whose rows come after `after`, up to 16 MiB of bodies: ciphertext.

    Raises:
        StoreError: they cannot be read.
    """
    belongings = service.core.belongings
    async with service.held():
        # Of everybody it takes a while; while the store is held, nothing changes what mailboxes hold.
        numbers = await service.in_thread(
            lambda: belongings.envelopes_after(belongings.covered(scope), after, _CONTENT_ROWS)
        )
        rows: list[EnvelopeIndexRow] = []
        size = 0
        for row in (await _rows(service, numbers)).envelopes:
            if size >= _CONTENT_BYTES:
                break
            rows.append(row)
            size += row.body_bytes
        bodies = await service.in_thread(lambda: service.store.read([row.seq for row in rows]))
    return Content(
        tuple(
            (row.seq, row.mailbox, row.number, row.envelope_id, row.expiry, body)
            for row, body in zip(rows, bodies, strict=True)
            if body is not None
        )
    )


async def preserve(service: RelayService, scope: Scope, until_s: int, leaf: int) -> Found:
    """Preserve the mailboxes of a scope; durable on return.

    Raises:
        StoreError: it could not be stored.
    """
    before, mailboxes = await _found(service, scope)
    if mailboxes:
        await service.preserve(mailboxes, until_s, leaf)
    return before


async def _rows(service: RelayService, numbers: RowNumbers) -> Snapshot:
    return await service.in_thread(service.store.rows, numbers)
