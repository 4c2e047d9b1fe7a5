"""Prekeys, as they travel (protocol.md section 2.4).

All are signed by the device that publishes them, each under a label and type of its own. The relay verifies them when
it takes them (so that it never hands out what a sender must refuse), the sender again before it uses one.
"""

from typing import Annotated

from msgspec import Meta

from wire.codec import Id, Key, Record, Signature
from wire.errors import FormatError
from wire.hashing import KeyRole, typed
from wire.limits import ML_KEM_768_PUBLIC_BYTES, ONE_TIME_PREKEYS_PER_UPLOAD_MAX
from wire.signing import verify

__all__ = [
    "Bundle",
    "KemPrekey",
    "OneTimePrekey",
    "Prekeys",
    "SignedPrekey",
    "kem_prekey_signed_bytes",
    "one_time_prekey_signed_bytes",
    "signed_prekey_signed_bytes",
    "verify_bundle",
    "verify_one_time_prekey",
    "verify_prekeys",
]

KemPublic = Annotated[bytes, Meta(min_length=ML_KEM_768_PUBLIC_BYTES, max_length=ML_KEM_768_PUBLIC_BYTES)]


class SignedPrekey(Record, frozen=True):
    """X25519 signed prekey."""

    id: Id
    key: Key
    signature: Signature


class KemPrekey(Record, frozen=True):
    """Last-resort ML-KEM-768 prekey; its id is the signed prekey's."""

    id: Id
    key: KemPublic
    signature: Signature


class OneTimePrekey(Record, frozen=True):
    """One-time prekey: X25519 and ML-KEM-768 halves under one id and one signature."""

    id: Id
    x_key: Key
    kem_key: KemPublic
    signature: Signature


OneTimePrekeys = Annotated[tuple[OneTimePrekey, ...], Meta(max_length=ONE_TIME_PREKEYS_PER_UPLOAD_MAX)]


class Prekeys(Record, frozen=True):
    """All that a device publishes at once; replaces what it published before."""

    device_key: Key
    signed_prekey: SignedPrekey
    kem_prekey: KemPrekey
    one_time: OneTimePrekeys


class Bundle(Record, frozen=True):
    """What a sender gets of one device: its one-time prekey, if one is left, is taken for this sender alone."""

    device_key: Key
    signed_prekey: SignedPrekey
    kem_prekey: KemPrekey
    one_time: Annotated[tuple[OneTimePrekey, ...], Meta(max_length=1)]


def signed_prekey_signed_bytes(prekey_id: bytes, key: bytes) -> bytes:
    """What is signed, under label `signed-prekey`."""
    return prekey_id + typed(KeyRole.SIGNED_PREKEY, key)


def kem_prekey_signed_bytes(prekey_id: bytes, key: bytes) -> bytes:
    """What is signed, under label `kem-prekey`."""
    return prekey_id + typed(KeyRole.LAST_RESORT_KEM_PREKEY, key)


def one_time_prekey_signed_bytes(prekey_id: bytes, x_key: bytes, kem_key: bytes) -> bytes:
    """What is signed, under label `one-time-prekey`."""
    return prekey_id + typed(KeyRole.ONE_TIME_PREKEY, x_key) + typed(KeyRole.ONE_TIME_KEM_PREKEY, kem_key)


def verify_one_time_prekey(device_key: bytes, prekey: OneTimePrekey) -> None:
    """Verify one one-time prekey.

    Raises:
        SignatureError: the device did not sign it.
    """
    signed = one_time_prekey_signed_bytes(prekey.id, prekey.x_key, prekey.kem_key)
    verify(device_key, "one-time-prekey", signed, prekey.signature)


def verify_bundle(bundle: Bundle) -> None:
    """Verify every signature of a bundle against the device key it names; that this is the right key the caller knows.

    Raises:
        FormatError: the KEM prekey does not belong to the signed prekey.
        SignatureError: the device did not sign one of them.
    """
    _verify_current(bundle.device_key, bundle.signed_prekey, bundle.kem_prekey)
    for prekey in bundle.one_time:
        verify_one_time_prekey(bundle.device_key, prekey)


def verify_prekeys(prekeys: Prekeys) -> None:
    """Verify every signature of an upload, and that no id occurs twice.

    Raises:
        FormatError: an id occurs twice, or the KEM prekey does not belong to the signed prekey.
        SignatureError: the device did not sign one of them.
    """
    _verify_current(prekeys.device_key, prekeys.signed_prekey, prekeys.kem_prekey)
    ids = {prekeys.signed_prekey.id} | {prekey.id for prekey in prekeys.one_time}
    if len(ids) != len(prekeys.one_time) + 1:
        raise FormatError("prekeys", "name an id twice")
    for prekey in prekeys.one_time:
        verify_one_time_prekey(prekeys.device_key, prekey)


def _verify_current(device_key: bytes, signed_prekey: SignedPrekey, kem_prekey: KemPrekey) -> None:
    if kem_prekey.id != signed_prekey.id:
        raise FormatError("kem prekey", "does not belong to the signed prekey")
    signed = signed_prekey_signed_bytes(signed_prekey.id, signed_prekey.key)
    verify(device_key, "signed-prekey", signed, signed_prekey.signature)
    verify(device_key, "kem-prekey", kem_prekey_signed_bytes(kem_prekey.id, kem_prekey.key), kem_prekey.signature)
