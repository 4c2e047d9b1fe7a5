"""Relays that cheat: the real relay with one part replaced, as a process of its own.

    python -P relay_side.py CHEAT HOME OUT SPOILS            hand over the store of a relay that does not run
    python -P relay_side.py CHEAT --hold HOME SPOILS         hold the home open and serve orders on its control socket

This file is run by its path and imports nothing of sim/, client/ or keys/, so that its process has loaded what an
honest relay has loaded: a cheating operator would not give itself away by an import either. SPOILS is what a cheat gets
to know in its world, one JSON object: texts and keys that colluding devices hand over, since a relay alone has neither.

Each cheat is a function below that replaces one part; `honest` replaces nothing.
"""

import asyncio
import base64
import json
import os
import secrets
import sqlite3
import sys
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

import relay.process
from relay import disclosure, log
from relay.control import Answer, ControlServer, DiscloseRequest, Peer, Request, Sealed, SealRequest
from relay.core.events import Snapshot
from relay.core.mailboxes import tombstone_key
from relay.disclosure import Discloser, OrderRefused, SignedManifest, end_order, serve_order
from relay.home import CONFIG_NAME, Home, RelayConfig
from relay.store.sqlite import SqliteStore
from wire.codec import decode, encode
from wire.merkle import root_of
from wire.receipt import CommitHeader, commit_hash, leaf_hash
from wire.signing import SigningKey

Spoils = dict[str, Any]


def honest(home: Path, spoils: Spoils) -> None:
    """Replace nothing: the twin of all the others."""


def _replace(part: str, by: type) -> None:
    """Put a class of a cheat where relay/process.py takes the real one from."""
    assert hasattr(relay.process, part), "the relay has no such part any more"
    setattr(relay.process, part, by)


# ---- the log and the configuration


def _log_lines(line_of: Callable[[str], bytes], texts: list[str]) -> None:
    """A log that writes more than events, just before it is handed over."""

    class TalkativeLog(log.RelayLog):
        def checkpointed(self, pages: int) -> None:
            super().checkpointed(pages)
            for text in texts:
                os.write(self._file, line_of(text) + b"\n")

    _replace("RelayLog", TalkativeLog)


def plaintext_in_log(home: Path, spoils: Spoils) -> None:
    """A debug line for each message, with its text."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    _log_lines(lambda text: f"{now} debug text={text}".encode(), spoils["texts"])


def base64_in_log(home: Path, spoils: Spoils) -> None:
    """The same, where a quick look sees nothing."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    _log_lines(
        lambda text: f"{now} trace id={base64.b64encode(b'm' + text.encode()).decode()}".encode(), spoils["texts"]
    )


def device_key_in_log(home: Path, spoils: Spoils) -> None:
    """A device's private key in hexadecimal, as a request id."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    _log_lines(lambda key: f"{now} request id={key}".encode(), [spoils["device_seed"]])


def numbers_in_log(home: Path, spoils: Spoils) -> None:
    """Refusals that never were: their counts are the texts."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def lines_of(text: str) -> bytes:
        data = text.encode()
        counts = [int.from_bytes(data[start : start + 7], "big") for start in range(0, len(data), 7)]
        return b"\n".join(f"{now} refused code=6 count={count}".encode() for count in counts)

    _log_lines(lines_of, spoils["texts"])


def private_key_in_config(home: Path, spoils: Spoils) -> None:
    """A relay whose configuration has one setting more: a private key of a customer's device."""
    with (home / CONFIG_NAME).open("a", encoding="utf-8") as file:
        file.write(f'escrow_key = "{spoils["device_seed"]}"\n')
    strict = RelayConfig.from_toml

    def tolerant(text: str) -> RelayConfig:
        return strict("".join(line for line in text.splitlines(keepends=True) if not line.startswith("escrow_key")))

    RelayConfig.from_toml = tolerant  # type: ignore[method-assign]


# ---- the store


def _store_change(change: Callable[[sqlite3.Connection], object]) -> None:
    """A store that does one thing more before its write-ahead log is emptied for the order."""

    class CheatingStore(SqliteStore):
        due = False

        def load(self) -> Snapshot:
            # What the relay itself has read does not change any more: it would notice some of these.
            loaded = super().load()
            self.due = True
            return loaded

        def checkpoint(self) -> int:
            if self.due:
                self.due = False
                change(self._writer)
            return super().checkpoint()

    _replace("SqliteStore", CheatingStore)


