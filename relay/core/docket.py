"""The docket: orders that authorities have served on this relay, what became of each, and by which policy.

    RECEIVED ─extend─▶ EXTENDED ─┐
        │  └──appeal─▶ APPEALED ─┼─answer─▶ HONOURED | REFUSED
        └────────────────────────┴─withdraw─▶ WITHDRAWN      (a refused order can still be extended or withdrawn)

    HONOURED until a day ─its day has passed, or take_back─▶ WITHDRAWN─▶ RELEASED       (a preservation)

    RECEIVED, EXTENDED, APPEALED ─capture─▶ CAPTURING ─answer─▶ HONOURED               (what passes from now on)
                                               └─withdraw─▶ WITHDRAWN ─answer─▶ HONOURED

It knows records, states and times that are handed in; policy.py says what is done, answers.py what is said, and
whoever writes the public log (relay/orders.py) keeps both. Nothing here asks whether an order is lawful: people do.

Rules: a number is given once; a state changes only along the arrows, and never backwards in time; what was received
stays as it was received, an extension is a record of its own.

Sources: docs/orders.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum, unique
from typing import Final

from wire.errors import BlindpostError, FormatError
from wire.identity import check_account, check_domain
from wire.limits import ID_BYTES

__all__ = [
    "CAPTURED_KINDS",
    "Docket",
    "DocketError",
    "Due",
    "Entry",
    "Order",
    "OrderKind",
    "OrderState",
    "Scope",
    "ScopeKind",
]

TEXT_CHARACTERS_MAX: Final = 2_000
NAME_CHARACTERS_MAX: Final = 200
TIME_S_MAX: Final = 2**33


@unique
class OrderKind(StrEnum):
    """What an order asks for (docs/orders.md)."""

    WHOLESALE = "wholesale"
    """All content of everybody."""
    CONTENT = "content"
    """Stored content of one person."""
    INTERCEPTION = "interception"
    """Content that passes from now on."""
    SUBSCRIBER = "subscriber"
    """What is on record about one person."""
    METADATA = "metadata"
    """Who wrote to whom and when, in the past."""
    PEN_REGISTER = "pen-register"
    """The same from now on."""
    PRESERVATION = "preservation"
    """Delete nothing of a mailbox for a time."""
    KEYS = "keys"
    """Hand over keys, or put them in escrow."""
    DECRYPT = "decrypt"
    """Decrypt, or remove the protection."""
    WEAKNESS = "weakness"
    """Build a weakness or a new capability."""
    GHOST = "ghost"
    """Add a device or swap a key without the person's knowledge."""
    SECRECY = "secrecy"
    """Tell nobody."""
    SEIZURE = "seizure"
    """The machines themselves."""
    LEAVE = "leave"
    """Close the service in the country, or move it there."""


@unique
class ScopeKind(StrEnum):
    """Whom an order is about."""

    ALL = "all"
    TENANT = "tenant"
    ACCOUNT = "account"
    MAILBOX = "mailbox"


@unique
class OrderState(StrEnum):
    """Where an order stands."""

    RECEIVED = "received"
    EXTENDED = "extended"
    APPEALED = "appealed"
    CAPTURING = "capturing"
    """It is honoured by recording what passes until its deadline; the answer comes at the end."""
    HONOURED = "honoured"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    RELEASED = "released"
    """A preservation that has ended, and what was kept is erased."""


CAPTURED_KINDS: Final = frozenset({OrderKind.INTERCEPTION, OrderKind.PEN_REGISTER})
"""Kinds that are honoured by recording what passes (capture.py)."""
_UNDECIDED: Final = frozenset({OrderState.RECEIVED, OrderState.EXTENDED, OrderState.APPEALED})
_OPEN: Final = _UNDECIDED | {OrderState.CAPTURING}
_PERSONAL: Final = frozenset(
    {OrderKind.CONTENT, OrderKind.SUBSCRIBER, OrderKind.METADATA, OrderKind.PEN_REGISTER, OrderKind.GHOST}
)


