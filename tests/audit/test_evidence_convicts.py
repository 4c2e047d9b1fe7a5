"""Each way in which a relay breaks its word is convicted before a third party, by a bundle that is checked alone."""

from __future__ import annotations

import dataclasses
import importlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from msgpack import unpackb  # type: ignore[import-untyped]

from audit import Verdict
from audit.errors import AuditError
from audit.evidence import Kind, decode_bundle, encode_bundle, prove
from audit.evidence.__main__ import main
from tests.audit.accusing import card_of, convictions, gathered
from tests.audit.auditing import audit_of, execute
from tests.audit.honest import HOUR, HonestRelay, hash16, hash32, pack, tree

# The package gives the function the module's name.
GATHER = importlib.import_module("audit.evidence.gather")


@pytest.fixture
def relay() -> HonestRelay:
    """Without a rotation of its key, so that no condition stands beside a conviction."""
    return plain()


def plain() -> HonestRelay:
    relay = HonestRelay()
    acked = relay.write(b"acked", 2, 1)
    acked.state = "acked"
    relay.commit(relay.write(b"first", 0, 1), relay.write(b"second", 0, 2), acked)
    relay.commit(relay.write(b"third", 1, 0))
    relay.commit(relay.write(b"fourth", 2, 0))
    return relay


def receipts(relay: HonestRelay) -> list[list[object]]:
    return [relay.receipt_item(letter) for letter in relay.letters]


def sign_header(relay: HonestRelay, index: int, **changes: object) -> tuple[bytes, bytes, list[bytes]]:
    """The relay's commit again, with other fields."""
    header, _, leaves = relay.commits[index - 1]
    fields = dict(
        zip(
            ("relay_id", "partition", "index", "time_ms", "count", "root", "previous"),
            unpackb(header),
            strict=True,
        )
    )
    changed = pack(list((fields | changes).values()))
    return changed, relay.signing_key.sign("commit", changed), leaves


def test_an_honest_relay_is_complete(relay: HonestRelay, tmp_path: Path) -> None:
    found = gathered(relay, tmp_path / "d", receipts(relay))
    assert found.complete
    assert found.receipts == 5
    assert found.honoured == {"in the store": 4, "acknowledged or withdrawn": 1}
    assert not found.refused + found.suspicions


@pytest.mark.parametrize(
    ("kind", "bend", "words"),
    [
        (Kind.HIDDEN, "DELETE FROM envelopes WHERE number = 1 AND commit_index = 1", "disclosed neither it"),
        (Kind.HIDDEN, "DELETE FROM tombstones", "disclosed neither it"),
        (Kind.SWAPPED, "UPDATE envelopes SET body = randomblob(length(body)) WHERE seq = 1", "another body"),
        (Kind.SWAPPED, "UPDATE envelopes SET expiry = expiry - 3600 WHERE seq = 2", "another number, expiry or place"),
        (Kind.INVENTED_ACK, "UPDATE tombstones SET token = randomblob(16)", "its t is not the envelope's"),
        (Kind.INVENTED_ACK, "UPDATE tombstones SET reason = 3, token = x''", "says reason 3"),
        (Kind.INVENTED_CLOSURE, "UPDATE tombstones SET reason = 4, token = x''", "was closed"),
        (Kind.COMMIT_LEFT_OUT, "DELETE FROM commits WHERE idx = 2", "missing from the middle"),
    ],
)
def test_what_a_store_lacks_convicts(relay: HonestRelay, tmp_path: Path, kind: Kind, bend: str, words: str) -> None:
    items = receipts(relay)
    found = gathered(relay, tmp_path / "d", items, bend_store=execute(bend))
    proven = convictions(found, relay)
    assert set(proven) == {kind}
    assert proven[kind].conditions == ()
    assert words in " ".join(proven[kind].statement)
    assert not found.suspicions


