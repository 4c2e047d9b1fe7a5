"""An honest relay in memory, whose parts a test bends and signs again (after python-tuf's repository simulator).

Written from docs/protocol.md alone: sqlite3, PyNaCl and encoders of its own, nothing of audit/ or of any other room.
`HonestRelay` takes people, mail, acks; `disclose` writes a directory; `volunteer` gives what participants may give. A
test changes an attribute, or passes a `bend_store` that changes the database before it is hashed and signed.
"""

from __future__ import annotations

import hashlib
import random
import re
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
from nacl import bindings

NOW = 1_448_878_800
"""2015-11-30 10:20:00 UTC: the day before BlackBerry was to leave Pakistan."""
HOUR = 3600
PROTOCOL = Path(__file__).parents[2] / "docs/protocol.md"
SCHEMA = "".join(
    f"{line.strip()};\n" for line in PROTOCOL.read_text().splitlines() if line.startswith("    CREATE TABLE")
)


def pack(value: Any) -> bytes:
    return bytes(msgpack.packb(value, use_bin_type=True))


def label(name: str) -> bytes:
    return b"blindpost/v1/" + name.encode() + b"\0"


def hash16(name: str, data: bytes) -> bytes:
    return hashlib.blake2b(label(name) + data, digest_size=16).digest()


def hash32(name: str, data: bytes) -> bytes:
    return hashlib.sha256(label(name) + data).digest()


def keyed(key: bytes, person: str, data: bytes, length: int) -> bytes:
    return hashlib.blake2b(data, key=key, person=person.encode(), digest_size=length).digest()


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@dataclass
class SigningKey:
    seed: bytes

    @property
    def public(self) -> bytes:
        return bindings.crypto_sign_seed_keypair(self.seed)[0]

    def sign(self, name: str, data: bytes) -> bytes:
        message = label(name) + data
        return bindings.crypto_sign(message, bindings.crypto_sign_seed_keypair(self.seed)[1])[:64]


def padme(length: int) -> int:
    exponent = length.bit_length() - 1
    bits = exponent - (exponent.bit_length())
    return (length + (1 << bits) - 1) >> bits << bits


def pad(message: bytes) -> bytes:
    return (message + b"\x80").ljust(max(256, padme(len(message) + 1)), b"\0")


