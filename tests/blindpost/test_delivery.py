from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import cast

import pytest

from blindpost.delivery import line_of, receive_all
from client.content import NO_REPLY, Kind
from client.device import Device
from client.errors import Unknown
from client.message import Message

DEVICE_KEY = bytes(range(32))
NOON_MS = 1_448_884_800_000


def message(
    number: int, kind: Kind = Kind.CHAT, payload: bytes = b"hello", *, recipients: tuple[str, ...] = ()
) -> Message:
    return Message(
        account="ana@acme.example",
        device_key=DEVICE_KEY,
        kind=kind,
        message_id=bytes([number]) * 16,
        sent_ms=NOON_MS,
        reply_to=NO_REPLY,
        audience=(),
        recipients=recipients,
        own_copy=bool(recipients),
        payload=payload,
        received_ms=NOON_MS,
        read=False,
    )


class FakeDevice:
    """A device with messages that were kept; it notes in which order things are done to them."""

    def __init__(self, *waiting: Message) -> None:
        self.waiting = list(waiting)
        self.later: list[Message] = []
        self.done: list[str] = []
        self.reachable = True
        self.outbox_empties = True

    async def receive(
        self,
        wait_s: float = 0.0,
        *,
        take: bool = True,
        messages_max: int = 256,
        kinds: Collection[Kind] = frozenset(Kind),
    ) -> list[Message]:
        assert not take, "taken only once it is delivered"
        if wait_s:
            await asyncio.sleep(min(wait_s, 0.01))
            self.waiting += self.later
            self.later = []
        return [one for one in self.waiting if one.kind in kinds][:messages_max]

    def mark_taken(self, messages: Iterable[Message]) -> None:
        for one in list(messages):
            self.waiting.remove(one)
            self.done.append(f"taken {one.message_id[0]}")

    def mark_read(self, messages: Iterable[Message]) -> None:
        self.done += [f"read {one.message_id[0]}" for one in messages]

    async def caught_up(self, quiet_s: float = 1.0, wait_s: float | None = None) -> None:
        if not self.reachable:
            raise Unknown("receive", "no broker there")
        await asyncio.sleep(0.001)

    async def idle(self, wait_s: float | None = None) -> None:
        if not self.outbox_empties:
            raise Unknown("send", "no answer")


async def receive(
    device: FakeDevice, maildir: Path | None = None, *, wait_s: float = 0.0, read_notices: bool = True
) -> int:
    return await receive_all(cast(Device, device), maildir, wait_s=wait_s, read_notices=read_notices)


async def test_chat_is_printed_then_taken_then_read(capsys: pytest.CaptureFixture[str]) -> None:
    device = FakeDevice(message(1), message(2, Kind.PING, b""))
    assert await receive(device) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2015-11-30 12:00Z 01010101 ana@acme.example: hello",
        "2015-11-30 12:00Z 02020202 ana@acme.example: PING!!!",
    ]
    assert device.done == ["taken 1", "taken 2", "read 1", "read 2"]


async def test_nobody_is_told_that_it_was_read_who_does_not_want_to_tell() -> None:
    device = FakeDevice(message(1))
    await receive(device, read_notices=False)
    assert device.done == ["taken 1"]


async def test_mail_lands_in_the_maildir_and_is_not_called_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = FakeDevice(message(1, Kind.EMAIL, b"To: a\n\nx\n"))
    await receive(device, tmp_path / "Mail")
    (path,) = (tmp_path / "Mail" / "new").iterdir()
    assert path.read_bytes() == b"To: a\n\nx\n"
    assert capsys.readouterr().out == f"2015-11-30 12:00Z 01010101 ana@acme.example: mail, 9 bytes, {path}\n"
    assert device.done == ["taken 1"]


async def test_mail_that_a_crash_delivered_before_is_not_delivered_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mail = message(1, Kind.EMAIL, b"To: a\n\nx\n")
    await receive(FakeDevice(mail), tmp_path / "Mail")
    await receive(FakeDevice(mail), tmp_path / "Mail")
    assert len(list((tmp_path / "Mail" / "new").iterdir())) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith("already delivered")


async def test_without_a_maildir_mail_stays_and_chat_behind_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    mails = [message(number, Kind.EMAIL, b"x") for number in range(1, 30)]
    device = FakeDevice(*mails, message(30))
    await receive(device)
    assert device.waiting == mails
    assert capsys.readouterr().out.count("\n") == 1


async def test_what_comes_while_waiting_is_delivered(capsys: pytest.CaptureFixture[str]) -> None:
    device = FakeDevice()
    device.later = [message(1)]
    await receive(device, wait_s=0.1)
    assert "hello" in capsys.readouterr().out


async def test_what_was_kept_before_is_delivered_though_the_relay_is_away(capsys: pytest.CaptureFixture[str]) -> None:
    device = FakeDevice(message(1))
    device.reachable = False
    with pytest.raises(Unknown):
        await receive(device)
    assert "hello" in capsys.readouterr().out
    assert device.done == ["taken 1", "read 1"]


async def test_notices_that_could_not_leave_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    device = FakeDevice()
    device.outbox_empties = False
    assert await receive(device) == 0
    assert capsys.readouterr().err == "blindpost: notice: the outbox is not empty yet: no answer\n"


def test_an_own_copy_tells_to_whom_it_went() -> None:
    line = line_of(message(1, recipients=("omar@globex.example", "li@acme.example")))
    assert line == ("2015-11-30 12:00Z 01010101 ana@acme.example (sent to omar@globex.example, li@acme.example): hello")
