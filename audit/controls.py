"""The controls that were run on this verifier, as whoever ran them tells it: one JSON object a line, a cheat in each.

    {"name": "left-out", "expected": "evidence.receipts", "caught_by": ["evidence.receipts"], "caught": true}

Other members are left alone. The list is told beside the verdict and changes nothing in it. A cheat whose control went
wrong says `caught` false, and is told as caught by nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from audit.disclosure import printable
from audit.errors import EvidenceError
from audit.material import load
from audit.verdict import Control

__all__ = ["CONTROLS_MAX", "read_controls"]

CONTROLS_MAX: Final = 1_000


def read_controls(source: Path | bytes) -> tuple[Control, ...]:
    """Read the lines.

    Raises:
        EvidenceError: a line is no such object, or there are more than 1,000.
    """
    where = printable(source.name) if isinstance(source, Path) else "controls"
    lines = [line for line in load(source, where).splitlines() if line.strip()]
    if len(lines) > CONTROLS_MAX:
        raise EvidenceError(where, f"{len(lines)} lines, at most {CONTROLS_MAX} are read")
    return tuple(_control(line, f"{where}, line {number}") for number, line in enumerate(lines, start=1))


def _control(line: bytes, where: str) -> Control:
    try:
        told: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise EvidenceError(where, "is no JSON") from None
    if type(told) is not dict:
        raise EvidenceError(where, "is no JSON object")
    caught_by = told.get("caught_by")
    if type(caught_by) is not list or type(told.get("caught")) is not bool:
        raise EvidenceError(where, "caught_by must be a list and caught true or false")
    checks = tuple(_text(check, where) for check in caught_by)
    control = Control(_text(told.get("name"), where), _text(told.get("expected"), where), checks)
    return control if told["caught"] else Control(control.mutant, control.expected, ())


def _text(value: object, where: str) -> str:
    if type(value) is not str or not 0 < len(value) <= 254:
        raise EvidenceError(where, "name, expected and caught_by must be texts of 1 to 254 characters")
    return printable(value)
