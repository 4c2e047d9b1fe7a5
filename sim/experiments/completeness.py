"""C5: a relay that breaks its word is convicted by evidence that a third party checks alone; an honest one by none.

    result = run(progress=...)

An honest relay and relays that cheat (sim/mutants) hand over their stores. What the receipts of their people show is
gathered into bundles (audit/evidence), and each bundle is checked by `prove`, which is given the relay's card and
nothing else. Against the honest relay, everything that a liar could put together is tried: receipts with a lie in each
field, each receipt as evidence of each kind, and bundles against cheats with a byte changed.
"""

import dataclasses
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from audit import AuditError
from audit.case import open_case
from audit.disclosure import Disclosure
from audit.evidence import Bundle, Completeness, Kind, encode_bundle, gather, prove
from audit.evidence.bundle import HandedOver, SignedHeader
from audit.material import ReceiptItem, RelayCard, read_card, read_material
from sim.experiments.result import Control, Figure, Result
from sim.mutants.catalogue import CATALOGUE, Mutant, Side
from sim.mutants.controls import Laboratory
from sim.mutants.proofs import CheatFailed
from sim.world import Served

__all__ = ["EXPECTED", "Progress", "judge_served", "run"]

Progress = Callable[[str, int, int], None]

EXPECTED: Final = {
    "left-out": Kind.HIDDEN,
    "swapped-body": Kind.SWAPPED,
    "truncated-history": Kind.TRUNCATED,
    "forked-history": Kind.FORKED,
    "tombstones-hidden": Kind.HIDDEN,
    "invented-ack": Kind.INVENTED_ACK,
    "expires-early": Kind.HIDDEN,
    "rewritten-history": Kind.HEADS_FORKED,
    "dated-back": Kind.DATED_BACK,
}
"""Of what each cheating relay must be convicted."""
_HONEST: Final = Mutant("honest", Side.RELAY, "", "", "", lambda _: "", twice=True)
_BYTES_CHANGED: Final = 64


