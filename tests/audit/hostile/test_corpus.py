"""Whatever a disclosure is made of, a verdict with a reason comes out, and nothing else happens."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import audit
from audit import Verdict
from audit.report_html import render_html
from audit.report_json import render_json
from audit.report_text import render_text
from tests.audit.auditing import missing_of
from tests.audit.honest import HonestRelay
from tests.audit.hostile.corpus import CORPUS, LOG, STORE, Hostile, disclosed
from tests.audit.hostile.watch import ForbiddenError, watched


@pytest.fixture(scope="module")
def relay() -> HonestRelay:
    return HonestRelay(people=2, one_time_prekeys=1).story_of_two()


def judged(folder: Path, relay: HonestRelay) -> tuple[audit.Report, str]:
    """Audit, and render in all three ways; return the report and the text."""
    with watched():
        report = audit.run(folder, card=relay.card, canaries=[b"a canary that is not in there"])
        text, page, data = render_text(report), render_html(report), render_json(report)
    assert not any(ord(character) < 32 and character != "\n" for character in text)
    assert "\x1b" not in page + data
    assert "\x07" not in page + data
    assert "<script" not in page
    return report, text


def test_names_are_told_once() -> None:
    assert len({one.name for one in CORPUS}) == len(CORPUS) > 80


@pytest.mark.parametrize("one", CORPUS, ids=lambda one: one.name)
def test_a_hostile_disclosure_gets_a_verdict_with_a_reason(one: Hostile, relay: HonestRelay, tmp_path: Path) -> None:
    report, text = judged(disclosed(tmp_path, relay, one), relay)
    assert report.verdict in {Verdict.NOT_BLIND, Verdict.INCOMPLETE}
    reasons = [str(finding) for outcome in report.outcomes for finding in outcome.findings]
    reasons += [missing for outcome in report.outcomes for missing in outcome.missing]
    assert reasons
    assert one.said in "\n".join(reasons)
    assert text.startswith(report.verdict.value)


class TestWatch:
    def test_an_honest_disclosure_is_audited_without_socket_or_write_in_any_process(
        self, relay: HonestRelay, tmp_path: Path
    ) -> None:
        """A worker that did either would have ended early, and the audit would miss its work."""
        report, _ = judged(relay.disclose(tmp_path / "d"), relay)
        assert report.verdict is Verdict.BLIND

    @pytest.mark.parametrize("name", ["socket", "write", "program", "folder"])
    def test_the_watch_itself_sees_what_it_must(self, name: str, tmp_path: Path) -> None:
        import socket
        import subprocess

        deeds: dict[str, Callable[[], object]] = {
            "socket": socket.socket,
            "write": (tmp_path / "x").touch,
            "program": lambda: subprocess.run(["true"], check=False),
            "folder": (tmp_path / "y").mkdir,
        }
        with pytest.raises(ForbiddenError), watched():
            deeds[name]()


class TestChanges:
    """Files that somebody changes while they are audited."""

    def test_a_file_that_is_written_to_is_incomplete(self, relay: HonestRelay, tmp_path: Path) -> None:
        folder = relay.disclose(tmp_path / "d")

        def append(_title: str, position: int, _total: int) -> None:
            if position == 5:
                with (folder / LOG).open("ab") as file:
                    file.write(b"\n")

        report = audit.run(folder, card=relay.card, progress=append)
        assert report.verdict is Verdict.INCOMPLETE
        assert f"{LOG}: was written to while it was audited" in missing_of(report)

    @pytest.mark.parametrize("path", [STORE, LOG, "memory/image.bin"])
    @pytest.mark.parametrize("moment", [1, 5, 9, 14])
    def test_a_file_that_becomes_shorter_is_no_crash(
        self, relay: HonestRelay, tmp_path: Path, path: str, moment: int
    ) -> None:
        folder = relay.disclose(tmp_path / "d")

        def shorten(_title: str, position: int, _total: int) -> None:
            if position == moment:
                os.truncate(folder / path, 10)

        report = audit.run(folder, card=relay.card, progress=shorten, canaries=[b"a canary that is not in there"])
        assert report.verdict in {Verdict.INCOMPLETE, Verdict.NOT_BLIND}
        assert f"{path}: was written to while it was audited" in missing_of(report)
