from __future__ import annotations

import mailbox
from email.parser import BytesHeaderParser
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from client.mail import Addressees, MailFile, addressees, check_mail, has_bcc, read_mail, without_bcc
from wire.errors import FormatError
from wire.limits import MESSAGE_BYTES_MAX

# Few letters, so that every combination of line ends, spaces and Bcc comes up.
scraps = st.lists(
    st.sampled_from(
        [b"Bcc", b"bCC:", b"Resent-Bcc:", b":", b" ", b"\t", b"\r", b"\n", b"\r\n", b"a@b.example", b"To: x"]
    ),
    max_size=24,
).map(b"".join)

line_ends = st.sampled_from([b"\n", b"\r\n"])
words = st.text("abcxyz @,.<>=?\xe4\u0627", min_size=1, max_size=20).map(lambda text: text.encode("utf-8"))


@st.composite
def fields(draw: st.DrawFn) -> tuple[bool, bytes]:
    is_bcc = draw(st.booleans())
    name = draw(
        st.sampled_from([b"Bcc", b"BCC", b"bcc", b"Resent-Bcc"])
        if is_bcc
        else st.sampled_from([b"To", b"Cc", b"Subject", b"X-Bcc", b"Bcc-To", b"Abcc", b"no colon here"])
    )
    end = draw(line_ends)
    lines = [name + draw(st.sampled_from([b":", b": ", b" : ", b"\t:"])) + draw(words)]
    lines += [draw(st.sampled_from([b" ", b"\t"])) + draw(words) for _ in range(draw(st.integers(0, 3)))]
    return is_bcc, b"".join(line + end for line in lines)


@given(st.lists(fields(), max_size=8), line_ends, st.binary(max_size=200))
def test_the_bcc_fields_go_and_every_other_byte_stays(
    header: list[tuple[bool, bytes]], end: bytes, body: bytes
) -> None:
    given_mail = b"".join(field for _, field in header) + end + body
    expected = b"".join(field for is_bcc, field in header if not is_bcc) + end + body
    assert without_bcc(given_mail) == expected
    assert has_bcc(given_mail) == any(is_bcc for is_bcc, _ in header)


@given(scraps)
@example(b"A\rBcc: x\n\nBcc: in the body\n")
@example(b"A\rBcc: x\nBcc: y\r\n\r\nBcc: in the body\n")
@example(b"A\rBcc: x\n\r\r\nBcc: in the body\n")
def test_removing_bcc_twice_is_removing_it_once(mail: bytes) -> None:
    once = without_bcc(mail)
    assert without_bcc(once) == once
    assert not has_bcc(once)


@given(st.one_of(scraps, st.binary(max_size=300)))
def test_any_bytes_lose_nothing_but_what_was_cut_out(mail: bytes) -> None:
    rest = iter(mail)
    assert all(byte in rest for byte in without_bcc(mail))
    if b"bcc" not in mail.lower():
        assert without_bcc(mail) == mail


@given(scraps)
def test_another_parser_sees_no_bcc(mail: bytes) -> None:
    seen = BytesHeaderParser().parsebytes(without_bcc(mail))
    assert seen.get_all("bcc") is None
    assert seen.get_all("resent-bcc") is None


