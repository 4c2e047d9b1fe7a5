"""False accusations: whatever a client, an orderer or a thief of an old key puts together, an honest relay is not
convicted by it, or only under a condition that says who else it may have been.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.errors import AuditError
from audit.evidence import Bundle, Kind, decode_bundle, encode_bundle, prove
from audit.evidence.bundle import HandedOver, SignedHeader
from audit.evidence.judge import MARGIN_S
from audit.material import ReceiptItem
from tests.audit.accusing import card_of, convictions, gathered
from tests.audit.auditing import execute
from tests.audit.honest import HOUR, NOW, HonestRelay, Letter, SigningKey, hash16, hash32, pack, path_of, sha256, tree

Item = list[Any]


def honest() -> HonestRelay:
    relay = HonestRelay()
    acked, withdrawn = relay.write(b"acked", 2, 1), relay.write(b"withdrawn", 1, 2)
    acked.state, withdrawn.state = "acked", "withdrawn"
    relay.commit(relay.write(b"first", 0, 1), relay.write(b"second", 0, 2), acked)
    relay.commit(relay.write(b"third", 1, 0), withdrawn)
    return relay


@pytest.fixture
def relay() -> HonestRelay:
    return honest()


def frame(
    relay: HonestRelay,
    folder: Path,
    kind: Kind,
    *,
    receipts: list[Item] = [],  # noqa: B006  # never changed
    headers: list[tuple[bytes, bytes]] = [],  # noqa: B006
    disclosures: int = 1,
    **changes: Any,
) -> bytes:
    """What somebody puts together by hand, from an honest disclosure and what else he has."""
    card = card_of(relay)
    parts = kind.parts
    handed_over = HandedOver(
        (folder / "manifest.msgpack").read_bytes(),
        (folder / "config/relay-card.toml").read_bytes(),
        (folder / "store/store.sqlite").read_bytes() if parts.stores else b"",
    )
    bundle = Bundle(
        kind,
        card.relay_id,
        card.signing_key,
        card.partition,
        tuple(relay.rotations),
        tuple(ReceiptItem("", *item[1:]) for item in receipts),
        tuple(SignedHeader(*header) for header in headers),
        (handed_over,) * (disclosures if parts.disclosures else 0),
    )
    return encode_bundle(dataclasses.replace(bundle, **changes))


OF_AN_ENVELOPE = [kind for kind in Kind if kind.parts.receipts]


@pytest.mark.parametrize("kind", OF_AN_ENVELOPE)
@pytest.mark.parametrize("which", range(5))
def test_honest_receipts_and_an_honest_disclosure_convict_of_nothing(
    relay: HonestRelay, tmp_path: Path, kind: Kind, which: int
) -> None:
    """Acknowledged and withdrawn ones among them, though the client keeps quiet about t."""
    folder = relay.disclose(tmp_path / "d", memory=False)
    with pytest.raises(AuditError, match="convicts nobody"):
        prove(frame(relay, folder, kind, receipts=[relay.receipt_item(relay.letters[which])]), card_of(relay))


@pytest.mark.parametrize(
    ("at", "change"),
    [
        (3, bytes(16)),
        (4, bytes(16)),
        (5, (NOW // HOUR + 26) * HOUR),
        (6, 7),
        (7, 1),
        (8, b""),
        (8, bytes(32)),
        (9, bytes(32)),
        (2, bytes(64)),
    ],
)
def test_a_receipt_with_a_lie_in_it_binds_the_relay_to_nothing(
    relay: HonestRelay, tmp_path: Path, at: int, change: object
) -> None:
    """Mailbox, id, expiry, number, leaf, path, body and signature are all under the relay's signature."""
    item = relay.receipt_item(relay.letters[0])
    item[at] = change
    found = gathered(relay, tmp_path / "d", [item])
    assert found.complete
    assert len(found.refused) == 1
    for kind in OF_AN_ENVELOPE:
        with pytest.raises(AuditError):
            prove(frame(relay, tmp_path / "d", kind, receipts=[item]), card_of(relay))


def test_an_inner_node_is_no_leaf(relay: HonestRelay, tmp_path: Path) -> None:
    """A shorter path that begins with an inner node of the tree does not make a receipt of something else."""
    item = relay.receipt_item(relay.letters[0])
    item[8] = item[8][32:]
    found = gathered(relay, tmp_path / "d", [item])
    assert found.complete
    assert "path" in found.refused[0]


