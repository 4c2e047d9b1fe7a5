"""A relay that is killed at an awkward moment leaves no run of an erased envelope once it runs again."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from relay.store.sqlite import SqliteStore
from tests.relay.running import environment
from tests.relay.world import seeded

RELAY_ID = bytes(16)
BODY = b"".join(seeded(f"body {part}") for part in range(100))
CHILD = """
import os, signal, sys
from pathlib import Path
from relay.core.events import Batch, EnvelopeRow
from relay.store.sqlite import SqliteStore

moment, path, body = sys.argv[1], Path(sys.argv[2]), bytes.fromhex(sys.argv[3])

def die():
    os.kill(os.getpid(), signal.SIGKILL)

store = SqliteStore(path, bytes(16))
row = EnvelopeRow(1, bytes(16), 1, bytes(16), 2_000_000_000, 1, 0, body)
store.commit(Batch(envelopes=[row]))
erasing = Batch(envelopes_erased=[1])
if moment == "before the commit":
    store.begin(erasing)
    die()
store.commit(erasing)
if moment == "amid the checkpoint":
    store._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
die()
"""


def killed(moment: str, path: Path) -> None:
    command = [sys.executable, "-c", CHILD, moment, str(path), BODY.hex()]
    done = subprocess.run(command, env=environment(), check=False)
    assert done.returncode == -signal.SIGKILL


def runs(folder: Path) -> int:
    raw = b"".join(file.read_bytes() for file in sorted(folder.iterdir()))
    return sum(BODY[start : start + 16] in raw for start in range(0, len(BODY) - 16, 8))


@pytest.mark.parametrize("moment", ["after the commit", "amid the checkpoint"])
def test_what_was_erased_is_gone_when_the_store_is_open_again(tmp_path: Path, moment: str) -> None:
    killed(moment, tmp_path / "store.sqlite")
    assert runs(tmp_path) > 0, "the write-ahead log still has it"
    store = SqliteStore(tmp_path / "store.sqlite", RELAY_ID)
    try:
        assert store.load().envelopes == []
        assert runs(tmp_path) == 0
    finally:
        store.close()


def test_what_was_not_yet_erased_is_still_there(tmp_path: Path) -> None:
    killed("before the commit", tmp_path / "store.sqlite")
    store = SqliteStore(tmp_path / "store.sqlite", RELAY_ID)
    try:
        assert store.read([1]) == [BODY]
    finally:
        store.close()
