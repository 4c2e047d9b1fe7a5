"""Leaves of the log: one encoding each, unknown types skipped, commitments that open to one text only."""

from __future__ import annotations

import msgpack  # type: ignore[import-untyped]
import pytest
from msgspec.structs import replace

from wire.codec import encode
from wire.errors import BlindpostError, FormatError, SignatureError
from wire.leaves import (
    NOBODY,
    AnswerLeaf,
    ChangeLeaf,
    OpeningLeaf,
    OrderLeaf,
    SealedLeaf,
    UnknownLeaf,
    begin_log,
    change_key,
    check_exit,
    check_key_change,
    check_opening,
    commitment,
    read_leaf,
    sign_exit,
    verify_begins,
)
from wire.rotation import relay_id_of, sign_rotation
from wire.signing import SigningKey

RELAY, LOG, OTHER = (SigningKey(bytes([n]) * 32) for n in (1, 2, 3))
ORDER = OrderLeaf(5, 0, "keys", "A court", "GB", "s.253", 5, 9, "all", NOBODY, 0)
ANSWER = AnswerLeaf(6, 0, "refused", "refused", "No.", (), NOBODY)
BEGINS = begin_log(1, relay_id_of(RELAY.public), "log.example", LOG.public, RELAY.public, (), RELAY)


@pytest.mark.parametrize(
    "leaf",
    [
        BEGINS,
        ORDER,
        ANSWER,
        SealedLeaf(5, 0, "order", bytes(32), 9),
        OpeningLeaf(5, 1, bytes(32), b"x"),
        ChangeLeaf(5, 0, "extended", 9),
        sign_exit(5, "PK", "announced", 9, "We leave.", (), RELAY),
        change_key(5, LOG, OTHER),
    ],
    ids=lambda leaf: type(leaf).__name__,
)
def test_a_leaf_reads_back_as_it_was(leaf: object) -> None:
    assert read_leaf(encode(leaf)) == leaf


def test_a_type_that_is_unknown_is_skipped_whatever_it_holds() -> None:
    assert read_leaf(msgpack.packb([77, 5, {"key": [1.5, None]}])) == UnknownLeaf(77, 5)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x90",
        b"\x91\x02",
        b"\xc1",
        msgpack.packb([2, 5]),
        msgpack.packb(["2", 5]),
        msgpack.packb([2, -1]),
        encode(ORDER) + b"\0",
        encode(replace(ORDER, jurisdiction="gb")),
        encode(replace(ORDER, subject=b"short")),
        bytes(70_000),
    ],
    ids=range(12),
)
def test_what_is_no_leaf_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        read_leaf(data)


def test_an_opening_opens_what_was_sealed_and_nothing_else() -> None:
    nonce, text = bytes(range(32)), encode(ORDER)
    sealed = SealedLeaf(5, 0, "order", commitment(nonce, text), 9)
    assert check_opening(sealed, OpeningLeaf(6, 1, nonce, text)) == ORDER
    with pytest.raises(SignatureError):
        check_opening(sealed, OpeningLeaf(6, 1, bytes(32), text))
    with pytest.raises(SignatureError):
        check_opening(sealed, OpeningLeaf(6, 1, nonce, encode(replace(ORDER, issuer="Another court"))))
    answer = encode(ANSWER)
    with pytest.raises(FormatError, match="no order"):
        check_opening(replace(sealed, commitment=commitment(nonce, answer)), OpeningLeaf(6, 1, nonce, answer))
    with pytest.raises(FormatError, match="nonce"):
        commitment(b"short", text)


def test_the_card_vouches_for_the_logs_key_also_after_a_rotation() -> None:
    assert verify_begins(BEGINS, RELAY.public) == LOG.public
    rotation = sign_rotation(relay_id_of(RELAY.public), RELAY, OTHER, 0, bytes(32), 1)
    later = begin_log(2, relay_id_of(RELAY.public), "log.example", LOG.public, RELAY.public, (rotation,), OTHER)
    assert verify_begins(later, RELAY.public) == LOG.public


@pytest.mark.parametrize(
    ("leaf", "card"),
    [
        (BEGINS, OTHER.public),
        (replace(BEGINS, log_key=OTHER.public), RELAY.public),
        (replace(BEGINS, origin="another.example"), RELAY.public),
        (begin_log(1, relay_id_of(RELAY.public), "log.example", LOG.public, RELAY.public, (), OTHER), RELAY.public),
    ],
    ids=["another card", "another log key", "another origin", "another signer"],
)
def test_attack_a_log_that_the_relay_did_not_begin_is_refused(leaf: object, card: bytes) -> None:
    with pytest.raises(BlindpostError):
        verify_begins(leaf, card)  # type: ignore[arg-type]


def test_attack_an_exit_that_the_relay_did_not_sign_is_refused() -> None:
    leaf = sign_exit(5, "PK", "announced", 9, "We leave.", (), RELAY)
    check_exit(leaf, RELAY.public)
    for forged in (replace(leaf, text="We stay."), sign_exit(5, "PK", "announced", 9, "We leave.", (), OTHER)):
        with pytest.raises(SignatureError):
            check_exit(forged, RELAY.public)


def test_attack_a_log_key_that_the_one_before_did_not_sign_is_refused() -> None:
    leaf = change_key(5, LOG, OTHER)
    assert check_key_change(leaf, LOG.public) == OTHER.public
    with pytest.raises(FormatError):
        check_key_change(leaf, RELAY.public)
    with pytest.raises(SignatureError):
        check_key_change(replace(leaf, new_key=RELAY.public), LOG.public)
