"""A socket that reads ahead gives the same bytes in the same order as the socket below it."""

import random
import socket
from collections.abc import Iterator

import aiomqtt
import pytest

from relay.transport.buffered import READ_AHEAD_BYTES, ReadAheadSocket, read_ahead


@pytest.fixture
def pair() -> Iterator[tuple[ReadAheadSocket, socket.socket]]:
    near, far = socket.socketpair()
    ahead = ReadAheadSocket(near)
    ahead.setblocking(False)
    yield ahead, far
    ahead.close()
    far.close()


def test_small_reads_take_from_one_large_one(pair: tuple[ReadAheadSocket, socket.socket]) -> None:
    ahead, far = pair
    far.sendall(b"abcdef")
    assert (ahead.recv(1), ahead.pending()) == (b"a", 5)
    far.sendall(b"gh")
    assert (ahead.recv(3), ahead.pending()) == (b"bcd", 2)
    # What is read ahead comes first, and alone.
    assert (ahead.recv(100), ahead.pending()) == (b"ef", 0)
    assert ahead.recv(100) == b"gh"
    with pytest.raises(BlockingIOError):
        ahead.recv(1)
    assert ahead.send(b"up") == 2
    assert far.recv(10) == b"up"
    assert ahead.fileno() >= 0


def test_the_end_of_the_stream_comes_after_its_last_byte(pair: tuple[ReadAheadSocket, socket.socket]) -> None:
    ahead, far = pair
    far.sendall(b"ab")
    far.shutdown(socket.SHUT_WR)
    assert [ahead.recv(1), ahead.recv(1), ahead.recv(1), ahead.recv(1)] == [b"a", b"b", b"", b""]


def test_any_schedule_of_reads_and_writes_keeps_the_stream(pair: tuple[ReadAheadSocket, socket.socket]) -> None:
    ahead, far = pair
    rng = random.Random(5)
    sent, got = b"", b""
    for _ in range(500):
        if rng.random() < 0.5:
            data = rng.randbytes(rng.choice((1, 10, 5_000)))
            far.sendall(data)
            sent += data
        try:
            got += ahead.recv(rng.choice((1, 2, 100, 4_000, READ_AHEAD_BYTES)))
        except BlockingIOError:
            assert got == sent
            assert ahead.pending() == 0
        assert sent.startswith(got)
    while len(got) < len(sent):
        got += ahead.recv(4_000)
    assert got == sent


async def test_a_client_of_another_make_is_left_as_it_is() -> None:
    client = aiomqtt.Client("127.0.0.1")

    class Other:
        pass

    client._client = Other()  # type: ignore[assignment]
    read_ahead(client)
    assert not vars(client._client)
