"""The sample mails are what they claim to be, and their bytes are the bytes that were committed."""

from __future__ import annotations

import base64
import email
import email.policy
import re
import shutil
import struct
import subprocess
import sys
import zlib
from email.message import EmailMessage
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import pkcs7

from blindpost.samples import (
    BIG_ATTACHMENT_BYTES,
    SAMPLE_NAMES,
    SampleMail,
    big_attachment,
    big_mail,
    generate,
    sample_mails,
    texts,
)

RAW = {mail.name: mail.raw for mail in sample_mails()}
ADDRESSES = {"ana@acme.example", "bilal@acme.example", "chloe@globex.example", "dawud@globex.example"}
WELL_FORMED = [name for name in SAMPLE_NAMES if name != "malformed"]


def _parse(raw: bytes) -> EmailMessage:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def _addresses(message: EmailMessage, field: str) -> list[str]:
    header = message[field]
    return [] if header is None else [address.addr_spec for address in header.addresses]


def _text(message: EmailMessage, kind: str = "plain") -> str:
    body = message.get_body((kind,))
    assert body is not None
    text = body.get_content()
    assert isinstance(text, str)
    return text.replace("\r\n", "\n")


def _part(message: EmailMessage, content_type: str) -> EmailMessage:
    found = [part for part in message.walk() if part.get_content_type() == content_type]
    assert len(found) == 1
    assert isinstance(found[0], EmailMessage)
    return found[0]


def _content(message: EmailMessage, content_type: str) -> bytes:
    content = _part(message, content_type).get_payload(decode=True)
    assert isinstance(content, bytes)
    return content


# ------------------------------------------------------------------------------------------------ all of them


def test_each_name_has_its_file_and_each_file_its_name() -> None:
    assert list(RAW) == list(SAMPLE_NAMES)
    folder = Path(generate.__file__).parent
    assert {path.stem for path in folder.glob("*.eml")} == set(SAMPLE_NAMES)


@pytest.mark.parametrize("name", [*WELL_FORMED, "big"])
def test_lines_end_in_crlf_and_are_short_enough(name: str) -> None:
    raw = big_mail().raw if name == "big" else RAW[name]
    assert raw.endswith(b"\r\n")
    lines = raw.split(b"\r\n")
    assert not any(b"\n" in line or b"\r" in line for line in lines)
    # RFC 5322 section 2.1.1, without the CRLF.
    assert max(len(line) for line in lines) <= 998


@pytest.mark.parametrize("name", [*WELL_FORMED, "big"])
def test_header_parses_without_defect_and_names_only_the_four(name: str) -> None:
    message = _parse(big_mail().raw if name == "big" else RAW[name])
    assert not [defect for part in message.walk() for defect in part.defects]
    assert len(_addresses(message, "From")) == 1
    assert _addresses(message, "To")
    everyone = [address for field in ("From", "To", "Cc", "Bcc") for address in _addresses(message, field)]
    assert len(everyone) == len(set(everyone))
    assert set(everyone) <= ADDRESSES
    assert message["Date"].datetime.year == 2015
    assert message["Date"].datetime.month >= 9
    assert message["Message-ID"]


@pytest.mark.parametrize("name", [name for name in SAMPLE_NAMES if name != "contract"])
def test_generator_makes_the_committed_bytes(name: str) -> None:
    """A text that was changed without a new run of the generator shows here."""
    if name in WELL_FORMED and sys.version_info[:2] != (3, 11):
        # Other versions of the email package may fold a header elsewhere; what it says must be equal all the same.
        made, shipped = _parse(generate.MAILS[name]()), _parse(RAW[name])
        assert sorted((key, " ".join(str(value).split())) for key, value in made.items()) == sorted(
            (key, " ".join(str(value).split())) for key, value in shipped.items()
        )
        assert [part.get_payload(decode=True) for part in made.walk()] == [
            part.get_payload(decode=True) for part in shipped.walk()
        ]
    else:
        assert generate.MAILS[name]() == RAW[name]


def test_generator_writes_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["generate", str(tmp_path / "mails")])
    generate.main()
    assert {path.stem for path in (tmp_path / "mails").iterdir()} == set(SAMPLE_NAMES)
    _assert_contract_verifies((tmp_path / "mails" / "contract.eml").read_bytes())


# ------------------------------------------------------------------------------------------------ one by one


def test_newsletter_has_two_forms_and_a_picture_inside() -> None:
    message = _parse(RAW["newsletter"])
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
    ]
    assert _text(message) == texts.NEWSLETTER_PLAIN
    picture = _part(message, "image/png")
    assert f"cid:{picture['Content-ID'].strip('<>')}" in _text(message, "html")


