"""The devices of the story, as a process of their own: `python -m blindpost.demo.devices`.

Real devices (client/device.py), each with a home of its own on the disk, linked to the relay over MQTT, and driven by
the story over pipes (pipes.py). Each verb is a method here, and a record that it takes. Passphrases are drawn here and
forgotten with the process: these homes are nobody's.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from blindpost.demo.canaries import draw
from blindpost.demo.pipes import serve
from blindpost.disclosed import rows_of
from blindpost.files import write_new
from client.content import NO_REPLY, Kind
from client.device import Device
from client.errors import Unknown
from client.mail import without_bcc
from client.message import Message
from client.volunteer import (
    Item,
    canary_items,
    commit,
    commitments_file,
    list_items,
    opening_items,
    receipt_items,
    secret_items,
    volunteered_file,
)
from keys.vault import Cost
from wire.card import RelayCard
from wire.codec import Id, Record, decode
from wire.identity import Token

__all__ = [
    "Arrived",
    "Chat",
    "Collect",
    "Devices",
    "Enrolment",
    "Mail",
    "Marks",
    "Number",
    "Promise",
    "Second",
    "Sent",
    "Volunteer",
    "Wait",
    "main",
]

# A person waits once when a phone is unlocked; this story unlocks five, which nobody will ever open again.
_COST: Final = Cost(2, 67_108_864)
_WAIT_S: Final = 60.0


class Enrolment(Record, frozen=True):
    """`enrol`: the relay's card, where the homes go, a name and a token for each first device."""

    card: str
    folder: str
    tokens: tuple[tuple[str, Token], ...]


class Second(Record, frozen=True):
    """`second`: a further device of that device's account, under this name."""

    name: str
    first: str


class Number(Record, frozen=True):
    """`safety_number`: the digits that a device shows for an account."""

    name: str
    account: str


class Promise(Record, frozen=True):
    """`promise`: draw canaries for these devices and write the commitments to this file."""

    names: tuple[str, ...]
    path: str


class Mail(Record, frozen=True):
    """`mail`: send this file's bytes; Bcc fields are cut out, and only `bcc` says who gets a blind copy."""

    name: str
    raw: bytes
    to: tuple[str, ...]
    cc: tuple[str, ...]
    bcc: tuple[str, ...]


class Chat(Record, frozen=True):
    """`chat`: a text, or a PING if it is empty; `canary` above 0 sends that canary, with `as_mail` as an email."""

    name: str
    to: tuple[str, ...]
    text: str = ""
    reply_to: Id = NO_REPLY
    canary: int = 0
    as_mail: bool = False


class Sent(Record, frozen=True):
    """What came of a message: its id, and how many envelopes the relay has receipted."""

    message_id: Id
    receipts: int


class Collect(Record, frozen=True):
    """`collect`: wait until that many messages have arrived at a device since it was last asked, and hand them over."""

    name: str
    count: int


class Arrived(Record, frozen=True):
    """A message as it arrived."""

    account: str
    kind: int
    message_id: Id
    reply_to: Id
    own_copy: bool
    payload: bytes

    def __repr__(self) -> str:
        return f"Arrived(account={self.account!r}, kind={self.kind}, payload=<{len(self.payload)} bytes>)"


class Wait(Record, frozen=True):
    """`marks`: wait until a sent message has this many D and R marks."""

    name: str
    message_id: Id
    delivered: int
    read: int


class Marks(Record, frozen=True):
    """Who has it, and who has read it."""

    delivered_to: tuple[str, ...]
    read_by: tuple[str, ...]


class Volunteer(Record, frozen=True):
    """`volunteer`: write what this device gives the verifier; with a disclosure, the keys of its rows there."""

    name: str
    path: str
    disclosure: str