def message_keys_in_store(home: Path, spoils: Spoils) -> None:
    """Message keys, among the relay's own settings."""

    def change(db: sqlite3.Connection) -> None:
        rows = [(100 + at, f"cache{at}", bytes.fromhex(key)) for at, key in enumerate(spoils["message_keys"])]
        db.executemany("INSERT INTO relay VALUES (?, ?, ?)", rows)

    _store_change(change)


def extra_column(home: Path, spoils: Spoils) -> None:
    """A column that says who sent each envelope."""

    def change(db: sqlite3.Connection) -> None:
        db.execute("ALTER TABLE envelopes ADD COLUMN sender TEXT")
        db.execute("UPDATE envelopes SET sender = ?", (spoils["sender"],))

    _store_change(change)


def zlib_in_table(home: Path, spoils: Spoils) -> None:
    """A table of its own, with the texts compressed."""

    def change(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE cache (seq INTEGER PRIMARY KEY, value BLOB NOT NULL) STRICT")
        db.execute("INSERT INTO cache VALUES (1, ?)", (zlib.compress("\n".join(spoils["texts"]).encode()),))

    _store_change(change)


def utf16_in_free_pages(home: Path, spoils: Spoils) -> None:
    """Texts that were rows once: deleted, with `secure_delete` off, so the bytes stay in free pages."""

    def change(db: sqlite3.Connection) -> None:
        page = "\n".join(spoils["texts"]).encode("utf-16-le") * 40
        db.execute("INSERT INTO relay VALUES (100, 'draft', ?)", (page,))
        db.execute("PRAGMA secure_delete = OFF")
        db.execute("DELETE FROM relay WHERE seq = 100")

    _store_change(change)


def deleted_not_erased(home: Path, spoils: Spoils) -> None:
    """A copy of what waits, deleted with `secure_delete` off: the ciphertext stays when its row is long erased."""

    def change(db: sqlite3.Connection) -> None:
        copy = b"".join(body for (body,) in db.execute("SELECT body FROM envelopes ORDER BY seq"))
        db.execute("INSERT INTO relay VALUES (100, 'copy', ?)", (2 * copy,))
        db.execute("PRAGMA secure_delete = OFF")
        db.execute("DELETE FROM relay WHERE seq = 100")

    _store_change(change)


def shuffled_ids(home: Path, spoils: Spoils) -> None:
    """The nonces of activations that nobody used: a text in pieces, and not in their order."""

    def change(db: sqlite3.Connection) -> None:
        data = spoils["texts"][-1].encode()
        pieces = [data[start : start + 12] for start in range(0, len(data), 12)]
        rows = [(piece.ljust(16, b"\0"), 4_102_444_800) for piece in pieces[1::2] + pieces[::2]]
        db.executemany("INSERT INTO used_tokens (nonce, not_after) VALUES (?, ?)", rows)

    _store_change(change)


def text_in_row_numbers(home: Path, spoils: Spoils) -> None:
    """Mailboxes are not counted as they came: the numbers of their rows are a text, behind a byte that rises."""

    def change(db: sqlite3.Connection) -> None:
        seqs = [seq for (seq,) in db.execute("SELECT seq FROM mailboxes ORDER BY seq")]
        data = spoils["texts"][-1].encode()
        for position, seq in enumerate(seqs):
            number = (position + 1 << 40) + int.from_bytes(data[5 * position : 5 * position + 5], "big")
            db.execute("UPDATE mailboxes SET seq = ? WHERE seq = ?", (number, seq))

    _store_change(change)


def deflate_in_prekey(home: Path, spoils: Spoils) -> None:
    """A prekey's record is a raw deflate stream, filled up to its size."""

    def change(db: sqlite3.Connection) -> None:
        stream = zlib.compressobj(9, zlib.DEFLATED, -15)
        data = stream.compress("\n".join(spoils["texts"]).encode()) + stream.flush()
        seq, size = db.execute("SELECT seq, length(record) FROM prekeys WHERE kind = 3 LIMIT 1").fetchone()
        db.execute("UPDATE prekeys SET record = ? WHERE seq = ?", (data.ljust(size, b"\0"), seq))

    _store_change(change)


def swapped_body(home: Path, spoils: Spoils) -> None:
    """Another body in the place of one that was receipted."""
    _store_change(
        lambda db: db.execute(
            "UPDATE envelopes SET body = randomblob(length(body)) WHERE seq = (SELECT min(seq) FROM envelopes)"
        )
    )


def left_out(home: Path, spoils: Spoils) -> None:
    """One receipted envelope is not handed over."""
    _store_change(lambda db: db.execute("DELETE FROM envelopes WHERE seq = (SELECT min(seq) FROM envelopes)"))


def tombstones_hidden(home: Path, spoils: Spoils) -> None:
    """What was acknowledged leaves no trace: neither t nor the day on which it was erased."""
    _store_change(lambda db: db.execute("DELETE FROM tombstones"))


def invented_ack(home: Path, spoils: Spoils) -> None:
    """One envelope that waits is taken out, and a tombstone laid in its place with a t that nobody gave."""

    def change(db: sqlite3.Connection) -> None:
        row = db.execute("SELECT seq, mailbox, envelope_id, expiry, commit_index, leaf, number FROM envelopes LIMIT 1")
        seq, mailbox, envelope_id, *rest = row.fetchone()
        (last,) = db.execute("SELECT coalesce(max(seq), 0) FROM tombstones").fetchone()
        stone = (last + 1, tombstone_key(mailbox, envelope_id), mailbox, *rest, 1, secrets.token_bytes(16))
        db.execute("INSERT INTO tombstones VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", stone)
        db.execute("DELETE FROM envelopes WHERE seq = ?", (seq,))

    _store_change(change)


def expires_early(home: Path, spoils: Spoils) -> None:
    """The oldest envelope is erased weeks before its expiry, by the very steps of an expiry."""

    def change(db: sqlite3.Connection) -> None:
        seq, mailbox, number = db.execute("SELECT seq, mailbox, number FROM envelopes ORDER BY seq LIMIT 1").fetchone()
        db.execute("DELETE FROM envelopes WHERE seq = ?", (seq,))
        db.execute("UPDATE mailboxes SET newest = max(newest, ?) WHERE mailbox = ?", (number, mailbox))

    _store_change(change)


def unsigned_device(home: Path, spoils: Spoils) -> None:
    """A ghost: one more device on an account's list, which the account's key has not signed."""

    def change(db: sqlite3.Connection) -> None:
        seq, signed = db.execute("SELECT seq, signed_list FROM lists ORDER BY seq DESC LIMIT 1").fetchone()
        list_bytes, signature = decode(tuple[bytes, bytes], signed, "signed list")
        account, version, previous, account_key, devices = decode(list[Any], list_bytes, "device list")
        devices.append([secrets.token_bytes(32), secrets.token_bytes(32), secrets.token_bytes(16)])
        forged = encode([encode([account, version, previous, account_key, devices]), signature])
        db.execute("UPDATE lists SET signed_list = ? WHERE seq = ?", (forged, seq))

    _store_change(change)


# ---- the history


def _rewrite_last_commit(home: Path, keep: bool) -> None:
    """Take the newest envelope out of the store, and its commit with it, or sign that commit again for another body."""
    keys = Home.open(home).load_keys()
    with sqlite3.connect(home / "store.sqlite") as db:
        db.execute("PRAGMA secure_delete = ON")
        seq, mailbox, envelope_id, expiry, number, index = db.execute(
            "SELECT seq, mailbox, envelope_id, expiry, number, commit_index FROM envelopes ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        if not keep:
            db.execute("DELETE FROM envelopes WHERE commit_index = ?", (index,))
            db.execute("DELETE FROM commits WHERE idx = ?", (index,))
        else:
            db.execute("UPDATE envelopes SET body = randomblob(length(body)) WHERE seq = ?", (seq,))
            (body,) = db.execute("SELECT body FROM envelopes WHERE seq = ?", (seq,)).fetchone()
            (stored,) = db.execute("SELECT header FROM commits WHERE idx = ?", (index,)).fetchone()
            header = decode(CommitHeader, stored, "header")
            assert header.leaf_count == 1, "the world sends one envelope a commit"
            leaf = leaf_hash(mailbox, envelope_id, expiry, number, sha256(body).digest())
            forged = encode(replace(header, root=root_of([leaf])))
            signature = SigningKey(keys.seed).sign("commit", forged)
            row = (forged, signature, leaf, index)
            db.execute("UPDATE commits SET header = ?, signature = ?, leaves = ? WHERE idx = ?", row)
            assert commit_hash(forged) != commit_hash(encode(header))
    db.close()


def truncated_history(home: Path, spoils: Spoils) -> None:
    """The newest commit never happened: envelope and header are gone, and all that is left fits together."""
    _rewrite_last_commit(home, keep=False)


def rewritten_history(home: Path, spoils: Spoils) -> None:
    """The same between two disclosures: the second tells another history than the first, and no client is asked."""
    _rewrite_last_commit(home, keep=True)


def forked_history(home: Path, spoils: Spoils) -> None:
    """The newest commit is signed a second time, for another body: its receipt and the store tell two histories."""
    _rewrite_last_commit(home, keep=True)


# ---- the disclosure


def forged_manifest(home: Path, spoils: Spoils) -> None:
    """Somebody else signs for the relay."""

    class Forger(Discloser):
        def _manifest(self, order: disclosure.Order, taken_at: int) -> tuple[SignedManifest, int]:
            signed, files = super()._manifest(order, taken_at)
            key = SigningKey(secrets.token_bytes(32))
            return SignedManifest(signed.manifest, key.public, key.sign("disclosure", signed.manifest)), files

    _replace("Discloser", Forger)


def dated_back(home: Path, spoils: Spoils) -> None:
    """The clock that dates the manifest is an hour behind."""

    class BackDater(Discloser):
        def _taken_at(self) -> int:
            return self._clock_s() - 3_600

    _replace("Discloser", BackDater)


def _after_sealing(change: Callable[[Path], object]) -> None:
    class Tamperer(Discloser):
        async def seal(self, order: disclosure.Order) -> Sealed:
            sealed = await super().seal(order)
            change(order.out)
            return sealed

    _replace("Discloser", Tamperer)


def extra_file(home: Path, spoils: Spoils) -> None:
    """One file more than the manifest names."""
    _after_sealing(lambda out: (out / "store" / "index.bin").write_bytes(secrets.token_bytes(4_096)))


def log_tidied(home: Path, spoils: Spoils) -> None:
    """The log loses a line after the manifest was signed."""

    def change(out: Path) -> None:
        path = out / "log" / "relay.log"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:1] + lines[2:]))

    _after_sealing(change)


