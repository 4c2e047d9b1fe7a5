"""What the running relay does where a preservation ends: by its day, or because the authority has taken the order back.

The operator's desk has the log, the relay has the rows. The desk asks for which orders the relay still preserves
something (asking.py), and logs an end only of those for which it does not.
"""

from __future__ import annotations

from collections.abc import Iterable

from relay.control import Preserving, Standing
from relay.core.docket import Scope, ScopeKind
from relay.service import RelayService

__all__ = ["preserving", "release"]


async def preserving(service: RelayService) -> Preserving:
    """The leaves of the orders for which something is preserved: as it is stored, with no commit under way.

    Raises:
        RelayStopping: it is closed.
    """
    async with service.held():
        return Preserving(tuple(sorted(service.core.preserving())))


async def release(service: RelayService, leaf: int, standing: Iterable[Standing]) -> None:
    """End what an order preserves before its day; on return what it alone kept is erased.

    Args:
        service: the relay.
        leaf: the order's in the log.
        standing: other orders that hold. A mailbox that one of them covers goes on until the latest of their days.

    Raises:
        FormatError: a scope is none.
        StoreError: a commit failed. If it was not the first, the relay goes on by itself.
    """
    others = [(Scope(ScopeKind(other.scope), other.name), other) for other in standing]
    instead: dict[bytes, tuple[int, int]] = {}
    for mailbox, account in service.core.preserved_by(leaf):
        covering = [(other.until, other.leaf) for scope, other in others if scope.covers(mailbox, account)]
        if covering:
            instead[mailbox] = max(covering)
    service.core.release(leaf, instead)
    await service.durable()
    while leaf in service.core.preserving():
        # More was kept than one batch may erase.
        await service.durable()
