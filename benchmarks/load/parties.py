"""The devices of a load: keys, lists, enrolments; and envelopes of random bytes in the sizes that real ones have.

A body of the load is random: the relay cannot tell it from ciphertext, which is what it carries in earnest. Its size is
that of the body which a device would make of so many bytes of content (protocol.md sections 3 and 4.4).
"""

import os
import time
from dataclasses import dataclass
from hashlib import sha256

from wire.commands import Enrol
from wire.envelope import Envelope, envelope_id_of
from wire.identity import (
    NO_PREVIOUS,
    Activation,
    DeviceEntry,
    DeviceList,
    Token,
    device_tag,
    list_hash,
    sign_activation,
    sign_list,
)
from wire.limits import CHUNK_BYTES_STEP, INLINE_CONTENT_BYTES_MAX, ML_KEM_768_PUBLIC_BYTES, PADDED_BYTES_MIN
from wire.padding import padme
from wire.prekeys import KemPrekey, Prekeys, SignedPrekey, kem_prekey_signed_bytes, signed_prekey_signed_bytes
from wire.signing import SigningKey

__all__ = ["TENANT", "Mail", "Party", "body_bytes_for", "mail_for", "parties"]

TENANT = "bench.example"
HOUR_S = 3_600
_ORDINARY_OVERHEAD_BYTES = 144
_CHUNK_OVERHEAD_BYTES = 88


def body_bytes_for(content_bytes: int) -> int:
    """The size of the body that carries so much content: an ordinary body, or above 64 KiB a chunk."""
    if content_bytes > INLINE_CONTENT_BYTES_MAX:
        return _CHUNK_OVERHEAD_BYTES + -(-content_bytes // CHUNK_BYTES_STEP) * CHUNK_BYTES_STEP
    return _ORDINARY_OVERHEAD_BYTES + max(PADDED_BYTES_MIN, padme(content_bytes + 1))


class Party:
    """One account with one device.

    Args:
        account: its address.
    """

    def __init__(self, account: str) -> None:
        self.account = account
        self.key = SigningKey(os.urandom(32))
        self.tag = device_tag(self.key.public)
        self.mailbox = os.urandom(16)
        account_key = SigningKey(os.urandom(32))
        entry = DeviceEntry(self.key.public, os.urandom(32), self.mailbox)
        self.signed_list = sign_list(account_key, DeviceList(account, 1, NO_PREVIOUS, account_key.public, (entry,)))
        self.list_hash = list_hash(self.signed_list)

    def __repr__(self) -> str:
        return f"Party(account={self.account!r}, keys=<redacted>)"

    def enrol(self, ref: int, token: Token) -> Enrol:
        """The command that enrols the device."""
        prekey_id, key, kem_key = os.urandom(16), os.urandom(32), os.urandom(ML_KEM_768_PUBLIC_BYTES)
        prekeys = Prekeys(
            self.key.public,
            SignedPrekey(prekey_id, key, self.key.sign("signed-prekey", signed_prekey_signed_bytes(prekey_id, key))),
            KemPrekey(prekey_id, kem_key, self.key.sign("kem-prekey", kem_prekey_signed_bytes(prekey_id, kem_key))),
            (),
        )
        return Enrol(ref, token, self.signed_list, prekeys)


def parties(prefix: str, count: int) -> list[Party]:
    """So many accounts of the benchmark's company."""
    return [Party(f"{prefix}{number}@{TENANT}") for number in range(count)]


def activation_token(admin: SigningKey, account: str) -> Token:
    """A token for an account, one hour long."""
    return sign_activation(admin, Activation(TENANT, account, os.urandom(16), int(time.time()) + HOUR_S))


@dataclass(frozen=True, slots=True)
class Mail:
    """An envelope, what acknowledges it, and what its body must still hash to when it arrives."""

    token: bytes
    envelope: Envelope
    body_hash: bytes


def mail_for(recipient: Party, body_bytes: int) -> Mail:
    """A new envelope of random bytes."""
    token, body = os.urandom(16), os.urandom(body_bytes)
    expiry = (int(time.time()) // HOUR_S + 25) * HOUR_S
    envelope = Envelope(recipient.mailbox, envelope_id_of(token), expiry, body)
    return Mail(token, envelope, sha256(body).digest())
