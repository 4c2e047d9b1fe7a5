"""Random scenarios: one seed, one scenario, as the tree that a TOML file is.

They are small, a few people for a few hours, and hard: quotas that fill, networks that lose, several faults of several
kinds, absences without notice, a state that blocks and gives in, orders that are moved, sealed, opened and withdrawn. A
small world reaches rare states sooner than a large one, and what fails in it can be read.
"""

import random
from datetime import UTC, datetime, timedelta
from typing import Any, Final

__all__ = ["FAULT_KINDS", "Tree", "scenario_tree"]

Tree = dict[str, Any]

_START: Final = datetime(2026, 3, 2, 8, tzinfo=UTC)
FAULT_KINDS: Final = (
    "crash",
    "torn-write",
    "full-disk",
    "slow-disk",
    "clock-jump",
    "broker-restart",
    "partition",
)
_LANDS: Final = ("Northland", "Southland")
ORDER_KINDS: Final = (
    "wholesale-content",
    "content-of-person",
    "interception",
    "subscriber-record",
    "past-metadata",
    "preservation",
    "key-disclosure",
    "weakness",
    "secrecy",
    "seizure",
)
"""Kinds that change nothing of the service; a block is drawn for itself."""
_COURSES: Final = ("honour", "refuse", "appeal", "leave")
_ORDERS_SHARE: Final = 0.35
"""Of the scenarios; a log costs more than the rest of a small run."""
_EVEN_HOURS: Final = [1.0] * 24
_EVEN_DAYS: Final = [1.0] * 7


def scenario_tree(seed: int) -> Tree:
    """Draw the scenario of a seed."""
    rng = random.Random(f"swarm/{seed}")
    hours = rng.choice((1, 2, 3, 6))
    tree: Tree = {
        "name": f"swarm-{seed}",
        "title": "A random scenario of the swarm",
        "crypto": "sized",
        "seed": seed,
        "start": _START,
        "days": hours / 24,
        "settle_hours": 0.75,
        "relay": _relay(rng),
        "jurisdiction": [{"name": land, "enforcement": "block"} for land in _LANDS],
        "tenant": _tenants(rng),
        "people": {
            "graph": rng.choice(("random", "small-world", "company")),
            "contacts": rng.randint(1, 6),
            "offline_share": rng.choice((0.0, 0.1, 0.3)),
            "offline_hours": rng.choice((0.05, 0.3, 1.0)),
            "abrupt_share": rng.choice((0.0, 0.5, 1.0)),
        },
        "traffic": _traffic(rng, hours),
        "network": _network(rng),
        "fault": _faults(rng, hours),
        "assert": [{"check": "no-receipted-envelope-lost"}, {"check": "none-delivered-twice"}],
    }
    if rng.random() < 0.15:
        tree["order"] = [_block(rng, hours)]
    if rng.random() < _ORDERS_SHARE:
        tree["order"] = [*tree.get("order", ()), *(_order(rng, hours, number) for number in range(rng.randint(1, 3)))]
        for jurisdiction in tree["jurisdiction"]:
            jurisdiction["answers"] = {kind: rng.choice(_COURSES) for kind in rng.sample(ORDER_KINDS, 4)}
    return tree


def _relay(rng: random.Random) -> Tree:
    return {
        "retention_days": rng.choice((1, 2, 30)),
        # Tombstones count too, and live until their expiry: a small quota is full for good.
        "mailbox_envelopes_max": rng.choice((10, 30, 10_000, 10_000)),
        "mailbox_bytes_max": rng.choice((400_000, 256 * 1024 * 1024, 256 * 1024 * 1024)),
        "store": "sqlite" if rng.random() < 0.1 else "memory",
    }


def _tenants(rng: random.Random) -> list[Tree]:
    return [
        {
            "domain": f"{name}.example",
            "jurisdiction": rng.choice(_LANDS),
            "people": rng.randint(1, 5) + (number == 0),
            "devices_per_person": rng.choice((1.0, 1.0, 1.5, 2.0)),
        }
        for number, name in enumerate(("acme", "globex", "initech")[: rng.randint(1, 3)])
    ]


