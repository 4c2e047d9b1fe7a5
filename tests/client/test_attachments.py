from __future__ import annotations

import hashlib
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.attachments import (
    CHUNKS_MAX,
    Assembly,
    ChunkPlan,
    Manifest,
    chunk_at,
    chunks,
    decode_manifest,
    encode_manifest,
    make_manifest,
    manifest_content,
    message_content,
    plan_chunks,
)
from client.content import (
    NO_REPLY,
    OWN_COPY_BYTES_MAX,
    Content,
    Kind,
    decode_content,
    encode_content,
    is_inline,
    with_token,
)
from client.errors import Incomplete
from wire.envelope import CHUNK_OVERHEAD_BYTES, body_lengths
from wire.errors import FormatError
from wire.limits import AUDIENCE_MAX, MESSAGE_BYTES_MAX
from wire.padding import padme

FILE_KEY = bytes(range(32))
TOKEN = bytes(16)
MESSAGE_ID = bytes(range(16))
SENDER = "ana@acme.example"

# Payloads around every border of a chunk, made from a seed and not drawn byte by byte.
sizes = st.one_of(
    st.integers(0, 300_000),
    st.sampled_from([0, 1, 32_767, 32_768, 65_535, 65_536, 196_607, 196_608, 196_609, 393_215, 393_216, 1_000_000]),
)


def payload_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def mail(payload: bytes) -> Content:
    return Content(TOKEN, Kind.EMAIL, MESSAGE_ID, 1, NO_REPLY, ("omar@karachi.example",), payload)


def manifest_payload(**fields: object) -> Content:
    """A content whose manifest was bent after it was made."""
    made = msgspec.structs.replace(make_manifest(Kind.EMAIL, payload_of(70_000), FILE_KEY), **fields)
    return msgspec.structs.replace(mail(b""), kind=Kind.MANIFEST, payload=msgspec.msgpack.encode(made))


@given(st.integers(0, OWN_COPY_BYTES_MAX))
def test_a_plan_holds_the_padded_payload_and_depends_on_its_length_alone(size: int) -> None:
    plan = plan_chunks(size)
    padded = padme(size + 1)
    assert (plan.chunk_count - 1) * plan.chunk_bytes < padded <= plan.chunk_count * plan.chunk_bytes
    # The last size with the same padded length has the same plan, but for the size itself.
    assert plan_chunks(min(padded - 1, OWN_COPY_BYTES_MAX)) == ChunkPlan(
        min(padded - 1, OWN_COPY_BYTES_MAX), plan.chunk_count, plan.chunk_bytes
    )


@given(st.integers(0, OWN_COPY_BYTES_MAX))
def test_a_chunk_has_a_length_that_a_body_may_have(size: int) -> None:
    assert plan_chunks(size).chunk_bytes + CHUNK_OVERHEAD_BYTES in body_lengths()


@pytest.mark.parametrize(
    ("size", "count", "chunk_bytes"),
    [
        (0, 1, 32_768),
        (65_536, 1, 67_584),
        (196_607, 1, 196_608),
        (196_608, 2, 100_352),
        (5 * 1_048_576, 28, 192_512),
        (MESSAGE_BYTES_MAX, 136, 196_608),
    ],
)
def test_plans(size: int, count: int, chunk_bytes: int) -> None:
    assert plan_chunks(size) == ChunkPlan(size, count, chunk_bytes)


@pytest.mark.parametrize("size", [-1, OWN_COPY_BYTES_MAX + 1])
def test_a_size_that_no_payload_has_has_no_plan(size: int) -> None:
    with pytest.raises(FormatError, match=f"size: is {size}"):
        plan_chunks(size)


@given(sizes)
def test_the_chunks_are_the_payload_a_mark_and_zeros(size: int) -> None:
    payload = payload_of(size)
    plan = plan_chunks(size)
    whole = b"".join(chunks(payload, plan))
    assert whole == (payload + b"\x80").ljust(plan.chunk_count * plan.chunk_bytes, b"\0")


