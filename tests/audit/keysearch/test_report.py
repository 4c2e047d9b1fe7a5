"""The check `search.windows` in a report: its status, its text, and the picture of its coverage."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from audit import Report, Status, Verdict
from audit.__main__ import main
from audit.keysearch import KeyKind, KeySearchSettings
from audit.report_html import render_html
from audit.report_json import render_json
from audit.report_text import render_text
from tests.audit.auditing import audit_of, findings_of, missing_of, outcome_of
from tests.audit.honest import HonestRelay
from tests.audit.keysearch.keeping import image_with

CHECK = "search.windows"
SETTINGS = KeySearchSettings(
    kinds=frozenset({KeyKind.MESSAGE, KeyKind.X25519, KeyKind.ED25519}),
    sections=frozenset({"memory, heap", "memory, anonymous", "log"}),
    workers=1,
)


@pytest.fixture
def relay() -> HonestRelay:
    relay = HonestRelay(people=3, one_time_prekeys=1)
    relay.commit(relay.write(b"strictly between us"))
    return relay


def kept(relay: HonestRelay, folder: Path) -> Report:
    image_with(relay, relay.relay_id.hex().encode(), relay.signing_key.seed, relay.people[0].dh_secret)
    return audit_of(relay, folder, key_search=SETTINGS)


def test_it_is_not_run_unless_it_is_asked_for_and_that_is_said(relay: HonestRelay, tmp_path: Path) -> None:
    report = audit_of(relay, tmp_path)
    assert report.verdict is Verdict.BLIND
    assert outcome_of(report, CHECK).status is Status.NOT_RUN
    assert "--key-search" in outcome_of(report, CHECK).evidence
    assert json.loads(render_json(report))["key_search"] is None
    assert "Every window" not in render_html(report)


def test_an_honest_relay_passes_and_its_own_key_is_counted(relay: HonestRelay, tmp_path: Path) -> None:
    image_with(relay, relay.relay_id.hex().encode(), relay.signing_key.seed)
    report = audit_of(relay, tmp_path, key_search=SETTINGS)
    outcome = outcome_of(report, CHECK)
    assert (report.verdict, outcome.status) == (Verdict.BLIND, Status.PASSED)
    assert outcome.figures["the relay's own keys found"] == 1
    assert "0 keys found; its own signing key 1 times, as declared" in outcome.evidence
    assert "windows as chain key" in " ".join(outcome.not_checked)


def test_a_key_that_nobody_volunteered_fails_the_check(relay: HonestRelay, tmp_path: Path) -> None:
    report = kept(relay, tmp_path)
    assert report.failed == (CHECK,)
    assert "holds a key: X25519 private key, of an identity key of person0@acme.example" in findings_of(report, CHECK)
    assert relay.people[0].dh_secret.hex() not in render_text(report) + render_json(report) + render_html(report)


def test_bounds_that_are_passed_make_it_incomplete(
    relay: HonestRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audit.keysearch.search.DECODED_WINDOWS_MAX", 10)
    image_with(relay, relay.relay_id.hex().encode(), relay.draw(100).hex().encode())
    report = audit_of(relay, tmp_path, key_search=SETTINGS)
    assert report.verdict is Verdict.INCOMPLETE
    assert "beyond the bounds" in missing_of(report)


def test_a_worker_that_ends_early_makes_it_incomplete(
    relay: HonestRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audit.keysearch.sections.BLOCK_BYTES", 4_096)
    monkeypatch.setattr("audit.keysearch.search.candidates_of", lambda *_: sys.exit(3))
    two = KeySearchSettings(workers=2)
    report = audit_of(relay, tmp_path, key_search=two)
    assert "a worker ended early" in missing_of(report)
    assert report.verdict is Verdict.INCOMPLETE


def test_the_page_has_a_bar_for_each_part(relay: HonestRelay, tmp_path: Path) -> None:
    report = kept(relay, tmp_path)
    page = render_html(report)
    assert report.key_coverage is not None
    for section in report.key_coverage.sections:
        assert f'aria-label="{section.name}: ' in page
    assert "1 keys were found but the relay’s own signing key, 1 times" in page
    assert "<script" not in page


def test_the_command_takes_an_alignment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    relay = HonestRelay(people=1, one_time_prekeys=0)
    relay.disclose(tmp_path / "d", memory=False)
    (tmp_path / "card.toml").write_bytes(relay.card)
    arguments = [str(tmp_path / "d"), "--relay-card", str(tmp_path / "card.toml"), "--key-search=4", "--workers", "1"]
    assert main(["--json", *arguments]) == 0
    told = json.loads(capsys.readouterr().out)["key_search"]
    assert (told["alignment"], told["whole"], told["keys_found"]) == (4, True, 0)
    for wrong in (["--key-search=3"], ["--workers", "0"]):
        with pytest.raises(SystemExit) as left:
            main([*arguments, *wrong])
        assert left.value.code == 64
