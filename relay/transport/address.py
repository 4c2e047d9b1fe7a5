"""The broker's address, as written in relay.toml and relay-card.toml: `SCHEME://host:port`.

    mqtt    mqtts   MQTT 3.1.1, any broker; the second over TLS
    nats    tls     NATS's own protocol, for the relay; the second over TLS, as NATS's other clients call it

Both files are public and part of every disclosure, so an address holds no credentials: one that does is refused.
"""

import errno
import re
import secrets
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from wire.errors import BlindpostError, FormatError

_HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}")
DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "nats": 4222, "tls": 4222}
_OVER_TLS = {"mqtts", "tls"}
_NATS = {"nats", "tls"}


class ListenFailed(BlindpostError):
    """The broker's address cannot be listened on."""


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker listens, and what it speaks there."""

    host: str
    port: int
    scheme: str = "mqtt"

    @property
    def tls(self) -> bool:
        """Whether the broker is spoken to over TLS only."""
        return self.scheme in _OVER_TLS

    @property
    def nats(self) -> bool:
        """Whether it speaks NATS's own protocol there, and not MQTT."""
        return self.scheme in _NATS

    @property
    def url(self) -> str:
        """The address as a URL, as the card gives it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @classmethod
    def from_url(cls, url: str, field: str = "broker") -> "BrokerAddress":
        """Read a broker URL.

        Raises:
            FormatError: another scheme, no host, a port out of range, credentials, or anything after the port.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise FormatError(field, f"is no URL: {error}") from None
        if parts.scheme not in DEFAULT_PORTS:
            raise FormatError(field, "must begin with mqtt://, mqtts://, nats:// or tls://")
        if parts.username is not None or parts.password is not None:
            raise FormatError(field, "must not hold credentials: the file is public")
        if not _HOST.fullmatch(parts.hostname or "") or parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise FormatError(field, "must be SCHEME://HOST:PORT and nothing more")
        if port == 0:
            raise FormatError(field, "port must be 1 to 65535", 65_535)
        return cls(parts.hostname or "", port or DEFAULT_PORTS[parts.scheme], parts.scheme)

    @classmethod
    def from_listen(cls, listen: str, field: str = "listen") -> "BrokerAddress":
        """Read `HOST:PORT` of a listener; port 0 stands for a free one that is still to be picked.

        Raises:
            FormatError: no host, no port, or a port out of range.
        """
        host, colon, port_text = listen.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not _HOST.fullmatch(host):
            raise FormatError(field, "must be HOST:PORT")
        if not port_text.isascii() or not port_text.isdigit() or len(port_text) > 5 or int(port_text) > 65_535:
            raise FormatError(field, "port must be 0 to 65535", 65_535)
        return cls(host, int(port_text))


# Ports below those that the kernel gives to outgoing connections (ip_local_port_range, from 32,768 on Linux).
_PORTS_FROM = 20_000
_PORTS_UNTIL = 32_000
_PORTS_TRIED = 64


def free_port(host: str) -> int:
    """A port of `host` that is free now, and that no outgoing connection is given by chance.

    A device that connects again and again to a relay that is down would otherwise be given that very port as its own
    one day, connect to itself (TCP's simultaneous open), and keep the relay from ever listening there again.

    Raises:
        ListenFailed: the host is not one of this machine, or has no port left.
    """
    problem = "no free port"
    for _ in range(_PORTS_TRIED):
        port = _PORTS_FROM + secrets.randbelow(_PORTS_UNTIL - _PORTS_FROM)
        try:
            family = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                return port
        except OSError as error:
            problem = str(error.strerror or error)
            if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                break
    raise ListenFailed(f"listen: {problem}")
