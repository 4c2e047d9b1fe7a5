"""A log that drops, reorders, back-dates or forks an order, or says more than it may, is caught by its verification."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from audit.errors import AuditError
from audit.material import RelayCard, read_card
from audit.order_log import KINDS, PERSONAL_COLUMNS, OrderLog, verify_log
from audit.tlog import read_note
from audit.tlog_proof import verify_proof
from relay.core.answers import Facts, answer_to
from relay.core.docket import Order, OrderKind, Scope, ScopeKind
from relay.home import CARD_NAME, Home, init
from relay.logkey import LOG_FOLDER, signer_of
from relay.orders import Desk
from relay.tlog import TransparencyLog
from wire.codec import encode
from wire.held import column_names
from wire.leaves import ExitLeaf, Leaf, change_key, read_leaf
from wire.note import Checkpoint, NoteSigner, sign_checkpoint
from wire.signing import SigningKey

NOW_S = 1_448_841_600
OMAR = Scope(ScopeKind.ACCOUNT, "omar@karachi.example")


@dataclass
class Log:
    """A relay's log with three orders, and the means to write it anew."""

    home: Home
    card: RelayCard
    entries: list[bytes]
    signer: NoteSigner

    @property
    def folder(self) -> Path:
        return self.home.path / LOG_FOLDER

    def verify(self, earlier: bytes | None = None) -> OrderLog:
        return verify_log(self.folder, self.card, NOW_S + 86_400, earlier)

    def rewrite(self, entries: list[bytes], signer: NoteSigner | None = None) -> OrderLog:
        """What a relay with the log's key can do: another history, well signed."""
        shutil.rmtree(self.folder)
        TransparencyLog.create(self.folder, signer or self.signer, entries)
        return self.verify()

    def leaf(self, index: int, **fields: Any) -> bytes:
        return encode(msgspec.structs.replace(read_leaf(self.entries[index]), **fields))


@pytest.fixture
def log(written: Log, tmp_path: Path) -> Log:
    shutil.copytree(written.home.path, tmp_path / "relay")
    return Log(Home.open(tmp_path / "relay"), written.card, written.entries, written.signer)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Log:
    home = init(tmp_path_factory.mktemp("home") / "relay", secrets.token_bytes, listen="127.0.0.1:18832")
    time_s = NOW_S

    def clock_s() -> int:
        nonlocal time_s
        time_s += 10
        return time_s

    with Desk.at(home.path, clock_s, os.urandom) as desk:
        for kind, secret_s in ((OrderKind.WHOLESALE, 0), (OrderKind.SUBSCRIBER, 0), (OrderKind.KEYS, NOW_S + 5_000)):
            order = Order(
                kind=kind,
                issuer="A court",
                jurisdiction="CA",
                legal_basis="A warrant",
                received_s=time_s,
                deadline_s=NOW_S + 90_000,
                scope=OMAR if kind is OrderKind.SUBSCRIBER else Scope(),
                secret_until_s=secret_s,
            )
            number = desk.receive(order).entry.number
            desk.answer(number, answer_to(order, desk.policy.decision(order), Facts(found=1)))
        desk.extend(0, NOW_S + 100_000)
        desk.exit_step("CA", "announced", NOW_S + 200_000, "The service ends.")
        desk.open_sealed(2)
        entries = desk.log.entries()
    card = read_card((home.path / CARD_NAME).read_bytes(), "card")
    return Log(home, card, entries, signer_of(home))


def test_the_honest_log_holds_and_so_does_its_continuation(log: Log) -> None:
    note = (log.folder / "checkpoint").read_bytes()
    found = log.verify(note)
    assert found.findings == []
    assert [order.kind for order in found.orders] == ["wholesale", "subscriber", "keys"]
    TransparencyLog.open(log.folder, log.signer.key).append([log.leaf(7, number=0)], log.signer)
    assert log.verify(note).unknown_leaves == 0


def test_kinds_and_columns_are_those_of_the_protocol() -> None:
    assert {kind.value for kind in OrderKind} == KINDS
    assert set(column_names()) == PERSONAL_COLUMNS


def test_a_leaf_of_an_unknown_type_is_skipped(log: Log) -> None:
    found = log.rewrite([*log.entries, msgspec.msgpack.encode([99, NOW_S + 500, "directory", b"root"])])
    assert (found.findings, found.unknown_leaves) == ([], 1)