def test_newsletter_picture_is_a_valid_png() -> None:
    png = _content(_parse(RAW["newsletter"]), "image/png")
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        data = png[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack_from(">I", png, at + 8 + length)
        assert checksum == zlib.crc32(kind + data)
        chunks[kind] = data
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (128, 64, 1, 3, 0, 0, 0)
    assert len(zlib.decompress(chunks[b"IDAT"])) == 64 * (1 + 128 // 8)


def test_contract_is_a_valid_pdf() -> None:
    pdf = _content(_parse(RAW["contract"]), "application/pdf")
    assert pdf == generate.contract_pdf()
    assert pdf.startswith(b"%PDF-1.4\n")
    assert pdf.endswith(b"%%EOF\n")
    start = re.search(rb"startxref\n(\d+)\n%%EOF\n$", pdf)
    assert start
    table = pdf[int(start[1]) :].split(b"trailer", 1)[0]
    entries = table.split(b"\n")[2:-1]
    for number, entry in enumerate(entries):
        assert len(entry) == 19
        if number:
            assert pdf[int(entry[:10]) :].startswith(f"{number} 0 obj\n".encode("ascii"))
    for length, stream in re.findall(rb"/Length (\d+) >>\nstream\n(.*?)\nendstream", pdf, re.DOTALL):
        assert len(stream) == int(length)


def _assert_contract_verifies(raw: bytes) -> None:
    """Verify without the help of a mail parser, over the very bytes between the boundaries."""
    _, entity, signature, _ = re.split(rb"\r\n--=_signed(?:--)?\r\n", raw)
    der = base64.b64decode(signature.split(b"\r\n\r\n", 1)[1])
    (certificate,) = pkcs7.load_der_pkcs7_certificates(der)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.RFC822Name) == ["ana@acme.example"]
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    # No signed attributes, so the signature is over the content, and as the last field it ends the structure.
    key.verify(der[-key.key_size // 8 :], entity, padding.PKCS1v15(), SHA256())


def test_contract_signature_verifies() -> None:
    _assert_contract_verifies(RAW["contract"])


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"do not pay", b"do now pay"), (b"Dear Dawud,\r\n", b"Dear Dawud,\n"), (b"us-ascii", b"US-ASCII")],
    ids=["a_letter", "a_line_end", "a_header"],
)
def test_contract_signature_fails_when_anything_is_changed(old: bytes, new: bytes) -> None:
    assert RAW["contract"].count(old) == 1
    with pytest.raises(InvalidSignature):
        _assert_contract_verifies(RAW["contract"].replace(old, new))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on this machine")
def test_contract_signature_verifies_with_openssl(tmp_path: Path) -> None:
    mail = tmp_path / "contract.eml"
    content = tmp_path / "content"
    # -noverify: the signer's certificate is nobody's; the signature itself is checked.
    command = ["openssl", "smime", "-verify", "-noverify", "-in", str(mail), "-out", str(content)]
    mail.write_bytes(RAW["contract"])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert _content(_parse(content.read_bytes()), "application/pdf") == generate.contract_pdf()

    mail.write_bytes(RAW["contract"].replace(b"please do not pay", b"please do now pay"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0


def test_thread_refers_to_all_that_it_quotes() -> None:
    message = _parse(RAW["thread"])
    references = message["References"].split()
    assert len(references) == len(set(references)) == len(texts.THREAD)
    assert message["In-Reply-To"] == references[-1]
    assert message["Subject"].startswith("Re: ")
    text = _text(message)
    depths = {len(quote[0]) for line in text.splitlines() if (quote := re.match(">+", line))}
    assert depths == set(range(1, len(texts.THREAD) + 1))
    assert 28_000 <= len(RAW["thread"]) <= 34_000


def test_thread_is_told_in_order() -> None:
    times = [post.sent_at for post in [*texts.THREAD, texts.THREAD_REPLY]]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("name", "charset", "encoding", "subject", "text"),
    [
        ("arabic", "windows-1256", "base64", texts.ARABIC_SUBJECT, texts.ARABIC),
        ("urdu", "utf-8", "base64", texts.URDU_SUBJECT, texts.URDU),
        ("french", "utf-8", "quoted-printable", texts.FRENCH_SUBJECT, texts.FRENCH),
        ("bcc", "iso-8859-1", "quoted-printable", texts.BCC_SUBJECT, texts.BCC_LETTER),
    ],
)
def test_language_is_read_as_written(name: str, charset: str, encoding: str, subject: str, text: str) -> None:
    message = _parse(RAW[name])
    assert message.get_content_charset() == charset
    assert message["Content-Transfer-Encoding"] == encoding
    assert message["Subject"] == subject
    assert _text(message) == text
    assert RAW[name].isascii()


def test_malformed_mail_breaks_what_it_says() -> None:
    raw = RAW["malformed"]
    assert re.search(rb"[^\r]\n", raw)
    assert b"\r\n" in raw
    assert re.search(rb"\r[^\n]", raw)
    assert b"\0" in raw
    assert max(len(line) for line in raw.split(b"\n")) >= 4_000
    assert b"charset" not in raw
    with pytest.raises(UnicodeDecodeError, match="invalid"):
        raw.decode("utf-8")
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert {type(defect).__name__ for part in message.walk() for defect in part.defects} >= {
        "MissingHeaderBodySeparatorDefect"
    }
    # A patient reader still finds out who it is for.
    assert b"From: bilal@acme.example\r\n" in raw
    assert message["To"] == "ana@acme.example"


def test_bcc_is_folded_and_names_a_guest_who_is_named_nowhere_else() -> None:
    message = _parse(RAW["bcc"])
    assert _addresses(message, "Bcc") == ["dawud@globex.example"]
    assert RAW["bcc"].count(b"dawud@globex.example") == 1
    assert b"\r\nBcc: Dawud Haddad\r\n <dawud@globex.example>\r\n" in RAW["bcc"]
    assert [name for name in WELL_FORMED if _parse(RAW[name])["Bcc"]] == ["bcc"]


def test_big_mail_carries_exactly_5_mib_and_is_the_same_each_time() -> None:
    mail = big_mail()
    assert mail == big_mail() == SampleMail("big", mail.raw)
    content = _content(_parse(mail.raw), "application/octet-stream")
    assert len(content) == BIG_ATTACHMENT_BYTES == 5 * 1024 * 1024
    assert content == big_attachment()
    assert len(zlib.compress(content[: 2**16], 9)) > 2**16
    *full, last = mail.raw.split(b"\r\n\r\n")[-1].split(b"\r\n")[:-2]
    assert {len(line) for line in full} == {76}
    assert 0 < len(last) <= 76
