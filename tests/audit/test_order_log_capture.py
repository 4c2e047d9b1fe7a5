"""What a log may say of a capture: from when, until when, and at the end what came of it; sealed where the order is."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from audit.material import RelayCard, read_card
from audit.order_log import OrderLog, verify_log
from relay.core.answers import Answer, Captured, Facts, answer_to
from relay.core.docket import DocketError, Order, OrderKind, OrderState, Scope, ScopeKind
from relay.core.policy import Decision
from relay.home import CARD_NAME, Home, init
from relay.logkey import LOG_FOLDER, signer_of
from relay.orders import Desk
from relay.tlog import TransparencyLog
from wire.codec import encode
from wire.leaves import AnswerLeaf, ChangeLeaf, Leaf, SealedLeaf, read_leaf

NOW_S = 1_448_841_600
UNTIL_S = NOW_S + 30 * 86_400
ORDER = Order(
    kind=OrderKind.INTERCEPTION,
    issuer="A court",
    jurisdiction="GB",
    legal_basis="IPA 2016",
    received_s=NOW_S,
    scope=Scope(ScopeKind.ACCOUNT, "omar@karachi.example"),
)
FACTS = Facts(
    found=1,
    evidence=b"\7" * 32,
    captured=Captured(from_s=NOW_S, to_s=UNTIL_S, mailboxes=1, events=9, stored=4, body_bytes=1_600),
)


class Bench:
    """A home, and its log with leaves bent."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.signer = signer_of(home)
        self.card: RelayCard = read_card((home.path / CARD_NAME).read_bytes(), "card")
        self.size = 0

    def leaves(self) -> list[Leaf]:
        return [
            read_leaf(entry) for entry in TransparencyLog.open(self.home.path / LOG_FOLDER, self.signer.key).entries()
        ]

    def verified(self, leaves: list[Leaf] | None = None) -> OrderLog:
        if leaves is None:
            return verify_log(self.home.path / LOG_FOLDER, self.card)
        self.size += 1
        folder = self.home.path.with_name(f"log-{self.size}")
        TransparencyLog.create(folder, self.signer, [encode(leaf) for leaf in leaves])
        return verify_log(folder, self.card)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    home = init(tmp_path / "relay", secrets.token_bytes, listen="127.0.0.1:18836")
    with Desk.at(home.path, lambda: NOW_S, os.urandom):
        return Bench(home)


def captured(
    bench: Bench, kind: OrderKind = OrderKind.INTERCEPTION, *, secret_s: int = 0, withdrawn: bool = False
) -> None:
    """An order that was captured and answered; each step at a desk of its own, as the commands do it."""
    order = replace(ORDER, kind=kind, secret_until_s=secret_s)
    steps: list[Callable[[Desk], object]] = [lambda desk: desk.receive(order), lambda desk: desk.capture(0, UNTIL_S)]
    if withdrawn:
        steps.append(lambda desk: desk.withdraw(0))
    steps.append(lambda desk: desk.answer(0, answer_to(order, Decision.HONOUR, FACTS), Decision.HONOUR))
    for step in steps:
        with Desk.at(bench.home.path, lambda: NOW_S, os.urandom) as desk:
            step(desk)


@pytest.mark.parametrize(
    ("kind", "outcome"), [(OrderKind.INTERCEPTION, "ciphertext"), (OrderKind.PEN_REGISTER, "given")]
)
@pytest.mark.parametrize("withdrawn", [False, True])
def test_a_capture_is_in_the_log_from_its_beginning_and_answered_at_its_end(
    bench: Bench, kind: OrderKind, outcome: str, withdrawn: bool
) -> None:
    captured(bench, kind, withdrawn=withdrawn)
    log = bench.verified()
    assert log.findings == []
    (order,) = log.orders
    assert (order.state, order.outcome, order.evidence) == ("honoured", outcome, FACTS.evidence)
    assert order.changes[0] == ("capturing", NOW_S, UNTIL_S)
    assert [change for change, _, _ in order.changes[1:]] == (["withdrawn"] if withdrawn else [])
    assert "9 events of 1 mailboxes" in order.text
    with Desk.at(bench.home.path, lambda: NOW_S, os.urandom) as desk:
        assert desk.docket.entry(0).state is OrderState.HONOURED


@pytest.mark.parametrize("withdrawn", [False, True])
def test_of_a_sealed_order_nothing_tells_that_it_is_captured_until_it_is_opened(bench: Bench, withdrawn: bool) -> None:
    captured(bench, secret_s=UNTIL_S, withdrawn=withdrawn)
    told = [leaf.what for leaf in bench.leaves() if isinstance(leaf, SealedLeaf)]
    assert told == ["order", "change", "answer"]
    log = bench.verified()
    assert log.findings == []
    assert (log.orders[0].kind, log.orders[0].deadline, log.orders[0].capturing_from) == ("", 0, 0)
    with Desk.at(bench.home.path, lambda: NOW_S, os.urandom) as desk:
        desk.open_sealed(0)
    log = bench.verified()
    assert log.findings == []
    assert log.orders[0].state == "honoured"
    assert log.orders[0].changes[0] == ("capturing", NOW_S, UNTIL_S)
    assert log.orders[0].deadline == UNTIL_S


