"""Keys of historical suites: who holds the global PIN key reads everybody's messages (protocol.md section 13).

"Consider PIN messages as scrambled, but not encrypted." Every handset of the network held the same Triple DES key. One
person who volunteers it is enough, so a store that it opens is not blind, whatever the other checks say.
"""

from __future__ import annotations

from typing import Any, Final

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from audit import decoder
from audit.case import Case, ReadMessage
from audit.crypto import body_kinds
from audit.disclosure import printable
from audit.errors import AuditError
from audit.outcome import About, Outcome

ABOUT = About(
    "historical.keys",
    "no key that many people share opens anything",
    "The historical keys that were volunteered open no row.",
    "Shared keys that nobody volunteered; repeated key commitments (store.envelopes) are another sign of one.",
    "13",
)
GLOBAL_PIN_KEY: Final = 0x5049
KEY_BYTES: Final = 24
IV_AT, CIPHERTEXT_AT, BLOCK_BYTES = 128, 136, 8
PREFIX_BYTES: Final = 24
MESSAGES_SHOWN: Final = 50
TEXT_SHOWN: Final = 400


def check(case: Case, outcome: Outcome) -> None:
    """Try each key on each row."""
    keys = case.material.historical_keys
    if not keys:
        outcome.nothing_to_do("no key of a historical suite was volunteered")
        return
    if case.store is None:
        outcome.miss("a store that can be read")
        return
    read = tried = 0
    for item in keys:
        if item.suite != GLOBAL_PIN_KEY or len(item.key) != KEY_BYTES:
            outcome.miss(f"a suite that is known: {item.suite:#06x} with a key of {len(item.key)} bytes is not")
            continue
        for row in case.store.envelopes:
            if "ordinary" not in body_kinds(row.body_bytes):
                continue
            tried += 1
            content = open_pin(item.key, case.store.body(row))
            if content is None:
                continue
            read += 1
            if len(case.read_messages) < MESSAGES_SHOWN:
                case.read_messages.append(ReadMessage(f"envelopes row {row.seq}", item.who, _shown(content)))
    if read:
        outcome.fail(
            "store/store.sqlite",
            f"one key, given by one person, opens {read} of {len(case.store.envelopes)} envelopes: it reads "
            "everybody's messages",
        )
    outcome.figures.update({"keys": len(keys), "rows tried": tried, "messages read": read})
    outcome.evidence = f"{read} of {tried} rows opened under {len(keys)} volunteered keys"


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
