"""The report for a terminal or a pipe: verdict first, then each check with its evidence, then what the relay did see.

Plain text; colours only where a terminal is. Every text that came from the disclosure was made printable where it was
read.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from textwrap import wrap

from audit.outcome import Outcome, Status
from audit.schema import ByteClass
from audit.verdict import Report, Verdict

WIDTH = 110
FINDINGS_SHOWN = 12
_MARKS = {Status.PASSED: "pass", Status.FAILED: "FAIL", Status.MISSING: "miss", Status.NOT_RUN: " -- "}
_COLOURS = {Status.PASSED: "32", Status.FAILED: "1;31", Status.MISSING: "33", Status.NOT_RUN: "2"}
_VERDICT_COLOURS = {Verdict.BLIND: "1;32", Verdict.NOT_BLIND: "1;31", Verdict.INCOMPLETE: "1;33"}


def render_text(report: Report, *, colour: bool = False) -> str:
    """Return the whole report, ending with a line feed."""
    return "\n".join(_lines(report, colour)) + "\n"


def _lines(report: Report, colour: bool) -> Iterator[str]:
    yield verdict_line(report.verdict, report.headline, colour)
    yield f"relay {report.relay_id}, taken at {time_text(report.taken_at)}"
    yield ""
    for outcome in report.outcomes:
        yield from outcome_lines(outcome, colour)
    yield ""
    yield from _account_lines(report)
    if report.read_messages:
        yield ""
        yield "what one volunteered key reads:"
        for message in report.read_messages:
            yield f"  {message.where}: {message.text}"
    yield ""
    yield "what the relay did see:"
    for name, value in report.leakage.facts:
        yield f"  {name}: {value}"
    yield ""
    yield report.controls_line
    for control in report.controls or ():
        caught = "caught" if control.caught else "NOT CAUGHT"
        by = ", ".join(control.caught_by) or "no check"
        yield f"  {control.mutant}: {caught} by {by} (meant for {control.expected})"
    yield f"exit status {report.exit_status}"


def verdict_line(verdict: Verdict, headline: str, colour: bool) -> str:
    """The first line."""
    return _paint(verdict.value, _VERDICT_COLOURS[verdict], colour) + f": {headline}"


def outcome_lines(outcome: Outcome, colour: bool) -> Iterator[str]:
    """A check with its evidence, findings, and what it misses or did not look at."""
    mark = _paint(_MARKS[outcome.status], _COLOURS[outcome.status], colour)
    yield f"{mark}  {outcome.about.check_id:<22} {outcome.about.title}"
    if outcome.evidence:
        yield from _indent(outcome.evidence, "      ")
    for finding in outcome.findings[:FINDINGS_SHOWN]:
        yield from _indent(str(finding), "    ! ")
    hidden = outcome.finding_count - min(len(outcome.findings), FINDINGS_SHOWN)
    if hidden:
        yield f"    ! and {hidden} more"
    for text in outcome.missing[:FINDINGS_SHOWN]:
        yield from _indent(f"missing: {text}", "    ? ")
    if len(outcome.missing) > FINDINGS_SHOWN:
        yield f"    ? and {len(outcome.missing) - FINDINGS_SHOWN} more"
    for text in outcome.not_checked[:FINDINGS_SHOWN]:
        yield from _indent(f"not checked: {text}", "    · ")


def _account_lines(report: Report) -> Iterator[str]:
    yield "bytes accounted for:"
    classes = [
        byte_class for byte_class in ByteClass if any(account[byte_class] for account in report.accounts.values())
    ]
    for path, account in report.accounts.items():
        told = ", ".join(f"{account[byte_class]:,} {byte_class.value}" for byte_class in classes if account[byte_class])
        yield from _indent(f"{path}: {sum(account.values()):,} = {told or 'nothing'}", "  ")
    if not any(account[ByteClass.UNEXPLAINED] for account in report.accounts.values()):
        yield "  unexplained: 0"


def _indent(text: str, prefix: str) -> Iterator[str]:
    lines = wrap(text, WIDTH - len(prefix), break_long_words=False, break_on_hyphens=False) or [""]
    yield prefix + lines[0]
    for line in lines[1:]:
        yield " " * len(prefix) + line


def _paint(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text


def time_text(time_s: int | None) -> str:
    """A Unix time as people write it."""
    if time_s is None:
        return "an unknown time"
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        # A time that no calendar has is shown as the number that it is.
        return f"second {time_s}"
