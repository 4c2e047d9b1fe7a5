"""Canonical MessagePack, read with the `msgpack` package and checks of our own (protocol.md section 1.2).

wire/ reads the same bytes with another library; that the two agree is the point, so nothing is shared with it. The
rules:

- integers, text, byte strings and arrays only: no maps, extensions, floats, nil, booleans;
- what does not re-encode to the very same bytes is refused, and so are trailing bytes;
- nesting, sizes and counts are bounded, and each refusal names the field and the limit.

Example: `account, version = array(decode(data, "device list", 4096), "device list", 2)`.
"""

from __future__ import annotations

from typing import Any

import msgpack  # type: ignore[import-untyped]

from audit.errors import DecodeError

DEPTH_MAX = 8
"""Nesting of arrays; the deepest structure of the protocol (a manifest with its rotations) has 4."""

U64_MAX = 2**64 - 1


def decode(data: bytes, field: str, bytes_max: int) -> Any:
    """Decode one canonical value.

    Args:
        data: The encoding, all of it.
        field: What it is, for the error.
        bytes_max: Its longest length allowed, in bytes.

    Raises:
        DecodeError: It is too long, no MessagePack, or not the one encoding of its value.
    """
    if len(data) > bytes_max:
        raise DecodeError(field, f"{len(data)} bytes, at most {bytes_max} are allowed")
    try:
        value = msgpack.unpackb(
            data, raw=False, strict_map_key=True, object_pairs_hook=_refuse_map, ext_hook=_refuse_ext, timestamp=0
        )
        _check_types(value, field)
        again = encode(value, field)
    except DecodeError as error:
        raise DecodeError(field, error.problem) from None
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError, msgpack.UnpackException) as error:
        raise DecodeError(field, f"no MessagePack of this protocol ({type(error).__name__})") from None
    if again != data:
        raise DecodeError(field, "not the canonical encoding of its value")
    return value


def _refuse_map(_pairs: object) -> Any:
    raise DecodeError("value", "holds a map")


def _refuse_ext(_code: int, _data: bytes) -> Any:
    raise DecodeError("value", "holds an extension type")


def _check_types(value: Any, field: str) -> None:
    """Walk without recursion: a hostile nesting must not end in a RecursionError of ours."""
    level = [value]
    for _ in range(DEPTH_MAX + 1):
        below: list[Any] = []
        for item in level:
            if type(item) is list:
                below.extend(item)
            elif type(item) not in {int, bytes, str}:
                raise DecodeError(field, f"holds a {type(item).__name__}")
        if not below:
            return
        level = below
    raise DecodeError(field, f"nested deeper than {DEPTH_MAX}")


def array(value: Any, field: str, length: int | None = None, length_max: int | None = None) -> list[Any]:
    """Return the value as a list, of exactly `length` or at most `length_max` items."""
    if type(value) is not list:
        raise DecodeError(field, "must be an array")
    if length is not None and len(value) != length:
        raise DecodeError(field, f"must have {length} items, has {len(value)}")
    if length_max is not None and len(value) > length_max:
        raise DecodeError(field, f"at most {length_max} items are allowed, has {len(value)}")
    return value


def integer(value: Any, field: str, low: int = 0, high: int = U64_MAX) -> int:
    """Return the value as an integer from `low` to `high`."""
    if type(value) is not int:
        raise DecodeError(field, "must be an integer")
    if not low <= value <= high:
        raise DecodeError(field, f"must be {low} to {high}, is {value}")
    return value


def binary(value: Any, field: str, length: int | None = None, length_max: int | None = None) -> bytes:
    """Return the value as bytes, of exactly `length` or at most `length_max`."""
    if type(value) is not bytes:
        raise DecodeError(field, "must be bin")
    if length is not None and len(value) != length:
        raise DecodeError(field, f"must have {length} bytes, has {len(value)}")
    if length_max is not None and len(value) > length_max:
        raise DecodeError(field, f"at most {length_max} bytes are allowed, has {len(value)}")
    return value


def text(value: Any, field: str, bytes_max: int) -> str:
    """Return the value as text of at most `bytes_max` bytes of UTF-8."""
    if type(value) is not str:
        raise DecodeError(field, "must be str")
    if len(value.encode()) > bytes_max:
        raise DecodeError(field, f"at most {bytes_max} bytes are allowed")
    return value


def encode(value: Any, field: str) -> bytes:
    """Encode a value that was decoded, canonically."""
    try:
        packed = msgpack.packb(value, use_bin_type=True)
    except (ValueError, TypeError, OverflowError):
        raise DecodeError(field, "cannot be encoded") from None
    return bytes(packed)
