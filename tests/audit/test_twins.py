"""For each check an honest relay that passes, and twins that cheat in one way, each caught by its check."""

from __future__ import annotations

import base64
import json
import quopri
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgpack  # type: ignore[import-untyped]
import pytest

import audit
from audit import Status, Verdict, decoder
from tests.audit.auditing import audit_of, edit_store, execute, execute_with, findings_of, missing_of, outcome_of
from tests.audit.honest import NOW, SCHEMA, HonestRelay, Letter, SigningKey, hash16, hash32, pack

TEXT = b"Dear Ana, the ministry asked for every message; we answered that there is nothing to read."


@pytest.fixture
def relay() -> HonestRelay:
    return HonestRelay().story()


def live(relay: HonestRelay) -> list[Letter]:
    return [letter for letter in relay.letters if letter.state == "live"]


def everything(relay: HonestRelay) -> tuple[bytes, list[list[Any]]]:
    commitments, openings = relay.commit_to([letter.text for letter in live(relay)])
    items = relay.secret_items() + [relay.receipt_item(letter) for letter in relay.letters]
    return commitments, [*items, *(relay.key_item(letter) for letter in live(relay)), *openings]


class TestHonest:
    def test_a_disclosure_with_all_evidence_is_blind(self, relay: HonestRelay, tmp_path: Path) -> None:
        commitments, items = everything(relay)
        report = audit_of(relay, tmp_path, items=items, commitments=commitments)
        assert report.verdict is Verdict.BLIND
        assert report.exit_status == 0
        not_run = [o.about.check_id for o in report.outcomes if o.status is not Status.PASSED]
        assert not_run == ["search.windows", "historical.keys"]
        assert outcome_of(report, "evidence.openings").figures["canaries in opened rows"] == 4
        assert outcome_of(report, "evidence.receipts").figures["in the store"] == 4

    def test_a_disclosure_alone_is_blind_and_says_what_was_not_run(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(relay, tmp_path, memory=False)
        assert report.verdict is Verdict.BLIND
        not_run = {o.about.check_id for o in report.outcomes if o.status is Status.NOT_RUN}
        assert not_run == {
            "evidence.files",
            "memory.image",
            "search.canaries",
            "search.secrets",
            "search.windows",
            "evidence.commitments",
            "evidence.openings",
            "evidence.receipts",
            "historical.keys",
        }
        assert "9 had nothing to look at" in report.headline

    def test_a_relay_without_mail_is_blind(self, tmp_path: Path) -> None:
        assert audit_of(HonestRelay(), tmp_path).verdict is Verdict.BLIND

    def test_a_pruned_chain_is_blind_and_said(self, relay: HonestRelay, tmp_path: Path) -> None:
        prune = execute("DELETE FROM commits WHERE idx = 1")
        report = audit_of(relay, tmp_path, bend_store=prune)
        assert report.verdict is Verdict.BLIND
        assert "commits before 2: pruned" in " ".join(outcome_of(report, "store.commits").not_checked)


class TestManifest:
    def test_no_card_is_incomplete(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(relay, tmp_path, card=None)
        assert (report.verdict, report.exit_status) == (Verdict.INCOMPLETE, 2)
        assert "the relay's card" in missing_of(report)

    def test_forged_manifest(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(relay, tmp_path, card=HonestRelay(seed=2).card)
        assert set(report.failed) == {
            "manifest.signature",
            "store.commits",
            "store.directory",
            "config.grammar",
        }
        assert report.exit_status == 1

    def test_manifest_signed_by_another_key(self, relay: HonestRelay, tmp_path: Path) -> None:
        def forge(_folder: Path) -> None:
            relay.signing_key = SigningKey(bytes(32))

        report = audit_of(relay, tmp_path, bend_files=forge)
        assert report.failed == ("manifest.signature",)
        assert "no rotation leads" in findings_of(report, "manifest.signature")

    def test_manifest_changed_after_signing(self, relay: HonestRelay, tmp_path: Path) -> None:
        def change(folder: Path) -> None:
            path = folder / "manifest.msgpack"
            path.write_bytes(path.read_bytes().replace(b"wholesale", b"wholesome"))

        report = audit_of(relay, tmp_path, bend_signed=change)
        assert report.failed == ("manifest.signature",)

    def test_rotation_that_does_not_follow(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.rotations.insert(0, relay.rotations[0])
        report = audit_of(relay, tmp_path)
        assert report.failed == ("manifest.signature",)
        assert "does not follow" in findings_of(report, "manifest.signature")

    @pytest.mark.parametrize("name", ["config/notes.txt", "store/store.sqlite-wal", "memory/core.1"])
    def test_extra_file(self, relay: HonestRelay, tmp_path: Path, name: str) -> None:
        report = audit_of(relay, tmp_path, bend_signed=lambda folder: write(folder / name, b"mail"))
        assert report.failed == ("manifest.files",)

    def test_extra_file_that_is_signed_for(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(relay, tmp_path, bend_files=lambda folder: write(folder / "log/debug.log", b""))
        assert report.failed == ("manifest.files",)

    def test_file_changed_after_signing(self, relay: HonestRelay, tmp_path: Path) -> None:
        def change(folder: Path) -> None:
            path = folder / "log/relay.log"
            path.write_bytes(path.read_bytes().replace(b"pid=4711", b"pid=4712"))

        report = audit_of(relay, tmp_path, bend_signed=change)
        assert report.failed == ("manifest.files",)
        assert "SHA-256" in findings_of(report, "manifest.files")

    @pytest.mark.parametrize("name", ["store/store.sqlite", "log/relay.log", "config/relay.toml", "manifest.msgpack"])
    def test_missing_file_is_incomplete(self, relay: HonestRelay, tmp_path: Path, name: str) -> None:
        report = audit_of(relay, tmp_path, bend_signed=lambda folder: (folder / name).unlink())
        assert report.verdict is Verdict.INCOMPLETE
        assert name in missing_of(report)

    def test_file_that_the_manifest_leaves_out(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(
            relay, tmp_path, bend_signed=lambda folder: relay.sign_manifest(folder, leave_out=("log/relay.log",))
        )
        assert report.failed == ("manifest.files",)

    def test_link_out_of_the_directory_is_not_followed(self, relay: HonestRelay, tmp_path: Path) -> None:
        (tmp_path / "secret.txt").write_bytes(TEXT)

        def link(folder: Path) -> None:
            (folder / "log/relay.log").unlink()
            (folder / "log/relay.log").symlink_to(tmp_path / "secret.txt")

        report = audit_of(relay, tmp_path, bend_signed=link, canaries=[TEXT])
        assert report.failed == ("manifest.files",)
        assert "symbolic link" in findings_of(report, "manifest.files")

    def test_the_orderers_card_beside_the_disclosure_is_no_place_for_a_text(
        self, relay: HonestRelay, tmp_path: Path
    ) -> None:
        report = audit_of(
            relay, tmp_path, bend_signed=lambda folder: write(folder / "relay-card.toml", TEXT), canaries=[TEXT]
        )
        assert report.failed == ("manifest.files", "search.canaries")

    def test_a_link_in_the_place_of_the_orderers_card_is_not(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(
            relay, tmp_path, bend_signed=lambda folder: (folder / "relay-card.toml").symlink_to(tmp_path / "x")
        )
        assert report.failed == ("manifest.files",)

    @pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "log/../../x", "./log", "a//b"])
    def test_path_that_leads_elsewhere(self, relay: HonestRelay, tmp_path: Path, name: str) -> None:
        def traverse(folder: Path) -> None:
            manifest, _, _ = msgpack.unpackb((folder / "manifest.msgpack").read_bytes())
            fields = msgpack.unpackb(manifest)
            fields[3] = sorted([*fields[3], [name, 4, bytes(32)]])
            again = pack(fields)
            signature = relay.signing_key.sign("disclosure", again)
            write(folder / "manifest.msgpack", pack([again, relay.signing_key.public, signature]))

        report = audit_of(relay, tmp_path, bend_signed=traverse)
        assert report.failed == ("manifest.files",)
        assert "leads elsewhere" in findings_of(report, "manifest.files")


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


class TestSchemaAndBytes:
    def test_extra_column(self, relay: HonestRelay, tmp_path: Path) -> None:
        schema = SCHEMA.replace("newest INTEGER NOT NULL,", "newest INTEGER NOT NULL, note TEXT,")

        def keep(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE mailboxes SET note = 'a journalist'")

        class Bent(HonestRelay):
            def fill_store(self, connection: sqlite3.Connection) -> None:
                connection.execute("ALTER TABLE mailboxes RENAME TO kept")
                connection.execute(next(it for it in SCHEMA.split(";\n") if "TABLE mailboxes" in it))
                super().fill_store(connection)
                connection.execute(
                    "INSERT INTO kept SELECT seq, mailbox, device_key, account, enrolled_day, newest, NULL, closed "
                    "FROM mailboxes"
                )
                connection.execute("DROP TABLE mailboxes")
                connection.execute("ALTER TABLE kept RENAME TO mailboxes")

        bent = Bent().story()
        report = audit_of(bent, tmp_path, schema=schema, bend_store=keep)
        assert "store.schema" in report.failed
        assert "bytes.accounted" in report.failed
        assert "note TEXT" in findings_of(report, "store.schema")

    @pytest.mark.parametrize(
        "statement",
        [
            "CREATE TABLE plaintexts (seq INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT",
            "CREATE INDEX by_mailbox ON envelopes (mailbox)",
            "CREATE VIEW mail AS SELECT body FROM envelopes",
            "CREATE TRIGGER copy AFTER INSERT ON envelopes BEGIN SELECT 1; END",
        ],
    )
    def test_anything_more_in_the_schema(self, relay: HonestRelay, tmp_path: Path, statement: str) -> None:
        report = audit_of(relay, tmp_path, bend_store=execute(statement))
        assert set(report.failed) == {"store.schema", "bytes.accounted"}

    def test_missing_table(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(relay, tmp_path, bend_store=execute("DROP TABLE used_tokens"))
        assert report.failed == ("store.schema",)

    @pytest.mark.parametrize("pragma", ["user_version = 7", "application_id = 1819438967", "default_cache_size = 77"])
    def test_message_in_the_header(self, relay: HonestRelay, tmp_path: Path, pragma: str) -> None:
        report = audit_of(relay, tmp_path, bend_files=lambda folder: edit_store(folder, f"PRAGMA {pragma}"))
        assert report.failed == ("bytes.accounted",)
        assert outcome_of(report, "bytes.accounted").figures["unexplained"] == 4

    def test_bytes_behind_the_last_page(self, relay: HonestRelay, tmp_path: Path) -> None:
        def append(folder: Path) -> None:
            with (folder / "store/store.sqlite").open("ab") as file:
                file.write(b"stowaway")

        report = audit_of(relay, tmp_path, bend_files=append)
        assert report.failed == ("bytes.accounted",)
        assert "behind the last whole page" in findings_of(report, "bytes.accounted")

    def test_page_that_nothing_refers_to(self, relay: HonestRelay, tmp_path: Path) -> None:
        def append(folder: Path) -> None:
            path = folder / "store/store.sqlite"
            data = bytearray(path.read_bytes() + bytes(4096))
            data[28:32] = (len(data) // 4096).to_bytes(4, "big")
            path.write_bytes(data)

        report = audit_of(relay, tmp_path, bend_files=append)
        assert report.failed == ("bytes.accounted",)
        assert outcome_of(report, "bytes.accounted").figures["unexplained"] == 4096

    def test_a_free_page_filled_with_something(self, relay: HonestRelay, tmp_path: Path) -> None:
        def stuff(folder: Path) -> None:
            edit_store(
                folder,
                "PRAGMA secure_delete = ON",
                "INSERT INTO relay (name, value) VALUES ('x', zeroblob(20000))",
                "DELETE FROM relay WHERE name = 'x'",
            )
            path = folder / "store/store.sqlite"
            data = bytearray(path.read_bytes())
            trunk = int.from_bytes(data[32:36], "big")
            assert trunk
            data[trunk * 4096 - 3000 : trunk * 4096] = bytes(range(1, 251)) * 12
            path.write_bytes(data)

        report = audit_of(relay, tmp_path, bend_files=stuff)
        assert report.failed == ("bytes.accounted",)
        assert "3000 bytes on a free page: what was deleted was not erased" in findings_of(report, "bytes.accounted")

    def test_residue_that_sqlite_leaves_is_counted_and_said(self, relay: HonestRelay, tmp_path: Path) -> None:
        def leave(folder: Path) -> None:
            path = folder / "store/store.sqlite"
            data = bytearray(path.read_bytes())
            for page in range(1, len(data) // 4096):
                at = page * 4096
                if data[at] == 13 and int.from_bytes(data[at + 3 : at + 5], "big") == 1:
                    data[at + 100 : at + 110] = b"left over."
                    break
            path.write_bytes(data)

        report = audit_of(relay, tmp_path, bend_files=leave)
        assert report.verdict is Verdict.BLIND
        assert outcome_of(report, "bytes.accounted").figures["page residue"] == 10
        assert "possible covert channel" in " ".join(outcome_of(report, "bytes.accounted").not_checked)

    def test_more_residue_than_moving_rows_can_leave(self, relay: HonestRelay, tmp_path: Path) -> None:
        def stuff(folder: Path) -> None:
            path = folder / "store/store.sqlite"
            data = bytearray(path.read_bytes())
            page = next(
                at
                for at in range(4096, len(data), 4096)
                if data[at] == 13 and data[at + 3 : at + 5] == b"\0\1" and data[at + 5] > 8
            )
            data[page + 100 : page + 1200] = bytes(range(1, 221)) * 5
            path.write_bytes(data)

        report = audit_of(relay, tmp_path, bend_files=stuff)
        assert report.failed == ("bytes.accounted",)
        assert "1100 stale bytes, more than the 1024" in findings_of(report, "bytes.accounted")

    def test_a_store_that_is_none(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(relay, tmp_path, bend_files=lambda folder: write(folder / "store/store.sqlite", bytes(8192)))
        assert report.failed == ("bytes.accounted",)
        assert outcome_of(report, "bytes.accounted").figures["unexplained"] == 8192


def resize_body(letter: Letter, extra: bytes) -> None:
    letter.body += extra


class TestEnvelopes:
    def test_constant_key_client(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.commit(relay.write(b"one", message_key=bytes(32)), relay.write(b"two", message_key=bytes(32)))
        report = audit_of(relay, tmp_path)
        assert report.failed == ("store.envelopes",)
        assert "key commitment of row" in findings_of(report, "store.envelopes")

    def test_hidden_field_in_a_body(self, relay: HonestRelay, tmp_path: Path) -> None:
        letter = relay.write(b"with a rider")
        letter.body += b"rider"
        relay.commit(letter)
        report = audit_of(relay, tmp_path)
        assert report.failed == ("bytes.accounted", "store.envelopes")
        assert "405 bytes, which is the size of no body" in findings_of(report, "store.envelopes")

    def test_hidden_field_in_a_mailbox(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(
            relay,
            tmp_path,
            bend_store=execute("UPDATE tombstones SET mailbox = CAST(mailbox || x'00' AS BLOB) WHERE seq = 1"),
        )
        assert {"bytes.accounted", "store.envelopes"} <= set(report.failed)

    def test_client_that_skips_encryption(self, relay: HonestRelay, tmp_path: Path) -> None:
        letter = relay.write(TEXT * 3)
        letter.body = letter.body[:128] + (TEXT * 3).ljust(len(letter.body) - 128, b"\0")
        relay.commit(letter)
        report = audit_of(relay, tmp_path, canaries=[TEXT])
        assert report.failed == ("store.envelopes", "search.canaries")
        assert "does not look like ciphertext" in findings_of(report, "store.envelopes")

    @pytest.mark.parametrize(("shift", "text"), [(31 * 86_400, "more than 30 days"), (-7200, "before its commit")])
    def test_expiry_out_of_range(self, relay: HonestRelay, tmp_path: Path, shift: int, text: str) -> None:
        letter = relay.write(b"too long, too short")
        letter.expiry = NOW + shift
        relay.commit(letter)
        report = audit_of(relay, tmp_path)
        assert report.failed == ("store.envelopes",)
        assert text in findings_of(report, "store.envelopes")

    def test_number_given_twice(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.people[1].newest_number -= 1
        relay.commit(relay.write(b"again"))
        report = audit_of(relay, tmp_path)
        assert report.failed == ("store.envelopes", "log.grammar")
        assert "as tombstones row" in findings_of(report, "store.envelopes")

    def test_number_that_goes_back(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.people[1].newest_number = 10
        relay.commit(relay.write(b"late"))
        relay.people[1].newest_number = 8
        relay.commit(relay.write(b"later"))
        report = audit_of(relay, tmp_path)
        assert report.failed == ("store.envelopes",)
        assert "earlier place" in findings_of(report, "store.envelopes")

    def test_number_zero(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.people[1].newest_number = -1
        relay.commit(relay.write(b"zero"))
        assert "numbers begin at 1" in findings_of(audit_of(relay, tmp_path), "store.envelopes")

    def test_tombstone_for_what_is_still_there(self, relay: HonestRelay, tmp_path: Path) -> None:
        letter = relay.letters[1]
        key = hash16("tombstone", letter.recipient.mailbox + letter.envelope_id)
        report = audit_of(
            relay, tmp_path, bend_store=execute(f"UPDATE tombstones SET key = x'{key.hex()}' WHERE reason = 2")
        )
        assert report.failed == ("store.envelopes", "store.commits")
        assert "said to be erased by a tombstone" in findings_of(report, "store.envelopes")

    def test_expiries_that_tell_more_than_the_hour_are_said(self, relay: HonestRelay, tmp_path: Path) -> None:
        letter = relay.write(b"uneven")
        letter.expiry += 17
        relay.commit(letter)
        report = audit_of(relay, tmp_path)
        assert report.verdict is Verdict.BLIND
        assert outcome_of(report, "store.envelopes").figures["expiry not a full hour"] == 1


class TestCommits:
    def test_swapped_body(self, relay: HonestRelay, tmp_path: Path) -> None:
        body = relay.write(b"another text entirely, says the relay").body
        size = len(body)
        report = audit_of(
            relay,
            tmp_path,
            bend_store=execute_with("UPDATE envelopes SET body = ? WHERE length(body) = ?", (body, size)),
            items=[relay.receipt_item(letter) for letter in live(relay)],
        )
        assert report.failed == ("store.commits", "evidence.receipts")
        assert "another body" in findings_of(report, "evidence.receipts")

    def test_envelope_left_out(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(relay, tmp_path, bend_store=execute("DELETE FROM envelopes WHERE seq = 2"))
        assert report.failed == ("store.commits",)
        assert "envelopes were left out" in findings_of(report, "store.commits")

    def test_receipted_envelope_left_out_after_an_hour(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.time_ms += 2 * 3_600_000
        relay.commit(relay.write(b"much later"))
        report = audit_of(
            relay,
            tmp_path,
            bend_store=execute("DELETE FROM envelopes WHERE seq = 2"),
            items=[relay.receipt_item(letter) for letter in live(relay)],
        )
        assert report.failed == ("evidence.receipts",)
        assert "the relay signed for this envelope" in findings_of(report, "evidence.receipts")

    def test_commits_held_back(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.commit(relay.write(b"the last one"))
        items = [relay.receipt_item(letter) for letter in live(relay)]
        relay.commits.pop()
        relay.log.pop()
        relay.letters.pop()
        report = audit_of(relay, tmp_path, items=items)
        assert report.failed == ("evidence.receipts",)
        assert "which the disclosure does not have" in findings_of(report, "evidence.receipts")

    def test_receipt_younger_than_the_disclosure_convicts_nobody(self, relay: HonestRelay, tmp_path: Path) -> None:
        taken_with = relay.disclose(tmp_path / "earlier")
        relay.time_ms += 60_000
        relay.commit(relay.write(b"after the order"))
        items = [relay.receipt_item(relay.letters[-1])]
        report = audit.run(taken_with, card=relay.card, volunteered=[relay.volunteer(items)])
        assert report.verdict is Verdict.BLIND
        assert outcome_of(report, "evidence.receipts").figures["later than the disclosure"] == 1

    def test_forked_chain(self, relay: HonestRelay, tmp_path: Path) -> None:
        items = [relay.receipt_item(relay.letters[-1])]
        withdrawn, acked = relay.letters.pop(), relay.letters.pop()
        relay.commits.pop()
        relay.log.pop()
        acked.recipient.newest_number -= 1
        withdrawn.recipient.newest_number -= 1
        relay.commit(withdrawn, acked)
        report = audit_of(relay, tmp_path, items=items)
        assert report.failed == ("evidence.receipts",)
        assert "two different commits" in findings_of(report, "evidence.receipts")

    def test_receipt_that_the_relay_did_not_sign_is_no_evidence(self, relay: HonestRelay, tmp_path: Path) -> None:
        item = relay.receipt_item(relay.letters[1])
        item[2] = bytes(64)
        report = audit_of(relay, tmp_path, items=[item])
        assert report.verdict is Verdict.INCOMPLETE
        assert "cannot be used as evidence" in missing_of(report)

    def test_receipt_with_another_number_than_the_row(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(
            relay,
            tmp_path,
            bend_store=execute("UPDATE envelopes SET expiry = expiry + 3600 WHERE seq = 1"),
            items=[relay.receipt_item(relay.letters[1])],
        )
        assert report.failed == ("store.commits", "evidence.receipts")

    @pytest.mark.parametrize(
        ("statement", "text"),
        [
            ("DELETE FROM commits WHERE idx = 3", "follows commit 2"),
            ("UPDATE commits SET signature = zeroblob(64) WHERE idx = 2", "signature"),
            ("UPDATE commits SET leaves = zeroblob(32) WHERE idx = 2", "do not make its root"),
            ("UPDATE commits SET leaves = CAST(leaves || leaves AS BLOB) WHERE idx = 2", "bytes of leaves"),
            ("UPDATE commits SET header = CAST(x'91' || substr(header, 2) AS BLOB) WHERE idx = 2", "commit 2"),
            ("UPDATE commits SET idx = 9 WHERE idx = 4", "has index 4"),
            ("DELETE FROM commits WHERE idx = 4", "the store ends with another commit 3"),
            ("UPDATE envelopes SET leaf = 0 WHERE seq = 3", "claims leaf 0"),
            ("UPDATE envelopes SET commit_index = 77 WHERE seq = 1", "its commit 77 is not in the store"),
            ("UPDATE tombstones SET commit_index = 77 WHERE reason = 1", "its commit 77 is not in the store"),
            ("UPDATE tombstones SET leaf = 7 WHERE reason = 1", "has no leaf 7"),
            ("UPDATE tombstones SET token = zeroblob(16) WHERE reason = 1", "does not lead to its key"),
            ("UPDATE tombstones SET reason = 4 WHERE reason = 1", "has no t, and 16 bytes"),
            ("UPDATE tombstones SET reason = 3 WHERE reason = 1", "reason 3 is unknown"),
            ("UPDATE tombstones SET expiry = expiry + 3000000 WHERE reason = 1", "more than 30 days"),
            ("UPDATE tombstones SET reason = 9 WHERE reason = 1", "reason 9 is unknown"),
        ],
    )
    def test_chain_and_tombstones_that_lie(self, relay: HonestRelay, tmp_path: Path, statement: str, text: str) -> None:
        report = audit_of(relay, tmp_path, bend_store=execute(statement))
        assert "store.commits" in report.failed
        assert set(report.failed) <= {"store.commits", "store.envelopes", "store.directory"}
        assert text in findings_of(report, "store.commits")

    @pytest.mark.parametrize(
        ("field", "value", "text"),
        [
            (0, bytes(16), "another relay's"),
            (1, 5, "another relay's or partition's"),
            (3, 0, "earlier than the commit before"),
            (3, (NOW + 86_400) * 1000, "after the disclosure"),
            (6, bytes(32), "forked or rewritten"),
        ],
    )
    def test_header_that_lies(self, relay: HonestRelay, tmp_path: Path, field: int, value: Any, text: str) -> None:
        fields = msgpack.unpackb(relay.commits[-1][0])
        fields[field] = value
        header = pack(fields)
        relay.commits[-1] = (header, relay.signing_key.sign("commit", header), relay.commits[-1][2])
        report = audit_of(relay, tmp_path)
        assert set(report.failed) <= {"store.commits", "store.envelopes", "log.grammar"}
        assert text in findings_of(report, "store.commits")

    def test_commit_signed_with_the_key_before_the_rotation(self, relay: HonestRelay, tmp_path: Path) -> None:
        header, _, leaves = relay.commits[-1]
        relay.commits[-1] = (header, relay.first_key.sign("commit", header), leaves)
        report = audit_of(relay, tmp_path)
        assert report.failed == ("store.commits",)

    def test_first_commit_that_names_one_before(self, tmp_path: Path) -> None:
        relay = HonestRelay()
        relay.commits.append((b"a commit that is then forgotten", b"", []))
        relay.commit(relay.write(b"second, it says"))
        fields = msgpack.unpackb(relay.commits.pop()[0])
        fields[2], fields[6] = 1, hash32("commit-hash", b"a commit that is then forgotten")
        header = pack(fields)
        relay.letters[0].commit_index = 1
        relay.commits = [(header, relay.signing_key.sign("commit", header), [relay.letters[0].leaf_hash])]
        relay.log = relay.log[:2]
        report = audit_of(relay, tmp_path)
        assert report.failed == ("store.commits",)
        assert "before the first" in findings_of(report, "store.commits")


class TestDirectory:
    @pytest.mark.parametrize(
        ("statement", "text"),
        [
            ("UPDATE lists SET version = 2 WHERE seq = 1", "are not those of the signed list"),
            ("UPDATE lists SET signed_list = CAST(signed_list || x'00' AS BLOB) WHERE seq = 1", "no MessagePack"),
            ("UPDATE mailboxes SET device_key = zeroblob(32) WHERE seq = 1", "no device list of the account names"),
            ("UPDATE mailboxes SET closed = 1 WHERE seq = 1", "the latest list names it"),
            ("DELETE FROM mailboxes WHERE seq = 2", "has no mailbox"),
            (
                "INSERT INTO mailboxes SELECT 9, mailbox, device_key, account, 1, 0, 0 FROM mailboxes WHERE seq = 1",
                "another row",
            ),
            ("UPDATE prekeys SET id = zeroblob(16) WHERE seq = 3", "its id is not that of its record"),
            ("UPDATE prekeys SET kind = 4 WHERE seq = 3", "kind 4 is unknown"),
            ("UPDATE prekeys SET kind = 1 WHERE seq = 3", "must have 3 items"),
            ("UPDATE prekeys SET device_key = zeroblob(32) WHERE seq = 3", "no enrolled device's"),
            (
                "INSERT INTO prekeys SELECT 99, device_key, kind, id, record FROM prekeys WHERE seq = 1",
                "is there twice",
            ),
            ("UPDATE tenants SET domain = 'other.example'", "its domain is no tenant"),
            ("UPDATE tenants SET domain = 'No Domain'", "its domain is none"),
            ("INSERT INTO relay (name, value) VALUES ('note', x'00')", "'note'"),
            ("UPDATE relay SET value = zeroblob(16) WHERE name = 'relay_id'", "relay_id is not as in"),
            ("UPDATE relay SET value = x'32' WHERE name = 'format'", "format is not as in"),
            ("DELETE FROM rotations", "are not those of the manifest"),
        ],
    )
    def test_rows_that_lie(self, relay: HonestRelay, tmp_path: Path, statement: str, text: str) -> None:
        report = audit_of(relay, tmp_path, bend_store=execute(statement))
        assert report.failed == ("store.directory",)
        assert text in findings_of(report, "store.directory")

    def test_list_that_the_account_did_not_sign(self, relay: HonestRelay, tmp_path: Path) -> None:
        ghost = HonestRelay(seed=9).people[0]
        person = relay.people[0]
        devices = [
            [person.device_key.public, person.dh_public, person.mailbox],
            [ghost.device_key.public, ghost.dh_public, ghost.mailbox],
        ]
        body = pack([person.account, 2, bytes(32), person.account_key.public, devices])
        forged = pack([body, ghost.account_key.sign("device-list", body)])
        report = audit_of(
            relay,
            tmp_path,
            bend_store=execute_with("INSERT INTO lists VALUES (4, ?, 2, ?)", (person.account, forged)),
        )
        assert report.failed == ("store.directory",)
        assert "not that of the key" in findings_of(report, "store.directory")

    @pytest.mark.parametrize("bend", ["previous", "key"])
    def test_list_that_does_not_follow(self, relay: HonestRelay, tmp_path: Path, bend: str) -> None:
        person = relay.people[0]
        first = self._list_body(relay, 0)
        previous = bytes(32) if bend == "previous" else hash32("device-list-hash", first)
        key = person.account_key if bend == "previous" else SigningKey(bytes(32))
        devices = [[person.device_key.public, person.dh_public, person.mailbox]]
        body = pack([person.account, 2, previous, key.public, devices])
        second = pack([body, key.sign("device-list", body)])
        report = audit_of(
            relay,
            tmp_path,
            bend_store=execute_with("INSERT INTO lists VALUES (4, ?, 2, ?)", (person.account, second)),
        )
        assert report.failed == ("store.directory",)

    @staticmethod
    def _list_body(relay: HonestRelay, position: int) -> bytes:
        return bytes(msgpack.unpackb(relay.signed_list(relay.people[position]))[0])

    def test_list_that_follows_and_closes_a_mailbox(self, relay: HonestRelay, tmp_path: Path) -> None:
        person = relay.people[0]
        fresh = HonestRelay(seed=9).people[0]
        devices = [[fresh.device_key.public, fresh.dh_public, fresh.mailbox]]
        previous = hash32("device-list-hash", self._list_body(relay, 0))
        body = pack([person.account, 2, previous, person.account_key.public, devices])
        second = pack([body, person.account_key.sign("device-list", body)])

        def close(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO lists VALUES (4, ?, 2, ?)", (person.account, second))
            connection.execute("UPDATE mailboxes SET closed = 1 WHERE seq = 1")
            connection.execute(
                "INSERT INTO mailboxes VALUES (4, ?, ?, ?, 16769, 0, 0)",
                (fresh.mailbox, fresh.device_key.public, person.account),
            )
            connection.execute(
                "INSERT INTO tombstones SELECT 3, ?, mailbox, expiry, commit_index, leaf, number, 4, x'' "
                "FROM envelopes WHERE mailbox = ?",
                (
                    hash16("tombstone", relay.letters[2].recipient.mailbox + relay.letters[2].envelope_id),
                    person.mailbox,
                ),
            )
            connection.execute("DELETE FROM envelopes WHERE mailbox = ?", (person.mailbox,))

        items = [relay.receipt_item(letter) for letter in relay.letters]
        report = audit_of(relay, tmp_path, bend_store=close, items=items)
        assert report.failed == ()
        assert outcome_of(report, "evidence.receipts").figures["closed with its mailbox"] == 1

    def test_account_started_anew_is_said(self, relay: HonestRelay, tmp_path: Path) -> None:
        person, fresh = relay.people[2], HonestRelay(seed=9).people[2]
        anew = relay.signed_list(fresh)

        def start_anew(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO lists VALUES (9, ?, 1, ?)", (person.account, anew))
            connection.execute("UPDATE mailboxes SET closed = 1 WHERE account = ?", (person.account,))
            connection.execute(
                "INSERT INTO mailboxes VALUES (9, ?, ?, ?, 16769, 0, 0)",
                (fresh.mailbox, fresh.device_key.public, person.account),
            )

        report = audit_of(relay, tmp_path, bend_store=start_anew)
        assert report.failed == ("store.directory",)
        assert "envelopes wait in it" in findings_of(report, "store.directory")
        assert outcome_of(report, "store.directory").figures["accounts started anew"] == 1
        assert "safety number" in " ".join(outcome_of(report, "store.directory").not_checked)

    def test_closed_without_a_list_is_no_excuse(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(
            relay,
            tmp_path,
            bend_store=execute("UPDATE tombstones SET reason = 4, token = x'' WHERE reason = 1"),
            items=[relay.receipt_item(letter) for letter in relay.letters],
        )
        assert report.failed == ("store.directory", "evidence.receipts")

    def test_lists_that_begin_late_are_said(self, relay: HonestRelay, tmp_path: Path) -> None:
        person = relay.people[0]
        devices = [[person.device_key.public, person.dh_public, person.mailbox]]
        body = pack([person.account, 2, bytes(range(32)), person.account_key.public, devices])
        second = pack([body, person.account_key.sign("device-list", body)])
        report = audit_of(
            relay,
            tmp_path,
            bend_store=execute_with(
                "UPDATE lists SET version = 2, signed_list = ? WHERE account = ?", (second, person.account)
            ),
        )
        assert report.verdict is Verdict.BLIND
        assert "before version 2: not kept" in " ".join(outcome_of(report, "store.directory").not_checked)

    def test_first_list_that_names_one_before(self, relay: HonestRelay, tmp_path: Path) -> None:
        person = relay.people[0]
        devices = [[person.device_key.public, person.dh_public, person.mailbox]]
        body = pack([person.account, 1, bytes(range(32)), person.account_key.public, devices])
        signed = pack([body, person.account_key.sign("device-list", body)])
        report = audit_of(
            relay,
            tmp_path,
            bend_store=execute_with("UPDATE lists SET signed_list = ? WHERE account = ?", (signed, person.account)),
        )
        assert report.failed == ("store.directory",)
        assert "version 1 of its list names one before" in findings_of(report, "store.directory")

    def test_mail_for_a_mailbox_that_nobody_has(self, relay: HonestRelay, tmp_path: Path) -> None:
        stranger = HonestRelay(seed=9).people[0]
        letter = relay.write(b"to nobody")
        letter.recipient = stranger
        relay.commit(letter)
        report = audit_of(relay, tmp_path)
        assert report.failed == ("store.directory",)
        assert "1 mailboxes that are not in the directory" in findings_of(report, "store.directory")


class TestLogAndConfiguration:
    @pytest.mark.parametrize(
        "line",
        [
            b"2015-11-30T12:00:00Z received from=ana@acme.example\n",
            b"2015-11-30T12:00:00Z linked links=01\n",
            b"2015-11-30T12:00:00Z linked links=1 extra=2\n",
            b"2015-11-30T12:00:00Z ready \n",
            b"2015-13-30T12:00:00Z ready\n",
            b"2015-11-30T12:00:00Z  ready\n",
            b"2015-11-30T12:00:00Z ready\r\n",
            b"2015-11-30T12:00:00Z refused count=1 code=2\n",
            b"\n",
            b"\xff\x00\x1b[2J\n",
            b"2015-11-30T12:00:00Z ready",
        ],
    )
    def test_line_that_is_no_event(self, relay: HonestRelay, tmp_path: Path, line: bytes) -> None:
        relay.log_suffix = line
        report = audit_of(relay, tmp_path)
        assert report.failed == ("bytes.accounted", "log.grammar")
        assert "\x1b" not in findings_of(report, "log.grammar")

    def test_every_event_of_the_protocol_is_known(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.log += [
            "stopping", "stopped", "started pid=4711 partition=0", "ready", "aborted envelopes=3",
            "checkpointed pages=12", "linked links=2", "refused code=4 count=0", "disclosed files=7 memory=1",
            "committed index=0 envelopes=0 acks=2 bytes=0", "committed index=0 envelopes=0 acks=0 bytes=0",
        ]  # fmt: skip
        report = audit_of(relay, tmp_path)
        assert report.verdict is Verdict.BLIND
        assert outcome_of(report, "log.grammar").figures["commits that agree with their header"] == 4

    def test_log_that_counts_otherwise_than_the_headers(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.log = [line.replace("envelopes=3", "envelopes=2") for line in relay.log]
        report = audit_of(relay, tmp_path)
        assert report.failed == ("log.grammar",)

    @pytest.mark.parametrize(
        "text",
        [
            'master_key = "00"\n',
            "# a comment that nobody needs\n",
            "[section]\n",
            "partition = 0x00\n",
            "broker = 'mqtt://h'\n",
            "not toml\n",
        ],
    )
    def test_more_in_the_configuration(self, relay: HonestRelay, tmp_path: Path, text: str) -> None:
        relay.config += text
        report = audit_of(relay, tmp_path)
        assert report.failed == ("bytes.accounted", "config.grammar")

    @pytest.mark.parametrize(
        ("line", "text"),
        [
            ('broker = "mqtt://user:word@broker.example:1883"', "carries a user name"),
            ('broker = "mqtt://broker.example/?token=1"', "carries a user name"),
            ('broker = "mqtt://[broker"', "is no URL"),
            ('listen = "somewhere"', "no host and port"),
        ],
    )
    def test_address_that_carries_more(self, relay: HonestRelay, tmp_path: Path, line: str, text: str) -> None:
        relay.config = relay.config.replace('listen = "127.0.0.1:18830"', line)
        report = audit_of(relay, tmp_path)
        assert report.failed == ("config.grammar",)
        assert text in findings_of(report, "config.grammar")

    def test_settings_other_than_signed(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.settings[0] = 1
        report = audit_of(relay, tmp_path)
        assert report.failed == ("config.grammar",)

    def test_private_key_in_the_configuration(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.config += f'identity = "{relay.people[1].dh_secret.hex()}"\n'
        report = audit_of(relay, tmp_path)
        assert report.failed == ("bytes.accounted", "config.grammar", "search.keys")
        assert "private half of an identity key of person1@acme.example" in findings_of(report, "search.keys")


class TestMemoryAndModules:
    def test_image_shorter_than_its_table(self, relay: HonestRelay, tmp_path: Path) -> None:
        def cut(folder: Path) -> None:
            path = folder / "memory/image.bin"
            path.write_bytes(path.read_bytes()[:-4096])

        assert audit_of(relay, tmp_path, bend_files=cut).failed == ("memory.image",)

    def test_mapping_left_out_of_the_table(self, relay: HonestRelay, tmp_path: Path) -> None:
        def add(folder: Path) -> None:
            with (folder / "memory/maps.txt").open("a") as file:
                file.write("7ffd00000000-7ffd00001000 rw-p 00000000 00:00 0 [stack]\n")

        report = audit_of(relay, tmp_path, bend_files=add)
        assert report.failed == ("memory.image",)
        assert "leaves out 1 readable" in findings_of(report, "memory.image")

    @pytest.mark.parametrize("data", [b"", b"\xc1", pack([1]), pack([4711, [[0, 4096, 5, 1, ""]]]), pack([0, []])])
    def test_table_that_is_none(self, relay: HonestRelay, tmp_path: Path, data: bytes) -> None:
        report = audit_of(relay, tmp_path, bend_files=lambda folder: write(folder / "memory/ranges.msgpack", data))
        assert report.failed == ("memory.image",)

    def test_maps_that_are_none(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(relay, tmp_path, bend_files=lambda folder: write(folder / "memory/maps.txt", b"no map\n"))
        assert report.failed == ("memory.image",)

    def test_image_of_another_process_is_incomplete(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.log[0] = "started pid=4712 partition=0"
        report = audit_of(relay, tmp_path)
        assert report.verdict is Verdict.INCOMPLETE
        assert "of process 4711" in missing_of(report)

    def test_image_that_holds_nothing_of_a_relay_is_incomplete(self, relay: HonestRelay, tmp_path: Path) -> None:
        def blank(folder: Path) -> None:
            path = folder / "memory/image.bin"
            path.write_bytes(bytes(path.stat().st_size))

        report = audit_of(relay, tmp_path, bend_files=blank)
        assert report.verdict is Verdict.INCOMPLETE

    def test_image_without_its_maps_is_incomplete(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(relay, tmp_path, bend_files=lambda folder: (folder / "memory/maps.txt").unlink())
        assert report.verdict is Verdict.INCOMPLETE

    @pytest.mark.parametrize(
        "name", ["keys.ratchet", "client", "sim.mutants", "audit", "relay.vault", "blindpost.demo"]
    )
    def test_module_that_opens_messages(self, relay: HonestRelay, tmp_path: Path, name: str) -> None:
        relay.modules.append([name, bytes(range(32))])
        report = audit_of(relay, tmp_path)
        assert report.failed == ("process.modules",)

    def test_module_of_ours_without_a_file(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.modules.append(["relay.injected", bytes(32)])
        assert audit_of(relay, tmp_path).failed == ("process.modules",)

    def test_unknown_module_is_said(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.modules.append(["telemetry", bytes(range(32))])
        report = audit_of(relay, tmp_path)
        assert report.verdict is Verdict.BLIND
        assert "telemetry" in " ".join(outcome_of(report, "process.modules").not_checked)

    @pytest.mark.parametrize("modules", [[], [["sys", bytes(32)]]])
    def test_no_relay_among_the_modules_is_incomplete(
        self, relay: HonestRelay, tmp_path: Path, modules: list[list[Any]]
    ) -> None:
        relay.modules = modules
        assert audit_of(relay, tmp_path).verdict is Verdict.INCOMPLETE


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "UTF-8": lambda text: text,
    "UTF-16LE": lambda text: text.decode().encode("utf-16-le"),
    "UTF-16BE": lambda text: text.decode().encode("utf-16-be"),
    "base64 at alignment 0": base64.b64encode,
    "base64 at alignment 1": lambda text: base64.b64encode(b"x" + text),
    "base64 at alignment 2": lambda text: base64.b64encode(b"xy" + text),
    "base64 in lines": base64.encodebytes,
    "hexadecimal": lambda text: text.hex().encode(),
    "hexadecimal, upper case": lambda text: text.hex().upper().encode(),
    "quoted-printable": quopri.encodestring,
    "percent-encoded": lambda text: quote(text, safe="").encode(),
    "reversed": lambda text: text[::-1],
    "JSON": lambda text: json.dumps(text.decode()).encode(),
    "compressed": zlib.compress,
    "gzip": lambda text: zlib.compress(text, wbits=31),
    "a part": lambda text: text[13:80],
}


class TestSearch:
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize(
        "text", [TEXT, ("ا ب پ ت ٹ ث: یہ پیغام صرف آپ کے لیے ہے، کسی اور کے لیے نہیں" * 2).encode()]
    )
    def test_canary_in_memory(self, relay: HonestRelay, tmp_path: Path, form: str, text: bytes) -> None:
        if form == "a part" and text != TEXT:
            text = TEXT[::-1]
        relay.memory_residents.append(FORMS[form](text))
        report = audit_of(relay, tmp_path, canaries=[text])
        assert report.failed == ("search.canaries",)
        assert "memory/image.bin" in findings_of(report, "search.canaries")

    def test_canary_that_python_keeps_as_utf_32(self, relay: HonestRelay, tmp_path: Path) -> None:
        text = TEXT.decode() + " \N{WAVING WHITE FLAG}\N{WHALE}"
        relay.memory_residents.append(text.encode("utf-32-le"))
        report = audit_of(relay, tmp_path, canaries=[text.encode()])
        assert report.failed == ("search.canaries",)

    def test_canary_in_the_log(self, relay: HonestRelay, tmp_path: Path) -> None:
        commitments, openings = relay.commit_to([TEXT])
        relay.log_suffix = b"2015-11-30T12:00:00Z debug text=" + TEXT + b"\n"
        report = audit_of(relay, tmp_path, items=openings, commitments=commitments)
        assert report.failed == ("bytes.accounted", "log.grammar", "search.canaries")

    def test_text_that_could_be_anybodys_is_not_looked_for(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.memory_residents.append(b"Content-Type: text/plain; charset=utf-8" + b"-" * 80)
        report = audit_of(relay, tmp_path, canaries=[b"Content-Type: text/plain; charset=utf-8\n" + b"-" * 80])
        assert report.verdict is Verdict.BLIND
        assert outcome_of(report, "search.canaries").figures["not looked for"] == 2

    @pytest.mark.parametrize(
        "form", [bytes, lambda it: it.hex().encode(), base64.b64encode, lambda it: it[::-1], lambda it: it[16:]]
    )
    def test_secret_in_memory(self, relay: HonestRelay, tmp_path: Path, form: Callable[[bytes], bytes]) -> None:
        secret = relay.people[0].dh_secret
        relay.memory_residents.append(form(secret))
        report = audit_of(relay, tmp_path, items=relay.secret_items())
        assert report.failed == ("search.secrets",)
        text = findings_of(report, "search.secrets")
        assert "ana@acme.example: identity key" in text
        assert secret.hex() not in text

    def test_message_key_in_memory(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.memory_residents.append(relay.letters[1].message_key)
        report = audit_of(relay, tmp_path, items=[relay.key_item(relay.letters[1])])
        assert report.failed == ("search.secrets",)

    def test_secret_too_regular_is_said(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(relay, tmp_path, items=[[1, "zeros", bytes(32)], [1, "short", b"12345"]])
        assert report.verdict is Verdict.BLIND
        assert outcome_of(report, "search.secrets").figures["not looked for"] == 2

    def test_escrowed_message_key_in_the_store(self, relay: HonestRelay, tmp_path: Path) -> None:
        key = relay.letters[1].message_key
        report = audit_of(relay, tmp_path, bend_store=execute(f"UPDATE tenants SET admin_key = x'{key.hex()}'"))
        assert report.failed == ("search.keys",)
        assert "opens envelopes row 1" in findings_of(report, "search.keys")

    @pytest.mark.parametrize(
        "form", [lambda it: it.hex(), lambda it: it.hex().upper(), lambda it: base64.b64encode(it).decode()]
    )
    def test_escrowed_message_key_in_the_log(
        self, relay: HonestRelay, tmp_path: Path, form: Callable[[bytes], str]
    ) -> None:
        relay.log.append(f"escrow key={form(relay.letters[1].message_key)}")
        report = audit_of(relay, tmp_path)
        assert report.failed == ("bytes.accounted", "log.grammar", "search.keys")

    @pytest.mark.parametrize("which", ["account_key", "device_key"])
    def test_escrowed_device_key_in_a_table(self, relay: HonestRelay, tmp_path: Path, which: str) -> None:
        seed = getattr(relay.people[0], which).seed
        report = audit_of(
            relay,
            tmp_path,
            bend_store=execute("CREATE TABLE escrow (k)", f"INSERT INTO escrow VALUES (x'{seed.hex()}')"),
        )
        assert report.failed == ("store.schema", "bytes.accounted", "search.keys")
        assert "person0@acme.example" in findings_of(report, "search.keys")


class TestEvidence:
    def test_opening_without_a_commitment_is_incomplete(self, relay: HonestRelay, tmp_path: Path) -> None:
        commitments, openings = relay.commit_to([TEXT, b"another text, committed to"])
        report = audit_of(relay, tmp_path, items=[*openings, [4, bytes(32), TEXT]], commitments=commitments)
        assert report.verdict is Verdict.INCOMPLETE
        assert "a commitment to a text" in missing_of(report)

    def test_commitments_that_nobody_opens_are_incomplete(self, relay: HonestRelay, tmp_path: Path) -> None:
        commitments, _ = relay.commit_to([TEXT])
        report = audit_of(relay, tmp_path, commitments=commitments)
        assert report.verdict is Verdict.INCOMPLETE

    def test_opening_some_is_a_choice_and_said(self, relay: HonestRelay, tmp_path: Path) -> None:
        commitments, openings = relay.commit_to([TEXT, b"another text, committed to"])
        report = audit_of(relay, tmp_path, items=openings[:1], commitments=commitments)
        assert report.verdict is Verdict.BLIND
        assert "1 commitments were not opened" in " ".join(outcome_of(report, "evidence.commitments").not_checked)

    def test_openings_without_the_commitments_are_incomplete(self, relay: HonestRelay, tmp_path: Path) -> None:
        _, openings = relay.commit_to([TEXT])
        assert audit_of(relay, tmp_path, items=openings).verdict is Verdict.INCOMPLETE

    @pytest.mark.parametrize(
        ("field", "value", "text"),
        [
            (1, bytes(16), "no such row is in the store"),
            (3, bytes(32), "is not the one that the body commits to"),
            (4, bytes(32), "does not verify"),
            (6, 72, "content does not begin at 72"),
        ],
    )
    def test_message_key_that_does_not_fit_is_incomplete(
        self, relay: HonestRelay, tmp_path: Path, field: int, value: Any, text: str
    ) -> None:
        item = relay.key_item(relay.letters[1])
        item[field] = value
        report = audit_of(relay, tmp_path, items=[item])
        assert report.verdict is Verdict.INCOMPLETE
        assert text in missing_of(report)

    def test_key_of_an_erased_envelope_is_said(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(relay, tmp_path, items=[relay.key_item(relay.letters[-1])])
        assert report.verdict is Verdict.BLIND
        assert "erased, a tombstone says so" in " ".join(outcome_of(report, "evidence.openings").not_checked)

    def test_opened_rows_without_any_canary_are_incomplete(self, relay: HonestRelay, tmp_path: Path) -> None:
        commitments, openings = relay.commit_to([TEXT])
        items = [relay.key_item(relay.letters[1]), *openings]
        assert audit_of(relay, tmp_path, items=items, commitments=commitments).verdict is Verdict.INCOMPLETE

    def test_token_that_its_holder_names_honours_a_receipt(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.time_ms += 2 * 3_600_000
        relay.commit(relay.write(b"much later"))
        letter = next(letter for letter in relay.letters if letter.state == "acked")
        report = audit_of(
            relay,
            tmp_path,
            bend_store=execute(
                "DELETE FROM tombstones WHERE reason = 1", "UPDATE mailboxes SET newest = 2 WHERE seq = 1"
            ),
            items=[relay.receipt_item(letter, with_token=True)],
        )
        assert report.verdict is Verdict.BLIND
        assert outcome_of(report, "evidence.receipts").figures["acknowledged or withdrawn"] == 1

    def test_erased_without_tombstone_after_expiry_honours_a_receipt(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(
            relay,
            tmp_path,
            items=[relay.receipt_item(relay.letters[0])],
        )
        assert report.verdict is Verdict.BLIND
        assert outcome_of(report, "evidence.receipts").figures["expired"] == 1

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\x80",
            pack(["blindpost/v1/volunteered", "ana", [[9, 1]]]),
            pack(["blindpost/v1/volunteered", "ana", [[]]]),
            pack(["blindpost/v1/volunteered", "ana", [[1, "short"]]]),
            pack(["blindpost/v1/volunteered", "ana", [[2, *[b""] * 10]]]),
            pack(["blindpost/v1/volunteered", "ana", [[6, b""]]]),
            pack(["blindpost/v1/commitments", []]),
            pack(["another", "ana", []]),
        ],
    )
    def test_volunteered_file_that_is_none_is_incomplete(self, relay: HonestRelay, tmp_path: Path, data: bytes) -> None:
        report = audit_of(relay, tmp_path, volunteered=[data])
        if data == pack(["blindpost/v1/commitments", []]):
            assert "must have 3 items" in missing_of(report)
        assert report.verdict is Verdict.INCOMPLETE
        assert outcome_of(report, "evidence.files").status is Status.MISSING

    @pytest.mark.parametrize("data", [b"", pack(["another", []]), pack(["blindpost/v1/commitments", [[b"", "ana"]]])])
    def test_commitments_file_that_is_none_is_incomplete(self, relay: HonestRelay, tmp_path: Path, data: bytes) -> None:
        assert audit_of(relay, tmp_path, commitments=data).verdict is Verdict.INCOMPLETE

    def test_file_that_is_not_there_is_incomplete(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(relay, tmp_path, volunteered=[tmp_path / "nothing"])
        assert "cannot be read" in missing_of(report)

    def test_signed_lists_of_volunteers_name_public_keys(self, relay: HonestRelay, tmp_path: Path) -> None:
        stranger = HonestRelay(seed=9)
        relay.config += f'identity = "{stranger.people[0].dh_secret.hex()}"\n'
        items: list[list[Any]] = [[6, stranger.signed_list(stranger.people[0])], [6, [b"no list", bytes(64)]]]
        report = audit_of(relay, tmp_path, items=items)
        assert "search.keys" in report.failed


class TestHistorical:
    KEY = bytes(range(100, 124))

    def test_global_pin_key_reads_everybodys_messages(self, tmp_path: Path) -> None:
        relay = HonestRelay()
        relay.commit(
            *(relay.write_pin(f"message {i} of everybody".encode(), self.KEY, i % 3, (i + 1) % 3) for i in range(9))
        )
        blind = audit_of(relay, tmp_path / "before")
        assert blind.verdict is Verdict.BLIND
        report = audit_of(relay, tmp_path / "after", items=[[5, 0x5049, self.KEY]])
        assert report.failed == ("historical.keys",)
        assert "reads everybody's messages" in findings_of(report, "historical.keys")
        assert [message.text for message in report.read_messages] == [f"message {i} of everybody" for i in range(9)]

    def test_another_key_opens_nothing(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(relay, tmp_path, items=[[5, 0x5049, self.KEY]])
        assert report.verdict is Verdict.BLIND
        assert outcome_of(report, "historical.keys").figures["messages read"] == 0

    @pytest.mark.parametrize("item", [[5, 1, KEY], [5, 0x5049, b"short"]])
    def test_unknown_suite_is_incomplete(self, relay: HonestRelay, tmp_path: Path, item: list[Any]) -> None:
        assert audit_of(relay, tmp_path, items=[item]).verdict is Verdict.INCOMPLETE


class TestMore:
    """Branches that only a rare relay or volunteer reaches."""

    def test_rotation_that_names_another_last_commit(self, tmp_path: Path) -> None:
        relay = HonestRelay()
        relay.commit(relay.write(b"one"))
        honest_commit = relay.commits[0]
        relay.commits[0] = (relay.commits[0][0] + b"", *honest_commit[1:])
        relay.rotate()
        header = msgpack.unpackb(honest_commit[0])
        header[3] += 1
        again = pack(header)
        relay.commits[0] = (again, relay.first_key.sign("commit", again), honest_commit[2])
        report = audit_of(relay, tmp_path)
        assert report.failed == ("store.commits",)
        assert "the key's rotation names as the old key's last" in findings_of(report, "store.commits")

    def test_manifest_that_names_a_head_where_no_commit_was_made(self, tmp_path: Path) -> None:
        relay = HonestRelay()

        def lie(folder: Path) -> None:
            manifest = msgpack.unpackb(msgpack.unpackb((folder / "manifest.msgpack").read_bytes())[0])
            manifest[4] = [0, bytes(range(32))]
            again = pack(manifest)
            write(
                folder / "manifest.msgpack",
                pack([again, relay.signing_key.public, relay.signing_key.sign("disclosure", again)]),
            )

        assert audit_of(relay, tmp_path, bend_signed=lie).failed == ("store.commits",)

    def test_all_commits_pruned_is_said(self, tmp_path: Path) -> None:
        relay = HonestRelay()
        letter = relay.write(b"long expired")
        letter.state = "expired"
        relay.commit(letter)
        report = audit_of(
            relay, tmp_path, bend_store=execute("DELETE FROM commits"), items=[relay.receipt_item(letter)]
        )
        assert "commits up to 1: all pruned" in " ".join(outcome_of(report, "store.commits").not_checked)
        assert report.failed == ("evidence.receipts",)

    def test_order_that_is_no_wholesale_order(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.order = "one person"
        assert audit_of(relay, tmp_path).failed == ("manifest.signature",)

    def test_manifest_that_is_no_messagepack(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(relay, tmp_path, bend_signed=lambda it: write(it / "manifest.msgpack", b"\x93\x01"))
        assert report.failed == ("manifest.signature",)

    def test_paths_that_are_not_sorted(self, relay: HonestRelay, tmp_path: Path) -> None:
        def unsort(folder: Path) -> None:
            manifest = msgpack.unpackb(msgpack.unpackb((folder / "manifest.msgpack").read_bytes())[0])
            manifest[3].reverse()
            again = pack(manifest)
            write(
                folder / "manifest.msgpack",
                pack([again, relay.signing_key.public, relay.signing_key.sign("disclosure", again)]),
            )

        report = audit_of(relay, tmp_path, bend_signed=unsort)
        assert report.failed == ("manifest.files",)

    def test_card_in_the_disclosure_that_is_another(self, relay: HonestRelay, tmp_path: Path) -> None:
        other = HonestRelay(seed=5).card
        report = audit_of(relay, tmp_path, bend_files=lambda folder: write(folder / "config/relay-card.toml", other))
        assert report.failed == ("manifest.signature", "config.grammar")
        report = audit_of(
            relay, tmp_path / "none", bend_files=lambda folder: write(folder / "config/relay-card.toml", b"no card")
        )
        assert report.failed == ("manifest.signature", "bytes.accounted", "config.grammar")

    def test_too_many_prekeys_of_a_kind(self, relay: HonestRelay, tmp_path: Path) -> None:
        person = relay.people[0]
        again = person.prekeys[0]
        fresh = bytes(range(16))
        key = msgpack.unpackb(again[2])[1]
        record = pack([fresh, key, person.device_key.sign("signed-prekey", fresh + b"\x02" + key)])
        person.prekeys.append((1, fresh, record))
        report = audit_of(relay, tmp_path)
        assert report.failed == ("store.directory",)
        assert "has 2 prekeys of kind 1" in findings_of(report, "store.directory")

    @pytest.mark.parametrize(
        ("account", "devices", "text"),
        [
            ("NoAddress", 1, "no address"),
            ("a@acme.example", 0, "has no device"),
            ("a@acme.example", 2, "one twice"),
        ],
    )
    def test_list_of_another_shape(
        self, relay: HonestRelay, tmp_path: Path, account: str, devices: int, text: str
    ) -> None:
        person = relay.people[0]
        device = [person.device_key.public, person.dh_public, person.mailbox]
        body = pack([account, 1, bytes(32), person.account_key.public, [device] * devices])
        signed = pack([body, person.account_key.sign("device-list", body)])
        report = audit_of(
            relay, tmp_path, bend_store=execute_with("INSERT INTO lists VALUES (9, ?, 1, ?)", (account, signed))
        )
        assert report.failed == ("store.directory",)
        assert text in findings_of(report, "store.directory")

    def test_value_in_the_place_of_a_primary_key_and_rows_too_short(self, relay: HonestRelay, tmp_path: Path) -> None:
        def shorten(folder: Path) -> None:
            path = folder / "store/store.sqlite"
            data = bytearray(path.read_bytes())
            at = data.index(b"acme.example" + relay.admin_key.public) - 4
            assert data[at : at + 4] == bytes((4, 0, 12 * 2 + 13, 32 * 2 + 12))
            # The first column, NULL in the place of the rowid, becomes the integer 1.
            data[at + 1] = 9
            path.write_bytes(data)

        report = audit_of(relay, tmp_path, bend_files=shorten)
        assert "a value in the place of the primary key" in findings_of(report, "store.envelopes")

    def test_plain_commitments_and_cards_as_paths(self, relay: HonestRelay, tmp_path: Path) -> None:
        (tmp_path / "card.toml").write_bytes(relay.card)
        commitments, openings = relay.commit_to([TEXT])
        (tmp_path / "commitments").write_bytes(commitments)
        steps: list[tuple[str, int, int]] = []
        report = audit_of(
            relay,
            tmp_path,
            card=tmp_path / "card.toml",
            commitments=tmp_path / "commitments",
            items=openings,
            controls=[audit.Control("a", "store.schema", ("store.schema",))],
            progress=lambda *step: steps.append(step),
        )
        assert report.verdict is Verdict.BLIND
        assert report.controls_line == "1 mutants, 1 caught"
        assert [position for _, position, _ in steps] == list(range(len(steps)))

    def test_receipts_whose_header_and_path_are_arrays(self, relay: HonestRelay, tmp_path: Path) -> None:
        item = relay.receipt_item(relay.letters[2])
        item[1] = msgpack.unpackb(item[1])
        item[8] = [item[8][i : i + 32] for i in range(0, len(item[8]), 32)]
        report = audit_of(relay, tmp_path, items=[item])
        assert outcome_of(report, "evidence.receipts").figures["in the store"] == 1
        for field, value in ((8, b"short"), (10, b"short"), (11, b"short")):
            bent = list(relay.receipt_item(relay.letters[2]))
            bent[field if field < 11 else 10] = value
            report = audit_of(relay, tmp_path / str(field), items=[bent])
            assert report.verdict is Verdict.INCOMPLETE

    def test_receipt_from_the_middle_of_a_gap(self, relay: HonestRelay, tmp_path: Path) -> None:
        report = audit_of(
            relay,
            tmp_path,
            bend_store=execute("DELETE FROM commits WHERE idx = 3"),
            items=[relay.receipt_item(relay.letters[2])],
        )
        assert "missing from the middle of the chain" in findings_of(report, "evidence.receipts")

    def test_everything_that_needs_a_store_says_so(self, relay: HonestRelay, tmp_path: Path) -> None:
        commitments, items = everything(relay)
        report = audit_of(
            relay,
            tmp_path,
            items=[*items, [5, 0x5049, bytes(24)]],
            commitments=commitments,
            bend_signed=lambda folder: (folder / "store/store.sqlite").unlink(),
        )
        missing = {o.about.check_id for o in report.outcomes if o.status is Status.MISSING}
        assert {"store.schema", "search.keys", "evidence.openings", "evidence.receipts", "historical.keys"} <= missing

    def test_pin_body_that_is_no_multiple_of_a_block(self) -> None:
        from audit.checks.historical import open_pin

        assert open_pin(bytes(range(24)), bytes(136 + 7)) is None
        assert open_pin(bytes(range(24)), bytes(136 + 16)) is None

    def test_a_bound_of_the_search_for_keys_that_is_passed_is_incomplete_and_thorough_has_none(
        self, relay: HonestRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("audit.checks.escrow.WINDOWS_MAX", 100)
        monkeypatch.setattr("audit.checks.escrow.PRIVATE_MAX", 10)
        report = audit_of(relay, tmp_path / "bounded")
        assert report.verdict is Verdict.INCOMPLETE
        said = missing_of(report)
        assert "store/store.sqlite:" in said
        assert "candidates for message keys, beyond the bound of 100; audit with --thorough" in said
        assert "candidates for private keys, beyond the bound of 10; audit with --thorough" in said
        assert audit_of(relay, tmp_path / "thorough", thorough=True).verdict is Verdict.BLIND

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ([1.5], "holds a float"),
            ([None], "holds a NoneType"),
            ([True], "holds a bool"),
            ({}, "holds a map"),
            ([[[[[[[[[[1]]]]]]]]]], "nested deeper than 8"),
            (msgpack.ExtType(5, b"x"), "holds an extension type"),
        ],
    )
    def test_values_that_the_protocol_has_not(self, value: object, text: str) -> None:
        with pytest.raises(audit.AuditError) as caught:
            decoder.decode(pack(value), "field", 100)
        assert str(caught.value) == f"field: {text}"

    @pytest.mark.parametrize(
        ("check", "text"),
        [
            (lambda: decoder.decode(bytes(11), "field", 10), "11 bytes, at most 10 are allowed"),
            (lambda: decoder.decode(b"\xcc\x05", "field", 10), "not the canonical encoding of its value"),
            (lambda: decoder.decode(b"\x05\x05", "field", 10), "no MessagePack of this protocol (ExtraData)"),
            (lambda: decoder.array(5, "field"), "must be an array"),
            (lambda: decoder.array([5], "field", 2), "must have 2 items, has 1"),
            (lambda: decoder.array([5], "field", length_max=0), "at most 0 items are allowed, has 1"),
            (lambda: decoder.integer("5", "field"), "must be an integer"),
            (lambda: decoder.integer(5, "field", 6, 7), "must be 6 to 7, is 5"),
            (lambda: decoder.binary("5", "field"), "must be bin"),
            (lambda: decoder.binary(b"5", "field", 2), "must have 2 bytes, has 1"),
            (lambda: decoder.binary(b"55", "field", length_max=1), "at most 1 bytes are allowed, has 2"),
            (lambda: decoder.text(b"5", "field", 2), "must be str"),
            (lambda: decoder.text("éé", "field", 3), "at most 3 bytes are allowed"),
            (lambda: decoder.encode(object(), "field"), "cannot be encoded"),
        ],
    )
    def test_refusals_name_field_and_limit(self, check: Callable[[], object], text: str) -> None:
        with pytest.raises(audit.AuditError) as caught:
            check()
        assert str(caught.value) == f"field: {text}"