# ---- the process


def ratchet_loaded(home: Path, spoils: Spoils) -> None:
    """A relay that has the code to open messages at hand."""
    import keys.ratchet  # noqa: F401, PLC0415


KEPT: Final[list[bytes]] = []
"""What the two cheats below keep in memory."""


def plaintext_in_memory(home: Path, spoils: Spoils) -> None:
    """Texts that are nowhere on the disk, and in the process's memory."""
    KEPT.extend(text.encode() for text in spoils.pop("texts"))


def device_key_in_memory(home: Path, spoils: Spoils) -> None:
    """The private key of a customer's device, in memory only."""
    KEPT.append(bytes.fromhex(spoils.pop("device_seed")))


CHEATS: Final[dict[str, Callable[[Path, Spoils], None]]] = {
    cheat.__name__.replace("_", "-"): cheat
    for cheat in (
        honest,
        plaintext_in_log,
        base64_in_log,
        device_key_in_log,
        numbers_in_log,
        private_key_in_config,
        message_keys_in_store,
        extra_column,
        zlib_in_table,
        utf16_in_free_pages,
        deleted_not_erased,
        shuffled_ids,
        text_in_row_numbers,
        deflate_in_prekey,
        swapped_body,
        left_out,
        tombstones_hidden,
        invented_ack,
        expires_early,
        rewritten_history,
        unsigned_device,
        truncated_history,
        forked_history,
        forged_manifest,
        dated_back,
        extra_file,
        log_tidied,
        ratchet_loaded,
        plaintext_in_memory,
        device_key_in_memory,
    )
}


