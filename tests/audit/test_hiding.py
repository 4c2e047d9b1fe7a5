"""Relays that hide something behind a bound, in a number, in another order, or behind a date."""

from __future__ import annotations

import base64
import random
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from audit import AuditError, Verdict, needles
from audit.__main__ import main
from tests.audit.auditing import audit_of, execute, execute_with, findings_of, missing_of, outcome_of
from tests.audit.honest import NOW, HonestRelay, Letter

TEXT = b"Meet me at the harbour at nine, and bring the second ledger with you; nobody else must know."


@pytest.fixture
def relay() -> HonestRelay:
    return HonestRelay().story()


def live(relay: HonestRelay) -> list[Letter]:
    return [letter for letter in relay.letters if letter.state == "live"]


# ---- bounds


def test_streams_that_use_up_the_bound_do_not_hide_the_next(
    relay: HonestRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay.memory_residents = [b"\x78\x9c\xff" * 3_000, zlib.compress(TEXT)]
    report = audit_of(relay, tmp_path / "whole", canaries=[TEXT])
    assert report.failed == ("search.canaries",)
    monkeypatch.setattr("audit.case.INFLATE_WORK_BYTES_MAX", 500 * needles.TRY_WORK_BYTES)
    report = audit_of(relay, tmp_path / "bounded", canaries=[TEXT], items=relay.secret_items())
    assert report.verdict is Verdict.INCOMPLETE
    assert "memory/image.bin:" in missing_of(report)
    assert "possible compressed streams, beyond the bound; audit with --thorough" in missing_of(report)
    report = audit_of(relay, tmp_path / "thorough", canaries=[TEXT], thorough=True)
    assert report.failed == ("search.canaries",)


def test_a_private_key_far_on_in_the_configuration_is_found(relay: HonestRelay, tmp_path: Path) -> None:
    relay.config += "#" * 6_000 + "\n"

    def hide(folder: Path) -> None:
        path = folder / "config/relay.toml"
        path.write_bytes(path.read_bytes() + relay.people[0].dh_secret)

    assert "search.keys" in audit_of(relay, tmp_path, bend_files=hide).failed


def test_a_message_key_at_the_end_of_a_long_run_of_base64_is_found(relay: HonestRelay, tmp_path: Path) -> None:
    rubbish = random.Random(5).randbytes(70_000)
    relay.log_suffix = base64.b64encode(rubbish + live(relay)[0].message_key) + b"\n"
    assert "search.keys" in audit_of(relay, tmp_path).failed


# ---- encodings


def raw_deflate(text: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(text) + stream.flush()


@pytest.mark.parametrize(
    "value", [raw_deflate(TEXT), base64.b64encode(zlib.compress(TEXT)), zlib.compress(TEXT).hex().encode()]
)
def test_a_compressed_text_in_a_value_is_found(relay: HonestRelay, tmp_path: Path, value: bytes) -> None:
    bend = execute_with("UPDATE prekeys SET record = ? WHERE seq = 1", (value.ljust(100, b"\xff"),))
    report = audit_of(relay, tmp_path, bend_store=bend, canaries=[TEXT])
    assert "compressed" in findings_of(report, "search.canaries")


def test_a_compressed_text_in_the_log_is_found(relay: HonestRelay, tmp_path: Path) -> None:
    relay.log_suffix = b"2015-11-30T12:00:00Z trace id=" + raw_deflate(TEXT) + b"\n"
    assert "compressed" in findings_of(audit_of(relay, tmp_path, canaries=[TEXT]), "search.canaries")


def shuffled(data: bytes, size: int) -> list[bytes]:
    pieces = [data[start : start + size].ljust(16, b"\0") for start in range(0, len(data), size)]
    random.Random(4).shuffle(pieces)
    return pieces


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_a_text_cut_into_ids_in_another_order_is_found(relay: HonestRelay, tmp_path: Path, encoding: str) -> None:
    def bend(connection: sqlite3.Connection) -> None:
        connection.executemany(
            "INSERT INTO used_tokens (nonce, not_after) VALUES (?, ?)",
            [(piece, NOW + 86_400) for piece in shuffled(TEXT.decode().encode(encoding), 12)],
        )

    report = audit_of(relay, tmp_path, bend_store=bend, canaries=[TEXT])
    assert "used_tokens row 4, nonce: holds a piece of text 1" in findings_of(report, "search.canaries")


def test_a_secret_cut_into_ids_in_another_order_is_found(relay: HonestRelay, tmp_path: Path) -> None:
    secret = relay.people[0].dh_secret
    pieces = [relay.draw(5) + piece[:11] for piece in shuffled(secret, 11)]

    def bend(connection: sqlite3.Connection) -> None:
        connection.executemany(
            "INSERT INTO used_tokens (nonce, not_after) VALUES (?, ?)", [(piece, NOW + 86_400) for piece in pieces]
        )

    report = audit_of(relay, tmp_path, bend_store=bend, items=[[1, "identity key", secret]])
    assert "holds a piece of" in findings_of(report, "search.secrets")


# ---- numbers


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("refused code=15 count=1", "code is 15, must be 1 to 14"),
        ("refused code=4 count=1001001", "count is 1001001, must be 0 to 1000000"),
        ("linked links=5572441289", "links is 5572441289"),
        ("checkpointed pages=5572441289", "pages is 5572441289"),
        ("aborted envelopes=1089", "envelopes is 1089"),
        ("started pid=5572441289 partition=0", "pid is 5572441289"),
        ("started pid=0 partition=0", "pid is 0"),
        ("started pid=4711 partition=7", "the card's is 0"),
        ("disclosed files=4 memory=2", "memory is 2"),
        ("disclosed files=5 memory=0", "4 files, 7 with"),
        ("rotated index=1", "no rotation of the manifest"),
        ("committed index=0 envelopes=0 acks=1048577 bytes=0", "acks is 1048577"),
        ("committed index=0 envelopes=0 acks=0 bytes=1163220041", "index 0 and no bytes"),
        ("committed index=0 envelopes=1 acks=0 bytes=400", "index 0 and no bytes"),
        ("committed index=5 envelopes=1 acks=0 bytes=400", "not in the disclosure"),
        ("committed index=4 envelopes=2 acks=0 bytes=800", "is of commit 4, the one before was of 4"),
        ("committed index=0 envelopes=0 acks=8 bytes=0", "says 8 acks in all, and the mailboxes have given 7 numbers"),
    ],
)
def test_a_number_of_the_log_beyond_its_meaning(relay: HonestRelay, tmp_path: Path, line: str, text: str) -> None:
    relay.log.append(line)
    report = audit_of(relay, tmp_path)
    assert report.failed == ("log.grammar",)
    assert text in findings_of(report, "log.grammar")