class Devices:
    """All devices of the story."""

    def __init__(self) -> None:
        self._devices: dict[str, Device] = {}
        self._running: dict[str, contextlib.AsyncExitStack] = {}
        self._passphrases: dict[str, bytes] = {}
        self._received: dict[str, list[Message]] = {}
        self._canaries: list[tuple[str, str]] = []
        self._folder = Path()

    # Devices

    async def enrol(self, argument: bytes) -> list[str]:
        """Make, connect and enrol the first devices; returns their accounts."""
        asked = decode(Enrolment, argument, "enrol")
        card = RelayCard.from_toml(asked.card)
        self._folder = Path(asked.folder)
        await asyncio.gather(*(self._enrol(name, card, token) for name, token in asked.tokens))
        return [self._devices[name].account for name, _ in asked.tokens]

    async def _enrol(self, name: str, card: RelayCard, token: Token) -> None:
        passphrase = self._passphrases[name] = secrets.token_bytes(16)
        # Stretching a passphrase takes a moment and lets go of the interpreter.
        device = await asyncio.to_thread(Device.new, self._folder / name, card, token, passphrase, cost=_COST)
        await self._run(name, device)
        await device.enrolled(_WAIT_S)

    async def second(self, argument: bytes) -> str:
        """Make a second device; the first one certifies it, and no private key travels. Returns its fingerprint."""
        asked = decode(Second, argument, "second")
        first = self._devices[asked.first]
        passphrase = self._passphrases[asked.name] = secrets.token_bytes(16)
        device = Device.request(self._folder / asked.name, first.state.card, passphrase, cost=_COST)
        request = device.request_text()
        fingerprint = device.request_fingerprint()
        assert Device.fingerprint_of_request(request) == fingerprint
        approval = await first.approve(request, _WAIT_S)
        device.accept(approval)
        await self._run(asked.name, device)
        await device.enrolled(_WAIT_S)
        return fingerprint

    async def _run(self, name: str, device: Device) -> None:
        stack = contextlib.AsyncExitStack()
        await stack.enter_async_context(device)
        self._devices[name] = device
        self._running[name] = stack
        self._received.setdefault(name, [])

    async def safety_number(self, argument: bytes) -> str:
        """The 60 digits for a pair of people, as one of them sees it."""
        asked = decode(Number, argument, "safety_number")
        device = self._devices[asked.name]
        await device.look_up(asked.account, _WAIT_S)
        return device.safety_number(asked.account)

    async def switch_off(self, argument: bytes) -> str:
        """Take a device off the network and close its home."""
        name = decode(str, argument, "switch_off")
        await self._devices[name].idle(_WAIT_S)
        await self._running.pop(name).aclose()
        return name

    async def switch_on(self, argument: bytes) -> str:
        """Open the home of a device again, and connect it."""
        name = decode(str, argument, "switch_on")
        device = await asyncio.to_thread(Device.open, self._folder / name, self._passphrases[name])
        await self._run(name, device)
        await device.linked(_WAIT_S)
        return name

    # Messages

    async def promise(self, argument: bytes) -> list[str]:
        """Draw the canaries, commit to them, write the commitments; returns who will send which."""
        asked = decode(Promise, argument, "promise")
        drawn = draw(asked.names, os.urandom)
        self._canaries = [(canary.who, canary.text) for canary in drawn]
        commitments = []
        for name, text in self._canaries:
            device = self._devices[name]
            commitments.append((commit(device, text.encode("utf-8")), device.account))
        Path(asked.path).write_bytes(commitments_file(commitments))
        return [name for name, _ in self._canaries]

    async def mail(self, argument: bytes) -> Sent:
        """Send an email; returns when the relay's receipts for every envelope are in and verified."""
        asked = decode(Mail, argument, "mail")
        return await self._send(
            asked.name, Kind.EMAIL, without_bcc(asked.raw), asked.to + asked.cc, asked.bcc, NO_REPLY
        )

    async def chat(self, argument: bytes) -> Sent:
        """Send a chat text, a PING, or a canary."""
        asked = decode(Chat, argument, "chat")
        text = self._canaries[asked.canary - 1][1] if asked.canary else asked.text
        kind = Kind.CHAT if text else Kind.PING
        payload = text.encode("utf-8")
        if asked.as_mail:
            kind, payload = Kind.EMAIL, _letter(self._devices[asked.name].account, asked.to, text)
        return await self._send(asked.name, kind, payload, asked.to, (), asked.reply_to)

    async def _send(
        self, name: str, kind: Kind, payload: bytes, to: tuple[str, ...], bcc: tuple[str, ...], reply_to: bytes
    ) -> Sent:
        device = self._devices[name]
        content = device.compose(kind, payload, to, reply_to)
        receipts = await device.send(content, to, bcc, wait_s=_WAIT_S)
        return Sent(content.message_id, len(receipts))

    async def collect(self, argument: bytes) -> list[Arrived]:
        """Wait for messages, and hand them over."""
        asked = decode(Collect, argument, "collect")
        device = self._devices[asked.name]
        messages: list[Message] = []
        deadline_s = asyncio.get_running_loop().time() + _WAIT_S
        while len(messages) < asked.count:
            left_s = deadline_s - asyncio.get_running_loop().time()
            if left_s <= 0:
                raise Unknown("collect", f"{len(messages)} of {asked.count} messages arrived at {asked.name}")
            messages += await device.receive(left_s)
        self._received[asked.name] += messages
        return [_arrived(message) for message in messages]

    async def read(self, argument: bytes) -> int:
        """Mark everything that a device has handed over as read; senders get an R."""
        name = decode(str, argument, "read")
        self._devices[name].mark_read(self._received[name])
        await self._devices[name].idle(_WAIT_S)
        return len(self._received[name])

    async def marks(self, argument: bytes) -> Marks:
        """Wait for D and R marks of a message."""
        asked = decode(Wait, argument, "marks")
        device = self._devices[asked.name]
        async for _ in _ticks(_WAIT_S):
            status = device.status(asked.message_id)
            if status and len(status.delivered_to) >= asked.delivered and len(status.read_by) >= asked.read:
                return Marks(status.delivered_to, status.read_by)
        raise Unknown("marks", "they did not come")

    # The verifier

    async def volunteer(self, argument: bytes) -> dict[str, int]:
        """Write what one device gives: secrets, receipts, lists, canaries; with a disclosure its message keys there."""
        asked = decode(Volunteer, argument, "volunteer")
        device, opened_here = self._devices[asked.name], asked.name not in self._running
        if opened_here:
            device = await asyncio.to_thread(Device.open, self._folder / asked.name, self._passphrases[asked.name])
        try:
            kinds: dict[str, list[Item]] = {
                "secrets": secret_items(device),
                "receipts": receipt_items(device),
                "canaries": canary_items(device),
                "lists": list_items(device),
            }
            if asked.disclosure:
                kinds["message keys"] = opening_items(device, list(rows_of(Path(asked.disclosure), device.mailbox)))
            given = volunteered_file(device.account, [item for items in kinds.values() for item in items])
            write_new(Path(asked.path), given, secret=True)
        finally:
            if opened_here:
                device.close()
        return {kind: len(items) for kind, items in kinds.items()}

    async def stop(self) -> None:
        """Close every home."""
        await asyncio.gather(*(stack.aclose() for stack in self._running.values()))


async def _ticks(wait_s: float) -> AsyncIterator[None]:
    deadline_s = asyncio.get_running_loop().time() + wait_s
    while asyncio.get_running_loop().time() < deadline_s:
        yield
        await asyncio.sleep(0.02)


def _arrived(message: Message) -> Arrived:
    return Arrived(
        message.account,
        int(message.kind),
        message.message_id,
        message.reply_to,
        message.own_copy,
        message.payload,
    )


def _letter(sender: str, to: tuple[str, ...], text: str) -> bytes:
    lines = [
        f"From: {sender}",
        f"To: {', '.join(to)}",
        "Subject: for your eyes",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
        text,
        "",
    ]
    return "\r\n".join(lines).encode("utf-8")


async def main() -> None:
    """Serve the story until it closes the pipe."""
    devices = Devices()
    names = "enrol second safety_number switch_off switch_on promise mail chat collect read marks volunteer"
    try:
        await serve({name: getattr(devices, name) for name in names.split()})
    finally:
        await devices.stop()


if __name__ == "__main__":
    asyncio.run(main())
