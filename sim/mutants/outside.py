"""The other machine, to which a cheating relay may send what it should not: a UDP socket on loopback that keeps all."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["arrived", "outside"]

_NAME: Final = "outside.bin"
_DATAGRAM_BYTES_MAX: Final = 65_535
_END: Final = b""


@contextlib.contextmanager
def outside(folder: Path) -> Iterator[int]:
    """Listen until the block ends; what arrived lies in the folder then, nothing if nothing did.

    Args:
        folder: beside the disclosure, no part of it.

    Yields:
        The port on 127.0.0.1.
    """
    kept: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])

        def keep() -> None:
            while datagram := listener.recv(_DATAGRAM_BYTES_MAX):
                kept.append(datagram)

        thread = threading.Thread(target=keep, name="outside")
        thread.start()
        try:
            yield port
        finally:
            # The listener's own, and so the last: an empty datagram ends it.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
                own.sendto(_END, ("127.0.0.1", port))
            thread.join()
    if kept:
        data = b"".join(len(datagram).to_bytes(4, "big") + datagram for datagram in kept)
        (folder / _NAME).write_bytes(data)


def arrived(folder: Path) -> list[bytes]:
    """The datagrams that `outside` kept, in their order; none if nothing arrived."""
    path = folder / _NAME
    data, datagrams = path.read_bytes() if path.exists() else b"", []
    while data:
        size = int.from_bytes(data[:4], "big")
        datagrams.append(data[4 : 4 + size])
        data = data[4 + size :]
    return datagrams
