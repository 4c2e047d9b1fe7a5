"""The SQLite schema, word for word as protocol.md section 9 gives it (a test compares), in that order, with no
index.
"""

from __future__ import annotations

from typing import Final

__all__ = ["FORMAT", "PAGE_BYTES", "TABLES"]

PAGE_BYTES: Final = 4_096
FORMAT: Final = b"1"

TABLES: Final[dict[str, str]] = {
    "envelopes": (
        "CREATE TABLE envelopes (seq INTEGER PRIMARY KEY, mailbox BLOB NOT NULL, number INTEGER NOT NULL, "
        "envelope_id BLOB NOT NULL, expiry INTEGER NOT NULL, commit_index INTEGER NOT NULL, leaf INTEGER NOT NULL, "
        "body BLOB NOT NULL) STRICT"
    ),
    "tombstones": (
        "CREATE TABLE tombstones (seq INTEGER PRIMARY KEY, key BLOB NOT NULL, mailbox BLOB NOT NULL, "
        "expiry INTEGER NOT NULL, commit_index INTEGER NOT NULL, leaf INTEGER NOT NULL, number INTEGER NOT NULL, "
        "reason INTEGER NOT NULL, token BLOB NOT NULL) STRICT"
    ),
    "commits": (
        "CREATE TABLE commits (idx INTEGER PRIMARY KEY, header BLOB NOT NULL, signature BLOB NOT NULL, "
        "leaves BLOB NOT NULL) STRICT"
    ),
    "mailboxes": (
        "CREATE TABLE mailboxes (seq INTEGER PRIMARY KEY, mailbox BLOB NOT NULL, device_key BLOB NOT NULL, "
        "account TEXT NOT NULL, enrolled_day INTEGER NOT NULL, newest INTEGER NOT NULL, closed INTEGER NOT NULL) STRICT"
    ),
    "lists": (
        "CREATE TABLE lists (seq INTEGER PRIMARY KEY, account TEXT NOT NULL, version INTEGER NOT NULL, "
        "signed_list BLOB NOT NULL) STRICT"
    ),
    "prekeys": (
        "CREATE TABLE prekeys (seq INTEGER PRIMARY KEY, device_key BLOB NOT NULL, kind INTEGER NOT NULL, "
        "id BLOB NOT NULL, record BLOB NOT NULL) STRICT"
    ),
    "tenants": ("CREATE TABLE tenants (seq INTEGER PRIMARY KEY, domain TEXT NOT NULL, admin_key BLOB NOT NULL) STRICT"),
    "used_tokens": (
        "CREATE TABLE used_tokens (seq INTEGER PRIMARY KEY, nonce BLOB NOT NULL, not_after INTEGER NOT NULL) STRICT"
    ),
    "rotations": "CREATE TABLE rotations (seq INTEGER PRIMARY KEY, record BLOB NOT NULL) STRICT",
    "relay": "CREATE TABLE relay (seq INTEGER PRIMARY KEY, name TEXT NOT NULL, value BLOB NOT NULL) STRICT",
}
