"""Interception and pen register at a relay that runs: what passes is in the file, and the log says so."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from audit.material import read_card
from audit.order_log import LoggedOrder, verify_log
from benchmarks.wire_device import Mail, WireDevice
from blindpost.__main__ import main
from blindpost.exit_status import ExitStatus
from tests.relay.running import WAIT_S, RelayProcess, device_of, enrolled, environment, hub_of, make_home, until
from wire.capture import (
    CaptureBegan,
    CapturedEvent,
    CaptureEnded,
    CaptureEvent,
    CaptureHeader,
    CaptureRecord,
    records_of,
)

DAY_S = 86_400
POLICY = '[GB]\ninterception = "honour"\npen-register = "honour"\n'


def day_in(days: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() + days * DAY_S))


class Operator:
    """A relay that runs, and the commands of whoever runs it."""

    def __init__(self, folder: Path) -> None:
        self.home = make_home(folder / "relay")
        (self.home.path / "policy.toml").write_text(POLICY)
        self.relay = RelayProcess(self.home)
        self.out = folder / "bob.capture"

    def run(self, *words: str, status: int = 0) -> None:
        assert main([*words, "--home", str(self.home.path)]) == status

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start a command that records; return when the file says that it began."""
        before = self.parts()
        command = [sys.executable, "-m", "blindpost", *words, "--home", str(self.home.path), "--out", str(self.out)]
        process = subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + WAIT_S
        while self.parts() == before:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "the recording did not begin"
            time.sleep(0.02)
        return process

    def order(self, kind: str, *words: str) -> subprocess.Popen[str]:
        about = ("--account", "bob@acme.example", "--jurisdiction", "GB", "--until", day_in(30))
        return self.begin("order", kind, *about, *words)

    def records(self) -> list[CaptureRecord]:
        """What is in the file, but for half a record at its end."""
        data = self.out.read_bytes() if self.out.exists() else b""
        whole = 0
        while len(data) - whole >= 4 and (end := whole + 4 + int.from_bytes(data[whole : whole + 4], "big")) <= len(
            data
        ):
            whole = end
        return list(records_of(data[:whole]))

    def parts(self) -> int:
        return sum(isinstance(record, CaptureBegan) for record in self.records())

    def events(self) -> list[CapturedEvent]:
        return [record for record in self.records() if isinstance(record, CapturedEvent)]

    def reasons(self) -> list[str]:
        return [record.reason for record in self.records() if isinstance(record, CaptureEnded)]

    def logged(self) -> LoggedOrder:
        card = read_card((self.home.path / "relay-card.toml").read_bytes(), "card")
        log = verify_log(self.home.path / "transparency", card, int(time.time()))
        assert log.findings == []
        return log.orders[0]


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    operator = Operator(tmp_path)
    with operator.relay:
        yield operator


@contextlib.asynccontextmanager
async def people(operator: Operator) -> AsyncIterator[tuple[WireDevice, WireDevice, WireDevice]]:
    """Ana, Bob and Cai, linked and enrolled."""
    async with hub_of(operator.home) as hub:
        devices = [await enrolled(hub, device_of(operator.home, name)) for name in ("ana", "bob", "cai")]
        ana, bob, cai = devices
        yield ana, bob, cai
        for device in devices:
            await device.stop()


async def sent(ana: WireDevice, bob: WireDevice, count: int = 3) -> list[Mail]:
    """Ana sends to Bob, who has acknowledged all of it on return."""
    before = len(bob.received)
    mails = [ana.mail_to(bob) for _ in range(count)]
    await ana.submit(bob, mails)
    await until(lambda: len(bob.received) == before + count and not bob.unanswered, "the deliveries")
    return mails


async def begun(operator: Operator, *words: str) -> subprocess.Popen[str]:
    return await asyncio.to_thread(operator.begin, *words)


async def ended(process: subprocess.Popen[str], status: int = 0) -> str:
    out, errors = await asyncio.to_thread(process.communicate, timeout=WAIT_S)
    assert process.returncode == status, (out, errors)
    return out + errors


