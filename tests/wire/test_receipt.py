"""Envelopes, receipts and the rotation of the relay's key (protocol.md sections 2.6, 4.4 and 5)."""

from hashlib import sha256

import pytest
from msgspec.structs import replace

from wire.codec import encode
from wire.envelope import Envelope, body_lengths, envelope_id_of
from wire.errors import FormatError, SignatureError
from wire.limits import BODY_BYTES_MAX, BODY_BYTES_MIN
from wire.merkle import path_of, root_of
from wire.padding import pad
from wire.receipt import (
    CommitHeader,
    Receipt,
    ReceiptEntry,
    commit_hash,
    leaf_hash,
    receipt_of,
    verify_header,
    verify_receipt,
)
from wire.rotation import RotationRecord, follow_rotations, key_at, relay_id_of, sign_rotation
from wire.signing import SigningKey

RELAY = SigningKey(b"r" * 32)
SECOND = SigningKey(b"s" * 32)
THIRD = SigningKey(b"t" * 32)
RELAY_ID = relay_id_of(RELAY.public)
ENVELOPES = [Envelope(b"m" * 16, bytes([n]) * 16, 1_000 + n, bytes([n]) * 400) for n in range(3)]


def receipt_for(place: int, signer: SigningKey = RELAY) -> Receipt:
    leaves = [
        leaf_hash(e.mailbox, e.envelope_id, e.expiry, n + 1, sha256(e.body).digest()) for n, e in enumerate(ENVELOPES)
    ]
    header = encode(CommitHeader(RELAY_ID, 0, 1, 5_000, len(leaves), root_of(leaves), bytes(32)))
    entry = ReceiptEntry(7, 0, place + 1, place, path_of(leaves, place))
    return receipt_of(ENVELOPES[place], header, signer.sign("commit", header), entry)


@pytest.mark.parametrize("place", range(3))
def test_a_receipt_verifies(place: int) -> None:
    header = verify_receipt(RELAY.public, receipt_for(place))
    assert (header.index, header.leaf_count) == (1, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"mailbox": b"x" * 16},
        {"envelope_id": b"x" * 16},
        {"expiry": 1},
        {"number": 9},
        {"body_hash": bytes(32)},
        {"leaf": 0},
    ],
)
def test_a_receipt_binds_each_of_its_fields(change: dict[str, object]) -> None:
    with pytest.raises((SignatureError, FormatError)):
        verify_receipt(RELAY.public, receipt_for(2)._replace(**change))  # type: ignore[arg-type]


def test_a_receipt_signed_by_another_key_is_refused() -> None:
    with pytest.raises(SignatureError):
        verify_receipt(RELAY.public, receipt_for(0, SECOND))
    with pytest.raises(FormatError, match="commit header"):
        verify_header(RELAY.public, b"\x90", bytes(64))


def test_commit_hashes_name_headers() -> None:
    assert commit_hash(b"a") != commit_hash(b"b")


def test_an_envelope_id_is_the_hash_of_its_token() -> None:
    assert envelope_id_of(b"t" * 16) != envelope_id_of(b"u" * 16)
    assert len(envelope_id_of(b"t" * 16)) == 16


def test_every_body_length_is_one_of_three_kinds_and_in_bounds() -> None:
    lengths = body_lengths()
    assert min(lengths) == BODY_BYTES_MIN
    assert max(lengths) == BODY_BYTES_MAX
    for content in (0, 300, 65_536):
        assert 144 + len(pad(bytes(content))) in lengths
        assert 1_282 + 256 * 3 + len(pad(bytes(content))) in lengths
    assert 88 + 1_024 * 40 in lengths
    assert BODY_BYTES_MIN + 1 not in lengths


def test_rotations_lead_from_the_cards_key_to_the_current_one() -> None:
    first = sign_rotation(RELAY_ID, RELAY, SECOND, 10, b"h" * 32, 100)
    second = sign_rotation(RELAY_ID, SECOND, THIRD, 12, b"i" * 32, 200)
    chain = follow_rotations(RELAY.public, [first, second])
    assert chain[-1].new_key == THIRD.public
    assert [key_at(RELAY.public, chain, index) for index in (1, 10, 11, 12, 13)] == [
        RELAY.public, RELAY.public, SECOND.public, SECOND.public, THIRD.public,
    ]  # fmt: skip
    assert follow_rotations(RELAY.public, []) == []
    assert key_at(RELAY.public, [], 5) == RELAY.public


def test_rotations_that_do_not_follow_are_refused() -> None:
    first = sign_rotation(RELAY_ID, RELAY, SECOND, 10, b"h" * 32, 100)
    for wrong, problem in (
        (sign_rotation(bytes(16), RELAY, SECOND, 10, b"h" * 32, 100), "another relay"),
        (sign_rotation(RELAY_ID, THIRD, SECOND, 10, b"h" * 32, 100), "does not follow"),
        (sign_rotation(RELAY_ID, RELAY, RELAY, 10, b"h" * 32, 100), "does not follow"),
    ):
        with pytest.raises(FormatError, match=problem):
            follow_rotations(RELAY.public, [wrong])
    for index, time in ((9, 200), (11, 99)):
        with pytest.raises(FormatError, match="runs backwards"):
            follow_rotations(RELAY.public, [first, sign_rotation(RELAY_ID, SECOND, THIRD, index, bytes(32), time)])


def test_a_rotation_needs_both_signatures() -> None:
    good = sign_rotation(RELAY_ID, RELAY, SECOND, 10, b"h" * 32, 100)
    record = encode(RotationRecord(RELAY_ID, RELAY.public, SECOND.public, 10, b"h" * 32, 100))
    assert record == good.rotation
    for change in ({"old_signature": good.new_signature}, {"new_signature": good.old_signature}):
        with pytest.raises(SignatureError):
            follow_rotations(RELAY.public, [replace(good, **change)])