def test_while_it_is_captured_an_order_is_open_and_can_be_extended_and_not_refused_or_contested(bench: Bench) -> None:
    with Desk.at(bench.home.path, lambda: NOW_S, os.urandom) as desk:
        desk.receive(ORDER)
        assert desk.capture(0, UNTIL_S).entry.is_open
        assert desk.extend(0, UNTIL_S + 5).entry.state is OrderState.CAPTURING
        with pytest.raises(DocketError, match="cannot be appealed"):
            desk.appeal(0)
        with pytest.raises(DocketError, match="would be untrue"):
            desk.answer(0, answer_to(ORDER, Decision.REFUSE, Facts()))
        with pytest.raises(DocketError, match="cannot be captured"):
            desk.capture(0, UNTIL_S)
    log = bench.verified()
    assert log.findings == []
    assert (log.orders[0].state, log.orders[0].deadline) == ("open", UNTIL_S + 5)


def test_only_what_passes_is_captured_and_only_until_a_day_to_come(bench: Bench) -> None:
    with Desk.at(bench.home.path, lambda: NOW_S, os.urandom) as desk:
        desk.receive(replace(ORDER, kind=OrderKind.CONTENT))
        desk.receive(ORDER)
        with pytest.raises(DocketError, match="not about what passes"):
            desk.capture(0, UNTIL_S)
        with pytest.raises(DocketError, match="later than now"):
            desk.capture(1, NOW_S)


def attacked(bench: Bench, *leaves: Leaf) -> list[str]:
    first, order, *_ = bench.leaves()
    return bench.verified([first, order, *leaves]).findings


def test_attack_what_was_captured_without_a_word_in_the_log_is_found(bench: Bench) -> None:
    captured(bench)
    answer = bench.leaves()[-1]
    assert any("does not say from when" in finding for finding in attacked(bench, answer))


def test_attack_what_was_captured_and_is_answered_as_nothing_is_found(bench: Bench) -> None:
    captured(bench)
    _, _, begins, answer = bench.leaves()
    assert isinstance(answer, AnswerLeaf)
    bends: tuple[dict[str, Any], ...] = (
        {"state": "refused", "outcome": "refused"},
        {"outcome": "nothing-held"},
        {"outcome": "given"},
        {"evidence": bytes(32)},
    )
    for bent in bends:
        found = attacked(bench, begins, msgspec.structs.replace(answer, **bent))
        assert any("the answer does not say so" in finding for finding in found), bent


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (ChangeLeaf(NOW_S, 0, "capturing", UNTIL_S), "captured already"),
        (ChangeLeaf(NOW_S, 0, "appealed", UNTIL_S), "cannot be contested"),
        (ChangeLeaf(NOW_S, 0, "extended", UNTIL_S), "later than the deadline"),
    ],
)
def test_attack_a_change_that_cannot_follow_is_found(bench: Bench, change: ChangeLeaf, words: str) -> None:
    captured(bench)
    begins = bench.leaves()[2]
    assert any(words in finding for finding in attacked(bench, begins, change))


def test_attack_a_capture_until_a_day_that_has_passed_or_after_the_end_is_found(bench: Bench) -> None:
    captured(bench)
    withdrawn = ChangeLeaf(NOW_S, 0, "withdrawn", 0)
    begins = ChangeLeaf(NOW_S, 0, "capturing", UNTIL_S)
    late = msgspec.structs.replace(begins, deadline=NOW_S)
    assert any("a day that has passed" in finding for finding in attacked(bench, late))
    assert any("its capture cannot begin" in finding for finding in attacked(bench, withdrawn, begins))


def test_attack_a_capture_of_another_kind_of_order_is_found(bench: Bench) -> None:
    with Desk.at(bench.home.path, lambda: NOW_S, os.urandom) as desk:
        desk.receive(replace(ORDER, kind=OrderKind.CONTENT))
    assert any(
        "not about what passes" in finding for finding in attacked(bench, ChangeLeaf(NOW_S, 0, "capturing", UNTIL_S))
    )


def test_attack_the_beginning_of_a_sealed_capture_in_the_clear_is_found(bench: Bench) -> None:
    captured(bench, secret_s=UNTIL_S)
    assert any("sealed" in finding for finding in attacked(bench, ChangeLeaf(NOW_S, 0, "capturing", UNTIL_S)))


def test_an_answer_without_a_capture_names_no_evidence() -> None:
    for kind in (OrderKind.INTERCEPTION, OrderKind.PEN_REGISTER):
        made: Answer = answer_to(replace(ORDER, kind=kind), Decision.HONOUR, Facts(evidence=b"\1" * 32))
        assert made.evidence == bytes(32)
        assert made.outcome.value == "nothing-held"
