"""Sample mail: what ordinary people send, in all the shapes that a relay must carry without changing a byte.

Eight mails lie beside this file as `.eml`, as RFC 5322 wants them on the wire (CRLF line ends), save the one that is
malformed on purpose. A ninth, with an attachment of 5 MiB, is made when asked for:

    for mail in sample_mails():
        print(mail.name, len(mail.raw))
    print(len(big_mail().raw))

`raw` is handed to a client as it is. Nothing here parses, repairs or normalises it: what arrives must be these bytes.
All people, companies and addresses are invented (`texts.py`); `generate.py` made the files and can make them again.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from email.utils import format_datetime
from importlib import resources
from typing import Final

from blindpost.samples.texts import ANA, BIG_LETTER, BIG_SUBJECT, DAWUD

__all__ = ["BIG_ATTACHMENT_BYTES", "SAMPLE_NAMES", "SampleMail", "big_attachment", "big_mail", "sample_mails"]

# In the order of their dates.
SAMPLE_NAMES: Final = (
    "arabic",
    "contract",
    "french",
    "urdu",
    "newsletter",
    "malformed",
    "thread",
    "bcc",
)

BIG_ATTACHMENT_BYTES: Final = 5 * 1024 * 1024

# RFC 2045 section 6.8: an encoded line holds at most 76 characters, so 57 bytes.
_BASE64_LINE_BYTES = 57


@dataclass(frozen=True)
class SampleMail:
    """One mail.

    Args:
        name: What it shows, in one word; for the shipped ones also the name of the file.
        raw: The whole message, header and body, as it goes over the wire.
    """

    name: str
    raw: bytes


def sample_mails() -> list[SampleMail]:
    """Return the eight shipped mails, oldest first; together about 50 KiB. `big_mail` is not among them."""
    folder = resources.files(__name__)
    return [SampleMail(name, (folder / f"{name}.eml").read_bytes()) for name in SAMPLE_NAMES]


def big_attachment() -> bytes:
    """Return the 5 MiB that `big_mail` carries: the same in each call, and not compressible."""
    return hashlib.shake_256(b"blindpost sample mail: the L-40 drawings").digest(BIG_ATTACHMENT_BYTES)


def big_mail() -> SampleMail:
    """Make the mail with a 5 MiB attachment, which is about 7 MB long; the same bytes in each call."""
    boundary = "=_drawings-212-sheets"
    content = big_attachment()
    lines = [
        f"Date: {format_datetime(DAWUD.at(11, 18, 16, 5))}",
        f"From: {DAWUD.name} <{DAWUD.address}>",
        f"To: {ANA.name} <{ANA.address}>",
        f"Subject: {BIG_SUBJECT}",
        "Message-ID: <20151118120500.L40@globex.example>",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/mixed; boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        *BIG_LETTER.splitlines(),
        f"--{boundary}",
        "Content-Type: application/octet-stream",
        "Content-Transfer-Encoding: base64",
        'Content-Disposition: attachment; filename="L-40-drawings.bin"',
        "",
    ]
    head = "\r\n".join(lines).encode("ascii") + b"\r\n"
    encoded = [
        base64.b64encode(content[start : start + _BASE64_LINE_BYTES])
        for start in range(0, BIG_ATTACHMENT_BYTES, _BASE64_LINE_BYTES)
    ]
    tail = f"\r\n--{boundary}--\r\n".encode("ascii")
    return SampleMail("big", head + b"\r\n".join(encoded) + tail)
