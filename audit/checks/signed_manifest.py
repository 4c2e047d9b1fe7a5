"""The manifest: signed by the relay of the card, and complete (protocol.md sections 2.6 and 11)."""

from __future__ import annotations

import re

from audit import disclosure as names
from audit.case import THOROUGH, Case
from audit.checks import configuration, journal
from audit.checks.envelopes import SKEW_S
from audit.crypto import verify
from audit.disclosure import printable
from audit.errors import BoundError, SignatureError, UnreadableError
from audit.manifest import Manifest
from audit.outcome import About, Outcome
from audit.schema import ByteClass

SIGNATURE = About(
    "manifest.signature",
    "the manifest is signed by the relay of the card",
    "The relay whose card the reader holds answers for this very disclosure; and, if the orderer's times are given, "
    "it is dated between them, give or take 300 seconds.",
    "That the card is the one that the relay's people use: compare it with theirs. Within the 300 seconds, and "
    "without the orderer's times at all, when it was taken is the relay's word.",
    "11",
)
FILES = About(
    "manifest.files",
    "the files are those of the manifest, no more and no fewer",
    "Every file is the one that the relay signed for, and nothing lies beside them.",
    "That the relay has no other disks: receipts are what convicts a relay of holding back.",
    "11",
)
_PATH = re.compile(r"[a-z0-9.-]+(/[a-z0-9.-]+)*")
_TIMES = re.compile(rb"requested_at = [0-9]{1,12}\nreceived_at = [0-9]{1,12}\n")
_PYTHON = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}[a-z0-9+]{0,8}")
_MODULE = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_LEFT_OUT = re.compile(r"[ -~]{1,200}")
LEFT_OUT_MAX = 16
MODULES_MAX = 4_096
"""A relay has loaded some 400. What is free text in a manifest is short and shown, or it were room for megabytes."""


def check_signature(case: Case, outcome: Outcome) -> None:
    """Check signature, key and name against the card."""
    manifest = case.manifest
    if case.card is None:
        outcome.miss("the relay's card: without it anybody could have signed this manifest")
    if manifest is None:
        problem = case.problems.get("manifest")
        if isinstance(problem, (BoundError, UnreadableError)):
            outcome.miss(str(problem))
        elif problem:
            outcome.fail(names.MANIFEST, str(problem))
        else:
            outcome.miss(names.MANIFEST)
        return
    if manifest.order != "wholesale":
        outcome.fail("order", f"is {printable(manifest.order)!r}, must be 'wholesale'")
    try:
        verify(manifest.signing_key, "disclosure", manifest.signed, manifest.signature)
    except SignatureError as error:
        outcome.fail("signature", error.problem)
    if "key ring" in case.problems:
        outcome.fail("rotations", str(case.problems["key ring"]))
    elif case.key_ring is not None and case.key_ring.current != manifest.signing_key:
        outcome.fail("signing_key", "is not the card's, and no rotation leads from the card's key to it")
    if case.card is not None and manifest.relay_id != case.card.relay_id:
        outcome.fail("relay_id", f"is {manifest.relay_id.hex()}, the card's is {case.card.relay_id.hex()}")
    if "relay card of the disclosure" in case.problems:
        outcome.fail(names.CARD, case.problems["relay card of the disclosure"].problem)
    elif case.disclosed_card is not None and case.disclosed_card.relay_id != manifest.relay_id:
        outcome.fail(names.CARD, "is the card of another relay than the manifest's")
    _check_taken_at(case, manifest.taken_at, outcome)
    _check_texts(manifest, outcome)
    outcome.figures.update({"rotations": len(manifest.rotations), "taken_at": manifest.taken_at})
    outcome.evidence = (
        f"relay {manifest.relay_id.hex()}; rotations of its key since the card: {len(manifest.rotations)}"
    )
    for text in manifest.left_out:
        outcome.note(f"the relay says that it left out: {printable(text)}")


def _check_texts(manifest: Manifest, outcome: Outcome) -> None:
    """Texts of the manifest that no other check reads have their form and bound."""
    if not _PYTHON.fullmatch(manifest.python_version):
        outcome.fail("python_version", f"is no version: {printable(manifest.python_version)!r}")
    strange = [name for name, _ in manifest.modules if not _MODULE.fullmatch(name)]
    if strange:
        outcome.fail("modules", f"{len(strange)} are no names of modules, such as {printable(strange[0])!r}")
    if len(manifest.modules) > MODULES_MAX or len({name for name, _ in manifest.modules}) < len(manifest.modules):
        outcome.fail("modules", f"{len(manifest.modules)} of them, at most {MODULES_MAX} are allowed, and none twice")
    if len(manifest.left_out) > LEFT_OUT_MAX or not all(map(_LEFT_OUT.fullmatch, manifest.left_out)):
        outcome.fail("left_out", f"must be at most {LEFT_OUT_MAX} texts of at most 200 letters each")


