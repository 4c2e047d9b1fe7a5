"""Canonical MessagePack (protocol.md section 1.2)."""

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.strategies import device_commands, envelopes, relay_commands
from wire.codec import decode, encode
from wire.commands import decode_device_commands, decode_relay_commands, encode_commands
from wire.envelope import Envelope
from wire.errors import FormatError


@given(envelopes)
def test_what_is_encoded_decodes_to_the_same(envelope: Envelope) -> None:
    assert decode(Envelope, encode(envelope), "envelope") == envelope


@given(envelopes)
def test_the_second_decoder_reads_the_same_values(envelope: Envelope) -> None:
    fields = msgpack.unpackb(encode(envelope), raw=False)
    assert fields == [envelope.mailbox, envelope.envelope_id, envelope.expiry, envelope.body]
    assert msgpack.packb(fields) == encode(envelope)


@given(st.binary(max_size=200))
def test_whatever_decodes_as_device_commands_encodes_to_the_same_bytes(data: bytes) -> None:
    try:
        commands = decode_device_commands(data)
    except FormatError:
        return
    assert encode_commands(commands) == data


@given(st.lists(device_commands, min_size=1, max_size=3))
def test_device_commands_round_trip_and_are_not_relay_commands(commands: list[object]) -> None:
    data = encode_commands(commands)  # type: ignore[arg-type]
    assert list(decode_device_commands(data)) == commands


@given(st.lists(relay_commands, min_size=1, max_size=3))
def test_relay_commands_round_trip(commands: list[object]) -> None:
    data = encode_commands(commands)  # type: ignore[arg-type]
    assert list(decode_relay_commands(data)) == commands


@given(st.lists(device_commands, min_size=1, max_size=2), st.data())
def test_a_changed_byte_is_refused_or_is_another_canonical_frame(commands: list[object], data: st.DataObject) -> None:
    encoded = bytearray(encode_commands(commands))  # type: ignore[arg-type]
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode_device_commands(bytes(encoded))
    except FormatError:
        return
    assert encode_commands(decoded) == encoded
    assert list(decoded) != commands


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "truncated"),
        (b"\xcc\x05", "is not the canonical encoding"),
        (b"\xcd\x00\x05", "is not the canonical encoding"),
        (b"\x05\x05", "trailing"),
        (b"\xcb\x40\x14\x00\x00\x00\x00\x00\x00", "Expected `int`, got `float`"),
        (b"\xc1", "invalid opcode"),
        (b"\x80", "Expected `int`, got `object`"),
        (b"\xc0", "Expected `int`, got `None`"),
        (b"\xc3", "Expected `int`, got `bool`"),
        (b"\xd4\x01\x00", "got `ext`"),
    ],
)
def test_each_kind_of_bad_bytes_is_refused_by_name(data: bytes, problem: str) -> None:
    with pytest.raises(FormatError) as caught:
        decode(int, data, "number")
    assert caught.value.field == "number"
    assert problem.lower() in str(caught.value).lower()


def test_an_extension_type_is_refused_where_anything_is_taken() -> None:
    with pytest.raises(FormatError, match="extension type 1 is not allowed"):
        decode(object, b"\xd4\x01\x00", "anything")


def test_deep_nesting_is_a_format_error_not_a_crash() -> None:
    with pytest.raises(FormatError):
        decode(object, b"\x91" * 100_000 + b"\x00", "nest")


def test_a_missing_and_an_additional_field_are_refused() -> None:
    whole = msgpack.unpackb(encode(Envelope(b"m" * 16, b"i" * 16, 5, b"b" * 400)))
    for fields in (whole[:-1], [*whole, 0]):
        with pytest.raises(FormatError, match="envelope"):
            decode(Envelope, msgpack.packb(fields), "envelope")


@pytest.mark.parametrize("size", [0, 399, 196_697])
def test_a_body_outside_of_its_bounds_is_refused(size: int) -> None:
    data = msgpack.packb([b"m" * 16, b"i" * 16, 5, b"b" * size])
    with pytest.raises(FormatError, match=r"length (>= 400|<= 196696)"):
        decode(Envelope, data, "envelope")


def test_text_where_bytes_belong_is_refused() -> None:
    with pytest.raises(FormatError, match="Expected `bytes`"):
        decode(Envelope, msgpack.packb(["m" * 16, b"i" * 16, 5, b"b" * 400]), "envelope")