def test_a_token_that_the_relay_invents_for_an_envelope_that_waits(relay: HonestRelay, tmp_path: Path) -> None:
    letter = relay.letters[3]

    def bend(connection: sqlite3.Connection) -> None:
        key = hash16("tombstone", letter.recipient.mailbox + letter.envelope_id)
        connection.execute("DELETE FROM envelopes WHERE envelope_id = ?", (letter.envelope_id,))
        connection.execute(
            "INSERT INTO tombstones VALUES (9, ?, ?, ?, ?, ?, ?, 1, randomblob(16))",
            (key, letter.recipient.mailbox, letter.expiry, letter.commit_index, letter.leaf, letter.number),
        )

    found = gathered(relay, tmp_path / "d", receipts(relay), bend_store=bend)
    assert set(convictions(found, relay)) == {Kind.INVENTED_ACK}


def test_an_envelope_erased_before_its_expiry(relay: HonestRelay, tmp_path: Path) -> None:
    items = receipts(relay)
    relay.letters[3].state = "expired"
    found = gathered(relay, tmp_path / "d", items)
    assert set(convictions(found, relay)) == {Kind.HIDDEN}


def test_a_history_that_was_cut(relay: HonestRelay, tmp_path: Path) -> None:
    items = receipts(relay)
    relay.commits.pop()
    relay.letters.pop()
    found = gathered(relay, tmp_path / "d", items)
    proven = convictions(found, relay)
    assert set(proven) == {Kind.TRUNCATED}
    assert "leaves it out" in proven[Kind.TRUNCATED].statement[-1]


def test_a_forked_history(relay: HonestRelay, tmp_path: Path) -> None:
    items = receipts(relay)
    letter = relay.letters[-1]
    letter.body = letter.body[:-1] + bytes([letter.body[-1] ^ 1])
    leaves = [letter.leaf_hash]
    header, signature, _ = sign_header(relay, 3, root=tree(leaves))
    relay.commits[-1] = header, signature, leaves
    found = gathered(relay, tmp_path / "d", items)
    assert set(convictions(found, relay)) == {Kind.FORKED}


def test_a_fork_that_two_receipts_show_without_the_disclosure(relay: HonestRelay, tmp_path: Path) -> None:
    """Two clients hold receipts of one index that differ, and the disclosure holds neither: it was cut before."""
    mine = receipts(relay)[-1]
    other = relay.write(b"for somebody else", 1, 0)
    other.number, other.commit_index = relay.letters[-1].number, 3
    header, signature, _leaves = sign_header(relay, 3, root=other.leaf_hash)
    relay.commits[-1] = header, signature, [other.leaf_hash]
    theirs = relay.receipt_item(other)
    relay.commits.pop()
    relay.letters.pop()
    found = gathered(relay, tmp_path / "d", [mine, theirs])
    assert set(convictions(found, relay)) == {Kind.TRUNCATED, Kind.FORKED}


def test_a_commit_that_does_not_name_the_one_before(relay: HonestRelay, tmp_path: Path) -> None:
    items = receipts(relay)[:3]
    header, signature, leaves = sign_header(relay, 1, time_ms=relay.time_ms - 4_000)
    relay.commits[0] = header, signature, leaves
    found = gathered(relay, tmp_path / "d", items)
    assert set(convictions(found, relay)) == {Kind.FORKED, Kind.UNLINKED}


def test_a_commit_that_is_dated_back(relay: HonestRelay, tmp_path: Path) -> None:
    header, signature, leaves = sign_header(relay, 3, time_ms=relay.time_ms - 60_000)
    relay.commits[-1] = header, signature, leaves
    found = gathered(relay, tmp_path / "d")
    assert set(convictions(found, relay)) == {Kind.REVERSED}


