"""What an experiment found: a verdict, its figures, and the controls without which the verdict is void.

A result holds nothing that differs between two runs of the same inputs: no time, no duration, no path, no ciphertext.
So `document` gives the same bytes for both, and two people can compare one digest. What is worth telling and differs,
such as how long it took, goes to the terminal.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import Final, TypeAlias

__all__ = ["Control", "Figure", "Result", "Value", "Verdict"]

Value: TypeAlias = int | float | str | bool


@unique
class Verdict(Enum):
    """How an experiment ended."""

    HOLDS = "holds"
    FAILS = "fails"
    VOID = "void"
    """A control was not caught: the experiment could not have found what it did not find."""


_FLOAT_DIGITS: Final = 6


@dataclass(frozen=True)
class Figure:
    """One number that the experiment measured.

    Attributes:
        name: what was counted or estimated, in words.
        value: a float is rounded to six digits in documents.
        unit: the unit, empty for a plain count.
    """

    name: str
    value: Value
    unit: str = ""


@dataclass(frozen=True)
class Control:
    """An attack twin: the same experiment on something that does leak.

    Attributes:
        name: the twin.
        cheat: what it does.
        caught: whether the experiment noticed.
        how: what gave it away, or what was measured of it.
    """

    name: str
    cheat: str
    caught: bool
    how: str


@dataclass(frozen=True)
class Result:
    """The outcome of one experiment.

    Attributes:
        experiment: its name, as in `blindpost prove NAME`.
        claim: the claim of docs/claims.md that it is evidence for, such as "C1".
        statement: what was tested, in one sentence that is true or false.
        held: whether the statement held, controls apart.
        parameters: what repeats the run: seeds, sizes, alignments.
        figures: what was measured.
        controls: every twin that was run.
        limits: what the result does not show.
        evidence: for each way in which the statement failed, one line that says where.
    """

    experiment: str
    claim: str
    statement: str
    held: bool
    parameters: Mapping[str, Value]
    figures: tuple[Figure, ...]
    controls: tuple[Control, ...]
    limits: tuple[str, ...]
    evidence: tuple[str, ...] = field(default=())

    @property
    def verdict(self) -> Verdict:
        """VOID before HOLDS or FAILS: a verdict is worth what its controls are worth. No control at all is void too."""
        if not self.controls or not all(control.caught for control in self.controls):
            return Verdict.VOID
        return Verdict.HOLDS if self.held else Verdict.FAILS

    def document(self) -> dict[str, object]:
        """Plain values for JSON, in a fixed order."""
        return {
            "experiment": self.experiment,
            "claim": self.claim,
            "statement": self.statement,
            "verdict": self.verdict.value,
            "parameters": {name: _plain(value) for name, value in sorted(self.parameters.items())},
            "figures": [{"name": f.name, "value": _plain(f.value), "unit": f.unit} for f in self.figures],
            "controls": [{"name": c.name, "cheat": c.cheat, "caught": c.caught, "how": c.how} for c in self.controls],
            "limits": list(self.limits),
            "evidence": list(self.evidence),
        }


def _plain(value: Value) -> Value:
    return round(value, _FLOAT_DIGITS) if isinstance(value, float) else value
