"""The relay's card: what a device or a verifier must know of a relay (protocol.md section 2.7).

A small TOML file that people can read and compare. The card pins the relay's first signing key: whoever has the right
card can be shown no other relay.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from wire.errors import FormatError
from wire.limits import ID_BYTES, KEY_BYTES, PROTOCOL_VERSION, UINT16_MAX
from wire.rotation import relay_id_of

__all__ = ["RelayCard"]

CARD_BYTES_MAX = 4_096
_FIELDS = frozenset({"protocol", "relay_id", "signing_key", "broker", "partition"})
_SCHEMES = frozenset({"mqtt", "mqtts", "nats", "tls"})


@dataclass(frozen=True, slots=True)
class RelayCard:
    """A relay's public card.

    Args:
        signing_key: the relay's first Ed25519 signing key, 32 bytes; its id follows from it.
        broker: the broker's URL, `mqtt://host:port`.
        partition: the partition that this relay serves.
    """

    signing_key: bytes
    broker: str
    partition: int = 0

    def __post_init__(self) -> None:
        if len(self.signing_key) != KEY_BYTES:
            raise FormatError("relay card signing_key", f"has {len(self.signing_key)} bytes", KEY_BYTES)
        if not 0 <= self.partition <= UINT16_MAX:
            raise FormatError("relay card partition", f"{self.partition} is out of range", UINT16_MAX)
        _check_broker(self.broker)

    @property
    def relay_id(self) -> bytes:
        """The 16 bytes that name the relay."""
        return relay_id_of(self.signing_key)

    def to_toml(self) -> str:
        """The card as a file's text; `from_toml` reads it back."""
        return (
            f"protocol = {PROTOCOL_VERSION}\n"
            f'relay_id = "{self.relay_id.hex()}"\n'
            f'signing_key = "{self.signing_key.hex()}"\n'
            f'broker = "{self.broker}"\n'
            f"partition = {self.partition}\n"
        )

    @classmethod
    def from_toml(cls, text: str) -> "RelayCard":
        """Read a card.

        Raises:
            FormatError: not TOML, a field unknown, missing, or wrong, or an id that is not the key's.
        """
        if len(text) > CARD_BYTES_MAX:
            raise FormatError("relay card", f"has {len(text)} characters", CARD_BYTES_MAX)
        try:
            fields = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise FormatError("relay card", f"is not TOML: {error}") from None
        if unknown := fields.keys() - _FIELDS:
            raise FormatError("relay card", f"has the unknown field {min(unknown)!r}")
        if missing := _FIELDS - fields.keys():
            raise FormatError("relay card", f"lacks the field {min(missing)!r}")
        if fields["protocol"] != PROTOCOL_VERSION or isinstance(fields["protocol"], bool):
            raise FormatError("relay card protocol", "is not one that this program speaks", PROTOCOL_VERSION)
        if not isinstance(fields["broker"], str):
            raise FormatError("relay card broker", "is not text")
        if not isinstance(fields["partition"], int) or isinstance(fields["partition"], bool):
            raise FormatError("relay card partition", "is not an integer")
        card = cls(_hex(fields["signing_key"], "signing_key", KEY_BYTES), fields["broker"], fields["partition"])
        if _hex(fields["relay_id"], "relay_id", ID_BYTES) != card.relay_id:
            raise FormatError("relay card relay_id", "is not that of the signing key")
        return card

    @classmethod
    def read(cls, path: Path) -> "RelayCard":
        """Read a card's file.

        Raises:
            FormatError: as `from_toml`, or not UTF-8.
            OSError: the file cannot be read.
        """
        with path.open("rb") as file:
            data = file.read(CARD_BYTES_MAX + 1)
        try:
            return cls.from_toml(data.decode("utf-8"))
        except UnicodeDecodeError:
            raise FormatError("relay card", "is not UTF-8") from None


def _hex(value: object, field: str, size: int) -> bytes:
    try:
        data = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        data = b""
    # fromhex allows spaces and capitals; one value has one spelling here.
    if len(data) != size or data.hex() != value:
        raise FormatError(f"relay card {field}", "is not lower-case hexadecimal of its length", size)
    return data


def _check_broker(broker: str) -> None:
    try:
        parts = urlsplit(broker)
        port = parts.port
    except ValueError:
        raise FormatError("relay card broker", "is not a URL with a port") from None
    if parts.scheme not in _SCHEMES or not parts.hostname or port is None:
        raise FormatError("relay card broker", f"{broker[:80]!r} is not mqtt://HOST:PORT or the like")
    # Credentials would sit in a public file.
    if parts.username or parts.password:
        raise FormatError("relay card broker", "must not hold a user name or password")
    if not broker.isascii() or not broker.isprintable() or '"' in broker or "\\" in broker:
        raise FormatError("relay card broker", "has a character that a URL must not have")
