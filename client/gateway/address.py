"""Where a gateway is, and what a device must know to reach it: its address and its public card.

    protocol = 1
    relay_id = "…"                         the relay that it leads to
    address = "tls://gateway.example:7480"  or tcp://, on the same machine only
    authority = '''…'''                    the certificate that its own is checked by, PEM; empty: the system's

The card is no secret and proves nothing about mail: a gateway is trusted with the metadata of its devices and with
nothing else (docs/threat-model.md). It names the authority so that nobody between the two sees even that. Without TLS
devices reach a gateway on their own machine only.
"""

import ipaddress
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wire.errors import FormatError
from wire.limits import ID_BYTES, PROTOCOL_VERSION

__all__ = ["CARD_BYTES_MAX", "GatewayAddress", "GatewayCard"]

CARD_BYTES_MAX: Final = 65_536
_FIELDS: Final = frozenset({"protocol", "relay_id", "address", "authority"})
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]{1,253}")
_PEM: Final = re.compile(r"[A-Za-z0-9+/=\n -]*")
_TCP, _TLS = "tcp://", "tls://"


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Where a gateway takes devices.

    Args:
        host: a name or an address.
        port: 1 to 65535.
        tls: whether it is spoken to over TLS only.
    """

    host: str
    port: int
    tls: bool = False

    @property
    def url(self) -> str:
        """The address with what is spoken there."""
        return f"{_TLS if self.tls else _TCP}{self.host_and_port}"

    @property
    def host_and_port(self) -> str:
        """`HOST:PORT`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_of_this_machine(self) -> bool:
        """Whether it can only be reached from the machine that it is on."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_everywhere(self) -> bool:
        """Whether it stands for all addresses of a machine: to listen on, not to reach."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False

    @classmethod
    def from_text(cls, text: str, field: str = "gateway") -> "GatewayAddress":
        """Read `HOST:PORT`, `tcp://HOST:PORT` or `tls://HOST:PORT`.

        Raises:
            FormatError: no host, no port, or a port out of range.
        """
        tls = text.startswith(_TLS)
        host, colon, port = text.removeprefix(_TLS if tls else _TCP).rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not _HOST.fullmatch(host):
            raise FormatError(field, f"{text[:80]!r} is not HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT")
        if not port.isascii() or not port.isdigit() or len(port) > 5 or not 1 <= int(port) <= 65_535:
            raise FormatError(field, "port must be 1 to 65535", 65_535)
        return cls(host, int(port), tls)


@dataclass(frozen=True, slots=True)
class GatewayCard:
    """A gateway's public card.

    Args:
        relay_id: 16 bytes, of the relay that it leads to.
        address: where devices reach it.
        authority: a certificate, PEM; empty for the system's authorities.
    """

    relay_id: bytes
    address: GatewayAddress
    authority: str = ""

    def __post_init__(self) -> None:
        if len(self.relay_id) != ID_BYTES:
            raise FormatError("gateway card relay_id", f"has {len(self.relay_id)} bytes", ID_BYTES)
        if not self.address.tls and not self.address.is_of_this_machine:
            raise FormatError("gateway card address", "is of another machine, which is reached over tls:// only")
        if self.address.is_everywhere:
            raise FormatError("gateway card address", "must be one at which devices reach the gateway")
        if not _PEM.fullmatch(self.authority) or len(self.authority) > CARD_BYTES_MAX // 2:
            raise FormatError("gateway card authority", "is no certificate in PEM", CARD_BYTES_MAX // 2)

    def to_toml(self) -> str:
        """The card as a file's text; `from_toml` reads it back."""
        return (
            f"protocol = {PROTOCOL_VERSION}\n"
            f'relay_id = "{self.relay_id.hex()}"\n'
            f'address = "{self.address.url}"\n'
            f"authority = '''\n{self.authority}'''\n"
        )

    @classmethod
    def from_toml(cls, text: str) -> "GatewayCard":
        """Read a card.

        Raises:
            FormatError: not TOML, or a field unknown, missing or wrong.
        """
        try:
            fields = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise FormatError("gateway card", f"is not TOML: {error}") from None
        if fields.keys() != _FIELDS:
            raise FormatError("gateway card", f"must have the fields {', '.join(sorted(_FIELDS))} and no others")
        if fields["protocol"] != PROTOCOL_VERSION or isinstance(fields["protocol"], bool):
            raise FormatError("gateway card protocol", "is not one that this program speaks", PROTOCOL_VERSION)
        relay_id, address, authority = fields["relay_id"], fields["address"], fields["authority"]
        if not isinstance(relay_id, str) or not re.fullmatch(rf"[0-9a-f]{{{2 * ID_BYTES}}}", relay_id):
            raise FormatError("gateway card relay_id", "is not lower-case hexadecimal of its length", ID_BYTES)
        if not isinstance(address, str) or not isinstance(authority, str):
            raise FormatError("gateway card", "address and authority must be text")
        return cls(bytes.fromhex(relay_id), GatewayAddress.from_text(address, "gateway card address"), authority)

    @classmethod
    def read(cls, path: Path) -> "GatewayCard":
        """Read a card's file.

        Raises:
            FormatError: as `from_toml`, too long, or not UTF-8.
            OSError: the file cannot be read.
        """
        with path.open("rb") as file:
            data = file.read(CARD_BYTES_MAX + 1)
        if len(data) > CARD_BYTES_MAX:
            raise FormatError("gateway card", "is too large", CARD_BYTES_MAX)
        try:
            return cls.from_toml(data.decode())
        except UnicodeDecodeError:
            raise FormatError("gateway card", "is not UTF-8") from None
