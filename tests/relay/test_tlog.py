"""The log on the disk: its proofs are what the verifier accepts; a crash or a changed file loses and hides nothing."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.bindings import crypto_sign_seed_keypair

from audit import merkle
from relay.tlog import LogDamaged, TransparencyLog
from wire.errors import BlindpostError, FormatError, SignatureError
from wire.note import NoteKey, NoteSigner

SIGNER = NoteSigner("relay.example/log", *crypto_sign_seed_keypair(bytes(32)))


def grown(folder: Path, steps: list[int]) -> tuple[TransparencyLog, list[bytes], list[tuple[int, bytes]]]:
    """A log that grew in these steps, its entries, and every tree head that it had."""
    entries = [b"entry 0"]
    log = TransparencyLog.create(folder, SIGNER, entries)
    heads = [(log.size, log.checkpoint.root)]
    for step in steps:
        more = [b"entry %d" % at for at in range(len(entries), len(entries) + step)]
        entries += more
        log.append(more, SIGNER)
        heads.append((log.size, log.checkpoint.root))
    return log, entries, heads


def check(log: TransparencyLog, entries: list[bytes], heads: list[tuple[int, bytes]]) -> None:
    """What the verifier, by its own tree, thinks of it."""
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    assert log.entries() == entries
    assert log.checkpoint.root == merkle.root_of(leaves)
    for index in {0, len(entries) // 2, len(entries) - 1}:
        assert log.entry(index) == entries[index]
        merkle.verify_inclusion(leaves[index], index, log.size, log.inclusion(index), log.checkpoint.root)
    for size, root in heads:
        merkle.verify_consistency(size, root, log.size, log.checkpoint.root, log.consistency(size))


@settings(max_examples=8, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2, 254, 255, 256, 257, 700]), max_size=5))
def test_however_it_grows_its_proofs_are_the_verifiers(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log, entries, heads = grown(folder, steps)
    check(log, entries, heads)
    check(TransparencyLog.open(folder, SIGNER.key), entries, heads)


def test_it_grows_beyond_the_second_level_of_tiles(tmp_path: Path) -> None:
    log, entries, heads = grown(tmp_path, [65_535, 1])
    check(log, entries, heads)
    assert (tmp_path / "tile" / "2" / "000.p" / "1").stat().st_size == 32


class PowerLost(Exception):
    """The machine stops here."""


@pytest.mark.parametrize("written", range(6))
def test_a_crash_between_any_two_files_leaves_the_old_log_and_the_next_append_goes_on(
    tmp_path: Path, written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, entries, heads = grown(tmp_path, [254])
    write, count = TransparencyLog._write, 0

    def lost(self: TransparencyLog, name: str, data: bytes) -> None:
        nonlocal count
        if count == written:
            raise PowerLost
        count += 1
        write(self, name, data)

    monkeypatch.setattr(TransparencyLog, "_write", lost)
    with pytest.raises(PowerLost):
        log.append([b"lost"] * 3, SIGNER)
    monkeypatch.undo()
    again = TransparencyLog.open(tmp_path, SIGNER.key)
    check(again, entries, heads)
    again.append([b"next", b"more"], SIGNER)
    check(TransparencyLog.open(tmp_path, SIGNER.key), [*entries, b"next", b"more"], heads)


def test_attack_a_changed_missing_or_shorter_tile_is_noticed_when_the_log_is_opened(tmp_path: Path) -> None:
    grown(tmp_path, [299])
    for name in ("tile/0/001.p/44", "tile/1/000.p/1"):
        path = tmp_path / name
        whole = path.read_bytes()
        for bad in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-32], b""):
            path.write_bytes(bad)
            with pytest.raises(LogDamaged):
                TransparencyLog.open(tmp_path, SIGNER.key)
        path.unlink()
        with pytest.raises(LogDamaged):
            TransparencyLog.open(tmp_path, SIGNER.key)
        path.write_bytes(whole)
    assert TransparencyLog.open(tmp_path, SIGNER.key).size == 300


def test_attack_a_checkpoint_of_another_key_or_log_is_refused(tmp_path: Path) -> None:
    grown(tmp_path, [])
    other = NoteSigner("relay.example/log", *crypto_sign_seed_keypair(b"\x01" * 32))
    with pytest.raises(SignatureError):
        TransparencyLog.open(tmp_path, other.key)
    with pytest.raises(BlindpostError):
        TransparencyLog.open(tmp_path, NoteKey("other.example", SIGNER.key.public))


def test_an_entry_that_is_too_long_writes_nothing(tmp_path: Path) -> None:
    log, entries, heads = grown(tmp_path, [])
    with pytest.raises(FormatError):
        log.append([b"short", bytes(65_536)], SIGNER)
    check(TransparencyLog.open(tmp_path, SIGNER.key), entries, heads)
    for index in (-1, 1):
        with pytest.raises(FormatError):
            log.entry(index)


def test_a_log_begins_once_and_with_an_entry(tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        TransparencyLog.create(tmp_path / "log", SIGNER, [])
    grown(tmp_path / "log", [])
    with pytest.raises(FileExistsError):
        TransparencyLog.create(tmp_path / "log", SIGNER, [b"x"])
