"""Files of one line of ASCII: a word that says what it is, and base64; and keys in such a line, sealed or not.

    WORD sealed BASE64(vault header) BASE64(sealed row)
    WORD unprotected BASE64(row)

A sealed row opens with the passphrase alone (keys/vault.py).
"""

import base64
import binascii
from pathlib import Path
from typing import Final

from blindpost.files import read_bounded
from keys.vault import Vault
from wire.errors import FormatError

__all__ = ["base64_bytes", "base64_text", "is_sealed", "key_line", "line_of", "read_key_line", "words_of"]

# Far above what a header, a key and the longest name take.
FILE_BYTES_MAX: Final = 4_096


def line_of(*words: str) -> bytes:
    """The words as a line."""
    return " ".join(words).encode("ascii") + b"\n"


def words_of(path: Path, name: str, first: str) -> list[str]:
    """The words after the first of a file.

    Args:
        path: which.
        name: what it is, for the error.
        first: the word that it must begin with.

    Raises:
        FormatError: another kind of file.
        OSError: it cannot be read.
    """
    data = read_bounded(path, name, FILE_BYTES_MAX)
    try:
        words = data.decode("ascii").split()
    except UnicodeDecodeError:
        words = []
    if words[:1] != [first]:
        raise FormatError(name, f"is no file of that kind: it does not begin with {first!r}")
    return words[1:]


def key_line(word: str, row: bytes, row_name: bytes, passphrase: bytes | None) -> bytes:
    """A key's file.

    Args:
        word: what it begins with.
        row: what it holds; secret.
        row_name: binds the sealed row to its place.
        passphrase: seals it; None for an owner who protects it otherwise.

    Raises:
        FormatError: an empty or too long passphrase.
    """
    if passphrase is None:
        return line_of(word, "unprotected", base64_text(row))
    vault = Vault.create(passphrase)
    return line_of(word, "sealed", base64_text(vault.header), base64_text(vault.seal(row, row_name)))


def is_sealed(path: Path, name: str, word: str) -> bool:
    """Whether a passphrase is needed.

    Raises:
        FormatError: it is no such file.
        OSError: it cannot be read.
    """
    return _key_words(path, name, word)[0] == "sealed"


def read_key_line(path: Path, name: str, word: str, row_name: bytes, passphrase: bytes) -> bytes:
    """What a key's file holds.

    Raises:
        FormatError: it is no such file.
        WrongPassphrase: the passphrase does not open it.
        OSError: it cannot be read.
    """
    kind, *parts = _key_words(path, name, word)
    if kind == "sealed":
        return Vault.unlock(base64_bytes(parts[0], name), passphrase).open(base64_bytes(parts[1], name), row_name)
    return base64_bytes(parts[0], name)


def base64_text(data: bytes) -> str:
    """Base64 as a word."""
    return base64.b64encode(data).decode("ascii")


def base64_bytes(text: str, name: str) -> bytes:
    """The bytes of a word.

    Raises:
        FormatError: it is empty, or not the one spelling of its bytes.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data or base64_text(data) != text:
        raise FormatError(name, "is not base64")
    return data


def _key_words(path: Path, name: str, word: str) -> list[str]:
    words = words_of(path, name, word)
    if [words[:1], len(words)] not in ([["sealed"], 3], [["unprotected"], 2]):
        raise FormatError(name, "is neither sealed nor unprotected, or was cut")
    return words
