"""The relay's log follows its grammar, so it can name nobody (protocol.md section 10)."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from typing import Final

from audit import disclosure as names
from audit.case import Case
from audit.disclosure import printable
from audit.outcome import About, Outcome
from audit.schema import ByteClass

ABOUT = About(
    "log.grammar",
    "the log holds the events of the protocol and nothing else",
    "Each line is a time, an event and decimal numbers: no address, identifier or content was logged.",
    "That the relay writes no other log: the disclosure is the relay's word, receipts and the memory image are "
    "evidence.",
    "10",
)
EVENTS: Final[dict[str, tuple[str, ...]]] = {
    "started": ("pid", "partition"),
    "ready": (),
    "stopping": (),
    "stopped": (),
    "committed": ("index", "envelopes", "acks", "bytes"),
    "aborted": ("envelopes",),
    "checkpointed": ("pages",),
    "linked": ("links",),
    "refused": ("code", "count"),
    "rotated": ("index",),
    "disclosed": ("files", "memory"),
}
_NUMBER = r"(?:0|[1-9][0-9]{0,19})"
_FIELDS = "|".join(event + "".join(f" {name}={_NUMBER}" for name in fields) for event, fields in EVENTS.items())
_LINE = re.compile(rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}Z) ({_FIELDS})".encode())


def _is_line(line: bytes) -> bool:
    match = _LINE.fullmatch(line)
    if match is None:
        return False
    try:
        datetime.strptime(match[1].decode(), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return False
    return True


def classify(log: bytes) -> Counter[ByteClass]:
    """Class the bytes of a log, line by line."""
    classes: Counter[ByteClass] = Counter()
    for line in log.splitlines(keepends=True):
        fits = line.endswith(b"\n") and _is_line(line[:-1])
        classes[ByteClass.LOG if fits else ByteClass.UNEXPLAINED] += len(line)
    return classes


def started_pids(log: bytes) -> list[int]:
    """The process ids that the log names, in order."""
    return [int(pid) for pid in re.findall(rb"^[^ ]+ started pid=([0-9]{1,20}) ", log, re.MULTILINE)]


def check(case: Case, outcome: Outcome) -> None:
    """Check each line, and the numbers of commits against their headers."""
    if names.LOG not in case.disclosure.files:
        outcome.miss(names.LOG)
        return
    log = case.disclosure.small(names.LOG)
    counts: Counter[str] = Counter()
    agreeing = 0
    for number, line in enumerate(log.splitlines(keepends=True), start=1):
        where = f"{names.LOG}, line {number}"
        if not line.endswith(b"\n"):
            outcome.fail(where, "does not end with a line feed")
        elif not _is_line(line[:-1]):
            outcome.fail(where, f"is no event of the protocol: {printable(line[:80].decode('latin-1'))!r}")
        else:
            event, _, rest = line[21:-1].decode().partition(" ")
            counts[event] += 1
            agreeing += event == "committed" and _agrees(case, outcome, where, rest)
    outcome.figures.update({event: counts[event] for event in EVENTS if counts[event]})
    outcome.figures["commits that agree with their header"] = agreeing
    outcome.evidence = f"{sum(counts.values()):,} lines, {len(log):,} bytes, all events of section 10"


def _agrees(case: Case, outcome: Outcome, where: str, rest: str) -> bool:
    fields = dict(field.split("=") for field in rest.split(" "))
    envelopes, header = int(fields["envelopes"]), case.headers.get(int(fields["index"]))
    if not envelopes or header is None:
        # A commit of acks alone has no header, and an old header may be pruned.
        return False
    if header.leaf_count != envelopes:
        outcome.fail(
            where, f"says {envelopes} envelopes, the header of commit {header.index} has {header.leaf_count} leaves"
        )
        return False
    return True
