"""Policies: what the relay answers to each kind of order, and whether a disclosure shows what a seizure would find.

Here is decided; relay/ carries out, and sim/orders/service.py says what follows for a jurisdiction.
"""

from enum import Enum, unique
from typing import Final

from sim.scenario.places import Jurisdiction
from sim.scenario.timeline import ORDER_KINDS, Order

__all__ = ["CONTENT_KINDS", "Answer", "answer_to", "discloses"]


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
