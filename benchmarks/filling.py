"""Fills the store of a relay that does not run with mailboxes and envelopes: sizes that would take hours to send.

What is written is what a relay would have written: rows of protocol.md section 9, envelopes of random bytes in commits
with real leaves, chained headers and signatures of the relay's own key, so that the relay loads it and the verifier
accepts it. Device lists are signed unless that is switched off, which saves most of the time: the relay verifies a list
when it takes it, not when it loads it.
"""

import os
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from relay.core.events import Batch, CommitRow, EnvelopeRow, ListRow, MailboxRow
from relay.home import Home
from relay.store.sqlite import SqliteStore
from wire.codec import encode
from wire.envelope import envelope_id_of
from wire.identity import NO_PREVIOUS, DeviceEntry, DeviceList, SignedList, sign_list
from wire.merkle import root_of
from wire.receipt import CommitHeader, commit_hash, leaf_hash
from wire.signing import SigningKey

__all__ = ["FILLER_TENANT", "fill"]

FILLER_TENANT = "filler.example"
_AT_ONCE = 2_000
_DAY_S = 86_400
_HOUR_S = 3_600


def fill(home_path: Path, mailboxes: int, envelopes: int, body_bytes: int = 400, signed: bool = True) -> None:
    """Add mailboxes, and envelopes to them in turn, to a home that is fresh.

    Args:
        home_path: made by `python -m relay init`; no envelope is in it.
        mailboxes: how many.
        envelopes: how many.
        body_bytes: of each envelope.
        signed: whether the device lists are signed by their accounts' keys.
    """
    home = Home.open(home_path)
    with home.locked():
        keys = home.load_keys()
        store = SqliteStore(home.store_path, keys.relay_id, home.config.partition)
        try:
            ids = [os.urandom(16) for _ in range(mailboxes)]
            for batch in _mailboxes(ids, signed):
                store.commit(batch)
            for batch in _envelopes(ids, envelopes, body_bytes, keys.relay_id, SigningKey(keys.seed)):
                store.commit(batch)
        finally:
            store.close()


def _mailboxes(ids: list[bytes], signed: bool) -> Iterator[Batch]:
    day = int(time.time()) // _DAY_S
    for start in range(0, len(ids), _AT_ONCE):
        batch = Batch()
        for seq, mailbox in enumerate(ids[start : start + _AT_ONCE], start + 1):
            account = f"m{seq}@{FILLER_TENANT}"
            device_key, listed = _list(account, mailbox, signed)
            batch.mailboxes.append(MailboxRow(seq, mailbox, device_key, account, day, 0, 0))
            batch.lists.append(ListRow(seq, account, 1, encode(listed)))
        yield batch


def _list(account: str, mailbox: bytes, signed: bool) -> tuple[bytes, SignedList]:
    if not signed:
        entry = DeviceEntry(os.urandom(32), os.urandom(32), mailbox)
        listed = DeviceList(account, 1, NO_PREVIOUS, os.urandom(32), (entry,))
        return entry.device_key, SignedList(encode(listed), os.urandom(64))
    device, account_key = SigningKey(os.urandom(32)), SigningKey(os.urandom(32))
    entry = DeviceEntry(device.public, os.urandom(32), mailbox)
    return device.public, sign_list(account_key, DeviceList(account, 1, NO_PREVIOUS, account_key.public, (entry,)))


def _envelopes(ids: list[bytes], count: int, body_bytes: int, relay_id: bytes, key: SigningKey) -> Iterator[Batch]:
    now_s = int(time.time())
    expiry = (now_s // _HOUR_S + 25) * _HOUR_S
    previous = bytes(32)
    for index, start in enumerate(range(0, count, _AT_ONCE), 1):
        batch, leaves = Batch(), []
        for place in range(start, min(start + _AT_ONCE, count)):
            mailbox, number = ids[place % len(ids)], place // len(ids) + 1
            body, envelope_id = os.urandom(body_bytes), envelope_id_of(os.urandom(16))
            leaf = place - start
            batch.envelopes.append(EnvelopeRow(place + 1, mailbox, number, envelope_id, expiry, index, leaf, body))
            leaves.append(leaf_hash(mailbox, envelope_id, expiry, number, sha256(body).digest()))
        header = encode(CommitHeader(relay_id, 0, index, now_s * 1_000, len(leaves), root_of(leaves), previous))
        previous = commit_hash(header)
        batch.commit = CommitRow(index, header, key.sign("commit", header), b"".join(leaves))
        yield batch
