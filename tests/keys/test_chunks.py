"""Chunks under their file key (protocol.md section 8)."""

import hashlib

import pytest

from keys.chunks import FileKey, open_chunk
from keys.errors import AuthenticationFailed
from keys.message import message_keys
from tests.keys.people import SeededEntropy
from wire.errors import FormatError

ANA, BEN = b"a" * 32, b"b" * 32
CHUNK = bytes(range(256)) * 128


@pytest.fixture
def key() -> FileKey:
    return FileKey.generate(SeededEntropy("file"))


def seal(key: FileKey, index: int = 0, chunk: bytes = CHUNK) -> bytes:
    return key.seal(index, chunk, ANA, BEN, SeededEntropy("nonce"))


def test_chunk_survives(key: FileKey) -> None:
    for index in (0, 1, 132, 2**32 - 1):
        body = seal(key, index)
        assert len(body) == 88 + len(CHUNK)
        assert key.open(index, body, key.envelope_id(index), ANA, BEN) == CHUNK


def test_derivations_are_as_written(key: FileKey) -> None:
    secret = key.to_bytes()

    def keyed(person: bytes, size: int) -> bytes:
        return hashlib.blake2b(b"\0\0\0\7", digest_size=size, key=secret, person=person).digest()

    assert key.token(7) == keyed(b"bp1-chunk-token", 16)
    assert key.hint(7) == keyed(b"bp1-chunk-hint", 16)
    assert key.message_key(7) == keyed(b"bp1-chunk-key", 32)
    expected = hashlib.blake2b(b"blindpost/v1/envelope-id\0" + key.token(7), digest_size=16).digest()
    assert key.envelope_id(7) == expected
    body = seal(key, 7)
    assert body[:48] == key.hint(7) + message_keys(key.message_key(7))[1]


def test_no_two_chunks_share_a_commitment_hint_or_token(key: FileKey) -> None:
    other = FileKey.generate(SeededEntropy("other"))
    keys = [(k, index) for k in (key, other) for index in range(64)]
    assert len({k.hint(i) for k, i in keys}) == len(keys)
    assert len({k.token(i) for k, i in keys}) == len(keys)
    assert len({message_keys(k.message_key(i))[1] for k, i in keys}) == len(keys)


def test_chunk_at_another_place_is_refused(key: FileKey) -> None:
    body = seal(key, 3)
    with pytest.raises(AuthenticationFailed, match="hint"):
        key.open(4, body, key.envelope_id(4), ANA, BEN)
    with pytest.raises(AuthenticationFailed, match="envelope id"):
        key.open(3, body, key.envelope_id(4), ANA, BEN)
    with pytest.raises(AuthenticationFailed, match="commitment"):
        key.open(4, key.hint(4) + body[16:], key.envelope_id(4), ANA, BEN)


def test_chunk_of_another_sender_or_recipient_is_refused(key: FileKey) -> None:
    body = seal(key)
    with pytest.raises(AuthenticationFailed, match="chunk"):
        key.open(0, body, key.envelope_id(0), BEN, ANA)


@pytest.mark.parametrize("at", [0, 16, 48, 72, -1])
def test_altered_chunk_is_refused(key: FileKey, at: int) -> None:
    body = bytearray(seal(key))
    body[at] ^= 1
    with pytest.raises(AuthenticationFailed):
        key.open(0, bytes(body), key.envelope_id(0), ANA, BEN)


@pytest.mark.parametrize(("length", "limit"), [(0, 32_768), (31_744, 32_768), (32_769, 196_608), (197_632, 196_608)])
def test_chunk_of_a_length_that_none_has_is_refused(key: FileKey, length: int, limit: int) -> None:
    with pytest.raises(FormatError, match=rf"chunk: has {length} bytes.*\(limit {limit}\)"):
        seal(key, 0, bytes(length))
    with pytest.raises(FormatError, match="chunk"):
        open_chunk(bytes(88 + length), bytes(16), key.opening(0, ANA, BEN))


def test_volunteered_key_opens_its_chunk_and_no_other(key: FileKey) -> None:
    opening = key.opening(1, ANA, BEN)
    assert open_chunk(seal(key, 1), key.envelope_id(1), opening) == CHUNK
    with pytest.raises(AuthenticationFailed, match="commitment"):
        open_chunk(seal(key, 2), key.envelope_id(2), opening)


@pytest.mark.parametrize("index", [-1, 2**32])
def test_index_out_of_bounds_is_refused(key: FileKey, index: int) -> None:
    with pytest.raises(FormatError, match="chunk index"):
        key.token(index)


def test_file_key_survives_storage_and_shows_nothing(key: FileKey) -> None:
    assert FileKey(key.to_bytes()).token(0) == key.token(0)
    assert repr(key) == "FileKey(<redacted>)"
    with pytest.raises(FormatError, match=r"file key: has 31 bytes \(limit 32\)"):
        FileKey(bytes(31))
