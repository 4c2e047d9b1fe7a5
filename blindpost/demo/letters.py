"""The mail of the story: the samples, or what `--mail` names, and who sends each to whom.

A sample says so itself, in its header fields. A person's own mail goes between the story's four people in turn,
whatever its fields say: nothing leaves this machine, and the address in a file decides nothing (client/mail.py).

`same_bytes` is the comparison that the story makes on arrival: the bytes as given, but for Bcc. `contract_signature` is
a second one: S/MIME breaks with a single changed byte.
"""

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import pkcs7

from blindpost.samples import big_mail, sample_mails
from client.mail import addressees, has_bcc, read_mail, without_bcc
from wire.errors import FormatError

__all__ = ["LETTERS_BYTES_MAX", "LETTERS_MAX", "Letter", "contract_signature", "own_letters", "sample_letters"]

LETTERS_MAX: Final = 200
"""Mails of `--mail` that the story sends; it says how many it left out."""
LETTERS_BYTES_MAX: Final = 96 * 1024 * 1024

_SENDER: Final = re.compile(rb"^From:.*?([a-z]+@(?:acme|globex)\.example)", re.MULTILINE)


@dataclass(frozen=True)
class Letter:
    """One mail and who sends it to whom."""

    name: str
    raw: bytes
    sender: str
    to: tuple[str, ...]
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Letter(name={self.name!r}, raw=<{len(self.raw)} bytes>)"

    @property
    def recipients(self) -> tuple[str, ...]:
        """Everybody who gets it."""
        return self.to + self.cc + self.bcc

    @property
    def has_bcc(self) -> bool:
        """Whether the file has a Bcc field, which must not arrive."""
        return has_bcc(self.raw)

    def same_bytes(self, arrived: bytes) -> bool:
        """Whether these are the bytes as given, but for Bcc."""
        return arrived == without_bcc(self.raw)


def sample_letters() -> list[Letter]:
    """The nine mails that the project ships, the large one last."""
    return [_addressed(mail.name, mail.raw) for mail in [*sample_mails(), big_mail()]]


def own_letters(path: Path, people: tuple[str, ...], start: int = 0) -> tuple[list[Letter], int]:
    """A person's own mail, sent between the story's people in turn; also how many mails were left out.

    Args:
        path: an .eml file, an mbox, or a folder of them.
        people: at least three accounts.
        start: how many letters there are already.

    Raises:
        FormatError: no mail is there.
        OSError: what cannot be read.
    """
    left_out = 0
    letters: list[Letter] = []
    total = 0

    def too_long(_error: FormatError) -> None:
        nonlocal left_out
        left_out += 1

    for mail in read_mail(path, too_long):
        total += len(mail.data)
        if start + len(letters) == LETTERS_MAX or total > LETTERS_BYTES_MAX:
            left_out += 1
            continue
        letters.append(_in_turn(start + len(letters), mail.name, mail.data, people))
    return letters, left_out


def _in_turn(index: int, name: str, raw: bytes, people: tuple[str, ...]) -> Letter:
    count = len(people)
    sender, first, second = (people[(index + step) % count] for step in (0, 1, 2))
    bcc = (people[(index + 3) % count],) if count > 3 and has_bcc(raw) else ()
    return Letter(name, raw, sender, (first,), (second,), bcc)


def _addressed(name: str, raw: bytes) -> Letter:
    sender = _SENDER.search(raw)
    named = addressees(raw)
    if sender is None or not named.to:
        raise FormatError(f"sample {name}", "names no sender or recipient of the story")
    account = sender.group(1).decode("ascii")
    return Letter(name, raw, account, named.to, named.cc, named.bcc)


def contract_signature(raw: bytes) -> str:
    """Verify the S/MIME signature of the sample contract over the very bytes; returns the signer's address.

    Raises:
        FormatError: it is no such mail, or the signature is wrong.
    """
    try:
        _, entity, signature, _ = re.split(rb"\r\n--=_signed(?:--)?\r\n", raw)
        der = base64.b64decode(signature.split(b"\r\n\r\n", 1)[1])
        (certificate,) = pkcs7.load_der_pkcs7_certificates(der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        key = certificate.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise FormatError("contract", "is signed with another kind of key")
        # No signed attributes, so the signature is over the content, and as the last field it ends the structure.
        key.verify(der[-key.key_size // 8 :], entity, padding.PKCS1v15(), SHA256())
        (address,) = names.get_values_for_type(x509.RFC822Name)
        return address
    except (ValueError, IndexError, InvalidSignature):
        raise FormatError("contract", "the S/MIME signature does not verify") from None
