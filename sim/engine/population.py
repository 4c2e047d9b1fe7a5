"""People, their devices, where they are, and whom they write to; all drawn from the seed before anything happens."""

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from sim.engine.chance import generator
from sim.scenario.scenario import Scenario

__all__ = ["Population", "draw_population"]

_TEAM: int = 8


@dataclass(frozen=True)
class Population:
    """Everybody, by number.

    Attributes:
        accounts: addresses.
        places: jurisdictions, by their number in the scenario.
        tenants: companies, by their number in the scenario.
        devices: of each person, how many.
        contacts: of each person, whom they write to; nearer ones first.
    """

    accounts: Sequence[str]
    places: Sequence[int]
    tenants: Sequence[int]
    devices: Sequence[int]
    contacts: Sequence["array[int]"]

    def __len__(self) -> int:
        return len(self.accounts)

    def of_place(self, place: int) -> list[int]:
        """Numbers of the people of a jurisdiction."""
        return [person for person, where in enumerate(self.places) if where == place]


def draw_population(scenario: Scenario, seed: int) -> Population:
    """Draw the people of a scenario."""
    rng = generator(seed, "population")
    names = {one.name: number for number, one in enumerate(scenario.jurisdiction)}
    accounts: list[str] = []
    places: list[int] = []
    tenants: list[int] = []
    devices: list[int] = []
    for number, tenant in enumerate(scenario.tenant):
        for person in range(tenant.people):
            accounts.append(f"p{person}@{tenant.domain}")
            tenants.append(number)
            places.append(_place(rng, names, tenant.jurisdiction, tenant.abroad))
            devices.append(1 + (rng.random() < tenant.devices_per_person - 1.0))
    return Population(accounts, places, tenants, devices, _contacts(scenario, generator(seed, "contacts"), tenants))


def _place(rng: random.Random, names: dict[str, int], home: str, abroad: dict[str, float]) -> int:
    draw = rng.random()
    for name, share in abroad.items():
        draw -= share
        if draw < 0:
            return names[name]
    return names[home]


def _contacts(scenario: Scenario, rng: random.Random, tenants: Sequence[int]) -> list["array[int]"]:
    count = len(tenants)
    people = scenario.people
    wanted = min(people.contacts, count - 1)
    first: dict[int, int] = {}
    size: dict[int, int] = {}
    for person, tenant in enumerate(tenants):
        first.setdefault(tenant, person)
        size[tenant] = size.get(tenant, 0) + 1
    found = []
    for person, tenant in enumerate(tenants):
        chosen: dict[int, None] = {}
        # Whoever cannot find enough different people after so many draws has fewer contacts.
        for draw in range(4 * wanted):
            if len(chosen) == wanted:
                break
            if people.graph == "random":
                other = rng.randrange(count)
            elif people.graph == "small-world":
                step = 1 + draw // 2
                near = (person + (step if draw % 2 else -step)) % count
                other = rng.randrange(count) if rng.random() < people.rewired else near
            else:
                other = _of_company(rng, person, first[tenant], size[tenant], count, people.outside)
            if other != person:
                chosen[other] = None
        found.append(array("l", chosen))
    return found


def _of_company(rng: random.Random, person: int, first: int, size: int, count: int, outside: float) -> int:
    if count > size and rng.random() < outside:
        return rng.randrange(count)
    if rng.random() < 0.6:
        team = (person - first) // _TEAM * _TEAM
        return first + team + rng.randrange(min(_TEAM, size - team))
    return first + rng.randrange(size)
