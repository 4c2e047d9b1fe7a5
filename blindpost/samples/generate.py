"""Makes the sample mails: `python -m blindpost.samples.generate [FOLDER]`, by default into this folder.

The texts come from `texts.py`. All but the contract come out the same in each run; the contract is signed with a new
key, which is thrown away as soon as it has signed, so its signature and certificate differ from run to run.

The mails are put together by hand where the shape of the bytes is the point (signature, malformed mail), and with the
email package of the standard library elsewhere.
"""

from __future__ import annotations

import argparse
import base64
import struct
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from email import charset as email_charset
from email.header import Header
from email.message import EmailMessage
from email.mime.text import MIMEText
from email.policy import SMTP, compat32
from email.utils import format_datetime, formataddr
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from blindpost.samples import SAMPLE_NAMES, texts
from blindpost.samples.texts import ANA, BILAL, CHLOE, DAWUD, Person, Post

# ------------------------------------------------------------------------------------------------ parts of a mail


def _message(sender: Person, to: list[Person], cc: list[Person], subject: str, sent_at: datetime) -> EmailMessage:
    """Return a message with its header and no body yet; the email package makes encoded words (RFC 2047) as needed."""
    message = EmailMessage(policy=SMTP)
    message["Date"] = format_datetime(sent_at)
    message["From"] = _mailbox(sender)
    message["To"] = ", ".join(_mailbox(person) for person in to)
    if cc:
        message["Cc"] = ", ".join(_mailbox(person) for person in cc)
    message["Subject"] = subject
    message["Message-ID"] = _message_id(sender, sent_at)
    return message


def _mailbox(person: Person) -> str:
    return f"{person.name} <{person.address}>"


def _message_id(sender: Person, sent_at: datetime) -> str:
    local, domain = sender.address.split("@")
    return f"<{sent_at.astimezone(UTC):%Y%m%d%H%M%S}.{local}@{domain}>"


def _base64_lines(content: bytes) -> str:
    return base64.encodebytes(content).decode("ascii")


def houndstooth_png() -> bytes:
    """Weave the newsletter's picture, 128 by 64 pixels of houndstooth, as a PNG with a palette of two colours."""

    def dark(x: int, y: int) -> bool:
        # Four dark threads and four light ones in warp and weft, bound in a 2/2 twill; a thread is two pixels wide.
        warp_above = (x // 2 + y // 2) % 4 < 2
        return (x if warp_above else y) // 2 % 8 < 4

    def row(y: int) -> bytes:
        # A byte that says "no filter", then a bit for each pixel, the leftmost first.
        bits = "".join("01"[dark(x, y)] for x in range(128))
        return b"\0" + int(bits, 2).to_bytes(16, "big")

    rows = b"".join(row(y) for y in range(64))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 128, 64, 1, 3, 0, 0, 0)
    palette = bytes.fromhex("f4ecd8 1b1b1b")
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"PLTE", palette)
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


def contract_pdf() -> bytes:
    """Write the contract as a PDF of two pages, in one of the fonts that every reader of PDF has."""
    pages = len(texts.CONTRACT_PAGES)
    kids = " ".join(f"{4 + 2 * page} 0 R" for page in range(pages))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {pages} >>".encode("ascii"),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Times-Roman >>",
    ]
    for page, lines in enumerate(texts.CONTRACT_PAGES):
        drawn = "".join(f"({_pdf_text(line)}) Tj T*\n" for line in lines)
        stream = f"BT /F1 13 Tf 18 TL 72 720 Td\n{drawn}ET".encode("ascii")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {5 + 2 * page} 0 R "
            f"/Resources << /Font << /F1 3 0 R >> >> >>".encode("ascii")
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n".encode("ascii") + stream + b"\nendstream")

    # The second line tells programs that the file is not text.
    pdf = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(pdf))
        pdf += f"{number} 0 obj\n".encode("ascii") + body + b"\nendobj\n"
    # Each entry of the table is exactly 20 bytes, its line end two of them.
    table = "0000000000 65535 f \n" + "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    end = f"xref\n0 {size}\n{table}trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{len(pdf)}\n%%EOF\n"
    return bytes(pdf) + end.encode("ascii")


def _pdf_text(line: str) -> str:
    return line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


# ------------------------------------------------------------------------------------------------ the mails