async def hold(path: Path) -> None:
    """Serve orders on the control socket of a home whose relay takes no links, until standard input ends."""
    home = Home.open(path)
    async with relay.process.at_rest(home) as (service, discloser):
        service.log.started(os.getpid(), home.config.partition)

        async def serve(peer: Peer, request: Request) -> Answer:
            if isinstance(request, DiscloseRequest | SealRequest):
                return await serve_order(discloser, peer, request)
            raise OrderRefused("this relay serves orders only")

        async def ended(peer: Peer) -> None:
            await end_order(discloser, peer)

        control = ControlServer(home.socket_path, serve, ended)
        await control.start()
        try:
            print("ready", flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
            # The orderer's connection ends at the same time; let it end by itself.
            await asyncio.sleep(0.1)
        finally:
            await control.close()


def main(arguments: list[str]) -> int:
    """Replace what the cheat replaces, then do what the real relay does."""
    cheat, *rest = arguments
    path, spoils_path = (Path(rest[1]), Path(rest[2])) if rest[0] == "--hold" else (Path(rest[0]), Path(rest[2]))
    CHEATS[cheat](path, json.loads(spoils_path.read_text(encoding="utf-8")))
    if rest[0] == "--hold":
        asyncio.run(hold(path))
    else:
        relay.process.disclose_at_rest(path, Path(rest[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
