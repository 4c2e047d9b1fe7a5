"""The report for programs: one JSON object (docs/verifier.md). Holds no secret that was volunteered."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from audit.outcome import Outcome
from audit.verdict import Report

FORMAT = "blindpost/v1/report"


def report_object(report: Report) -> dict[str, Any]:
    """The report as plain lists, objects, numbers and text."""
    return {
        "format": FORMAT,
        "verdict": report.verdict.value,
        "exit_status": report.exit_status,
        "headline": report.headline,
        "relay_id": report.relay_id,
        "taken_at": report.taken_at,
        "files": report.file_sizes,
        "checks": [outcome_object(outcome) for outcome in report.outcomes],
        "bytes": {
            path: {byte_class.value: count for byte_class, count in account.items() if count}
            for path, account in report.accounts.items()
        },
        "leakage": {
            "facts": [{"what": what, "value": value} for what, value in report.leakage.facts],
            "columns": [asdict(row) for row in report.leakage.columns],
            "sizes": [{"body_bytes": size, "envelopes": count} for size, count in report.leakage.sizes],
        },
        "key_search": None if report.key_coverage is None else report.key_coverage.document(),
        "read_messages": [asdict(message) for message in report.read_messages],
        "controls": None
        if report.controls is None
        else [
            {
                "mutant": control.mutant,
                "expected": control.expected,
                "caught_by": list(control.caught_by),
                "caught": control.caught,
            }
            for control in report.controls
        ],
        "duration_s": None if report.duration_s is None else round(report.duration_s, 3),
    }


def outcome_object(outcome: Outcome) -> dict[str, Any]:
    """A check."""
    return {
        "id": outcome.about.check_id,
        "title": outcome.about.title,
        "status": outcome.status.value,
        "proves": outcome.about.proves,
        "does_not_prove": outcome.about.does_not,
        "section": outcome.about.section,
        "evidence": outcome.evidence,
        "figures": outcome.figures,
        "findings": [asdict(finding) for finding in outcome.findings],
        "finding_count": outcome.finding_count,
        "missing": outcome.missing,
        "not_checked": outcome.not_checked,
    }


def render_json(report: Report) -> str:
    """The object as text, ending with a line feed."""
    return json.dumps(report_object(report), indent=2, ensure_ascii=False) + "\n"