@pytest.mark.parametrize(("after_s", "convicted"), [(0, False), (MARGIN_S, False), (MARGIN_S + 1, True)])
def test_an_expiry_counts_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_s: int, convicted: bool) -> None:
    """A relay erases by its own clock: an envelope that ends within 300 s of the disclosure convicts nobody."""
    relay = HonestRelay()
    letter = relay.write(b"about to end")
    relay.commit(letter)
    letter.state = "expired"
    monkeypatch.setattr(HonestRelay, "taken_at", property(lambda _: letter.expiry - after_s))
    found = gathered(relay, tmp_path / "d", [relay.receipt_item(letter)])
    assert set(convictions(found, relay)) == ({Kind.HIDDEN} if convicted else set())
    assert found.honoured == {("broken" if convicted else "expired"): 1}


def test_an_old_receipt_says_nothing_of_a_new_envelope_with_the_same_id(relay: HonestRelay, tmp_path: Path) -> None:
    """After the expiry a client may submit the same id again, with another body, and volunteer the old receipt."""
    old = relay.write(b"old")
    old.expiry, old.state = NOW // HOUR * HOUR, "expired"
    relay.commit(old)
    replayed = relay.receipt_item(old)
    new = relay.write(b"new")
    new.token, new.envelope_id = old.token, old.envelope_id
    relay.time_ms += MARGIN_S * 1000
    relay.commit(new)
    found = gathered(relay, tmp_path / "d", [replayed])
    assert found.complete
    assert found.honoured == {"expired": 1}
    with pytest.raises(AuditError, match="convicts nobody"):
        prove(frame(relay, tmp_path / "d", Kind.SWAPPED, receipts=[replayed]), card_of(relay))


def test_a_receipt_after_the_disclosure_says_nothing_of_it(relay: HonestRelay, tmp_path: Path) -> None:
    folder = relay.disclose(tmp_path / "d", memory=False)
    relay.time_ms = relay.taken_at * 1000
    relay.commit(relay.write(b"later"))
    item = relay.receipt_item(relay.letters[-1])
    found = gathered(relay, folder, [item], disclose=False)
    assert found.complete
    assert found.honoured == {"later than the disclosure": 1}
    header = (item[1], item[2])
    for kind in (Kind.TRUNCATED, Kind.DATED_BACK, Kind.HEAD_FORKED):
        with pytest.raises(AuditError, match="do not contradict"):
            prove(frame(relay, folder, kind, headers=[header]), card_of(relay))


def test_the_same_second_is_not_before(relay: HonestRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits have milliseconds, a disclosure's date has seconds: the second in which it was made is after it."""
    monkeypatch.setattr(HonestRelay, "taken_at", property(lambda _: NOW + 60))
    folder = relay.disclose(tmp_path / "d", memory=False)
    relay.time_ms = (NOW + 59) * 1000
    relay.commit(relay.write(b"in the same second"))
    found = gathered(relay, folder, [relay.receipt_item(relay.letters[-1])], disclose=False)
    assert found.complete


def test_two_honest_commits_contradict_each_other_in_no_way(relay: HonestRelay, tmp_path: Path) -> None:
    folder = relay.disclose(tmp_path / "d", memory=False)
    pairs = [(relay.commits[i][:2], relay.commits[j][:2]) for i in range(2) for j in range(2)]
    for kind in (Kind.FORKED, Kind.UNLINKED, Kind.REVERSED):
        for pair in pairs:
            with pytest.raises(AuditError, match="do not contradict"):
                prove(frame(relay, folder, kind, headers=list(pair)), card_of(relay))
    for kind in (Kind.TRUNCATED, Kind.DATED_BACK, Kind.HEAD_FORKED):
        for header in relay.commits:
            with pytest.raises(AuditError, match="do not contradict"):
                prove(frame(relay, folder, kind, headers=[header[:2]]), card_of(relay))


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.parts.disclosures == 2])
def test_one_disclosure_does_not_contradict_itself(relay: HonestRelay, tmp_path: Path, kind: Kind) -> None:
    folder = relay.disclose(tmp_path / "d", memory=False)
    acked = next(letter for letter in relay.letters if letter.state == "acked")
    keys = (
        [hash16("tombstone", acked.recipient.mailbox + acked.envelope_id), bytes(16)] if kind.parts.subject else [b""]
    )
    for key in keys:
        with pytest.raises(AuditError):
            prove(frame(relay, folder, kind, disclosures=2, subject=key), card_of(relay))