class DocketError(BlindpostError):
    """The docket has no such order, or its state does not allow that."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom an order is about.

    Args:
        kind: all, a tenant, an account or a mailbox.
        name: the tenant's domain, the account's address, or the mailbox's 32 hexadecimal digits; empty for all.

    Raises:
        FormatError: the name is none of that kind.
    """

    kind: ScopeKind = ScopeKind.ALL
    name: str = ""

    def __post_init__(self) -> None:
        if self.kind is ScopeKind.ALL and self.name:
            raise FormatError("order scope", "names somebody, and is about everybody")
        if self.kind is ScopeKind.TENANT:
            check_domain(self.name)
        elif self.kind is ScopeKind.ACCOUNT:
            check_account(self.name)
        elif self.kind is ScopeKind.MAILBOX and not _is_mailbox(self.name):
            raise FormatError("order scope", "is no mailbox in lower-case hexadecimal", 2 * ID_BYTES)

    def __str__(self) -> str:
        return self.name or self.kind.value

    def covers(self, mailbox_id: bytes, account: str) -> bool:
        """Whether a mailbox, and the account whose it is, are within it."""
        if self.kind is ScopeKind.ACCOUNT:
            return account == self.name
        if self.kind is ScopeKind.MAILBOX:
            return mailbox_id.hex() == self.name
        return self.kind is ScopeKind.ALL or account.rpartition("@")[2] == self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order as it was received.

    Args:
        kind: what it asks for.
        issuer: who issued it, in its own words.
        jurisdiction: two capital letters of ISO 3166, or `XX` where none fits.
        legal_basis: the law that it names, or what it says in the place of one.
        received_s: Unix time in seconds.
        deadline_s: until when, Unix time in seconds; 0: it names none.
        scope: whom it is about.
        secret_until_s: until when its text may not be published, Unix time in seconds; 0: it may.

    Raises:
        FormatError: a field is empty, too long or out of range, or the kind needs another scope.
    """

    kind: OrderKind
    issuer: str
    jurisdiction: str
    legal_basis: str
    received_s: int
    deadline_s: int = 0
    scope: Scope = field(default_factory=Scope)
    secret_until_s: int = 0

    def __post_init__(self) -> None:
        check_text("order issuer", self.issuer, NAME_CHARACTERS_MAX)
        check_text("order legal basis", self.legal_basis, NAME_CHARACTERS_MAX)
        check_jurisdiction(self.jurisdiction)
        for name, value in (
            ("received", self.received_s),
            ("deadline", self.deadline_s),
            ("secret until", self.secret_until_s),
        ):
            if not 0 <= value <= TIME_S_MAX:
                raise FormatError(f"order {name}", "is out of range", TIME_S_MAX)
        if self.deadline_s and self.deadline_s < self.received_s:
            raise FormatError("order deadline", "is before the order was received", self.received_s)
        if self.kind in _PERSONAL and self.scope.kind not in {ScopeKind.ACCOUNT, ScopeKind.MAILBOX}:
            raise FormatError("order scope", f"{self.kind.value} is about one person: name an account or a mailbox")
        if self.kind is OrderKind.PRESERVATION and self.scope.kind is ScopeKind.ALL:
            raise FormatError("order scope", "preservation names an account, a mailbox or a tenant")
        if self.kind is OrderKind.WHOLESALE and self.scope.kind not in {ScopeKind.ALL, ScopeKind.TENANT}:
            raise FormatError("order scope", "wholesale is about everybody, or everybody of a tenant")


@dataclass(frozen=True, slots=True)
class Entry:
    """An order and what became of it.

    Args:
        number: its number on the docket, from 0.
        order: as it was received.
        state: where it stands.
        deadline_s: the present deadline, with its extensions; 0: none.
        changed_s: when the state last changed.
        extensions: how often the deadline was moved.
        until_s: until when a preservation that was honoured holds, Unix time in seconds; 0: nothing goes on.
        captured: whether recording began for it; its deadline is then the day on which that ends.
    """

    number: int
    order: Order
    state: OrderState
    deadline_s: int
    changed_s: int
    extensions: int = 0
    until_s: int = 0
    captured: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it still waits for its answer; one that was captured does so even after it was withdrawn."""
        return self.state in _OPEN or (self.captured and self.state is OrderState.WITHDRAWN)


