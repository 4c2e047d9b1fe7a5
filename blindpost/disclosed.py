"""The rows of a disclosure that belong to one mailbox, for their owner who wants to open them.

The file comes from whoever served the order, so it is read as hostile: opened read-only and as it lies (nothing is
written beside it), with SQLite told to trust nothing of its schema, and each value checked before it is used. What the
disclosure is worth as a whole is the verifier's business, not this module's.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from wire.envelope import Envelope
from wire.errors import FormatError
from wire.limits import BODY_BYTES_MAX, BODY_BYTES_MIN, ID_BYTES

__all__ = ["STORE_PATH", "rows_of"]

STORE_PATH: Final = Path("store", "store.sqlite")
_QUERY: Final = "SELECT envelope_id, expiry, body FROM envelopes WHERE mailbox = ? ORDER BY seq"


def rows_of(disclosure: Path, mailbox: bytes) -> Iterator[Envelope]:
    """The envelopes of one mailbox in a disclosure's store.

    Args:
        disclosure: the directory that was handed over.
        mailbox: 16 bytes.

    Raises:
        FormatError: the store is none of this protocol, or a row of the mailbox is no envelope.
        OSError: it cannot be read.
    """
    path = disclosure / STORE_PATH
    with path.open("rb"):
        pass  # a file that is not there is the system's error, in its own words
    # immutable: no locks, no journal is looked for, nothing is written beside it.
    address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    try:
        connection = sqlite3.connect(address, uri=True)
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA query_only = ON")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2 * BODY_BYTES_MAX)
            for row in connection.execute(_QUERY, (mailbox,)):
                yield _envelope(mailbox, row)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise FormatError("disclosure store", f"is no store of this protocol: {error}") from None


def _envelope(mailbox: bytes, row: tuple[object, ...]) -> Envelope:
    envelope_id, expiry, body = row
    if not isinstance(envelope_id, bytes) or len(envelope_id) != ID_BYTES:
        raise FormatError("disclosure store envelope_id", f"is not {ID_BYTES} bytes", ID_BYTES)
    if not isinstance(expiry, int) or expiry < 0:
        raise FormatError("disclosure store expiry", "is not a time")
    if not isinstance(body, bytes) or not BODY_BYTES_MIN <= len(body) <= BODY_BYTES_MAX:
        raise FormatError("disclosure store body", "has no length of a body", BODY_BYTES_MAX)
    return Envelope(mailbox, envelope_id, expiry, body)
