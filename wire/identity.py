"""Accounts, device lists and activation tokens, as they travel (protocol.md sections 1.6, 2.2 and 2.3).

What a device list says is believed only after `verify_signed_list`; that it follows the one before only after
`check_follows`. Who is allowed to publish or to pin it is left to the callers: relay/core/directory.py and client/.
The very bytes that were signed are kept beside the parsed view (`SignedList.list`): no re-encoding changes them.
"""

import re
from typing import Annotated, Final

from msgspec import Meta

from wire.codec import U64, Hash, Id, Key, Positive, Record, Signature, decode, encode
from wire.errors import FormatError
from wire.hashing import KeyRole, hash16, hash32, typed
from wire.limits import (
    ACCOUNT_BYTES_MAX,
    DEVICES_PER_ACCOUNT_MAX,
    DOMAIN_BYTES_MAX,
    HASH_BYTES,
    LOCAL_BYTES_MAX,
    SIGNED_LIST_BYTES_MAX,
)
from wire.signing import SigningKey, verify

__all__ = [
    "Activation",
    "DeviceEntry",
    "DeviceList",
    "SignedList",
    "Token",
    "check_account",
    "check_domain",
    "check_follows",
    "device_tag",
    "domain_of",
    "list_hash",
    "sign_activation",
    "sign_list",
    "verify_signed_list",
    "verify_token",
]

NO_PREVIOUS: Final = bytes(HASH_BYTES)

_DOMAIN_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*", re.ASCII)
_LOCAL = re.compile(rf"[a-z0-9._+-]{{1,{LOCAL_BYTES_MAX}}}", re.ASCII)

Account = Annotated[str, Meta(min_length=3, max_length=ACCOUNT_BYTES_MAX)]
Domain = Annotated[str, Meta(min_length=1, max_length=DOMAIN_BYTES_MAX)]


def check_domain(domain: str) -> str:
    """The domain itself, if it is one (protocol.md section 1.6).

    Raises:
        FormatError: too long, or not dot-separated labels of a-z, 0-9 and inner hyphens.
    """
    if len(domain) > DOMAIN_BYTES_MAX:
        raise FormatError("domain", f"has {len(domain)} characters", DOMAIN_BYTES_MAX)
    if not _DOMAIN.fullmatch(domain):
        raise FormatError("domain", f"{domain[:80]!r} is not lower-case labels of a-z, 0-9 and -, joined by dots")
    return domain


def check_account(account: str) -> str:
    """The account address itself, if it is one (protocol.md section 1.6).

    Raises:
        FormatError: too long, or not `local@domain` in lower-case ASCII.
    """
    if len(account) > ACCOUNT_BYTES_MAX:
        raise FormatError("account", f"has {len(account)} characters", ACCOUNT_BYTES_MAX)
    local, at, domain = account.partition("@")
    if not at or not _LOCAL.fullmatch(local):
        raise FormatError("account", f"{account[:80]!r} is not local@domain in lower-case ASCII")
    check_domain(domain)
    return account


def domain_of(account: str) -> str:
    """The tenant that an account belongs to: what follows the @."""
    return account.partition("@")[2]


class DeviceEntry(Record, frozen=True):
    """One device of a list: Ed25519 device key, X25519 identity key, mailbox."""

    device_key: Key
    dh_key: Key
    mailbox: Id


class DeviceList(Record, frozen=True):
    """What the account key signs (protocol.md section 2.2)."""

    account: Account
    version: Positive
    previous: Hash
    account_key: Key
    devices: Annotated[tuple[DeviceEntry, ...], Meta(min_length=1, max_length=DEVICES_PER_ACCOUNT_MAX)]

    def entry_of(self, device_key: bytes) -> DeviceEntry | None:
        """The entry of that device, or None if it is not on the list."""
        return next((entry for entry in self.devices if entry.device_key == device_key), None)


class SignedList(Record, frozen=True):
    """A device list with its signature; not to be believed before `verify_signed_list`."""

    list: Annotated[bytes, Meta(min_length=1, max_length=SIGNED_LIST_BYTES_MAX)]
    signature: Signature