def run(progress: Progress | None = None) -> Result:
    """Let the honest relay and each cheat hand over, and accuse them all.

    Args:
        progress: called with what is done, how many steps have ended, and how many there are.
    """
    total, done = 2 + len(EXPECTED), 0

    def ended(what: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(what, done, total)

    with tempfile.TemporaryDirectory(prefix="blindpost-completeness-") as folder:
        laboratory = Laboratory(Path(folder))
        honest = laboratory.serve(_HONEST).served
        found = judge_served(honest)
        ended("the honest relay")
        tried, convicted = _accuse_falsely(honest)
        ended("false accusations")
        controls, bundles = [], []
        for mutant in CATALOGUE:
            if mutant.name in EXPECTED:
                control, of_this = _convict(laboratory, mutant)
                controls.append(control)
                bundles += of_this
                ended(mutant.name)
        changed, believed = _change_bytes(bundles, read_card(honest.card, "card"))
    evidence = [f"honest relay: {accusation.where}" for accusation in found.accusations]
    evidence += [f"honest relay, suspected: {suspicion}" for suspicion in found.suspicions]
    evidence += [f"honest relay, framed: {text}" for text in convicted]
    if believed:
        evidence.append(f"{believed} changed bundles still convict")
    return Result(
        experiment="completeness",
        claim="C5",
        statement=(
            "Every receipt of the honest relay is honoured, and no false accusation convicts it; every relay that "
            "hides, swaps, invents, expires early, forks, rewrites, truncates or dates back is convicted by a bundle "
            "that is checked with the relay's card alone."
        ),
        held=found.complete and not found.refused and not convicted and not believed,
        parameters={"bytes changed in each bundle": _BYTES_CHANGED},
        figures=(
            Figure("receipts judged", found.receipts),
            *(Figure(f"receipts {how}", count) for how, count in sorted(found.honoured.items())),
            Figure("rows of an earlier disclosure followed", found.earlier_rows),
            Figure("false accusations tried on the honest relay", tried),
            Figure("false accusations that convict", len(convicted)),
            Figure("changed bundles tried", changed),
            Figure("changed bundles that convict", believed),
        ),
        controls=tuple(controls),
        limits=(
            "envelopes of which nobody holds a receipt, unless an earlier disclosure had them",
            "that what was acknowledged was not copied first",
            "whoever takes a memory image has the key of that time: evidence under it says that it may be his work",
            "a relay whose clock runs ahead erases early by its own clock: it is convicted of that",
        ),
        evidence=tuple(evidence),
    )


def judge_served(served: Served) -> Completeness:
    """What the receipts of a world's people show of its relay."""
    material = read_material(served.volunteered, [], [])
    card = read_card(served.card, "card")
    with ExitStack() as stack:
        case = open_case(stack.enter_context(Disclosure(served.folder)), card, material)
        if served.earlier is None:
            return gather(case)
        before = open_case(stack.enter_context(Disclosure(served.earlier)), card, read_material([], [], []))
        return gather(case, before)


def _convict(laboratory: Laboratory, mutant: Mutant) -> tuple[Control, list[bytes]]:
    """Gather evidence against a cheat, and check each bundle by itself."""
    expected = EXPECTED[mutant.name]
    try:
        scene = laboratory.serve(mutant)
        mutant.proof(scene)
    except CheatFailed as error:
        return Control(mutant.name, mutant.cheat, False, f"the cheat did not work: {error}"), []
    found = judge_served(scene.served)
    card = read_card(scene.served.card, "card")
    convictions = [prove(accusation.bundle, card) for accusation in found.accusations]
    caught = any(conviction.kind is expected and not conviction.conditions for conviction in convictions)
    kinds = sorted({conviction.kind.value for conviction in convictions})
    how = f"convicted of: {', '.join(kinds)}" if kinds else "nothing convicts it"
    return Control(mutant.name, mutant.cheat, caught, how), [accusation.bundle for accusation in found.accusations]


def _accuse_falsely(served: Served) -> tuple[int, list[str]]:
    """Accuse the honest relay of everything with what its people and its disclosure give."""
    card = read_card(served.card, "card")
    store = (served.folder / "store" / "store.sqlite").read_bytes()
    manifest = (served.folder / "manifest.msgpack").read_bytes()
    disclosed_card = (served.folder / "config" / "relay-card.toml").read_bytes()
    receipts = read_material(served.volunteered, [], []).receipts
    lies = [lie for item in receipts for lie in _lies(item)]
    tried, convicted = 0, []
    for kind in Kind:
        parts = kind.parts
        with_store = HandedOver(manifest, disclosed_card, store if parts.stores else b"")
        for at, item in enumerate([*receipts, *lies]):
            other = receipts[(at + 1) % len(receipts)]
            signed = (SignedHeader(item.header, item.signature), SignedHeader(other.header, other.signature))
            bundle = Bundle(
                kind,
                card.relay_id,
                card.signing_key,
                card.partition,
                (),
                (item,) * parts.receipts,
                signed[: parts.headers],
                (with_store,) * parts.disclosures,
                bytes(16 * parts.subject),
            )
            tried += 1
            if (why := _convicts(encode_bundle(bundle), card)) is not None:
                convicted.append(why)
    return tried, convicted


def _lies(item: ReceiptItem) -> list[ReceiptItem]:
    return [
        dataclasses.replace(item, mailbox=bytes(16)),
        dataclasses.replace(item, envelope_id=bytes(16)),
        dataclasses.replace(item, expiry=item.expiry + 3_600),
        dataclasses.replace(item, number=item.number + 1),
        dataclasses.replace(item, body_hash=bytes(32)),
        dataclasses.replace(item, signature=bytes(64)),
        dataclasses.replace(item, path=bytes(32)),
    ]


def _change_bytes(bundles: list[bytes], card: RelayCard) -> tuple[int, int]:
    """Change single bytes of true evidence; return how many bundles were tried, and how many still convict."""
    tried = believed = 0
    for bundle in bundles:
        for at in (len(bundle) * place // _BYTES_CHANGED for place in range(_BYTES_CHANGED)):
            tried += 1
            believed += _convicts(bundle[:at] + bytes([bundle[at] ^ 1]) + bundle[at + 1 :], card) is not None
    return tried, believed


def _convicts(bundle: bytes, card: RelayCard) -> str | None:
    try:
        return prove(bundle, card).statement[-1]
    except AuditError:
        return None
