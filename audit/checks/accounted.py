"""Every byte of store, log and configuration has a class, and none is unexplained (protocol.md sections 9 to 11)."""

from __future__ import annotations

from collections import Counter
from typing import Final

from audit import disclosure as names
from audit.case import Case
from audit.checks import configuration, journal
from audit.checks.schema import report_unreadable_store
from audit.errors import BoundError, UnreadableError
from audit.outcome import About, Outcome
from audit.schema import ByteClass

ABOUT = About(
    "bytes.accounted",
    "every byte of store, log and configuration is accounted for",
    "Down to page headers, free pages and gaps, there is no byte whose purpose is unknown; the sums equal the "
    "files' sizes.",
    "That ciphertext holds what its sender meant it to hold; page residue, random ids and numbers remain "
    "possible covert channels.",
    "9, 10, 11",
)
RESIDUE_PAGE_BYTES_MAX: Final = 1024
"""A quarter of a page. SQLite leaves parts of cells that moved to a neighbour; the most seen was 262 bytes."""
RESIDUE_BYTES_MAX: Final = 4096
RESIDUE_MEAN_BYTES_MAX: Final = 16
"""Of the whole store: so many bytes, and so many for each page. The most seen was 883 bytes on 300 pages: what fills a
quarter of every page is a second store in the gaps of the first."""


def check(case: Case, outcome: Outcome) -> None:
    """Class the bytes of each file, and compare the sums with the sizes."""
    _account_store(case, outcome)
    for path in (names.LOG, names.CONFIG, names.CARD):
        if path not in case.disclosure.files:
            outcome.miss(path)
            continue
        if path == names.LOG:
            classes = journal.classify(line for _, line in case.disclosure.lines(path))
        else:
            classes = configuration.classify(case.disclosure.small(path))
        case.accounts[path] = classes
        if classes[ByteClass.UNEXPLAINED]:
            outcome.fail(path, f"{classes[ByteClass.UNEXPLAINED]} bytes are unexplained")
    total: Counter[ByteClass] = Counter()
    for path, classes in case.accounts.items():
        total.update(classes)
        size = len(case.disclosure.files[path])
        if sum(classes.values()) != size:
            outcome.fail(path, f"{sum(classes.values())} bytes were accounted for, the file has {size}")
    for byte_class in ByteClass:
        outcome.figures[byte_class.value] = total[byte_class]
    size = sum(total.values())
    outcome.evidence = (
        f"{size:,} bytes: {total[ByteClass.CIPHERTEXT]:,} ciphertext, {total[ByteClass.RESIDUE]:,} page residue, "
        f"{total[ByteClass.UNEXPLAINED]:,} unexplained"
    )


def _account_store(case: Case, outcome: Outcome) -> None:
    store = case.store
    if store is None:
        report_unreadable_store(case, outcome)
        if names.STORE in case.disclosure.files:
            size = len(case.disclosure.files[names.STORE])
            if not isinstance(case.problems.get("store"), (BoundError, UnreadableError)):
                case.accounts[names.STORE] = Counter({ByteClass.UNEXPLAINED: size})
        return
    case.accounts[names.STORE] = Counter(store.classes)
    for (start, end), text in store.unexplained:
        outcome.fail(case.place(names.STORE, start), f"{end - start} bytes are unexplained: {text}")
    residue = store.account.residue_by_page
    for page, stale in residue.most_common():
        if stale <= RESIDUE_PAGE_BYTES_MAX:
            break
        if page in store.account.unerased_by_page:
            continue
        outcome.fail(
            f"{names.STORE}, page {page}",
            f"{stale} stale bytes, more than the {RESIDUE_PAGE_BYTES_MAX} that moving rows can leave",
        )
    for page, stale in store.account.unerased_by_page.most_common():
        outcome.fail(f"{names.STORE}, page {page}", f"{stale} bytes on a free page: what was deleted was not erased")
    allowed = RESIDUE_BYTES_MAX + RESIDUE_MEAN_BYTES_MAX * store.page_count
    if store.account.residue_bytes > allowed:
        outcome.fail(
            names.STORE,
            f"{store.account.residue_bytes:,} stale bytes in all, more than the {allowed:,} that moving rows can "
            f"leave on {store.page_count:,} pages",
        )
    largest = residue.most_common(1)[0][1] if residue else 0
    outcome.figures.update(
        {
            "pages": store.page_count,
            "free pages": store.free_pages,
            "pages with residue": len(residue),
            "largest residue": largest,
        }
    )
    if store.account.residue_bytes:
        outcome.note(
            f"{store.account.residue_bytes:,} bytes of page residue on {len(residue):,} pages, at most {largest} "
            "on one: "
            "stale copies that SQLite left; searched, but a possible covert channel"
        )
