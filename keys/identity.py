"""The identities of a person's account, of a device, and of a company (protocol.md sections 2.1 to 2.3).

Each is a type of its own, so that no function takes one for another. Private halves come from entropy that is handed
in, show in no repr, and leave only through `to_bytes`, for sealed storage (keys/vault.py). What the public halves say
on the wire, and how it is verified, is wire/identity.py.

    account = AccountKey.generate()                      stays on the first device
    device = DeviceKeys.generate()
    first = account.first_list("ana@acme.example", [device.entry])
    later = account.next_list(first, [device.entry, other.entry])
"""

import os
from collections.abc import Iterable
from typing import Final, Self

from keys.agreement import Entropy, diffie_hellman, draw, x_public
from wire.codec import Id, Key, SecretRecord, decode, encode
from wire.errors import FormatError
from wire.identity import (
    NO_PREVIOUS,
    Activation,
    DeviceEntry,
    DeviceList,
    SignedList,
    Token,
    check_follows,
    list_hash,
    sign_activation,
    sign_list,
    verify_signed_list,
)
from wire.limits import ID_BYTES, KEY_BYTES, UINT64_MAX
from wire.signing import SigningKey

__all__ = ["AccountKey", "DeviceKeys", "TenantAdminKey"]

_ACCOUNT: Final = "account-key/1"
_DEVICE: Final = "device-keys/1"
_TENANT: Final = "tenant-admin-key/1"


class _StoredKey(SecretRecord, frozen=True):
    kind: str
    seed: Key


class _StoredDevice(SecretRecord, frozen=True):
    kind: str
    seed: Key
    dh_private: Key
    mailbox: Id


class _SigningIdentity:
    """An Ed25519 key with a kind of its own."""

    __slots__ = ("signing",)
    _kind: str

    def __init__(self, signing: SigningKey) -> None:
        self.signing = signing

    def __repr__(self) -> str:
        return f"{type(self).__name__}(public={self.public.hex()}, seed=<redacted>)"

    @property
    def public(self) -> bytes:
        """The Ed25519 public key, 32 bytes."""
        return self.signing.public

    @classmethod
    def generate(cls, entropy: Entropy = os.urandom) -> Self:
        """A new key from 32 bytes of entropy."""
        return cls(SigningKey(draw(entropy, KEY_BYTES)))

    def to_bytes(self) -> bytes:
        """The private key, for sealed storage only."""
        return encode(_StoredKey(self._kind, self.signing.seed))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` of the same kind wrote.

        Raises:
            FormatError: anything else, a key of another kind too.
        """
        stored = decode(_StoredKey, data, cls._kind)
        if stored.kind != cls._kind:
            raise FormatError(cls._kind, "is a key of another kind")
        return cls(SigningKey(stored.seed))


class AccountKey(_SigningIdentity):
    """Signs the device lists of one account. It is pinned by others at first contact; losing it means re-activation."""

    __slots__ = ()
    _kind = _ACCOUNT

    def first_list(self, account: str, devices: Iterable[DeviceEntry]) -> SignedList:
        """Version 1 of the account's device list.

        Raises:
            FormatError: account or devices are not well formed.
        """
        return sign_list(self.signing, DeviceList(account, 1, NO_PREVIOUS, self.public, tuple(devices)))

    def next_list(self, previous: SignedList, devices: Iterable[DeviceEntry]) -> SignedList:
        """The version after `previous`, which is verified first. A mailbox that it no longer names is closed.

        Raises:
            FormatError: not our account key's list, or devices are not well formed.
            SignatureError: `previous` does not verify.
        """
        older = verify_signed_list(previous)
        newer = DeviceList(older.account, older.version + 1, list_hash(previous), self.public, tuple(devices))
        check_follows(newer, older, list_hash(previous))
        return sign_list(self.signing, newer)


class TenantAdminKey(_SigningIdentity):
    """Admits accounts of one company's domain, each by a token that works once."""

    __slots__ = ()
    _kind = _TENANT

    def activate(self, account: str, not_after: int, entropy: Entropy = os.urandom) -> Token:
        """A token for an account of the tenant that the account's domain names.

        Args:
            account: the address.
            not_after: Unix time in seconds until which it works.
            entropy: where the token's nonce comes from.

        Raises:
            FormatError: not an account address, or not a time.
        """
        if not 0 <= not_after <= UINT64_MAX >> 1:
            raise FormatError("not_after", "is not a time", UINT64_MAX >> 1)
        tenant = account.partition("@")[2]
        return sign_activation(self.signing, Activation(tenant, account, draw(entropy, ID_BYTES), not_after))


class DeviceKeys:
    """One device: Ed25519 device key (signs links and prekeys), X25519 identity key, mailbox."""

    __slots__ = ("_dh_private", "dh_public", "mailbox", "signing")

    def __init__(self, signing: SigningKey, dh_private: bytes, mailbox: bytes) -> None:
        if len(dh_private) != KEY_BYTES:
            raise FormatError("X25519 identity key", f"has {len(dh_private)} bytes", KEY_BYTES)
        if len(mailbox) != ID_BYTES:
            raise FormatError("mailbox", f"has {len(mailbox)} bytes", ID_BYTES)
        self.signing = signing
        self._dh_private = dh_private
        self.dh_public = x_public(dh_private)
        self.mailbox = mailbox

    def __repr__(self) -> str:
        return (
            f"DeviceKeys(public={self.public.hex()}, dh_public={self.dh_public.hex()}, "
            f"mailbox={self.mailbox.hex()}, private=<redacted>)"
        )

    @classmethod
    def generate(cls, entropy: Entropy = os.urandom) -> "DeviceKeys":
        """A new device from 80 bytes of entropy."""
        signing = SigningKey(draw(entropy, KEY_BYTES))
        return cls(signing, draw(entropy, KEY_BYTES), draw(entropy, ID_BYTES))

    @property
    def public(self) -> bytes:
        """The Ed25519 device key, 32 bytes; it names the device."""
        return self.signing.public

    @property
    def entry(self) -> DeviceEntry:
        """What a device list says of this device."""
        return DeviceEntry(self.public, self.dh_public, self.mailbox)

    def agree(self, public: bytes) -> bytes:
        """X25519 of the identity key with another public key.

        Raises:
            SharedSecretZero: the other key is of small order.
        """
        return diffie_hellman(self._dh_private, public)

    def secrets(self) -> tuple[tuple[str, bytes], ...]:
        """Name and bytes of each private half, for an owner who has them searched for (protocol.md section 12.2)."""
        return ("device signing seed", self.signing.seed), ("device identity key", self._dh_private)

    def to_bytes(self) -> bytes:
        """Private keys and mailbox, for sealed storage only."""
        return encode(_StoredDevice(_DEVICE, self.signing.seed, self._dh_private, self.mailbox))

    @classmethod
    def from_bytes(cls, data: bytes) -> "DeviceKeys":
        """What `to_bytes` wrote.

        Raises:
            FormatError: anything else.
        """
        stored = decode(_StoredDevice, data, _DEVICE)
        if stored.kind != _DEVICE:
            raise FormatError(_DEVICE, "is a key of another kind")
        return cls(SigningKey(stored.seed), stored.dh_private, stored.mailbox)
