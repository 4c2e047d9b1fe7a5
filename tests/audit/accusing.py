"""Bend an honest relay, gather evidence against it, and hand each bundle to a third party, for tests."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audit.case import Case, open_case
from audit.disclosure import Disclosure
from audit.evidence import Completeness, Conviction, Kind, gather, prove
from audit.material import RelayCard, read_card, read_material
from tests.audit.honest import HonestRelay

BendStore = Callable[[sqlite3.Connection], None]


def card_of(relay: HonestRelay) -> RelayCard:
    return read_card(relay.card, "card")


def gathered(
    relay: HonestRelay,
    folder: Path,
    items: list[list[Any]] = [],  # noqa: B006  # never changed
    *,
    bend_store: BendStore | None = None,
    memory: bool = False,
    earlier: Path | None = None,
    disclose: bool = True,
) -> Completeness:
    """Disclose, bend, and gather against the disclosure what the receipts show."""
    if disclose:
        relay.disclose(folder, bend_store=bend_store, memory=memory)
    material = read_material([relay.volunteer(items)] if items else [], [], [])
    with Disclosure(folder) as new:
        case = open_case(new, card_of(relay), material)
        if earlier is None:
            return gather(case)
        with Disclosure(earlier) as old:
            return gather(case, _opened(old, relay))


def _opened(disclosure: Disclosure, relay: HonestRelay) -> Case:
    return open_case(disclosure, card_of(relay), read_material([], [], []))


def convictions(found: Completeness, relay: HonestRelay) -> dict[Kind, Conviction]:
    """What a third party, who has the card and the bundles and nothing else, is convinced of."""
    proven = {}
    for accusation in found.accusations:
        conviction = prove(accusation.bundle, card_of(relay))
        assert conviction == accusation.conviction
        proven[conviction.kind] = conviction
    return proven
