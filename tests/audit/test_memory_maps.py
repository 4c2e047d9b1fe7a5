"""Which mappings a memory image may leave out (protocol.md section 11)."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgpack import unpackb  # type: ignore[import-untyped]

from audit import Verdict
from tests.audit.auditing import audit_of, findings_of, missing_of, outcome_of
from tests.audit.honest import HonestRelay, pack


@pytest.fixture
def relay() -> HonestRelay:
    return HonestRelay().story()


LIBRARY = "7ffd00000000-7ffd00002000 r-xp 00000000 08:01 1234567                    /usr/lib/libc.so.6\n"


def bent(relay: HonestRelay, folder: Path, line: str) -> tuple[tuple[str, ...], str]:
    def add(disclosure: Path) -> None:
        with (disclosure / "memory/maps.txt").open("a") as file:
            file.write(line)

    report = audit_of(relay, folder, bend_files=add)
    notes = " ".join(outcome_of(report, "memory.image").not_checked)
    return report.failed, notes + findings_of(report, "memory.image")


def test_a_library_that_was_only_read_may_be_left_out_and_is_told(relay: HonestRelay, tmp_path: Path) -> None:
    failed, told = bent(relay, tmp_path, LIBRARY)
    assert failed == ()
    assert "1 read-only mappings of files (8,192 bytes)" in told


@pytest.mark.parametrize(
    "line",
    [
        LIBRARY.replace("r-xp", "rw-p"),
        LIBRARY.replace("1234567", "0"),
        LIBRARY.replace("/usr/lib/libc.so.6", "[heap]"),
        LIBRARY.replace("libc.so.6", "libc.so.6 (deleted)"),
    ],
    ids=["writable", "anonymous", "no_file", "deleted"],
)
def test_anything_else_may_not(relay: HonestRelay, tmp_path: Path, line: str) -> None:
    failed, told = bent(relay, tmp_path, line)
    assert failed == ("memory.image",)
    assert "leaves out 1 readable" in told


def test_range_that_is_shorter_than_its_mapping(relay: HonestRelay, tmp_path: Path) -> None:
    """The heap's first page is in the image, and the rest of the heap is not."""
    text = b"the minister asked for this very paragraph"
    relay.memory_residents += [bytes(20_000), text]

    def cut(folder: Path) -> None:
        pid, ranges = unpackb((folder / "memory/ranges.msgpack").read_bytes())
        image = (folder / "memory/image.bin").read_bytes()
        assert text in image[ranges[2][2] + 4096 :]
        ranges[2][1] = 4096
        (folder / "memory/image.bin").write_bytes(image[: ranges[2][2] + 4096])
        (folder / "memory/ranges.msgpack").write_bytes(pack([pid, ranges]))

    report = audit_of(relay, tmp_path, bend_files=cut, canaries=[text + b"\n"])
    assert report.failed == ("memory.image",)
    assert "leaves out 1 readable" in findings_of(report, "memory.image")


def test_mapping_that_is_readable_and_was_not_read_is_incomplete(relay: HonestRelay, tmp_path: Path) -> None:
    def refuse(folder: Path) -> None:
        pid, ranges = unpackb((folder / "memory/ranges.msgpack").read_bytes())
        image = (folder / "memory/image.bin").read_bytes()
        ranges[2][3] = 0
        (folder / "memory/image.bin").write_bytes(image[: ranges[2][2]])
        (folder / "memory/ranges.msgpack").write_bytes(pack([pid, ranges]))

    report = audit_of(relay, tmp_path, bend_files=refuse)
    assert report.verdict is Verdict.INCOMPLETE
    assert "calls readable: they were not read" in missing_of(report)


def test_range_of_no_mapping(relay: HonestRelay, tmp_path: Path) -> None:
    """Bytes that are nobody's memory, laid in so that what must be found is found."""

    def invent(folder: Path) -> None:
        maps = (folder / "memory/maps.txt").read_text().splitlines(keepends=True)
        (folder / "memory/maps.txt").write_text("".join(maps[1:]))

    report = audit_of(relay, tmp_path, bend_files=invent)
    assert report.failed == ("memory.image",)
    assert "1 ranges that are in no mapping" in findings_of(report, "memory.image")
