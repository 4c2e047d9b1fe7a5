"""The files of admission: a tenant's admin key, and the tokens that it signs.

    blindpost-tenant-key-1 sealed BASE64(vault header) BASE64(sealed row)
    blindpost-tenant-key-1 unprotected BASE64(row)              row = MessagePack [domain, admin key]
    blindpost-token-1 BASE64(Token)                             protocol.md section 2.3

Each is one line of ASCII. The key file is sealed under a passphrase (keys/vault.py) unless its owner chose otherwise;
whoever has the key admits accounts to that domain, but reads nobody's mail. A token is worth one account until it is
used or expires, so its file is for one reader.
"""

import base64
import binascii
from pathlib import Path
from typing import Final

from blindpost.files import read_bounded
from keys.identity import TenantAdminKey
from keys.vault import Vault
from wire.codec import Record, decode, encode
from wire.errors import FormatError
from wire.identity import Domain, Token, check_domain, read_activation

__all__ = ["TenantKey", "read_token", "token_line"]

_KEY_WORD: Final = "blindpost-tenant-key-1"
_TOKEN_WORD: Final = "blindpost-token-1"
# Far above what a header, a key and the longest domain take.
_FILE_BYTES_MAX: Final = 4_096
_ROW_NAME: Final = b"tenant-key/1"


class _Row(Record, frozen=True):
    domain: Domain
    key: bytes

    def __repr__(self) -> str:
        return f"_Row(domain={self.domain!r}, key=<redacted>)"


class TenantKey:
    """A tenant's admin key and the domain that it admits accounts to.

    Args:
        domain: the tenant.
        admin: its key.
    """

    __slots__ = ("admin", "domain")

    def __init__(self, domain: str, admin: TenantAdminKey) -> None:
        self.domain = check_domain(domain)
        self.admin = admin

    def __repr__(self) -> str:
        """The domain; the key shows nothing."""
        return f"TenantKey(domain={self.domain!r}, admin=<redacted>)"

    def sealed(self, passphrase: bytes) -> bytes:
        """The key file, sealed under a passphrase.

        Raises:
            FormatError: an empty or too long passphrase.
        """
        vault = Vault.create(passphrase)
        return _line(_KEY_WORD, "sealed", _text(vault.header), _text(vault.seal(self._row(), _ROW_NAME)))

    def unprotected(self) -> bytes:
        """The key file for an owner who protects it otherwise."""
        return _line(_KEY_WORD, "unprotected", _text(self._row()))

    def _row(self) -> bytes:
        return encode(_Row(self.domain, self.admin.to_bytes()))

    @staticmethod
    def is_sealed(path: Path) -> bool:
        """Whether a passphrase is needed for the key file.

        Raises:
            FormatError: it is no key file.
            OSError: it cannot be read.
        """
        return _key_words(path)[0] == "sealed"

    @classmethod
    def read(cls, path: Path, passphrase: bytes = b"") -> "TenantKey":
        """Read a key file.

        Raises:
            FormatError: it is none.
            WrongPassphrase: the passphrase does not open it.
            OSError: it cannot be read.
        """
        kind, *parts = _key_words(path)
        if kind == "sealed":
            row = Vault.unlock(_bytes(parts[0]), passphrase).open(_bytes(parts[1]), _ROW_NAME)
        else:
            row = _bytes(parts[0])
        stored = decode(_Row, row, "tenant key")
        return cls(stored.domain, TenantAdminKey.from_bytes(stored.key))


def _key_words(path: Path) -> list[str]:
    words = _words(path, "tenant key", _KEY_WORD)
    if [words[:1], len(words)] not in ([["sealed"], 3], [["unprotected"], 2]):
        raise FormatError("tenant key", "is neither sealed nor unprotected, or was cut")
    return words


def token_line(token: Token) -> bytes:
    """A token as its file (protocol.md section 2.3)."""
    return _line(_TOKEN_WORD, _text(encode(token)))


def read_token(path: Path) -> Token:
    """Read a token's file; that it is signed by the right key is for the relay.

    Raises:
        FormatError: it is none.
        OSError: it cannot be read.
    """
    words = _words(path, "token", _TOKEN_WORD)
    if len(words) != 1:
        raise FormatError("token", "is not one line of two words")
    token = decode(Token, _bytes(words[0], "token"), "token")
    read_activation(token)
    return token


def _words(path: Path, name: str, first: str) -> list[str]:
    data = read_bounded(path, name, _FILE_BYTES_MAX)
    try:
        words = data.decode("ascii").split()
    except UnicodeDecodeError:
        words = []
    if words[:1] != [first]:
        raise FormatError(name, f"is no file of that kind: it does not begin with {first!r}")
    return words[1:]


def _line(*words: str) -> bytes:
    return " ".join(words).encode("ascii") + b"\n"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str, name: str = "tenant key") -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data or _text(data) != text:
        raise FormatError(name, "is not base64")
    return data