def test_disclosures_in_the_wrong_order_convict_nobody(relay: HonestRelay, tmp_path: Path) -> None:
    first = relay.disclose(tmp_path / "first", memory=False)
    relay.time_ms += 60_000
    relay.commit(relay.write(b"later"))
    relay.letters[0].state = "acked"
    second = relay.disclose(tmp_path / "second", memory=False)
    with pytest.raises(AuditError, match="was taken after"):
        gathered(relay, first, earlier=second, disclose=False)
    swapped = [
        HandedOver(*((folder / name).read_bytes() for name in ("manifest.msgpack", "config/relay-card.toml")))
        for folder in (second, first)
    ]
    for kind in (Kind.SHORTENED, Kind.HEADS_FORKED):
        with pytest.raises(AuditError, match="do not contradict"):
            prove(_with(relay, first, kind, swapped), card_of(relay))
    key = hash16("tombstone", relay.letters[0].recipient.mailbox + relay.letters[0].envelope_id)
    stores = [
        dataclasses.replace(it, store=(folder / "store/store.sqlite").read_bytes())
        for it, folder in zip(swapped, (second, first), strict=True)
    ]
    with pytest.raises(AuditError, match="the earlier one comes first"):
        prove(_with(relay, first, Kind.REVIVED, stores, key), card_of(relay))


def _with(relay: HonestRelay, folder: Path, kind: Kind, parts: list[HandedOver], subject: bytes = b"") -> bytes:
    bundle = decode_bundle(frame(relay, folder, kind, disclosures=2, subject=subject or bytes(16 * kind.parts.subject)))
    return encode_bundle(dataclasses.replace(bundle, disclosures=tuple(parts)))


# ------------------------------------------------------------------------------------------- files that were tampered


def test_a_store_that_somebody_cut_is_not_the_relays(relay: HonestRelay, tmp_path: Path) -> None:
    folder = relay.disclose(tmp_path / "d", memory=False)
    cut = honest().disclose(tmp_path / "cut", memory=False, bend_store=execute("DELETE FROM envelopes WHERE seq = 1"))
    (folder / "store/store.sqlite").write_bytes((cut / "store/store.sqlite").read_bytes())
    item = relay.receipt_item(relay.letters[0])
    with pytest.raises(AuditError, match="is not the file that the relay signed for"):
        prove(frame(relay, folder, Kind.HIDDEN, receipts=[item]), card_of(relay))
    found = gathered(relay, folder, [item], disclose=False)
    assert not found.accusations
    assert "is not the file that the relay signed for" in found.suspicions[0]


def test_a_manifest_that_somebody_else_signed_is_not_the_relays(relay: HonestRelay, tmp_path: Path) -> None:
    item = relay.receipt_item(relay.letters[0])
    folder = relay.disclose(tmp_path / "d", memory=False, bend_store=execute("DELETE FROM envelopes WHERE seq = 1"))
    relay.signing_key = SigningKey(bytes(32))
    relay.sign_manifest(folder)
    with pytest.raises(AuditError, match="not signed by the key"):
        prove(frame(relay, folder, Kind.HIDDEN, receipts=[item]), card_of(relay))


def test_a_forged_store_under_the_relays_own_manifest_is_refused(relay: HonestRelay, tmp_path: Path) -> None:
    folder = relay.disclose(tmp_path / "d", memory=False)
    bundle = decode_bundle(frame(relay, folder, Kind.HIDDEN, receipts=[relay.receipt_item(relay.letters[0])]))
    for part in (
        dataclasses.replace(bundle.disclosures[0], card=relay.card + b"\n"),
        dataclasses.replace(bundle.disclosures[0], store=bundle.disclosures[0].store + bytes(4096)),
        dataclasses.replace(bundle.disclosures[0], manifest=bundle.disclosures[0].manifest[:-1] + b"\0"),
    ):
        with pytest.raises(AuditError):
            prove(encode_bundle(dataclasses.replace(bundle, disclosures=(part,))), card_of(relay))