def test_bytes_of_a_commit_that_no_bodies_have(relay: HonestRelay, tmp_path: Path) -> None:
    # All three of commit 3 wait, so their sum is exact; the one of commit 1 is gone, so a size of section 4.4 is left.
    relay.log = [
        line.replace("index=1 envelopes=1 acks=0 bytes=", "index=1 envelopes=1 acks=0 bytes=1") for line in relay.log
    ]
    assert "log.grammar" in audit_of(relay, tmp_path / "one").failed
    relay = HonestRelay().story()
    line = next(line for line in relay.log if "index=3 " in line)
    relay.log[relay.log.index(line)] = f"{line[:-1]}{(int(line[-1]) + 1) % 10}"
    report = audit_of(relay, tmp_path / "three")
    assert report.failed == ("log.grammar",)
    assert "are not what 3 bodies have" in findings_of(report, "log.grammar")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"2015-11-30T00:00:00Z ready\n", "earlier than the line before"),
        (b"2015-12-24T18:00:00Z ready\n", "later than the disclosure"),
    ],
)
def test_a_time_of_the_log_that_cannot_be(relay: HonestRelay, tmp_path: Path, line: bytes, text: str) -> None:
    relay.log_suffix = line
    report = audit_of(relay, tmp_path)
    assert report.failed == ("log.grammar",)
    assert text in findings_of(report, "log.grammar")


def test_a_commit_logged_at_another_time_than_its_header(relay: HonestRelay, tmp_path: Path) -> None:
    def bend(folder: Path) -> None:
        path = folder / "log/relay.log"
        lines = path.read_bytes().splitlines(keepends=True)
        start = next(position for position, line in enumerate(lines) if b"index=1 " in line)
        lines[: start + 1] = [b"2015-11-30T08:00:00Z" + line[20:] for line in lines[: start + 1]]
        path.write_bytes(b"".join(lines))

    report = audit_of(relay, tmp_path, bend_files=bend)
    assert report.failed == ("log.grammar",)
    assert "at another time than its header" in findings_of(report, "log.grammar")


