"""Sealed rows: one step is one transaction, a stolen file shows kinds and sizes only, deleted is erased."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.errors import HomeInUse, HomeInvalid, StoreFailed, WrongPassphrase
from client.home import change_passphrase, create_home, open_home
from client.store import Kind, Store
from keys.errors import VaultDamaged
from keys.vault import CHEAP_FOR_TESTS

entropy = os.urandom


def new(home: Path, fault: Callable[[str], None] | None = None) -> Store:
    return create_home(home, b"pass", entropy, CHEAP_FOR_TESTS, fault)


def again(home: Path, passphrase: bytes = b"pass", fault: Callable[[str], None] | None = None) -> Store:
    return open_home(home, passphrase, entropy, fault)


def overwrite(home: Path) -> None:
    """Put every file back as it is, in place, a tick of the file system's clock later at least."""
    changed_ns = (home / "generation").stat().st_ctime_ns
    while (home / "generation").stat().st_ctime_ns == changed_ns:
        for path in home.iterdir():
            path.write_bytes(path.read_bytes())


class Killed(BaseException):
    """The process is gone."""


class Killing:
    """A fault that kills at the n-th transaction boundary: an opening has four, a close four more."""

    def __init__(self, kill_at: int) -> None:
        self._left = kill_at

    def __call__(self, _boundary: str) -> None:
        self._left -= 1
        if self._left == 0:
            raise Killed


def test_what_a_step_put_and_deleted_is_there_after_a_crash(tmp_path: Path) -> None:
    store = new(tmp_path / "home")
    with store.step() as step:
        step.put(Kind.PIN, b"a", b"1")
        step.put(Kind.PIN, b"b", b"2")
    with store.step() as step:
        step.delete(Kind.PIN, b"a")
        step.put(Kind.PIN, b"b", b"3")
        step.put(Kind.SEEN, b"b", b"other kind")
    store.abandon()
    store = again(tmp_path / "home")
    assert store.get(Kind.PIN, b"a") is None
    assert dict(store.items(Kind.PIN)) == {b"b": b"3"}
    assert store.get(Kind.SEEN, b"b") == b"other kind"
    assert (store.count(Kind.PIN), store.count(Kind.KEPT)) == (1, 0)
    assert not store.rolled_back
    store.close()


def test_a_step_whose_block_fails_leaves_nothing(tmp_path: Path) -> None:
    store = new(tmp_path / "home")
    with pytest.raises(RuntimeError, match="half way"), store.step() as step:
        step.put(Kind.PIN, b"a", b"1")
        raise RuntimeError("half way")
    assert store.get(Kind.PIN, b"a") is None
    store.close()


def test_a_commit_that_fails_leaves_nothing_and_the_store_goes_on(tmp_path: Path) -> None:
    store = new(tmp_path / "home")
    store._connection.execute("PRAGMA max_page_count = 4")
    with pytest.raises(StoreFailed, match="full"), store.step() as step:
        for number in range(50):
            step.put(Kind.PAYLOAD, bytes([number]), bytes(4_000))
    assert store.count(Kind.PAYLOAD) == 0
    store._connection.execute("PRAGMA max_page_count = 4000000")
    with store.step() as step:
        step.put(Kind.PAYLOAD, b"x", b"y")
    assert store.get(Kind.PAYLOAD, b"x") == b"y"
    store.close()


def test_a_stolen_file_shows_neither_names_nor_values_and_deleted_rows_leave_no_bytes(tmp_path: Path) -> None:
    home = tmp_path / "home"
    store = new(home)
    with store.step() as step:
        step.put(Kind.KEPT, b"a very telling name", b"a very telling value" * 100)
    store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (sealed,) = store._connection.execute("SELECT sealed FROM rows WHERE kind = 13").fetchone()
    assert sealed[:200] in (home / "device.sqlite").read_bytes()
    with store.step() as step:
        step.delete(Kind.KEPT, b"a very telling name")
    store.close()
    for path in home.iterdir():
        data = path.read_bytes()
        assert b"telling" not in data
        assert sealed[:200] not in data
        assert sealed[-64:] not in data


def test_a_row_that_was_moved_or_altered_does_not_open(tmp_path: Path) -> None:
    store = new(tmp_path / "home")
    with store.step() as step:
        step.put(Kind.PIN, b"a", b"1")
        step.put(Kind.PIN, b"b", b"2")
    store.close()
    connection = sqlite3.connect(tmp_path / "home" / "device.sqlite")
    names = [name for (name,) in connection.execute("SELECT name FROM rows WHERE kind = 5")]
    sealed = dict(connection.execute("SELECT name, sealed FROM rows WHERE kind = 5").fetchall())
    connection.execute("UPDATE rows SET sealed = ? WHERE kind = 5 AND name = ?", (sealed[names[0]], names[1]))
    connection.commit()
    connection.close()
    store = again(tmp_path / "home")
    with pytest.raises(VaultDamaged):
        list(store.items(Kind.PIN))
    store.close()


