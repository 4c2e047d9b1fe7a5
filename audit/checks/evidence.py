"""What participants gave can be used, and commitments open (protocol.md section 12.1)."""

from __future__ import annotations

import hashlib

from audit.case import Case
from audit.crypto import label
from audit.outcome import About, Outcome

FILES = About(
    "evidence.files",
    "what was given beside the disclosure can be read",
    "Every volunteered file, commitments file and canary list that was named took part in the audit.",
    "That a participant volunteered all that it has.",
    "12",
)
COMMITMENTS = About(
    "evidence.commitments",
    "canaries were committed to before the run",
    "The texts searched for were fixed before anybody knew what the disclosure would hold.",
    "When the commitments file was made: keep it where the relay's operator cannot reach it.",
    "12.1",
)


def check_files(case: Case, outcome: Outcome) -> None:
    """Report files that could not be read."""
    material = case.material
    for problem in material.problems:
        outcome.miss(problem)
    outcome.figures.update(
        {
            "volunteered files": material.volunteered_files,
            "secrets": len(material.secrets),
            "receipts": len(material.receipts),
            "message keys": len(material.message_keys),
            "openings": len(material.openings),
            "canaries of a plain list": len(material.canaries),
            "historical keys": len(material.historical_keys),
        }
    )
    given = material.volunteered_files + material.commitment_files + (1 if material.canaries else 0)
    if not given and not material.problems:
        outcome.nothing_to_do("nothing was volunteered: what follows rests on the disclosure and the card alone")
        return
    outcome.evidence = f"{given} files beside the disclosure"


def commitment_to(nonce: bytes, text: bytes) -> bytes:
    """SHA-256(L("canary") ‖ nonce ‖ text)."""
    return hashlib.sha256(label("canary") + nonce + text).digest()


def check_commitments(case: Case, outcome: Outcome) -> None:
    """Open each commitment that an opening was volunteered for."""
    material = case.material
    if not material.commitment_files and not material.openings:
        outcome.nothing_to_do("no commitments were handed over before the run")
        return
    if not material.commitment_files:
        outcome.miss("the commitments file: canaries are shown without proof that they were fixed before the run")
    opened = set()
    for opening in material.openings:
        commitment = commitment_to(opening.nonce, opening.text)
        if commitment in material.commitments:
            opened.add(commitment)
        elif material.commitment_files:
            outcome.miss(f"a commitment to a text that {opening.who} opens ({len(opening.text)} bytes)")
    closed = len(material.commitments) - len(opened)
    if material.commitments and not opened:
        outcome.miss("an opening of any of the commitments")
    elif closed:
        outcome.note(f"{closed} commitments were not opened: the texts behind them were not searched for")
    outcome.figures.update({"commitments": len(material.commitments), "opened": len(opened)})
    outcome.evidence = f"{len(opened)} of {len(material.commitments)} commitments open to the texts searched for"
