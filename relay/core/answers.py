"""What a blind relay truthfully answers to each kind of order, and what must not be claimed beside it.

An answer is made from the order, the policy's decision and facts: what was found when the order was served. Whatever is
not among the facts is not in the answer. The second half of each text is what the answer does not show; it is part of
the answer, so that nobody quotes the first half alone.

Sources: docs/orders.md, which names the law and the record behind each line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum, unique
from types import MappingProxyType
from typing import Final

from relay.core.docket import Order, OrderKind
from relay.core.policy import Decision
from wire.limits import HASH_BYTES

__all__ = ["NOT_CLAIMED", "Answer", "Captured", "Facts", "Outcome", "answer_to"]

_NOTHING: Final = bytes(HASH_BYTES)


@unique
class Outcome(StrEnum):
    """What an answer came to."""

    GIVEN = "given"
    """What is held was handed over, or what was asked was done."""
    CIPHERTEXT = "ciphertext"
    """Ciphertext and declared metadata were handed over; no content could be."""
    REFUSED = "refused"
    """Nothing was handed over or done."""
    NOTHING_HELD = "nothing-held"
    """There was nothing to hand over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """What an order has recorded as it passed (capture.py), by the file that was handed over.

    Args:
        from_s: when it began, Unix time in seconds.
        to_s: when it ended.
        mailboxes: how many were covered.
        events: how many are recorded.
        stored: how many of these are envelopes that came in.
        body_bytes: of ciphertext, repeats included.
        lost: events that are counted and not recorded.
        pauses: how often it was interrupted.
    """

    from_s: int = 0
    to_s: int = 0
    mailboxes: int = 0
    events: int = 0
    stored: int = 0
    body_bytes: int = 0
    lost: int = 0
    pauses: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found when an order was served.

    Args:
        found: how many accounts, mailboxes or tenants of the scope there are; 0: nobody.
        columns: what was handed over, by table and column of the schema (wire/held.py).
        envelopes: of the scope that wait now.
        body_bytes: of their ciphertext.
        until_s: until when what was ordered holds, Unix time in seconds.
        evidence: SHA-256 of the manifest of the disclosure, or of the file, that was handed over.
        captured: what that file has, where it is one of what passed.
        sealed: whether the order's text is sealed in the log.
    """

    found: int = 0
    columns: tuple[str, ...] = ()
    envelopes: int = 0
    body_bytes: int = 0
    until_s: int = 0
    evidence: bytes = _NOTHING
    captured: Captured | None = None
    sealed: bool = False

    @property
    def handed_over(self) -> bool:
        """Whether bytes left the relay."""
        return self.evidence != _NOTHING


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer.

    Args:
        outcome: what it came to.
        text: what is said, with what must not be claimed.
        given: the columns that were handed over.
        evidence: SHA-256 of what was handed over; zeros: nothing.
    """

    outcome: Outcome
    text: str
    given: tuple[str, ...] = ()
    evidence: bytes = _NOTHING

    @property
    def honoured(self) -> bool:
        """Whether the order counts as honoured on the docket."""
        return self.outcome is not Outcome.REFUSED


NOT_CLAIMED: Final[Mapping[OrderKind, str]] = MappingProxyType(
    {
        OrderKind.WHOLESALE: "that metadata is nothing: who is a customer, how much each mailbox gets and when, is "
        "in the store, and is declared",
        OrderKind.CONTENT: "that messages which were delivered and erased never existed",
        OrderKind.INTERCEPTION: "that a changed client is impossible: whoever can make a person install one reads "
        "what that person reads",
        OrderKind.SUBSCRIBER: "that the relay knows nothing about a person: each column that it holds is listed",
        OrderKind.METADATA: "that it could not be collected from now on",
        OrderKind.PEN_REGISTER: "that the design prevents it: a relay can be compelled to write down, from service "
        "on, which link hands what size to which mailbox and when",
        OrderKind.PRESERVATION: "that nothing changed: ciphertext that would have been erased is kept",
        OrderKind.KEYS: "that there are no keys: the relay's signing key and its link keys exist. They would let "
        "somebody act as this relay towards devices from then on, and open frames of links that stand; behind those "
        "frames is ciphertext",
        OrderKind.DECRYPT: "immunity from an order to redesign the service, such as a technical capability notice "
        "under section 253 of the United Kingdom's Investigatory Powers Act 2016",
        OrderKind.WEAKNESS: "that targeted notices are barred: section 317ZG of Australia's Telecommunications Act "
        "1997 forbids to require a systemic weakness, and no more",
        OrderKind.GHOST: "that it cannot be tried, or that a false key at the very first contact shows by itself: "
        "that one only shows when safety numbers are compared",
        OrderKind.SECRECY: "that the absence of a statement proves an order, or its presence none",
        OrderKind.SEIZURE: "that memory holds nothing but ciphertext, without the search that the verifier makes",
        OrderKind.LEAVE: "that leaving protects those who stay, or that the country's carriers cannot be told to "
        "block the service anyway",
    }
)