@pytest.mark.parametrize(
    ("statement", "check", "text"),
    [
        ("UPDATE mailboxes SET seq = 5572441289 WHERE seq = 3", "store.directory", "should be row 3"),
        ("UPDATE lists SET seq = 9 WHERE seq = 3", "store.directory", "should be row 3"),
        ("UPDATE tenants SET seq = 7", "store.directory", "should be row 1"),
        ("UPDATE used_tokens SET seq = 5572441289 WHERE seq = 3", "store.directory", "more tokens were used"),
        ("UPDATE prekeys SET seq = 55724412890123 WHERE seq = 12", "store.directory", "so many prekeys"),
        ("UPDATE mailboxes SET enrolled_day = 5572441289 WHERE seq = 1", "store.directory", "enrolled after"),
        ("UPDATE mailboxes SET newest = 5572441289 WHERE seq = 1", "store.envelopes", "have given 5572441"),
        ("UPDATE envelopes SET seq = 99 WHERE seq = 4", "store.envelopes", "only 7 envelopes were ever committed"),
        ("UPDATE tombstones SET seq = 99 WHERE seq = 2", "store.envelopes", "only 7 envelopes were ever committed"),
        ("UPDATE envelopes SET seq = 6 WHERE seq = 1", "store.envelopes", "an earlier place in the commits"),
    ],
)
def test_a_number_of_the_store_beyond_its_meaning(
    relay: HonestRelay, tmp_path: Path, statement: str, check: str, text: str
) -> None:
    report = audit_of(relay, tmp_path, bend_store=execute(statement))
    assert check in report.failed
    assert text in findings_of(report, check)


def test_row_numbers_that_spell_a_text(relay: HonestRelay, tmp_path: Path) -> None:
    def bend(connection: sqlite3.Connection) -> None:
        for position, start in enumerate(range(0, len(TEXT), 5)):
            connection.execute(
                "INSERT INTO used_tokens VALUES (?, ?, ?)",
                ((position + 1) * 2**40 + int.from_bytes(TEXT[start : start + 5].ljust(5), "big"), bytes(16), NOW),
            )

    assert "store.directory" in audit_of(relay, tmp_path, bend_store=bend, canaries=[TEXT]).failed


# ---- dates


def order(requested_at: int, received_at: int) -> bytes:
    return f"requested_at = {requested_at}\nreceived_at = {received_at}\n".encode()


def test_a_date_between_the_orderers_times_is_good_and_without_them_is_the_relays_word(
    relay: HonestRelay, tmp_path: Path
) -> None:
    times = order(relay.taken_at - 2, relay.taken_at + 3)
    report = audit_of(relay, tmp_path / "with", order=times)
    assert report.verdict is Verdict.BLIND
    assert not any("relay's word" in text for text in outcome_of(report, "manifest.signature").not_checked)
    report = audit_of(relay, tmp_path / "without")
    assert any("is the relay's word" in text for text in outcome_of(report, "manifest.signature").not_checked)


@pytest.mark.parametrize(("shift", "text"), [(301, "dated back"), (-320, "dated forward")])
def test_a_disclosure_dated_otherwise(relay: HonestRelay, tmp_path: Path, shift: int, text: str) -> None:
    at = relay.taken_at + shift
    report = audit_of(relay, tmp_path, order=order(at, at + 10))
    assert report.failed == ("manifest.signature",)
    assert text in findings_of(report, "manifest.signature")


