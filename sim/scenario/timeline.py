"""Orders, announcements, and what is asserted of a run."""

from typing import Annotated, Final, Literal, get_args

from msgspec import Meta, field

from sim.scenario.base import Count, Moment, Name, Part, Share, Text

__all__ = [
    "ABOUT_EVERYBODY",
    "ORDER_KINDS",
    "Announcement",
    "Answered",
    "Arrived",
    "Assertion",
    "BacklogBelow",
    "CapturedAtLeast",
    "Extension",
    "FaultsHappened",
    "GhostRefused",
    "LogComplete",
    "NoneDeliveredTwice",
    "NoneLost",
    "NothingRead",
    "Order",
    "SentAtLeast",
    "Service",
    "VerdictIs",
]

OrderKind = Literal[
    "wholesale-content",
    "content-of-person",
    "interception",
    "subscriber-record",
    "past-metadata",
    "prospective-metadata",
    "preservation",
    "key-disclosure",
    "decryption-capability",
    "weakness",
    "ghost-device",
    "secrecy",
    "seizure",
    "block",
    "localise",
]
ORDER_KINDS: Final[tuple[str, ...]] = get_args(OrderKind)
ABOUT_EVERYBODY: Final = frozenset({"wholesale-content", "block", "localise"})
"""Kinds that name nobody."""


class Extension(Part, frozen=True):
    """`[[order.extension]]`: on `on` the deadline is moved to `deadline`."""

    on: Moment
    deadline: Moment


class Order(Part, frozen=True):
    """`[[order]]`: somebody demands something of the relay, or of the carriers between it and its devices.

    Attributes:
        id: as assertions quote it.
        date: when it is served.
        kind: one of `ORDER_KINDS`.
        jurisdiction: whose law.
        issuer: the authority.
        basis: the law that it names.
        deadline: by when; None: none is set.
        extension: how the deadline was moved, in order.
        withdrawn: when it was taken back; None: never.
        person: the address it is about, for the kinds about one; empty: drawn from the people of the jurisdiction.
        sealed: whether the law seals its text in the public log.
        opened: when the seal is opened there; None: never.
        disclose: whether a disclosure is made of what the relay holds at that moment: by default for the kinds that
            reach for content, keys or machines.
        says: what the record tells of it, in a sentence.
    """

    id: Name
    date: Moment
    kind: OrderKind
    jurisdiction: Text
    issuer: Text
    basis: str = ""
    deadline: Moment | None = None
    extension: tuple[Extension, ...] = ()
    withdrawn: Moment | None = None
    person: str = ""
    sealed: bool = False
    opened: Moment | None = None
    disclose: bool | None = None
    says: str = ""


class Announcement(Part, frozen=True):
    """`[[announcement]]`: somebody says something in public; some of it takes effect.

    Attributes:
        date: when.
        by: who.
        says: what.
        effect: nothing; the relay will leave `jurisdiction` on `on`; that day is moved to `on`; it stays after all.
        jurisdiction: for the effects.
        on: the day of leaving.
    """

    date: Moment
    by: Text
    says: Text
    effect: Literal["none", "exit", "exit-moved", "stay"] = "none"
    jurisdiction: str = ""
    on: Moment | None = None


class _Assertion(Part, frozen=True, tag_field="check"):
    """`[[assert]]`: something that must hold, or the run fails."""


class NothingRead(_Assertion, frozen=True, tag="nothing-read"):
    """No disclosure let anybody read a content; of one `order`, or of all."""

    order: str = ""


class VerdictIs(_Assertion, frozen=True, tag="verdict"):
    """The verdict on the disclosure of `order` is `is`."""

    order: Name
    is_: Literal["BLIND", "NOT BLIND", "INCOMPLETE"] = field(name="is")


class Service(_Assertion, frozen=True, tag="service"):
    """On `on`, people of `jurisdiction` are `served`, the service is `ending`, has `ended`, or is `blocked`."""

    jurisdiction: Text
    on: Moment
    is_: Literal["served", "ending", "ended", "blocked"] = field(name="is")


class NoneLost(_Assertion, frozen=True, tag="no-receipted-envelope-lost"):
    """Every receipted envelope was delivered, is held, was withdrawn, or ran out of its time."""


class NoneDeliveredTwice(_Assertion, frozen=True, tag="none-delivered-twice"):
    """No person was shown a message twice on one device."""


class Arrived(_Assertion, frozen=True, tag="arrived"):
    """At the end at least this share of what was receipted has reached its device."""

    at_least: Share


class BacklogBelow(_Assertion, frozen=True, tag="backlog-below"):
    """The relay never holds `envelopes` or more undelivered ones, or not on `on`."""

    envelopes: Count
    on: Moment | None = None


class Answered(_Assertion, frozen=True, tag="answered"):
    """The relay's answer to `order` was `as`."""

    order: Name
    as_: Literal["provided", "refused", "appealed", "leaving", "not-ours"] = field(name="as")


class GhostRefused(_Assertion, frozen=True, tag="ghost-refused"):
    """The device that `order` would have added was refused, and nobody encrypted to it."""

    order: Name


class CapturedAtLeast(_Assertion, frozen=True, tag="captured"):
    """While `order` was honoured, at least so many envelopes were recorded as they were stored."""

    order: Name
    at_least: Annotated[int, Meta(ge=1)] = 1


class LogComplete(_Assertion, frozen=True, tag="log-complete"):
    """Every order that was served has its leaf in the public log, and its answer; the log verifies, and only grew."""


class FaultsHappened(_Assertion, frozen=True, tag="faults-happened"):
    """Faults of that `kind` happened at least so often."""

    kind: Literal["crash", "torn-write", "full-disk", "slow-disk", "clock-jump", "broker-restart", "partition"]
    at_least: Annotated[int, Meta(ge=1)] = 1


class SentAtLeast(_Assertion, frozen=True, tag="sent-at-least"):
    """At least so many messages were written: an empty run proves nothing."""

    messages: Annotated[int, Meta(ge=1)]


Assertion = (
    NothingRead
    | VerdictIs
    | Service
    | NoneLost
    | NoneDeliveredTwice
    | Arrived
    | BacklogBelow
    | Answered
    | GhostRefused
    | CapturedAtLeast
    | LogComplete
    | FaultsHappened
    | SentAtLeast
)
