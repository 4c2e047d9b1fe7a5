from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from blindpost.errors import CommandError
from blindpost.exit_status import ExitStatus
from blindpost.files import check_absent, read_bounded, write_new
from wire.errors import FormatError


@pytest.mark.parametrize(("secret", "mode"), [(True, 0o600), (False, 0o644)])
def test_a_new_file_has_its_bytes_and_its_mode(tmp_path: Path, secret: bool, mode: int) -> None:
    before = os.umask(0o022)
    try:
        write_new(tmp_path / "out", b"data", secret=secret)
    finally:
        os.umask(before)
    assert (tmp_path / "out").read_bytes() == b"data"
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == mode
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"old")
    with pytest.raises(CommandError, match="out is there already") as caught:
        write_new(tmp_path / "out", b"new", secret=True)
    assert caught.value.status is ExitStatus.CANNOT_CREATE
    assert (tmp_path / "out").read_bytes() == b"old"


def test_a_link_that_leads_nowhere_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CommandError, match="is there already"):
        write_new(tmp_path / "out", b"new", secret=True)
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_came_in_between_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blindpost.files.check_absent", lambda path: path.write_bytes(b"first"))
    with pytest.raises(CommandError, match="is there already"):
        write_new(tmp_path / "out", b"second", secret=True)
    assert (tmp_path / "out").read_bytes() == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="absent is no folder"):
        check_absent(tmp_path / "absent" / "out")


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_new(tmp_path / "out", b"data", secret=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.EIO])
def test_a_file_system_without_links_is_renamed_on_and_other_errors_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "link", broken)
    if number == errno.EPERM:
        write_new(tmp_path / "out", b"data", secret=True)
        assert (tmp_path / "out").read_bytes() == b"data"
    else:
        with pytest.raises(OSError, match="no"):
            write_new(tmp_path / "out", b"data", secret=True)
        assert list(tmp_path.iterdir()) == []


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"12345")
    assert read_bounded(tmp_path / "in", "thing", 5) == b"12345"
    with pytest.raises(FormatError) as caught:
        read_bounded(tmp_path / "in", "thing", 4)
    assert (caught.value.field, caught.value.limit) == ("thing", 4)