CASES = [
    ("crlf", b"To: a\r\nBcc: b\r\nCc: c\r\n\r\nx", b"To: a\r\nCc: c\r\n\r\nx"),
    ("bare_lf", b"To: a\nBcc: b\nCc: c\n\nx", b"To: a\nCc: c\n\nx"),
    ("mixed_line_ends", b"To: a\r\nBcc: b\nCc: c\r\n\nx", b"To: a\r\nCc: c\r\n\nx"),
    ("folded", b"Bcc: b,\r\n c,\r\n\td\r\nTo: a\r\n\r\n", b"To: a\r\n\r\n"),
    ("folded_over_a_blank_line", b"Bcc: b,\r\n \r\n c\r\nTo: a\r\n\r\n", b"To: a\r\n\r\n"),
    ("several_in_any_case", b"bcc: b\nBCC: c\nTo: a\nbCc: d\n\n", b"To: a\n\n"),
    ("space_before_the_colon", b"Bcc \t: b\nTo: a\n\n", b"To: a\n\n"),
    ("empty_field", b"Bcc:\nTo: a\n\n", b"To: a\n\n"),
    ("resent", b"Resent-To: a\nResent-Bcc: b\n\n", b"Resent-To: a\n\n"),
    ("last_without_line_end", b"To: a\nBcc: b", b"To: a\n"),
    ("only_bcc", b"Bcc: b\n", b""),
    ("no_header", b"\nBcc: in the body\n", b"\nBcc: in the body\n"),
    ("in_the_body", b"To: a\n\nBcc: b\n", b"To: a\n\nBcc: b\n"),
    ("folded_elsewhere", b"Subject: s\n Bcc: b\n\n", b"Subject: s\n Bcc: b\n\n"),
    ("not_quite_bcc", b"X-Bcc: b\nBcc-Note: c\n\n", b"X-Bcc: b\nBcc-Note: c\n\n"),
    ("after_a_line_that_is_no_field", b"To: a\nhello\nBcc: b\n\n", b"To: a\nhello\n\n"),
    ("old_macintosh", b"To: a\rBcc: b\r c\rCc: d\r\rBcc: body", b"To: a\rCc: d\r\rBcc: body"),
    (
        "doubled_carriage_returns",
        b"To: a\r\r\nBcc: b\r\r\nCc: c\r\r\n\r\r\nBcc: body",
        b"To: a\r\r\nCc: c\r\r\n\r\r\nBcc: body",
    ),
    ("bare_cr_in_a_bcc", b"To: a\r\nBcc: b,\rc@d.example\r\nCc: c\r\n\r\n", b"To: a\r\nCc: c\r\n\r\n"),
    ("eight_bits_and_zeros", b"Subject: \xff\0\xfe\nBcc: \0\xff\n\n\0", b"Subject: \xff\0\xfe\n\n\0"),
    ("empty", b"", b""),
]


@pytest.mark.parametrize(("mail", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_bcc_removal(mail: bytes, expected: bytes) -> None:
    assert without_bcc(mail) == expected


def test_a_mail_of_the_largest_size_passes_and_one_byte_more_is_refused() -> None:
    mail = b"To: a\n\n".ljust(MESSAGE_BYTES_MAX, b"x")
    assert check_mail(mail) is mail
    with pytest.raises(FormatError) as caught:
        check_mail(mail + b"x", "contract.eml")
    assert str(caught.value) == f"contract.eml: has {MESSAGE_BYTES_MAX + 1} bytes (limit {MESSAGE_BYTES_MAX})"


def test_a_header_of_a_million_lines_takes_one_pass() -> None:
    mail = b"Bcc: b\nTo: a\n" * 200_000
    assert without_bcc(mail) == b"To: a\n" * 200_000


def test_addressees_are_read_where_asked() -> None:
    mail = (
        b"From: x@y.example\nTo: Ana <Ana@Acme.Example>, omar@karachi.example,\n ana@acme.example\n"
        b"Cc: =?utf-8?q?F=C3=A9?= <fe@acme.example>, not an address\nBcc: zara@acme.example\n\nTo: body@acme.example\n"
    )
    assert addressees(mail) == Addressees(
        ("ana@acme.example", "omar@karachi.example"), ("fe@acme.example",), ("zara@acme.example",)
    )


@given(st.one_of(scraps, st.binary(max_size=300), st.binary(max_size=100).map(lambda data: b"To: " + data)))
@example(b"To: =?foo?b?bar?= <a@b.example>\n\n")
@example(b"To: \xff\xfe@\x80\n\n")
def test_addressees_of_any_bytes_are_accounts_or_nothing(mail: bytes) -> None:
    found = addressees(mail)
    assert all("@" in account for account in found.to + found.cc + found.bcc)


def test_an_eml_file_is_one_mail_even_if_it_starts_like_an_mbox(tmp_path: Path) -> None:
    data = b"From ana@acme.example Mon Nov 30 12:00:00 2015\nTo: a\n\nx\n"
    (tmp_path / "one.eml").write_bytes(data)
    assert list(read_mail(tmp_path / "one.eml")) == [MailFile("one.eml", data)]


def test_a_file_of_any_name_without_postmark_is_one_mail(tmp_path: Path) -> None:
    (tmp_path / "message").write_bytes(b"\xff\0 garbage")
    assert [mail.data for mail in read_mail(tmp_path / "message")] == [b"\xff\0 garbage"]


def test_a_folder_is_read_to_its_bottom_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.EML").write_bytes(b"two")
    (tmp_path / "a.eml").write_bytes(b"one")
    (tmp_path / "c.mbox").write_bytes(
        b"From x Mon Nov 30 12:00:00 2015\nthree\n\nFrom y Mon Nov 30 12:00:00 2015\nfour\n"
    )
    (tmp_path / "notes.txt").write_bytes(b"not mail")
    assert [mail.data for mail in read_mail(tmp_path)] == [b"one", b"two", b"three\n", b"four\n"]


def test_a_folder_without_mail_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"holds no \.eml, \.mbox or \.mbx file"):
        list(read_mail(tmp_path))


def test_a_path_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_mail(tmp_path / "absent.eml"))


