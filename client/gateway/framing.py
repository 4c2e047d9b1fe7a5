"""The local protocol over a socket: each message behind its length, four bytes, the highest first.

It is for a stream that keeps order: TCP on one machine, or TLS. Both sides bound what they take: a length out of bounds
ends the connection before anything is read of it, and memory is taken only for what has come.
"""

import asyncio
from typing import Final

from wire.errors import FormatError
from wire.limits import FRAME_BYTES_MAX

__all__ = ["DEVICE_MESSAGE_BYTES_MAX", "GATEWAY_MESSAGE_BYTES_MAX", "JOIN_BYTES_MAX", "framed", "read_framed"]

JOIN_BYTES_MAX: Final = 256
"""The first message of a device: key, mailbox and signature."""
DEVICE_MESSAGE_BYTES_MAX: Final = FRAME_BYTES_MAX + 16
"""The plaintext of a frame, and the few bytes around it."""
GATEWAY_MESSAGE_BYTES_MAX: Final = 2 * FRAME_BYTES_MAX
"""A device's part of a frame; its own refs may be longer than the gateway's."""
_HEADER_BYTES: Final = 4


def framed(message: bytes) -> bytes:
    """A message as it goes over the socket."""
    return len(message).to_bytes(_HEADER_BYTES, "big") + message


async def read_framed(reader: asyncio.StreamReader, bytes_max: int) -> bytes:
    """The next message.

    Raises:
        FormatError: its length is 0 or above `bytes_max`.
        EOFError: the stream ended, in the middle of a message perhaps.
        OSError: the connection failed.
    """
    size = int.from_bytes(await reader.readexactly(_HEADER_BYTES), "big")
    if not 1 <= size <= bytes_max:
        raise FormatError("local message", f"would have {size} bytes", bytes_max)
    return await reader.readexactly(size)
