"""What commands ask of a device and of the verifier, and what they make of the answers; no process is started here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blindpost.__main__ import main
from client.content import NO_REPLY, Content, Kind
from client.errors import AccountKeyChanged, Refused, ServiceEnded, Unknown
from client.message import Notice, SentStatus
from client.records import HeldReceipt
from wire.codec import encode
from wire.errors import RefusalCode
from wire.receipt import CommitHeader

MESSAGE_ID = bytes(range(16))
ANA, OMAR, LI = "ana@acme.example", "omar@globex.example", "li@acme.example"
HEADER = encode(CommitHeader(bytes(16), 0, 17, 1_448_884_800_123, 4, bytes(32), bytes(32)))
RECEIPT = HeldReceipt(
    OMAR, MESSAGE_ID, HEADER, bytes(64), b"m" * 16, b"\xee" * 16, 1, 3, 2, b"", bytes(32), bytes(16), withdrawn=False
)
RECEIPT_LINE = f"receipt {OMAR} envelope {'ee' * 16} number 3 commit 17 leaf 2 of 4 at 2015-11-30T12:00:00Z"


class FakeDevice:
    """Notes what it was asked, and answers as told."""

    def __init__(self) -> None:
        self.sent: list[tuple[Content, tuple[str, ...], tuple[str, ...]]] = []
        self.error: Exception | None = None
        self.told: list[Notice] = []
        self.known = {OMAR: "number of Omar"}
        self.done: list[str] = []
        self.engine = SimpleNamespace(enrolment=SimpleNamespace(failure=None))
        self.account = ANA

    async def __aenter__(self) -> FakeDevice:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.done.append("closed")

    def close(self) -> None:
        self.done.append("closed")

    def compose(self, kind: Kind, payload: bytes, to: Sequence[str] = (), reply_to: bytes = NO_REPLY) -> Content:
        return Content(NO_REPLY, kind, MESSAGE_ID, 0, reply_to, tuple(to), payload)

    async def send(
        self, content: Content, to: Sequence[str], bcc: Sequence[str] = (), *, wait_s: float | None = None
    ) -> tuple[HeldReceipt, ...]:
        self.sent.append((content, tuple(to), tuple(bcc)))
        if self.error is not None:
            raise self.error
        return (RECEIPT,)

    def notices(self) -> list[Notice]:
        return self.told

    def clear_notices(self, notices: Sequence[Notice]) -> None:
        self.done.append(f"told {len(notices)}")

    def status(self, message_id: bytes) -> SentStatus | None:
        if message_id != MESSAGE_ID:
            return None
        return SentStatus(MESSAGE_ID, Kind.CHAT, (OMAR, LI), 0, False, False, (OMAR, LI), (LI,))

    async def withdraw(self, message_id: bytes, wait_s: float | None = None) -> int:
        if self.error is not None:
            raise self.error
        self.done.append(f"withdrawn {message_id.hex()}")
        return 2

    def safety_number(self, account: str) -> str:
        if account not in self.known:
            raise Unknown("safety number", "never looked up")
        return self.known[account]

    async def look_up(self, account: str, wait_s: float | None = None) -> None:
        self.done.append(f"looked up {account}")
        self.known[account] = "11111 22222 33333 44444 55555"

    def message_ids(self, digits: str) -> list[bytes]:
        known = [bytes.fromhex("aabbccdd" + "01" * 12), bytes.fromhex("aabbccdd" + "02" * 12), MESSAGE_ID]
        return [one for one in known if one.hex().startswith(digits)]

    def mark_compared(self, account: str) -> None:
        self.done.append(f"compared {account}")

    def trust_new_key(self, account: str) -> None:
        self.known.pop(account, None)
        self.done.append(f"trusted {account}")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeDevice:
    fake = FakeDevice()
    monkeypatch.setattr("blindpost.handset.open_device", lambda options: fake)
    monkeypatch.setenv("BLINDPOST_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return fake


def test_a_mail_goes_without_bcc_to_whom_the_command_names(
    device: FakeDevice, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.eml").write_bytes(b"To: nobody@else.example\nBcc: hidden@else.example\n\nx\n")
    words = ["mail", "send", "--to", OMAR, "--cc", LI, OMAR, "--bcc", ANA, "a.eml"]
    assert main(words) == 0
    ((content, to, bcc),) = device.sent
    assert content.payload == b"To: nobody@else.example\n\nx\n"
    assert content.kind is Kind.EMAIL
    assert (to, bcc, content.audience) == ((OMAR, LI), (ANA,), (OMAR, LI))
    assert capsys.readouterr().out.splitlines() == [f"message {MESSAGE_ID.hex()}", RECEIPT_LINE]
    assert device.done[-1] == "closed"


def test_a_mail_above_the_limit_is_refused_before_the_device_is_opened(
    device: FakeDevice, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "big.eml").open("wb") as file:
        file.truncate(26_214_401)
    assert main(["mail", "send", "--to", OMAR, "big.eml"]) == 65
    assert capsys.readouterr().err == (
        "blindpost: error: big.eml: is longer than it may be, in bytes (limit 26214400)\n"
    )
    assert device.done == []


def test_a_text_answers_another(device: FakeDevice) -> None:
    assert main(["chat", "send", "--to", OMAR, "--reply-to", "AB" * 16, "yes"]) == 0
    ((content, to, _),) = device.sent
    assert (content.kind, content.payload, content.reply_to, to) == (Kind.CHAT, b"yes", b"\xab" * 16, (OMAR,))


@pytest.mark.parametrize(
    "words", [["--reply-to", "abc", "x"], ["--reply-to", "zz" * 16, "x"], ["--reply-to", "a" * 34, "x"]]
)
def test_what_is_no_message_cannot_be_answered(
    device: FakeDevice, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", "send", "--to", OMAR, *words]) == 64
    assert "is no message: 8 to 32 hex digits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("digits", "problem"),
    [("99887766", "99887766 is no message of this device"), ("AABBCCDD", "aabbccdd begins 2 messages")],
)
def test_digits_that_begin_no_message_or_several_answer_none(
    device: FakeDevice, digits: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", "send", "--to", OMAR, "--reply-to", digits, "x"]) == 66
    assert capsys.readouterr().err.startswith(f"blindpost: error: {problem}\n")
    assert device.sent == []


def test_eight_digits_as_they_are_printed_name_a_message(device: FakeDevice) -> None:
    assert main(["chat", "send", "--to", OMAR, "--reply-to", MESSAGE_ID.hex()[:8], "x"]) == 0
    assert device.sent[0][0].reply_to == MESSAGE_ID


def test_an_empty_text_and_one_that_is_no_text_are_refused(
    device: FakeDevice, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", "send", "--to", OMAR, ""]) == 65
    assert capsys.readouterr().err == "blindpost: error: text: is empty\n"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=SimpleNamespace(read=lambda size: b"\xff")))
    assert main(["chat", "send", "--to", OMAR, "-"]) == 65
    assert capsys.readouterr().err == "blindpost: error: text: not UTF-8\n"
    assert device.sent == []


def test_a_ping_says_nothing(device: FakeDevice) -> None:
    assert main(["chat", "ping", "--to", OMAR, LI]) == 0
    ((content, to, _),) = device.sent
    assert (content.kind, content.payload, to) == (Kind.PING, b"", (OMAR, LI))


def test_a_message_without_all_receipts_is_in_the_outbox_and_must_not_be_sent_again(
    device: FakeDevice, capsys: pytest.CaptureFixture[str]
) -> None:
    device.error = Unknown("message", "no answer within 60 s")
    assert main(["chat", "ping", "--to", OMAR]) == 75
    output = capsys.readouterr()
    assert output.out == f"message {MESSAGE_ID.hex()}\n"
    first, second = output.err.splitlines()
    assert first == "blindpost: error: not all receipts are in: no answer within 60 s"
    assert second.startswith("blindpost: hint: the message is in the outbox: do not send it again")


def test_an_enrolment_that_was_refused_is_the_reason_that_is_told(
    device: FakeDevice, capsys: pytest.CaptureFixture[str]
) -> None:
    device.error = Unknown("message", "no answer within 60 s")
    device.engine.enrolment.failure = Refused("enrol", RefusalCode.TOKEN_INVALID, "used")
    assert main(["chat", "ping", "--to", OMAR]) == 69
    assert capsys.readouterr().err == "blindpost: error: enrol: refused, token_invalid at used\n"


def test_an_alarm_has_a_status_of_its_own(device: FakeDevice, capsys: pytest.CaptureFixture[str]) -> None:
    device.error = AccountKeyChanged(OMAR, bytes(32), b"\x01" * 32)
    assert main(["chat", "ping", "--to", OMAR]) == 76
    assert "compare safety numbers before you trust the new one" in capsys.readouterr().err


def test_what_nobody_was_waiting_for_is_told_once_and_cannot_act_on_the_terminal(
    device: FakeDevice, capsys: pytest.CaptureFixture[str]
) -> None:
    device.told = [
        Notice(b"1", "Expired", "message expired\x1b[2J", MESSAGE_ID, (OMAR,), 0),
        Notice(b"2", "Forked", "the relay forked", b"", (), 0),
    ]
    assert main(["chat", "ping", "--to", OMAR]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"blindpost: notice: message expired\u241b[2J (message {MESSAGE_ID.hex()})",
        "blindpost: notice: the relay forked",
    ]
    assert device.done == ["told 2", "closed"]


def test_status_tells_who_said_d_and_r(device: FakeDevice, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "status", MESSAGE_ID.hex()]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"message {MESSAGE_ID.hex()} chat in the outbox",
        f"{OMAR} D",
        f"{LI} D R",
    ]
    assert main(["chat", "status", "00" * 16]) == 66


def test_a_message_is_taken_back_and_one_of_somebody_else_is_not(
    device: FakeDevice, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", "withdraw", MESSAGE_ID.hex()]) == 0
    assert f"withdrawn {MESSAGE_ID.hex()}" in device.done
    assert "asked to erase 2 envelopes" in capsys.readouterr().out
    assert main(["chat", "withdraw", "00" * 16]) == 66
    device.error = Unknown("withdraw", "no link")
    assert main(["chat", "withdraw", MESSAGE_ID.hex()]) == 75
    assert "nothing happens twice" in capsys.readouterr().err


def test_a_company_that_is_served_no_more_is_named(device: FakeDevice, capsys: pytest.CaptureFixture[str]) -> None:
    device.error = ServiceEnded(f"submit to {OMAR}", "globex.example")
    assert main(["chat", "ping", "--to", OMAR]) == 69
    assert "the service for globex.example has ended" in capsys.readouterr().err


def test_a_safety_number_is_looked_up_where_it_is_not_known(
    device: FakeDevice, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["safety-number", LI]) == 0
    assert capsys.readouterr().out == "11111 22222 33333 44444\n55555\n"
    assert device.done[0] == f"looked up {LI}"
    assert main(["safety-number", "--compared", OMAR]) == 0
    assert f"compared {OMAR}" in device.done
    assert f"looked up {OMAR}" not in device.done


def test_a_new_key_is_taken_only_when_told_so(device: FakeDevice) -> None:
    assert main(["safety-number", "--accept-new-key", OMAR]) == 0
    assert device.done[:2] == [f"trusted {OMAR}", f"looked up {OMAR}"]


def test_the_verifier_gets_what_the_command_line_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def audit(arguments: list[str]) -> int:
        asked.append(arguments)
        return 2

    monkeypatch.setattr("audit.__main__.main", audit)
    words = ["audit", "d", "--relay-card", "c", "--volunteered", "a", "b", "--volunteered", "e"]
    words += ["--commitments", "f", "--json", "--html"]
    assert main([*words, str(tmp_path / "v.html")]) == 2
    assert asked == [
        [
            *("d", "--relay-card", "c", "--volunteered", "a", "--volunteered", "b", "--volunteered", "e"),
            *("--commitments", "f", "--json", "--html", str(tmp_path / "v.html")),
        ]
    ]
    assert main(["audit", "d"]) == 2
    assert asked[1] == ["d"]
    (tmp_path / "v.html").write_text("an older verdict")
    assert main(["audit", "d", "--html", str(tmp_path / "v.html")]) == 73
    assert (tmp_path / "v.html").read_text() == "an older verdict"


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("YES ", 0), ("", 76), ("n", 76)])
def test_a_person_at_a_terminal_compares_the_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, status: int, device: FakeDevice
) -> None:
    (tmp_path / "request").write_text("any")
    monkeypatch.setattr("client.device.Device.fingerprint_of_request", staticmethod(lambda text: "00001 00002"))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda prompt: answer)

    async def approve(request: str, wait_s: float) -> str:
        assert request == "any"
        return "approved\n"

    monkeypatch.setattr(device, "approve", approve, raising=False)
    assert main(["device", "approve", "request", "--out", "approval"]) == status
    assert (tmp_path / "approval").exists() is (status == 0)


def test_the_story_is_told_by_its_own_module(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def run_demo(options: Any) -> int:
        told.append(options)
        return 1

    monkeypatch.setattr("blindpost.demo.run_demo", run_demo, raising=False)
    assert main(["demo", "--mail", "a.eml", "--mail", "b", "--broker", "mqtt://h:1", "--out", "o"]) == 1
    assert [str(path) for path in told[0].mail] == ["a.eml", "b"]
    assert (told[0].broker, str(told[0].out)) == ("mqtt://h:1", "o")