def test_a_disclosure_that_is_dated_back(relay: HonestRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HonestRelay, "taken_at", property(lambda it: it.time_ms // 1000 - 301))
    found = gathered(relay, tmp_path / "d")
    assert set(convictions(found, relay)) == {Kind.DATED_BACK}


def test_a_manifest_with_another_head(relay: HonestRelay, tmp_path: Path) -> None:
    folder = relay.disclose(tmp_path / "d", memory=False)
    relay.commits[-1] = sign_header(relay, 3, root=bytes(32))
    relay.sign_manifest(folder)
    found = gathered(relay, folder, disclose=False)
    assert set(convictions(found, relay)) == {Kind.HEAD_FORKED}


# ---------------------------------------------------------------------------------------------------- two disclosures


def later(relay: HonestRelay, letters: int = 1) -> None:
    """More mail after a disclosure."""
    relay.time_ms += 60_000
    for _ in range(letters):
        relay.commit(relay.write(b"later", 1, 0))


Change = Callable[[HonestRelay], None]


def forget_last(relay: HonestRelay) -> None:
    relay.commits.pop()
    relay.letters.pop()
    relay.time_ms += 60_000


def rewrite_last(relay: HonestRelay) -> None:
    letter = relay.letters[-1]
    letter.body = letter.body[:-1] + bytes([letter.body[-1] ^ 1])
    header, signature, _ = sign_header(relay, 3, root=tree([letter.leaf_hash]))
    relay.commits[-1] = header, signature, [letter.leaf_hash]
    relay.time_ms += 60_000


def revive(relay: HonestRelay) -> None:
    relay.letters[2].state = "live"
    relay.time_ms += 60_000


def forget_tombstone(relay: HonestRelay) -> None:
    relay.letters[2].state = "expired"
    relay.time_ms += 60_000


def lose(relay: HonestRelay) -> None:
    relay.letters[0].state = "expired"
    later(relay)


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (forget_last, {Kind.SHORTENED, Kind.TRUNCATED}),
        (rewrite_last, {Kind.HEADS_FORKED, Kind.HEAD_FORKED, Kind.FORKED}),
        (revive, {Kind.REVIVED}),
        (forget_tombstone, {Kind.TOMBSTONE_CHANGED}),
        (lose, {Kind.HIDDEN}),
    ],
)
def test_what_changed_between_two_disclosures_convicts_without_a_client(
    relay: HonestRelay, tmp_path: Path, change: Change, kinds: set[Kind]
) -> None:
    """No receipt is volunteered: what the relay disclosed first binds it as much."""
    earlier = relay.disclose(tmp_path / "first", memory=False)
    change(relay)
    found = gathered(relay, tmp_path / "second", earlier=earlier)
    assert set(convictions(found, relay)) == kinds
    assert not found.suspicions


def test_a_tombstone_that_got_another_reason(relay: HonestRelay, tmp_path: Path) -> None:
    earlier = relay.disclose(tmp_path / "first", memory=False)
    relay.time_ms += 60_000
    bend = execute("UPDATE tombstones SET reason = 2")
    found = gathered(relay, tmp_path / "second", earlier=earlier, bend_store=bend)
    assert set(convictions(found, relay)) == {Kind.TOMBSTONE_CHANGED}


def test_a_key_that_was_changed_in_two_ways(relay: HonestRelay, tmp_path: Path) -> None:
    """A conviction under a condition: whoever took the memory image before a rotation had the old key."""
    relay.rotate()
    earlier = relay.disclose(tmp_path / "first", memory=False)
    other = plain()
    other.draw(1)
    other.rotate()
    later(other)
    found = gathered(other, tmp_path / "second", earlier=earlier)
    proven = convictions(found, other)
    assert set(proven) == {Kind.KEYS_FORKED}
    assert "has been retired" in proven[Kind.KEYS_FORKED].conditions[0]


def test_a_rotation_that_is_not_known_any_more_is_a_suspicion(relay: HonestRelay, tmp_path: Path) -> None:
    key = relay.signing_key
    relay.rotate()
    earlier = relay.disclose(tmp_path / "first", memory=False)
    relay.rotations.clear()
    relay.signing_key = key
    relay.time_ms += 60_000
    found = gathered(relay, tmp_path / "second", earlier=earlier)
    assert not found.complete
    assert not found.accusations
    assert "does not" in found.suspicions[0]


