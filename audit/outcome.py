"""What a check says: a status, its evidence and figures, each finding with its place, and what it did not check.

FAILED    a leak or a lie was found: the verdict is NOT BLIND
MISSING   something that the check needs was not handed over, or cannot be used: INCOMPLETE, unless another check failed
NOT RUN   nothing was volunteered that it could look at; said, and no reason against the verdict
PASSED    it looked, and found nothing
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

FINDINGS_MAX: Final = 50
"""Kept and shown for each check; all are counted."""


class Status(Enum):
    """How a check ended; the value is what is printed."""

    PASSED = "passed"
    FAILED = "FAILED"
    MISSING = "missing"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class About:
    """What a check is, apart from any disclosure."""

    check_id: str
    title: str
    proves: str
    does_not: str
    section: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One leak or lie: where it is, and what it is."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


@dataclass(slots=True)
class Outcome:
    """A check as it runs, and its result when it is over."""

    about: About
    evidence: str = ""
    findings: list[Finding] = field(default_factory=list)
    finding_count: int = 0
    missing: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    figures: dict[str, int | str] = field(default_factory=dict)
    ran: bool = True

    @property
    def status(self) -> Status:
        """FAILED before MISSING before NOT RUN: what was found stays found."""
        if self.finding_count:
            return Status.FAILED
        if self.missing:
            return Status.MISSING
        return Status.PASSED if self.ran else Status.NOT_RUN

    def fail(self, where: str, text: str) -> None:
        """Record a leak or a lie."""
        self.finding_count += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(where, text))

    def miss(self, text: str) -> None:
        """Record something that the check needs and does not have."""
        if text not in self.missing and len(self.missing) < FINDINGS_MAX:
            self.missing.append(text)

    def note(self, text: str) -> None:
        """Record what was not checked."""
        if text not in self.not_checked and len(self.not_checked) < FINDINGS_MAX:
            self.not_checked.append(text)

    def nothing_to_do(self, text: str) -> None:
        """Say that there was nothing to look at."""
        self.ran = False
        self.evidence = text
