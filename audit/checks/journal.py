"""The relay's log follows its grammar, and each number its bounds, so it can name nobody (protocol.md section 10).

A number that nothing bounds is room for eight bytes of anything. So each is held against what the disclosure says
elsewhere: commit headers, the sizes of the bodies that still wait, the numbers that mailboxes have given, the rotations
of the manifest. What stays free are the low digits of counts and times; docs/verifier.md says how much that is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import numpy as np

from audit import disclosure as names
from audit.case import Case
from audit.checks.envelopes import SKEW_S, numbers_given
from audit.crypto import BODY_BYTES_MAX, BODY_BYTES_MIN, body_kinds
from audit.disclosure import LINE_BYTES_MAX, printable
from audit.outcome import About, Outcome
from audit.schema import ByteClass
from audit.store import Store

ABOUT = About(
    "log.grammar",
    "the log holds the events of the protocol and nothing else",
    "Each line is a time, an event and decimal numbers, each within the bounds of its meaning and, where headers, "
    "bodies, mailboxes or rotations say the same, as they say it: no address, identifier or content was logged.",
    "That the relay writes no other log: the disclosure is the relay's word, receipts and the memory image are "
    "evidence. The low digits of counts and times remain a possible covert channel.",
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
COMMIT_ENVELOPES_MAX: Final = 1_088
BOUNDS: Final[dict[tuple[str, str], tuple[int, int]]] = {
    ("started", "pid"): (1, 4_194_304),
    ("started", "partition"): (0, 65_535),
    ("committed", "index"): (0, 2**40),
    ("committed", "envelopes"): (0, COMMIT_ENVELOPES_MAX),
    ("committed", "acks"): (0, 1_048_576),
    ("committed", "bytes"): (0, COMMIT_ENVELOPES_MAX * BODY_BYTES_MAX),
    ("aborted", "envelopes"): (0, COMMIT_ENVELOPES_MAX),
    ("checkpointed", "pages"): (0, 4_194_304),
    ("linked", "links"): (0, 65_535),
    ("refused", "code"): (1, 14),
    ("refused", "count"): (0, 1_000_000),
    ("rotated", "index"): (0, 2**40),
    ("disclosed", "files"): (4, 7),
    ("disclosed", "memory"): (0, 1),
}
FILES_OF: Final = {0: 4, 1: 7}
"""How many files a disclosure without and with a memory image has."""
_NUMBER = r"(?:0|[1-9][0-9]{0,19})"
_FIELDS = "|".join(event + "".join(f" {name}={_NUMBER}" for name in fields) for event, fields in EVENTS.items())
_LINE = re.compile(rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}Z) ({_FIELDS})".encode())

_STARTED = re.compile(rb"[^ ]+ started pid=([0-9]{1,20}) ")


@dataclass(frozen=True, slots=True)
class Line:
    """One event of the log."""

    time_s: int
    event: str
    numbers: dict[str, int]


def read_line(line: bytes) -> Line | None:
    """Read a line without its line feed; None if it is no event."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    time_s = _time_of(match[1])
    if time_s is None:
        return None
    event, *fields = match[2].decode().split(" ")
    numbers = {name: int(number) for name, _, number in (item.partition("=") for item in fields)}
    return Line(time_s, event, numbers)


