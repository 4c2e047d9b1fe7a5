"""A whole scenario: read from TOML, checked field by field, then as a whole; scaled and changed by one line.

    scenario = load(path)                        ScenarioError names the key and what is wrong with it
    scenario = load(path, ["relay.protection = 'global-pin-key'", "days = 30"])
    scenario = scaled(scenario, people=40)       the same companies, smaller, in proportion

Rules: what tables quote must exist; every date of the timeline lies within the run; nothing unknown is passed over.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, field
from msgspec.structs import replace

from sim.scenario.base import DAY_S, Moment, Name, Part, ScenarioError, decode_hook
from sim.scenario.conduct import Fault, Network, Partition, Traffic, Uniform
from sim.scenario.places import Jurisdiction, People, Relay, Tenant
from sim.scenario.timeline import (
    ABOUT_EVERYBODY,
    ORDER_KINDS,
    Announcement,
    Answered,
    Assertion,
    CapturedAtLeast,
    GhostRefused,
    NothingRead,
    Order,
    Service,
    VerdictIs,
)
from wire.errors import FormatError
from wire.identity import check_account, check_domain

__all__ = ["Scenario", "from_toml", "load", "scaled"]

FILE_BYTES_MAX: Final = 1_048_576
CODES_OF_NO_COUNTRY: Final = ("XX", *(f"X{letter}" for letter in "ABCDEFGHIJLMNOPQRSTUVWYZ"))
"""Of those that ISO 3166 leaves to its users. XK is not here: it is in use for Kosovo."""


class Scenario(Part, frozen=True, kw_only=True):
    """One scenario.

    Attributes:
        name: of the run's files.
        title: one line.
        description: what it is about.
        sources: where facts and dates come from.
        crypto: `sized` or `real` (docs/scenarios.md).
        seed: unless another is given.
        start: when the run begins.
        days: how long it lasts.
        settle_hours: at the end everybody comes online, nobody writes and nothing fails for so long.
        relay: the machine.
        jurisdiction: countries.
        tenant: companies.
        people: who knows whom.
        traffic: what they send.
        network: what becomes of packets.
        fault: what goes wrong.
        order: what is demanded.
        announcement: what is said.
        checks: what must hold (`[[assert]]`).
    """

    name: Name
    title: str = ""
    description: str = ""
    sources: tuple[str, ...] = ()
    crypto: Literal["sized", "real"] = "sized"
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 1
    start: Moment
    days: Annotated[float, Meta(gt=0.0, le=1_000.0)]
    settle_hours: Annotated[float, Meta(ge=0.0, le=72.0)] = 2.0
    relay: Relay = field(default_factory=Relay)
    jurisdiction: Annotated[tuple[Jurisdiction, ...], Meta(min_length=1)]
    tenant: Annotated[tuple[Tenant, ...], Meta(min_length=1)]
    people: People = field(default_factory=People)
    traffic: Traffic = field(default_factory=Traffic)
    network: Network = field(default_factory=Network)
    fault: tuple[Fault, ...] = ()
    order: tuple[Order, ...] = ()
    announcement: tuple[Announcement, ...] = ()
    checks: Annotated[tuple[Assertion, ...], Meta(min_length=1)] = field(name="assert")

    @property
    def end(self) -> Moment:
        """When the run ends, before it settles."""
        return self.start.plus_s(self.days * DAY_S)

    @property
    def people_count(self) -> int:
        """People of all tenants."""
        return sum(tenant.people for tenant in self.tenant)

    def jurisdiction_of(self, name: str) -> Jurisdiction:
        """The jurisdiction of that name."""
        return next(one for one in self.jurisdiction if one.name == name)

    @property
    def codes(self) -> dict[str, str]:
        """The code of each jurisdiction in the public log, by its name; whoever names none gets one of no country."""
        named = {one.code for one in self.jurisdiction}
        unnamed = (code for code in CODES_OF_NO_COUNTRY if code not in named)
        return {one.name: one.code or next(unnamed) for one in self.jurisdiction}


def load(path: Path, changes: Sequence[str] = ()) -> Scenario:
    """Read a scenario's file.

    Args:
        path: the file.
        changes: lines such as `relay.protection = "global-pin-key"`, which replace what the file says.

    Raises:
        ScenarioError: it is not a scenario, or a change is not one line of TOML.
        OSError: it cannot be read.
    """
    if path.stat().st_size > FILE_BYTES_MAX:
        raise ScenarioError(path.name, f"has more than {FILE_BYTES_MAX} bytes")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ScenarioError(path.name, "is not UTF-8") from None
    return from_toml(text, changes)


def from_toml(text: str, changes: Sequence[str] = ()) -> Scenario:
    """Make a scenario of a text.

    Raises:
        ScenarioError: it is not one.
    """
    tree = _parsed(text, "scenario")
    for change in changes:
        _change(tree, change)
    try:
        scenario = msgspec.convert(tree, Scenario, strict=True, dec_hook=decode_hook)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `")
        raise ScenarioError(place.removesuffix("`").removeprefix("$.") or "scenario", problem) from None
    _check(scenario)
    return scenario


def _parsed(text: str, what: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(what, f"is not TOML: {error}") from None


def _change(tree: dict[str, Any], line: str) -> None:
    """Put what one line says into the tree; tables of an array are counted from 0: `jurisdiction.0.policy = …`."""
    key, equals, value = line.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise ScenarioError("change", f"{line[:80]!r} is not KEY = VALUE")
    new = _parsed(f"value = {value}", f"change {key.strip()}")["value"]
    place: Any = tree
    for part in path[:-1]:
        place = _inside(place, part, line)
    last = path[-1]
    if isinstance(place, list):
        _inside(place, last, line)
        place[int(last)] = new
    else:
        place[last] = new


def _inside(place: Any, part: str, line: str) -> Any:
    if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
        return place[int(part)]
    if isinstance(place, dict):
        return place.setdefault(part, {})
    raise ScenarioError("change", f"{line[:80]!r}: there is no {part!r}")


def scaled(scenario: Scenario, people: int) -> Scenario:
    """The same scenario with about so many people: each company in proportion, and two at least.

    Bounds of assertions are not scaled: they say what must hold at any size, or belong to another scenario.
    """
    factor = people / scenario.people_count
    tenants = tuple(replace(tenant, people=max(2, round(tenant.people * factor))) for tenant in scenario.tenant)
    return replace(scenario, tenant=tenants)


# ---- as a whole


def _check(scenario: Scenario) -> None:
    names = _unique("jurisdiction.name", (one.name for one in scenario.jurisdiction))
    domains = _unique("tenant.domain", (one.domain for one in scenario.tenant))
    orders = _unique("order.id", (one.id for one in scenario.order))
    _check_codes(scenario)
    _quoted("relay.jurisdiction", scenario.relay.jurisdiction, names, may_be_empty=True)
    _check_places(scenario, names)
    _check_conduct(scenario, names)
    _check_timeline(scenario, names, domains)
    for check in scenario.checks:
        match check:
            case VerdictIs() | Answered() | GhostRefused() | CapturedAtLeast():
                _quoted("assert.order", check.order, orders)
            case NothingRead():
                _quoted("assert.order", check.order, orders, may_be_empty=True)
            case Service():
                _quoted("assert.jurisdiction", check.jurisdiction, names)
                _within(scenario, "assert.on", check.on)
            case _:
                pass


def _check_codes(scenario: Scenario) -> None:
    named = _unique("jurisdiction.code", (one.code for one in scenario.jurisdiction if one.code))
    unnamed = len(scenario.jurisdiction) - len(named)
    if unnamed > len(set(CODES_OF_NO_COUNTRY) - set(named)):
        raise ScenarioError("jurisdiction.code", f"{unnamed} jurisdictions name none: name some")


def _check_places(scenario: Scenario, names: Mapping[str, None]) -> None:
    for tenant in scenario.tenant:
        try:
            check_domain(tenant.domain)
        except FormatError as error:
            raise ScenarioError("tenant.domain", error.problem) from None
        _quoted("tenant.jurisdiction", tenant.jurisdiction, names)
        for abroad in tenant.abroad:
            _quoted("tenant.abroad", abroad, names)
        if sum(tenant.abroad.values()) > 1:
            raise ScenarioError("tenant.abroad", "has shares of more than 1 in all")
    for one in scenario.jurisdiction:
        for kind in one.answers:
            if kind not in ORDER_KINDS:
                raise ScenarioError("jurisdiction.answers", f"{kind!r} is no kind of order")
        if len({one.answers[kind] for kind in ("block", "localise") if kind in one.answers}) > 1:
            raise ScenarioError("jurisdiction.answers", "block and localise are one kind to the relay: one course")


def _check_conduct(scenario: Scenario, names: Mapping[str, None]) -> None:
    traffic = scenario.traffic
    if not sum(traffic.hours):
        raise ScenarioError("traffic.hours", "has no weight above 0")
    for field_name in ("chat_bytes", "mail_bytes"):
        size = getattr(traffic, field_name)
        if isinstance(size, Uniform) and size.least_bytes > size.most_bytes:
            raise ScenarioError(f"traffic.{field_name}", "has its least above its most")
    for fault in scenario.fault:
        if not fault.at and not fault.per_day:
            raise ScenarioError("fault", "needs `at` or `per_day`")
        for moment in fault.at:
            _within(scenario, "fault.at", moment)
        if isinstance(fault, Partition):
            _quoted("fault.jurisdiction", fault.jurisdiction, names, may_be_empty=True)


def _check_timeline(scenario: Scenario, names: Mapping[str, None], domains: Mapping[str, None]) -> None:
    for order in scenario.order:
        where = f"order {order.id}"
        _quoted(f"{where}: jurisdiction", order.jurisdiction, names)
        _within(scenario, f"{where}: date", order.date)
        _check_extensions(scenario, order, where)
        if order.opened is not None and (not order.sealed or not order.date < order.opened):
            raise ScenarioError(f"{where}: opened", "what is opened was sealed, and before")
        for moment in (order.deadline, order.withdrawn):
            if moment is not None and moment < order.date:
                raise ScenarioError(where, "its deadline or withdrawal lies before its date")
        if order.person:
            try:
                domain = check_account(order.person).partition("@")[2]
            except FormatError as error:
                raise ScenarioError(f"{where}: person", error.problem) from None
            _quoted(f"{where}: person", domain, domains)
            if order.kind in ABOUT_EVERYBODY:
                raise ScenarioError(f"{where}: person", f"{order.kind} is about everybody")
    for announcement in scenario.announcement:
        _within(scenario, "announcement.date", announcement.date)
        _quoted("announcement.jurisdiction", announcement.jurisdiction, names, may_be_empty=True)
        if announcement.effect != "none" and not announcement.jurisdiction:
            raise ScenarioError("announcement.jurisdiction", f"is missing for the effect {announcement.effect!r}")
        if announcement.effect in ("exit", "exit-moved") and announcement.on is None:
            raise ScenarioError("announcement.on", f"is missing for the effect {announcement.effect!r}")


def _check_extensions(scenario: Scenario, order: Order, where: str) -> None:
    before = order.deadline
    for extension in order.extension:
        if before is None:
            raise ScenarioError(f"{where}: extension", "there is no deadline to extend")
        _within(scenario, f"{where}: extension.on", extension.on)
        if not (order.date < extension.on < extension.deadline and before < extension.deadline):
            raise ScenarioError(f"{where}: extension", "ends no later than it was granted, or than the deadline before")
        before = extension.deadline


def _unique(what: str, names: Iterable[str]) -> dict[str, None]:
    seen: dict[str, None] = {}
    for name in names:
        if name in seen:
            raise ScenarioError(what, f"{name!r} is there twice")
        seen[name] = None
    return seen


def _quoted(what: str, name: str, known: Mapping[str, None], may_be_empty: bool = False) -> None:
    if name not in known and not (may_be_empty and not name):
        raise ScenarioError(what, f"{name!r} is not one of {', '.join(sorted(known)) or 'none'}")


def _within(scenario: Scenario, what: str, moment: Moment) -> None:
    if moment < scenario.start or scenario.end < moment:
        raise ScenarioError(what, f"{moment} is not between {scenario.start} and {scenario.end}")
