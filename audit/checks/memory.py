"""The memory image is whole, and the relay's (protocol.md section 11)."""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import islice

from audit import disclosure as names
from audit.case import Case
from audit.checks.journal import last_started_pid
from audit.errors import BoundError, UnreadableError
from audit.needles import Finder, Needle
from audit.outcome import About, Outcome

ABOUT = About(
    "memory.image",
    "the memory image is whole, and is the relay's process",
    "The image has all bytes that its table of ranges says, its process is the one of the log, and what a relay "
    "must hold in memory "
    "is found in it, by the same search that looks for secrets.",
    "Registers, unreadable ranges, and memory of other processes. The image is searched, not accounted for.",
    "11",
)
_MAP_LINE = re.compile(rb"([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-])([w-])[x-][ps] [0-9a-f]+ \S+ ([0-9]+)\s*(.*)")
MAILBOXES_LOOKED_FOR = 64
# Pages of the kernel's own, in every process: its clock, and code that reads it.
_KERNEL_NAMES = frozenset({b"[vvar]", b"[vvar_vclock]", b"[vsyscall]"})


def check(case: Case, outcome: Outcome) -> None:
    """Compare maps, ranges and image, and look for what must be there."""
    files = case.disclosure.files
    if not any(path in files for path in names.MEMORY):
        outcome.nothing_to_do("no memory image was handed over; nothing was searched in memory")
        return
    problem = case.problems.get("memory ranges")
    if isinstance(problem, (BoundError, UnreadableError)):
        outcome.miss(str(problem))
        return
    if problem is not None:
        outcome.fail(names.RANGES, str(problem))
        return
    absent = [path for path in names.MEMORY if path not in files]
    if absent:
        outcome.miss(", ".join(absent))
        return
    readable = sum(mapping.length for mapping in case.mappings if mapping.readable)
    unreadable = sum(mapping.length for mapping in case.mappings if not mapping.readable)
    if readable != len(files[names.IMAGE]):
        outcome.fail(names.IMAGE, f"{len(files[names.IMAGE])} bytes, the table of ranges says {readable}")
    _check_maps(case, outcome)
    lines = case.disclosure.lines(names.LOG) if names.LOG in files else ()
    pid = last_started_pid(line for _, line in lines)
    if pid is not None and case.image_pid != pid:
        outcome.miss(f"an image of the relay: this one is of process {case.image_pid}, the log's last start is {pid}")
    found = _look_for_what_must_be_there(case, outcome)
    outcome.figures.update(
        {"ranges": len(case.mappings), "bytes": readable, "unreadable bytes": unreadable, "known values found": found}
    )
    if unreadable:
        count = sum(not mapping.readable for mapping in case.mappings)
        outcome.note(f"{unreadable:,} bytes of address space in {count} ranges could not be read")
    outcome.note("registers of the process")
    outcome.evidence = (
        f"{readable:,} bytes in {len(case.mappings)} ranges; {found} values that a relay must hold were found"
    )


def _check_maps(case: Case, outcome: Outcome) -> None:
    """Every byte of every readable mapping of maps.txt is in the image, but for read-only ones of files on the disk.

    A range that begins where a mapping begins covers no more of it than it is long; one that "could not be read" covers
    nothing, and the audit is incomplete without it.
    """
    given = [(mapping.start, mapping.start + mapping.length) for mapping in case.mappings if mapping.readable]
    named = [(mapping.start, mapping.start + mapping.length) for mapping in case.mappings]
    existing: list[tuple[int, int]] = []
    left_out = left_out_bytes = files_left_out = file_bytes = unread = unread_bytes = 0
    for number, line in enumerate(case.disclosure.small(names.MAPS).splitlines(), start=1):
        match = _MAP_LINE.fullmatch(line)
        if match is None:
            outcome.fail(f"{names.MAPS}, line {number}", "is no line of a table of mappings")
            continue
        start, end = int(match[1], 16), int(match[2], 16)
        existing.append((start, end))
        if match[3] != b"r" or match[6] in _KERNEL_NAMES:
            continue
        missing, unnamed = _uncovered(start, end, given), _uncovered(start, end, named)
        if unnamed == end - start and _is_program_file(match):
            files_left_out += 1
            file_bytes += end - start
        elif unnamed:
            left_out += 1
            left_out_bytes += unnamed
        elif missing:
            unread += 1
            unread_bytes += missing
    if files_left_out:
        outcome.note(
            f"{files_left_out} read-only mappings of files ({file_bytes:,} bytes) that {names.MAPS} names: programs "
            "and libraries, unchanged in memory by the word of who took the image"
        )
    if left_out:
        outcome.fail(
            names.RANGES, f"leaves out {left_out} readable mappings of {names.MAPS}, {left_out_bytes:,} bytes of them"
        )
    if unread:
        outcome.miss(
            f"{unread_bytes:,} bytes in {unread} mappings that {names.MAPS} calls readable: they were not read"
        )
    existing.sort()
    invented = sum(1 for start, end in given if _uncovered(start, end, existing))
    if invented:
        outcome.fail(names.RANGES, f"has {invented} ranges that are in no mapping of {names.MAPS}")


def _uncovered(start: int, end: int, cover: list[tuple[int, int]]) -> int:
    """How many bytes from `start` to `end` lie in none of the intervals, which are in order and do not overlap."""
    missing = 0
    for low, high in islice(cover, max(0, bisect_right(cover, (start, end)) - 1), None):
        if start >= end or low >= end:
            break
        if high > start:
            missing += max(0, low - start)
            start = high
    return missing + max(0, end - start)


def _is_program_file(match: re.Match[bytes]) -> bool:
    """Whether a mapping is read-only and of a file that still lies on the disk; the image may leave it out."""
    name = match[6]
    return match[4] == b"-" and match[5] != b"0" and name.startswith(b"/") and not name.endswith(b" (deleted)")


def _look_for_what_must_be_there(case: Case, outcome: Outcome) -> int:
    """The search's own control: the relay's name and its mailboxes are in its memory, or it is not its memory."""
    card = case.card or case.disclosed_card
    values = [card.relay_id] if card else []
    if case.store is not None:
        values += [row.blob("mailbox") for row in case.store.tables["mailboxes"][:MAILBOXES_LOOKED_FOR]]
    needles = [
        Needle(form, position, name)
        for position, value in enumerate(values)
        for name, form in (("raw", value), ("hexadecimal", value.hex().encode()))
    ]
    if not needles:
        return 0
    found = len({hit.subject for hit in Finder(needles).search(case.disclosure.files[names.IMAGE])})
    if not found:
        outcome.miss("an image of the relay: neither its id nor any mailbox is in this one")
    return found