def dropped(log: Log) -> list[bytes]:
    return [entry for index, entry in enumerate(log.entries) if index not in {1, 2, 7}]


def reordered(log: Log) -> list[bytes]:
    return [log.entries[0], *log.entries[3:5], *log.entries[1:3], *log.entries[5:]]


def answer_first(log: Log) -> list[bytes]:
    return [log.entries[0], log.entries[2], log.entries[1], *log.entries[3:]]


ATTACKS: dict[str, tuple[Callable[[Log], list[bytes]], str]] = {
    "an order is dropped": (dropped, "one was dropped"),
    "orders are reordered": (reordered, "dated before the leaf before it"),
    "an answer before its order": (answer_first, "no order"),
    "an order is back-dated": (
        lambda log: [log.entries[0], log.leaf(1, received_at=NOW_S - 200_000), *log.entries[2:]],
        "back-dated",
    ),
    "a leaf is dated before": (lambda log: [*log.entries, log.leaf(7, logged_at=5)], "back-dated"),
    "a leaf of tomorrow": (lambda log: [*log.entries, log.leaf(7, logged_at=NOW_S + 90_000)], "in the future"),
    "two answers": (lambda log: [*log.entries[:3], log.entries[2], *log.entries[3:]], "answered once"),
    "an answer with more than the schema": (
        lambda log: [
            *log.entries[:4],
            log.leaf(4, given=("mailboxes.account", "mailboxes.location")),
            *log.entries[5:],
        ],
        "the schema does not have",
    ),
    "an answer that claims too much": (
        lambda log: [*log.entries[:4], log.leaf(4, text="We know nothing."), *log.entries[5:]],
        "does not claim",
    ),
    "a scope without a commitment": (
        lambda log: [*log.entries[:3], log.leaf(3, subject=bytes(32)), *log.entries[4:]],
        "does not fit its scope",
    ),
    "another opening": (
        lambda log: [*log.entries[:9], log.leaf(9, nonce=bytes(32)), *log.entries[10:]],
        "is not what was sealed",
    ),
    "an extension that shortens": (
        lambda log: [*log.entries[:7], log.leaf(7, deadline=NOW_S), *log.entries[8:]],
        "ends later",
    ),
    "an exit that somebody else says": (
        lambda log: [*log.entries[:8], log.leaf(8, text="The service stays."), *log.entries[9:]],
        "not that of the key",
    ),
    "an unknown kind": (lambda log: [log.entries[0], log.leaf(1, kind="wish"), *log.entries[2:]], "kind"),
    "an unknown outcome": (lambda log: [*log.entries[:2], log.leaf(2, outcome="nice"), *log.entries[3:]], "outcome"),
    "a second beginning": (lambda log: [*log.entries, log.leaf(0, logged_at=NOW_S + 900)], "once"),
    "no beginning": (lambda log: log.entries[1:], "does not begin the log"),
    "bytes that are no leaf": (lambda log: [*log.entries, b"\xc1"], "leaf"),
    "an empty leaf": (lambda log: [*log.entries, b"\x90"], "leaf"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_in_the_leaves_is_found(log: Log, name: str) -> None:
    bend, words = ATTACKS[name]
    assert any(words in finding for finding in log.rewrite(bend(log)).findings)


def test_attack_a_fork_is_found_by_whoever_kept_a_checkpoint(log: Log) -> None:
    note = (log.folder / "checkpoint").read_bytes()
    forked = [*log.entries[:-1], log.leaf(7, logged_at=NOW_S + 900, deadline=NOW_S + 200_000)]
    assert log.rewrite(forked).findings == []
    assert any("forked" in finding for finding in log.verify(note).findings)


def test_attack_a_log_that_was_cut_off_is_found_by_whoever_kept_a_checkpoint(log: Log) -> None:
    note = (log.folder / "checkpoint").read_bytes()
    assert log.rewrite(log.entries[:3]).findings == []
    assert any("were dropped" in finding for finding in log.verify(note).findings)


def test_attack_a_log_signed_by_another_key_is_found(log: Log) -> None:
    key = SigningKey(b"\7" * 32)
    other = NoteSigner(log.signer.key.name, key.public, key.seed + key.public)
    assert any("has not signed" in finding for finding in log.rewrite(log.entries, other).findings)


def test_a_log_key_that_changed_counts_and_the_old_one_no_longer(log: Log) -> None:
    old, new = SigningKey(log.home.path.joinpath("log.key").read_bytes()), SigningKey(b"\7" * 32)
    note = (log.folder / "checkpoint").read_bytes()
    entries = [*log.entries, encode(change_key(NOW_S + 900, old, new))]
    signer = NoteSigner(log.signer.key.name, new.public, new.seed + new.public)
    assert log.rewrite(entries, signer).findings == []
    assert log.verify(note).findings == []
    assert any("has not signed" in finding for finding in log.rewrite(entries).findings)


@pytest.mark.parametrize("name", ["checkpoint", "tile/0/000.p/11", "tile/entries/000.p/11"])
@pytest.mark.parametrize("how", ["gone", "cut", "flipped", "longer", "a link", "a folder"])
def test_attack_a_mirror_with_a_bent_file_is_found(log: Log, name: str, how: str, tmp_path: Path) -> None:
    path = log.folder / name
    data = path.read_bytes()
    path.unlink()
    if how == "a link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    elif how == "a folder":
        path.mkdir()
    elif how != "gone":
        bent = {"cut": data[:-1], "flipped": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "longer": data + data}
        path.write_bytes(bent[how])
    assert log.verify().findings


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\xff",
        b"x" * 70_000,
        b"log\n1\n\n\xe2\x80\x94 log AAAA\n",
        b"log\n01\nAAAA\n\n\xe2\x80\x94 log AAAA\n",
        b"log\n1\nAAAA\n\nno dash AAAA\n",
        b"log\n1\nAAAA\n\n\xe2\x80\x94 log\n",
        b"log\n1\n\x01\n\n\xe2\x80\x94 log AAAA\n",
        b"log\n1\nAAAA\nmore\n\n\xe2\x80\x94 log AAAA\n",
        b"log\n99999999999999999999\nAAAA\n\n\xe2\x80\x94 log AAAA\n",
    ],
)
def test_attack_a_note_that_is_none_is_refused(note: bytes) -> None:
    with pytest.raises(AuditError):
        read_note(note, "note")


