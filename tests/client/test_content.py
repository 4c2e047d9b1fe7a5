from __future__ import annotations

import traceback

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.content import (
    CONTENT_BYTES_MAX,
    NO_REPLY,
    OWN_COPY_BYTES_MAX,
    RECEIPT_IDS_MAX,
    Content,
    Kind,
    OwnCopy,
    decode_content,
    encode_content,
    is_inline,
    payload_bytes_max,
    unwrap_own_copy,
    with_token,
    wrap_own_copy,
)
from wire.envelope import envelope_id_of
from wire.errors import FormatError
from wire.limits import AUDIENCE_MAX, INLINE_CONTENT_BYTES_MAX, MESSAGE_BYTES_MAX

TOKEN = bytes(range(16))
MESSAGE_ID = bytes(range(16, 32))
ANA = "ana@acme.example"
OMAR = "omar@karachi.example"


def content(kind: Kind = Kind.CHAT, payload: bytes = b"see you at nine", **fields: object) -> Content:
    made = Content(TOKEN, kind, MESSAGE_ID, 1_448_841_600_000, NO_REPLY, (OMAR,), payload)
    return msgspec.structs.replace(made, **fields)


ids = st.binary(min_size=16, max_size=16)
accounts = st.from_regex(r"[a-z0-9._+-]{1,20}@[a-z0-9]{1,12}(\.[a-z0-9]{1,12}){0,2}", fullmatch=True)
addresses = st.lists(accounts, max_size=5).map(tuple)
payloads = st.one_of(
    st.tuples(st.just(Kind.EMAIL), st.binary(max_size=2_000)),
    st.tuples(st.just(Kind.CHAT), st.text(max_size=300).map(lambda text: text.encode("utf-8"))),
    st.tuples(st.sampled_from([Kind.PING, Kind.RENEWAL]), st.just(b"")),
    st.tuples(st.sampled_from([Kind.DELIVERED, Kind.READ]), st.lists(ids, min_size=1, max_size=9).map(b"".join)),
    st.tuples(st.just(Kind.MANIFEST), st.binary(max_size=100)),
)
contents = st.builds(
    lambda token, message_id, sent_ms, reply_to, audience, said: Content(
        token, said[0], message_id, sent_ms, reply_to, audience, said[1]
    ),
    ids,
    ids,
    st.integers(0, 2**63 - 1),
    ids,
    addresses,
    payloads,
)


@given(contents)
def test_a_content_survives_encoding(made: Content) -> None:
    assert decode_content(encode_content(made)) == made


@given(contents, addresses, ids)
def test_an_own_copy_holds_the_message_and_its_recipients_and_has_a_token_of_its_own(
    made: Content, recipients: tuple[str, ...], token: bytes
) -> None:
    copy = decode_content(encode_content(wrap_own_copy(made, recipients, token)))
    assert copy.kind is Kind.OWN_COPY
    assert copy.token == token
    assert unwrap_own_copy(copy) == (with_token(made, token), recipients)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_content_that_encodes_to_them_or_a_format_error(data: bytes) -> None:
    try:
        made = decode_content(data)
    except FormatError:
        return
    assert encode_content(made) == data


@given(contents, st.data())
def test_a_content_with_one_byte_changed_is_refused_or_encodes_to_the_changed_bytes(
    made: Content, data: st.DataObject
) -> None:
    encoded = bytearray(encode_content(made))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    try:
        changed = decode_content(bytes(encoded))
    except FormatError:
        return
    assert encode_content(changed) == encoded


def test_the_layout_is_that_of_the_protocol() -> None:
    assert msgspec.msgpack.decode(encode_content(content())) == [
        TOKEN,
        2,
        MESSAGE_ID,
        1_448_841_600_000,
        bytes(16),
        [OMAR],
        b"see you at nine",
    ]


def test_the_envelope_id_comes_from_the_token() -> None:
    assert content().envelope_id == envelope_id_of(TOKEN)
    assert with_token(content(), bytes(16)).envelope_id == envelope_id_of(bytes(16))


def test_kinds_have_the_numbers_of_the_protocol() -> None:
    assert [(kind.name, kind.value) for kind in Kind] == [
        ("EMAIL", 1),
        ("CHAT", 2),
        ("PING", 3),
        ("DELIVERED", 4),
        ("READ", 5),
        ("MANIFEST", 6),
        ("RENEWAL", 7),
        ("OWN_COPY", 8),
    ]


REFUSED = [
    ("short_token", content(token=b"x"), "token: has 1 bytes, not 16 (limit 16)"),
    ("long_message_id", content(message_id=bytes(17)), "message_id: has 17 bytes, not 16 (limit 16)"),
    ("short_reply_to", content(reply_to=b""), "reply_to: has 0 bytes, not 16 (limit 16)"),
    ("negative_time", content(sent_ms=-1), f"sent_ms: is -1 (limit {2**63 - 1})"),
    ("large_time", content(sent_ms=2**63), f"sent_ms: is {2**63} (limit {2**63 - 1})"),
    ("chat_not_utf8", content(payload=b"ok\xff"), "payload: of kind chat is not UTF-8 at byte 2"),
    ("ping_with_text", content(Kind.PING, b"x"), "payload: of kind ping has 1 bytes and must be empty"),
    ("renewal_with_text", content(Kind.RENEWAL, b"xy"), "payload: of kind renewal has 2 bytes and must be empty"),
    ("empty_notice", content(Kind.READ, b""), "payload: of kind read is not whole message ids of 16 bytes"),
    (
        "half_an_id",
        content(Kind.DELIVERED, bytes(24)),
        "payload: of kind delivered is not whole message ids of 16 bytes",
    ),
    (
        "too_many_ids",
        content(Kind.READ, bytes(16 * (RECEIPT_IDS_MAX + 1))),
        "payload: of kind read names 1025 messages (limit 1024)",
    ),
    (
        "long_mail",
        content(Kind.EMAIL, bytes(MESSAGE_BYTES_MAX + 1)),
        "payload: of kind email has 26214401 bytes (limit 26214400)",
    ),
    (
        "large_audience",
        content(audience=(ANA,) * (AUDIENCE_MAX + 1)),
        "audience: names 257 accounts (limit 256)",
    ),
]


