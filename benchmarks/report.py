"""One form of result for every benchmark: cases, and for each metric of a case the figure of every round.

`compare` reads nothing else, so a figure that is not here does not exist: medians are for the reader, the rounds are
what was measured. A file that does not have this form is refused with the field's name.

    {"schema": 1, "benchmark": "relay", "command": "python -m benchmarks relay …", "seed": 1,
     "machine": {…}, "versions": {…},
     "cases": [{"name": "nats, sqlite, 1 a frame", "dimensions": {…}, "metrics": {"receipted": {"unit": "/s", …}}}],
     "skipped": [{"name": "Synapse", "reason": "not built yet"}]}
"""

from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Literal

import msgspec

__all__ = ["Case", "Metric", "Report", "ReportError", "Skipped", "new_report"]

SCHEMA: Literal[1] = 1
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class ReportError(Exception):
    """A result's file that cannot be read; the text names the file and the field."""


class _Form(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Unknown fields are refused: a misspelt one would be a figure that nobody sees."""


class Metric(_Form):
    """One kind of figure; `better` says which way is an improvement, '' where neither is."""

    unit: str
    better: Literal["more", "less", ""]
    rounds: list[float]

    @property
    def median(self) -> float:
        """The middle of the rounds."""
        return median(self.rounds)


class Case(_Form):
    """One thing that was measured, under one name that is the same in the next report."""

    name: str
    dimensions: dict[str, str | int | float]
    metrics: dict[str, Metric] = {}
    percentiles: dict[str, list[tuple[float, float]]] = {}
    """By kind of latency: (percentile, milliseconds), all rounds merged."""
    notes: list[str] = []

    def add(self, name: str, unit: str, better: Literal["more", "less", ""], figure: float) -> None:
        """Add the figure of one round."""
        self.metrics.setdefault(name, Metric(unit, better, [])).rounds.append(figure)


class Skipped(_Form):
    """What was not measured, and why."""

    name: str
    reason: str


class Report(_Form, kw_only=True, omit_defaults=False):
    """The result of one run of one benchmark."""

    schema: Literal[1] = SCHEMA
    benchmark: str
    command: str
    started: str
    took_s: int = 0
    """How long the whole run took; 0 where that was not written down."""
    seed: int
    machine: dict[str, str | int]
    versions: dict[str, str]
    cases: list[Case] = []
    skipped: list[Skipped] = []
    notes: list[str] = []

    def case(self, name: str, **dimensions: str | int | float) -> Case:
        """The case of that name, made if it is not there."""
        for case in self.cases:
            if case.name == name:
                return case
        self.cases.append(Case(name, dimensions))
        return self.cases[-1]

    def ended(self) -> None:
        """Write down how long the run took, at its end."""
        begun = datetime.strptime(self.started, _TIME)
        self.took_s = round((datetime.now(UTC) - begun.replace(tzinfo=UTC)).total_seconds())

    def to_json(self) -> bytes:
        """The file's bytes, for people as well."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    @classmethod
    def read(cls, path: Path) -> "Report":
        """Read a result's file.

        Raises:
            ReportError: it is not one.
            OSError: it cannot be read.
        """
        try:
            report = msgspec.json.decode(path.read_bytes(), type=cls, strict=False)
        except msgspec.MsgspecError as error:
            raise ReportError(f"{path}: {error}") from None
        for case in report.cases:
            for name, metric in case.metrics.items():
                if not metric.rounds:
                    raise ReportError(f"{path}: case {case.name!r}: metric {name!r} has no rounds")
        return report


def new_report(
    benchmark: str, command: str, seed: int, machine: dict[str, str | int], versions: dict[str, str]
) -> Report:
    """A report without figures, begun now."""
    started = datetime.now(UTC).strftime(_TIME)
    return Report(benchmark=benchmark, command=command, started=started, seed=seed, machine=machine, versions=versions)
