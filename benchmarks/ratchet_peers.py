"""Ratchets to measure: ours, and two that others made. Each turns contents into bytes and bytes into contents.

The three do not do the same work, and a figure is read with that in mind:

* blindpost: header encryption, hint, key commitment, PADMÉ (1,024 bytes become 1,088), XChaCha20-Poly1305 (libsodium);
* python-doubleratchet with its recommended parts: no header encryption, AES-256-CBC with HMAC-SHA-256 (OpenSSL);
* vodozemac (Olm): no header encryption, AES-256-CBC with HMAC-SHA-256 cut to 8 bytes (Rust); hard-wired primitives.
"""

import importlib
import importlib.metadata
import os
from typing import Any, Protocol

from keys.identity import AccountKey, DeviceKeys
from keys.prekeys import PrekeyRing
from keys.session import Session
from wire.prekeys import Bundle

ENVELOPE_ID = bytes(16)
NOW_S = 1_448_841_600


class Pair(Protocol):
    """Two ends of one session that have heard of each other; end 0 and end 1."""

    name: str

    async def encrypt(self, end: int, content: bytes) -> Any:
        """The next message of that end."""
        ...

    async def decrypt(self, end: int, message: Any) -> bytes:
        """What came from the other end."""
        ...


class Blindpost:
    """keys/session.py."""

    def __init__(self) -> None:
        self.name = "blindpost"
        a, b = DeviceKeys.generate(), DeviceKeys.generate()
        account = AccountKey.generate()
        listed = account.first_list("a@acme.example", [a.entry])
        ring, upload = PrekeyRing.generate(b, NOW_S, one_time=1)
        bundle = Bundle(upload.device_key, upload.signed_prekey, upload.kem_prekey, upload.one_time)
        first = Session.initiate(a, listed, b.entry, bundle)
        body = first.encrypt(b"first", ENVELOPE_ID)
        second = Session.accept(b, ring, body, ENVELOPE_ID, NOW_S, check_sender=lambda inbound: None).session
        first.decrypt(second.encrypt(b"reply", ENVELOPE_ID), ENVELOPE_ID, NOW_S)
        self.ends = (first, second)

    async def encrypt(self, end: int, content: bytes) -> bytes:
        """A body."""
        return self.ends[end].encrypt(content, ENVELOPE_ID)

    async def decrypt(self, end: int, message: bytes) -> bytes:
        """Its content."""
        return self.ends[end].decrypt(message, ENVELOPE_ID, NOW_S)


class PythonDoubleRatchet:
    """PyPI DoubleRatchet, with the parts that it recommends."""

    def __init__(self) -> None:
        self.name = f"python-doubleratchet {importlib.metadata.version('DoubleRatchet')}"
        library: Any = importlib.import_module("doubleratchet")
        parts: Any = importlib.import_module("doubleratchet.recommended")
        for part in ("aead_aes_hmac", "diffie_hellman_ratchet_curve25519", "kdf_hkdf", "kdf_separate_hmacs"):
            importlib.import_module(f"doubleratchet.recommended.{part}")
        sha256 = parts.crypto_provider.HashFunction.SHA_256

        def of(base: Any, info: bytes = b"benchmark") -> Any:
            named = {"_get_hash_function": staticmethod(lambda: sha256), "_get_info": staticmethod(lambda: info)}
            return type("Part", (base,), named)

        self._ratchet = type(
            "Ratchet",
            (library.DoubleRatchet,),
            {"_build_associated_data": staticmethod(lambda data, header: data + header.ratchet_pub)},
        )
        self._settings = {
            "diffie_hellman_ratchet_class": parts.diffie_hellman_ratchet_curve25519.DiffieHellmanRatchet,
            "root_chain_kdf": of(parts.kdf_hkdf.KDF),
            "message_chain_kdf": of(parts.kdf_separate_hmacs.KDF),
            "message_chain_constant": b"\x01\x02",
            "dos_protection_threshold": 1_000,
            "max_num_skipped_message_keys": 2_000,
            "aead": of(parts.aead_aes_hmac.AEAD),
        }
        self._ends: list[Any] = []

    async def _begin(self) -> None:
        from keys.agreement import x_public

        private, secret = os.urandom(32), os.urandom(32)
        first, message = await self._ratchet.encrypt_initial_message(  # type: ignore[attr-defined]
            **self._settings,
            shared_secret=secret,
            recipient_ratchet_pub=x_public(private),
            message=b"first",
            associated_data=ENVELOPE_ID,
        )
        second, _ = await self._ratchet.decrypt_initial_message(  # type: ignore[attr-defined]
            **self._settings,
            shared_secret=secret,
            own_ratchet_priv=private,
            message=message,
            associated_data=ENVELOPE_ID,
        )
        self._ends = [first, second]

    async def encrypt(self, end: int, content: bytes) -> Any:
        """A message."""
        if not self._ends:
            await self._begin()
        return await self._ends[end].encrypt_message(content, ENVELOPE_ID)

    async def decrypt(self, end: int, message: Any) -> bytes:
        """Its content."""
        content: bytes = await self._ends[end].decrypt_message(message, ENVELOPE_ID)
        return content


class Vodozemac:
    """PyPI vodozemac: Olm in Rust."""

    def __init__(self) -> None:
        self.name = f"vodozemac {importlib.metadata.version('vodozemac')}"
        library: Any = importlib.import_module("vodozemac")
        self._message = library.AnyOlmMessage
        a, b = library.Account(), library.Account()
        b.generate_one_time_keys(1)
        first = a.create_outbound_session(b.curve25519_key, next(iter(b.one_time_keys.values())))
        begun = first.encrypt(b"first").to_pre_key()
        second, _ = b.create_inbound_session(a.curve25519_key, begun)
        first.decrypt(second.encrypt(b"reply"))
        self._ends = (first, second)

    async def encrypt(self, end: int, content: bytes) -> Any:
        """A message, as type and bytes."""
        return self._ends[end].encrypt(content).to_parts()

    async def decrypt(self, end: int, message: Any) -> bytes:
        """Its content."""
        content: bytes = self._ends[end].decrypt(self._message.from_parts(*message))
        return content
