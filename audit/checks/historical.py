"""Keys of historical suites: who holds one reads what it opens, everybody's messages or one person's (section 13).

"Consider PIN messages as scrambled, but not encrypted." Every handset of the network held the same Triple DES key. One
person who volunteers it is enough, so a store that it opens is not blind, whatever the other checks say. Nor is one
that has the keys beside the mail, as a hosted server has them: what a store holds and its schema does not know is tried
as a key, window by window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from nacl import bindings
from nacl.exceptions import CryptoError

from audit import decoder
from audit import disclosure as names
from audit.case import Case, ReadMessage
from audit.crypto import body_kinds
from audit.disclosure import printable
from audit.errors import AuditError
from audit.outcome import About, Outcome
from audit.rows import EnvelopeRow

ABOUT = About(
    "historical.keys",
    "no key that is shared, or that lies beside the mail, opens anything",
    "The historical keys that were volunteered open no row, and neither does anything in the store that its schema "
    "does not know, taken as such a key.",
    "Shared keys that nobody volunteered and that are not in the store; repeated key commitments (store.envelopes) are "
    "another sign of one.",
    "13",
)
GLOBAL_PIN_KEY: Final = 0x5049
HOSTED_KEY: Final = 0x4842
SERVER_MAIL_KEY: Final = 0x454E
DEVICE_KEY: Final = 0x4250
IV_AT, CIPHERTEXT_AT, BLOCK_BYTES = 128, 136, 8
PREFIX_BYTES: Final = 24
SEALED_AT: Final = 96
MESSAGES_SHOWN: Final = 50
TEXT_SHOWN: Final = 400
WINDOWS_MAX: Final = 4_096
"""Of what the schema does not know; each is tried on one row of each mailbox."""
MAILBOXES_MAX: Final = 16
DISTINCT_BYTES_MIN: Final = 12
"""A random key has fewer with a probability below 1e-9."""

Opener = Callable[[bytes, bytes], bytes | None]


def check(case: Case, outcome: Outcome) -> None:
    """Try each volunteered key on each row, then what the store holds beside its rows."""
    keys = case.material.historical_keys
    if case.store is None:
        if keys:
            outcome.miss("a store that can be read")
        else:
            outcome.nothing_to_do("no key of a historical suite was volunteered, and there is no store to look in")
        return
    if not keys and not case.store.unexplained:
        outcome.nothing_to_do("no key of a historical suite was volunteered, and the store has nothing beside its rows")
        return
    rows = [row for row in case.store.envelopes if "ordinary" in body_kinds(row.body_bytes)]
    tried = read = 0
    for item in keys:
        opener, size = OPENERS.get(item.suite, (None, 0))
        if opener is None or len(item.key) != size:
            outcome.miss(f"a suite that is known: {item.suite:#06x} with a key of {len(item.key)} bytes is not")
            continue
        opened = _read(case, rows, opener, item.key, item.who)
        tried += len(rows)
        read += opened
        if opened:
            whose = "everybody's messages" if item.suite == GLOBAL_PIN_KEY else "what was sent to that device"
            outcome.fail(
                names.STORE,
                f"one key, given by one person, opens {opened} of {len(case.store.envelopes)} envelopes: "
                f"it reads {whose}",
            )
    windows = 0
    for where, opener, key in _beside_the_mail(case, rows):
        windows += 1
        if any(opener(key, case.store.body(row)) is not None for row in _one_a_mailbox(rows)):
            opened = _read(case, rows, opener, key, "the server, whose database has the key")
            read += opened
            place = case.place(names.STORE, where)
            outcome.fail(place, f"holds a key that opens {opened} of {len(case.store.envelopes)} envelopes")
    figures = {"keys": len(keys), "rows tried": tried, "windows beside the rows tried": windows, "messages read": read}
    outcome.figures.update(figures)
    outcome.evidence = f"{read} messages read with {len(keys)} volunteered keys and {windows:,} windows of the store"


def _read(case: Case, rows: list[EnvelopeRow], opener: Opener, key: bytes, who: str) -> int:
    """Open what a key opens, and keep the first for the report."""
    assert case.store is not None
    opened = 0
    for row in rows:
        content = opener(key, case.store.body(row))
        if content is None:
            continue
        opened += 1
        if len(case.read_messages) < MESSAGES_SHOWN:
            case.read_messages.append(ReadMessage(f"envelopes row {row.seq}", who, _shown(content)))
    return opened


def _one_a_mailbox(rows: list[EnvelopeRow]) -> list[EnvelopeRow]:
    first = {row.mailbox: row for row in reversed(rows)}
    return list(first.values())[:MAILBOXES_MAX]


def _beside_the_mail(case: Case, rows: list[EnvelopeRow]) -> Iterator[tuple[int, Opener, bytes]]:
    """Windows of what the schema does not know, as keys of either length."""
    if case.store is None or not rows:
        return
    view, count = case.disclosure.files[names.STORE], 0
    for (start, end), _ in case.store.unexplained:
        region = bytes(view[start:end])
        for at in range(len(region) - 23):
            if count >= WINDOWS_MAX:
                return
            if len(set(region[at : at + 24])) < DISTINCT_BYTES_MIN:
                continue
            count += 1
            yield start + at, open_pin, region[at : at + 24]
            if len(region) - at >= 32:
                yield start + at, open_sealed, region[at : at + 32]


def open_pin(key: bytes, body: bytes) -> bytes | None:
    """Decrypt a body of suite 0x5049; None if its first two blocks are not zeros under this key.

    Args:
        key: 24 bytes.
        body: iv at 128, ciphertext from 136 on; the bytes before are random.
    """
    decryptor_of = Cipher(TripleDES(key), modes.CBC(body[IV_AT:CIPHERTEXT_AT])).decryptor
    ciphertext = body[CIPHERTEXT_AT:]
    if len(ciphertext) % BLOCK_BYTES or len(ciphertext) < PREFIX_BYTES:
        return None
    start = decryptor_of().update(ciphertext[:PREFIX_BYTES])
    length = int.from_bytes(start[16:20], "big")
    if any(start[:16]) or 20 + length > len(ciphertext):
        return None
    plaintext = decryptor_of().update(ciphertext)
    return plaintext[20 : 20 + length]


def open_sealed(key: bytes, body: bytes) -> bytes | None:
    """Open a body of suites 0x454E and 0x4250; None if it is none for this private key.

    Args:
        key: 32 bytes, an X25519 private key.
        body: a sealed box from byte 96 on; the bytes before are random.
    """
    try:
        padded = bindings.crypto_box_seal_open(body[SEALED_AT:], bindings.crypto_scalarmult_base(key), key)
    except (CryptoError, ValueError, TypeError, RuntimeError):
        return None
    content = padded.rstrip(b"\0")
    return content[:-1] if content.endswith(b"\x80") else None


OPENERS: Final[dict[int, tuple[Opener, int]]] = {
    GLOBAL_PIN_KEY: (open_pin, 24),
    HOSTED_KEY: (open_pin, 24),
    SERVER_MAIL_KEY: (open_sealed, 32),
    DEVICE_KEY: (open_sealed, 32),
}
"""By suite, how its bodies open and how long its keys are, in bytes."""


def _shown(content: bytes) -> str:
    """The text of a message as far as it can be shown, on one line."""
    payload = content
    try:
        fields: list[Any] = decoder.array(decoder.decode(content, "content", 200_000), "content", 7)
        payload = decoder.binary(fields[6], "payload")
    except AuditError:
        # Not a content structure: what was decrypted is shown as it is.
        payload = content
    text = payload.decode(errors="replace").replace("\r\n", " ").replace("\n", " ")
    return printable_long(text)


def printable_long(text: str) -> str:
    """As `printable`, for a text of a few lines."""
    return "".join(printable(text[i : i + 50]) for i in range(0, min(len(text), TEXT_SHOWN), 50))
