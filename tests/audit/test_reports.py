"""Reports and the command line: what they say, how they look, and the statuses with which they end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import audit
from audit import Control, Report, Status, Verdict
from audit.__main__ import main
from audit.checks import CHECKS, EARLIER
from audit.report_html import render_html, size_text
from audit.report_json import render_json, report_object
from audit.report_style import STYLE
from audit.report_text import render_text, time_text
from audit.schema import CREATE_STATEMENTS, SEQ_TELLS, TABLES, ByteClass
from tests.audit.auditing import audit_of
from tests.audit.honest import PROTOCOL, HonestRelay

ROOT = Path(__file__).parents[2]
CONTROLS = [
    Control("plaintext-in-log", "search.canaries", ("log.grammar", "search.canaries")),
    Control("swapped-body", "store.commits", ()),
]


@pytest.fixture
def relay() -> HonestRelay:
    return HonestRelay().story()


@pytest.fixture
def blind(relay: HonestRelay, tmp_path: Path) -> Report:
    return audit_of(relay, tmp_path / "blind")


@pytest.fixture
def read(tmp_path: Path) -> Report:
    """A report on the global PIN key, with markup in a message."""
    relay = HonestRelay()
    key = bytes(range(100, 124))
    relay.commit(
        relay.write_pin(b"<b>hello</b>\r\n\x1b[31m" + "سلام".encode(), key), relay.write_pin(b"\xff\xfe raw", key)
    )
    return audit_of(relay, tmp_path / "read", items=[[5, 0x5049, key]])


class TestText:
    def test_verdict_comes_first_and_exit_status_last(self, blind: Report) -> None:
        lines = render_text(blind).splitlines()
        assert lines[0].startswith("BLIND: 12 checks passed; 8 had nothing to look at")
        assert lines[-1] == "exit status 0"
        assert "\x1b" not in render_text(blind)
        assert "controls: none were run with this verdict" in lines

    def test_every_check_is_named(self, blind: Report) -> None:
        text = render_text(blind, colour=True)
        assert "\x1b[1;32mBLIND" in text
        for about, _ in CHECKS:
            assert about.check_id in text

    def test_controls_are_told_with_the_verdict(self, blind: Report) -> None:
        text = render_text(blind.with_controls(CONTROLS))
        assert "2 mutants, 1 caught" in text
        assert "swapped-body: NOT CAUGHT by no check (meant for store.commits)" in text

    def test_messages_that_were_read_are_printed_harmless(self, read: Report) -> None:
        text = render_text(read)
        assert text.startswith("NOT BLIND: 1 of 20 checks failed, 1 findings")
        assert "<b>hello</b> \\x1b[31mسلام" in text
        assert "\x1b" not in text

    def test_long_lists_are_cut_and_counted(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.log_suffix = b"no event\n" * 70
        text = render_text(
            audit_of(
                relay,
                tmp_path,
                items=[[3, bytes(16), bytes((i,)) * 16, bytes(32), bytes(32), bytes(32), 128] for i in range(30)],
            )
        )
        assert "! and 58 more" in text
        assert "? and 18 more" in text

    def test_times_that_no_calendar_has(self) -> None:
        assert time_text(0) == "1970-01-01 00:00:00 UTC"
        assert time_text(2**40) == "second 1099511627776"
        assert time_text(None) == "an unknown time"


class TestJson:
    def test_it_holds_what_the_page_says(self, blind: Report) -> None:
        found = json.loads(render_json(blind.with_controls(CONTROLS)))
        assert found["format"] == "blindpost/v1/report"
        assert (found["verdict"], found["exit_status"]) == ("BLIND", 0)
        assert [check["id"] for check in found["checks"]] == [about.check_id for about, _ in CHECKS]
        for path, classes in found["bytes"].items():
            assert sum(classes.values()) == found["files"][path]
        assert found["controls"][1] == {
            "mutant": "swapped-body",
            "expected": "store.commits",
            "caught_by": [],
            "caught": False,
        }

    def test_every_column_of_the_schema_is_in_the_leakage(self, blind: Report) -> None:
        columns = {(row["table"], row["column"]) for row in report_object(blind)["leakage"]["columns"]}
        for table, statement in CREATE_STATEMENTS.items():
            for name in re.findall(r"(\w+) (?:INTEGER|BLOB|TEXT)", statement):
                assert (table, name) in columns

    def test_no_volunteered_secret_is_in_any_report(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.memory_residents.append(relay.people[0].dh_secret)
        report = audit_of(relay, tmp_path, items=relay.secret_items())
        assert report.verdict is Verdict.NOT_BLIND
        for rendered in (render_text(report), render_json(report), render_html(report)):
            for person in relay.people:
                assert person.dh_secret.hex() not in rendered


def test_schema_is_that_of_the_protocol_letter_by_letter() -> None:
    text = PROTOCOL.read_text()
    assert [line.strip() for line in text.splitlines() if "CREATE TABLE" in line] == list(CREATE_STATEMENTS.values())
    assert set(SEQ_TELLS) == set(TABLES)


class _Page(HTMLParser):
    VOID = frozenset({"meta", "br", "link", "img", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


class TestHtml:
    @pytest.mark.parametrize("which", ["blind", "read", "controls"])
    def test_page_is_whole_and_loads_nothing(self, blind: Report, read: Report, which: str) -> None:
        report = {"blind": blind, "read": read, "controls": blind.with_controls(CONTROLS)}[which]
        page = _Page()
        page.feed(render_html(report))
        page.close()
        assert page.open == []
        assert not page.tags & {"script", "img", "link", "iframe", "object", "a", "form"}
        assert not {name for name, _ in page.attributes} & {"src", "href", "onload", "style"}
        assert "svg" in page.tags
        assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes

    def test_markup_in_messages_and_names_is_escaped(self, read: Report) -> None:
        html = render_html(read)
        assert "<b>hello" not in html
        assert "&lt;b&gt;hello&lt;/b&gt;" in html
        assert 'dir="auto"' in html
        assert "One key, everybody’s messages" in html

    def test_what_is_missing_stands_on_top(self, relay: HonestRelay, tmp_path: Path) -> None:
        html = render_html(audit_of(relay, tmp_path, card=None))
        assert "What is missing" in html
        assert html.index("What is missing") < html.index("Every byte")

    def test_one_unexplained_byte_can_be_seen(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.log_suffix = b"\n"
        html = render_html(audit_of(relay, tmp_path))
        width = re.search(r'class="c-unexplained" x="[\d.]+" y="0" width="([\d.]+)"', html)
        assert width is not None
        assert float(width[1]) > 2

    def test_many_findings_and_sizes_are_cut_and_counted(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.log_suffix = b"no event\n" * 70
        relay.commit(*(relay.write(bytes(20 * i)) for i in range(1, 60)))
        html = render_html(audit_of(relay, tmp_path))
        assert "and 50 more" in html
        assert "rarer sizes" in html

    def test_an_empty_report_is_a_page_too(self, tmp_path: Path) -> None:
        html = render_html(audit.run(tmp_path))
        assert "INCOMPLETE" in html
        assert "<h2>Every byte</h2>" not in html

    @pytest.mark.parametrize(
        ("size", "text"),
        [
            (0, "0 B"),
            (9_999, "9,999 B"),
            (20_000, "20 kB"),
            (1_500_000, "1.5 MB"),
            (83_000_000, "83 MB"),
            (5 * 10**12, "5,000 GB"),
        ],
    )
    def test_sizes_as_people_say_them(self, size: int, text: str) -> None:
        assert size_text(size) == text

    @pytest.mark.chromium
    def test_a_browser_draws_it(self, blind: Report, tmp_path: Path, chromium_path: str) -> None:
        (tmp_path / "report.html").write_text(render_html(blind.with_controls(CONTROLS)), encoding="utf-8")
        flags = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
        done = subprocess.run(
            [
                chromium_path, "--headless", "--no-sandbox", "--disable-gpu", *flags,
                f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / 'report.png'}",
                (tmp_path / "report.html").as_uri(),
            ],
            capture_output=True,
            timeout=100,
        )  # fmt: skip
        assert done.returncode == 0
        assert (tmp_path / "report.png").stat().st_size > 10_000


class TestCommandLine:
    @pytest.fixture
    def files(self, relay: HonestRelay, tmp_path: Path) -> dict[str, str]:
        relay.disclose(tmp_path / "disclosure")
        commitments, openings = relay.commit_to([b"the text of a canary, fixed before the run"])
        contents = {
            "card.toml": relay.card,
            "ana.msgpack": relay.volunteer([*relay.secret_items(), *openings]),
            "commitments.msgpack": commitments,
            "canaries.txt": b"another canary in a plain list\n\n",
        }
        for name, data in contents.items():
            (tmp_path / name).write_bytes(data)
        return {name: str(tmp_path / name) for name in (*contents, "disclosure", "report.html")}

    def test_blind_is_0(self, files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        status = main(
            [
                files["disclosure"], "--relay-card", files["card.toml"], "--volunteered", files["ana.msgpack"],
                "--commitments", files["commitments.msgpack"], "--canary-file", files["canaries.txt"],
                "--html", files["report.html"],
            ]
        )  # fmt: skip
        out = capsys.readouterr().out
        assert status == 0, out
        assert out.startswith("BLIND")
        assert "BLIND" in Path(files["report.html"]).read_text(encoding="utf-8")

    def test_incomplete_is_2_and_json_is_one_object(
        self, files: dict[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([files["disclosure"], "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["verdict"] == "INCOMPLETE"

    def test_not_blind_is_1(self, files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        (Path(files["disclosure"]) / "log/relay.log").write_bytes(b"mail\n")
        assert main([files["disclosure"], "--relay-card", files["card.toml"]]) == 1
        assert capsys.readouterr().out.startswith("NOT BLIND")

    @pytest.mark.parametrize("arguments", [[], ["--nothing"], ["d", "--json=1"]])
    def test_wrong_usage_is_64(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 64
        assert "audit: " in capsys.readouterr().err

    def test_directory_and_card_that_are_none_are_64(
        self, files: dict[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([files["disclosure"] + "/nothing"]) == 64
        assert main([files["disclosure"], "--relay-card", files["ana.msgpack"]]) == 64
        assert main([files["disclosure"], "--relay-card", "no-such-card"]) == 64
        assert main([files["disclosure"], "--html", files["disclosure"] + "/no/such/folder.html"]) == 64
        assert capsys.readouterr().err.count("audit: ") == 4

    def test_a_fault_of_the_verifier_is_70(
        self, files: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail(*_: Any, **__: Any) -> Report:
            raise ZeroDivisionError

        monkeypatch.setattr("audit.__main__.run", fail)
        assert main([files["disclosure"]]) == 70
        assert "a fault of the verifier, not a verdict" in capsys.readouterr().err

    def test_progress_is_shown_on_a_terminal_only(
        self, files: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        main([files["disclosure"]])
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        main([files["disclosure"]])
        assert f"[1/{len(CHECKS) + 1}] " in capsys.readouterr().err

    def test_a_reader_that_has_read_enough_gets_no_traceback(self, files: dict[str, str]) -> None:
        read_end, write_end = os.pipe()
        os.close(read_end)
        done = subprocess.run(
            [sys.executable, "-m", "audit", files["disclosure"], "--relay-card", files["card.toml"]],
            stdout=write_end,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            timeout=60,
        )
        os.close(write_end)
        assert (done.returncode, done.stderr) == (0, b"")

    def test_it_loads_nothing_of_ours(self) -> None:
        code = "import audit.__main__, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, text=True, check=True)
        loaded = set(done.stdout.split())
        assert not loaded & {"wire", "keys", "relay", "client", "sim", "blindpost", "benchmarks", "msgspec"}
        assert not loaded & {"sqlite3", "_sqlite3"}


class TestPage:
    """docs/verifier.md says what the code says."""

    PAGE = (ROOT / "docs/verifier.md").read_text(encoding="utf-8")

    def test_every_check_stands_on_it_with_its_words(self) -> None:
        known = [about.check_id for about, _ in (*CHECKS, EARLIER)]
        assert re.findall(r"^### `([a-z.]+)`$", self.PAGE, re.MULTILINE) == known
        for about, _ in (*CHECKS, EARLIER):
            for words in (about.title[1:], about.proves, about.does_not, f"protocol.md {about.section}"):
                assert words in self.PAGE

    def test_every_member_of_the_object_stands_on_it(self, blind: Report) -> None:
        found = report_object(blind)
        for name in (*found, *found["checks"][0], *found["leakage"]):
            assert f"`{name}`" in self.PAGE

    def test_every_class_and_verdict_stands_on_it(self) -> None:
        for byte_class in ByteClass:
            assert f"| {byte_class.value} |" in self.PAGE
        for verdict in Verdict:
            assert f"| `{verdict.value}` | {verdict.exit_status} |" in self.PAGE
        for status in Status:
            assert f"| `{status.value}` |" in self.PAGE


def test_style_sheet_is_whole() -> None:
    """A string that runs over a line ends a rule and swallows the next."""
    for line in STYLE.splitlines():
        assert line.count('"') % 2 == 0
    assert STYLE.count("{") == STYLE.count("}")
