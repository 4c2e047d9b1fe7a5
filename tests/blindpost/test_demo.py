"""The demonstration: its parts, and the whole story from end to end."""

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from blindpost.demo import canaries, story
from blindpost.demo.letters import LETTERS_MAX, Letter, contract_signature, own_letters, sample_letters
from blindpost.demo.pipes import Ask, Process, RemoteError, read_message, write_message
from blindpost.demo.processes import environment, since_boot
from blindpost.demo.stage import PEOPLE, Stage, size
from blindpost.demo.story import run_demo
from blindpost.demo.transcript import Transcript
from blindpost.errors import UsageError
from sim.mutants.catalogue import CATALOGUE
from wire.codec import decode
from wire.errors import FormatError
from wire.hashing import label

ACCOUNTS = tuple(PEOPLE.values())


@dataclass
class Options:
    mail: list[Path] = field(default_factory=list)
    broker: str | None = None
    out: Path | None = None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestTranscript:
    def test_without_a_terminal_there_is_no_control_character_and_no_trailing_space(self, tmp_path: Path) -> None:
        screen = io.StringIO()
        with Transcript(screen, tmp_path / "page.txt") as transcript:
            transcript.title("A title")
            transcript.chapter("The first")
            transcript.say("words " * 40)
            with transcript.step("a thing takes a while") as step:
                assert "takes a while" not in screen.getvalue()
                step.done("the thing is done")
            transcript.quote("mallory", "harmless\x1b[2J\x9b31m\u202egnp")
            transcript.table(("name", "count"), [("a", "1"), ("b", "23")], right=(1,))
        for text in (screen.getvalue(), (tmp_path / "page.txt").read_text(encoding="utf-8")):
            controls = [c for c in text if unicodedata.category(c) == "Cc" and c != "\n"]
            assert not controls
            assert "\u202e" not in text
            assert not [line for line in text.split("\n") if line != line.rstrip(" ")]
            assert "✓ the thing is done" in text
            assert "1. The first" in text
            assert max(len(line) for line in text.split("\n")) <= 100

    def test_a_terminal_gets_colour_and_the_page_does_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("NO_COLOR", raising=False)
        screen = Terminal()
        with Transcript(screen, tmp_path / "page.txt") as transcript:
            transcript.good("fine")
        assert "\x1b[" in screen.getvalue()
        assert (tmp_path / "page.txt").read_text(encoding="utf-8") == " ✓ fine\n"

    def test_a_step_that_fails_says_so_and_raises(self, tmp_path: Path) -> None:
        screen = io.StringIO()
        with Transcript(screen, tmp_path / "page.txt") as transcript:
            with pytest.raises(ValueError, match="no"), transcript.step("the thing"):
                raise ValueError("no")
            with pytest.raises(KeyboardInterrupt), transcript.step("another"):
                raise KeyboardInterrupt
        assert "✗ the thing: failed" in screen.getvalue()
        assert "✗ another: interrupted" in screen.getvalue()

    def test_a_page_is_never_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "page.txt").write_text("mine")
        with pytest.raises(FileExistsError):
            Transcript(io.StringIO(), tmp_path / "page.txt")
        assert (tmp_path / "page.txt").read_text() == "mine"

    def test_what_does_not_come_out_is_kept_for_the_end(self, tmp_path: Path) -> None:
        screen = io.StringIO()
        with Transcript(screen, tmp_path / "page.txt") as transcript:
            stage = Stage(transcript, tmp_path, tmp_path, None)
            assert stage.expect([1], "one is there")
            assert not stage.expect([], "none is there")
            assert not stage.expect(0, "all", "only some")
        assert stage.failures == ["not so: none is there", "only some"]
        assert "✗ only some" in screen.getvalue()


