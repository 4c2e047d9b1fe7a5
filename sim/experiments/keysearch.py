"""The search for keys that nobody volunteered, as an experiment for C1: one disclosure, and the relays that keep keys.

    result = run(Path("disclosure"), Path("relay-card.toml"), alignment=8, full=True)

The search is the verifier's own (audit/keysearch/). Its controls are relays that keep a key of each kind in hard places
(sim/mutants/relay_keys.py), each found at its place; and one chain key that is out of reach, which is shown to be a
real leak that the search does not see.
"""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from audit import Report
from audit.case import Case, open_case
from audit.disclosure import Disclosure
from audit.errors import EvidenceError
from audit.keysearch import QUICK, Coverage, Form, KeyKind, KeySearchSettings, search_keys
from audit.keysearch.settings import Progress
from audit.keysearch.trials import CHAIN_STEPS
from audit.keysearch.windows import miss_probability
from audit.material import load, read_card, read_material
from sim.experiments.controls import ControlsRun, run_controls
from sim.experiments.result import Control, Figure, Result
from sim.mutants.relay_keys import OUT_OF_REACH, PLACES

__all__ = ["ControlProgress", "judge", "run", "settings_of"]

ControlProgress = Callable[[str, int, int], None]

_STATEMENT: Final = (
    "No window of 32 bytes of the memory image or of any file is a key of anybody's, by what it would open, but for "
    "the relay's own signing key."
)
_LIMITS: Final = (
    "keys in registers, in pages that are swapped out or cannot be read, in other processes, on other machines",
    "keys that are split, masked, encrypted, or in an encoding that is not searched",
    "keys that nothing public tells: root keys, link keys, the key of a body without its commitment behind it",
    "header and file keys of which only later messages or chunks are stored",
)


def settings_of(
    *, alignment: int = 8, full: bool = False, workers: int = 2, thorough: bool = False
) -> KeySearchSettings:
    """The quick search (symmetric keys, X25519, no raw deflate), or the full one.

    Raises:
        KeySearchError: the alignment is not 8, 4 or 1, or there are too many workers.
    """
    return KeySearchSettings(
        alignment,
        kinds=frozenset(KeyKind) if full else QUICK,
        forms=frozenset(Form) if full else frozenset(Form) - {Form.DEFLATE},
        workers=workers,
        unbounded=thorough,
    )


def run(
    disclosure: Path,
    card: Path | bytes,
    settings: KeySearchSettings,
    *,
    volunteered: Iterable[Path | bytes] = (),
    progress: Progress | None = None,
    control_progress: ControlProgress | None = None,
) -> Result:
    """Search a disclosure, then run the relays that keep keys.

    Args:
        disclosure: the directory.
        card: the relay's card: its signing key is what the relay may hold.
        settings: what to search, and how.
        volunteered: files of participants, whose public keys count as known as well.
        progress: told of bytes searched.
        control_progress: told of each control as it ends.

    Raises:
        AuditError: the directory or the card cannot be read.
    """
    settings = dataclasses.replace(settings, progress=progress)
    relay_card = read_card(load(card, "relay card"), "relay card")
    material = read_material(volunteered, (), ())
    with Disclosure(disclosure) as opened:
        case = open_case(opened, relay_card, material)
        try:
            coverage = search_keys(case, settings)
            problems = _problems(case, coverage)
        finally:
            case.store = None
    controls = run_controls(settings.workers, [*PLACES, OUT_OF_REACH], control_progress)
    return _result(coverage, problems, controls, settings)


def judge(report: Report, settings: KeySearchSettings, control_progress: ControlProgress | None = None) -> Result:
    """The same for an audit that has searched already: its search, and the relays that keep keys.

    Args:
        report: of an audit with these settings.
        settings: what was searched, and how.
        control_progress: told of each control as it ends.

    Raises:
        AuditError: that audit has not searched.
    """
    coverage = report.key_coverage
    if coverage is None:
        raise EvidenceError("report", "its audit has not searched for keys")
    (outcome,) = (outcome for outcome in report.outcomes if outcome.about.check_id == "search.windows")
    problems = list(outcome.missing)
    if not any(section.name.startswith("memory") for section in coverage.sections):
        problems.append("no memory image was handed over")
    controls = run_controls(settings.workers, [*PLACES, OUT_OF_REACH], control_progress)
    return _result(coverage, problems, controls, settings)


def _problems(case: Case, coverage: Coverage) -> list[str]:
    """Why the statement is not shown, where no key was found."""
    problems = [f"{part}: {error}" for part, error in case.problems.items()]
    problems += list(case.material.problems)
    if case.store is None:
        problems.append("there is no store that can be read: its bodies and public keys are what keys are known by")
    if coverage.left_out:
        problems.append(f"{coverage.left_out:,} places in compressed or encoded forms lie beyond the bounds")
    return problems


def _result(coverage: Coverage, problems: list[str], controls: ControlsRun, settings: KeySearchSettings) -> Result:
    shown = [one.is_a_limit for one in controls.shown]
    if not all(shown):
        problems = [*problems, f"{OUT_OF_REACH}: was found, or does not work; the limit would be wrong"]
    not_tried = [kind.value for kind in KeyKind if kind not in coverage.kinds]
    limits = [*_LIMITS, f"a chain key more than {CHAIN_STEPS} steps before a stored body ({OUT_OF_REACH} shows it)"]
    limits.append(
        f"in memory and ciphertext, keys off multiples of {coverage.alignment} that stand before nothing public"
    )
    limits.append(f"keys with few different bytes: of random ones a share of {miss_probability():.1g}")
    if not any(section.name.startswith("memory") for section in coverage.sections):
        limits.append("no memory image was handed over: nothing of memory is shown")
    limits += [*coverage.not_possible, *([f"windows as {', '.join(not_tried)}: --full"] if not_tried else [])]
    return Result(
        experiment="keysearch",
        claim="C1",
        statement=_STATEMENT,
        held=not coverage.leak_count and not problems,
        parameters={"alignment": coverage.alignment, "full": settings.whole},
        figures=tuple(_figures(coverage, sum(shown))),
        controls=tuple(
            Control(
                result.name,
                "keeps a message key, a chain key, an X25519 and an Ed25519 private key",
                result.caught,
                "each of the four named at its place" if result.caught else result.problem or "not found",
            )
            for result in controls.caught
        ),
        limits=tuple(limits),
        evidence=(*(f"{hit.where}: {hit.text}" for hit in coverage.leaks), *problems),
    )


def _figures(coverage: Coverage, shown: int) -> Iterable[Figure]:
    sections = coverage.sections
    yield Figure("windows", coverage.windows)
    yield Figure("left out: too few different bytes", sum(section.regular for section in sections))
    yield Figure("left out: another of the block is equal", sum(section.repeated for section in sections))
    yield Figure("tried", coverage.tried)
    for section in sections:
        yield Figure(f"tried in {section.name}", section.tried, f"of {section.windows:,}")
    for form in Form:
        windows = sum(section.decoded_windows[form.value] for section in sections)
        if windows:
            tried = sum(section.decoded_tried[form.value] for section in sections)
            yield Figure(f"tried in {form.value}", tried, f"of {windows:,}")
    for name, count in coverage.targets.items():
        yield Figure(f"known: {name}", count)
    yield Figure("keys found", coverage.leak_count)
    yield Figure("the relay's own signing key found", coverage.declared_count)
    yield Figure("chain keys out of reach, shown not to be seen", shown)
