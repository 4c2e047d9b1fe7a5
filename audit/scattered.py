"""Finds pieces of a text or a secret among ids, keys and numbers, in whatever order they lie.

A text that is cut into 16-byte ids stands in no file as a whole, and rows can be put into another order than the text
has. But ids, hashes and keys are random or look so: eight bytes of a canary do not stand in one by chance. So it is
asked the other way round: is any window of 8 bytes of any such value a piece of what is looked for? Columns that may
rightly hold words (accounts, domains, device lists with their account) are left out, since texts name people too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from audit.schema import TABLES
from audit.store import Store

PIECE_BYTES: Final = 8
DISTINCT_BYTES_MIN: Final = 5
_WORDS: Final = frozenset({"lists.signed_list", "relay.value", "envelopes.body"})


def pieces_of(subjects: Sequence[tuple[int, bytes]]) -> dict[bytes, int]:
    """All windows of the texts and secrets that are regular in no way, with whose they are."""
    pieces: dict[bytes, int] = {}
    for subject, data in subjects:
        for start in range(len(data) - PIECE_BYTES + 1):
            piece = data[start : start + PIECE_BYTES]
            if len(set(piece)) >= DISTINCT_BYTES_MIN:
                pieces.setdefault(piece, subject)
    return pieces


def scattered(store: Store, pieces: dict[bytes, int]) -> Iterator[tuple[str, int]]:
    """Where a value holds a piece, and whose piece it is; each value once."""
    for where, value in _values(store):
        for start in range(len(value) - PIECE_BYTES + 1):
            subject = pieces.get(value[start : start + PIECE_BYTES])
            if subject is not None:
                yield where, subject
                break


def _values(store: Store) -> Iterator[tuple[str, bytes]]:
    for table, rows in store.tables.items():
        columns = [c.name for c in TABLES[table] if c.kind == "BLOB" and f"{table}.{c.name}" not in _WORDS]
        for row in rows:
            for column in columns:
                yield f"{table} row {row.seq}, {column}", row.blob(column)
    for envelope in store.envelopes:
        where = f"envelopes row {envelope.seq}"
        yield f"{where}, mailbox", envelope.mailbox
        yield f"{where}, envelope_id", envelope.envelope_id
        yield f"{where}, head of the body", envelope.body_head