class TestPipes:
    async def test_a_message_is_read_as_it_was_written(self) -> None:
        reader = asyncio.StreamReader()
        asked = Ask(7, "mail", b"argument")
        reader.feed_data(write_message(asked))
        reader.feed_eof()
        assert await read_message(reader, Ask, "question") == asked
        assert await read_message(reader, Ask, "question") is None

    async def test_a_message_cut_short_is_the_end(self) -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(write_message(Ask(7, "mail", b"argument"))[:-1])
        reader.feed_eof()
        assert await read_message(reader, Ask, "question") is None

    @pytest.mark.parametrize(("data", "words"), [(b"\xff" * 8, "limit"), (b"\0\0\0\x02\x91\xc1", "question")])
    async def test_a_malformed_message_is_refused(self, data: bytes, words: str) -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        with pytest.raises(FormatError, match=words):
            await read_message(reader, Ask, "question")

    async def test_an_unknown_verb_and_a_refusal_come_back_as_errors(self) -> None:
        process = Process("the handsets")
        await process.start([sys.executable, "-m", "blindpost.demo.handsets"])
        try:
            with pytest.raises(RemoteError, match="no verb 'rob'"):
                await process.ask("rob", "", str)
            with pytest.raises(RemoteError, match="enrol: FormatError"):
                await process.ask("enrol", ["not", "a", "request"], int)
        finally:
            await process.stop()

    async def test_the_other_process_ends_when_the_story_does(self) -> None:
        process = Process("the handsets")
        await process.start([sys.executable, "-m", "blindpost.demo.handsets"])
        pid = process.pid
        await process.stop()
        assert not Path(f"/proc/{pid}").exists()
        with pytest.raises(RemoteError, match="the handsets"):
            await process.ask("promise", "", str)


class TestLetters:
    def test_the_samples_name_who_sends_them_and_to_whom(self) -> None:
        letters = {letter.name: letter for letter in sample_letters()}
        assert len(letters) == 9
        assert {letter.sender for letter in letters.values()} <= set(ACCOUNTS)
        assert all(set(letter.recipients) <= set(ACCOUNTS) for letter in letters.values())
        assert letters["bcc"].bcc == ("dawud@globex.example",)
        assert letters["malformed"].sender == "bilal@acme.example"

    def test_only_the_bcc_field_may_be_missing_on_arrival(self) -> None:
        letter = next(letter for letter in sample_letters() if letter.name == "bcc")
        arrived = letter.raw.replace(b"Bcc: Dawud Haddad\r\n <dawud@globex.example>\r\n", b"")
        assert arrived != letter.raw
        assert letter.same_bytes(arrived)
        assert not letter.same_bytes(letter.raw)
        assert not letter.same_bytes(arrived.replace(b"\r\n", b"\n"))

    def test_the_contracts_signature_breaks_with_one_byte(self) -> None:
        letter = next(letter for letter in sample_letters() if letter.name == "contract")
        assert contract_signature(letter.raw) == "ana@acme.example"
        with pytest.raises(FormatError, match="does not verify"):
            contract_signature(letter.raw.replace(b"do not pay", b"do now pay"))
        with pytest.raises(FormatError, match="does not verify"):
            contract_signature(b"no mail")

    def test_own_mail_goes_round_and_what_is_too_much_is_counted(self, tmp_path: Path) -> None:
        for number in range(LETTERS_MAX + 2):
            (tmp_path / f"{number:04}.eml").write_bytes(b"Subject: x\r\nBcc: b@x.example\r\n\r\nhello\r\n")
        letters, left_out = own_letters(tmp_path, ACCOUNTS)
        assert (len(letters), left_out) == (LETTERS_MAX, 2)
        assert {letter.sender for letter in letters} == set(ACCOUNTS)
        assert all(len(set(letter.recipients)) == 3 for letter in letters)
        assert all(letter.sender not in letter.recipients for letter in letters)
        more, left_out = own_letters(tmp_path, ACCOUNTS, start=LETTERS_MAX - 1)
        assert (len(more), left_out) == (1, LETTERS_MAX + 1)


class TestCanaries:
    def test_no_two_runs_draw_the_same_texts(self) -> None:
        first, second = canaries.draw(ACCOUNTS), canaries.draw(ACCOUNTS)
        assert not {one.text for one in first} & {one.text for one in second}
        assert {one.who for one in first} == set(ACCOUNTS)
        assert "redacted" in repr(first[0])
        assert first[0].text not in repr(first[0])

    def test_the_commitment_is_the_specs(self, tmp_path: Path) -> None:
        drawn = canaries.draw(ACCOUNTS)
        canaries.write_commitments(drawn, tmp_path / "c")
        name, items = decode(tuple[str, list[tuple[bytes, str]]], (tmp_path / "c").read_bytes(), "commitments")
        assert name == "blindpost/v1/commitments"
        one = drawn[3]
        assert items[3] == (sha256(label("canary") + one.nonce + one.text.encode()).digest(), one.who)


def test_sizes_are_for_people() -> None:
    assert [size(9_999), size(10_000), size(7_175_257), size(90_500_000)] == [
        "9,999 bytes",
        "10 kB",
        "7,175 kB",
        "90.5 MB",
    ]


