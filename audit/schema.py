"""The tables of the store, column by column, in one place (protocol.md section 9).

The schema check, the account of bytes, the check of sizes and the table of leakage are all derived from `TABLES`, so a
column that is left out of one is left out of the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ByteClass(Enum):
    """What a byte of a disclosure is; the value is the name shown."""

    CIPHERTEXT = "ciphertext"
    METADATA = "declared metadata"
    PUBLIC_KEY = "public keys"
    LOG = "log and receipt chain"
    FORMAT = "format"
    RESIDUE = "page residue"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, SQLite type, allowed sizes, class of its bytes, and what it tells the relay."""

    name: str
    kind: str
    byte_class: ByteClass
    tells: str
    bytes_min: int = 0
    bytes_max: int = 0

    @property
    def sql(self) -> str:
        """The column's part of the CREATE TABLE statement."""
        return f"{self.name} {self.kind} NOT NULL"


def _integer(name: str, tells: str) -> Column:
    return Column(name, "INTEGER", ByteClass.METADATA, tells)


def _blob(name: str, low: int, high: int, tells: str, byte_class: ByteClass = ByteClass.METADATA) -> Column:
    return Column(name, "BLOB", byte_class, tells, low, high)


def _text(name: str, low: int, high: int, tells: str) -> Column:
    return Column(name, "TEXT", ByteClass.METADATA, tells, low, high)


_KEY, _LOG, _CIPHER = ByteClass.PUBLIC_KEY, ByteClass.LOG, ByteClass.CIPHERTEXT
SEQ_TELLS = {
    "envelopes": "order of arrival",
    "tombstones": "order of erasure",
    "commits": "index of the commit",
    "mailboxes": "order of enrolment",
    "lists": "order of publication",
    "prekeys": "order of publication",
    "tenants": "order of admission",
    "used_tokens": "order of activation",
    "rotations": "order of rotations",
    "relay": "none",
}
REASON_ACKED, REASON_WITHDRAWN, REASON_CLOSED = 1, 2, 4
"""Why an envelope left a tombstone (section 9)."""
RECORD_BYTES_MAX = 4096
LEAVES_BYTES_MAX = 16 * 1024 * 1024

TABLES: dict[str, tuple[Column, ...]] = {
    "envelopes": (
        _blob("mailbox", 16, 16, "which device mail waits for"),
        _integer("number", "position in the mailbox"),
        _blob("envelope_id", 16, 16, "a random-looking name; t hashes to it"),
        _integer("expiry", "when it ends, a full hour if the sender follows the protocol"),
        _integer("commit_index", "when it arrived"),
        _integer("leaf", "its place in the commit"),
        _blob("body", 400, 196_696, "its padded size; the rest is ciphertext", _CIPHER),
    ),
    "tombstones": (
        _blob("key", 16, 16, "hash of mailbox and envelope id"),
        _blob("mailbox", 16, 16, "which device the mail was for"),
        _integer("expiry", "when the tombstone ends"),
        _integer("commit_index", "when the envelope arrived"),
        _integer("leaf", "its place in the commit"),
        _integer("number", "position in the mailbox"),
        _integer("reason", "acked, withdrawn or mailbox closed"),
        _blob("token", 0, 16, "t, which proves the ack or withdrawal"),
    ),
    "commits": (
        _blob("header", 60, 160, "time, count and hash of each commit", _LOG),
        _blob("signature", 64, 64, "the relay's own", _LOG),
        _blob("leaves", 32, LEAVES_BYTES_MAX, "hashes of what was stored", _LOG),
    ),
    "mailboxes": (
        _blob("mailbox", 16, 16, "which mailboxes exist"),
        _blob("device_key", 32, 32, "whose device it is", _KEY),
        _text("account", 3, 254, "who the account is"),
        _integer("enrolled_day", "the day of enrolment"),
        _integer("newest", "how much mail it has had that is gone"),
        _integer("closed", "that a device was removed"),
    ),
    "lists": (
        _text("account", 3, 254, "who the account is"),
        _integer("version", "how often its devices changed"),
        _blob("signed_list", 100, RECORD_BYTES_MAX, "its devices, their keys and mailboxes", _KEY),
    ),
    "prekeys": (
        _blob("device_key", 32, 32, "whose prekeys", _KEY),
        _integer("kind", "signed, last-resort KEM or one-time"),
        _blob("id", 16, 16, "a random name"),
        _blob("record", 100, RECORD_BYTES_MAX, "a public key; how many are left", _KEY),
    ),
    "tenants": (
        _text("domain", 1, 254, "which companies"),
        _blob("admin_key", 32, 32, "the company's public key", _KEY),
    ),
    "used_tokens": (
        _blob("nonce", 16, 16, "that an activation was used"),
        _integer("not_after", "until when it would have been valid"),
    ),
    "rotations": (_blob("record", 100, RECORD_BYTES_MAX, "when the relay's key changed", _KEY),),
    "relay": (
        _text("name", 1, 32, "none"),
        _blob("value", 1, 32, "the relay's own id, partition and format"),
    ),
}


def create_statement(table: str) -> str:
    """The one statement that may have made a table."""
    first = "idx" if table == "commits" else "seq"
    columns = ", ".join(column.sql for column in TABLES[table])
    return f"CREATE TABLE {table} ({first} INTEGER PRIMARY KEY, {columns}) STRICT"


CREATE_STATEMENTS: dict[str, str] = {table: create_statement(table) for table in TABLES}
