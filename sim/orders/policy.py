"""Policies: what the relay answers to each kind of order, and whether a disclosure shows what a seizure would find.

Here is decided; what is said is made by the relay's own code (relay/core/answers.py) from what it holds, and
sim/orders/service.py says what follows for a jurisdiction.
"""

from enum import Enum, unique
from typing import Final

from relay.core import answers, docket
from relay.core.answers import Facts
from relay.core.docket import OrderKind, Scope, ScopeKind
from relay.core.policy import Decision
from sim.scenario.places import Jurisdiction
from sim.scenario.timeline import ORDER_KINDS, Order
from wire.held import column_names

__all__ = ["ABOUT_ONE", "CONTENT_KINDS", "Answer", "answer_to", "discloses", "words_of"]


@unique
class Answer(Enum):
    """What the relay says."""

    PROVIDED = "provided"
    REFUSED = "refused"
    APPEALED = "appealed"
    LEAVING = "leaving"
    NOT_OURS = "not-ours"


_OF_COURSE: Final = {
    "honour": Answer.PROVIDED,
    "refuse": Answer.REFUSED,
    "appeal": Answer.APPEALED,
    "leave": Answer.LEAVING,
}
_REACHING: Final = frozenset(
    {"wholesale-content", "key-disclosure", "decryption-capability", "weakness", "ghost-device", "localise"}
)
"""Kinds that reach for everybody's content, keys or software, or for the place of the service."""
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


def answer_to(order: Order, jurisdiction: Jurisdiction) -> Answer:
    """The answer under the jurisdiction's policy."""
    assert order.kind in ORDER_KINDS
    course = jurisdiction.answers.get(order.kind)
    if course is not None:
        return _OF_COURSE[course]
    if jurisdiction.policy == "refuse-all":
        return Answer.REFUSED
    if jurisdiction.policy == "comply":
        return Answer.NOT_OURS if order.kind == "block" else Answer.PROVIDED
    if order.kind == "block":
        return Answer.LEAVING if jurisdiction.policy == "leave-rather" else Answer.NOT_OURS
    if order.kind in _REACHING:
        return Answer.LEAVING if jurisdiction.policy == "leave-rather" else Answer.REFUSED
    return Answer.PROVIDED


def discloses(order: Order) -> bool:
    """Whether a disclosure is made of what the relay holds when the order is served."""
    return order.kind in CONTENT_KINDS if order.disclose is None else order.disclose


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
_KINDS: Final = {
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
_DECISIONS: Final = {
    Answer.PROVIDED: Decision.HONOUR,
    Answer.REFUSED: Decision.REFUSE,
    Answer.APPEALED: Decision.APPEAL,
    Answer.LEAVING: Decision.LEAVE,
}
_NO_BASIS: Final = "none named"
_NAME_CHARACTERS: Final = 200
_SOMEWHERE: Final = "XX"
"""Scenarios name jurisdictions in words; the docket wants a code, and this is its word for none."""


def words_of(order: Order, answer: Answer, person: str, waiting: tuple[int, int], until_s: int) -> str:
    """What the relay says, by its own code; empty where the order was not to it.

    Args:
        order: the scenario's.
        answer: as decided.
        person: whom it is about; empty for everybody.
        waiting: envelopes of the scope, and bytes of their ciphertext.
        until_s: until when what was ordered holds; 0: it does not.
    """
    if answer is Answer.NOT_OURS:
        return ""
    filed = docket.Order(
        kind=_KINDS[order.kind],
        issuer=order.issuer[:_NAME_CHARACTERS],
        jurisdiction=_SOMEWHERE,
        legal_basis=order.basis[:_NAME_CHARACTERS] or _NO_BASIS,
        received_s=order.date.unix_s,
        deadline_s=order.deadline.unix_s if order.deadline else 0,
        scope=Scope(ScopeKind.ACCOUNT, person) if person else Scope(),
    )
    columns = column_names() if order.kind == "subscriber-record" and answer is Answer.PROVIDED else ()
    facts = Facts(found=1, columns=columns, envelopes=waiting[0], body_bytes=waiting[1], until_s=until_s)
    return answers.answer_to(filed, _DECISIONS[answer], facts).text