@given(sizes, st.randoms(use_true_random=False))
def test_a_message_is_whole_again_in_any_order_with_doubles_and_restarts(size: int, order: random.Random) -> None:
    payload = payload_of(size)
    manifest = make_manifest(Kind.EMAIL, payload, FILE_KEY)
    kept: dict[int, bytes] = {}
    arrivals = list(enumerate(chunks(payload, manifest.plan))) * 2
    order.shuffle(arrivals)
    assembly = Assembly(manifest, MESSAGE_ID, SENDER)
    for index, chunk in arrivals:
        assembly.check(index, chunk)
        assert assembly.note(index) is (index not in kept)
        kept[index] = chunk
        if order.random() < 0.3:
            assembly = Assembly(manifest, MESSAGE_ID, SENDER, present=kept)
        assert assembly.is_whole is (len(kept) == manifest.chunk_count)
        assert assembly.missing() == [number for number in range(manifest.chunk_count) if number not in kept]
    assert assembly.payload(kept.__getitem__) == payload


def test_a_large_message_and_its_manifest_give_the_message_back() -> None:
    message = mail(payload_of(300_000))
    announced = decode_content(encode_content(manifest_content(message, FILE_KEY, b"\x01" * 16)))
    manifest = decode_manifest(announced)
    assert manifest.payload_hash == hashlib.sha256(message.payload).digest()
    kept = list(chunks(message.payload, manifest.plan))
    assembly = Assembly(manifest, MESSAGE_ID, SENDER, present=range(len(kept)))
    whole = message_content(announced, manifest, assembly.payload(kept.__getitem__))
    assert whole == with_token(message, b"\x01" * 16)


def test_the_longest_manifest_goes_inline() -> None:
    longest = "a" * 64 + "@" + ".".join(["b" * 63, "c" * 63, "d" * 61])
    message = msgspec.structs.replace(mail(b"x" * 9), audience=(longest,) * AUDIENCE_MAX)
    manifest = manifest_content(message, FILE_KEY, TOKEN)
    assert is_inline(manifest.kind, len(encode_content(manifest)))


def test_one_chunk_at_a_time_is_asked_for_and_each_twice() -> None:
    payload = payload_of(500_000)
    manifest = make_manifest(Kind.EMAIL, payload, FILE_KEY)
    asked: list[int] = []

    def read(index: int) -> bytes:
        asked.append(index)
        return chunk_at(payload, manifest.plan, index)

    assembly = Assembly(manifest, MESSAGE_ID, SENDER, present=range(manifest.chunk_count))
    pieces = assembly.pieces(read)
    assert asked == [0, 1, 2]
    assert next(pieces) == payload[: manifest.chunk_bytes]
    assert asked == [0, 1, 2, 0]
    assert b"".join(pieces) == payload[manifest.chunk_bytes :]


def test_nothing_is_handed_out_before_it_is_whole() -> None:
    manifest = make_manifest(Kind.EMAIL, payload_of(500_000), FILE_KEY)
    assembly = Assembly(manifest, MESSAGE_ID, SENDER, present=[0, 2])
    with pytest.raises(Incomplete) as caught:
        assembly.payload(lambda index: b"")
    assert (caught.value.have, caught.value.count, caught.value.account) == (2, 3, SENDER)


def test_nothing_is_handed_out_if_the_hash_is_not_right() -> None:
    payload = payload_of(200_000)
    manifest = make_manifest(Kind.EMAIL, payload, FILE_KEY)
    other = b"\x00" + payload[1:] if payload[0] else b"\x01" + payload[1:]
    assembly = Assembly(manifest, MESSAGE_ID, SENDER, present=range(manifest.chunk_count))
    with pytest.raises(FormatError, match=r"manifest\.payload_hash: is not that of the chunks"):
        assembly.pieces(lambda index: chunk_at(other, manifest.plan, index))


def test_incomplete_at_expiry_is_a_typed_failure() -> None:
    manifest = make_manifest(Kind.EMAIL, payload_of(500_000), FILE_KEY)
    assembly = Assembly(manifest, MESSAGE_ID, SENDER, present=[0])
    assembly.check_expiry(expiry=100, now=99)
    with pytest.raises(Incomplete, match="is incomplete: 1 of 3 chunks"):
        assembly.check_expiry(expiry=100, now=100)
    Assembly(manifest, MESSAGE_ID, SENDER, present=range(3)).check_expiry(expiry=100, now=101)


