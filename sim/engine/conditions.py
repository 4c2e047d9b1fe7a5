"""Faults: which happen when, drawn before the run, and how often each really happened.

A fault that did nothing is not counted: a crash counts when a process was killed, a full disk when a commit failed, a
slow one when a commit was slow, a partition or a broker restart when it cut somebody off.
"""

from dataclasses import dataclass, field
from typing import Final

from sim.engine.chance import generator, trigger_times
from sim.scenario.conduct import Fault
from sim.scenario.scenario import Scenario

__all__ = ["FaultCounts", "Trigger", "kind_of", "triggers"]

KINDS: Final = ("crash", "torn-write", "full-disk", "slow-disk", "clock-jump", "broker-restart", "partition")


@dataclass(frozen=True)
class Trigger:
    """A fault begins."""

    at_s: int
    fault: Fault


@dataclass
class FaultCounts:
    """How often each kind really happened."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    def happened(self, kind: str, times: int = 1) -> None:
        """Count."""
        self.counts[kind] += times


def kind_of(fault: Fault) -> str:
    """The fault's kind, as the scenario writes it."""
    return str(type(fault).__struct_config__.tag)


def triggers(scenario: Scenario, seed: int) -> list[Trigger]:
    """All faults of a run, in order."""
    found = []
    for number, fault in enumerate(scenario.fault):
        rng = generator(seed, f"fault/{number}")
        stated = [moment.unix_s for moment in fault.at]
        times = trigger_times(rng, stated, fault.per_day, scenario.start.unix_s, scenario.end.unix_s)
        found += [Trigger(at_s, fault) for at_s in times]
    return sorted(found, key=lambda trigger: trigger.at_s)
