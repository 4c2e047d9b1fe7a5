"""`blindpost prove completeness` and `prove evidence`: from receipts to a file that a third party checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from blindpost.__main__ import main
from tests.audit.auditing import execute
from tests.audit.honest import HonestRelay


@pytest.fixture
def relay() -> HonestRelay:
    relay = HonestRelay()
    relay.commit(relay.write(b"one"), relay.write(b"two", 1, 2))
    return relay


@pytest.fixture
def given(relay: HonestRelay, tmp_path: Path) -> list[str]:
    """The options of a disclosure's card and receipts."""
    (tmp_path / "card.toml").write_bytes(relay.card)
    (tmp_path / "ana.bin").write_bytes(relay.volunteer([relay.receipt_item(letter) for letter in relay.letters]))
    return ["--relay-card", str(tmp_path / "card.toml"), "--volunteered", str(tmp_path / "ana.bin")]


def test_a_complete_disclosure_writes_no_evidence(
    relay: HonestRelay, given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = relay.disclose(tmp_path / "d", memory=False)
    out = tmp_path / "evidence"
    assert main(["prove", "completeness", str(folder), *given, "--out", str(out)]) == 0
    assert "2 receipts that the relay signed: 2 in the store" in capsys.readouterr().out
    assert not out.exists()


def test_evidence_is_written_and_checked_alone(
    relay: HonestRelay, given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = relay.disclose(tmp_path / "d", memory=False, bend_store=execute("DELETE FROM envelopes WHERE seq = 1"))
    command = ["prove", "completeness", str(folder), *given, "--out", str(tmp_path / "evidence")]
    assert main(command) == 1
    assert "NOT COMPLETE: 1 contradictions, 1 files of evidence" in capsys.readouterr().out
    (file,) = (tmp_path / "evidence").iterdir()
    assert main(command) == 1, "the same evidence again is no error"
    assert main(["prove", "evidence", str(file), *given[:2]]) == 0
    assert "CONVICTED: hidden" in capsys.readouterr().out
    assert main(["prove", "evidence", str(file), *given[:2], "--json", "--disclosure", str(folder)]) == 0
    assert main(["prove", "evidence", str(file), *given[:2], "--rotations", str(folder)]) == 0
    file.write_bytes(file.read_bytes()[:-1])
    assert main(["prove", "evidence", str(file), *given[:2]]) == 1
    assert "REFUSED" in capsys.readouterr().out


def test_two_disclosures_are_compared(
    relay: HonestRelay, given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relay.disclose(tmp_path / "first", memory=False)
    relay.time_ms += 60_000
    relay.commit(relay.write(b"three"))
    relay.letters[0].state = "expired"
    relay.disclose(tmp_path / "second", memory=False)
    command = ["prove", "completeness", str(tmp_path / "second"), *given[:2], "--earlier", str(tmp_path / "first")]
    assert main(command) == 1
    assert "2 rows of the earlier disclosure followed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "evidence"], "name its directory"),
        (["d"], "--relay-card is needed"),
        (["d", "--relay-card", "card.toml", "--json", "x"], "--json is for the experiment"),
    ],
)
def test_wrong_usage_is_said(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "completeness", *options]) == 64
    assert words in capsys.readouterr().err


def test_a_disclosure_that_cannot_be_judged_is_said(
    relay: HonestRelay, given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = relay.disclose(tmp_path / "d", memory=False)
    (tmp_path / "ana.bin").write_bytes(b"no file of receipts")
    assert main(["prove", "completeness", str(folder), *given]) == 65
    (folder / "manifest.msgpack").write_bytes(b"")
    assert main(["prove", "completeness", str(folder), *given[:2]]) == 65
    assert "cannot be judged" in capsys.readouterr().err
