"""The docket: what an order is, how its state moves, and what a policy decides."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from relay.core.docket import Docket, DocketError, Due, Entry, Order, OrderKind, OrderState, Scope, ScopeKind
from relay.core.policy import DEFAULT_DECISIONS, Decision, Policy
from wire.errors import FormatError

NOW_S = 1_448_841_600
OMAR = Scope(ScopeKind.ACCOUNT, "omar@karachi.example")
WHOLESALE = Order(
    kind=OrderKind.WHOLESALE,
    issuer="PTA",
    jurisdiction="PK",
    legal_basis="Telecommunication Act 1996",
    received_s=NOW_S,
    deadline_s=NOW_S + 86_400,
)


def test_every_kind_has_a_default_decision() -> None:
    assert set(DEFAULT_DECISIONS) == set(OrderKind)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("issuer", ""),
        ("issuer", "two\nlines"),
        ("issuer", "x" * 201),
        ("jurisdiction", "pk"),
        ("jurisdiction", "PAK"),
        ("legal_basis", " "),
        ("received_s", -1),
        ("deadline_s", NOW_S - 1),
        ("secret_until_s", 2**40),
        ("scope", OMAR),
        ("kind", OrderKind.CONTENT),
        ("kind", OrderKind.PRESERVATION),
    ],
)
def test_an_order_that_is_none_is_refused_by_field(field: str, value: object) -> None:
    with pytest.raises(FormatError):
        replace(WHOLESALE, **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (ScopeKind.ALL, "x"),
        (ScopeKind.TENANT, "no domain"),
        (ScopeKind.ACCOUNT, "omar"),
        (ScopeKind.MAILBOX, "AB" * 16),
    ],
)
def test_a_scope_that_names_nobody_is_refused(kind: ScopeKind, name: str) -> None:
    with pytest.raises(FormatError):
        Scope(kind, name)


def test_the_order_of_2015_is_refused_extended_and_withdrawn() -> None:
    docket = Docket()
    docket.receive(WHOLESALE)
    assert docket.answer(0, honoured=False, now_s=NOW_S + 10).state is OrderState.REFUSED
    extended = docket.extend(0, NOW_S + 30 * 86_400, NOW_S + 20)
    assert (extended.state, extended.extensions) == (OrderState.REFUSED, 1)
    assert docket.next_deadline_s() == NOW_S + 30 * 86_400
    assert docket.tick(NOW_S + 86_400) == ()
    assert docket.withdraw(0, NOW_S + 86_401).state is OrderState.WITHDRAWN
    assert docket.next_deadline_s() is None


def test_a_deadline_that_passes_is_told_once_and_whether_it_was_answered() -> None:
    docket = Docket()
    docket.receive(replace(WHOLESALE, deadline_s=NOW_S + 50))
    docket.receive(WHOLESALE)
    docket.answer(1, honoured=False, now_s=NOW_S)
    assert docket.tick(NOW_S + 86_400) == (Due(0, answered=False), Due(1, answered=True))
    assert docket.tick(NOW_S + 86_401) == ()


def test_an_appealed_order_waits_for_its_answer() -> None:
    docket = Docket([Entry(0, WHOLESALE, OrderState.RECEIVED, WHOLESALE.deadline_s, NOW_S)])
    assert docket.appeal(0, NOW_S + 5).is_open
    assert docket.extend(0, NOW_S + 90_000, NOW_S + 6).state is OrderState.EXTENDED
    assert docket.answer(0, honoured=True, now_s=NOW_S + 7).state is OrderState.HONOURED


def test_what_is_settled_cannot_be_changed() -> None:
    docket = Docket()
    docket.receive(WHOLESALE)
    docket.answer(0, honoured=True, now_s=NOW_S)
    changes: list[Callable[[], object]] = [
        lambda: docket.extend(0, NOW_S + 90_000, NOW_S),
        lambda: docket.appeal(0, NOW_S),
        lambda: docket.answer(0, honoured=False, now_s=NOW_S),
        lambda: docket.withdraw(0, NOW_S),
        lambda: docket.entry(1),
    ]
    for change in changes:
        with pytest.raises(DocketError):
            change()


def test_an_extension_must_be_later_and_time_does_not_run_back() -> None:
    docket = Docket()
    docket.receive(WHOLESALE)
    with pytest.raises(DocketError, match="later"):
        docket.extend(0, WHOLESALE.deadline_s, NOW_S)
    with pytest.raises(DocketError, match="before its last change"):
        docket.appeal(0, NOW_S - 1)


def test_a_docket_with_a_gap_is_refused() -> None:
    with pytest.raises(FormatError, match="gaps"):
        Docket([Entry(1, WHOLESALE, OrderState.RECEIVED, 0, NOW_S)])


def test_a_policy_decides_by_jurisdiction_then_by_default() -> None:
    policy = Policy.from_toml(
        '[default]\ninterception = "refuse"\n[PK]\nwholesale = "leave"\nsecrecy_is_lawful = false\n'
    )
    assert policy.decision(WHOLESALE) is Decision.LEAVE
    assert policy.decision(replace(WHOLESALE, jurisdiction="CA")) is Decision.REFUSE
    assert policy.decision(replace(WHOLESALE, kind=OrderKind.INTERCEPTION)) is Decision.REFUSE
    secret = replace(WHOLESALE, secret_until_s=NOW_S + 86_400)
    assert not policy.seals(secret)
    assert policy.seals(replace(secret, jurisdiction="CA"))
    assert not policy.seals(replace(WHOLESALE, jurisdiction="CA"))


@pytest.mark.parametrize(
    "text",
    ["[PK", "[pk]", "PK = 1", '[PK]\nwiretap = "refuse"', '[PK]\nkeys = "maybe"', "[PK]\nkeys = 1",
     "[PK]\nsecrecy_is_lawful = 1", "x" * 70_000, "".join(f"[A{i}]\n" for i in range(400))],
)  # fmt: skip
def test_a_policy_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match=r"policy|jurisdiction"):
        Policy.from_toml(text)


def test_a_preservation_is_released_after_its_day_or_when_it_was_taken_back() -> None:
    docket = Docket()
    scope = Scope(ScopeKind.ACCOUNT, "omar@karachi.example")
    for number in range(3):
        docket.receive(replace(WHOLESALE, kind=OrderKind.PRESERVATION, scope=scope))
        docket.answer(number, honoured=True, now_s=NOW_S, until_s=0 if number == 2 else NOW_S + 100)
    with pytest.raises(DocketError, match="no preservation that has ended"):
        docket.release(0, NOW_S + 99)
    assert docket.release(0, NOW_S + 100).state is OrderState.RELEASED
    assert docket.take_back(1, NOW_S + 5).state is OrderState.WITHDRAWN
    assert docket.release(1, NOW_S + 6).state is OrderState.RELEASED
    for number in range(3):
        for change in (docket.release, docket.take_back, docket.withdraw):
            with pytest.raises(DocketError):
                change(number, NOW_S + 200)
