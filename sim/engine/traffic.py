"""Who writes when, to whom, and how long: drawn hour by hour, so that a month of a million messages is never held."""

import datetime
import random
from dataclasses import dataclass
from math import log
from typing import Final

from sim.engine.chance import arrivals, drawn_bytes, generator, lognormal
from sim.engine.population import Population
from sim.scenario.scenario import Scenario

__all__ = ["CHAT", "HOUR_S", "MAIL", "Intent", "TrafficPlan"]

CHAT: Final = 0
MAIL: Final = 1
HOUR_S: Final = 3_600
_REPLY_SIGMA: Final = 1.0


@dataclass(slots=True, frozen=True)
class Intent:
    """Somebody means to write.

    Attributes:
        person: who.
        to: whom, by number.
        kind: `CHAT` or `MAIL`.
        content_bytes: how long it is before padding.
    """

    person: int
    to: tuple[int, ...]
    kind: int
    content_bytes: int


class TrafficPlan:
    """What is written.

    Args:
        scenario: rates and sizes.
        population: who knows whom.
        seed: the run's.
    """

    def __init__(self, scenario: Scenario, population: Population, seed: int) -> None:
        self._traffic = scenario.traffic
        self._population = population
        self._rng = generator(seed, "traffic")
        self._replies = generator(seed, "replies")
        self._hour_weights = [weight / sum(self._traffic.hours) for weight in self._traffic.hours]
        traffic = self._traffic
        self._per_day = traffic.chats_per_day + traffic.mails_per_day
        self._chat_share = traffic.chats_per_day / self._per_day if self._per_day else 0.0

    def hour(self, from_s: int, to_s: int) -> list[tuple[float, Intent]]:
        """What people begin to write within an hour, or a part of it, of UTC."""
        moment = datetime.datetime.fromtimestamp(from_s, datetime.UTC)
        weight = self._hour_weights[moment.hour] * self._traffic.weekdays[moment.weekday()]
        rate = len(self._population) * self._per_day * weight / HOUR_S
        return [
            (at_s, intent)
            for at_s in arrivals(self._rng, rate, from_s, to_s)
            if (intent := self._intent(self._rng)) is not None
        ]

    def _intent(self, rng: random.Random) -> Intent | None:
        person = rng.randrange(len(self._population))
        contacts = self._population.contacts[person]
        kind = CHAT if rng.random() < self._chat_share else MAIL
        if not contacts:
            return None
        wanted = 1 if kind == CHAT else _recipients(rng, self._traffic.mail_recipients)
        # Most is written to few: the first contacts are the nearest.
        chosen = {contacts[int(len(contacts) * rng.random() ** 2)] for _ in range(wanted)}
        return Intent(person, tuple(sorted(chosen)), kind, self._size(rng, kind))

    def _size(self, rng: random.Random, kind: int) -> int:
        return drawn_bytes(rng, self._traffic.chat_bytes if kind == CHAT else self._traffic.mail_bytes)

    def reply(self, person: int, to: int, kind: int) -> tuple[float, Intent] | None:
        """Whether, and after how many seconds, what a person has received is answered."""
        rng = self._replies
        if rng.random() >= self._traffic.reply_share:
            return None
        wait_s = 60 * lognormal(rng, self._traffic.reply_minutes, _REPLY_SIGMA)
        return wait_s, Intent(person, (to,), kind, self._size(rng, kind))


def _recipients(rng: random.Random, mean: float) -> int:
    """1 + geometric, of that mean."""
    if mean <= 1.0:
        return 1
    return 1 + int(log(1 - rng.random()) / log(1 - 1 / mean))
