"""The handshake: PQXDH's shape, with the sender sealed (protocol.md section 4.1).

Steps of the initiator, A:
  1. verify every signature of the bundle, and that it is of the device that the verified list names;
  2. EK, (SS, CT) = Encapsulate(KEM_B), DH1 to DH4, none of them all zeros;
  3. seal device key and device list under a key that does not involve A's identity;
  4. derive root ‖ hk_a ‖ nhk_b from all of it.

Steps of the recipient, B, of which none erases anything (`Inbound` is only a reading):
  1. find the private halves of the prekey id;
  2. derive the seal key, open the sealed sender;
  3. verify A's device list, and that the device is on it; let the caller compare it with what it has pinned;
  4. derive root ‖ hk_a ‖ nhk_b.
The one-time half is erased by keys/session.py after the content of the first message has verified.
"""

import os
from hashlib import sha256
from typing import Final, NamedTuple

from keys.agreement import (
    Encapsulate,
    Entropy,
    decapsulate,
    diffie_hellman,
    draw,
    encapsulate,
    hkdf,
    kem_public,
    x_public,
)
from keys.errors import HandshakeError, SenderRefused
from keys.identity import DeviceKeys
from keys.message import HEADER_END, TAG_BYTES, aead_open, aead_seal, check_body
from keys.prekeys import PrekeyHalves, PrekeyRing
from wire.codec import Key, Record, decode, encode
from wire.errors import FormatError
from wire.hashing import KeyRole, hash16, label, typed
from wire.identity import DeviceEntry, DeviceList, SignedList, verify_signed_list
from wire.limits import KEY_BYTES, ML_KEM_768_CIPHERTEXT_BYTES, SEALED_STEP_BYTES, SEALED_STEPS_MAX
from wire.prekeys import Bundle, verify_bundle

__all__ = ["Inbound", "Outbound", "first_offset", "initiate", "open_inbound", "sealed_sender"]

_EPHEMERAL_END: Final = HEADER_END + KEY_BYTES
_CIPHERTEXT_END: Final = _EPHEMERAL_END + ML_KEM_768_CIPHERTEXT_BYTES
_LENGTH_END: Final = _CIPHERTEXT_END + 2

# F of X3DH: domain separation from XEdDSA encodings, kept as PQXDH has it.
_F: Final = b"\xff" * 32
_SALT: Final = bytes(32)
# The seal key is used for one plaintext only (protocol.md section 4.1), so that the nonce may be zero.
_ZERO_NONCE: Final = bytes(24)


class SealedSender(Record, frozen=True):
    """What is sealed: who sends, in their own account's words."""

    device_key: Key
    signed_list: SignedList


class Secrets(NamedTuple):
    """root ‖ hk_a ‖ nhk_b, where the ratchet begins."""

    root: bytes
    header_a: bytes
    next_header_b: bytes

    def __repr__(self) -> str:
        return "Secrets(<redacted>)"


class Outbound(NamedTuple):
    """A's side of a handshake."""

    secrets: Secrets
    prekey_id: bytes
    prefix: bytes  # EK ‖ CT ‖ u16(len(sealed)) ‖ sealed, the same in each first body
    signed_prekey: bytes

    def __repr__(self) -> str:
        return f"Outbound(prekey_id={self.prekey_id.hex()}, secrets=<redacted>)"


class Inbound(NamedTuple):
    """B's side, read from a first body: nothing is erased or accepted by making it."""

    secrets: Secrets
    prekey_id: bytes
    prefix: bytes
    signed_private: bytes
    sender_device: bytes
    sender_list: DeviceList  # verified
    sender_signed_list: SignedList

    @property
    def handshake_id(self) -> bytes:
        """16 bytes that name the handshake, for replay protection."""
        return hash16("handshake", self.prekey_id + self.prefix)

    def __repr__(self) -> str:
        return (
            f"Inbound(prekey_id={self.prekey_id.hex()}, sender_device={self.sender_device.hex()}, secrets=<redacted>)"
        )


