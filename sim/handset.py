"""A handset of the historical mode: the same relay, links and receipts, but every body under the global PIN key.

It speaks the whole of protocol.md section 6 through client/link.py, and has an identity like any device (`keys/`); only
how it protects a message is another time's: by default sim/historical.py, with the one key that is in all handsets, or
one of sim/generations/. So the relay's side of the story stays exactly the same, and what differs between the
disclosures is where the key was.

    handset = Handset("ana@acme.example", card)
    async with handset.connected(transport):
        await handset.enrol(token)
        await handset.send(("chloe@globex.example",), Kind.CHAT, "tea at five".encode())
        await handset.wait_received(1)

It keeps nothing on a disk, and leaves to the real client all that makes one: outbox, vault, retries across restarts.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from client.content import NO_REPLY, Kind
from client.errors import Refused, TransportClosed
from client.link import (
    DeliveryEvent,
    DirectoryEvent,
    DoneEvent,
    Event,
    Link,
    ReceiptsEvent,
    RefusedEvent,
)
from client.transport import Channel, Transport, topics_of
from keys.identity import AccountKey, DeviceKeys
from keys.prekeys import PrekeyRing
from sim.historical import PinMessage, read_message, write_message
from wire.card import RelayCard
from wire.commands import Ack, DeviceCommand, Enrol, LookUp, Submit, Subscribe
from wire.envelope import Envelope, envelope_id_of
from wire.errors import BlindpostError
from wire.identity import DeviceEntry, Token, device_tag, list_hash, verify_signed_list
from wire.receipt import Receipt, receipt_of, verify_receipt

__all__ = ["Handset", "PinProtection", "Protection"]

# Expiry of what a handset sends, rounded up to a full hour as section 5.1 says.
_EXPIRY_S = 7 * 86_400
_HOUR_S = 3_600
_CREDIT = 64
_ONE_TIME_PREKEYS = 0
_REPEAT_S = 0.25
"""How often a handset looks whether something must be repeated."""


class Protection(Protocol):
    """How a handset makes and reads bodies."""

    def write(self, message: PinMessage, entry: DeviceEntry, entropy: Callable[[int], bytes]) -> bytes:
        """The body of a message for the device of that entry."""

    def read(self, body: bytes, device: DeviceKeys) -> PinMessage:
        """The message in a body that came to that device.

        Raises:
            FormatError: it does not open.
        """


class PinProtection:
    """The global PIN key."""

    def write(self, message: PinMessage, entry: DeviceEntry, entropy: Callable[[int], bytes]) -> bytes:
        """Scrambled under the key that all handsets have; whom it is for makes no difference."""
        return write_message(message, entropy)

    def read(self, body: bytes, device: DeviceKeys) -> PinMessage:
        """Unscrambled."""
        return read_message(body)


class Handset:
    """One person's phone.

    Args:
        account: the person's address.
        card: the relay's card.
        entropy: gives random bytes.
        protection: how bodies are made and read; the global PIN key if not given.
    """

    def __init__(
        self,
        account: str,
        card: RelayCard,
        entropy: Callable[[int], bytes] = os.urandom,
        protection: "Protection | None" = None,
    ) -> None:
        self.account = account
        self.received: list[PinMessage] = []
        self.receipts: list[Receipt] = []
        self._card = card
        self._entropy = entropy
        self._protection = PinProtection() if protection is None else protection
        self._account_key = AccountKey.generate(entropy)
        self.device = DeviceKeys.generate(entropy)
        self._link = Link(card, [self.device.signing], entropy)
        self._channel: Channel | None = None
        self._answers: dict[int, asyncio.Future[Event]] = {}
        self._seen: set[bytes] = set()
        self._arrived = asyncio.Event()

    def __repr__(self) -> str:
        return f"Handset(account={self.account!r}, received={len(self.received)}, keys=<redacted>)"

    @contextlib.asynccontextmanager
    async def connected(self, transport: Transport) -> AsyncIterator[None]:
        """Hold a connection; whoever leaves the block is offline, and mail waits at the relay."""
        up, down = topics_of(self._card.relay_id, device_tag(self.device.public))
        async with transport.connect(up, down) as channel:
            self._channel = channel
            self._link.connect(time.monotonic())
            task = asyncio.create_task(self._serve(channel))
            try:
                yield
            finally:
                self._channel = None
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def enrol(self, token: Token) -> None:
        """Become the device of the account.

        Raises:
            Refused: the relay refused the token.
        """
        _, prekeys = PrekeyRing.generate(self.device, int(time.time()), _ONE_TIME_PREKEYS, self._entropy)
        devices = self._account_key.first_list(self.account, [self.device.entry])
        await self._ask(lambda ref: Enrol(ref, token, devices, prekeys))

    async def subscribe(self) -> None:
        """Let what waits, and what comes, be delivered."""
        await self._ask(lambda ref: Subscribe(ref, self.device.mailbox, 0, _CREDIT))

    async def send(self, recipients: Sequence[str], kind: Kind, payload: bytes) -> list[Receipt]:
        """Send one message to every device of every recipient; returns the relay's receipts, verified.

        Raises:
            Refused: a recipient is unknown, or the relay takes no more.
        """
        receipts: list[Receipt] = []
        for account in recipients:
            receipts.extend(await self._submit(account, tuple(recipients), kind, payload))
        self.receipts.extend(receipts)
        return receipts

    async def wait_received(self, count: int) -> None:
        """Wait until that many messages have been read in all."""
        while len(self.received) < count:
            self._arrived.clear()
            await self._arrived.wait()

    async def _submit(self, account: str, audience: tuple[str, ...], kind: Kind, payload: bytes) -> list[Receipt]:
        found = await self._ask(lambda ref: LookUp(ref, account, want_bundles=False))
        assert isinstance(found, DirectoryEvent)
        message_id, sent_ms = self._entropy(16), time.time_ns() // 1_000_000
        expiry = -(-(int(time.time()) + _EXPIRY_S) // _HOUR_S) * _HOUR_S
        envelopes = []
        for entry in verify_signed_list(found.signed_list).devices:
            token = self._entropy(16)
            message = PinMessage(token, int(kind), message_id, sent_ms, NO_REPLY, (self.account, *audience), payload)
            body = self._protection.write(message, entry, self._entropy)
            envelopes.append(Envelope(entry.mailbox, envelope_id_of(token), expiry, body))
        hashed = list_hash(found.signed_list)
        event = await self._ask(lambda ref: Submit(ref, account, hashed, tuple(envelopes)))
        assert isinstance(event, ReceiptsEvent)
        receipts = []
        for given in event.entries:
            receipt = receipt_of(envelopes[given.position], event.header, event.signature, given)
            verify_receipt(self._card.signing_key, receipt)
            receipts.append(receipt)
        return receipts

    async def _ask(self, command_of: Callable[[int], DeviceCommand]) -> Event:
        if self._channel is None:
            raise TransportClosed(f"the handset of {self.account} is off")
        ref = self._link.ask(command_of)
        answer: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._answers[ref] = answer
        await self._push()
        event = await answer
        if isinstance(event, RefusedEvent):
            raise Refused("handset's request", event.code, event.field, event.limit)
        return event

    async def _serve(self, channel: Channel) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                # A channel's `receive` is left waiting: to cancel it at each deadline could end the connection.
                group.create_task(self._receive(channel))
                group.create_task(self._repeat())
        except* BlindpostError as errors:
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(errors.exceptions[0])

    async def _receive(self, channel: Channel) -> None:
        while True:
            packet = await channel.receive()
            for event in self._link.receive(packet, time.monotonic()):
                self._take(event)
            await self._push()

    async def _repeat(self) -> None:
        while True:
            await self._push()
            await asyncio.sleep(_REPEAT_S)

    async def _push(self) -> None:
        if self._channel is not None:
            for packet in self._link.take_packets(time.monotonic()):
                await self._channel.send(packet)

    def _take(self, event: Event) -> None:
        match event:
            case ReceiptsEvent(header, signature, entries):
                # A submit is stored whole, so all its receipts come in one event.
                for ref in {entry.ref for entry in entries}:
                    self._link.settle(ref)
                    own = tuple(entry for entry in entries if entry.ref == ref)
                    self._answer(ref, ReceiptsEvent(header, signature, own))
            case DoneEvent(ref) | DirectoryEvent(ref) | RefusedEvent(ref):
                self._answer(ref, event)
            case DeliveryEvent(mailbox, envelopes):
                messages = [self._protection.read(envelope.body, self.device) for envelope in envelopes]
                fresh = [message for message in messages if message.token not in self._seen]
                self._seen.update(message.token for message in fresh)
                self.received.extend(fresh)
                tokens = tuple(message.token for message in messages)
                self._link.ask(lambda ref: Ack(ref, mailbox, tokens))
                self._arrived.set()
            case _:
                pass  # the link is up, or somebody else answered for the relay: neither is an answer to a question

    def _answer(self, ref: int, event: Event) -> None:
        answer = self._answers.pop(ref, None)
        if answer is not None and not answer.done():
            answer.set_result(event)
