"""A process that stores, erases, and is killed at the moment that it is told: `python -m … WHAT MOMENT FOLDER`.

    relay     relay/store/sqlite.py with one envelope
    device    client/store.py with one sealed row, printed in hexadecimal before it is erased

The moments are those at which a copy could be left behind: before the erasure is committed, after it, and while the
write-ahead log is emptied.
"""

import hashlib
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

from client.store import DATABASE, Kind, Store
from keys.vault import Vault
from relay.core.events import Batch, EnvelopeRow
from relay.store.sqlite import SqliteStore

__all__ = ["BODY", "MOMENTS", "RELAY_ID", "STORE", "device_store", "main"]

MOMENTS: Final = ("before the commit", "after the commit", "amid the checkpoint")
RELAY_ID: Final = bytes(16)
STORE: Final = "store.sqlite"
BODY: Final = b"".join(hashlib.sha256(b"body %d" % part).digest() for part in range(200))
"""6,400 bytes, as random as ciphertext, and the same in every run."""
_NAME: Final = b"a row"
_FAR_S: Final = 4_102_444_800


def device_store(folder: Path) -> Store:
    """A device's store under a key of the experiment's own."""
    return Store(folder, Vault(hashlib.sha256(b"experiment").digest(), b"", os.urandom))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _relay(moment: str, folder: Path) -> None:
    store = SqliteStore(folder / STORE, RELAY_ID)
    store.commit(Batch(envelopes=[EnvelopeRow(1, bytes(16), 1, bytes(16), _FAR_S, 1, 0, BODY)]))
    erasing = Batch(envelopes_erased=[1])
    if moment == MOMENTS[0]:
        store.begin(erasing)
        _die()
    store.commit(erasing)
    if moment == MOMENTS[2]:
        with closing(sqlite3.connect(folder / STORE)) as other:
            other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            _die()
    _die()


def _device(moment: str, folder: Path) -> None:
    store = device_store(folder)
    with store.step() as step:
        step.put(Kind.BODY_PIN, _NAME, BODY)
    with closing(sqlite3.connect(folder / DATABASE)) as other:
        sealed = max((row for (row,) in other.execute("SELECT sealed FROM rows")), key=len)
        print(sealed.hex(), flush=True)
        if moment == MOMENTS[0]:
            _die()
        with store.step() as step:
            step.delete(Kind.BODY_PIN, _NAME)
        if moment == MOMENTS[2]:
            other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        _die()


def main(arguments: list[str]) -> None:
    """Do what is told, and die of it."""
    what, moment, folder = arguments
    {"relay": _relay, "device": _device}[what](moment, Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
