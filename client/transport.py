"""How a device's packets reach the relay: MQTT through any broker (protocol.md section 6.1).

`Transport` is what a device needs of it; tests give a loopback with the same two methods. The broker is trusted with
nothing: whatever it does to packets, the link notices or repeats. Connecting again and the waits between are left to
client/device.py. Over TLS the broker's certificate is checked, and the device shows its own (wire/broker_tls.py).
"""

import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from urllib.parse import urlsplit

import aiomqtt

from client.errors import TransportClosed
from wire.broker_tls import TlsInvalid, client_context
from wire.card import RelayCard
from wire.errors import FormatError
from wire.limits import FRAME_BYTES_MAX
from wire.rotation import RotationRecord
from wire.signing import SigningKey

if TYPE_CHECKING:
    from client.link import Link

__all__ = ["Channel", "LinkMaker", "MqttTransport", "Transport", "topics_of"]

# Packets that wait here for the device while it writes to its disk; what does not fit is dropped, as on any network.
_INCOMING_MAX = 64
_KEEPALIVE_S = 30
_CONNECT_TIMEOUT_S = 10
# From here on a broker's answer to a subscription is a refusal (MQTT 3.1.1, section 3.9.3).
_REFUSED = 0x80


class Channel(Protocol):
    """One connection to the broker."""

    async def send(self, packet: bytes) -> None:
        """Hand a packet to the broker.

        Raises:
            TransportClosed: the connection ended.
        """
        ...

    async def receive(self) -> bytes:
        """Wait for the next packet from the relay.

        Raises:
            TransportClosed: the connection ended.
        """
        ...


class Transport(Protocol):
    """Makes connections."""

    def connect(self, topic_up: str, topic_down: str) -> AbstractAsyncContextManager[Channel]:
        """A connection, as a context manager: subscribed to `topic_down` when it is entered.

        Raises:
            TransportClosed: the broker cannot be reached.
        """
        ...


@runtime_checkable
class LinkMaker(Protocol):
    """A transport that does not lead to the relay itself, but to whoever has the link: client/gateway_link.py."""

    def link(
        self,
        card: RelayCard,
        device: SigningKey,
        mailbox: bytes,
        random: Callable[[int], bytes],
        rotations: Sequence[RotationRecord],
        window_bytes: int,
    ) -> "Link":
        """The device's side of that link; arguments as of `Link`, and the device's mailbox."""
        ...


def topics_of(relay_id: bytes, device_tag: bytes) -> tuple[str, str]:
    """The topics of a device, up and down (protocol.md section 6.1)."""
    base = f"bp/{relay_id.hex()}/{device_tag.hex()}"
    return f"{base}/up", f"{base}/down"


class _MqttChannel:
    def __init__(self, client: aiomqtt.Client, topic_up: str, topic_down: str) -> None:
        self._client = client
        self._topic_up = topic_up
        self._topic_down = topic_down

    async def send(self, packet: bytes) -> None:
        try:
            await self._client.publish(self._topic_up, packet, qos=0, retain=False)
        except aiomqtt.MqttError as error:
            raise TransportClosed(str(error)) from None

    async def receive(self) -> bytes:
        try:
            async for message in self._client.messages:
                payload = message.payload
                if 0 < len(payload) <= FRAME_BYTES_MAX:
                    return payload
        except aiomqtt.MqttError as error:
            raise TransportClosed(str(error)) from None
        raise TransportClosed("the broker ended the connection")


class MqttTransport:
    """MQTT 3.1.1 at QoS 0 through aiomqtt.

    Args:
        broker: `mqtt://HOST:PORT` or `mqtts://HOST:PORT`, as on the relay card; no name or password in it.
        home: the device's home, which may hold certificates for the broker; without it, the system's authorities.

    Raises:
        FormatError: the URL is not one of these.
    """

    def __init__(self, broker: str, home: Path | None = None) -> None:
        parts = urlsplit(broker)
        try:
            port = parts.port
        except ValueError:
            raise FormatError("broker", "names no port of 1 to 65535", 65_535) from None
        if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname or parts.username or parts.path not in {"", "/"}:
            raise FormatError("broker", f"{broker[:80]!r} is not mqtt://HOST:PORT or mqtts://HOST:PORT")
        self.broker = broker
        self._host = parts.hostname
        self._over_tls = parts.scheme == "mqtts"
        self._home = home
        self._port = port or (8883 if self._over_tls else 1883)

    def _context(self) -> ssl.SSLContext | None:
        """Made for each connection: certificates are renewed while a device runs."""
        if not self._over_tls:
            return None
        if self._home is None:
            return ssl.create_default_context()
        try:
            return client_context(self._home)
        except TlsInvalid as error:
            raise TransportClosed(f"{self.broker}: {error}") from None

    @asynccontextmanager
    async def connect(self, topic_up: str, topic_down: str) -> AsyncIterator[Channel]:
        """A connection, subscribed to `topic_down`."""
        client = aiomqtt.Client(
            self._host,
            self._port,
            tls_context=self._context(),
            clean_session=True,
            protocol=aiomqtt.ProtocolVersion.V311,
            keepalive=_KEEPALIVE_S,
            timeout=_CONNECT_TIMEOUT_S,
            # Without it a small packet waits for the answer to the one before it, 40 ms on Linux (RFC 896).
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            max_queued_incoming_messages=_INCOMING_MAX,
        )
        try:
            async with client:
                granted = await client.subscribe(topic_down, qos=0)
                if any((code if isinstance(code, int) else code.value) >= _REFUSED for code in granted):
                    raise TransportClosed(f"{self.broker}: the broker lets this device not subscribe to its own topic")
                yield _MqttChannel(client, topic_up, topic_down)
        except (TimeoutError, aiomqtt.MqttError, OSError) as error:
            raise TransportClosed(f"{self.broker}: {error}") from None