def context_of(
    device_b: bytes,
    identity_b: bytes,
    signed_prekey: bytes,
    one_time: bytes,
    kem_role: KeyRole,
    kem_key: bytes,
    ephemeral: bytes,
    ciphertext: bytes,
) -> bytes:
    """The hash that binds every public key of the handshake, each with its type and role."""
    return sha256(
        label("pqxdh-context")
        + typed(KeyRole.DEVICE, device_b)
        + typed(KeyRole.DEVICE_IDENTITY, identity_b)
        + typed(KeyRole.SIGNED_PREKEY, signed_prekey)
        + (typed(KeyRole.ONE_TIME_PREKEY, one_time) if one_time else b"")
        + typed(kem_role, kem_key)
        + typed(KeyRole.EPHEMERAL, ephemeral)
        + ciphertext
    ).digest()


def seal_key_of(shared: bytes, context: bytes) -> bytes:
    """The key of the sealed sender; `shared` is DH2 ‖ DH3 ‖ [DH4] ‖ SS."""
    return hkdf(_F + shared, _SALT, label("pqxdh-seal") + context, 32)


def secrets_of(dh1: bytes, shared: bytes, context: bytes, identity_a: bytes, device_a: bytes) -> Secrets:
    """The root key and the first header keys: root ‖ hk_a ‖ nhk_b."""
    info = label("pqxdh") + context + typed(KeyRole.DEVICE_IDENTITY, identity_a) + typed(KeyRole.DEVICE, device_a)
    okm = hkdf(_F + dh1 + shared, _SALT, info, 96)
    return Secrets(okm[:32], okm[32:64], okm[64:])


