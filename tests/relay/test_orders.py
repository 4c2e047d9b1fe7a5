"""The desk: orders and answers on docket and log, sealed and opened, found again by the next process."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from audit.material import read_card
from audit.order_log import OrderLog, verify_log
from relay.core.answers import NOT_CLAIMED, Facts, Outcome, answer_to
from relay.core.docket import DocketError, Order, OrderKind, OrderState, Scope, ScopeKind
from relay.core.policy import Decision
from relay.home import CARD_NAME, HomeBusy, HomeError, init
from relay.logkey import LOG_FOLDER, LOG_KEY_NAME, log_key_of
from relay.orders import Desk, NotFiled
from wire.errors import BlindpostError, FormatError
from wire.leaves import AnswerLeaf, OrderLeaf, SealedLeaf

NOW_S = 1_448_841_600
OMAR = Scope(ScopeKind.ACCOUNT, "omar@karachi.example")
WHOLESALE = Order(
    kind=OrderKind.WHOLESALE, issuer="PTA", jurisdiction="PK", legal_basis="Act of 1996", received_s=NOW_S
)
SUBSCRIBER = replace(WHOLESALE, kind=OrderKind.SUBSCRIBER, scope=OMAR)
SECRET = replace(WHOLESALE, kind=OrderKind.KEYS, jurisdiction="GB", secret_until_s=NOW_S + 1_000)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return init(tmp_path / "relay", secrets.token_bytes, listen="127.0.0.1:18831").path


@contextmanager
def desk_at(home: Path, now_s: int = NOW_S) -> Iterator[Desk]:
    with Desk.at(home, lambda: now_s, os.urandom) as desk:
        yield desk


def verified(home: Path, earlier: bytes | None = None) -> OrderLog:
    card = read_card((home / CARD_NAME).read_bytes(), "card")
    return verify_log(home / LOG_FOLDER, card, NOW_S + 86_400, earlier)


def serve(desk: Desk, order: Order, facts: Facts | None = None) -> int:
    number = desk.receive(order).entry.number
    desk.answer(number, answer_to(order, desk.policy.decision(order), facts or Facts()))
    return number


def test_an_order_and_its_answer_are_leaves_that_name_no_person(home: Path) -> None:
    with desk_at(home) as desk:
        serve(desk, SUBSCRIBER, Facts(found=1, columns=("mailboxes.account",), evidence=b"\1" * 32))
        order, answer = desk.leaves[1:]
    assert isinstance(order, OrderLeaf)
    assert isinstance(answer, AnswerLeaf)
    assert (answer.outcome, answer.given) == ("given", ("mailboxes.account",))
    for path in (home / LOG_FOLDER).rglob("*"):
        assert path.is_dir() or b"omar" not in path.read_bytes()
    log = verified(home)
    assert log.findings == []
    assert [(it.kind, it.state, it.outcome) for it in log.orders] == [("subscriber", "honoured", "given")]


def test_the_docket_is_found_again_by_the_next_process(home: Path) -> None:
    with desk_at(home) as desk:
        serve(desk, WHOLESALE)
        desk.extend(0, NOW_S + 500)
        serve(desk, SUBSCRIBER)
        desk.receive(replace(SUBSCRIBER, kind=OrderKind.PEN_REGISTER))
        desk.appeal(2)
        desk.withdraw(0)
    with desk_at(home) as again:
        assert [entry.state for entry in again.docket.entries] == [
            OrderState.WITHDRAWN,
            OrderState.HONOURED,
            OrderState.APPEALED,
        ]
        assert again.docket.entry(0).deadline_s == NOW_S + 500
        assert again.docket.entry(1).order == SUBSCRIBER
    assert verified(home).findings == []


def test_a_sealed_order_shows_its_existence_and_opens_to_its_text(home: Path) -> None:
    with desk_at(home) as desk:
        serve(desk, SECRET)
        assert all(isinstance(leaf, SealedLeaf) for leaf in desk.leaves[1:])
        found = desk.answer_text(0)
        assert found is not None
        assert found.outcome == "refused"
    before = verified(home)
    assert before.findings == []
    assert (before.orders[0].sealed, before.orders[0].kind, before.orders[0].opened) == (True, "", False)
    with desk_at(home) as desk:
        assert desk.docket.entry(0).order == SECRET
        desk.open_sealed(0)
        with pytest.raises(NotFiled):
            desk.open_sealed(0)
    after = verified(home)
    assert after.findings == []
    assert (after.orders[0].kind, after.orders[0].jurisdiction, after.orders[0].outcome) == ("keys", "GB", "refused")


def test_where_the_law_cannot_seal_the_text_stands_in_the_log(home: Path) -> None:
    (home / "policy.toml").write_text("[GB]\nsecrecy_is_lawful = false\n")
    with desk_at(home) as desk:
        assert not desk.receive(SECRET).sealed
        assert isinstance(desk.leaves[1], OrderLeaf)


def test_a_key_change_of_the_relay_does_not_end_the_log(home: Path) -> None:
    with desk_at(home) as desk:
        index = desk.exit_step("PK", "announced", NOW_S + 86_400, "The service in PK ends.")
    log = verified(home)
    assert log.findings == []
    assert [(step.index, step.step, step.jurisdiction) for step in log.exits] == [(index, "announced", "PK")]


def test_a_clock_that_was_put_back_back_dates_nothing(home: Path) -> None:
    with desk_at(home) as desk:
        serve(desk, WHOLESALE)
    with desk_at(home, NOW_S - 1_000) as desk:
        serve(desk, replace(WHOLESALE, received_s=NOW_S - 1_000))
    assert verified(home).findings == []


def test_the_logs_key_changes_and_the_log_goes_on(home: Path) -> None:
    with desk_at(home) as desk:
        serve(desk, WHOLESALE)
        first = desk.log.key
    note = (home / LOG_FOLDER / "checkpoint").read_bytes()
    with desk_at(home) as desk:
        desk.change_log_key()
        serve(desk, SUBSCRIBER)
        assert log_key_of(home) == desk.log.key != first
    log = verified(home, note)
    assert log.findings == []
    assert len(log.keys) == 2


@pytest.mark.parametrize("point", ["before the leaf", "after the leaf"])
def test_a_crash_within_a_key_change_leaves_one_key_that_counts(
    home: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise OSError("power cut")

    monkeypatch.setattr("relay.orders.take_key" if point == "after the leaf" else "relay.orders.change_key", crash)
    with desk_at(home) as desk:
        serve(desk, WHOLESALE)
        with pytest.raises(OSError, match="power cut"):
            desk.change_log_key()
    monkeypatch.undo()
    with desk_at(home) as desk:
        serve(desk, SUBSCRIBER)
    assert not (home / "log.key.new").exists()
    log = verified(home)
    assert log.findings == []
    assert len(log.keys) == (2 if point == "after the leaf" else 1)


def test_two_desks_do_not_write_one_log(home: Path) -> None:
    with desk_at(home), pytest.raises(HomeBusy), desk_at(home):
        raise AssertionError("not reached")


def test_the_logs_key_is_secret_and_its_public_half_is_not(home: Path) -> None:
    with pytest.raises(HomeError, match="no log"):
        log_key_of(home)
    with desk_at(home) as desk:
        assert log_key_of(home) == desk.log.key
    assert (home / LOG_KEY_NAME).stat().st_mode & 0o777 == 0o600
    (home / LOG_KEY_NAME).chmod(0o644)
    with pytest.raises(FormatError, match="0600"), desk_at(home):
        raise AssertionError("not reached")


def test_a_record_that_is_gone_is_told(home: Path) -> None:
    with desk_at(home) as desk:
        serve(desk, SUBSCRIBER)
    (home / "orders" / "0.order").unlink()
    with pytest.raises(NotFiled, match="missing"), desk_at(home):
        raise AssertionError("not reached")


def test_what_is_settled_is_not_answered_again(home: Path) -> None:
    with desk_at(home) as desk:
        serve(desk, WHOLESALE)
        size = desk.log.size
        with pytest.raises(DocketError):
            desk.answer(0, answer_to(WHOLESALE, Decision.REFUSE, Facts()))
        changes: list[Callable[[], object]] = [
            lambda: desk.extend(0, 1),
            lambda: desk.appeal(0),
            lambda: desk.withdraw(5),
        ]
        for change in changes:
            with pytest.raises(BlindpostError):
                change()
        assert desk.log.size == size


@pytest.mark.parametrize("kind", OrderKind)
@pytest.mark.parametrize("decision", Decision)
@pytest.mark.parametrize("found", [0, 1])
def test_every_answer_says_what_it_does_not_claim(kind: OrderKind, decision: Decision, found: int) -> None:
    order = replace(WHOLESALE, kind=kind) if kind is OrderKind.WHOLESALE else replace(WHOLESALE, kind=kind, scope=OMAR)
    for evidence in (bytes(32), b"\1" * 32):
        facts = Facts(found=found, until_s=NOW_S, evidence=evidence, columns=("lists.account",) * found)
        answer = answer_to(order, decision, facts)
        assert answer.text.endswith(f"Not claimed: {NOT_CLAIMED[kind]}.")
        assert ("ends its service" in answer.text) == (decision is Decision.LEAVE)
        if decision is not Decision.HONOUR:
            assert answer.outcome is not Outcome.GIVEN