def test_attack_a_checkpoint_of_more_leaves_than_are_read_is_refused(log: Log) -> None:
    checkpoint = Checkpoint(log.signer.key.name, 2_000_000, bytes(32))
    (log.folder / "checkpoint").write_text(sign_checkpoint(checkpoint, log.signer))
    assert any("at most" in finding for finding in log.verify().findings)


def proof_of(log: Log, index: int) -> bytes:
    from base64 import b64encode

    opened = TransparencyLog.open(log.folder, log.signer.key)
    hashes = "".join(f"{b64encode(hash_).decode()}\n" for hash_ in opened.inclusion(index))
    return f"c2sp.org/tlog-proof@v1\nindex {index}\n{hashes}\n{opened.note}".encode()


def test_a_proof_of_a_leaf_holds_also_when_the_log_has_grown(log: Log) -> None:
    proof = proof_of(log, 3)
    TransparencyLog.open(log.folder, log.signer.key).append([log.leaf(7, number=0)], log.signer)
    assert verify_proof(proof, log.verify()) == 3


@pytest.mark.parametrize(
    "bend",
    [
        lambda proof: proof.replace(b"index 3", b"index 4"),
        lambda proof: proof.replace(b"index 3", b"index 40"),
        lambda proof: proof.replace(b"index 3", b"index x"),
        lambda proof: proof.replace(b"proof@v1", b"proof@v2"),
        lambda proof: proof.replace(b"\n11\n", b"\n10\n"),
        lambda proof: proof.replace(b"blindpost.example", b"another.example"),
        lambda proof: proof.replace(b"index 3\n", b"index 3\n!!\n"),
        lambda proof: proof.replace(b"index 3\n", b"index 3\n" + b"AAAA\n" * 70),
        lambda proof: b"\xff" + proof,
        lambda proof: proof[:40],
    ],
    ids=range(10),
)
def test_attack_a_proof_that_was_bent_is_refused(log: Log, bend: Callable[[bytes], bytes]) -> None:
    with pytest.raises(AuditError):
        verify_proof(bend(proof_of(log, 3)), log.verify())


def test_what_stands_in_the_log_is_what_the_relay_wrote(log: Log) -> None:
    leaves: list[Leaf] = [read_leaf(entry) for entry in log.entries]
    assert isinstance(leaves[8], ExitLeaf)
