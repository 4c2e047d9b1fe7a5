"""Where people are and what law holds there: jurisdictions, tenants, the contact graph, the relay itself."""

from typing import Annotated, Final, Literal, get_args

from msgspec import Meta, field

from sim.scenario.base import Count, Domain, Part, Positive, Share, Text

__all__ = ["PROTECTIONS", "Jurisdiction", "People", "Relay", "Tenant"]

Protection = Literal["blindpost", "global-pin-key", "hosted", "server-keys", "device-keys"]
PROTECTIONS: Final[tuple[str, ...]] = get_args(Protection)


class Relay(Part, frozen=True):
    """`[relay]`: the machine in the middle.

    Attributes:
        protection: whose keys protect the bodies: a generation of sim/generations/, or `blindpost`.
        escrow: bodies are sealed for a key of each device, of which the operator keeps a copy beside the mail.
        jurisdiction: where the machine stands; empty: nowhere that issues orders.
        store: `memory`, or `sqlite` on a disk; the disclosure is an SQLite file either way.
        retention_days: how long the relay keeps what nobody fetched.
        mailbox_envelopes_max: quota of one mailbox.
        mailbox_bytes_max: quota of one mailbox.
        redeliver_most_s: longest pause between two deliveries of what a device does not acknowledge.
    """

    protection: Protection = "blindpost"
    escrow: bool = False
    jurisdiction: str = ""
    store: Literal["memory", "sqlite"] = "memory"
    retention_days: Annotated[int, Meta(ge=1, le=30)] = 30
    mailbox_envelopes_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    mailbox_bytes_max: Annotated[int, Meta(ge=200_000, le=2**40)] = 256 * 1024 * 1024
    redeliver_most_s: Annotated[float, Meta(ge=5.0, le=86_400.0)] = 60.0


class Jurisdiction(Part, frozen=True):
    """`[[jurisdiction]]`: a country.

    Attributes:
        name: as other tables quote it.
        code: in the public log: two letters of ISO 3166; empty: one of those that stand for no country.
        policy: how the relay answers orders from there (sim/orders/policy.py).
        answers: for single kinds of order, another course than the policy's.
        enforcement: what the state does when a deadline passes unmet: nothing, or its carriers block the relay.
        drain_days: when the relay leaves, so many days before the end nobody writes to people there any more.
    """

    name: Text
    code: Annotated[str, Meta(pattern="^([A-Z]{2})?$")] = ""
    policy: Literal["lawful-access", "leave-rather", "comply", "refuse-all"] = "lawful-access"
    answers: dict[str, Literal["honour", "refuse", "appeal", "leave"]] = field(default_factory=dict)
    enforcement: Literal["none", "block"] = "none"
    drain_days: Annotated[float, Meta(ge=0.0, le=30.0)] = 2.0


class Tenant(Part, frozen=True):
    """`[[tenant]]`: a company.

    Attributes:
        domain: of its addresses.
        jurisdiction: where its people are.
        people: how many.
        devices_per_person: mean; everybody has one, and this share less one has two.
        abroad: shares of its people who are in another jurisdiction, by its name.
    """

    domain: Domain
    jurisdiction: Text
    people: Annotated[int, Meta(ge=1, le=1_000_000)]
    devices_per_person: Annotated[float, Meta(ge=1.0, le=2.0)] = 1.0
    abroad: dict[str, Share] = field(default_factory=dict)


class People(Part, frozen=True):
    """`[people]`: who knows whom, and who is away.

    Attributes:
        graph: how contacts are drawn.
        contacts: mean number of people whom somebody writes to.
        rewired: of a small-world graph, the share of contacts that are anybody instead of a neighbour.
        outside: of a company-like graph, the share of contacts in other companies.
        offline_share: share of devices that are off the network at any time.
        offline_hours: mean time off.
        abrupt_share: share of absences that nobody announces to the relay (a tunnel, an empty battery).
        step_s: people act on a grid of so many seconds; 0: one second below 2,000 devices, ten above.
    """

    graph: Literal["random", "small-world", "company"] = "company"
    contacts: Annotated[int, Meta(ge=1, le=1_000)] = 12
    rewired: Share = 0.1
    outside: Share = 0.2
    offline_share: Annotated[float, Meta(ge=0.0, le=0.9)] = 0.1
    offline_hours: Positive = 6.0
    abrupt_share: Share = 0.1
    step_s: Count = 0
