"""Policies: what the relay answers to each kind of order, and whether a disclosure shows what a seizure would find.

A scenario's words for a policy become the relay's own (relay/core/policy.py), which its desk reads from `policy.toml`:
what is decided here before a run and what the desk decides in it come from the same table. Two things the desk does not
decide: whether an order to the country's carriers concerns the relay at all, and to put a ghost device on a list, for
which a relay has no code (sim/orders/clerk.py). sim/orders/service.py says what follows for a jurisdiction.
"""

from collections.abc import Mapping
from enum import Enum, unique
from typing import Final

from relay.core.docket import OrderKind, OrderState
from relay.core.policy import DEFAULT_DECISIONS, Decision
from sim.scenario.places import Jurisdiction
from sim.scenario.scenario import Scenario
from sim.scenario.timeline import ORDER_KINDS, Order

__all__ = [
    "ABOUT_ONE",
    "CONTENT_KINDS",
    "KINDS",
    "Answer",
    "answer_to",
    "decisions_of",
    "discloses",
    "ends_service",
    "is_for_relay",
    "policy_toml",
    "said_by",
]


@unique
class Answer(Enum):
    """What the relay says."""

    PROVIDED = "provided"
    REFUSED = "refused"
    APPEALED = "appealed"
    LEAVING = "leaving"
    NOT_OURS = "not-ours"


KINDS: Final[Mapping[str, OrderKind]] = {
    "wholesale-content": OrderKind.WHOLESALE,
    "content-of-person": OrderKind.CONTENT,
    "interception": OrderKind.INTERCEPTION,
    "subscriber-record": OrderKind.SUBSCRIBER,
    "past-metadata": OrderKind.METADATA,
    "prospective-metadata": OrderKind.PEN_REGISTER,
    "preservation": OrderKind.PRESERVATION,
    "key-disclosure": OrderKind.KEYS,
    "decryption-capability": OrderKind.DECRYPT,
    "weakness": OrderKind.WEAKNESS,
    "ghost-device": OrderKind.GHOST,
    "secrecy": OrderKind.SECRECY,
    "seizure": OrderKind.SEIZURE,
    "block": OrderKind.LEAVE,
    "localise": OrderKind.LEAVE,
}
"""What a scenario's kinds are on the docket."""
_REACHING: Final = frozenset(
    {
        OrderKind.WHOLESALE,
        OrderKind.KEYS,
        OrderKind.DECRYPT,
        OrderKind.WEAKNESS,
        OrderKind.GHOST,
        OrderKind.LEAVE,
    }
)
"""Kinds that reach for everybody's content, keys or software, or for the place of the service."""
_LAWFUL_ACCESS: Final[Mapping[OrderKind, Decision]] = {
    **DEFAULT_DECISIONS,
    OrderKind.INTERCEPTION: Decision.HONOUR,
    OrderKind.PEN_REGISTER: Decision.HONOUR,
    OrderKind.LEAVE: Decision.REFUSE,
}
"""What the companies of the record did with a targeted order: they gave what they had."""
_POLICIES: Final[Mapping[str, Mapping[OrderKind, Decision]]] = {
    "lawful-access": _LAWFUL_ACCESS,
    "leave-rather": {**_LAWFUL_ACCESS, **dict.fromkeys(_REACHING, Decision.LEAVE)},
    "comply": dict.fromkeys(OrderKind, Decision.HONOUR),
    "refuse-all": dict.fromkeys(OrderKind, Decision.REFUSE),
}
_CANNOT: Final = frozenset({OrderKind.DECRYPT, OrderKind.WEAKNESS})
"""Kinds that the relay's own code refuses whatever the policy says (relay/core/answers.py): it cannot."""
CONTENT_KINDS: Final = frozenset(
    {
        "wholesale-content",
        "content-of-person",
        "interception",
        "key-disclosure",
        "decryption-capability",
        "seizure",
    }
)
ABOUT_ONE: Final = frozenset(
    {
        "content-of-person",
        "interception",
        "subscriber-record",
        "past-metadata",
        "prospective-metadata",
        "preservation",
        "ghost-device",
    }
)
"""Kinds about one person."""


def decisions_of(jurisdiction: Jurisdiction) -> dict[OrderKind, Decision]:
    """What the scenario's words for a jurisdiction are in the relay's policy: every kind, in the docket's order."""
    stated = {KINDS[kind]: Decision(course) for kind, course in jurisdiction.answers.items()}
    decisions = {**_POLICIES[jurisdiction.policy], **stated}
    return {kind: decisions[kind] for kind in OrderKind}


def policy_toml(scenario: Scenario) -> str:
    """The relay's policy.toml, a table for each jurisdiction of the scenario."""
    codes = scenario.codes
    return "\n".join(
        f"# {one.name}: {one.policy}\n[{codes[one.name]}]\n"
        + "".join(f'{kind.value} = "{decision.value}"\n' for kind, decision in decisions_of(one).items())
        for one in scenario.jurisdiction
    )


def is_for_relay(order: Order, jurisdiction: Jurisdiction) -> bool:
    """Whether an order concerns the relay. A block is told to the carriers; some policies take it as told to them."""
    if order.kind != "block":
        return True
    return "block" in jurisdiction.answers or jurisdiction.policy in ("leave-rather", "refuse-all")


def answer_to(order: Order, jurisdiction: Jurisdiction) -> Answer:
    """The answer under the jurisdiction's policy, as far as it is known before the order is served."""
    assert order.kind in ORDER_KINDS
    if not is_for_relay(order, jurisdiction):
        return Answer.NOT_OURS
    kind = KINDS[order.kind]
    decision = decisions_of(jurisdiction)[kind]
    honoured = kind not in _CANNOT and (kind is not OrderKind.SEIZURE or discloses(order))
    state = OrderState.HONOURED if honoured and decision is Decision.HONOUR else OrderState.REFUSED
    return said_by(decision, OrderState.APPEALED if decision is Decision.APPEAL else state)


def said_by(decision: Decision, state: OrderState) -> Answer:
    """The answer in the words of a scenario.

    Args:
        decision: the policy's.
        state: where the order stands on the docket.
    """
    if state is OrderState.APPEALED:
        return Answer.APPEALED
    if state is OrderState.HONOURED:
        return Answer.PROVIDED
    return Answer.LEAVING if decision is Decision.LEAVE else Answer.REFUSED


def ends_service(order: Order, answer: Answer) -> bool:
    """Whether the relay leaves on the day of the deadline: instead of obeying, or because that is what was ordered."""
    return answer is Answer.LEAVING or (answer is Answer.PROVIDED and KINDS[order.kind] is OrderKind.LEAVE)


def discloses(order: Order) -> bool:
    """Whether a disclosure is made of what the relay holds when the order is served."""
    return order.kind in CONTENT_KINDS if order.disclose is None else order.disclose
