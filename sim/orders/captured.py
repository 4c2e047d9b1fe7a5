"""A file of what was captured, as the verifier finds it: audited against the run's own public log (audit/).

What people volunteered is tried on its bodies by the audit itself. So are the keys that a server of an older kind keeps
beside the mail, those of the mailboxes that the file covers: whoever has this file ordered it of that very server.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from audit.capture_audit import CaptureReport, audit_capture
from audit.checks.historical import HOSTED_KEY, SERVER_MAIL_KEY
from audit.material import HistoricalKey, read_card, read_material
from audit.outcome import Status
from relay.home import CARD_NAME, Home
from relay.logkey import LOG_FOLDER

__all__ = ["Captured", "audit_captured"]

_HOSTED_KEY_BYTES: Final = 24
_SERVER: Final = "the server, whose database has the key"


@dataclass(frozen=True)
class Captured:
    """What an order's capture came to.

    Attributes:
        path: the file.
        verdict: the verifier's.
        failed: checks that failed.
        missing: checks that had not what they need.
        from_s: when it began, Unix time in seconds.
        to_s: when it ended; as far as it is said.
        mailboxes: that were covered.
        events: that are recorded.
        envelopes: that were stored while it went on.
        body_bytes: of ciphertext that was recorded.
        lost: events that the relay had no room for.
        bodies: envelopes whose ciphertext is in it, however often.
        read: those of them that could be read.
        gaps: how often it was interrupted and begun again: the relay had been killed, or the order extended.
    """

    path: Path
    verdict: str
    failed: tuple[str, ...]
    missing: tuple[str, ...]
    from_s: int
    to_s: int
    mailboxes: int
    events: int
    envelopes: int
    body_bytes: int
    lost: int
    bodies: int
    read: int
    gaps: int


def audit_captured(
    path: Path, home: Home, volunteered: Sequence[bytes] = (), kept_keys: Mapping[bytes, bytes] | None = None
) -> Captured:
    """Audit a file.

    Args:
        path: of it.
        home: the relay's: its card, and its public log.
        volunteered: what people give the verifier.
        kept_keys: by mailbox, what a server has in its database.

    Raises:
        AuditError: it cannot be opened.
    """
    card, log = read_card((home.path / CARD_NAME).read_bytes(), CARD_NAME), home.path / LOG_FOLDER
    material = read_material(volunteered, (), ())
    report = audit_capture(path, material, card, log)
    kept = [
        HistoricalKey(_SERVER, HOSTED_KEY if len(key) == _HOSTED_KEY_BYTES else SERVER_MAIL_KEY, key)
        for mailbox in report.found.mailboxes
        if (key := (kept_keys or {}).get(mailbox)) is not None
    ]
    if kept:
        # Which mailboxes it covers is known now.
        material.historical_keys += kept
        report = audit_capture(path, material, card, log)
    return _told(path, report)


def _told(path: Path, report: CaptureReport) -> Captured:
    found = report.found
    times = [time_ms // 1_000 for part in found.parts for time_ms in part if time_ms >= 0]
    return Captured(
        path,
        report.verdict.value,
        report.failed,
        tuple(outcome.about.check_id for outcome in report.outcomes if outcome.status is Status.MISSING),
        from_s=times[0] if times else 0,
        to_s=times[-1] if times else 0,
        mailboxes=len(found.mailboxes),
        events=found.events.total(),
        envelopes=found.events["stored"],
        body_bytes=found.body_bytes,
        lost=found.lost,
        bodies=found.envelopes_with_body,
        read=report.read,
        gaps=max(len(found.parts) - 1, 0),
    )
