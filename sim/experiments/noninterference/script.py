"""What happens in a run: who takes part, what they do when, and what goes wrong; nothing depends on a message's text.

A script is plain data, so that a run can be repeated, drawn by Hypothesis (sim/strategies.py) and made smaller.
`drawn_script` makes the one of the command: a population with all acts and all faults, from one seed.
"""

import random
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import Final, TypeAlias

__all__ = [
    "Act",
    "Away",
    "Devices",
    "Faults",
    "Hostile",
    "Misdeed",
    "Outage",
    "Prekeys",
    "Script",
    "Send",
    "Withdrawal",
]

HOUR_S: Final = 3_600


@unique
class Misdeed(Enum):
    """What a device asks for that a relay must refuse, or take for what it is."""

    OTHER_CONTENT = "the id of an envelope that was submitted, with another body"
    REPEATED = "a submit that was receipted already"
    FOREIGN_ACK = "an ack in a mailbox of somebody else"
    PAST_EXPIRY = "an envelope that has expired already"
    UNKNOWN_ACCOUNT = "the keys of an account that does not exist"
    USED_TOKEN = "an activation that was used already"
    NO_COMMANDS = "a genuine frame that holds no commands"
    STALE_LIST = "an envelope encrypted to an old list"


@dataclass(frozen=True)
class Send:
    """Somebody writes to somebody; devices of both get an envelope each.

    Attributes:
        at_ms: when, from the start.
        who: index of the sender.
        to: index of the recipient.
        payload_bytes: length of the text; above 64 KiB it goes in chunks.
        expiry_s: how far ahead the envelopes expire.
    """

    at_ms: int
    who: int
    to: int
    payload_bytes: int
    expiry_s: int = 30 * 86_400


@dataclass(frozen=True)
class Withdrawal:
    """Somebody takes back what they sent last."""

    at_ms: int
    who: int


@dataclass(frozen=True)
class Away:
    """A person's devices are off for a while."""

    at_ms: int
    who: int
    for_ms: int


@dataclass(frozen=True)
class Outage:
    """The relay ends and is started again: killed, or stopped in order."""

    at_ms: int
    killed: bool = True
    for_ms: int = 400


@dataclass(frozen=True)
class Devices:
    """A person adds a second device, or removes it: others then hold a stale list, and a mailbox closes."""

    at_ms: int
    who: int


@dataclass(frozen=True)
class Prekeys:
    """A person's device publishes prekeys anew, or adds one-time prekeys."""

    at_ms: int
    who: int
    anew: bool = False


@dataclass(frozen=True)
class Hostile:
    """A person's device asks for what it must not get."""

    at_ms: int
    who: int
    misdeed: Misdeed


Act: TypeAlias = Send | Withdrawal | Away | Outage | Devices | Prekeys | Hostile


@dataclass(frozen=True)
class Faults:
    """How often things go wrong, each a probability from 0 to 1: packets for each one, the disk for each job."""

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    spoil: float = 0.0
    commit_fails: float = 0.0
    read_fails: float = 0.0


@dataclass(frozen=True)
class Script:
    """One run.

    Attributes:
        seed: of all that is drawn: keys, faults, how long the disk takes.
        people: how many; `who` and `to` of an act count modulo this.
        acts: in any order.
        faults: of network and disk.
        tight: give mailboxes and links small quotas, so that some are refused.
    """

    seed: int
    people: int = 3
    acts: tuple[Act, ...] = ()
    faults: Faults = field(default_factory=Faults)
    tight: bool = False

    @property
    def end_ms(self) -> int:
        """When the last act is over."""
        return max((act.at_ms + getattr(act, "for_ms", 0) for act in self.acts), default=0)


_FAULTS: Final = Faults(drop=0.02, duplicate=0.02, delay=0.05, spoil=0.01, commit_fails=0.01, read_fails=0.005)
_MESSAGES_PER_S: Final = 20
_MESSAGES_PER_PERSON: Final = 80
_LARGE_EVERY: Final = 125
_LARGE_BYTES: Final = (70_000, 230_000)


def drawn_script(seed: int, messages: int) -> Script:
    """The script of the command: so many messages among people who do all that people and relays do.

    Args:
        seed: of everything.
        messages: how many are written; each becomes an envelope for each device of both sides.
    """
    rng = random.Random(f"{seed}/script")  # a script is to be repeatable
    people = max(4, min(24, messages // _MESSAGES_PER_PERSON))
    span_ms = max(4_000, messages * 1_000 // _MESSAGES_PER_S)
    acts: list[Act] = []
    for number in range(messages):
        who = rng.randrange(people)
        to = (who + rng.randrange(1, people)) % people
        size = min(4_000, int(rng.lognormvariate(5.0, 1.0)))
        if number % _LARGE_EVERY == _LARGE_EVERY // 2:
            size = rng.randrange(*_LARGE_BYTES)
        expiry_s = rng.choice((70, HOUR_S, 86_400, 30 * 86_400, 30 * 86_400))
        acts.append(Send(rng.randrange(span_ms), who, to, size, expiry_s))
        kind = rng.random()
        at_ms = rng.randrange(span_ms)
        if kind < 0.04:
            acts.append(Withdrawal(at_ms, rng.randrange(people)))
        elif kind < 0.08:
            acts.append(Hostile(at_ms, rng.randrange(people), rng.choice(list(Misdeed))))
        elif kind < 0.09:
            acts.append(Prekeys(at_ms, rng.randrange(people), rng.random() < 0.5))
    acts += [Devices(rng.randrange(span_ms), who) for who in rng.sample(range(people), people // 2)]
    acts += [Devices(span_ms // 2 + rng.randrange(span_ms // 2), who) for who in rng.sample(range(people), people // 3)]
    acts += [
        Away(rng.randrange(span_ms), who, rng.randrange(1_000, 1 + max(1_001, span_ms // 2)))
        for who in range(people // 2)
    ]
    # One person hears nothing until the end, so that mail waits, is repeated, and expires.
    acts.append(Away(span_ms // 10, people - 1, span_ms + 120_000))
    acts += [Outage(rng.randrange(span_ms), killed=index % 3 != 2) for index in range(3)]
    return Script(seed, people, tuple(sorted(acts, key=lambda act: act.at_ms)), _FAULTS, tight=True)