def tree(leaves: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, as it is defined: split at the largest power of two below n."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return sha256(b"\1" + tree(leaves[:split]) + tree(leaves[split:]))


def path_of(index: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 9162 section 2.1.3.1."""
    if len(leaves) == 1:
        return []
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    if index < split:
        return [*path_of(index, leaves[:split]), tree(leaves[split:])]
    return [*path_of(index - split, leaves[split:]), tree(leaves[:split])]


@dataclass
class Person:
    """An account with one device."""

    account: str
    account_key: SigningKey
    device_key: SigningKey
    dh_secret: bytes
    mailbox: bytes
    token_nonce: bytes
    prekeys: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    newest_number: int = 0

    @property
    def dh_public(self) -> bytes:
        return bindings.crypto_scalarmult_base(self.dh_secret)


@dataclass
class Letter:
    """An envelope as its sender knows it."""

    sender: Person
    recipient: Person
    token: bytes
    text: bytes
    message_key: bytes
    offset: int
    body: bytes
    expiry: int
    envelope_id: bytes = b""
    number: int = 0
    commit_index: int = 0
    leaf: int = 0
    state: str = "live"

    @property
    def leaf_hash(self) -> bytes:
        return sha256(
            b"\0"
            + label("leaf")
            + self.recipient.mailbox
            + self.envelope_id
            + struct.pack(">QQ", self.expiry, self.number)
            + sha256(self.body)
        )


def fill(connection: sqlite3.Connection, table: str, rows: list[tuple[Any, ...]]) -> None:
    if rows:
        marks = ", ".join("?" * len(rows[0]))
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")][-len(rows[0]) :]
        connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)


BendStore = Callable[[sqlite3.Connection], None]


class HonestRelay:
    """Everything from one seed, nonces too, so a run repeats to the byte."""

    def __init__(self, seed: int = 1, people: int = 3, one_time_prekeys: int = 2) -> None:
        self.random = random.Random(seed)
        self.signing_key = SigningKey(self.draw(32))
        self.first_key = self.signing_key
        self.relay_id = hash16("relay-id", b"\x0b" + self.signing_key.public)
        self.admin_key = SigningKey(self.draw(32))
        self.one_time_prekeys = one_time_prekeys
        self.people = [self._person(f"person{i}@acme.example") for i in range(people)]
        self.letters: list[Letter] = []
        self.commits: list[tuple[bytes, bytes, list[bytes]]] = []
        self.rotations: list[bytes] = []
        self.time_ms = NOW * 1000
        self.log: list[str] = ["started pid=4711 partition=0", "ready"]
        self.order = "wholesale"
        self.modules: list[list[Any]] = [
            ["__main__", self.draw(32)],
            ["msgspec", self.draw(32)],
            ["relay", self.draw(32)],
            ["relay.core.mailboxes", self.draw(32)],
            ["sys", bytes(32)],
            ["wire.envelope", self.draw(32)],
        ]
        self.memory_residents: list[bytes] = []
        self.settings = [2_592_000, 10_000, 1_073_741_824]
        self.config = (
            'protocol = 1\nlisten = "127.0.0.1:18830"\npartition = 0\nretention_s = 2592000\n'
            "mailbox_envelopes_max = 10000\nmailbox_bytes_max = 1073741824\n"
        )
        self.log_suffix = b""

    def draw(self, length: int) -> bytes:
        return self.random.randbytes(length)

    @property
    def card(self) -> bytes:
        return (
            f'protocol = 1\nrelay_id = "{self.relay_id.hex()}"\nsigning_key = "{self.first_key.public.hex()}"\n'
            'broker = "mqtt://127.0.0.1:18830"\npartition = 0\n'
        ).encode()

    def _person(self, account: str) -> Person:
        person = Person(
            account,
            SigningKey(self.draw(32)),
            SigningKey(self.draw(32)),
            self.draw(32),
            self.draw(16),
            self.draw(16),
        )
        sign = person.device_key.sign
        prekey_id, public = self.draw(16), bindings.crypto_scalarmult_base(self.draw(32))
        person.prekeys.append(
            (1, prekey_id, pack([prekey_id, public, sign("signed-prekey", prekey_id + b"\x02" + public)]))
        )
        kem = self.draw(1184)
        person.prekeys.append((2, prekey_id, pack([prekey_id, kem, sign("kem-prekey", prekey_id + b"\x07" + kem)])))
        for _ in range(self.one_time_prekeys):
            prekey_id, public, kem = self.draw(16), bindings.crypto_scalarmult_base(self.draw(32)), self.draw(1184)
            signature = sign("one-time-prekey", prekey_id + b"\x03" + public + b"\x06" + kem)
            person.prekeys.append((3, prekey_id, pack([prekey_id, public, kem, signature])))
        return person

    def signed_list(self, person: Person) -> bytes:
        devices = [[person.device_key.public, person.dh_public, person.mailbox]]
        body = pack([person.account, 1, bytes(32), person.account_key.public, devices])
        return pack([body, person.account_key.sign("device-list", body)])

    # ---------------------------------------------------------------------------------------------------------- mail

    def write(
        self, text: bytes, sender: int = 0, recipient: int = 1, kind: str = "ordinary", message_key: bytes | None = None
    ) -> Letter:
        """Encrypt a text as a body of section 4.3."""
        token, key = self.draw(16), message_key or self.draw(32)
        person, other = self.people[sender], self.people[recipient]
        both = keyed(key, "bp1-message", b"", 64)
        nonce = self.draw(24)
        head = self.draw(16) + both[32:] + nonce
        if kind != "chunk":
            head += self.draw(56)
        if kind == "first":
            sealed = self.draw(528)
            head += self.draw(32) + self.draw(1088) + struct.pack(">H", len(sealed)) + sealed
        content = pack([token, 2, self.draw(16), self.time_ms, bytes(16), [other.account], text])
        padded = text.ljust(32 * 1024, b"\0") if kind == "chunk" else pad(content)
        letter = Letter(person, other, token, text, key, len(head), b"", (NOW // HOUR + 25) * HOUR)
        letter.envelope_id = hash16("envelope-id", token)
        associated = (
            label("message") + b"\0\1" + person.device_key.public + other.device_key.public + letter.envelope_id + head
        )
        letter.body = head + bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(padded, associated, nonce, both[:32])
        return letter

    def write_pin(self, text: bytes, key: bytes, sender: int = 0, recipient: int = 1) -> Letter:
        """Scramble a text as suite 0x5049 does (section 13)."""
        from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
        from cryptography.hazmat.primitives.ciphers import Cipher, modes

        letter = self.write(text, sender, recipient)
        content = pack([letter.token, 2, self.draw(16), self.time_ms, bytes(16), [letter.recipient.account], text])
        plain = bytes(16) + struct.pack(">I", len(content)) + content
        plain = plain.ljust(8 + max(256, padme(max(2, len(plain) - 8))), b"\0")
        iv = self.draw(8)
        encryptor = Cipher(TripleDES(key), modes.CBC(iv)).encryptor()
        letter.body = self.draw(128) + iv + encryptor.update(plain) + encryptor.finalize()
        return letter

    def commit(self, *letters: Letter) -> None:
        """Number, store and receipt envelopes in one commit."""
        index = len(self.commits) + 1
        self.time_ms += 1_000
        for position, letter in enumerate(letters):
            letter.recipient.newest_number += 1
            letter.number, letter.commit_index, letter.leaf = letter.recipient.newest_number, index, position
        self.letters.extend(letters)
        leaves = [letter.leaf_hash for letter in letters]
        previous = hash32("commit-hash", self.commits[-1][0]) if self.commits else bytes(32)
        header = pack([self.relay_id, 0, index, self.time_ms, len(leaves), tree(leaves), previous])
        self.commits.append((header, self.signing_key.sign("commit", header), leaves))
        size = sum(len(letter.body) for letter in letters)
        self.log.append(f"committed index={index} envelopes={len(letters)} acks=0 bytes={size}")

    def rotate(self) -> None:
        """Change the signing key (section 2.6)."""
        new = SigningKey(self.draw(32))
        last = hash32("commit-hash", self.commits[-1][0]) if self.commits else bytes(32)
        body = pack([self.relay_id, self.signing_key.public, new.public, len(self.commits), last, self.time_ms // 1000])
        self.rotations.append(pack([body, self.signing_key.sign("key-rotation", body), new.sign("key-rotation", body)]))
        self.signing_key = new
        self.log.append(f"rotated index={len(self.commits)}")

    def story(self) -> HonestRelay:
        """A little of everything: three kinds of body, an ack, a withdrawal, an expired envelope, a rotation."""
        expired = self.write(b"expired", 2, 1)
        expired.expiry, expired.state = NOW // HOUR * HOUR, "expired"
        self.time_ms = (NOW // HOUR * HOUR - 600) * 1000
        self.commit(expired)
        self.time_ms = NOW * 1000
        self.commit(self.write(b"Good morning from Karachi, the shipment leaves on Tuesday", kind="first"))
        self.commit(
            self.write(b"PING", 1, 0),
            self.write(b"Board minutes, strictly between us: we stay" * 20, 1, 2),
            self.write(b"a chunk of a large attachment" * 100, 0, 2, kind="chunk"),
        )
        self.rotate()
        acked, withdrawn = self.write(b"acked", 2, 0), self.write(b"withdrawn", 2, 1)
        acked.state, withdrawn.state = "acked", "withdrawn"
        self.commit(acked, withdrawn)
        return self

    def story_of_two(self) -> HonestRelay:
        """The shortest story that has a row in every table."""
        acked = self.write(b"acked", 1, 0)
        acked.state = "acked"
        self.commit(self.write(b"one", 0, 1), acked, self.write(b"a chunk" * 500, 0, 1, kind="chunk"))
        self.rotate()
        self.commit(self.write(b"two", 0, 1, kind="first"))
        return self

    # --------------------------------------------------------------------------------------------------- disclosure

    @property
    def taken_at(self) -> int:
        return self.time_ms // 1000 + 5

    def gone(self, person: Person) -> int:
        """`mailboxes.newest`: the highest number of which neither envelope nor tombstone is left."""
        expired = [it.number for it in self.letters if it.recipient is person and it.state == "expired"]
        return max(expired, default=0)

    def fill_store(self, connection: sqlite3.Connection) -> None:
        live = [letter for letter in self.letters if letter.state == "live"]
        fill(
            connection,
            "envelopes",
            [
                (it.recipient.mailbox, it.number, it.envelope_id, it.expiry, it.commit_index, it.leaf, it.body)
                for it in live
            ],
        )
        reasons = {"acked": 1, "withdrawn": 2, "closed": 4}
        fill(
            connection,
            "tombstones",
            [
                (
                    hash16("tombstone", it.recipient.mailbox + it.envelope_id),
                    it.recipient.mailbox,
                    it.expiry,
                    it.commit_index,
                    it.leaf,
                    it.number,
                    reasons[it.state],
                    it.token if reasons[it.state] < 3 else b"",
                )
                for it in self.letters
                if it.state in reasons
            ],
        )
        connection.executemany(
            "INSERT INTO commits VALUES (?, ?, ?, ?)",
            [(i, header, signature, b"".join(leaves)) for i, (header, signature, leaves) in enumerate(self.commits, 1)],
        )
        fill(
            connection,
            "mailboxes",
            [(it.mailbox, it.device_key.public, it.account, NOW // 86_400, self.gone(it), 0) for it in self.people],
        )
        fill(connection, "lists", [(it.account, 1, self.signed_list(it)) for it in self.people])
        fill(
            connection,
            "prekeys",
            [(it.device_key.public, *prekey) for it in self.people for prekey in it.prekeys],
        )
        fill(connection, "tenants", [("acme.example", self.admin_key.public)])
        fill(connection, "used_tokens", [(it.token_nonce, NOW + 86_400) for it in self.people])
        fill(connection, "rotations", [(record,) for record in self.rotations])
        fill(
            connection,
            "relay",
            [("relay_id", self.relay_id), ("partition", b"\0\0"), ("format", b"1")],
        )

    def make_store(self, path: Path, schema: str, bend_store: BendStore | None) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for pragma in ("page_size = 4096", "journal_mode = WAL", "secure_delete = ON", "synchronous = FULL"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            connection.executescript(schema)
            connection.execute("BEGIN")
            self.fill_store(connection)
            if bend_store:
                bend_store(connection)
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def image(self) -> bytes:
        """What a relay's memory holds: names, keys of its own, and whatever a test put there."""
        parts = [self.draw(5000), self.relay_id.hex().encode(), self.draw(100)]
        parts += [person.mailbox for person in self.people]
        parts += [self.signing_key.seed, *self.memory_residents, bytes(8192), self.draw(3000)]
        image = b"".join(parts)
        return image + bytes(-len(image) % 4096)

    def log_lines(self) -> str:
        """The log with its times: a commit's is its header's, and none falls."""
        times = [msgpack.unpackb(header)[3] // 1000 for header, _, _ in self.commits]
        time_s, lines = (times[0] if times else NOW), []
        for line in self.log:
            index = re.match("committed index=([1-9][0-9]*) ", line)
            if index and int(index[1]) <= len(times):
                time_s = max(time_s, times[int(index[1]) - 1])
            lines.append(f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%dT%H:%M:%SZ} {line}\n")
        return "".join(lines)

    def disclose(
        self, directory: Path, *, memory: bool = True, schema: str = SCHEMA, bend_store: BendStore | None = None
    ) -> Path:
        """Write a disclosure as section 11 says, signed."""
        for folder in ("store", "log", "config", *(["memory"] if memory else [])):
            (directory / folder).mkdir(parents=True)
        self.make_store(directory / "store/store.sqlite", schema, bend_store)
        (directory / "log/relay.log").write_bytes(self.log_lines().encode() + self.log_suffix)
        (directory / "config/relay.toml").write_text(self.config)
        (directory / "config/relay-card.toml").write_bytes(self.card)
        if memory:
            image = self.image()
            half = len(image) // 2 // 4096 * 4096
            start = 0x7F00_0000_0000
            ranges: list[tuple[int, int, int, int, str]] = [
                (start, half, 0, 1, ""),
                (start + half, 4096, half, 0, "[vvar]"),
                (start + half + 4096, len(image) - half, half, 1, "[heap]"),
            ]
            (directory / "memory/image.bin").write_bytes(image)
            (directory / "memory/ranges.msgpack").write_bytes(pack([4711, ranges]))
            maps = "".join(
                f"{at:x}-{at + length:x} {'r' if readable else '-'}w-p 00000000 00:00 0 {name}\n"
                for at, length, _, readable, name in ranges
            )
            (directory / "memory/maps.txt").write_text(maps)
        self.sign_manifest(directory)
        return directory

    def sign_manifest(self, directory: Path, leave_out: tuple[str, ...] = ()) -> None:
        """(Re)write the manifest for what lies in the directory."""
        files = []
        for path in sorted(item for item in directory.rglob("*") if item.is_file() and not item.is_symlink()):
            name = path.relative_to(directory).as_posix()
            if name != "manifest.msgpack" and name not in leave_out:
                data = path.read_bytes()
                files.append([name, len(data), sha256(data)])
        head = [len(self.commits), hash32("commit-hash", self.commits[-1][0]) if self.commits else bytes(32)]
        manifest = pack(
            [
                self.relay_id,
                self.order,
                self.taken_at,
                sorted(files),
                head,
                self.settings,
                ["3.11.7", bytes(range(32)), self.modules],
                [msgpack.unpackb(rotation) for rotation in self.rotations],
                ["the relay's signing key file"],
            ]
        )
        signature = self.signing_key.sign("disclosure", manifest)
        (directory / "manifest.msgpack").write_bytes(pack([manifest, self.signing_key.public, signature]))

    # ---------------------------------------------------------------------------------------------------- volunteers

    def receipt_item(self, letter: Letter, with_token: bool = False) -> list[Any]:
        header, signature, leaves = self.commits[letter.commit_index - 1]
        path = b"".join(path_of(letter.leaf, leaves))
        return [
            2,
            header,
            signature,
            letter.recipient.mailbox,
            letter.envelope_id,
            letter.expiry,
            letter.number,
            letter.leaf,
            path,
            sha256(letter.body),
            letter.token if with_token else b"",
        ]

    @staticmethod
    def key_item(letter: Letter) -> list[Any]:
        return [
            3,
            letter.recipient.mailbox,
            letter.envelope_id,
            letter.message_key,
            letter.sender.device_key.public,
            letter.recipient.device_key.public,
            letter.offset,
        ]

    def secret_items(self) -> list[list[Any]]:
        return [
            [1, name, secret]
            for person in self.people
            for name, secret in (
                ("account key", person.account_key.seed),
                ("device key", person.device_key.seed),
                ("identity key", person.dh_secret),
            )
        ]

    @staticmethod
    def volunteer(items: list[list[Any]], who: str = "ana@acme.example") -> bytes:
        return pack(["blindpost/v1/volunteered", who, items])

    def commit_to(self, texts: list[bytes]) -> tuple[bytes, list[list[Any]]]:
        """Return a commitments file and the openings to it."""
        pairs = [(self.draw(32), text) for text in texts]
        commitments = [[sha256(label("canary") + nonce + text), "ana"] for nonce, text in pairs]
        return pack(["blindpost/v1/commitments", commitments]), [[4, nonce, text] for nonce, text in pairs]