async def test_an_interception_hands_over_the_ciphertext_that_passes_until_it_is_withdrawn(operator: Operator) -> None:
    async with people(operator) as (ana, bob, cai):
        process = await asyncio.to_thread(operator.order, "interception")
        assert operator.logged().capturing_from
        mails = await sent(ana, bob)
        await sent(ana, cai)
        await until(lambda: len(operator.events()) == 9, "three events of each of three envelopes")
        await asyncio.to_thread(operator.run, "order", "withdraw", "0")
        told = await ended(process)
    assert "answer: ciphertext; leaf" in told
    by_event = {
        event: [(one.devices, one.body) for one in operator.events() if one.event == event] for event in CaptureEvent
    }
    bodies = [mail.envelope.body for mail in mails]
    assert by_event[CaptureEvent.STORED] == [((ana.key.public,), body) for body in bodies]
    assert by_event[CaptureEvent.DELIVERED] == [((bob.key.public,), body) for body in bodies]
    assert by_event[CaptureEvent.ACKNOWLEDGED] == [((bob.key.public,), b"")] * 3
    header = operator.records()[0]
    assert isinstance(header, CaptureHeader)
    assert (header.relay_id, header.number, header.kind) == (operator.home.card.relay_id, 0, "interception")
    assert operator.reasons() == ["withdrawn"]
    assert operator.out.stat().st_mode & 0o777 == 0o600
    order = operator.logged()
    assert [change for change, _, _ in order.changes] == ["capturing", "withdrawn"]
    assert (order.state, order.outcome) == ("honoured", "ciphertext")
    assert order.evidence == hashlib.sha256(operator.out.read_bytes()).digest()
    assert "9 events of 1 mailboxes, 3 of them envelopes that came in; none was lost" in order.text
    card, log = str(operator.home.path / "relay-card.toml"), str(operator.home.path / "transparency")
    assert main(["audit", "--capture", str(operator.out), "--relay-card", card, "--log", log]) == 0
    operator.relay.stop()
    # The relay's own files hold nothing of it: what was delivered is erased, captured or not.
    for path in operator.home.path.rglob("*"):
        assert not (path.is_file() and any(body in path.read_bytes() for body in bodies)), path


async def test_a_pen_register_goes_on_after_a_pause_a_crash_and_the_relays_end_and_says_each(
    operator: Operator,
) -> None:
    async with people(operator) as (ana, bob, _cai):
        process = await asyncio.to_thread(operator.order, "pen-register")
        await sent(ana, bob, 1)
        await until(lambda: len(operator.events()) == 3, "the events")
        process.send_signal(signal.SIGTERM)
        assert "order capture 0" in await ended(process)
        await sent(ana, bob, 1)
        process = await begun(operator, "order", "capture", "0")
        await sent(ana, bob, 1)
        await until(lambda: len(operator.events()) == 6, "the events after the pause")
        process.kill()
        await asyncio.to_thread(process.communicate)
        with operator.out.open("ab") as file:
            file.write(b"\0\0\0\x50half a record")
        process = await begun(operator, "order", "capture", "0")
    operator.relay.stop()
    assert "the relay has stopped" in await ended(process, ExitStatus.TRY_AGAIN)
    assert operator.reasons() == ["paused", "interrupted", "relay stopped"]
    assert operator.logged().state == "open"
    operator.run("order", "capture", "0", "--out", str(operator.out), status=ExitStatus.TRY_AGAIN)
    operator.run("order", "decide", "0", "--refuse", status=ExitStatus.UNAVAILABLE)
    operator.run("order", "capture", "0", "--out", str(operator.out), "--finish")
    assert {one.body for one in operator.events()} == {b""}
    order = operator.logged()
    assert (order.state, order.outcome) == ("honoured", "given")
    assert "6 events" in order.text
    assert "interrupted 2 times" in order.text
    operator.run("order", "capture", "0", "--out", str(operator.out), status=ExitStatus.UNAVAILABLE)
    card, log = str(operator.home.path / "relay-card.toml"), str(operator.home.path / "transparency")
    assert main(["audit", "--capture", str(operator.out), "--relay-card", card, "--log", log]) == 0


def test_what_cannot_be_recorded_is_refused_before_it_is_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = Operator(tmp_path)
    words = ("order", "interception", "--account", "bob@acme.example", "--jurisdiction", "GB")
    operator.run(*words, status=ExitStatus.USAGE)
    operator.run(*words, "--until", day_in(-1), "--out", str(operator.out), status=ExitStatus.USAGE)
    operator.run(*words, "--until", day_in(9), "--out", str(operator.out), status=ExitStatus.TRY_AGAIN)
    assert "relay run" in capsys.readouterr().err
    assert not operator.out.exists()
    assert not (operator.home.path / "orders").exists()
    operator.out.write_text("hi")
    operator.run(*words, "--until", day_in(9), "--out", str(operator.out), status=ExitStatus.CANNOT_CREATE)


def test_another_file_is_neither_appended_to_nor_cut(operator: Operator, tmp_path: Path) -> None:
    process = operator.order("interception")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=WAIT_S)
    for data in (b"hi", b"a file of somebody's own"):
        (other := tmp_path / "other").write_bytes(data)
        operator.run("order", "capture", "0", "--out", str(other), status=ExitStatus.DATA)
        assert other.read_bytes() == data


def test_two_processes_do_not_record_for_one_order(operator: Operator, tmp_path: Path) -> None:
    process = operator.order("interception")
    operator.run("order", "capture", "0", "--out", str(operator.out), status=ExitStatus.UNAVAILABLE)
    operator.run("order", "capture", "0", "--out", str(tmp_path / "other"), status=ExitStatus.UNAVAILABLE)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=WAIT_S)
