"""`audit_capture`: one audit of the file of what passed, from the file to a verdict (docs/verifier.md).

The records and their bodies are looked at by capture.py, and capture_keys.py tries keys of older suites on the bodies;
texts and secrets are searched for as in a disclosure, and the public log must say of this order what the file says.
What the file tells of people, it tells: that is shown, and is no finding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final

from audit.capture import BODIES, RECORDS, CaptureReader, Recorded
from audit.capture_keys import KEYS, OlderKeys
from audit.case import THOROUGH, canaries_of, needles_of, secrets_of
from audit.checks.canaries import CANARIES, SECRETS
from audit.disclosure import printable
from audit.errors import DisclosureError, UnreadableError
from audit.file_view import FileView, sha256_of
from audit.material import Material, RelayCard
from audit.needles import INFLATE_WORK_BYTES_MAX, Finder
from audit.order_log import LoggedOrder, verify_log
from audit.outcome import About, Outcome
from audit.report_json import outcome_object
from audit.report_text import outcome_lines, time_text, verdict_line
from audit.schema import ByteClass
from audit.verdict import Verdict, headline_of, verdict_of

__all__ = ["CaptureReport", "audit_capture"]

ANSWER: Final = About(
    "capture.answer",
    "the public log says of this order what the file says",
    "The order is in the log as one that is captured, nothing was recorded before the log said so or after its end, "
    "and the answer names the SHA-256 of this very file.",
    "That the log names every order, or is the same for everybody: keep checkpoints and compare them.",
    "15.5, 15.6",
)
SKEW_MS: Final = 2_000
"""The log has whole seconds, of the same machine's clock."""
_FORMAT: Final = "blindpost/v1/capture-report"
_WRITERS_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class CaptureReport:
    """What an audit of a capture found.

    Args:
        outcomes: of the checks.
        found: what the file says.
        size: of the file.
        read: envelopes of which a volunteered key of an older suite opens the body.
    """

    outcomes: tuple[Outcome, ...]
    found: Recorded
    size: int
    read: int = 0

    @property
    def verdict(self) -> Verdict:
        """BLIND, NOT BLIND or INCOMPLETE."""
        return verdict_of(self.outcomes)

    @property
    def failed(self) -> tuple[str, ...]:
        """The ids of the checks that failed."""
        return tuple(outcome.about.check_id for outcome in self.outcomes if outcome.finding_count)

    def text(self, *, colour: bool = False) -> str:
        """The report for people, ending with a line feed."""
        return "\n".join(self._lines(colour)) + "\n"

    def _lines(self, colour: bool) -> Iterator[str]:
        found = self.found
        yield verdict_line(self.verdict, headline_of(self.outcomes), colour)
        yield f"order {found.number} of relay {found.relay_id.hex() or 'unknown'}: {found.kind or 'unknown'}"
        yield ""
        for outcome in self.outcomes:
            yield from outcome_lines(outcome, colour)
        yield ""
        told = ", ".join(f"{found.classes[kind]:,} {kind.value}" for kind in ByteClass if found.classes[kind])
        yield f"bytes accounted for: {self.size:,} = {told or 'nothing'}"
        yield ""
        yield "what the file tells:"
        for what, value in self._told():
            yield f"  {what}: {value}"
        yield f"exit status {self.verdict.exit_status}"

    def _told(self) -> Iterator[tuple[str, str]]:
        found = self.found
        for from_ms, to_ms in found.parts:
            ended = time_text(to_ms // 1_000) if to_ms >= 0 else "an end that is not said"
            yield "recorded", f"{time_text(from_ms // 1_000)} to {ended}"
        for event, count in found.events.items():
            yield f"envelopes {event}", f"{count:,}"
        yield "devices or gateways that wrote", f"{len(found.writers):,}"
        for devices, count in found.writers.most_common(_WRITERS_SHOWN):
            who = devices[0].hex()[:16] + "…" if devices else "of no link"
            more = f" and {len(devices) - 1} more on its link" if len(devices) > 1 else ""
            yield f"  by {who}{more}", f"{count:,}"

    def json(self) -> str:
        """The report for programs, ending with a line feed."""
        found = self.found
        document = {
            "format": _FORMAT,
            "verdict": self.verdict.value,
            "exit_status": self.verdict.exit_status,
            "headline": headline_of(self.outcomes),
            "relay_id": found.relay_id.hex(),
            "order": found.number,
            "kind": found.kind,
            "checks": [outcome_object(outcome) for outcome in self.outcomes],
            "bytes": {kind.value: found.classes[kind] for kind in ByteClass if found.classes[kind]},
            "told": [{"what": what.strip(), "value": value} for what, value in self._told()],
        }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def audit_capture(
    path: Path, material: Material, card: RelayCard | None = None, log: Path | None = None, *, thorough: bool = False
) -> CaptureReport:
    """Audit a file of what passed.

    Args:
        path: the file.
        material: what participants gave.
        card: the relay's, as its people have it; without it, and the log, the verdict is at best INCOMPLETE.
        log: a mirror of the relay's public log.
        thorough: whether searches go on beyond their bounds.

    Raises:
        DisclosureError: the file cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DisclosureError(printable(str(path)), f"cannot be opened ({error.strerror})") from None
    view = FileView(descriptor, os.fstat(descriptor).st_size, printable(path.name))
    try:
        outcomes = [Outcome(about) for about in (RECORDS, BODIES, KEYS, CANARIES, SECRETS, ANSWER)]
        records, bodies, keys, canaries, secrets, answer = outcomes
        older = OlderKeys(material.historical_keys, keys)
        reader = CaptureReader(view, records, bodies, older.take)
        try:
            reader.read()
            if reader.found.classes.total() != len(view):
                records.fail("the file", f"{reader.found.classes.total():,} of {len(view):,} bytes were accounted for")
            _search(view, material, canaries, secrets, thorough=thorough)
            _check_answer(view, reader.found, answer, card, log)
        except UnreadableError as error:
            records.miss(str(error))
        older.conclude()
        if view.changed:
            records.miss("the file was written to while it was audited; audit a copy that nobody changes")
        for problem in material.problems:
            canaries.miss(problem)
        return CaptureReport(tuple(outcomes), reader.found, len(view), older.read)
    finally:
        view.close()


def _search(view: FileView, material: Material, canaries: Outcome, secrets: Outcome, *, thorough: bool) -> None:
    texts, keys = canaries_of(material), secrets_of(material)
    needles, not_searched = needles_of(texts, keys)
    finder = Finder(needles, inflate=True, work_bytes_max=inf if thorough else INFLATE_WORK_BYTES_MAX)
    hits = finder.search(view) if needles else []
    named = [f"text {i + 1} of {one.who} ({len(one.text)} bytes)" for i, one in enumerate(texts)]
    named += [name for name, _ in keys]
    for hit in hits:
        outcome = canaries if hit.subject < len(texts) else secrets
        outcome.fail(f"byte {hit.offset}", f"holds {named[hit.subject]} as {hit.form}")
    for subject in not_searched:
        outcome = canaries if subject < len(texts) else secrets
        outcome.note(f"too short or too regular to be looked for: {printable(named[subject])}")
    for outcome, count, what in ((canaries, len(texts), "texts"), (secrets, len(keys), "secrets")):
        if not count:
            outcome.nothing_to_do("no canary was opened or listed" if what == "texts" else "no secret was volunteered")
            continue
        if finder.figures.streams_left_out:
            outcome.miss(f"{finder.figures.streams_left_out:,} compressed streams, beyond the bound; {THOROUGH}")
        outcome.figures.update({what: count, "bytes searched": finder.figures.searched_bytes})
        outcome.evidence = (
            f"{count} {what}, looked for in {finder.figures.searched_bytes:,} bytes and {finder.figures.streams:,} "
            f"possible compressed streams: {outcome.finding_count} found"
        )


def _check_answer(view: FileView, found: Recorded, outcome: Outcome, card: RelayCard | None, log: Path | None) -> None:
    if card is None or log is None:
        outcome.miss("the relay's card and a mirror of its public log: whose file this is, and whether it is whole")
        return
    if found.relay_id != card.relay_id:
        outcome.fail("header", "names another relay than the card")
    logged = verify_log(log, card)
    for finding in logged.findings:
        outcome.fail("public log", finding)
    order = next((order for order in logged.orders if order.number == found.number), None)
    if order is None:
        outcome.fail("public log", f"has no order {found.number}: what passed was recorded, and nobody was told")
        return
    if order.sealed and not order.opened:
        outcome.miss(f"order {order.number}'s text, which is sealed in the log until {time_text(order.secret_until)}")
        return
    _compare(found, order, outcome)
    digest = sha256_of(view)
    if not any(order.evidence):
        outcome.miss(f"the answer to order {order.number}: it is not in the log yet")
    elif order.evidence != digest:
        outcome.fail("the file", "is not the one whose hash the answer in the log names: it was changed or cut")
    outcome.evidence = f"order {order.number}, {order.kind}, {order.outcome or 'not answered'}; SHA-256 {digest.hex()}"


def _compare(found: Recorded, order: LoggedOrder, outcome: Outcome) -> None:
    if order.kind != found.kind:
        outcome.fail("header", f"says {found.kind}, and the log says {order.kind}")
    if not order.capturing_from:
        outcome.fail("public log", f"does not say that order {order.number} is captured")
        return
    ends = [at for change, at, _ in order.changes if change == "withdrawn"]
    ends += [at for at in (order.answered_at,) if at is not None]
    last_s = min(ends, default=None)
    for from_ms, to_ms in found.parts:
        if from_ms < order.capturing_from * 1_000 - SKEW_MS:
            outcome.fail("the file", "something was recorded before the log said so")
        if last_s is not None and max(from_ms, to_ms) > (last_s + 1) * 1_000 + SKEW_MS:
            outcome.fail("the file", "something was recorded after the order was withdrawn or answered")
