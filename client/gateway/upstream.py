"""A gateway's way to its broker: MQTT or NATS's own protocol by the URL, and for each link the certificate of its own.

    mqtt    mqtts   MQTT 3.1.1 (client/transport.py), any broker
    nats    tls     NATS's own protocol (client/gateway/nats.py); only then is its library loaded

A link's own key names its topics, so on a broker that lets everybody reach their own topics only each link shows its
own certificate: LINKS/TAG/tls/, made with `blindpost certificate request --link` (docs/brokers.md).
"""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from client.transport import Channel, MqttTransport, Transport
from wire.errors import FormatError

__all__ = ["NATS_SCHEMES", "TLS_SCHEMES", "Upstream", "check_broker"]

NATS_SCHEMES: Final = frozenset({"nats", "tls"})
TLS_SCHEMES: Final = frozenset({"mqtts", "tls"})
_PORT: Final = {"mqtt": 1883, "mqtts": 8883, "nats": 4222, "tls": 4222}


def check_broker(broker: str) -> str:
    """A broker's URL, with its port.

    Raises:
        FormatError: another scheme, no host, a port out of range, credentials, or anything after the port.
    """
    try:
        parts = urlsplit(broker)
        port = parts.port
    except ValueError:
        raise FormatError("broker", "names no port of 1 to 65535", 65_535) from None
    if parts.scheme not in _PORT or not parts.hostname or port == 0 or not broker.isprintable():
        raise FormatError("broker", "must be mqtt://, mqtts://, nats:// or tls://HOST:PORT")
    if "@" in parts.netloc or parts.path not in {"", "/"} or parts.query or parts.fragment or '"' in broker:
        raise FormatError("broker", "must be SCHEME://HOST:PORT and nothing more: no name, password or path")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port or _PORT[parts.scheme]}"


class Upstream:
    """Connections of a gateway's links. Meets `client.transport.Transport`.

    Args:
        broker: `mqtt://`, `mqtts://`, `nats://` or `tls://HOST:PORT`.
        links: a folder with a folder for each link's tag, which may hold certificates; None for the system's
            authorities and no certificate.

    Raises:
        FormatError: the URL is not one of these.
    """

    def __init__(self, broker: str, links: Path | None = None) -> None:
        self.broker = check_broker(broker)
        self._links = links

    def __repr__(self) -> str:
        return f"Upstream({self.broker})"

    def connect(self, topic_up: str, topic_down: str) -> AbstractAsyncContextManager[Channel]:
        """A connection of the link whose topics these are."""
        home = None if self._links is None else self._links / topic_up.split("/")[2]
        return self._transport(home).connect(topic_up, topic_down)

    def _transport(self, home: Path | None) -> Transport:
        if urlsplit(self.broker).scheme in NATS_SCHEMES:
            from client.gateway.nats import NatsTransport  # noqa: PLC0415

            return NatsTransport(self.broker, home)
        return MqttTransport(self.broker, home)
