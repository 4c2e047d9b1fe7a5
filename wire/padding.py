"""PADMÉ padding (protocol.md section 3; Nikitin et al., PETS 2019).

A ciphertext then shows its length with O(log log n) bits, at a cost of at most 12 %. The pad itself is ISO/IEC 7816-4's
0x80 and zeros, and there is one length for a content: anything else is refused on removal.
"""

from wire.errors import FormatError
from wire.limits import PADDED_BYTES_MIN

__all__ = ["pad", "padme", "padme_lengths", "unpad"]


def padme(length: int) -> int:
    """The PADMÉ length for `length` bytes: the next multiple of 2^(E−S), E = ⌊log2 n⌋, S = ⌊log2 E⌋ + 1."""
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1 if exponent > exponent.bit_length() else 0
    return (length + mask) & ~mask


def padded_length(content_length: int) -> int:
    """The length of `pad` of a content of that length, in bytes."""
    padded = padme(content_length + 1)
    return padded if padded > PADDED_BYTES_MIN else PADDED_BYTES_MIN


def pad(content: bytes) -> bytes:
    """Content, 0x80, zeros, to max(256, padme(len + 1)) bytes."""
    return (content + b"\x80").ljust(padded_length(len(content)), b"\0")


def unpad(padded: bytes) -> bytes:
    """The content of a padded message.

    Raises:
        FormatError: no 0x80 before the zeros, or not the length that `pad` gives.
    """
    stripped = padded.rstrip(b"\0")
    if not stripped.endswith(b"\x80"):
        raise FormatError("padding", "does not end in 0x80 and zeros")
    content = stripped[:-1]
    if len(padded) != padded_length(len(content)):
        raise FormatError("padding", f"is of {len(padded)} bytes, not the one length for its content")
    return content


def padme_lengths(longest: int) -> list[int]:
    """All padded lengths from 256 to `longest`, ascending: what a ciphertext may have as length."""
    lengths = []
    length = PADDED_BYTES_MIN
    while length <= longest:
        lengths.append(length)
        length = padme(length + 1)
    return lengths