def test_the_kernel_tells_when_a_process_was_started() -> None:
    before = time.time()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        # The kernel counts in hundredths of a second.
        assert before - 0.05 <= since_boot(process.pid) <= time.time() + 0.05


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError, match="holds something already"):
        run_demo(Options(out=tmp_path), io.StringIO())
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_path_without_mail_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no"):
        run_demo(Options(mail=[tmp_path / "empty"], out=tmp_path / "out"), io.StringIO())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_whole_story_with_ones_own_mail(tmp_path: Path) -> None:
    """Every step is checked by the story itself; here: that it says so, exits with 0, and leaves what it promises."""
    mail = tmp_path / "mail.mbox"
    raw = b"From: me@home.example\nTo: you@home.example\nBcc: x@home.example\nSubject: %d\n\n\xff not UTF-8\n"
    mail.write_bytes(b"".join(b"From me Mon Nov 30 12:00:00 2015\n" + raw % n + b"\n" for n in range(3)))
    out = tmp_path / "out"
    screen = io.StringIO()
    assert run_demo(Options(mail=[mail], out=out), screen) == 0
    page = screen.getvalue()
    assert page == (out / "transcript.txt").read_text(encoding="utf-8")
    assert "\x1b" not in page
    assert "✗" not in page
    for line in (
        "arrived byte for byte; ",
        "without the Bcc field",
        "BLIND: 18 checks passed",
        "all 8 canaries are in them",
        "reads those very texts, all 8 of them",
        f"{len(CATALOGUE)} mutants, {len(CATALOGUE)} caught",
        "NOT BLIND: one key, given by one person, opens 8 of 8 envelopes",
        "all came out as it should",
    ):
        assert line in page.replace("\n   ", " "), line
    for name in ("report.html", "report.json", "commitments.msgpack", "relay-card.toml", "disclosure/memory/image.bin"):
        assert (out / name).stat().st_size
    assert (out / "historical" / "report.html").is_file()
    told = [json.loads(line) for line in (out / "controls.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {one["name"] for one in told} == {mutant.name for mutant in CATALOGUE}
    assert all(one["caught"] and one["proof"] for one in told)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert [control["caught"] for control in report["controls"]] == [True] * len(CATALOGUE)
    assert (out.stat().st_mode & 0o777) == 0o700
    again = subprocess.run(
        [
            *(sys.executable, "-m", "audit", "disclosure", "--relay-card", "relay-card.toml"),
            *("--commitments", "commitments.msgpack", "--volunteered", *(f"volunteered/{n}.msgpack" for n in PEOPLE)),
        ],
        cwd=out,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0, again.stdout[-2_000:]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_what_does_not_come_out_is_told_and_ends_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte that changed on the way, a mutant that escaped, a receipt that is missing: the story must not end well."""

    @contextlib.asynccontextmanager
    async def one_escapes(work: Path) -> AsyncIterator["asyncio.Queue[dict[str, Any] | None]"]:
        results: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        escaped = {"name": "x", "expected": "log.grammar", "proof": "there", "caught": False}
        results.put_nowait({**escaped, "problem": "", "caught_by": ["store.schema"]})
        results.put_nowait(None)
        yield results

    monkeypatch.setattr(story, "controls", one_escapes)
    monkeypatch.setattr(Letter, "same_bytes", lambda self, arrived: arrived == self.raw + b"!")
    (tmp_path / "a.eml").write_bytes(b"Subject: x\r\n\r\nhello\r\n")
    screen = io.StringIO()
    assert run_demo(Options(mail=[tmp_path / "a.eml"], out=tmp_path / "out"), screen) == 1
    page = screen.getvalue()
    assert "3 things did not come out as they should" in page
    end = page[page.index("3 things did not") :]
    assert "only 0 of 2 are the same" in end
    assert "0 of her 1 mails are the same" in end
    assert "not so: 1 mutants, 0 caught" in end
    assert "all came out as it should" not in page


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_ctrl_c_leaves_no_process_and_no_home(tmp_path: Path) -> None:
    environ = {**environment(), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "blindpost", "demo", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as teller:
        assert teller.stdout is not None
        for line in teller.stdout:
            if "What people write" in line:
                break
        children = _descendants(teller.pid)
        assert len(children) >= 3
        teller.send_signal(signal.SIGINT)
        _, errors = teller.communicate(timeout=60)
    assert teller.returncode == 130
    assert "Traceback" not in errors
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists() and _state(pid) != "Z"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def _descendants(pid: int) -> list[int]:
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_the_devices_and_the_teller_do_not_share_a_process() -> None:
    """The relay, too, is only ever started by exec; the devices' process has not even loaded it."""
    code = "import sys, blindpost.demo.devices; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True, cwd=os.sep
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "client" in loaded
    assert not loaded & {"relay", "audit", "sim"}
