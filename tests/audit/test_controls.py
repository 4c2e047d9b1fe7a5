"""audit/controls.py: the controls that a verdict is told with."""

import json
from pathlib import Path

import pytest

from audit.controls import CONTROLS_MAX, read_controls
from audit.errors import EvidenceError
from audit.verdict import Control

GOOD = {"name": "left-out", "expected": "evidence.receipts", "caught_by": ["evidence.receipts"], "caught": True}


def lines(*told: object) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in told)


def test_each_line_is_a_control_and_other_members_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "controls.jsonl"
    path.write_bytes(lines({**GOOD, "seconds": 0.7}) + b"\n" + lines({**GOOD, "name": "other"}))
    assert read_controls(path) == (
        Control("left-out", "evidence.receipts", ("evidence.receipts",)),
        Control("other", "evidence.receipts", ("evidence.receipts",)),
    )
    assert read_controls(b"") == ()


def test_a_control_that_went_wrong_is_told_as_caught_by_nothing() -> None:
    (control,) = read_controls(lines({**GOOD, "caught": False}))
    assert control.caught_by == ()
    assert not control.caught


def test_what_a_terminal_would_obey_is_made_visible() -> None:
    (control,) = read_controls(lines({**GOOD, "name": "a\x1b[2Jb"}))
    assert control.mutant == "a\\x1b[2Jb"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "line 1: is no JSON"),
        (b"[" * 100_000, "line 1: is no JSON"),
        (b"[]", "is no JSON object"),
        (lines({**GOOD, "caught": 1}), "caught true or false"),
        (lines({**GOOD, "caught_by": "all"}), "must be a list"),
        (lines({**GOOD, "caught_by": [7]}), "texts of 1 to 254"),
        (lines({**GOOD, "name": ""}), "texts of 1 to 254"),
        (lines({**GOOD, "expected": "x" * 255}), "texts of 1 to 254"),
        (lines(*[GOOD] * (CONTROLS_MAX + 1)), "at most 1000"),
    ],
)
def test_what_is_no_control_is_refused_with_its_line(data: bytes, words: str) -> None:
    with pytest.raises(EvidenceError, match=words):
        read_controls(data)
