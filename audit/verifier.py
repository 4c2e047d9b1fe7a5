"""`run`: one audit, from a directory to a report.

The steps: read what participants gave, list the directory, read the disclosure's parts, run the checks in order, build
the table of leakage. Whatever is wrong with the disclosure ends as a finding or as something missing; an exception
that leaves `run` is a fault of the verifier.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from math import inf
from pathlib import Path
from time import monotonic

from audit.case import Case, open_case
from audit.checks import CHECKS, EARLIER
from audit.checks.signed_manifest import FILES
from audit.disclosure import FILE_BYTES_MAX, Disclosure, printable
from audit.errors import AuditError, BoundError, UnreadableError
from audit.keysearch import KeySearchSettings
from audit.leakage import Leakage, leakage_of
from audit.material import Material, OrderTimes, RelayCard, load, read_card, read_material, read_order_times
from audit.outcome import Outcome
from audit.verdict import Control, Report

Source = Path | bytes
Progress = Callable[[str, int, int], None]


def run(
    directory: str | os.PathLike[str],
    *,
    card: Source | None = None,
    volunteered: Iterable[Source] = (),
    commitments: Source | Iterable[Source] | None = None,
    canaries: Iterable[Source] = (),
    order: Source | None = None,
    earlier: str | os.PathLike[str] | None = None,
    controls: Sequence[Control] | None = None,
    thorough: bool = False,
    key_search: KeySearchSettings | None = None,
    progress: Progress | None = None,
) -> Report:
    """Audit a disclosure.

    Args:
        directory: The disclosure; only read.
        card: The relay's card as its people have it; without one the verdict is at best INCOMPLETE.
        volunteered: Files of protocol.md section 12.2, or their bytes.
        commitments: Files of section 12.1, or their bytes.
        canaries: Plain lists, one text a line.
        order: The orderer's own times of the order; without them `taken_at` is the relay's word.
        earlier: The directory of another disclosure of this relay, made before, that this one must continue.
        thorough: Whether searches go on beyond their bounds, however long that takes.
        key_search: How to search for keys that nobody volunteered; that takes minutes, so without it there is none.
        controls: The mutants that this verifier was tried on, to be told with the verdict.
        progress: Called with the title of each step, its position and the count of steps.

    Raises:
        EvidenceError: The card or the order's times are none: a mistake of the person who audits.
        DisclosureError: The directory cannot be read at all.
    """
    started = monotonic()
    relay_card: RelayCard | None = None
    if card is not None:
        relay_card = read_card(load(card, "relay card"), card.name if isinstance(card, Path) else "relay card")
    order_times: OrderTimes | None = None
    if order is not None:
        where = order.name if isinstance(order, Path) else "order"
        order_times = read_order_times(load(order, where), where)
    if commitments is None:
        commitments = ()
    elif isinstance(commitments, (bytes, Path)):
        commitments = (commitments,)
    material = read_material(volunteered, commitments, canaries)
    checks = CHECKS if earlier is None else (*CHECKS, EARLIER)
    total = len(checks) + 1
    if progress:
        progress("reading the disclosure", 0, total)
    with ExitStack() as stack:
        disclosure = stack.enter_context(Disclosure(Path(directory), inf if thorough else FILE_BYTES_MAX))
        case = open_case(disclosure, relay_card, material, order_times, thorough=thorough)
        if earlier is not None:
            before = stack.enter_context(Disclosure(Path(earlier)))
            case.earlier = open_case(before, relay_card, Material())
        case.key_search = key_search
        outcomes = []
        for position, (about, check) in enumerate(checks, start=1):
            if progress:
                progress(about.title, position, total)
            outcome = Outcome(about)
            try:
                check(case, outcome)
            except (BoundError, UnreadableError) as error:
                outcome.miss(str(error))
            except AuditError as error:
                outcome.fail(error.where, error.problem)
            outcomes.append(outcome)
        _tell_changed(disclosure, outcomes)
        return _report(case, outcomes, controls, monotonic() - started)


def _tell_changed(disclosure: Disclosure, outcomes: list[Outcome]) -> None:
    """What was read of a file that somebody wrote to meanwhile may be of two files: nothing can be said of it."""
    for path in disclosure.changed():
        for outcome in outcomes:
            if outcome.about is FILES:
                outcome.miss(
                    f"{printable(path)}: was written to while it was audited; audit a copy that nobody changes"
                )


def _leakage_of(case: Case) -> Leakage:
    """Empty if the store can no longer be read; that it cannot is told already."""
    try:
        return leakage_of(case)
    except AuditError:
        return Leakage()


def _report(case: Case, outcomes: list[Outcome], controls: Sequence[Control] | None, duration_s: float) -> Report:
    known = case.manifest.relay_id if case.manifest else case.card.relay_id if case.card else None
    report = Report(
        outcomes=tuple(outcomes),
        accounts=dict(case.accounts),
        leakage=_leakage_of(case),
        relay_id=known.hex() if known else "unknown",
        taken_at=case.taken_at,
        file_sizes={path: len(view) for path, view in sorted(case.disclosure.files.items())},
        read_messages=tuple(case.read_messages),
        key_coverage=case.key_coverage,
        duration_s=duration_s,
    )
    # Rows hold places in the file, not the mapping; the store's view is let go so that the mapping can close.
    case.store = None
    if case.earlier is not None:
        case.earlier.store = None
    return report if controls is None else report.with_controls(controls)
