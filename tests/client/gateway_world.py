"""What the gateway's tests share: whole devices behind a gateway, and light ones that only ask, prove and hear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from client.device import Device
from client.errors import TransportClosed
from client.gateway import Gateway, GatewayLimits, Member
from client.gateway.messages import Answers, Confirmed, Heard, Offer, answer_offer
from client.gateway_link import GatewayTransport
from client.state import Settings
from keys.vault import CHEAP_FOR_TESTS
from tests.client.world import PASSPHRASE, START_S, World
from wire.commands import (
    Delivered,
    Delivery,
    DeviceCommand,
    Directory,
    Done,
    Enrol,
    Receipts,
    Refusal,
    Submit,
    Subscribe,
)
from wire.envelope import Envelope, envelope_id_of
from wire.errors import RefusalCode
from wire.identity import NO_PREVIOUS, DeviceEntry, DeviceList, SignedList, Token, list_hash, sign_list
from wire.limits import ML_KEM_768_PUBLIC_BYTES
from wire.prekeys import (
    KemPrekey,
    Prekeys,
    SignedPrekey,
    kem_prekey_signed_bytes,
    signed_prekey_signed_bytes,
)
from wire.receipt import receipt_of, verify_receipt
from wire.signing import SigningKey

SEED = b"gateway's own seed, 32 bytes ..."
Answer = Done | Refusal | Directory | list[int]


@asynccontextmanager
async def a_gateway(world: World, limits: GatewayLimits | None = None) -> AsyncIterator[Gateway]:
    async with Gateway(world.card, SEED, world, random=world.entropy, limits=limits) as gateway:
        yield gateway


def behind(
    world: World, gateway: Gateway, account: str, settings: Settings | None = None, transport: Any = None
) -> Device:
    """A whole device whose engine meets the gateway in place of the relay."""
    arguments = world._arguments(settings) | {"transport": transport or GatewayTransport(gateway)}
    return Device.new(
        world.folder / account, world.card, world.token(account), PASSPHRASE, cost=CHEAP_FOR_TESTS, **arguments
    )


class Carried:
    """A light device: keys, a list, random bodies; it speaks for itself through a `Member`."""

    def __init__(self, world: World, account: str) -> None:
        self.world = world
        self.account = account
        self.key = SigningKey(world.entropy(32))
        self.mailbox = world.entropy(16)
        self.account_key = SigningKey(world.entropy(32))
        entry = DeviceEntry(self.key.public, world.entropy(32), self.mailbox)
        self.signed = sign_list(
            self.account_key, DeviceList(account, 1, NO_PREVIOUS, self.account_key.public, (entry,))
        )
        self.list_hash = list_hash(self.signed)
        self.signs = True
        self.confirmed = 0
        self.credit = 0
        self.up = asyncio.Event()
        self.delivered: list[Delivered] = []
        self.refusals: list[Refusal] = []
        self.numbers: dict[int, dict[int, int]] = {}
        self.ref = 0
        self._waiting: dict[int, tuple[DeviceCommand, asyncio.Future[Answer]]] = {}
        self.member: Member | None = None
        self._task: asyncio.Task[None] | None = None

    def join(self, gateway: Gateway, mailbox: bytes | None = None) -> Member:
        self.member = gateway.join(self.key.public, mailbox or self.mailbox)
        self._task = asyncio.create_task(self._run(self.member))
        return self.member

    async def enrolled(self, gateway: Gateway) -> Carried:
        """Join and enrol."""
        self.join(gateway)
        done = await self.ask(lambda ref: Enrol(ref, *self.enrolment()))
        assert isinstance(done, Done)
        return self

    async def subscribed(self, gateway: Gateway, credit: int = 64) -> Carried:
        """Join, enrol and subscribe."""
        await self.enrolled(gateway)
        assert isinstance(await self.subscribe(credit=credit), Done)
        self.credit = credit
        return self

    def enrolment(self) -> tuple[Token, SignedList, Prekeys]:
        return self.world.token(self.account), self.signed, self.prekeys()

    def prekeys(self) -> Prekeys:
        prekey_id, key, kem = bytes(16), bytes(31) + b"\x09", bytes(ML_KEM_768_PUBLIC_BYTES)
        return Prekeys(
            self.key.public,
            SignedPrekey(prekey_id, key, self.key.sign("signed-prekey", signed_prekey_signed_bytes(prekey_id, key))),
            KemPrekey(prekey_id, kem, self.key.sign("kem-prekey", kem_prekey_signed_bytes(prekey_id, kem))),
            (),
        )

    async def _run(self, member: Member) -> None:
        try:
            while True:
                for message in await member.hear():
                    self._hear(member, message)
        except TransportClosed:
            return

    def _hear(self, member: Member, message: Heard) -> None:
        match message:
            case Offer():
                if self.signs:
                    proof, _chain = answer_offer(
                        self.key, self.world.card.relay_id, self.world.card.signing_key, message
                    )
                    member.prove(proof.transcript, proof.signature)
            case Confirmed():
                self.confirmed += 1
                self.up.set()
                if self.credit:
                    self.put(lambda ref: Subscribe(ref, self.mailbox, 0, self.credit))
            case Answers(commands):
                for command in commands:
                    self._answered(member, command)

    def _answered(self, member: Member, command: Any) -> None:
        match command:
            case Delivery(mailbox, envelopes):
                assert mailbox == self.mailbox, "a delivery for somebody else"
                self.delivered.extend(envelopes)
            case Done(refs):
                for ref in refs:
                    self._end(ref, command)
            case Directory(ref):
                self._end(ref, command)
            case Refusal():
                self.refusals.append(command)
                if RefusalCode(command.code).definite:
                    self._end(command.ref, command)
            case Receipts(header, signature, entries):
                for entry in entries:
                    asked = self._waiting.get(entry.ref)
                    if asked is None:
                        continue
                    submit = asked[0]
                    assert isinstance(submit, Submit), "a receipt for what is no submit of this device"
                    receipt = receipt_of(submit.envelopes[entry.position], header, signature, entry)
                    verify_receipt(self.world.key.public, receipt)
                    numbers = self.numbers.setdefault(entry.ref, {})
                    numbers[entry.position] = entry.number
                    if len(numbers) == len(submit.envelopes):
                        member.settle(entry.ref)
                        self._end(entry.ref, [numbers[position] for position in sorted(numbers)])

    def _end(self, ref: int, answer: Answer) -> None:
        asked = self._waiting.pop(ref, None)
        assert asked is not None or isinstance(answer, Done), f"{ref} is answered, and was not asked by this device"
        if asked is not None and not asked[1].done():
            asked[1].set_result(answer)

    def put(self, command_of: Callable[[int], DeviceCommand]) -> asyncio.Future[Answer]:
        """Ask, and do not wait."""
        assert self.member is not None
        self.ref += 1
        command = command_of(self.ref)
        self.member.ask(command)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[self.ref] = command, future
        return future

    async def ask(self, command_of: Callable[[int], DeviceCommand], wait_s: float = 600) -> Answer:
        return await asyncio.wait_for(self.put(command_of), wait_s)

    async def subscribe(self, mailbox: bytes | None = None, credit: int = 64) -> Answer:
        return await self.ask(lambda ref: Subscribe(ref, mailbox or self.mailbox, 0, credit))

    def envelope(self, to: Carried, body_bytes: int = 400) -> Envelope:
        expiry = (int(self.world.now()) // 3_600 + 48) * 3_600
        assert expiry > START_S
        return Envelope(to.mailbox, envelope_id_of(self.world.entropy(16)), expiry, self.world.entropy(body_bytes))

    def submit(self, to: Carried, body_bytes: int = 400) -> asyncio.Future[Answer]:
        """Submit one envelope, and do not wait; the future has its number."""
        envelope = self.envelope(to, body_bytes)
        return self.put(lambda ref: Submit(ref, to.account, to.list_hash, (envelope,)))
