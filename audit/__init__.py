"""The independent verifier: reads a disclosure, the written spec and volunteered secrets. Imports nothing of ours."""

from audit.errors import AuditError
from audit.outcome import About, Finding, Outcome, Status
from audit.verdict import EXIT_CRASH, EXIT_USAGE, Control, Report, Verdict
from audit.verifier import run

__all__ = [
    "run",
    "Report",
    "Control",
    "Verdict",
    "Outcome",
    "Status",
    "Finding",
    "About",
    "AuditError",
    "EXIT_USAGE",
    "EXIT_CRASH",
]