_NO_KEY: Final = "The relay holds no key that opens content"


def answer_to(order: Order, decision: Decision, facts: Facts) -> Answer:
    """The answer to an order.

    Args:
        order: what was asked.
        decision: what the policy says; an appeal that has not been decided counts as a refusal for now.
        facts: what was found and done.
    """
    honoured = decision is Decision.HONOUR
    outcome, said = _ANSWERS[order.kind](order, honoured, facts)
    if decision is Decision.LEAVE:
        said += " If the order stands at its deadline, the relay ends its service in this jurisdiction."
    if decision is Decision.APPEAL:
        said += " The order is contested."
    text = f"{said} Not claimed: {NOT_CLAIMED[order.kind]}."
    # Where nothing of this order was handed over, what was found is no evidence of it.
    evidence = facts.evidence if outcome in {Outcome.GIVEN, Outcome.CIPHERTEXT} else _NOTHING
    return Answer(outcome, text, facts.columns, evidence)


def date_of(time_s: int) -> str:
    """A day, as texts name it."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d")


def time_of(time_s: int) -> str:
    """A minute of a day, as texts name it."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%H:%M")


def _content(order: Order, honoured: bool, facts: Facts) -> tuple[Outcome, str]:
    whose = "of all mailboxes" if order.kind is OrderKind.WHOLESALE else "of the mailboxes asked for"
    refused = "" if honoured else "Refused by policy as a demand for content. "
    if order.kind is not OrderKind.WHOLESALE and not facts.found:
        return Outcome.NOTHING_HELD, f"{refused}There is no such account or mailbox here."
    if not facts.handed_over:
        outcome = Outcome.NOTHING_HELD if honoured else Outcome.REFUSED
        return outcome, f"{refused}Impossible in fact: {_NO_KEY[0].lower()}{_NO_KEY[1:]}. Nothing was handed over."
    return Outcome.CIPHERTEXT, (
        f"{refused}{_NO_KEY}. Handed over was what it holds {whose}: {facts.envelopes} undelivered envelopes, "
        f"{facts.body_bytes} bytes of ciphertext, and the declared metadata. Delivered messages are erased and are not "
        "in it."
    )


def _interception(order: Order, honoured: bool, facts: Facts) -> tuple[Outcome, str]:
    if not honoured:
        return Outcome.REFUSED, f"{_NO_KEY}: frames that pass are ciphertext. No capture was set up."
    if facts.captured is None or not facts.handed_over:
        return Outcome.NOTHING_HELD, f"{_NO_KEY}: frames that pass are ciphertext. Nothing was captured."
    return Outcome.CIPHERTEXT, (
        f"{_NO_KEY}. Envelopes were recorded as they passed, {_recorded(facts.captured)} Each has its ciphertext, "
        f"{facts.captured.body_bytes} bytes with repeats, the links' devices, mailbox, padded size and time."
    )


def _subscriber(order: Order, honoured: bool, facts: Facts) -> tuple[Outcome, str]:
    if not honoured:
        return Outcome.REFUSED, "Refused by policy."
    if not facts.found:
        return Outcome.NOTHING_HELD, "There is no such account or mailbox here."
    return Outcome.GIVEN, (
        f"Given is every column that the relay holds about this person, {len(facts.columns)} in all, as its schema "
        "lists them; the person gets the same bytes. When somebody was last seen is not among them: it is not kept."
    )


def _metadata(order: Order, honoured: bool, facts: Facts) -> tuple[Outcome, str]:
    if not honoured:
        return Outcome.REFUSED, "Refused by policy."
    return Outcome.NOTHING_HELD, (
        "Nothing is held of who wrote to whom: a stored envelope names no sender, and the log names nobody. What is "
        "held of a person is answered to an order for the subscriber record."
    )


def _pen_register(order: Order, honoured: bool, facts: Facts) -> tuple[Outcome, str]:
    if not honoured:
        return Outcome.REFUSED, "No record was begun of which link hands what to which mailbox."
    if facts.captured is None or not facts.handed_over:
        return Outcome.NOTHING_HELD, "No record was made of which link hands what to which mailbox."
    return Outcome.GIVEN, (
        f"It was recorded which link handed what to which mailbox, {_recorded(facts.captured)} Each has the links' "
        "devices, mailbox, padded size and time. No body was recorded, and nothing of before."
    )


