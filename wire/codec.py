"""Canonical MessagePack, strictly typed (protocol.md section 1.2).

There is one encoding of a value. `decode` therefore encodes what it decoded and compares: whatever is longer than
need be, has unknown or missing fields, or trailing bytes, is refused. That costs a copy of the message, and saves every
question of malleability. The verifier has a second decoder, on another library; the two must agree.
"""

from functools import lru_cache
from typing import Annotated, Any, TypeVar, overload

import msgspec
from msgspec import Meta, Struct

from wire.errors import FormatError
from wire.limits import HASH_BYTES, ID_BYTES, KEY_BYTES, SIGNATURE_BYTES, UINT16_MAX, UINT32_MAX

__all__ = [
    "U16",
    "U32",
    "U64",
    "Hash",
    "Id",
    "Key",
    "Positive",
    "PositiveU32",
    "Record",
    "SecretRecord",
    "Signature",
    "decode",
    "decode_with",
    "decoder",
    "encode",
]

Id = Annotated[bytes, Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
Key = Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Hash = Annotated[bytes, Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
Signature = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
U16 = Annotated[int, Meta(ge=0, le=UINT16_MAX)]
U32 = Annotated[int, Meta(ge=0, le=UINT32_MAX)]
# msgspec decodes MessagePack integers up to 2^64 - 1; SQLite keeps signed ones, so that 2^63 - 1 is the limit in use.
U64 = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Positive = Annotated[int, Meta(ge=1, le=2**63 - 1)]
PositiveU32 = Annotated[int, Meta(ge=1, le=UINT32_MAX)]

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode


@lru_cache(maxsize=256)
def decoder(kind: Any) -> "msgspec.msgpack.Decoder[Any]":
    """What `decode` and `decode_with` decode a type with."""
    return msgspec.msgpack.Decoder(kind, strict=True, ext_hook=_refuse_extension)


def _refuse_extension(code: int, data: memoryview) -> Any:
    raise ValueError(f"extension type {code} is not allowed")


@overload
def decode(kind: type[T], data: bytes, field: str) -> T: ...
@overload
def decode(kind: Any, data: bytes, field: str) -> Any: ...
def decode(kind: Any, data: bytes, field: str) -> Any:
    """Decode one canonical value.

    Args:
        kind: the type to decode to, a `msgspec.Struct` with `array_like=True` or a plain type.
        data: the bytes, all of which must belong to the value.
        field: the name for the error.

    Raises:
        FormatError: not MessagePack, not of this type, out of a bound, or not the canonical encoding.
    """
    return decode_with(decoder(kind), data, field)


def decode_with(decoder: "msgspec.msgpack.Decoder[Any]", data: bytes, field: str) -> Any:
    """`decode` with a decoder that is at hand, where looking one up by its type counts.

    Raises:
        FormatError: as `decode`.
    """
    try:
        value = decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # msgspec's words name path, expected type and bound, never the value.
        raise FormatError(field, str(error)) from None
    if _encoder.encode(value) != data:
        raise FormatError(field, "is not the canonical encoding")
    return value


class Record(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of every structure of the protocol: a frozen MessagePack array."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What `rich` shows: the name alone. msgspec's own shows every field, and so passes by a repr that redacts."""
        return []


class SecretRecord(Record, frozen=True):
    """A record of secrets, for sealed storage: its repr shows none of them."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<redacted>)"