def test_a_clock_that_ran_ahead_and_was_set_back_is_no_lie(
    relay: HonestRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HonestRelay, "taken_at", property(lambda relay: relay.time_ms // 1_000))
    at = relay.taken_at - 1_200
    report = audit_of(relay, tmp_path, order=order(at, at + 10))
    assert report.verdict is Verdict.INCOMPLETE
    assert "ran ahead, or it is dated forward" in missing_of(report)


def held_back(relay: HonestRelay, seconds: int) -> list[list[Any]]:
    """A receipt of a commit some seconds on, which the disclosure, dated before it, does not have."""
    keep = relay.time_ms
    relay.time_ms += seconds * 1_000
    relay.commit(relay.write(b"the one that is held back"))
    items = [relay.receipt_item(relay.letters[-1])]
    relay.commits.pop()
    relay.log.pop()
    relay.letters.pop().recipient.newest_number -= 1
    relay.time_ms = keep
    return items


def test_a_disclosure_dated_back_does_not_hide_what_was_receipted_before_the_order(
    relay: HonestRelay, tmp_path: Path
) -> None:
    items = held_back(relay, 600)
    assert audit_of(relay, tmp_path / "believed", items=items).verdict is Verdict.BLIND
    at = relay.taken_at + 1_200
    report = audit_of(relay, tmp_path / "dated", items=items, order=order(at, at + 5))
    assert report.failed == ("manifest.signature", "evidence.receipts")
    assert "before the orderer asked" in findings_of(report, "evidence.receipts")


def test_a_disclosure_dated_back_within_the_skew_is_incomplete_where_a_receipt_lies_between(
    relay: HonestRelay, tmp_path: Path
) -> None:
    items = held_back(relay, 60)
    at = relay.taken_at + 200
    report = audit_of(relay, tmp_path, items=items, order=order(at, at + 5))
    assert report.verdict is Verdict.INCOMPLETE
    assert "or the disclosure is dated back" in missing_of(report)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff", b"= 1", b"", b"requested_at = 1\n", b'requested_at = "1"\nreceived_at = 2\n',
        b"requested_at = true\nreceived_at = 2\n", order(5, 4), order(1, 2) + b"relay = 1\n",
    ],
)  # fmt: skip
def test_times_of_an_order_that_are_none(relay: HonestRelay, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(AuditError, match="order"):
        audit_of(relay, tmp_path, order=data)


def test_the_command_line_takes_the_times_and_ignores_those_that_lie_beside(
    relay: HonestRelay, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = relay.disclose(tmp_path / "disclosure")
    (tmp_path / "card.toml").write_bytes(relay.card)
    (folder / "order.toml").write_bytes(order(1, 2))
    arguments = [str(folder), "--relay-card", str(tmp_path / "card.toml"), "--thorough", "--quiet"]
    assert main(arguments) == 0
    assert "is the relay's word" in capsys.readouterr().out
    assert main([*arguments, "--order", str(folder / "order.toml")]) == 1
    assert "dated forward" in capsys.readouterr().out
    assert main([*arguments, "--order", str(tmp_path / "none.toml")]) == 64


# ---- beside the files


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def test_a_text_in_the_name_of_an_empty_folder(relay: HonestRelay, tmp_path: Path) -> None:
    report = audit_of(relay, tmp_path, bend_signed=lambda folder: (folder / TEXT.decode()).mkdir(), canaries=[TEXT])
    assert report.failed == ("manifest.files",)
    assert "is no folder that a disclosure may have" in findings_of(report, "manifest.files")


@pytest.mark.parametrize("name", ["order.toml", "relay-card.toml"])
def test_a_text_in_the_orderers_files(relay: HonestRelay, tmp_path: Path, name: str) -> None:
    report = audit_of(relay, tmp_path, bend_signed=lambda folder: write(folder / name, b"# " + TEXT), canaries=[TEXT])
    assert report.failed == ("manifest.files", "search.canaries")
    assert "lies beside the disclosure" in findings_of(report, "manifest.files")


def test_the_orderers_files_as_order_lays_them_there(relay: HonestRelay, tmp_path: Path) -> None:
    def lay(folder: Path) -> None:
        (folder / "relay-card.toml").write_bytes(relay.card)
        (folder / "order.toml").write_bytes(order(relay.taken_at - 1, relay.taken_at + 1))

    assert audit_of(relay, tmp_path, bend_signed=lay).verdict is Verdict.BLIND


def test_an_orderers_file_that_is_large_is_not_read(relay: HonestRelay, tmp_path: Path) -> None:
    report = audit_of(relay, tmp_path, bend_signed=lambda folder: write(folder / "order.toml", bytes(5_000)))
    assert report.verdict is Verdict.INCOMPLETE
    assert "order.toml: 5,000 bytes, at most 4,096 are read" in missing_of(report)


# ---- texts and times that the relay signs


def signed_with(relay: HonestRelay, folder: Path, change: Any) -> None:
    """Change the fields of the manifest, and sign it again."""
    manifest, _, _ = msgpack.unpackb((folder / "manifest.msgpack").read_bytes())
    fields = msgpack.unpackb(manifest)
    change(fields)
    packed = msgpack.packb(fields)
    signature = relay.signing_key.sign("disclosure", packed)
    (folder / "manifest.msgpack").write_bytes(msgpack.packb([packed, relay.signing_key.public, signature]))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda fields: fields[8].append("f3" * 101), "left_out: must be at most 16 texts"),
        (lambda fields: fields[8].extend(["a"] * 17), "left_out: must be at most 16 texts"),
        (lambda fields: fields[8].append("é"), "left_out: must be at most 16 texts"),
        (lambda fields: fields[6].__setitem__(0, "3.11.7 0f9a3c"), "is no version"),
        (lambda fields: fields[6][2].append(["json.a b", bytes(32)]), "no names of modules"),
        (lambda fields: fields[6][2].append(["json." + "f3" * 64, bytes(32)]), "no names of modules"),
        (lambda fields: fields[6][2].append(fields[6][2][0]), "none twice"),
        (lambda fields: fields[6][2].extend([f"json.m{i}", bytes(32)] for i in range(4_096)), "at most 4096"),
    ],
)
def test_free_text_of_the_manifest_is_short(relay: HonestRelay, tmp_path: Path, change: Any, text: str) -> None:
    report = audit_of(relay, tmp_path, bend_signed=lambda folder: signed_with(relay, folder, change))
    assert report.failed == ("manifest.signature",)
    assert text in findings_of(report, "manifest.signature")


