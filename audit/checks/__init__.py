"""The checks, in the order in which they run and are printed.

Each is a function from a case to an outcome, with an `About` that says what it proves and what it does not.
docs/verifier.md is the page for readers; a test compares it with this table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from audit.case import Case
from audit.checks import (
    accounted,
    canaries,
    commits,
    configuration,
    directory,
    earlier,
    envelopes,
    escrow,
    evidence,
    historical,
    journal,
    memory,
    modules,
    openings,
    receipts,
    schema,
    signed_manifest,
    windows,
)
from audit.outcome import About, Outcome

Check: TypeAlias = tuple[About, Callable[[Case, Outcome], None]]

CHECKS: tuple[Check, ...] = (
    (evidence.FILES, evidence.check_files),
    (signed_manifest.SIGNATURE, signed_manifest.check_signature),
    (signed_manifest.FILES, signed_manifest.check_files),
    (schema.ABOUT, schema.check),
    (accounted.ABOUT, accounted.check),
    (envelopes.ABOUT, envelopes.check),
    (commits.ABOUT, commits.check),
    (directory.ABOUT, directory.check),
    (journal.ABOUT, journal.check),
    (configuration.ABOUT, configuration.check),
    (memory.ABOUT, memory.check),
    (modules.ABOUT, modules.check),
    (canaries.CANARIES, canaries.check_canaries),
    (canaries.SECRETS, canaries.check_secrets),
    (escrow.ABOUT, escrow.check),
    (windows.ABOUT, windows.check),
    (evidence.COMMITMENTS, evidence.check_commitments),
    (openings.ABOUT, openings.check),
    (receipts.ABOUT, receipts.check),
    (historical.ABOUT, historical.check),
)
EARLIER: Check = (earlier.ABOUT, earlier.check)
"""Runs only where an earlier disclosure was given to compare with."""
