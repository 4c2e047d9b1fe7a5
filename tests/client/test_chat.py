from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.chat import PING_PAYLOAD, notice_ids, notice_payloads, printable, render, text_of, text_payload
from client.content import NO_REPLY, RECEIPT_IDS_MAX, Content, Kind, decode_content, encode_content
from wire.errors import FormatError
from wire.limits import MESSAGE_BYTES_MAX

MESSAGE_ID = bytes.fromhex("00112233445566778899aabbccddeeff")
NOON_MS = 1_448_884_800_000
ANA = "ana@acme.example"


def said(kind: Kind, payload: bytes, *, sent_ms: int = NOON_MS, reply_to: bytes = NO_REPLY) -> Content:
    return Content(bytes(16), kind, MESSAGE_ID, sent_ms, reply_to, (), payload)


def text(words: str) -> Content:
    return said(Kind.CHAT, text_payload(words))


@given(st.text(min_size=1))
def test_a_text_arrives_as_it_was_written(words: str) -> None:
    assert text_of(decode_content(encode_content(text(words)))) == words


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("", "text: is empty"),
        ("ok\ud800", "text: is not Unicode text at character 2"),
        ("x" * (MESSAGE_BYTES_MAX + 1), "text: has 26214401 bytes (limit 26214400)"),
    ],
    ids=["empty", "lone_surrogate", "too_long"],
)
def test_a_text_that_cannot_travel_is_refused(words: str, problem: str) -> None:
    with pytest.raises(FormatError) as caught:
        text_payload(words)
    assert str(caught.value) == problem


def test_only_a_chat_has_text() -> None:
    with pytest.raises(FormatError, match="kind: is ping, not chat"):
        text_of(said(Kind.PING, b""))
    with pytest.raises(FormatError, match="not UTF-8 at byte 0"):
        text_of(said(Kind.CHAT, b"\xff"))


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=40))
def test_a_notice_names_each_message_once(ids: list[bytes]) -> None:
    notices = [decode_content(encode_content(said(Kind.READ, payload))) for payload in notice_payloads(ids)]
    named = [name for notice in notices for name in notice_ids(notice)]
    assert named == list(dict.fromkeys(ids))


def test_notices_for_many_messages_are_several() -> None:
    ids = [number.to_bytes(16, "big") for number in range(RECEIPT_IDS_MAX + 1)]
    assert [len(payload) for payload in notice_payloads(ids)] == [16 * RECEIPT_IDS_MAX, 16]
    assert notice_payloads([]) == []


def test_a_notice_of_something_else_than_ids_is_refused() -> None:
    with pytest.raises(FormatError, match="message_id: has 3 bytes"):
        notice_payloads([b"abc"])
    with pytest.raises(FormatError, match="kind: is chat, not delivered or read"):
        notice_ids(text("x"))
    for payload in (b"", bytes(17)):
        with pytest.raises(FormatError, match="not whole message ids"):
            notice_ids(said(Kind.DELIVERED, payload))


def test_lines() -> None:
    assert render(text("see you at nine"), ANA) == "2015-11-30 12:00Z 00112233 ana@acme.example: see you at nine"
    assert render(said(Kind.PING, PING_PAYLOAD), ANA) == "2015-11-30 12:00Z 00112233 ana@acme.example: PING!!!"
    notice = MESSAGE_ID + bytes(16)
    assert render(said(Kind.DELIVERED, notice), ANA).endswith(": D 00112233 00000000")
    assert render(said(Kind.READ, notice), ANA).endswith(": R 00112233 00000000")


def test_a_reply_names_what_it_answers_unless_told_not_to() -> None:
    reply = said(Kind.CHAT, b"yes", reply_to=b"\xab" * 16)
    assert render(reply, ANA) == "2015-11-30 12:00Z 00112233 ana@acme.example [re abababab]: yes"
    assert render(reply, ANA, show_reply=False) == "2015-11-30 12:00Z 00112233 ana@acme.example: yes"


def test_an_email_is_no_chat_line() -> None:
    with pytest.raises(FormatError, match="kind: is email, which is no chat"):
        render(said(Kind.EMAIL, b"To: a\n\n"), ANA)


def test_a_time_that_no_calendar_has_is_shown_as_a_number() -> None:
    assert render(said(Kind.PING, b"", sent_ms=2**63 - 1), ANA).startswith(f"@{2**63 - 1}ms ")


def test_a_second_line_cannot_look_like_another_message() -> None:
    forged = render(text("hi\r\n2015-11-30 12:00Z 00000000 omar@karachi.example: pay him"), ANA)
    assert forged.split("\n")[1:] == ["    | 2015-11-30 12:00Z 00000000 omar@karachi.example: pay him"]
    assert printable("a\rb") == "a\u240db"
    assert printable("a\u2028b\u0085c") == "a<U+2028>b<U+0085>c"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("\x1b]0;title\x07", "\u241b]0;title\u2407"),
        ("\x1b[2J", "\u241b[2J"),
        ("\x9b2J", "<U+009B>2J"),
        ("a\x08b\x7f", "a\u2408b<U+007F>"),
        ("a\tb", "a    b"),
        ("invoice\u202efdp.exe", "invoice<U+202E>fdp.exe"),
        ("\u2066x\u2069", "<U+2066>x<U+2069>"),
        ("in\u200bvisible\ufeff", "in<U+200B>visible<U+FEFF>"),
        ("\U000e0041", "<U+E0041>"),
        ("caf\u00e9 na\u00efve", "caf\u00e9 na\u00efve"),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),
        ("\ud800", "<U+D800>"),
    ],
)
def test_what_could_act_on_a_terminal_is_made_visible(words: str, shown: str) -> None:
    assert printable(words) == shown


def test_text_from_right_to_left_orders_itself_only() -> None:
    urdu = "\u06a9\u0644 \u0645\u0644\u06cc\u06ba \u06af\u06d2\u200c"
    assert printable(urdu) == f"\u2068{urdu}\u2069"
    assert printable(f"{urdu}\nok") == f"\u2068{urdu}\u2069\n    | \u2068ok\u2069"
    assert printable("\u0600\u0661") == "\u2068\u0600\u0661\u2069"


@given(st.text())
def test_nothing_printed_is_a_control_character_or_an_override(words: str) -> None:
    for character in printable(words).replace("\n    | ", ""):
        assert unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"}
        assert not "\u202a" <= character <= "\u202e"
        assert character not in "\u2066\u2067"


@given(st.text())
def test_isolates_are_balanced_in_each_line(words: str) -> None:
    for line in printable(words).split("\n"):
        assert line.count("\u2068") == line.count("\u2069")