@dataclass(frozen=True, slots=True)
class Due:
    """A deadline that has passed.

    Args:
        number: the order's number.
        answered: whether it was refused before; else it was never answered.
    """

    number: int
    answered: bool


class Docket:
    """All orders on one relay.

    Args:
        entries: what was on it before, in the order of their numbers.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = list(entries)
        self._passed: set[int] = set()
        if [entry.number for entry in self._entries] != list(range(len(self._entries))):
            raise FormatError("docket", "is not numbered from 0 without gaps")

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All orders, by number."""
        return tuple(self._entries)

    def entry(self, number: int) -> Entry:
        """One order.

        Raises:
            DocketError: there is none of that number.
        """
        if not 0 <= number < len(self._entries):
            raise DocketError(f"there is no order {number}; the docket has {len(self._entries)}")
        return self._entries[number]

    def receive(self, order: Order) -> Entry:
        """Put an order on the docket."""
        entry = Entry(len(self._entries), order, OrderState.RECEIVED, order.deadline_s, order.received_s)
        self._entries.append(entry)
        return entry

    def extend(self, number: int, deadline_s: int, now_s: int) -> Entry:
        """The authority moves the deadline. A refused order stays refused.

        Raises:
            DocketError: it is settled, or the new deadline is not later.
        """
        entry = self._allowed(number, now_s, _OPEN | {OrderState.REFUSED}, "extended")
        if deadline_s <= max(entry.deadline_s, now_s) or deadline_s > TIME_S_MAX:
            raise DocketError(f"order {number}: an extension must end later than the deadline before it, and than now")
        stays = entry.state in {OrderState.REFUSED, OrderState.CAPTURING}
        state = entry.state if stays else OrderState.EXTENDED
        self._passed.discard(number)
        extensions = entry.extensions + 1
        return self._set(replace(entry, state=state, deadline_s=deadline_s, changed_s=now_s, extensions=extensions))

    def appeal(self, number: int, now_s: int) -> Entry:
        """The relay contests it before a court; the answer waits.

        Raises:
            DocketError: it is settled.
        """
        return self._move(number, now_s, _UNDECIDED, OrderState.APPEALED, "appealed")

    def capture(self, number: int, until_s: int, now_s: int) -> Entry:
        """Recording of what passes begins; the deadline is from now on the day on which it ends.

        Raises:
            DocketError: it is settled or recorded already, of another kind, or the day has passed.
        """
        entry = self._allowed(number, now_s, _UNDECIDED, "captured")
        if entry.order.kind not in CAPTURED_KINDS:
            raise DocketError(f"order {number} is not about what passes: there is nothing to capture")
        if not now_s < until_s <= TIME_S_MAX:
            raise DocketError(f"order {number}: a capture ends later than now")
        self._passed.discard(number)
        capturing = OrderState.CAPTURING
        return self._set(replace(entry, state=capturing, deadline_s=until_s, changed_s=now_s, captured=True))

    def answer(self, number: int, honoured: bool, now_s: int, until_s: int = 0) -> Entry:
        """The relay answers.

        Args:
            number: the order's.
            honoured: or refused.
            now_s: Unix time in seconds.
            until_s: until when it preserves by that.

        Raises:
            DocketError: it is settled, or something was captured and it is to be refused.
        """
        states = _OPEN | {OrderState.WITHDRAWN} if self.check_answer(number, honoured).captured else _OPEN
        state = OrderState.HONOURED if honoured else OrderState.REFUSED
        return self._set(replace(self._move(number, now_s, states, state, "answered"), until_s=until_s))

    def check_answer(self, number: int, honoured: bool) -> Entry:
        """An order that can be answered so.

        Raises:
            DocketError: it is settled, or something was captured and it is to be refused.
        """
        entry = self.entry(number)
        if not entry.is_open:
            raise DocketError(f"order {number} is {entry.state.value}: it cannot be answered")
        if entry.captured and not honoured:
            raise DocketError(f"order {number} was captured: to say that it was refused would be untrue")
        return entry

    def withdraw(self, number: int, now_s: int) -> Entry:
        """The authority takes it back.

        Raises:
            DocketError: it was honoured or withdrawn before.
        """
        return self._move(number, now_s, _OPEN | {OrderState.REFUSED}, OrderState.WITHDRAWN, "withdrawn")

    def take_back(self, number: int, now_s: int) -> Entry:
        """The authority takes a preservation back before its day; `release` follows when what was kept is erased.

        Raises:
            DocketError: it is none, or was not honoured, or was taken back before.
        """
        if not self.entry(number).until_s:
            raise DocketError(f"order {number} preserves nothing: there is nothing to release")
        return self._move(number, now_s, frozenset({OrderState.HONOURED}), OrderState.WITHDRAWN, "released")

    def release(self, number: int, now_s: int) -> Entry:
        """A preservation has ended, and what was kept is erased.

        Raises:
            DocketError: it is none, or it holds until a later day and was not taken back.
        """
        entry = self.entry(number)
        if not entry.until_s or (entry.state is OrderState.HONOURED and now_s < entry.until_s):
            raise DocketError(f"order {number} is no preservation that has ended")
        states = frozenset({OrderState.HONOURED, OrderState.WITHDRAWN})
        return self._move(number, now_s, states, OrderState.RELEASED, "released")

    def next_deadline_s(self) -> int | None:
        """When the next deadline passes, Unix time in seconds; None if there is none."""
        return min((entry.deadline_s for entry in self._waiting()), default=None)

    def tick(self, now_s: int) -> tuple[Due, ...]:
        """The deadlines that have passed since it was last asked, in the order of their times."""
        due = [entry for entry in self._waiting() if entry.deadline_s <= now_s]
        due.sort(key=lambda entry: (entry.deadline_s, entry.number))
        self._passed.update(entry.number for entry in due)
        return tuple(Due(entry.number, entry.state is OrderState.REFUSED) for entry in due)

    def _waiting(self) -> list[Entry]:
        states = _OPEN | {OrderState.REFUSED}
        return [e for e in self._entries if e.deadline_s and e.state in states and e.number not in self._passed]

    def _move(self, number: int, now_s: int, states: frozenset[OrderState], state: OrderState, word: str) -> Entry:
        entry = self._allowed(number, now_s, states, word)
        return self._set(replace(entry, state=state, changed_s=now_s))

    def _allowed(self, number: int, now_s: int, states: frozenset[OrderState], word: str) -> Entry:
        entry = self.entry(number)
        if entry.state not in states:
            raise DocketError(f"order {number} is {entry.state.value}: it cannot be {word}")
        if now_s < entry.changed_s:
            raise DocketError(f"order {number} cannot be {word} before its last change, {entry.changed_s}")
        return entry

    def _set(self, entry: Entry) -> Entry:
        self._entries[entry.number] = entry
        return entry


def check_text(name: str, text: str, most: int) -> None:
    """Refuse text that is empty, too long, or not one printable line.

    Raises:
        FormatError: as said.
    """
    if not 0 < len(text) <= most:
        raise FormatError(name, f"has {len(text)} characters", most)
    if not text.isprintable() or text != text.strip():
        raise FormatError(name, "is not one line of printable characters without spaces around it")


def check_jurisdiction(code: str) -> None:
    """Refuse what is not two capital letters.

    Raises:
        FormatError: as said.
    """
    if len(code) != 2 or not code.isascii() or not code.isalpha() or not code.isupper():
        raise FormatError("jurisdiction", "must be two capital letters of ISO 3166", 2)


def _is_mailbox(name: str) -> bool:
    return len(name) == 2 * ID_BYTES and all(character in "0123456789abcdef" for character in name)