def test_homes_are_made_once_held_once_and_opened_with_the_passphrase_only(tmp_path: Path) -> None:
    home = tmp_path / "home"
    store = new(home)
    with pytest.raises(HomeInUse):
        again(home)
    with pytest.raises(HomeInvalid, match="already"):
        new(home)
    store.close()
    with pytest.raises(WrongPassphrase):
        again(home, b"guess")
    change_passphrase(home, b"pass", b"word", entropy, CHEAP_FOR_TESTS)
    with pytest.raises(WrongPassphrase):
        again(home)
    again(home, b"word").close()
    with pytest.raises(HomeInvalid, match="no home"):
        again(tmp_path / "other")
    (home / "vault").write_bytes(b"\x00" * 100)
    with pytest.raises(HomeInvalid, match="vault header"):
        again(home, b"word")
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeInvalid):
        new(tmp_path / "file" / "home")


def test_a_database_that_is_none_is_a_typed_error_and_lets_go_of_the_lock(tmp_path: Path) -> None:
    home = tmp_path / "home"
    new(home).close()
    database = (home / "device.sqlite").read_bytes()
    (home / "device.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 200)
    for _ in range(2):
        with pytest.raises(HomeInvalid, match="not a database"):
            again(home)
    (home / "device.sqlite").write_bytes(database)
    again(home).close()


def test_a_database_that_was_put_back_is_noticed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    new(home).close()
    saved = (home / "device.sqlite").read_bytes()
    again(home).close()
    (home / "device.sqlite").write_bytes(saved)
    store = again(home)
    assert store.rolled_back
    store.close()
    # Told again until it was acted upon.
    store = again(home)
    assert store.rolled_back
    with store.step() as step:
        store.put_renewed(step)
    store.close()
    store = again(home)
    assert not store.rolled_back
    store.close()


def test_an_emptied_database_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    home = tmp_path / "home"
    new(home).close()
    (home / "device.sqlite").unlink()
    with pytest.raises(HomeInvalid, match="is empty"):
        again(home)


def test_a_home_that_was_put_back_whole_is_noticed_though_every_inode_is_the_same(tmp_path: Path) -> None:
    """A file system gives the inode of a deleted file to the next one: here the files are overwritten in place."""
    home = tmp_path / "home"
    new(home).close()
    inodes = {path: path.stat().st_ino for path in home.iterdir()}
    overwrite(home)
    assert {path: path.stat().st_ino for path in home.iterdir()} == inodes
    store = again(home)
    assert store.rolled_back
    store.close()
    # Told again until it was acted upon.
    store = again(home)
    assert store.rolled_back
    with store.step() as step:
        store.put_renewed(step)
    store.close()
    store = again(home)
    assert not store.rolled_back
    store.close()


@pytest.mark.parametrize("when", ["opening", "closing"])
@pytest.mark.parametrize("kill_at", range(1, 5))
def test_a_home_that_was_killed_while_its_generation_moved_was_not_put_back(
    tmp_path: Path, when: str, kill_at: int
) -> None:
    home = tmp_path / "home"
    new(home).close()
    if when == "opening":
        with pytest.raises(Killed):
            again(home, fault=Killing(kill_at))
    else:
        store = again(home, fault=Killing(4 + kill_at))
        with pytest.raises(Killed):
            store.close()
    for _ in range(2):
        store = again(home)
        assert not store.rolled_back
        store.close()


@pytest.mark.parametrize("kill_at", range(1, 5))
def test_a_home_that_was_put_back_and_then_killed_while_it_opened_is_noticed_still(
    tmp_path: Path, kill_at: int
) -> None:
    home = tmp_path / "home"
    new(home).close()
    overwrite(home)
    with pytest.raises(Killed):
        again(home, fault=Killing(kill_at))
    store = again(home)
    assert store.rolled_back
    store.close()


@pytest.mark.parametrize("told", [b"", b"many\n", b"\xff", b"7\n"])
def test_a_marker_that_tells_nothing_or_another_count_is_no_marker(tmp_path: Path, told: bytes) -> None:
    home = tmp_path / "home"
    new(home).close()
    (home / "generation").write_bytes(told)
    store = again(home)
    assert store.rolled_back
    store.close()


@settings(max_examples=20)
@given(
    steps=st.lists(
        st.lists(st.tuples(st.sampled_from(list(Kind)[4:8]), st.integers(0, 5), st.one_of(st.none(), st.binary()))),
        max_size=8,
    )
)
def test_rows_are_what_a_dictionary_would_hold(
    steps: list[list[tuple[Kind, int, bytes | None]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = new(tmp_path_factory.mktemp("store") / "home")
    model: dict[tuple[Kind, bytes], bytes] = {}
    for changes in steps:
        with store.step() as step:
            for kind, number, value in changes:
                if value is None:
                    step.delete(kind, bytes([number]))
                    model.pop((kind, bytes([number])), None)
                else:
                    step.put(kind, bytes([number]), value)
                    model[kind, bytes([number])] = value
        for kind in list(Kind)[4:8]:
            expected = {name: value for (of, name), value in model.items() if of is kind}
            assert dict(store.items(kind)) == expected
    assert "redacted" in repr(store)
    store.close()