@pytest.mark.parametrize(("made", "text"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_content_that_breaks_a_rule_does_not_leave(made: Content, text: str) -> None:
    with pytest.raises(FormatError) as caught:
        encode_content(made)
    assert str(caught.value) == text


@pytest.mark.parametrize("made", [case[1] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_content_that_breaks_a_rule_is_not_taken_in(made: Content) -> None:
    if made.sent_ms < 0:
        return  # decoding refuses it by its type; that is the next test's subject
    with pytest.raises(FormatError):
        decode_content(msgspec.msgpack.encode(made))


def test_decoding_refuses_types_before_rules() -> None:
    array = [TOKEN, 2, MESSAGE_ID, -1, NO_REPLY, [], b""]
    with pytest.raises(FormatError, match="content: "):
        decode_content(msgspec.msgpack.encode(array))


def test_an_unknown_kind_is_refused() -> None:
    array = [TOKEN, 9, MESSAGE_ID, 1, NO_REPLY, [], b""]
    with pytest.raises(FormatError, match="content: Invalid enum value 9"):
        decode_content(msgspec.msgpack.encode(array))


def test_an_address_that_is_no_account_is_refused() -> None:
    with pytest.raises(FormatError):
        encode_content(content(audience=("Ana@acme.example",)))


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(FormatError):
        decode_content(encode_content(content()) + b"\0")


def test_a_longer_encoding_of_the_same_value_is_refused() -> None:
    encoded = encode_content(content(Kind.PING, b""))
    assert encoded.endswith(b"\xc4\x00")
    with pytest.raises(FormatError, match="not the canonical encoding"):
        decode_content(encoded[:-2] + b"\xc5\x00\x00")


def test_bytes_beyond_the_limit_are_refused_unread() -> None:
    with pytest.raises(FormatError) as caught:
        decode_content(bytes(CONTENT_BYTES_MAX + 1))
    assert caught.value.limit == CONTENT_BYTES_MAX


def test_the_largest_own_copy_is_within_the_limits() -> None:
    longest = "a" * 64 + "@" + ".".join(["b" * 63, "c" * 63, "d" * 61])
    assert len(longest) == 254
    everybody = (longest,) * AUDIENCE_MAX
    mail = content(Kind.EMAIL, bytes(MESSAGE_BYTES_MAX), audience=everybody)
    copy = wrap_own_copy(mail, everybody, TOKEN)
    assert len(copy.payload) <= OWN_COPY_BYTES_MAX == payload_bytes_max(Kind.OWN_COPY)
    encoded = encode_content(copy)
    assert len(encoded) <= CONTENT_BYTES_MAX
    assert unwrap_own_copy(decode_content(encoded)) == (mail, everybody)


def test_an_own_copy_of_an_own_copy_is_refused_on_both_sides() -> None:
    copy = wrap_own_copy(content(), (OMAR,), TOKEN)
    with pytest.raises(FormatError, match=r"own_copy\.kind: is an own copy of an own copy"):
        wrap_own_copy(copy, (OMAR,), TOKEN)
    forged = content(Kind.OWN_COPY, msgspec.msgpack.encode(OwnCopy(Kind.OWN_COPY, (), b"")))
    with pytest.raises(FormatError, match=r"own_copy\.kind"):
        unwrap_own_copy(forged)


def test_the_inner_rules_hold_in_an_own_copy() -> None:
    forged = content(Kind.OWN_COPY, msgspec.msgpack.encode(OwnCopy(Kind.CHAT, (), b"\xff")))
    with pytest.raises(FormatError, match="not UTF-8"):
        unwrap_own_copy(forged)
    with pytest.raises(FormatError, match=r"own_copy\.recipients"):
        wrap_own_copy(content(), (OMAR,) * 257, TOKEN)


def test_only_an_own_copy_can_be_unwrapped() -> None:
    with pytest.raises(FormatError, match="kind: is chat, not own_copy"):
        unwrap_own_copy(content())


def test_what_is_inline() -> None:
    assert is_inline(Kind.EMAIL, INLINE_CONTENT_BYTES_MAX)
    assert not is_inline(Kind.EMAIL, INLINE_CONTENT_BYTES_MAX + 1)
    assert is_inline(Kind.MANIFEST, INLINE_CONTENT_BYTES_MAX + 1)


def test_repr_shows_kind_and_size_and_nothing_else() -> None:
    assert repr(content()) == "Content(kind=CHAT, payload=<15 bytes>)"
    assert repr(OwnCopy(Kind.CHAT, (OMAR,), b"secret")) == "OwnCopy(kind=CHAT, payload=<6 bytes>)"


def test_a_traceback_does_not_show_a_text_that_is_not_utf8() -> None:
    canary = b"7f3a".hex().encode()  # not in any line of source that the traceback quotes
    with pytest.raises(FormatError) as caught:
        encode_content(content(payload=canary + b"\xff"))
    shown = "".join(traceback.format_exception(caught.value))
    assert canary.decode() not in shown