def sealed_sender(device_key: bytes, signed_list: SignedList) -> bytes:
    """The plaintext of the seal: padded by 0x80 and zeros to the next multiple of 256.

    Raises:
        FormatError: longer than 4,096 bytes.
    """
    plain = encode(SealedSender(device_key, signed_list)) + b"\x80"
    steps = -(-len(plain) // SEALED_STEP_BYTES)
    if steps > SEALED_STEPS_MAX:
        raise FormatError("sealed sender", f"has {len(plain)} bytes", SEALED_STEPS_MAX * SEALED_STEP_BYTES)
    return plain.ljust(steps * SEALED_STEP_BYTES, b"\0")


def _unpad_sender(padded: bytes) -> bytes:
    stripped = padded.rstrip(b"\0")
    # One length only: less than one step of padding.
    if not stripped.endswith(b"\x80") or len(padded) - len(stripped) >= SEALED_STEP_BYTES:
        raise FormatError("sealed sender", "is not padded by 0x80 and zeros to the next multiple of 256")
    return stripped[:-1]


def initiate(
    own: DeviceKeys,
    own_list: SignedList,
    peer: DeviceEntry,
    bundle: Bundle,
    entropy: Entropy = os.urandom,
    kem: Encapsulate = encapsulate,
) -> Outbound:
    """Start a handshake with a device.

    Args:
        own: our device.
        own_list: our account's current device list, which has our device on it.
        peer: the entry of the peer's device on its *verified* device list.
        bundle: what the relay gave for that device.
        entropy: where the ephemeral key comes from.
        kem: encapsulation, replaced where published vectors fix its randomness.

    Raises:
        HandshakeError: the bundle is of another device, or our own list does not name our keys.
        SignatureError: a prekey is not signed by the device.
        SharedSecretZero: a public key is of small order.
        FormatError: a key is malformed.
    """
    if bundle.device_key != peer.device_key:
        raise HandshakeError("bundle: is of another device")
    if verify_signed_list(own_list).entry_of(own.public) != own.entry:
        raise HandshakeError("own device list: does not name this device and its keys")
    verify_bundle(bundle)
    one_time = bundle.one_time[0] if bundle.one_time else None
    signed_prekey = bundle.signed_prekey.key
    kem_role = KeyRole.ONE_TIME_KEM_PREKEY if one_time else KeyRole.LAST_RESORT_KEM_PREKEY
    kem_key = one_time.kem_key if one_time else bundle.kem_prekey.key

    ephemeral = draw(entropy, KEY_BYTES)
    ephemeral_public = x_public(ephemeral)
    secret, ciphertext = kem(kem_key)
    dh1 = own.agree(signed_prekey)
    shared = diffie_hellman(ephemeral, peer.dh_key) + diffie_hellman(ephemeral, signed_prekey)
    if one_time:
        shared += diffie_hellman(ephemeral, one_time.x_key)
    shared += secret

    context = context_of(
        peer.device_key,
        peer.dh_key,
        signed_prekey,
        one_time.x_key if one_time else b"",
        kem_role,
        kem_key,
        ephemeral_public,
        ciphertext,
    )
    sealed = aead_seal(sealed_sender(own.public, own_list), context, _ZERO_NONCE, seal_key_of(shared, context))
    return Outbound(
        secrets_of(dh1, shared, context, own.dh_public, own.public),
        one_time.id if one_time else bundle.signed_prekey.id,
        ephemeral_public + ciphertext + len(sealed).to_bytes(2, "big") + sealed,
        signed_prekey,
    )


def first_offset(body: bytes) -> int:
    """Where the content of a first body begins.

    Raises:
        FormatError: too short, or the sealed sender has a length that none has.
    """
    check_body(body)
    if len(body) < _LENGTH_END:
        raise FormatError("first body", f"has {len(body)} bytes", _LENGTH_END)
    sealed_bytes = int.from_bytes(body[_CIPHERTEXT_END:_LENGTH_END], "big")
    steps, rest = divmod(sealed_bytes - TAG_BYTES, SEALED_STEP_BYTES)
    if rest or not 1 <= steps <= SEALED_STEPS_MAX:
        raise FormatError("sealed sender", f"has {sealed_bytes} bytes", SEALED_STEP_BYTES * SEALED_STEPS_MAX)
    if len(body) < _LENGTH_END + sealed_bytes + TAG_BYTES:
        raise FormatError("first body", "ends before its content", len(body))
    return _LENGTH_END + sealed_bytes


def open_inbound(own: DeviceKeys, ring: PrekeyRing, body: bytes) -> Inbound:
    """Read the handshake of a first body. Whether the sender is welcome is the caller's to decide, with
    `Inbound.sender_list`; that they hold the keys they name is proven only by the content, which keys/session.py opens.

    Raises:
        PrekeyUnknown: no private half.
        AuthenticationFailed: the seal does not open: altered, or for another device.
        SenderRefused: the sealed list does not verify, or does not name the device.
        SharedSecretZero: the ephemeral key, or the sender's identity key, is of small order.
        FormatError: the body is malformed.
    """
    offset = first_offset(body)
    halves = ring.halves(body[:16])
    ephemeral, ciphertext = body[HEADER_END:_EPHEMERAL_END], body[_EPHEMERAL_END:_CIPHERTEXT_END]
    shared = own.agree(ephemeral) + diffie_hellman(halves.signed_private, ephemeral)
    if halves.one_time_private:
        shared += diffie_hellman(halves.one_time_private, ephemeral)
    shared += decapsulate(halves.kem_seed, ciphertext)
    context = _own_context(own, halves, ephemeral, ciphertext)
    padded = aead_open(body[_LENGTH_END:offset], context, _ZERO_NONCE, seal_key_of(shared, context), "sealed sender")
    sender = decode(SealedSender, _unpad_sender(padded), "sealed sender")
    sender_list = verify_signed_list(sender.signed_list)
    entry = sender_list.entry_of(sender.device_key)
    if entry is None:
        raise SenderRefused("the device is not on its account's list")
    dh1 = diffie_hellman(halves.signed_private, entry.dh_key)
    return Inbound(
        secrets_of(dh1, shared, context, entry.dh_key, sender.device_key),
        body[:16],
        body[HEADER_END:offset],
        halves.signed_private,
        sender.device_key,
        sender_list,
        sender.signed_list,
    )


def _own_context(own: DeviceKeys, halves: PrekeyHalves, ephemeral: bytes, ciphertext: bytes) -> bytes:
    return context_of(
        own.public,
        own.dh_public,
        halves.signed_public,
        x_public(halves.one_time_private) if halves.one_time_private else b"",
        halves.kem_role,
        kem_public(halves.kem_seed),
        ephemeral,
        ciphertext,
    )