def arabic() -> bytes:
    """Dawud writes in Arabic, header and body in windows-1256 and base64, as many programs of 2015 did."""
    encoding = "windows-1256"
    email_charset.add_charset(encoding, email_charset.BASE64, email_charset.BASE64)
    sent_at = DAWUD.at(9, 29, 9, 40)
    message = MIMEText(texts.ARABIC.replace("\n", "\r\n"), "plain", encoding)
    message["Date"] = format_datetime(sent_at)
    message["From"] = formataddr((Header("داود حداد", encoding).encode(), DAWUD.address))
    message["To"] = _mailbox(BILAL)
    message["Cc"] = formataddr((CHLOE.name, CHLOE.address))
    message["Subject"] = Header(texts.ARABIC_SUBJECT, encoding, header_name="Subject").encode()
    message["Message-ID"] = _message_id(DAWUD, sent_at)
    return message.as_bytes(policy=compat32.clone(linesep="\r\n"))


def contract() -> bytes:
    """Ana sends the contract, a PDF, in a signed mail: multipart/signed of RFC 8551 section 3.5.

    The signature covers the first part from its header to the last CRLF before the boundary, so it verifies only where
    each of these bytes has arrived. It has no signed attributes, and so names no time of its own.
    """
    inner, outer = "=_contract-and-letter", "=_signed"
    entity = "\n".join(
        [
            f'Content-Type: multipart/mixed; boundary="{inner}"',
            "",
            f"--{inner}",
            "Content-Type: text/plain; charset=us-ascii",
            "",
            texts.CONTRACT_LETTER,
            f"--{inner}",
            'Content-Type: application/pdf; name="AL-2015-040.pdf"',
            "Content-Transfer-Encoding: base64",
            'Content-Disposition: attachment; filename="AL-2015-040.pdf"',
            "",
            _base64_lines(contract_pdf()) + f"--{inner}--",
            "",
        ]
    ).replace("\n", "\r\n")
    signature = _sign(entity.encode("ascii"), ANA)
    sent_at = ANA.at(10, 1, 11, 15)
    head = "\n".join(
        [
            f"Date: {format_datetime(sent_at)}",
            f"From: {_mailbox(ANA)}",
            f"To: {_mailbox(DAWUD)}",
            f"Cc: {_mailbox(BILAL)}",
            f"Subject: {texts.CONTRACT_SUBJECT}",
            f"Message-ID: {_message_id(ANA, sent_at)}",
            "MIME-Version: 1.0",
            'Content-Type: multipart/signed; protocol="application/pkcs7-signature";',
            f' micalg="sha-256"; boundary="{outer}"',
            "",
            "This is a signed message; a program that knows S/MIME shows whether the signature is good.",
            f"--{outer}",
            "",
        ]
    )
    tail = "\n".join(
        [
            "",
            f"--{outer}",
            'Content-Type: application/pkcs7-signature; name="smime.p7s"',
            "Content-Transfer-Encoding: base64",
            'Content-Disposition: attachment; filename="smime.p7s"',
            "",
            _base64_lines(signature) + f"--{outer}--",
            "",
        ]
    )
    return (head.replace("\n", "\r\n") + entity + tail.replace("\n", "\r\n")).encode("ascii")


def _sign(entity: bytes, signer: Person) -> bytes:
    """Return a detached PKCS #7 signature in DER, by a key that exists only inside this function."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, signer.name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme Looms (an invented company)"),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2015, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2018, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(signer.address)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    options = [
        pkcs7.PKCS7Options.DetachedSignature,
        pkcs7.PKCS7Options.Binary,
        pkcs7.PKCS7Options.NoAttributes,
    ]
    builder = pkcs7.PKCS7SignatureBuilder().set_data(entity).add_signer(certificate, key, hashes.SHA256())
    return builder.sign(serialization.Encoding.DER, options)


def french() -> bytes:
    """Chloé writes in French, UTF-8 and quoted-printable."""
    message = _message(CHLOE, [ANA], [DAWUD], texts.FRENCH_SUBJECT, CHLOE.at(10, 20, 11, 25))
    message.set_content(texts.FRENCH, cte="quoted-printable")
    return message.as_bytes()


def urdu() -> bytes:
    """Bilal writes in Urdu, UTF-8 and base64."""
    message = _message(BILAL, [ANA], [], texts.URDU_SUBJECT, BILAL.at(11, 3, 8, 10))
    message.replace_header("From", f"بلال صدیقی <{BILAL.address}>")
    message.set_content(texts.URDU, cte="base64")
    return message.as_bytes()


def newsletter() -> bytes:
    """Acme's newsletter: plain text, or HTML with a picture inside (RFC 2387, the picture named by cid:)."""
    message = _message(ANA, [BILAL], [CHLOE, DAWUD], texts.NEWSLETTER_SUBJECT, ANA.at(11, 9, 10, 0))
    message.set_content(texts.NEWSLETTER_PLAIN, cte="7bit")
    message.add_alternative(texts.NEWSLETTER_HTML, subtype="html", cte="quoted-printable")
    html = message.get_payload(1)
    assert isinstance(html, EmailMessage)
    html.add_related(
        houndstooth_png(),
        "image",
        "png",
        cid="<houndstooth@acme.example>",
        filename="houndstooth.png",
        disposition="inline",
    )
    message.set_boundary("=_shuttle-alternative")
    html.set_boundary("=_shuttle-related")
    return message.as_bytes()