def _recorded(captured: Captured) -> str:
    lost = f"{captured.lost} more did not fit the relay's buffer and are counted" if captured.lost else "none was lost"
    pauses = f", and it was interrupted {captured.pauses} times, as the file says" if captured.pauses else ""
    return (
        f"from {date_of(captured.from_s)} to {date_of(captured.to_s)}: {captured.events} events of "
        f"{captured.mailboxes} mailboxes, {captured.stored} of them envelopes that came in; {lost}{pauses}."
    )


def _preservation(order: Order, honoured: bool, facts: Facts) -> tuple[Outcome, str]:
    if not honoured:
        return Outcome.REFUSED, "Refused by policy."
    if not facts.found:
        return Outcome.NOTHING_HELD, "There is no such account, mailbox or tenant here."
    return Outcome.GIVEN, (
        f"Expiry and deletion stop for {facts.found} mailboxes until {date_of(facts.until_s)}. An acknowledgement is "
        "kept and counts towards the person: the message is not delivered again. Its ciphertext stays until the "
        "preservation ends."
    )


def _keys(order: Order, honoured: bool, facts: Facts) -> tuple[Outcome, str]:
    said = f"{_NO_KEY}, so there is none to hand over or to put in escrow; the disclosure shows it."
    if honoured:
        return Outcome.NOTHING_HELD, said
    return Outcome.REFUSED, f"{said} The relay's own keys were not handed over."


def _decrypt(order: Order, honoured: bool, facts: Facts) -> tuple[Outcome, str]:
    return Outcome.REFUSED, f"{_NO_KEY}, so it can decrypt nothing, and there is no protection of its own to remove."


def _weakness(order: Order, honoured: bool, facts: Facts) -> tuple[Outcome, str]:
    return Outcome.REFUSED, "No weakness was built. It would be one for every device that runs the same program."


def _ghost(order: Order, honoured: bool, facts: Facts) -> tuple[Outcome, str]:
    return Outcome.REFUSED, (
        "No device was added. A device list counts only with the signature of the account's own key, which the relay "
        "does not hold, and senders refuse a list that lacks it: the attempt is an error at each of them, at once."
    )


def _secrecy(order: Order, honoured: bool, facts: Facts) -> tuple[Outcome, str]:
    if not honoured:
        return Outcome.REFUSED, "Refused: what this order is about stands in the log as text."
    if not facts.sealed:
        return Outcome.REFUSED, (
            "Not sealed: by the policy for this jurisdiction the law there cannot seal it. What this order is about "
            "stands in the log as text."
        )
    return Outcome.GIVEN, "The text is sealed in the log for the time ordered; that there is an order is not."


def _seizure(order: Order, honoured: bool, facts: Facts) -> tuple[Outcome, str]:
    if not facts.handed_over:
        return Outcome.REFUSED, "No machine was handed over."
    return Outcome.CIPHERTEXT, (
        f"{_NO_KEY}. What a seized machine holds was handed over: store, log and configuration, with "
        f"{facts.envelopes} undelivered envelopes of ciphertext, and the declared metadata."
    )


def _leave(order: Order, honoured: bool, facts: Facts) -> tuple[Outcome, str]:
    if not honoured:
        return Outcome.REFUSED, "Refused: the service is neither moved nor closed."
    return Outcome.GIVEN, (
        "The service in this jurisdiction ends in order: it is announced, what waits is delivered or expires at its "
        "usual time, and devices elsewhere are not affected. Servers are not moved there."
    )


_ANSWERS: Final[Mapping[OrderKind, Callable[[Order, bool, Facts], tuple[Outcome, str]]]] = MappingProxyType(
    {
        OrderKind.WHOLESALE: _content,
        OrderKind.CONTENT: _content,
        OrderKind.INTERCEPTION: _interception,
        OrderKind.SUBSCRIBER: _subscriber,
        OrderKind.METADATA: _metadata,
        OrderKind.PEN_REGISTER: _pen_register,
        OrderKind.PRESERVATION: _preservation,
        OrderKind.KEYS: _keys,
        OrderKind.DECRYPT: _decrypt,
        OrderKind.WEAKNESS: _weakness,
        OrderKind.GHOST: _ghost,
        OrderKind.SECRECY: _secrecy,
        OrderKind.SEIZURE: _seizure,
        OrderKind.LEAVE: _leave,
    }
)
