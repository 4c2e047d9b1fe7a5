from __future__ import annotations

import errno
import mailbox
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.maildir import Maildir, file_name
from wire.errors import FormatError

MESSAGE_ID = bytes(range(16))
DEVICE = bytes(range(32))
NOW = 1_448_884_800


def files(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def test_a_mail_lands_in_new_byte_for_byte_for_its_owner_only(tmp_path: Path) -> None:
    mail = b"To: a\r\n\r\n\xff\0 bare\rreturn\nFrom here\r\n"
    with Maildir(tmp_path / "Mail" / "box", NOW) as maildir:
        delivered = maildir.deliver(mail, MESSAGE_ID, DEVICE)
    assert delivered is not None
    assert delivered.read_bytes() == mail
    assert delivered.parent == tmp_path / "Mail" / "box" / "new"
    assert files(tmp_path / "Mail" / "box") == [f"new/{delivered.name}"]
    assert stat.S_IMODE(delivered.stat().st_mode) == 0o600
    for folder in ("", "tmp", "new", "cur"):
        assert stat.S_IMODE((tmp_path / "Mail" / "box" / folder).stat().st_mode) == 0o700


def test_the_standard_library_reads_it(tmp_path: Path) -> None:
    with Maildir(tmp_path / "box", NOW) as maildir:
        maildir.deliver(b"Subject: one\n\nx\n", MESSAGE_ID, DEVICE)
        maildir.deliver(b"Subject: two\n\nx\n", bytes(16), DEVICE)
    box = mailbox.Maildir(tmp_path / "box", create=False)
    assert sorted(message["subject"] for message in box) == ["one", "two"]


def test_the_same_message_is_delivered_once(tmp_path: Path) -> None:
    with Maildir(tmp_path / "box", NOW) as maildir:
        assert maildir.deliver(b"one", MESSAGE_ID, DEVICE) is not None
    with Maildir(tmp_path / "box", NOW) as maildir:
        assert maildir.deliver(b"one", MESSAGE_ID, DEVICE) is None
    assert len(files(tmp_path / "box")) == 1


@pytest.mark.parametrize("read_name", ["{}:2,S", "{}:2,", "{}", "{};2,RS"])
def test_a_message_that_a_mail_reader_has_moved_is_not_delivered_again(tmp_path: Path, read_name: str) -> None:
    box = tmp_path / "box"
    with Maildir(box, NOW) as maildir:
        delivered = maildir.deliver(b"one", MESSAGE_ID, DEVICE)
        assert delivered is not None
        delivered.rename(box / "cur" / read_name.format(delivered.name))
        assert maildir.deliver(b"one", MESSAGE_ID, DEVICE) is None
    assert files(box) == [f"cur/{read_name.format(delivered.name)}"]


def test_a_sender_cannot_suppress_the_message_of_another_by_choosing_its_id(tmp_path: Path) -> None:
    with Maildir(tmp_path / "box", NOW) as maildir:
        assert maildir.deliver(b"forged", MESSAGE_ID, bytes(32)) is not None
        assert maildir.deliver(b"genuine", MESSAGE_ID, DEVICE) is not None


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32))
def test_names_are_plain_and_show_nothing_of_what_they_come_from(message_id: bytes, device: bytes) -> None:
    name = file_name(message_id, device)
    assert len(name) == 36
    assert set(name[4:]) <= set("0123456789abcdef")
    assert message_id.hex() not in name
    assert device.hex()[:16] not in name


def test_ids_of_another_length_are_refused(tmp_path: Path) -> None:
    with Maildir(tmp_path / "box", NOW) as maildir:
        with pytest.raises(FormatError, match="message_id: has 9 bytes"):
            maildir.deliver(b"one", b"../../etc", DEVICE)
        with pytest.raises(FormatError, match="sender_device: has 1 bytes"):
            maildir.deliver(b"one", MESSAGE_ID, b"x")
    assert files(tmp_path / "box") == []


