"""A device's way to a gateway in another process: the local protocol over TCP on one machine, or over TLS.

    transport = SocketTransport(card)
    Device.open(home, passphrase, transport=transport)       as client/route.py does where the home names a gateway

What is said on it is client/gateway_link.py's and messages.py's; connecting again and the waits are left to
client/engine.py. Over TLS the gateway's certificate and name are checked by the authority on its card; without TLS only
an address of this machine is a card's at all (client/gateway/address.py).
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from client.errors import TransportClosed
from client.gateway.address import GatewayCard
from client.gateway.framing import GATEWAY_MESSAGE_BYTES_MAX, framed, read_framed
from client.gateway_link import LinksThroughGateway
from client.transport import Channel
from wire.errors import FormatError

__all__ = ["SocketTransport"]

_CONNECT_S_MAX: Final = 10.0
_WRITE_S_MAX: Final = 30.0


class _SocketChannel:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, packet: bytes) -> None:
        self._writer.write(framed(packet))
        try:
            async with asyncio.timeout(_WRITE_S_MAX):
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise TransportClosed(f"the gateway takes nothing: {_words_of(error)}") from None

    async def receive(self) -> bytes:
        try:
            return await read_framed(self._reader, GATEWAY_MESSAGE_BYTES_MAX)
        except (EOFError, OSError, FormatError) as error:
            raise TransportClosed(f"the gateway says no more: {_words_of(error)}") from None


class SocketTransport(LinksThroughGateway):
    """A way to a gateway by its card. Meets `client.transport.Transport` and `LinkMaker`.

    Args:
        card: the gateway's.
    """

    def __init__(self, card: GatewayCard) -> None:
        self.card = card

    def __repr__(self) -> str:
        return f"SocketTransport({self.card.address.url})"

    def _context(self) -> ssl.SSLContext | None:
        if not self.card.address.tls:
            return None
        context = ssl.create_default_context(cadata=self.card.authority or None)
        context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
        return context

    @asynccontextmanager
    async def connect(self, topic_up: str, topic_down: str) -> AsyncIterator[Channel]:
        """A connection; topics are the gateway's own business."""
        address = self.card.address
        try:
            async with asyncio.timeout(_CONNECT_S_MAX):
                reader, writer = await asyncio.open_connection(address.host, address.port, ssl=self._context())
        except (OSError, ValueError, TimeoutError) as error:
            raise TransportClosed(f"{address.url}: {_words_of(error)}") from None
        try:
            yield _SocketChannel(reader, writer)
        finally:
            writer.transport.abort()


def _words_of(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "it hung up"
    return str(error) or type(error).__name__