def _check_taken_at(case: Case, taken_at: int, outcome: Outcome) -> None:
    """The relay dates its disclosure; only the orderer knows between which moments it was made."""
    order = case.order
    if order is None:
        outcome.note(f"when it was taken: taken_at, {taken_at}, is the relay's word; --order gives the orderer's")
    elif taken_at < order.requested_at - SKEW_S:
        outcome.fail("taken_at", f"is {order.requested_at - taken_at} s before the orderer asked: it is dated back")
    elif taken_at > order.received_at + SKEW_S and taken_at <= _newest_s(case):
        # A disclosure is never dated before its head or log (section 11), so a clock that was set back cannot be told
        # from a date that was chosen; it convicts nobody, but neither is what expired until then more than a word.
        outcome.miss(
            f"a date that can be relied on: taken_at, {taken_at}, is {taken_at - order.received_at} s after the "
            "orderer had it, as the newest commit or line of the log is: the relay's clock ran ahead, or it is "
            "dated forward"
        )
    elif taken_at > order.received_at + SKEW_S:
        outcome.fail("taken_at", f"is {taken_at - order.received_at} s after the orderer had it: it is dated forward")


def _newest_s(case: Case) -> int:
    """The latest time that commits and the log's last line bear."""
    times = [header.time_ms // 1000 for header in case.headers.values()]
    if log := case.disclosure.files.get(names.LOG):
        last = log[max(0, len(log) - names.LINE_BYTES_MAX) : len(log)].removesuffix(b"\n").rpartition(b"\n")[2]
        line = journal.read_line(last)
        times += [line.time_s] if line is not None else []
    return max(times, default=0)


def _check_beside(case: Case, outcome: Outcome) -> None:
    """The orderer's two files are no part of the disclosure, and hold what `order` writes into them, no more."""
    card, times = (case.disclosure.beside.get(path) for path in names.BESIDE)
    if card is not None and configuration.classify(card[:])[ByteClass.UNEXPLAINED]:
        outcome.fail(names.ORDERERS_CARD, "lies beside the disclosure, and is no card in its plain form")
    if times is not None and not _TIMES.fullmatch(times[:]):
        outcome.fail(names.ORDERERS_TIMES, "lies beside the disclosure, and is not what `order` writes there")


def check_files(case: Case, outcome: Outcome) -> None:
    """Compare the manifest's list with the directory, both ways."""
    disclosure, manifest = case.disclosure, case.manifest
    for problem in disclosure.problems:
        outcome.fail(problem.path, problem.text)
    for problem in disclosure.too_large:
        outcome.miss(f"{problem.path}: {problem.text}; {THOROUGH}")
    if disclosure.is_cut_off:
        outcome.miss(f"the whole directory: more than {names.ENTRIES_MAX:,} entries, the others were not looked at")
    _check_beside(case, outcome)
    allowed = {*names.REQUIRED, *names.MEMORY}
    present = {*disclosure.files, *(problem.path for problem in disclosure.too_large)} - {names.MANIFEST, *names.BESIDE}
    for path in sorted(present - allowed):
        outcome.fail(printable(path), "is no file that a disclosure may have")
    if manifest is None:
        outcome.miss("a manifest that can be read: nothing says which files the relay handed over")
        return
    listed = [file.path for file in manifest.files]
    if listed != sorted(set(listed)):
        outcome.fail(names.MANIFEST, "its paths are not sorted, or one is named twice")
    for path in listed:
        if not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
            outcome.fail(names.MANIFEST, f"names a path that leads elsewhere: {printable(path)!r}")
    for path in sorted(present & allowed - set(listed)):
        outcome.fail(path, "is here, but the relay did not sign for it")
    for path in names.REQUIRED:
        if path not in listed:
            outcome.miss(f"{path}: the manifest does not name it")
    memory = [path for path in names.MEMORY if path in listed]
    if not memory:
        outcome.note("no memory image was handed over")
    elif len(memory) < len(names.MEMORY):
        outcome.miss(f"{', '.join(path for path in names.MEMORY if path not in listed)}: a memory image has all three")
    for file in manifest.files:
        if file.path in {problem.path for problem in disclosure.too_large}:
            continue
        if file.path not in disclosure.files:
            outcome.miss(f"{printable(file.path)}: the manifest names it, and it is not here")
        elif len(disclosure.files[file.path]) != file.size:
            outcome.fail(file.path, f"{len(disclosure.files[file.path])} bytes, the manifest says {file.size}")
        elif disclosure.sha256(file.path) != file.sha256:
            outcome.fail(file.path, "its SHA-256 is not the manifest's")
    size = sum(len(view) for view in disclosure.files.values())
    outcome.figures.update({"files": len(listed), "bytes": size})
    outcome.evidence = f"{len(listed)} files, {size:,} bytes, each as hashed in the manifest"
