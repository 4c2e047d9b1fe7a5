"""Which mappings a memory image may leave out (protocol.md section 11)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.audit.auditing import audit_of, findings_of, outcome_of
from tests.audit.honest import HonestRelay


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
