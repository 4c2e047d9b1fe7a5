"""No key of anybody's in memory or files: every window is tried by what it would open (protocol.md 2, 4.2, 8 and 9).

The other searches look for what participants volunteered. This one asks nobody: audit/keysearch/ has it. It takes
minutes, so it runs only when it is asked for, and the report says so when it was not.
"""

from __future__ import annotations

from audit.case import THOROUGH, Case
from audit.keysearch import Coverage, KeyKind, KeySearchError, search_keys
from audit.keysearch.windows import miss_probability
from audit.outcome import About, Outcome

ABOUT = About(
    "search.windows",
    "no key of anybody's, volunteered or not, stands in memory or files",
    "No window of 32 bytes, as it stands or in hexadecimal, base64, zlib, gzip or raw deflate, is a message key of a "
    "stored body, a chain key up to 8 steps before one, a file or header key of one within reach, or the private half "
    "of a public key that the directory or a stored body names; nor 64 bytes the seed of an ML-KEM prekey.",
    "Keys in registers, in pages that are swapped out or cannot be read, and in other processes; keys in pieces, "
    "masked or encrypted; chain keys more than 8 steps before a stored body; keys that nothing public tells: root "
    "keys, link keys, the key of a body without its commitment behind it; in memory and ciphertext, keys off the "
    "alignment.",
    "2, 4.2, 8, 9",
)


def check(case: Case, outcome: Outcome) -> None:
    """Search if it was asked for, and report keys that the relay must not have."""
    if case.key_search is None:
        outcome.nothing_to_do("not run: it takes minutes, and runs with --key-search")
        return
    if case.store is None:
        outcome.miss("a store that can be read: its bodies and public keys are what keys are known by")
    try:
        coverage = search_keys(case, case.key_search)
    except KeySearchError as error:
        outcome.miss(str(error))
        return
    case.key_coverage = coverage
    for hit in coverage.leaks:
        outcome.fail(hit.where, hit.text)
    # All are counted; those beyond what a search keeps have no text.
    outcome.finding_count += coverage.leak_count - len(coverage.leaks)
    if coverage.left_out:
        outcome.miss(f"{coverage.left_out:,} places in compressed or encoded forms, beyond the bounds; {THOROUGH}")
    _tell(outcome, coverage)


def _tell(outcome: Outcome, coverage: Coverage) -> None:
    tried_not = [kind.value for kind in KeyKind if kind not in coverage.kinds]
    for reason in coverage.not_possible:
        outcome.note(reason)
    if tried_not:
        outcome.note(f"windows as {', '.join(tried_not)}")
    outcome.note(
        f"windows with few different bytes: a key drawn at random is one with a probability of {miss_probability():.1g}"
    )
    for section in coverage.sections:
        decoded = section.decoded_tried.total()
        outcome.figures[f"{section.name}: windows"] = section.windows
        outcome.figures[f"{section.name}: too regular"] = section.regular
        outcome.figures[f"{section.name}: repeated"] = section.repeated
        outcome.figures[f"{section.name}: tried"] = section.tried
        if decoded:
            outcome.figures[f"{section.name}: tried after decoding"] = decoded
    outcome.figures.update(coverage.targets)
    outcome.figures["the relay's own keys found"] = coverage.declared_count
    own = f"; its own signing key {coverage.declared_count} times, as declared" if coverage.declared_count else ""
    outcome.evidence = (
        f"{coverage.windows:,} windows, {coverage.tried:,} of them tried at alignment {coverage.alignment}: "
        f"{coverage.leak_count} keys found{own}"
    )