def test_honest_changes_between_two_disclosures(relay: HonestRelay, tmp_path: Path) -> None:
    """Present, then acknowledged, withdrawn or expired; more mail; another key."""
    relay.letters[1].expiry = (relay.time_ms // 1000 // HOUR + 1) * HOUR
    relay.commits[0] = _resigned(relay)
    for index in (2, 3):
        header, signature, leaves = sign_header(
            relay, index, previous=hash32("commit-hash", relay.commits[index - 2][0])
        )
        relay.commits[index - 1] = header, signature, leaves
    items = receipts(relay)
    earlier = relay.disclose(tmp_path / "first", memory=False)
    relay.letters[0].state, relay.letters[1].state, relay.letters[3].state = "acked", "expired", "withdrawn"
    relay.rotate()
    relay.time_ms += HOUR * 1000
    later(relay, 2)
    found = gathered(relay, tmp_path / "second", items, earlier=earlier)
    assert found.complete
    assert found.earlier_rows == 5
    assert found.honoured == {"in the store": 1, "acknowledged or withdrawn": 3, "expired": 1}


def _resigned(relay: HonestRelay) -> tuple[bytes, bytes, list[bytes]]:
    leaves = [letter.leaf_hash for letter in relay.letters if letter.commit_index == 1]
    header, signature, _ = sign_header(relay, 1, root=tree(leaves))
    return header, signature, leaves


# ----------------------------------------------------------------------------------------------------- the bundle file


@pytest.fixture
def hidden(relay: HonestRelay, tmp_path: Path) -> tuple[HonestRelay, bytes]:
    found = gathered(
        relay, tmp_path / "hidden", receipts(relay), bend_store=execute("DELETE FROM envelopes WHERE seq = 1")
    )
    return relay, found.accusations[0].bundle


def test_no_changed_byte_of_a_bundle_convicts(hidden: tuple[HonestRelay, bytes]) -> None:
    relay, bundle = hidden
    step = max(1, len(bundle) // 400)
    for at in range(0, len(bundle), step):
        bent = bundle[:at] + bytes([bundle[at] ^ 1]) + bundle[at + 1 :]
        with pytest.raises(AuditError):
            prove(bent, card_of(relay))


@pytest.mark.parametrize("part", ["receipts", "headers", "disclosures", "subject", "rotations", "other_rotations"])
def test_a_bundle_with_other_parts_than_its_kind_is_refused(hidden: tuple[HonestRelay, bytes], part: str) -> None:
    relay, bundle = hidden
    honest = decode_bundle(bundle)
    spare: dict[str, object] = {
        "receipts": (),
        "headers": decode_bundle(bundle).headers * 2 or (),
        "disclosures": honest.disclosures * 2,
        "subject": bytes(16),
        "rotations": (b"no rotation",),
        "other_rotations": (b"no rotation",),
    }
    if part == "headers":
        from audit.evidence.bundle import SignedHeader

        spare["headers"] = (SignedHeader(honest.receipts[0].header, honest.receipts[0].signature),)
    bent = encode_bundle(dataclasses.replace(honest, **{part: spare[part]}))  # type: ignore[arg-type]
    with pytest.raises(AuditError):
        prove(bent, card_of(relay))


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.HIDDEN])
def test_evidence_of_one_thing_is_none_of_another(hidden: tuple[HonestRelay, bytes], kind: Kind) -> None:
    relay, bundle = hidden
    bent = encode_bundle(dataclasses.replace(decode_bundle(bundle), kind=kind))
    with pytest.raises(AuditError):
        prove(bent, card_of(relay))


def test_another_relays_card_convicts_nobody(hidden: tuple[HonestRelay, bytes]) -> None:
    _, bundle = hidden
    with pytest.raises(AuditError, match="another relay"):
        prove(bundle, card_of(HonestRelay(seed=2)))


def test_a_store_that_is_not_carried_is_found_by_its_hash(hidden: tuple[HonestRelay, bytes]) -> None:
    relay, bundle = hidden
    whole = decode_bundle(bundle)
    store = whole.disclosures[0].store
    light = encode_bundle(
        dataclasses.replace(whole, disclosures=(dataclasses.replace(whole.disclosures[0], store=b""),))
    )
    assert len(light) < len(bundle) - len(store)
    with pytest.raises(AuditError, match="is not carried by this evidence"):
        prove(light, card_of(relay))
    with pytest.raises(AuditError, match="is not carried by this evidence"):
        prove(light, card_of(relay), stores=[memoryview(store + b"\0")])
    assert prove(light, card_of(relay), stores=[memoryview(store)]).kind is Kind.HIDDEN


