"""An HTTP/1.1 client for load: requests with JSON one after the other on a connection that is kept, and nothing else.

Where it is used a request costs the server milliseconds, so asyncio's streams are fast enough. It is no general client:
it trusts the server of the benchmark, and an answer that is not 200 ends the run (RFC 9112).
"""

import asyncio
import json
from typing import Any

__all__ = ["HttpConnection", "HttpRefused", "connect"]

_BUFFER_BYTES = 4 * 2**20


class HttpRefused(ConnectionError):
    """The server answered with another status than 200; the text has its words."""


class HttpConnection:
    """One connection. Made by `connect`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host

    async def ask(self, method: str, path: str, content: object = None, token: str = "") -> Any:
        """One request; returns the JSON of its answer.

        Args:
            method: `GET`, `PUT` or `POST`.
            path: with its query.
            content: becomes JSON; None for a request without.
            token: for `Authorization: Bearer`.

        Raises:
            HttpRefused: it was answered with another status than 200.
        """
        body = b"" if content is None else json.dumps(content).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(body)}\r\n"
        head += f"Authorization: Bearer {token}\r\n" if token else ""
        self._writer.write(head.encode() + b"\r\n" + body)
        status = (await self._reader.readline()).split(b" ", 2)
        if len(status) < 2:
            raise HttpRefused("HTTP: the server closed the connection")
        length, chunked = 0, False
        while line := (await self._reader.readline()).strip():
            name, _, value = line.lower().partition(b":")
            if name == b"content-length":
                length = int(value)
            chunked |= name == b"transfer-encoding" and b"chunked" in value
        answer = await self._chunks() if chunked else await self._reader.readexactly(length)
        if status[1] != b"200":
            raise HttpRefused(f"HTTP: {method} was answered {status[1].decode()}: {answer[:300]!r}")
        return json.loads(answer)

    async def _chunks(self) -> bytes:
        out = b""
        while size := int((await self._reader.readline()).split(b";")[0], 16):
            out += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()
        return out

    def close(self) -> None:
        """Close."""
        self._writer.close()


async def connect(port: int, host: str = "127.0.0.1") -> HttpConnection:
    """Connect to a server on loopback."""
    reader, writer = await asyncio.open_connection(host, port, limit=_BUFFER_BYTES)
    return HttpConnection(reader, writer, f"{host}:{port}")