POSTMARK = b"From ana@acme.example Mon Nov 30 12:00:00 2015\n"


def mbox(tmp_path: Path, data: bytes) -> list[bytes]:
    (tmp_path / "box").write_bytes(data)
    return [mail.data for mail in read_mail(tmp_path / "box")]


def test_messages_of_an_mbox_come_as_they_lie_in_the_file(tmp_path: Path) -> None:
    first = b"To: a\r\nBcc: b\r\n\r\n>From the start\r\n>>From twice quoted\r\n"
    second = b"To: c\n\nno line end at the end"
    assert mbox(tmp_path, POSTMARK + first + b"\r\n" + POSTMARK + second) == [first, second]


def test_a_from_line_in_a_body_does_not_split(tmp_path: Path) -> None:
    body = b"To: a\n\nFrom what I heard at 12:00 nothing\n\nFrom here on\nFrom ana Mon Nov 30 12:00:00 2015\nend\n"
    assert mbox(tmp_path, POSTMARK + body) == [body]


def test_empty_lines_inside_and_before_the_end_of_a_message_stay(tmp_path: Path) -> None:
    assert mbox(tmp_path, POSTMARK + b"a\n\n\n\n" + POSTMARK + b"b\n\n") == [b"a\n\n\n", b"b\n"]


def test_an_empty_message_in_an_mbox_is_a_message(tmp_path: Path) -> None:
    assert mbox(tmp_path, POSTMARK + b"\n" + POSTMARK + b"b\n") == [b"", b"b\n"]


def test_a_long_line_is_no_postmark_where_the_buffer_ends(tmp_path: Path) -> None:
    line = b"x" * 65_536 + POSTMARK
    postmark = b"From " + b"y" * 70_000 + b" Mon Nov 30 12:00:00 2015\n"
    assert mbox(tmp_path, postmark + b"To: a\n\n" + line) == [b"To: a\n\n" + line]


bodies = st.lists(
    st.sampled_from([b"a", b"From me", b">From x", b"", b"\xff\xfe", b"x" * 70]), min_size=1, max_size=6
).map(lambda lines: b"".join(line + b"\n" for line in lines))


@given(st.lists(bodies, min_size=1, max_size=5))
def test_an_mbox_that_the_standard_library_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, messages: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("mbox")
    box = mailbox.mbox(folder / "box")
    for body in messages:
        box.add(b"To: a\n\n" + body)
    box.close()
    read = [mail.data for mail in read_mail(folder / "box")]
    # It quotes lines that start with "From ", and nothing here unquotes them.
    assert read == [b"To: a\n\n" + body.replace(b"From me", b">From me") for body in messages]


def test_a_message_of_an_mbox_that_is_too_long_is_refused_and_the_rest_is_read(tmp_path: Path) -> None:
    fits = b"x" * (MESSAGE_BYTES_MAX - 1) + b"\n"
    data = POSTMARK + fits + b"\n" + POSTMARK + b"y" + fits + b"\n" + POSTMARK + b"z\n"
    (tmp_path / "box").write_bytes(data)
    refused: list[FormatError] = []
    sizes = [len(mail.data) for mail in read_mail(tmp_path / "box", refused.append)]
    assert sizes == [MESSAGE_BYTES_MAX, 2]
    assert [str(error) for error in refused] == [
        f"box message 2: has {MESSAGE_BYTES_MAX + 1} bytes (limit {MESSAGE_BYTES_MAX})"
    ]


def test_a_mail_file_that_is_too_long_is_refused_with_its_name(tmp_path: Path) -> None:
    with (tmp_path / "big.eml").open("wb") as file:
        file.truncate(MESSAGE_BYTES_MAX + 1)
    with pytest.raises(FormatError) as caught:
        list(read_mail(tmp_path / "big.eml"))
    assert caught.value.field == "big.eml"
    assert caught.value.limit == MESSAGE_BYTES_MAX


def test_repr_of_a_mail_file_shows_no_mail() -> None:
    assert repr(MailFile("a.eml", b"secret")) == "MailFile(name='a.eml', data=<6 bytes>)"