def test_no_bundle_holds_an_ack_token(relay: HonestRelay, tmp_path: Path) -> None:
    """A holder's t lets whoever has it erase his mail: evidence goes around without it."""
    items = [relay.receipt_item(letter, with_token=True) for letter in relay.letters]
    items[3][10] = b""
    found = gathered(relay, tmp_path / "d", items, bend_store=execute("DELETE FROM envelopes WHERE commit_index = 2"))
    (accusation,) = found.accusations
    assert all(letter.token not in accusation.bundle for letter in relay.letters if letter.state == "live")


# -------------------------------------------------------------------------------------------------------- the command


def test_the_command_says_of_what_it_convicts(
    hidden: tuple[HonestRelay, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relay, bundle = hidden
    card, file = tmp_path / "card.toml", tmp_path / "file.evidence"
    card.write_bytes(relay.card)
    file.write_bytes(bundle)
    assert main([str(file), "--relay-card", str(card)]) == 0
    assert capsys.readouterr().out.startswith("CONVICTED: hidden\n  The relay signed commit 1 at 2015-11-30")
    assert main([str(file), "--relay-card", str(card), "--json"]) == 0
    assert '"verdict": "convicted"' in capsys.readouterr().out
    file.write_bytes(bundle[:-1])
    assert main([str(file), "--relay-card", str(card)]) == 1
    assert capsys.readouterr().out.startswith("REFUSED\n")
    assert main([str(file), "--relay-card", str(card), "--json"]) == 1
    assert '"verdict": "refused"' in capsys.readouterr().out
    assert main([str(tmp_path / "none"), "--relay-card", str(card)]) == 64
    assert main([str(file), "--relay-card", str(card), "--disclosure", str(tmp_path / "none")]) == 64
    with pytest.raises(SystemExit) as exit_:
        main([str(file)])
    assert exit_.value.code == 64


def test_the_command_takes_store_and_rotations_from_disclosures(
    relay: HonestRelay, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relay.rotate()
    later(relay)
    found = gathered(
        relay, tmp_path / "d", receipts(relay), bend_store=execute("DELETE FROM envelopes WHERE commit_index = 4")
    )
    whole = decode_bundle(found.accusations[0].bundle)
    light = dataclasses.replace(whole, disclosures=(dataclasses.replace(whole.disclosures[0], store=b""),))
    card, file = tmp_path / "card.toml", tmp_path / "file.evidence"
    card.write_bytes(relay.card)
    file.write_bytes(encode_bundle(light))
    command = [str(file), "--relay-card", str(card), "--disclosure", str(tmp_path / "d")]
    assert main(command) == 2
    assert "CONVICTED UNDER CONDITIONS" in capsys.readouterr().out
    assert main([*command, "--rotations", str(tmp_path / "d")]) == 0
    (tmp_path / "d/manifest.msgpack").write_bytes(b"")
    assert main([*command, "--rotations", str(tmp_path / "d")]) == 64


def test_an_audit_and_a_gathering_agree(relay: HonestRelay, tmp_path: Path) -> None:
    report = audit_of(
        relay,
        tmp_path,
        items=receipts(relay),
        bend_store=execute("UPDATE tombstones SET token = randomblob(16)"),
        memory=False,
    )
    assert report.verdict is Verdict.NOT_BLIND
    assert "evidence.receipts" in report.failed


def test_after_some_copies_of_the_store_bundles_go_without_it(
    relay: HonestRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty-four accusations with a large store in each would fill the memory of whoever gathers them."""
    monkeypatch.setattr(GATHER, "CARRIED_BYTES_MAX", 1)
    found = gathered(relay, tmp_path / "d", receipts(relay), bend_store=execute("DELETE FROM envelopes"))
    sizes = sorted(len(accusation.bundle) for accusation in found.accusations)
    assert len(sizes) == 4
    assert sizes[-1] > 50_000
    assert sizes[-2] < 10_000
    store = memoryview((tmp_path / "d/store/store.sqlite").read_bytes())
    assert all(prove(accusation.bundle, card_of(relay), stores=[store]) for accusation in found.accusations)


def test_more_accusations_than_are_written_are_counted(
    relay: HonestRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GATHER, "ACCUSATIONS_MAX", 2)
    found = gathered(relay, tmp_path / "d", receipts(relay), bend_store=execute("DELETE FROM envelopes"))
    assert len(found.accusations) == 2
    assert found.contradictions == 4


def test_receipts_alone_show_a_broken_chain_and_false_times(relay: HonestRelay, tmp_path: Path) -> None:
    """Two holders' commits follow each other, and do not fit; the disclosure ends before both."""
    relay.commit(relay.write(b"fifth", 1, 0))
    relay.commits[3] = sign_header(relay, 4, previous=bytes(32), time_ms=relay.time_ms - 90_000)
    items = receipts(relay)[4:]
    del relay.commits[2:], relay.letters[4:]
    found = gathered(relay, tmp_path / "d", items)
    assert {Kind.UNLINKED, Kind.REVERSED} <= set(convictions(found, relay))


def test_a_receipt_that_the_disclosed_next_commit_does_not_name(relay: HonestRelay, tmp_path: Path) -> None:
    item = receipts(relay)[3]
    relay.commits[2] = sign_header(relay, 3, previous=bytes(32))
    found = gathered(relay, tmp_path / "d", [item])
    assert set(convictions(found, relay)) == {Kind.UNLINKED}


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, "blindpost/v1/volunteered"), (1, "guilty"), (3, [b"no rotation"]), (7, bytes(5)), (8, [b"no rotation"])],
)
def test_a_file_of_another_shape_is_refused(hidden: tuple[HonestRelay, bytes], at: int, value: object) -> None:
    relay, bundle = hidden
    fields = unpackb(bundle)
    fields[at] = value
    with pytest.raises(AuditError):
        prove(pack(fields), card_of(relay))


def test_a_path_of_broken_hashes_and_a_store_where_none_belongs_are_refused(hidden: tuple[HonestRelay, bytes]) -> None:
    relay, bundle = hidden
    fields = unpackb(bundle)
    fields[4][0][7] = b"x"
    with pytest.raises(AuditError, match="whole hashes"):
        prove(pack(fields), card_of(relay))
    fields = unpackb(bundle)
    fields[1], fields[5], fields[4] = "truncated", [fields[4][0][:2]], []
    with pytest.raises(AuditError, match="is no part of"):
        prove(pack(fields), card_of(relay))


def test_a_card_that_contradicts_itself_convicts_nobody(hidden: tuple[HonestRelay, bytes]) -> None:
    relay, bundle = hidden
    card = dataclasses.replace(card_of(relay), relay_id=bytes(16))
    bent = encode_bundle(dataclasses.replace(decode_bundle(bundle), relay_id=bytes(16)))
    with pytest.raises(AuditError, match="not the hash of signing_key"):
        prove(bent, card)


def test_a_closed_mailbox_needs_a_list_that_does_not_name_it(relay: HonestRelay, tmp_path: Path) -> None:
    """Marked closed, and the account's signed list still names it: the closing is invented."""
    items = receipts(relay)
    bend = execute("UPDATE tombstones SET reason = 4, token = x''", "UPDATE mailboxes SET closed = 1")
    assert set(convictions(gathered(relay, tmp_path / "a", items, bend_store=bend), relay)) == {Kind.INVENTED_CLOSURE}
    unsigned = execute(
        "UPDATE tombstones SET reason = 4, token = x''",
        "UPDATE mailboxes SET closed = 1",
        "UPDATE lists SET signed_list = randomblob(200)",
    )
    found = gathered(relay, tmp_path / "b", items, bend_store=unsigned)
    assert set(convictions(found, relay)) == {Kind.INVENTED_CLOSURE}


def test_a_header_that_does_not_decode_is_a_commit_left_out(relay: HonestRelay, tmp_path: Path) -> None:
    bend = execute("UPDATE commits SET header = zeroblob(100) WHERE idx = 2")
    found = gathered(relay, tmp_path / "d", receipts(relay), bend_store=bend)
    assert set(convictions(found, relay)) == {Kind.COMMIT_LEFT_OUT}
