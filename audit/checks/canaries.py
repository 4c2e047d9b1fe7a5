"""No canary and no volunteered secret is found anywhere (protocol.md section 12.2, items 1, 3, 4 and 5)."""

from __future__ import annotations

from audit import disclosure as names
from audit.case import THOROUGH, Case
from audit.disclosure import printable
from audit.outcome import About, Outcome

CANARIES = About(
    "search.canaries",
    "no text that people sent is found in store, log, configuration or memory",
    "The texts, whole or in part, stand nowhere in the disclosure: as UTF-8, UTF-16, UTF-32 (where Python keeps "
    "it so), Latin-1, hexadecimal, base64 at any "
    "alignment, quoted-printable, percent-encoded, JSON, reversed, or in a zlib or gzip stream; outside of memory also "
    "in a raw deflate stream that begins a value, and in streams inside of hexadecimal or base64; nor cut into the "
    "rows of one column of the store in their order, nor by 8 bytes and more into ids and keys in any order.",
    "Texts that nobody volunteered, texts cut up in another way, such as words of account names in another order, and "
    "encodings not in this list, a cipher among them: searches for keys and receipts speak to that.",
    "12",
)
SECRETS = About(
    "search.secrets",
    "no secret of a participant is found in store, log, configuration or memory",
    "Volunteered private keys, session secrets and message keys stand nowhere in the disclosure, raw, reversed, "
    "in hexadecimal or base64, "
    "whole or by 16-byte halves, and in ids and keys of the store by 8 bytes, in any order.",
    "Secrets that were not volunteered, or that the relay keeps in a form of its own.",
    "12",
)


def check_canaries(case: Case, outcome: Outcome) -> None:
    """Report each canary that was found, once for each file and form."""
    if not case.canaries:
        outcome.nothing_to_do("no canary was opened or listed")
        return
    described = [f"text {i + 1} of {canary.who} ({len(canary.text)} bytes)" for i, canary in enumerate(case.canaries)]
    _report(case, outcome, 0, described)
    outcome.figures["canaries"] = len(described)
    outcome.evidence = _evidence(case, f"{len(described)} texts", outcome)


def check_secrets(case: Case, outcome: Outcome) -> None:
    """Report each secret that was found; never the secret."""
    if not case.secrets:
        outcome.nothing_to_do("no secret was volunteered")
        return
    described = [name for name, _ in case.secrets]
    _report(case, outcome, len(case.canaries), described)
    outcome.figures["secrets"] = len(described)
    outcome.evidence = _evidence(case, f"{len(described)} secrets", outcome)


def _report(case: Case, outcome: Outcome, first: int, described: list[str]) -> None:
    search = case.search
    told = set()
    found = set()
    for path, hits in search.hits.items():
        for hit in hits:
            position = hit.subject - first
            if not 0 <= position < len(described):
                continue
            found.add(position)
            if (path, position, hit.form) not in told:
                told.add((path, position, hit.form))
                outcome.fail(case.place(path, hit.offset), f"holds {described[position]} as {hit.form}")
    for where, subject in case.scattered:
        position = subject - first
        if 0 <= position < len(described):
            found.add(position)
            outcome.fail(f"{names.STORE}, {where}", f"holds a piece of {described[position]}")
    skipped = [described[subject - first] for subject in search.not_searched if 0 <= subject - first < len(described)]
    if skipped:
        outcome.note(f"{len(skipped)} are too short or too regular to be looked for: {printable('; '.join(skipped))}")
    for path, count in search.streams_left_out.items():
        outcome.miss(f"{path}: {count:,} possible compressed streams, beyond the bound; {THOROUGH}")
    if names.IMAGE not in case.disclosure.files:
        outcome.note("memory: no image was handed over")
    outcome.figures.update({"found": len(found), "not looked for": len(skipped)})


def _evidence(case: Case, what: str, outcome: Outcome) -> str:
    search = case.search
    outcome.figures.update(
        {
            "needles": search.needle_count,
            "bytes searched": search.figures.searched_bytes,
            "compressed streams tried": search.figures.streams,
        }
    )
    return (
        f"{what}, {search.needle_count:,} forms in all, looked for in {search.figures.searched_bytes:,} bytes and "
        f"{search.figures.streams:,} possible compressed streams: {outcome.figures['found']} found"
    )
