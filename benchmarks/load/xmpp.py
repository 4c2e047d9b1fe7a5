"""An XMPP client for load: log in, send chat messages with stream management, receive; nothing else.

A client library would parse every stanza into a tree; this one looks for the few that it knows (RFC 6120, XEP-0198). It
is no general client: it trusts the server of the benchmark, and a closed stream ends the run.
"""

import asyncio
import base64
import re
from collections.abc import Callable
from typing import cast

__all__ = ["XmppConnection", "connect"]

_STANZA = re.compile(rb"<message\b[^>]*>.*?<body>(?P<body>[^<]*)</body>.*?</message>|<a\b[^>]*\bh=['\"](?P<h>\d+)")


class XmppConnection(asyncio.Protocol):
    """One stream. Made by `connect`."""

    def __init__(self, lost: Callable[[str], None]) -> None:
        self._lost = lost
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._expected: tuple[bytes, asyncio.Future[None]] | None = None
        self._handled = 0
        self.on_body: Callable[[bytes], None] | None = None
        self.on_handled: Callable[[int], None] | None = None
        self.closing = False

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket stands."""
        # uvloop's transports have the methods and not the base class.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if not self.closing:
            self._lost(f"XMPP: the connection was lost: {exc}")

    def data_received(self, data: bytes) -> None:
        """Take what is whole."""
        self._buffer += data
        if b"<stream:error" in self._buffer or b"<failure" in self._buffer:
            self._lost(f"XMPP: the server refused: {self._buffer[-300:]!r}")
        if self._expected is not None:
            words, future = self._expected
            at = self._buffer.find(words)
            if at < 0:
                return
            self._buffer = self._buffer[at + len(words) :]
            self._expected = None
            future.set_result(None)
        if self.on_body is None and self.on_handled is None:
            return
        end = 0
        for found in _STANZA.finditer(self._buffer):
            end = found.end()
            if found["h"] is not None:
                self._acknowledged(int(found["h"]))
            elif self.on_body is not None:
                self.on_body(base64.b64decode(found["body"]))
        if end:
            self._buffer = self._buffer[end:]

    def _acknowledged(self, handled: int) -> None:
        new, self._handled = handled - self._handled, handled
        if self.on_handled is not None and new > 0:
            self.on_handled(new)

    # ---- use

    def write(self, text: str) -> None:
        """Write to the stream."""
        assert self._transport is not None
        self._transport.write(text.encode())

    async def expect(self, text: str, words: bytes) -> None:
        """Write, and wait until the server has said these words."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._expected = words, future
        self.write(text)
        async with asyncio.timeout(60):
            await future

    def send(self, to: str, body: bytes) -> None:
        """Send a chat message."""
        self.write(f"<message to='{to}' type='chat'><body>{base64.b64encode(body).decode()}</body></message>")

    def request_ack(self) -> None:
        """Ask how many stanzas the server has handled; see `on_handled`."""
        self.write("<r xmlns='urn:xmpp:sm:3'/>")

    def close(self) -> None:
        """Leave."""
        self.closing = True
        if self._transport is not None:
            self._transport.write(b"</stream:stream>")
            self._transport.close()


async def connect(port: int, domain: str, user: str, password: str, lost: Callable[[str], None]) -> XmppConnection:
    """Connect to loopback, log in, bind a resource."""
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(lambda: XmppConnection(lost), "127.0.0.1", port)
    begin = (
        f"<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xmlns='jabber:client' "
        "xmlns:stream='http://etherx.jabber.org/streams'>"
    )
    await stream.expect(begin, b"</stream:features>")
    secret = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    await stream.expect(
        f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>", b"<success"
    )
    await stream.expect(begin, b"</stream:features>")
    await stream.expect("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", b"</iq>")
    return stream