@lru_cache(maxsize=1024)
def _time_of(text: bytes) -> int | None:
    """Seconds since 1970; many lines have the same."""
    try:
        time = datetime.strptime(text.decode(), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return int(time.timestamp())


def classify(lines: Iterable[bytes]) -> Counter[ByteClass]:
    """Class the bytes of a log, line by line."""
    explained = unexplained = 0
    for line in lines:
        if line.endswith(b"\n") and read_line(line[:-1]) is not None:
            explained += len(line)
        else:
            unexplained += len(line)
    return Counter({ByteClass.LOG: explained, ByteClass.UNEXPLAINED: unexplained})


def last_started_pid(lines: Iterable[bytes]) -> int | None:
    """The process id of the log's last start."""
    pid = None
    for line in lines:
        match = _STARTED.match(line)
        if match:
            pid = int(match[1])
    return pid


@dataclass(slots=True)
class _Reader:
    """What the lines read so far have said."""

    case: Case
    outcome: Outcome
    waiting: dict[int, tuple[int, int]] = field(default_factory=dict)
    """How many bodies still wait, and how many bytes they have, by commit."""
    time_s: int = 0
    index: int = 0
    envelopes: int = 0
    acks: int = 0
    agreeing: int = 0

    def take(self, where: str, line: Line) -> None:
        """Check one event."""
        for name, number in line.numbers.items():
            low, high = BOUNDS[line.event, name]
            if not low <= number <= high:
                self.outcome.fail(where, f"{name} is {number}, must be {low} to {high}")
        self._take_time(where, line)
        if line.event == "committed":
            self._take_commit(where, line)
        elif line.event == "started":
            card = self.case.card or self.case.disclosed_card
            if card is not None and line.numbers["partition"] != card.partition:
                self.outcome.fail(where, f"partition is {line.numbers['partition']}, the card's is {card.partition}")
        elif line.event == "rotated" and self.case.key_ring is not None:
            if line.numbers["index"] not in {period.last_index for period in self.case.key_ring.periods[:-1]}:
                self.outcome.fail(where, f"no rotation of the manifest is after commit {line.numbers['index']}")
        elif line.event == "disclosed" and FILES_OF.get(line.numbers["memory"]) != line.numbers["files"]:
            self.outcome.fail(where, "a disclosure has 4 files, 7 with a memory image")

    def _take_time(self, where: str, line: Line) -> None:
        if line.time_s < self.time_s:
            self.outcome.fail(where, "is earlier than the line before it")
        self.time_s = max(self.time_s, line.time_s)
        taken_at = self.case.taken_at
        if taken_at is not None and line.time_s > taken_at + SKEW_S:
            self.outcome.fail(where, "is later than the disclosure")

    def _take_commit(self, where: str, line: Line) -> None:
        index, envelopes, size = (line.numbers[name] for name in ("index", "envelopes", "bytes"))
        self.envelopes += envelopes
        self.acks += line.numbers["acks"]
        if not envelopes or not index:
            if envelopes or index or size:
                self.outcome.fail(where, "a commit without envelopes has index 0 and no bytes, any other has both")
            return
        if index <= self.index:
            self.outcome.fail(where, f"is of commit {index}, the one before was of {self.index}")
        self.index = max(self.index, index)
        if self.case.manifest is not None and index > self.case.manifest.head_index:
            self.outcome.fail(where, f"commit {index} is not in the disclosure: the head is another")
        if not self._fits(index, envelopes, size):
            self.outcome.fail(where, f"{size} bytes are not what {envelopes} bodies have, those that wait included")
        header = self.case.headers.get(index)
        if header is None:
            # An old header may be pruned.
            return
        if header.leaf_count != envelopes:
            self.outcome.fail(
                where, f"says {envelopes} envelopes, the header of commit {index} has {header.leaf_count} leaves"
            )
        elif abs(header.time_ms // 1000 - line.time_s) > SKEW_S:
            self.outcome.fail(where, f"was written at another time than its header, {header.time_ms // 1000}, says")
        else:
            self.agreeing += 1

    def _fits(self, index: int, envelopes: int, size: int) -> bool:
        """Whether the bodies of a commit can have this size together: exact where all or all but one still wait."""
        waiting, waiting_bytes = self.waiting.get(index, (0, 0))
        gone, rest = envelopes - waiting, size - waiting_bytes
        if gone == 1:
            return bool(body_kinds(rest))
        return gone >= 0 and BODY_BYTES_MIN * gone <= rest <= BODY_BYTES_MAX * gone

    def finish(self) -> None:
        """Check the sums against the numbers that mailboxes have given: each envelope had one."""
        if self.case.store is None:
            return
        given = numbers_given(self.case.store)
        for what, count in (("envelopes", self.envelopes), ("acks", self.acks)):
            if count > given:
                self.outcome.fail(
                    names.LOG, f"says {count} {what} in all, and the mailboxes have given {given} numbers"
                )


def check(case: Case, outcome: Outcome) -> None:
    """Check each line, then the sums."""
    if names.LOG not in case.disclosure.files:
        outcome.miss(names.LOG)
        return
    counts: Counter[str] = Counter()
    reader = _Reader(case, outcome)
    if case.store is not None:
        reader.waiting = _waiting_by_commit(case.store)
    number, whole = 1, True
    for _, raw in case.disclosure.lines(names.LOG):
        where = f"{names.LOG}, line {number}"
        line = read_line(raw[:-1]) if whole else None
        whole = raw.endswith(b"\n")
        number += whole
        if not whole and len(raw) < LINE_BYTES_MAX:
            outcome.fail(where, "does not end with a line feed")
        elif line is None or not whole:
            outcome.fail(where, f"is no event of the protocol: {printable(raw[:80].decode('latin-1'))!r}")
        else:
            counts[line.event] += 1
            reader.take(where, line)
    reader.finish()
    outcome.figures.update({event: counts[event] for event in EVENTS if counts[event]})
    outcome.figures["commits that agree with their header"] = reader.agreeing
    size = len(case.disclosure.files[names.LOG])
    outcome.evidence = f"{sum(counts.values()):,} lines, {size:,} bytes, all events of section 10"


def _waiting_by_commit(store: Store) -> dict[int, tuple[int, int]]:
    """Count and bytes of the bodies that still wait."""
    commits, place, counts = np.unique(
        store.envelopes.integers("commit_index"), return_inverse=True, return_counts=True
    )
    sizes = np.bincount(place, weights=store.envelopes.integers("body_bytes"), minlength=len(commits))
    return {
        index: (count, int(size))
        for index, count, size in zip(commits.tolist(), counts.tolist(), sizes.tolist(), strict=True)
    }