def malformed() -> bytes:
    """A loom writes. Its controller of 1998 has heard of mail standards, and each of its habits breaks one.

    There are: a header line without a colon, an empty address, 8-bit bytes in a header, a date that is none, bare LF
    and bare CR as line ends, a boundary other than the declared one, 8-bit text with no word on its charset, a NUL,
    a line of 4,000 characters (RFC 5322 section 2.1.1 allows 998), base64 that is none, and no closing boundary.
    """
    return b"".join(
        [
            b"Received: from loom7 (unknown) by acme.example with LOOMCTL; no date\r\n",
            b"From: bilal@acme.example\r\n",
            b"To: ana@acme.example\n",
            b"Cc: chloe@globex.example,,dawud@globex.example\r\n",
            b"Subject: M\xe9tier 7: thread count \xb1 0\n",
            b"Date: 11/11/15 25:61\r\n",
            b"X-Mailer: LOOMCTL 1.03 (C) 1998\r\n",
            b"MIME-Version: 1.0 (more or less)\n",
            b'Content-Type: multipart/mixed; boundary="LOOM7"\r\n',
            b"LOOM CONTROLLER STATUS REPORT\n",
            b"\r\n",
            b"--LOOM 7\n",
            b"Content-Type: text/plain\r\n",
            b"\r\n",
            b"DEAR OPERATOR,\n",
            b"SHIFT 3 OK. TEMP\xc9RATURE 41 \xb0C.\r",
            b"YARN ENDS BROKEN: \x00 (ZERO)\r\n",
            b"WARP PATTERN FOLLOWS ON ONE LINE:\n",
            b"10" * 2000 + b"\n",
            b".\r\n",
            b"A LONE FULL STOP ENDS A MAIL FOR SOME. THE LOOM IS NOT DONE.\n",
            b"From here on >From is quoted by some, and must not be.\n",
            b"--LOOM7\r\n",
            b"Content-Type: image/x-weave\n",
            b"Content-Transfer-Encoding: base64\r\n",
            b"\n",
            b"QUJD====?? THE DISK WAS FULL \xff\xfe\n",
            b"--LOOM7",
        ]
    )


def thread() -> bytes:
    """Ana's answer at the end of a long thread, with all of it below, quoted one level deeper with each turn."""
    message_ids = [_message_id(post.sender, post.sent_at) for post in texts.THREAD]
    reply = texts.THREAD_REPLY
    message = _message(reply.sender, [BILAL], [CHLOE, DAWUD], f"Re: {texts.THREAD_SUBJECT}", reply.sent_at)
    message["In-Reply-To"] = message_ids[-1]
    message["References"] = " ".join(message_ids)
    message.set_content(_with_history(reply, texts.THREAD), cte="8bit")
    return message.as_bytes()


def _with_history(reply: Post, history: list[Post]) -> str:
    body = ""
    for post in [*history, reply]:
        quoted = body
        body = f"{post.text}\n-- \n{texts.SIGNATURES[post.sender]}\n"
        if quoted:
            before = history[history.index(post) - 1] if post in history else history[-1]
            quoted = "".join(f">{'' if line.startswith('>') else ' '}{line}\n" for line in quoted.splitlines())
            body += f"\nOn {before.sent_at:%a, %d %b %Y at %H:%M}, {before.sender.name} wrote:\n{quoted}"
    return body


def bcc() -> bytes:
    """Ana invites, and one guest is in the Bcc, over two lines: whoever sends this takes the Bcc off first."""
    sent_at = ANA.at(12, 14, 9, 5)
    message = _message(ANA, [CHLOE], [BILAL], texts.BCC_SUBJECT, sent_at)
    message.set_content(texts.BCC_LETTER, charset="iso-8859-1", cte="quoted-printable")
    raw = message.as_bytes()
    return raw.replace(b"\r\nSubject:", f"\r\nBcc: {DAWUD.name}\r\n <{DAWUD.address}>\r\nSubject:".encode("ascii"), 1)


MAILS: dict[str, Callable[[], bytes]] = {
    make.__name__: make for make in (arabic, contract, french, urdu, newsletter, malformed, thread, bcc)
}


def main() -> None:
    """Write each mail into the folder named on the command line."""
    parser = argparse.ArgumentParser(description="Make Blindpost's sample mails.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in SAMPLE_NAMES:
        raw = MAILS[name]()
        (folder / f"{name}.eml").write_bytes(raw)
        print(f"{name}.eml: {len(raw):,} bytes")


if __name__ == "__main__":
    main()
