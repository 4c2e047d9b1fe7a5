"""How a body is protected in each of the historical generations (protocol.md section 13).

    0x5049  PI  Triple DES under the one key of all handsets                    sim/historical.py
    0x4842  HB  Triple DES under a transport key of each device, which the hosted server keeps in its database
    0x454E  EN  a sealed box for a mail key that the server has made, and keeps
    0x4250  BP  a sealed box for a key that the device has made and never changes

    sealed   96 random bytes ‖ crypto_box_seal(pad(content), public key)

Real systems differ in every detail that does not matter here: their ciphers are named in docs/controls.md, and what is
kept of them is who has the key. A body has a length that this protocol's have as well, so the relay stores it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from nacl.bindings import crypto_box_keypair, crypto_box_seal, crypto_box_seal_open, crypto_scalarmult_base
from nacl.exceptions import CryptoError

from keys.identity import DeviceKeys
from sim.historical import KEY_BYTES as TRIPLE_DES_KEY_BYTES
from sim.historical import PinMessage, read_message, write_message
from wire.codec import decode, encode
from wire.errors import FormatError
from wire.identity import DeviceEntry
from wire.padding import pad, unpad

__all__ = [
    "DEVICE_KEY_SUITE",
    "HOSTED_SUITE",
    "SERVER_KEY_SUITE",
    "DeviceKeyProtection",
    "HostedProtection",
    "ServerKeyProtection",
]

HOSTED_SUITE: Final = 0x4842
SERVER_KEY_SUITE: Final = 0x454E
DEVICE_KEY_SUITE: Final = 0x4250
_FILLING_BYTES: Final = 96


@dataclass(repr=False)
class HostedProtection:
    """A hosted BES: it makes a transport key for each device at activation, and keeps it in its database.

    Attributes:
        database: the server's table, by mailbox. Handsets of one company share the server, and so this object.
        entropy: gives random bytes.
    """

    entropy: Callable[[int], bytes]
    database: dict[bytes, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"HostedProtection(database=<{len(self.database)} keys, redacted>)"

    def _key_of(self, mailbox: bytes) -> bytes:
        return self.database.setdefault(mailbox, self.entropy(TRIPLE_DES_KEY_BYTES))

    def write(self, message: PinMessage, entry: DeviceEntry, entropy: Callable[[int], bytes]) -> bytes:
        """What the server encrypts for the recipient's device."""
        return write_message(message, entropy, self._key_of(entry.mailbox))

    def read(self, body: bytes, device: DeviceKeys) -> PinMessage:
        """What the device reads, with its half of the transport key."""
        return read_message(body, self._key_of(device.mailbox))


@dataclass(repr=False)
class ServerKeyProtection:
    """Mail keys that a server makes for its customers, and keeps: encrypted mail, hosted abroad.

    Attributes:
        database: private and public key by mailbox.
    """

    database: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"ServerKeyProtection(database=<{len(self.database)} keys, redacted>)"

    def _pair_of(self, mailbox: bytes) -> tuple[bytes, bytes]:
        if mailbox not in self.database:
            public, private = crypto_box_keypair()
            self.database[mailbox] = private, public
        return self.database[mailbox]

    def write(self, message: PinMessage, entry: DeviceEntry, entropy: Callable[[int], bytes]) -> bytes:
        """Sealed for the public key that the server tells."""
        return seal(message, self._pair_of(entry.mailbox)[1], entropy)

    def read(self, body: bytes, device: DeviceKeys) -> PinMessage:
        """Opened with the private key that the server has given."""
        return unseal(body, self._pair_of(device.mailbox)[0])


class DeviceKeyProtection:
    """A key that the device makes and nobody else ever has, and that stays the same: no ratchet."""

    def write(self, message: PinMessage, entry: DeviceEntry, entropy: Callable[[int], bytes]) -> bytes:
        """Sealed for the device's identity key."""
        return seal(message, entry.dh_key, entropy)

    def read(self, body: bytes, device: DeviceKeys) -> PinMessage:
        """Opened with the device's private key."""
        return unseal(body, device_private(device))


def device_private(device: DeviceKeys) -> bytes:
    """The X25519 private key of a device: what is found on it when it is seized."""
    return dict(device.secrets())["device identity key"]


def seal(message: PinMessage, public: bytes, entropy: Callable[[int], bytes]) -> bytes:
    """A body of the sealed suites."""
    return entropy(_FILLING_BYTES) + crypto_box_seal(pad(encode(message)), public)


def unseal(body: bytes, private: bytes) -> PinMessage:
    """The message in it.

    Raises:
        FormatError: it does not open under this key.
    """
    try:
        padded = crypto_box_seal_open(body[_FILLING_BYTES:], crypto_scalarmult_base(private), private)
    except (CryptoError, ValueError, TypeError):
        raise FormatError("sealed body", "does not open under this key") from None
    return decode(PinMessage, unpad(padded), "message")