def test_a_store_without_the_protocols_tables_convicts_nobody_of_hiding(relay: HonestRelay, tmp_path: Path) -> None:
    """Its rows are not read, so that an envelope in them would look as if it were not there; the audit reports it."""
    bend = execute("ALTER TABLE envelopes ADD COLUMN note TEXT")
    found = gathered(relay, tmp_path / "d", [relay.receipt_item(relay.letters[0])], bend_store=bend)
    assert not found.accusations
    assert "has not the tables of section 9" in found.suspicions[0]


# ---------------------------------------------------------------------------------------------------- other partitions


def of_partition(relay: HonestRelay, letter: Letter, partition: int, index: int) -> Item:
    """A receipt of the same relay's other partition: the same key signs it."""
    leaves = [letter.leaf_hash]
    header = pack([relay.relay_id, partition, index, NOW * 1000, 1, tree(leaves), bytes(32)])
    signature = relay.signing_key.sign("commit", header)
    fields = [letter.recipient.mailbox, letter.envelope_id, letter.expiry, 1, 0, b"", sha256(letter.body)]
    return [2, header, signature, *fields, b""]


@pytest.mark.parametrize("index", [1, 50])
def test_a_receipt_of_another_partition_convicts_nobody(relay: HonestRelay, tmp_path: Path, index: int) -> None:
    letter = relay.write(b"elsewhere")
    letter.number = 1
    item = of_partition(relay, letter, 1, index)
    found = gathered(relay, tmp_path / "d", [item])
    assert found.complete
    assert "another relay's or partition's" in found.refused[0]
    for kind in (Kind.HIDDEN, Kind.TRUNCATED, Kind.FORKED):
        headers = [(item[1], item[2]), relay.commits[0][:2]][: kind.parts.headers]
        bent = frame(relay, tmp_path / "d", kind, receipts=[item][: kind.parts.receipts], headers=headers)
        with pytest.raises(AuditError, match="another relay's or partition's"):
            prove(bent, card_of(relay))


def test_a_disclosure_of_another_partition_convicts_nobody(relay: HonestRelay, tmp_path: Path) -> None:
    """The framer holds the card of partition 1, receipts of it, and a disclosure of partition 0."""
    folder = relay.disclose(tmp_path / "d", memory=False)
    card = dataclasses.replace(card_of(relay), partition=1)
    letter = relay.write(b"elsewhere")
    letter.number = 1
    item = of_partition(relay, letter, 1, 50)
    bent = frame(relay, folder, Kind.TRUNCATED, headers=[(item[1], item[2])], partition=1)
    with pytest.raises(AuditError, match="the disclosure is another partition's"):
        prove(bent, card)


# ------------------------------------------------------------------------------------------------- keys that were known


def test_who_has_a_retired_key_convicts_under_a_condition_only(relay: HonestRelay, tmp_path: Path) -> None:
    """The orderer took a memory image, and forges a commit of the time before with the key that he found in it."""
    stolen = relay.signing_key
    relay.rotate()
    folder = relay.disclose(tmp_path / "d", memory=False)
    header = pack([relay.relay_id, 0, 2, relay.time_ms, 1, bytes(32), bytes(32)])
    forged = (header, stolen.sign("commit", header))
    bundle = frame(relay, folder, Kind.FORKED, headers=[forged, relay.commits[1][:2]])
    for known in (None, tuple(relay.rotations)):
        conditions = prove(bundle, card_of(relay), rotations=known).conditions
        assert any("retired after commit 2" in condition for condition in conditions)


def test_a_retired_key_signs_no_commit_after_its_last(relay: HonestRelay, tmp_path: Path) -> None:
    stolen = relay.signing_key
    relay.rotate()
    folder = relay.disclose(tmp_path / "d", memory=False)
    header = pack([relay.relay_id, 0, 3, relay.time_ms, 1, bytes(32), hash32("commit-hash", relay.commits[-1][0])])
    for rotations in (tuple(relay.rotations), ()):
        bundle = frame(
            relay,
            folder,
            Kind.TRUNCATED,
            headers=[(header, stolen.sign("commit", header))],
            rotations=rotations,
        )
        with pytest.raises(AuditError):
            prove(bundle, card_of(relay))