def list_hash(signed: SignedList) -> bytes:
    """The hash that names a version of a device list (32 bytes)."""
    return hash32("device-list-hash", signed.list)


def sign_list(account_key: SigningKey, devices: DeviceList) -> SignedList:
    """Sign a device list with the account key that it names.

    Raises:
        FormatError: the list names another account key, or is not well formed.
    """
    if devices.account_key != account_key.public:
        raise FormatError("device list", "names another account key")
    _check_list(devices)
    encoded = encode(devices)
    return SignedList(encoded, account_key.sign("device-list", encoded))


def verify_signed_list(signed: SignedList) -> DeviceList:
    """The list, once its form and the signature of its own account key are verified.

    It says nothing of whether that account key is the right one: pin it, or compare safety numbers.

    Raises:
        FormatError: not a well-formed list.
        SignatureError: the account key did not sign it.
    """
    devices = decode(DeviceList, signed.list, "device list")
    _check_list(devices)
    verify(devices.account_key, "device-list", signed.list, signed.signature)
    return devices


def check_follows(newer: DeviceList, older: DeviceList, older_hash: bytes) -> None:
    """Check that one verified list is the next version of another (protocol.md section 2.2).

    Raises:
        FormatError: other account or account key, not version + 1, or not naming the older one's hash.
    """
    if newer.account != older.account:
        raise FormatError("device list", "is of another account")
    if newer.account_key != older.account_key:
        raise FormatError("device list", "is of another account key")
    if newer.version != older.version + 1:
        raise FormatError("device list", f"has version {newer.version}, which does not follow {older.version}")
    if newer.previous != older_hash:
        raise FormatError("device list", "does not name the version before it")


def _check_list(devices: DeviceList) -> None:
    check_account(devices.account)
    if (devices.version == 1) != (devices.previous == NO_PREVIOUS):
        raise FormatError("device list", "only version 1 has no version before it")
    for field in ("device_key", "dh_key", "mailbox"):
        if len({getattr(entry, field) for entry in devices.devices}) != len(devices.devices):
            raise FormatError("device list", f"names a {field} twice")


class Activation(Record, frozen=True):
    """What a tenant's admin key signs to admit an account once (protocol.md section 2.3)."""

    tenant: Domain
    account: Account
    nonce: Id
    not_after: U64


class Token(Record, frozen=True):
    """An activation with its signature; not to be believed before `verify_token`."""

    activation: Annotated[bytes, Meta(min_length=1, max_length=1_024)]
    signature: Signature


def sign_activation(admin_key: SigningKey, activation: Activation) -> Token:
    """Sign an activation with the tenant's admin key.

    Raises:
        FormatError: the account is not one of the tenant's domain.
    """
    _check_activation(activation)
    encoded = encode(activation)
    return Token(encoded, admin_key.sign("activation", encoded))


def read_activation(token: Token) -> Activation:
    """The activation that a token carries, of checked form but *not* verified: to learn which tenant's key to ask.

    Raises:
        FormatError: not a well-formed activation.
    """
    activation = decode(Activation, token.activation, "activation")
    _check_activation(activation)
    return activation


def verify_token(token: Token, admin_key: bytes, now: int) -> Activation:
    """The activation, once signature and date are verified. That it is used once is left to the relay's directory.

    Args:
        token: the token.
        admin_key: the public Ed25519 admin key of the tenant that the activation names.
        now: Unix time in seconds.

    Raises:
        FormatError: not well formed, or past its date.
        SignatureError: the admin key did not sign it.
    """
    activation = read_activation(token)
    verify(admin_key, "activation", token.activation, token.signature)
    if now > activation.not_after:
        raise FormatError("activation", "is past its date", activation.not_after)
    return activation


def _check_activation(activation: Activation) -> None:
    check_domain(activation.tenant)
    check_account(activation.account)
    if domain_of(activation.account) != activation.tenant:
        raise FormatError("activation", "is for an account of another domain")


def device_tag(device_key: bytes) -> bytes:
    """The 16 bytes that name a device in broker topics (protocol.md section 6.1)."""
    return hash16("device-tag", typed(KeyRole.DEVICE, device_key))