def test_a_rotation_of_a_time_to_come(relay: HonestRelay, tmp_path: Path) -> None:
    keep, relay.time_ms = relay.time_ms, 4_000_000_000_000
    relay.rotate()
    relay.time_ms = keep
    report = audit_of(relay, tmp_path)
    assert report.failed == ("store.commits",)
    assert "after the disclosure was taken" in findings_of(report, "store.commits")


def test_a_broker_with_a_text_for_a_path(relay: HonestRelay, tmp_path: Path) -> None:
    def bend(folder: Path) -> None:
        path = folder / "config/relay-card.toml"
        path.write_bytes(path.read_bytes().replace(b":18830", b":18830/8f1c6a3be05d9247"))

    report = audit_of(relay, tmp_path, bend_files=bend)
    assert report.failed == ("config.grammar",)
    assert "carries a user name, password, path" in findings_of(report, "config.grammar")


def test_a_rotation_that_no_commit_has_brought_into_the_store(relay: HonestRelay, tmp_path: Path) -> None:
    relay.rotate()
    bend = execute("DELETE FROM rotations WHERE seq = (SELECT max(seq) FROM rotations)")
    report = audit_of(relay, tmp_path / "waiting", bend_store=bend)
    assert report.verdict is Verdict.BLIND
    assert any("no commit has brought" in text for text in outcome_of(report, "store.directory").not_checked)
    relay.commit(relay.write(b"under the new key"))
    report = audit_of(relay, tmp_path / "committed", bend_store=bend)
    assert report.failed == ("store.directory",)
    bend = execute("UPDATE rotations SET record = zeroblob(200) WHERE seq = 1")
    assert "store.directory" in audit_of(relay, tmp_path / "other", bend_store=bend).failed


# ---- tombstones and gaps


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("UPDATE tombstones SET reason = 4, token = x'' WHERE seq = 1", "says that its mailbox was closed"),
        (
            "UPDATE tombstones SET reason = 4, token = x'', mailbox = zeroblob(16) WHERE seq = 1",
            "of a mailbox that is not in the directory",
        ),
    ],
)
def test_a_tombstone_that_nothing_proves(relay: HonestRelay, tmp_path: Path, statement: str, text: str) -> None:
    report = audit_of(relay, tmp_path, bend_store=execute(statement))
    assert "store.directory" in report.failed
    assert text in findings_of(report, "store.directory")


def test_a_second_store_in_the_gaps_of_the_first(relay: HonestRelay, tmp_path: Path) -> None:
    noise = random.Random(6).randbytes(1_000)

    def fill_gaps(folder: Path) -> None:
        path = folder / "store/store.sqlite"
        data = bytearray(path.read_bytes())
        for page in range(4_096, len(data), 4_096):
            cells, area = (int.from_bytes(data[page + at : page + at + 2], "big") for at in (3, 5))
            start = 8 + 2 * cells
            if data[page] == 13 and area - start >= len(noise):
                data[page + start : page + start + len(noise)] = noise
        path.write_bytes(data)

    report = audit_of(relay, tmp_path, bend_files=fill_gaps)
    assert report.failed == ("bytes.accounted",)
    assert "that moving rows can leave on" in findings_of(report, "bytes.accounted")