def test_a_crash_after_writing_leaves_nothing_in_new_and_the_next_delivery_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = tmp_path / "box"
    with Maildir(box, NOW) as maildir:
        with monkeypatch.context() as broken:

            def full_disk(_: int) -> None:
                raise OSError(errno.ENOSPC, "no space left")

            broken.setattr(os, "fsync", full_disk)
            with pytest.raises(OSError, match="no space left"):
                maildir.deliver(b"one", MESSAGE_ID, DEVICE)
        assert files(box) == []
        assert maildir.deliver(b"one", MESSAGE_ID, DEVICE) is not None


def test_the_file_is_flushed_before_it_appears_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, link = os.fsync, os.link
    with Maildir(tmp_path / "box", NOW) as maildir, monkeypatch.context() as seen:

        def noted_fsync(descriptor: int) -> None:
            steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
            fsync(descriptor)

        def noted_link(source: str, target: str, **options: int) -> None:
            steps.append("link")
            link(source, target, **options)  # type: ignore[arg-type]

        seen.setattr(os, "fsync", noted_fsync)
        seen.setattr(os, "link", noted_link)
        maildir.deliver(b"one", MESSAGE_ID, DEVICE)
    assert steps == ["file", "link", "folder"]


def test_half_a_mail_of_a_crashed_process_is_overwritten(tmp_path: Path) -> None:
    box = tmp_path / "box"
    with Maildir(box, NOW) as maildir:
        (box / "tmp" / f"{file_name(MESSAGE_ID, DEVICE)}.{os.getpid()}").write_bytes(b"hal")
        delivered = maildir.deliver(b"whole", MESSAGE_ID, DEVICE)
    assert delivered is not None
    assert delivered.read_bytes() == b"whole"
    assert len(files(box)) == 1


def test_another_process_that_was_first_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = tmp_path / "box"
    with Maildir(box, NOW) as maildir:
        monkeypatch.setattr(maildir, "_is_delivered", lambda name: False)  # both looked before either wrote
        assert maildir.deliver(b"first", MESSAGE_ID, DEVICE) is not None
        assert maildir.deliver(b"second", MESSAGE_ID, DEVICE) is None
    assert [file.read_bytes() for file in (box / "new").iterdir()] == [b"first"]
    assert list((box / "tmp").iterdir()) == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_links_is_renamed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(number, "no links here")

    with Maildir(tmp_path / "box", NOW) as maildir:
        monkeypatch.setattr(os, "link", no_links)
        delivered = maildir.deliver(b"one", MESSAGE_ID, DEVICE)
    assert delivered is not None
    assert files(tmp_path / "box") == [f"new/{delivered.name}"]


def test_an_error_of_the_disk_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "broken disk")

    with Maildir(tmp_path / "box", NOW) as maildir:
        monkeypatch.setattr(os, "link", broken)
        with pytest.raises(OSError, match="broken disk"):
            maildir.deliver(b"one", MESSAGE_ID, DEVICE)
    assert files(tmp_path / "box") == []


def test_what_was_abandoned_is_removed_and_what_others_left_stays(tmp_path: Path) -> None:
    box = tmp_path / "box"
    with Maildir(box, NOW):
        pass
    name = file_name(MESSAGE_ID, DEVICE)
    for entry, age_h in ((f"{name}.1", 37), (f"{name}.2", 1), ("other.mail", 99)):
        (box / "tmp" / entry).write_bytes(b"x")
        os.utime(box / "tmp" / entry, (NOW - age_h * 3_600,) * 2)
    with Maildir(box, NOW):
        assert files(box) == [f"tmp/{name}.2", "tmp/other.mail"]


def test_a_file_where_a_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FormatError, match="is no folder"):
        Maildir(tmp_path / "file", NOW)
    (tmp_path / "box").mkdir()
    (tmp_path / "box" / "new").write_bytes(b"")
    with pytest.raises(FormatError, match="is no folder"):
        Maildir(tmp_path / "box", NOW)


def test_a_link_to_somewhere_else_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "box").mkdir()
    (tmp_path / "box" / "new").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FormatError):
        Maildir(tmp_path / "box", NOW)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0

    before = opened()
    with Maildir(tmp_path / "box", NOW) as maildir:
        maildir.deliver(b"one", MESSAGE_ID, DEVICE)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "cur").write_bytes(b"")
    with pytest.raises(FormatError):
        Maildir(tmp_path / "bad", NOW)
    assert opened() == before