def test_who_keeps_quiet_about_a_rotation_is_refuted_by_it(relay: HonestRelay, tmp_path: Path) -> None:
    """Without the rotation the forged commit looks like the relay's; a reader who knows the rotation sees that not."""
    stolen = relay.signing_key
    folder = relay.disclose(tmp_path / "d", memory=False)
    headers = []
    for root in (bytes(32), bytes(31) + b"\1"):
        header = pack([relay.relay_id, 0, 9, relay.time_ms, 1, root, bytes(32)])
        headers.append((header, stolen.sign("commit", header)))
    relay.rotate()
    bundle = frame(relay, folder, Kind.FORKED, headers=headers, rotations=())
    assert prove(bundle, card_of(relay)).kind is Kind.FORKED
    with pytest.raises(AuditError, match="not that of the key"):
        prove(bundle, card_of(relay), rotations=tuple(relay.rotations))


def test_a_rotation_that_a_thief_made_is_a_condition_and_refuted_by_the_relays_own(
    relay: HonestRelay, tmp_path: Path
) -> None:
    """With the old key the orderer makes a key of his own, and signs with it whatever he likes."""
    stolen, thief = relay.signing_key, honest()
    relay.rotate()
    thief.signing_key = stolen
    thief.draw(3)
    thief.rotate()
    item = relay.receipt_item(relay.letters[0])
    folder = thief.disclose(tmp_path / "d", memory=False, bend_store=execute("DELETE FROM envelopes WHERE seq = 1"))
    bundle = frame(thief, folder, Kind.HIDDEN, receipts=[item])
    conditions = prove(bundle, card_of(relay)).conditions
    assert any("could have made another rotation" in condition for condition in conditions)
    with pytest.raises(AuditError, match="are not those that you know"):
        prove(bundle, card_of(relay), rotations=tuple(relay.rotations))


def test_a_disclosure_with_a_memory_image_convicts_under_a_condition(relay: HonestRelay, tmp_path: Path) -> None:
    """Whoever took the image has the key that signed the manifest, and could have signed another store."""
    bend = execute("DELETE FROM envelopes WHERE seq = 1")
    found = gathered(relay, tmp_path / "d", [relay.receipt_item(relay.letters[0])], bend_store=bend, memory=True)
    (conviction,) = convictions(found, relay).values()
    assert any("whoever took that image" in condition for condition in conviction.conditions)


# ---------------------------------------------------------------------------------------------------------- at random


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_history_of_an_honest_relay_convicts_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any story: commits, acks, withdrawals, expiries, rotations; all its receipts, some of them lies."""
    relay = HonestRelay(seed=data.draw(st.integers(0, 2**16)))
    for _ in range(data.draw(st.integers(1, 4))):
        relay.time_ms += data.draw(st.integers(0, 3 * HOUR)) * 1000
        letters = [
            relay.write(b"x", sender, 1) for sender in data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=3))
        ]
        for letter in letters:
            letter.expiry = (relay.time_ms // 1000 // HOUR + data.draw(st.integers(1, 30))) * HOUR
        relay.commit(*letters)
        if data.draw(st.booleans()):
            relay.rotate()
    items = [relay.receipt_item(letter) for letter in relay.letters]
    earlier = None
    folder = tmp_path_factory.mktemp("story")
    for letter in relay.letters:
        letter.state = data.draw(st.sampled_from(["live", "acked", "withdrawn"]))
        if letter.expiry <= relay.taken_at:
            letter.state = "expired"
    if data.draw(st.booleans()):
        earlier = relay.disclose(folder / "first", memory=False)
        relay.time_ms += data.draw(st.integers(0, 40 * HOUR)) * 1000
        for letter in relay.letters:
            if letter.state == "live":
                letter.state = data.draw(st.sampled_from(["live", "acked", "withdrawn"]))
            if letter.expiry <= relay.taken_at:
                letter.state = "expired"
    for item in items:
        if data.draw(st.booleans()):
            at = data.draw(st.sampled_from([3, 4, 9]))
            item[at] = data.draw(st.binary(min_size=len(item[at]), max_size=len(item[at])))
    found = gathered(relay, folder / "d", items, earlier=earlier)
    assert found.complete
    assert not found.accusations
    assert not found.suspicions


def test_paths_are_those_of_the_definition() -> None:
    from audit.evidence.gather import levels_of, path_in

    for count in range(1, 20):
        leaves = [sha256(bytes([i])) for i in range(count)]
        for index in range(count):
            assert path_in(levels_of(leaves), index) == b"".join(path_of(index, leaves))
