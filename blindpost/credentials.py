"""The files of admission: a tenant's admin key, and the tokens that it signs.

    blindpost-tenant-key-1 sealed BASE64(vault header) BASE64(sealed row)
    blindpost-tenant-key-1 unprotected BASE64(row)              row = MessagePack [domain, admin key]
    blindpost-token-1 BASE64(Token)                             protocol.md section 2.3

Each is one line of ASCII. The key file is sealed under a passphrase (keys/vault.py) unless its owner chose otherwise;
whoever has the key admits accounts to that domain, but reads nobody's mail. A token is worth one account until it is
used or expires, so its file is for one reader.
"""

from pathlib import Path
from typing import Final

from blindpost.key_lines import base64_bytes, base64_text, is_sealed, key_line, line_of, read_key_line, words_of
from keys.identity import TenantAdminKey
from wire.codec import Record, decode, encode
from wire.errors import FormatError
from wire.identity import Domain, Token, check_domain, read_activation

__all__ = ["TenantKey", "read_token", "token_line"]

_KEY_WORD: Final = "blindpost-tenant-key-1"
_TOKEN_WORD: Final = "blindpost-token-1"
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
        return key_line(_KEY_WORD, self._row(), _ROW_NAME, passphrase)

    def unprotected(self) -> bytes:
        """The key file for an owner who protects it otherwise."""
        return key_line(_KEY_WORD, self._row(), _ROW_NAME, None)

    def _row(self) -> bytes:
        return encode(_Row(self.domain, self.admin.to_bytes()))

    @staticmethod
    def is_sealed(path: Path) -> bool:
        """Whether a passphrase is needed for the key file.

        Raises:
            FormatError: it is no key file.
            OSError: it cannot be read.
        """
        return is_sealed(path, "tenant key", _KEY_WORD)

    @classmethod
    def read(cls, path: Path, passphrase: bytes = b"") -> "TenantKey":
        """Read a key file.

        Raises:
            FormatError: it is none.
            WrongPassphrase: the passphrase does not open it.
            OSError: it cannot be read.
        """
        row = read_key_line(path, "tenant key", _KEY_WORD, _ROW_NAME, passphrase)
        stored = decode(_Row, row, "tenant key")
        return cls(stored.domain, TenantAdminKey.from_bytes(stored.key))


def token_line(token: Token) -> bytes:
    """A token as its file (protocol.md section 2.3)."""
    return line_of(_TOKEN_WORD, base64_text(encode(token)))


def read_token(path: Path) -> Token:
    """Read a token's file; that it is signed by the right key is for the relay.

    Raises:
        FormatError: it is none.
        OSError: it cannot be read.
    """
    words = words_of(path, "token", _TOKEN_WORD)
    if len(words) != 1:
        raise FormatError("token", "is not one line of two words")
    token = decode(Token, base64_bytes(words[0], "token"), "token")
    read_activation(token)
    return token