def test_a_chunk_that_is_not_of_the_plan_is_refused_before_it_is_kept() -> None:
    payload = payload_of(196_608)
    manifest = make_manifest(Kind.EMAIL, payload, FILE_KEY)
    assembly = Assembly(manifest, MESSAGE_ID, SENDER)
    last = chunk_at(payload, manifest.plan, 1)
    for index, chunk, problem in (
        (2, last, "chunk: has number 2 of 2"),
        (-1, last, "chunk: has number -1 of 2"),
        (1, last[:-1], "chunk: 1 has 100351 bytes, not 100352"),
        (1, last[:-1] + b"\x01", "chunk: 1 does not end in 0x80 and zeros"),
        (1, last.replace(b"\x80" + bytes(99), bytes(100)), "chunk: 1 does not end in 0x80 and zeros"),
    ):
        with pytest.raises(FormatError, match=problem):
            assembly.check(index, chunk)
    with pytest.raises(FormatError, match="chunk: has number 2"):
        assembly.note(2)
    with pytest.raises(FormatError, match="chunk: has number 7"):
        Assembly(manifest, MESSAGE_ID, SENDER, present=[7])
    assert assembly.missing() == [0, 1]


@pytest.mark.parametrize(("size", "last_begins"), [(8_454_144, b"\x80"), (8_388_608, b"\0")], ids=["mark", "zeros"])
def test_a_last_chunk_without_payload_is_checked_too(size: int, last_begins: bytes) -> None:
    payload = bytes(size)
    manifest = make_manifest(Kind.EMAIL, payload, FILE_KEY)
    last = manifest.chunk_count - 1
    assembly = Assembly(manifest, MESSAGE_ID, SENDER, present=range(manifest.chunk_count))
    assert chunk_at(payload, manifest.plan, last) == last_begins.ljust(manifest.chunk_bytes, b"\0")
    assert sum(map(len, assembly.pieces(lambda index: chunk_at(payload, manifest.plan, index)))) == size
    with pytest.raises(FormatError, match="does not end in 0x80 and zeros"):
        assembly.check(last, b"\x01" + bytes(manifest.chunk_bytes - 1))


def test_a_chunk_of_another_payload_is_not_cut() -> None:
    plan = plan_chunks(70_000)
    with pytest.raises(FormatError, match="size: of the plan is 70000, the payload has 1 bytes"):
        chunk_at(b"x", plan, 0)
    with pytest.raises(FormatError, match="chunk: has number 1 of 1"):
        chunk_at(payload_of(70_000), plan, 1)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"kind": Kind.MANIFEST}, r"manifest\.kind: is a manifest of a manifest"),
        ({"chunk_count": 2}, r"manifest\.chunk_count: plans 2 chunks of 71680 bytes for a size of 70000, not 1 of"),
        ({"chunk_bytes": 72_704}, r"manifest\.chunk_count: plans 1 chunks of 72704"),
        ({"size": 20_000_000}, r"manifest\.chunk_count"),
        ({"size": MESSAGE_BYTES_MAX + 1}, r"manifest\.size: is 26214401 for kind email \(limit 26214400\)"),
        ({"size": OWN_COPY_BYTES_MAX + 1}, r"manifest: Expected `int` <="),
        ({"chunk_count": CHUNKS_MAX + 1}, r"manifest: Expected `int` <="),
        ({"chunk_count": 0}, r"manifest: Expected `int` >= 1"),
        ({"chunk_bytes": 71_681}, r"manifest: Expected `int` that's a multiple of 1024"),
        ({"file_key": b"short"}, r"manifest: Expected `bytes` of length >= 32"),
    ],
)
def test_a_manifest_with_another_plan_is_refused(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        decode_manifest(manifest_payload(**fields))


def test_a_manifest_that_would_be_refused_is_not_made() -> None:
    with pytest.raises(FormatError, match=r"manifest\.file_key: has 5 bytes, not 32"):
        make_manifest(Kind.EMAIL, b"x", b"short")
    with pytest.raises(FormatError, match=r"manifest\.kind"):
        make_manifest(Kind.MANIFEST, b"x", FILE_KEY)


def test_only_a_manifest_is_decoded_as_one() -> None:
    with pytest.raises(FormatError, match="kind: is email, not manifest"):
        decode_manifest(mail(b"x"))


@given(st.binary(max_size=120))
def test_any_bytes_are_a_manifest_that_encodes_to_them_or_a_format_error(data: bytes) -> None:
    try:
        manifest = decode_manifest(msgspec.structs.replace(mail(data), kind=Kind.MANIFEST))
    except FormatError:
        return
    assert encode_manifest(manifest) == data


def test_repr_of_a_manifest_shows_no_key_and_no_hash() -> None:
    manifest = make_manifest(Kind.EMAIL, payload_of(70_000), FILE_KEY)
    assert repr(manifest) == "Manifest(kind=EMAIL, size=70000, chunk_count=1)"
    assert isinstance(manifest, Manifest)
