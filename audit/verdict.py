"""From outcomes to a verdict, with the controls that show the checks can fail (docs/verifier.md).

NOT BLIND     any check failed: something leaked, or the relay lied
INCOMPLETE    none failed, and something that a check needs is missing
BLIND         none failed, none misses anything
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from audit.case import ReadMessage
from audit.leakage import Leakage
from audit.outcome import Outcome, Status
from audit.schema import ByteClass

if TYPE_CHECKING:
    from audit.keysearch import Coverage


class Verdict(Enum):
    """The verdict; its value is what is printed."""

    BLIND = "BLIND"
    NOT_BLIND = "NOT BLIND"
    INCOMPLETE = "INCOMPLETE"

    @property
    def exit_status(self) -> int:
        """0, 1 or 2."""
        return {Verdict.BLIND: 0, Verdict.NOT_BLIND: 1, Verdict.INCOMPLETE: 2}[self]


EXIT_USAGE = 64
EXIT_CRASH = 70


def verdict_of(outcomes: Sequence[Outcome]) -> Verdict:
    """A finding outweighs what is missing: a relay cannot hide a leak behind a file that it held back."""
    statuses = {outcome.status for outcome in outcomes}
    if Status.FAILED in statuses:
        return Verdict.NOT_BLIND
    return Verdict.INCOMPLETE if Status.MISSING in statuses else Verdict.BLIND


def headline_of(outcomes: Sequence[Outcome]) -> str:
    """One sentence for a verdict."""
    counts = Counter(outcome.status for outcome in outcomes)
    verdict = verdict_of(outcomes)
    if verdict is Verdict.NOT_BLIND:
        findings = sum(outcome.finding_count for outcome in outcomes)
        return f"{counts[Status.FAILED]} of {len(outcomes)} checks failed, {findings} findings"
    if verdict is Verdict.INCOMPLETE:
        missing = f"{counts[Status.MISSING]} of {len(outcomes)} checks"
        return f"nothing was found, but {missing} miss something that they need"
    not_run = f"; {counts[Status.NOT_RUN]} had nothing to look at" if counts[Status.NOT_RUN] else ""
    return f"{counts[Status.PASSED]} checks passed{not_run}: there is nothing to read in what was handed over"


@dataclass(frozen=True, slots=True)
class Control:
    """A cheat that was tried on this verifier: its name, the check that should catch it, and those that did."""

    mutant: str
    expected: str
    caught_by: tuple[str, ...]

    @property
    def caught(self) -> bool:
        """Whether the check meant for it caught it."""
        return self.expected in self.caught_by


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that an audit found."""

    outcomes: tuple[Outcome, ...]
    accounts: dict[str, Counter[ByteClass]]
    leakage: Leakage
    relay_id: str
    taken_at: int | None
    file_sizes: dict[str, int]
    read_messages: tuple[ReadMessage, ...] = ()
    key_coverage: Coverage | None = None
    """What the search for keys that nobody volunteered looked at; None if it was not asked for."""
    controls: tuple[Control, ...] | None = None
    duration_s: float | None = None

    @property
    def verdict(self) -> Verdict:
        """BLIND, NOT BLIND or INCOMPLETE."""
        return verdict_of(self.outcomes)

    @property
    def exit_status(self) -> int:
        """The exit status that goes with the verdict."""
        return self.verdict.exit_status

    @property
    def failed(self) -> tuple[str, ...]:
        """The ids of the checks that failed: what caught a cheat."""
        return tuple(outcome.about.check_id for outcome in self.outcomes if outcome.status is Status.FAILED)

    def with_controls(self, controls: Sequence[Control]) -> Report:
        """The same report with the controls that were run on this verifier."""
        return replace(self, controls=tuple(controls))

    @property
    def headline(self) -> str:
        """One sentence for the verdict."""
        return headline_of(self.outcomes)

    @property
    def controls_line(self) -> str:
        """'N mutants, N caught', or that none was run."""
        if self.controls is None:
            return "controls: none were run with this verdict"
        caught = sum(control.caught for control in self.controls)
        return f"{len(self.controls)} mutants, {caught} caught"
