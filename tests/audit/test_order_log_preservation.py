"""What a log may say of a preservation's end: after its day or a withdrawal, once, and of nothing else."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from audit.material import RelayCard, read_card
from audit.order_log import OrderLog, verify_log
from relay.core.answers import Facts, answer_to
from relay.core.docket import Order, OrderKind, Scope, ScopeKind
from relay.home import CARD_NAME, Home, init
from relay.logkey import LOG_FOLDER, signer_of
from relay.orders import Desk
from relay.tlog import TransparencyLog
from wire.codec import encode
from wire.leaves import AnswerLeaf, ChangeLeaf, read_leaf

NOW_S = 1_448_841_600
DAY_S = 86_400
UNTIL_S = NOW_S + 30 * DAY_S
ORDER = Order(
    kind=OrderKind.PRESERVATION,
    issuer="A court",
    jurisdiction="US",
    legal_basis="18 USC 2703(f)",
    received_s=NOW_S,
    scope=Scope(ScopeKind.ACCOUNT, "omar@karachi.example"),
)


class Log:
    """A log with a preservation, a subscriber record that was honoured, and a sealed preservation."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.signer = signer_of(home)
        self.card: RelayCard = read_card((home.path / CARD_NAME).read_bytes(), "card")
        self.entries = TransparencyLog.open(home.path / LOG_FOLDER, self.signer.key).entries()
        self.size = 0

    def with_changes(self, *changes: tuple[int, int, str], **answer: Any) -> OrderLog:
        """The log with these changes behind it, (number, Unix time, change), and order 0's answer bent."""
        entries = [*self.entries, *(encode(ChangeLeaf(at, number, what, 0)) for number, at, what in changes)]
        first = read_leaf(entries[2])
        assert isinstance(first, AnswerLeaf)
        entries[2] = encode(msgspec.structs.replace(first, **answer))
        self.size += 1
        folder = self.home.path.with_name(f"log-{self.size}")
        TransparencyLog.create(folder, self.signer, entries)
        return verify_log(folder, self.card)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    home = init(tmp_path / "relay", secrets.token_bytes, listen="127.0.0.1:18834")
    with Desk.at(home.path, lambda: NOW_S, os.urandom) as desk:
        for kind, secret_s in ((ORDER.kind, 0), (OrderKind.SUBSCRIBER, 0), (ORDER.kind, UNTIL_S)):
            order = replace(ORDER, kind=kind, secret_until_s=secret_s)
            number = desk.receive(order).entry.number
            facts = Facts(found=1, until_s=UNTIL_S, columns=("lists.account",))
            desk.answer(number, answer_to(order, desk.policy.decision(order), facts))
    return Log(home)


@pytest.mark.parametrize(
    "changes",
    [
        [(0, UNTIL_S, "released")],
        [(0, NOW_S + 5, "withdrawn"), (0, NOW_S + 6, "released")],
        [(0, NOW_S + 5, "withdrawn")],
        [(2, NOW_S + 5, "withdrawn")],
    ],
)
def test_an_end_by_the_day_or_by_a_withdrawal_holds(log: Log, changes: list[tuple[int, int, str]]) -> None:
    found = log.with_changes(*changes)
    assert found.findings == []
    assert found.orders[0].until == UNTIL_S
    assert found.orders[changes[0][0]].state == changes[-1][2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([(0, UNTIL_S - 1, "released")], "before its day, and not withdrawn"),
        ([(0, UNTIL_S, "released"), (0, UNTIL_S, "released")], "released once"),
        ([(0, UNTIL_S, "released"), (0, UNTIL_S, "withdrawn")], "cannot change"),
        ([(0, NOW_S + 5, "withdrawn"), (0, NOW_S + 6, "withdrawn")], "cannot change"),
        ([(0, NOW_S + 5, "extended")], "cannot change"),
        ([(1, UNTIL_S, "released")], "no preservation"),
        ([(1, NOW_S + 5, "withdrawn")], "cannot change"),
        ([(2, UNTIL_S, "released")], "no preservation that the log shows"),
    ],
)
def test_attack_an_end_that_is_none_is_found(log: Log, changes: list[tuple[int, int, str]], words: str) -> None:
    assert any(words in finding for finding in log.with_changes(*changes).findings)


def test_attack_an_end_of_what_was_refused_is_found(log: Log) -> None:
    found = log.with_changes((0, UNTIL_S, "released"), state="refused", outcome="refused")
    assert any("no preservation" in finding for finding in found.findings)


@pytest.mark.parametrize("day", ["for ever", "until 2015-13-40", "until 2015-12-30 or until 2016-12-30"])
def test_attack_a_preservation_without_one_day_is_found(log: Log, day: str) -> None:
    found = log.with_changes(text=f"Deletion stops {day}. Not claimed: anything.")
    assert any("the one day" in finding for finding in found.findings)


def test_attack_an_order_of_another_kind_that_was_withdrawn_after_it_was_honoured_is_found_when_opened(
    log: Log, tmp_path: Path
) -> None:
    home = init(tmp_path / "other", secrets.token_bytes, listen="127.0.0.1:18835")
    order = replace(ORDER, kind=OrderKind.SUBSCRIBER, secret_until_s=UNTIL_S)
    with Desk.at(home.path, lambda: NOW_S, os.urandom) as desk:
        desk.receive(order)
        desk.answer(0, answer_to(order, desk.policy.decision(order), Facts(found=1)))
        desk.open_sealed(0)
        entries = desk.log.entries()
    signer = signer_of(home)
    entries.insert(3, encode(ChangeLeaf(NOW_S, 0, "withdrawn", 0)))
    TransparencyLog.create(tmp_path / "bent", signer, entries)
    card = read_card((home.path / CARD_NAME).read_bytes(), "card")
    assert any("withdrawn after it" in finding for finding in verify_log(tmp_path / "bent", card).findings)
