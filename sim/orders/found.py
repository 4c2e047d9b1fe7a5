"""What is found and handed over when an order is served: the facts of its answer, and the files of them.

    OUT/orders/ID/disclosure/        of all that the relay holds (sim/engine/disclosures.py)
    OUT/orders/ID/record.msgpack     what is held of one person, for an order for the subscriber record
    OUT/orders/ID/content.msgpack    one person's ciphertext, for an order for their content

As the desk's command does it (blindpost/desk.py): what is honoured is handed over, and its SHA-256 is in the answer.
"""

import hashlib
from pathlib import Path

from relay.core.answers import Facts
from relay.core.docket import OrderKind, Scope
from relay.core.events import Snapshot
from relay.core.policy import Decision
from relay.held import find, mailboxes_of
from relay.store.protocol import Store
from sim.engine.disclosures import Disclosed
from sim.orders.clerk import Received
from wire.codec import encode
from wire.held import column_names

__all__ = ["facts_of"]

_DISCLOSING = frozenset({OrderKind.WHOLESALE, OrderKind.SEIZURE})


def facts_of(received: Received, store: Store, folder: Path | None, disclosed: Disclosed | None, until_s: int) -> Facts:
    """What is found, and done.

    Args:
        received: the order, as the desk has it.
        store: of the relay.
        folder: the order's; None: nothing is written, and so nothing is handed over.
        disclosed: the disclosure that was made, if one was.
        until_s: until when what was ordered holds; 0: it does not.
    """
    filed = received.filed
    if filed is None:
        return Facts()
    snapshot = store.load()
    found = find(snapshot, filed.scope)
    evidence = bytes(32)
    columns: tuple[str, ...] = ()
    if received.decision is Decision.HONOUR and folder is not None:
        if filed.kind in _DISCLOSING and disclosed is not None:
            evidence = disclosed.evidence
        elif filed.kind is OrderKind.SUBSCRIBER and found.held:
            evidence, columns = _written(folder / "record.msgpack", b"".join(found.held)), column_names()
        elif filed.kind is OrderKind.CONTENT and found.envelopes:
            evidence = _written(folder / "content.msgpack", _content(snapshot, store, filed.scope))
    return Facts(
        found=found.mailboxes,
        columns=columns,
        envelopes=found.envelopes,
        body_bytes=found.body_bytes,
        until_s=until_s,
        evidence=evidence,
    )


def _content(snapshot: Snapshot, store: Store, scope: Scope) -> bytes:
    """What waits for a person as it is stored, one MessagePack array an envelope."""
    mailboxes = set(mailboxes_of(snapshot, scope))
    rows = [row for row in snapshot.envelopes if row.mailbox in mailboxes]
    bodies = store.read([row.seq for row in rows])
    return b"".join(
        encode([row.seq, row.mailbox, row.number, row.envelope_id, row.expiry, body])
        for row, body in zip(rows, bodies, strict=True)
    )


def _written(path: Path, data: bytes) -> bytes:
    path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o600)
    return hashlib.sha256(data).digest()
