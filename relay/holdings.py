"""What the running relay does for an order that is no disclosure: find, preserve, read ciphertext of one scope.

Commits wait while the store's rows are read, so that each answer is of one moment. Whoever asks is asking.py's.
"""

from __future__ import annotations

from typing import Final

from relay.control import Content, Found
from relay.core.docket import Scope
from relay.core.events import EnvelopeIndexRow
from relay.held import find, mailboxes_of
from relay.service import RelayService

__all__ = ["content", "found", "preserve"]

# One answer with content: far below what the control socket carries.
_CONTENT_BYTES: Final = 16 * 1024 * 1024
_CONTENT_ROWS: Final = 4_096


async def found(service: RelayService, scope: Scope) -> Found:
    """What the relay holds about a scope. Commits wait while the store's rows, not its bodies, are read.

    Raises:
        StoreError: they cannot be read.
    """
    async with service.held():
        return await service.in_thread(lambda: find(service.store.load(), scope))


async def content(service: RelayService, scope: Scope, after: int) -> Content:
    """The undelivered envelopes of a scope whose rows come after `after`, up to 16 MiB of bodies: ciphertext.

    Raises:
        StoreError: they cannot be read.
    """
    async with service.held():
        snapshot = await service.in_thread(service.store.load)
        mailboxes = set(mailboxes_of(snapshot, scope))
        rows: list[EnvelopeIndexRow] = []
        size = 0
        for row in snapshot.envelopes:
            if row.seq > after and row.mailbox in mailboxes and size < _CONTENT_BYTES and len(rows) < _CONTENT_ROWS:
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
    async with service.held():
        snapshot = await service.in_thread(service.store.load)
    mailboxes = mailboxes_of(snapshot, scope)
    if mailboxes:
        await service.preserve(mailboxes, until_s, leaf)
    return find(snapshot, scope)