def _traffic(rng: random.Random, hours: int) -> Tree:
    return {
        "chats_per_day": rng.choice((4, 12, 30)) * 24 / hours,
        "mails_per_day": rng.choice((0, 2, 6)) * 24 / hours,
        "hours": list(_EVEN_HOURS),
        "weekdays": list(_EVEN_DAYS),
        "mail_bytes": {
            "distribution": "lognormal",
            "median_bytes": rng.choice((500, 3_000, 40_000)),
            "sigma": 1.0,
            "most_bytes": 262_144,
        },
        "mail_recipients": rng.choice((1.0, 1.5, 3.0)),
        "reply_share": rng.choice((0.0, 0.3, 0.6)),
        "reply_minutes": rng.choice((0.1, 2.0)),
        "messages_max": rng.choice((20, 60, 150)),
    }


def _network(rng: random.Random) -> Tree:
    return {
        "delay_ms": rng.choice((1, 50, 400)),
        "delay_spread_ms": rng.choice((0, 100, 3_000)),
        "loss": rng.choice((0.0, 0.02, 0.1, 0.3)),
        "duplication": rng.choice((0.0, 0.05, 0.3)),
        "reorder": rng.choice((0.0, 0.1, 0.5)),
        "reorder_ms": rng.choice((500, 5_000, 30_000)),
    }


def _faults(rng: random.Random, hours: int) -> list[Tree]:
    """Each kind is left out of half of the runs, so that none hides what only another shows."""
    found = []
    for kind in FAULT_KINDS:
        if rng.random() < 0.5:
            continue
        fault: Tree = {"kind": kind, "at": sorted(_moment(rng, hours) for _ in range(rng.randint(1, 4)))}
        if kind in ("crash", "torn-write"):
            fault["down_s"] = rng.choice((1.0, 10.0, 120.0))
        elif kind == "broker-restart":
            fault["down_s"] = rng.choice((1.0, 20.0))
        else:
            fault["minutes"] = rng.choice((0.5, 3.0, 15.0))
        if kind == "slow-disk":
            fault["delay_ms"] = rng.choice((50, 1_000, 10_000))
        elif kind == "clock-jump":
            fault["seconds"] = rng.choice((-3_600, -60, 60, 3_600, 40_000))
        elif kind == "partition":
            fault["share"] = rng.choice((0.3, 1.0))
        found.append(fault)
    return found


def _block(rng: random.Random, hours: int) -> Tree:
    begins, ends = sorted((_moment(rng, hours), _moment(rng, hours)))
    return {
        "id": "block",
        "date": begins,
        "withdrawn": ends,
        "kind": "block",
        "jurisdiction": rng.choice(_LANDS),
        "issuer": "the regulator",
    }


def _order(rng: random.Random, hours: int, number: int) -> Tree:
    """An order whose deadline lies behind its withdrawal: leaving is announced, and no service ends or is blocked."""
    served, moved, opened, ends = sorted(_moment(rng, hours) for _ in range(4))
    order: Tree = {
        "id": f"order-{number}",
        "date": served,
        "kind": rng.choice(ORDER_KINDS),
        "jurisdiction": rng.choice(_LANDS),
        "issuer": "a court",
    }
    if rng.random() < 0.6:
        order["withdrawn"] = ends
        order["deadline"] = ends + timedelta(days=rng.randint(3, 30))
        if served < moved and rng.random() < 0.5:
            order["extension"] = [{"on": moved, "deadline": order["deadline"] + timedelta(days=1)}]
    if served < opened and rng.random() < 0.3:
        order |= {"sealed": True, "opened": opened}
    return order


def _moment(rng: random.Random, hours: int) -> datetime:
    return _START + timedelta(seconds=rng.randrange(60, hours * 3_600 - 1))
