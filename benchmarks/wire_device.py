"""A device that speaks links and frames and nothing above: it sends random bodies of the right size (protocol.md 5, 6).

The load of `benchmarks relay`, and the honest counterpart in the relay's tests. It repeats what is not
answered, starts a new handshake when the relay does not know its link, checks every receipt, and notes every
envelope that it is given, so that a lost or doubled one shows.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import aiomqtt

from wire.codec import decode
from wire.commands import (
    Ack,
    Delivery,
    DeviceCommand,
    Directory,
    Done,
    Enrol,
    Linked,
    Receipts,
    Refusal,
    Submit,
    Subscribe,
    decode_relay_commands,
    encode_commands,
)
from wire.envelope import Envelope, envelope_id_of
from wire.errors import BlindpostError, RefusalCode
from wire.identity import (
    NO_PREVIOUS,
    Activation,
    DeviceEntry,
    DeviceList,
    SignedList,
    Token,
    device_tag,
    list_hash,
    sign_activation,
    sign_list,
)
from wire.limits import ML_KEM_768_PUBLIC_BYTES
from wire.link import (
    FRAME,
    UNKNOWN_LINK,
    WELCOME,
    FrameOpener,
    FrameSealer,
    PendingHello,
    accept_welcome,
    begin_hello,
    link_id_of,
)
from wire.prekeys import (
    KemPrekey,
    Prekeys,
    SignedPrekey,
    kem_prekey_signed_bytes,
    signed_prekey_signed_bytes,
)
from wire.receipt import CommitHeader, Receipt, receipt_of, verify_receipt
from wire.rotation import RotationRecord, key_at
from wire.signing import SigningKey

HOUR_S = 3_600
REPEAT_S = 1.0
SILENCE_S = 1.0
BODY_BYTES = 1_040
"""An ordinary body around 896 bytes of padded content (section 4.4)."""


class Refused(BlindpostError):
    """The relay refused a command for good."""

    def __init__(self, refusal: Refusal) -> None:
        self.code = RefusalCode(refusal.code)
        super().__init__(f"{self.code.name}: {refusal.field}")


class Port(Protocol):
    """A way to the relay: through MQTT, or a loopback network."""

    async def send(self, packet: bytes) -> None:
        """Send one packet."""

    async def receive(self) -> bytes:
        """Wait for the next packet."""


@dataclass(frozen=True, slots=True)
class Mail:
    """An envelope and the token that acknowledges it."""

    token: bytes
    envelope: Envelope


def activation_token(admin: SigningKey, account: str) -> Token:
    """A token for an account, one hour long."""
    tenant = account.partition("@")[2]
    return sign_activation(admin, Activation(tenant, account, os.urandom(16), int(time.time()) + HOUR_S))


class WireDevice:
    """One device: keys, link, commands under way, what it was given.

    Args:
        account: its account, whose first and only device it is.
        relay_id: 16 bytes.
        relay_key: the first signing key, from the relay's card.
    """

    def __init__(self, account: str, relay_id: bytes, relay_key: bytes) -> None:
        self.account = account
        self.key = SigningKey(os.urandom(32))
        self.account_key = SigningKey(os.urandom(32))
        self.mailbox = os.urandom(16)
        entry = DeviceEntry(self.key.public, os.urandom(32), self.mailbox)
        devices = DeviceList(account, 1, NO_PREVIOUS, self.account_key.public, (entry,))
        self.signed_list: SignedList = sign_list(self.account_key, devices)
        self.list_hash = list_hash(self.signed_list)
        self.rotations: list[RotationRecord] = []
        self.received: dict[int, bytes] = {}
        """Envelope id by number, of everything that was delivered."""
        self.numbers: dict[bytes, int] = {}
        """Number by envelope id."""
        self.bodies: dict[bytes, bytes] = {}
        """Body by envelope id, where `keep_bodies`."""
        self.keep_bodies = False
        self.doubled: list[bytes] = []
        self.tokens: dict[bytes, bytes] = {}
        """Token by envelope id: what this device may acknowledge (told here; in earnest it is inside the body)."""
        self.acknowledge = True
        self.receipts: list[Receipt] = []
        self.refusals: list[RefusalCode] = []
        self.links = 0
        self._relay_id = relay_id
        self._relay_key = relay_key
        self._port: Port | None = None
        self._ref = 0
        self._pending: PendingHello | None = None
        self._sealer: FrameSealer | None = None
        self._opener: FrameOpener | None = None
        self._next: tuple[FrameSealer, FrameOpener, bytes] | None = None
        self._link_id = b""
        self._linked = asyncio.Event()
        self._waiting: dict[int, tuple[DeviceCommand, asyncio.Future[None]]] = {}
        self._sent_s: dict[int, float] = {}
        self._got: dict[int, dict[int, Receipt]] = {}
        self._found: dict[int, Directory] = {}
        self._subscription: tuple[int, int] | None = None
        self._heard_s = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def tag(self) -> bytes:
        """What names the device in topics."""
        return device_tag(self.key.public)

    @property
    def unanswered(self) -> int:
        """How many commands wait for their answer."""
        return len(self._waiting)

    async def start(self, port: Port) -> None:
        """Listen on a way to the relay, and link."""
        self._port = port
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._repeat())]
        await self._hello()
        await self._linked.wait()

    async def stop(self) -> None:
        """Stop listening; the relay sees a device that went silent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- commands

    async def enrol(self, token: Token) -> None:
        """Enrol as the account's first device."""
        prekey_id, key, kem_key = os.urandom(16), os.urandom(32), os.urandom(ML_KEM_768_PUBLIC_BYTES)
        prekeys = Prekeys(
            self.key.public,
            SignedPrekey(prekey_id, key, self.key.sign("signed-prekey", signed_prekey_signed_bytes(prekey_id, key))),
            KemPrekey(prekey_id, kem_key, self.key.sign("kem-prekey", kem_prekey_signed_bytes(prekey_id, kem_key))),
            (),
        )
        await self.ask(lambda ref: Enrol(ref, token, self.signed_list, prekeys))

    async def subscribe(self, credit: int = 1_024, after: int = 0) -> None:
        """Ask for deliveries, now and on every link that follows."""
        self._subscription = after, credit
        await self.ask(lambda ref: Subscribe(ref, self.mailbox, after, credit))

    def mail_to(self, other: "WireDevice", body_bytes: int = BODY_BYTES) -> Mail:
        """A new envelope for another device, which learns its token."""
        token = os.urandom(16)
        envelope_id = envelope_id_of(token)
        other.tokens[envelope_id] = token
        expiry = (int(time.time()) // HOUR_S + 25) * HOUR_S
        return Mail(token, Envelope(other.mailbox, envelope_id, expiry, os.urandom(body_bytes)))

    async def submit(self, other: "WireDevice", mails: Sequence[Mail]) -> list[Receipt]:
        """Submit envelopes for another device; returns their receipts, verified."""
        envelopes = tuple(mail.envelope for mail in mails)
        ref = await self.ask(lambda ref: Submit(ref, other.account, other.list_hash, envelopes))
        got = self._got.pop(ref)
        receipts = [got[position] for position in range(len(envelopes))]
        self.receipts.extend(receipts)
        return receipts

    async def ask(self, command_of: Callable[[int], DeviceCommand]) -> int:
        """Send a command and wait until it is answered, repeating it; returns its ref.

        Raises:
            Refused: it was refused for good.
        """
        self._ref += 1
        ref = self._ref
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        command = command_of(ref)
        self._waiting[ref] = command, answered
        if self._linked.is_set():
            await self._send([command])
        await answered
        return ref

    def check_receipts(self, receipts: Iterable[Receipt] | None = None) -> int:
        """Verify receipts under the relay's key of their commit; returns how many.

        Raises:
            SignatureError, FormatError: one is not good.
        """
        count = 0
        for receipt in self.receipts if receipts is None else receipts:
            index = _index_of(receipt.header)
            verify_receipt(key_at(self._relay_key, self.rotations, index), receipt)
            count += 1
        return count

    # ---- the link

    async def _hello(self) -> None:
        self._pending = begin_hello(self._relay_id, os.urandom)
        self._sent_s[0] = time.monotonic()
        await self._put(self._pending.packet)

    async def _send(self, commands: Sequence[DeviceCommand]) -> None:
        assert self._sealer is not None
        now_s = time.monotonic()
        for command in commands:
            self._sent_s[command.ref] = now_s
        await self._put(self._sealer.seal(encode_commands(commands)))

    async def _put(self, packet: bytes) -> None:
        assert self._port is not None, "not started"
        await self._port.send(packet)

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(REPEAT_S / 4)
            before_s = time.monotonic() - REPEAT_S
            if not self._linked.is_set() or self._pending is not None:
                if self._sent_s.get(0, 0.0) < before_s:
                    await self._hello()
                continue
            for ref, (command, _) in list(self._waiting.items()):
                if self._sent_s.get(ref, 0.0) < before_s:
                    await self._send([command])
            # A relay that was restarted does not know that this device waits; it must be asked.
            if self._subscription is not None and not self._waiting and self._heard_s < before_s - SILENCE_S:
                self._again()

    async def _listen(self) -> None:
        handlers: dict[int, Callable[[bytes], Awaitable[None]]] = {
            WELCOME: self._on_welcome,
            FRAME: self._on_frame,
            UNKNOWN_LINK: self._on_unknown,
        }
        assert self._port is not None, "not started"
        while True:
            packet = await self._port.receive()
            handler = handlers.get(packet[0])
            if handler is not None:
                await handler(packet)

    async def _on_welcome(self, packet: bytes) -> None:
        if self._pending is None:
            return
        try:
            keys, rotations, prove = accept_welcome(self._pending, self._relay_key, packet, [self.key])
        except BlindpostError:
            # A welcome to an older hello: the one to this follows, or the hello is repeated.
            return
        self.rotations = rotations
        self._pending = None
        sealer, opener = FrameSealer(keys.link_id, keys.up_key), FrameOpener(keys.down_key)
        self._next = sealer, opener, keys.link_id
        self._linked.clear()
        await self._put(prove)

    async def _on_frame(self, packet: bytes) -> None:
        plain = None
        if self._next is not None and link_id_of(packet) == self._next[2]:
            plain = self._next[1].open(packet)
            if plain is None:
                return
            self._sealer, self._opener, self._link_id = self._next
            self._next = None
        elif self._opener is not None and link_id_of(packet) == self._link_id:
            plain = self._opener.open(packet)
        if plain is None:
            return
        self._heard_s = time.monotonic()
        acks: list[bytes] = []
        for command in decode_relay_commands(plain):
            if isinstance(command, Delivery):
                acks.extend(self._on_delivery(command))
            elif isinstance(command, Receipts):
                self._on_receipts(command)
            elif isinstance(command, Done):
                for ref in command.refs:
                    self._answered(ref)
            elif isinstance(command, Directory):
                self._found[command.ref] = command
                self._answered(command.ref)
            elif isinstance(command, Refusal):
                self._on_refusal(command)
            elif isinstance(command, Linked):
                await self._on_linked(command)
        for start in range(0, len(acks), 256):
            self._ack(tuple(acks[start : start + 256]))

    def _ack(self, tokens: tuple[bytes, ...]) -> None:
        self._later(lambda ref: Ack(ref, self.mailbox, tokens))

    def _again(self) -> None:
        assert self._subscription is not None
        after, credit = self._subscription
        self._heard_s = time.monotonic()
        self._later(lambda ref: Subscribe(ref, self.mailbox, after, credit))

    def _later(self, command_of: Callable[[int], DeviceCommand]) -> None:
        async def asked() -> None:
            await self.ask(command_of)

        task = asyncio.create_task(asked())
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    async def _on_linked(self, command: Linked) -> None:
        assert command.devices[0].device_key == self.key.public
        self.links += 1
        self._linked.set()
        if self.links > 1 and self._subscription is not None:
            self._again()
        for ref, (waiting, _) in list(self._waiting.items()):
            self._sent_s[ref] = time.monotonic()
            await self._send([waiting])

    async def _on_unknown(self, packet: bytes) -> None:
        if self._pending is None and self._next is None and link_id_of(packet) == self._link_id:
            await self._hello()

    def _on_delivery(self, delivery: Delivery) -> list[bytes]:
        tokens = []
        for one in delivery.envelopes:
            # Repeats of a delivery are the protocol's; the same envelope under two numbers is one too many.
            if self.received.setdefault(one.number, one.envelope_id) != one.envelope_id:
                self.doubled.append(one.envelope_id)
            if self.numbers.setdefault(one.envelope_id, one.number) != one.number:
                self.doubled.append(one.envelope_id)
            if self.keep_bodies:
                self.bodies[one.envelope_id] = one.body
            token = self.tokens.get(one.envelope_id)
            if token is not None and self.acknowledge:
                tokens.append(token)
        return tokens

    def _on_receipts(self, receipts: Receipts) -> None:
        for entry in receipts.entries:
            waiting = self._waiting.get(entry.ref)
            if waiting is None or not isinstance(waiting[0], Submit):
                continue
            envelopes = waiting[0].envelopes
            got = self._got.setdefault(entry.ref, {})
            got[entry.position] = receipt_of(envelopes[entry.position], receipts.header, receipts.signature, entry)
            if len(got) == len(envelopes):
                self._answered(entry.ref)

    def _on_refusal(self, refusal: Refusal) -> None:
        code = RefusalCode(refusal.code)
        self.refusals.append(code)
        waiting = self._waiting.get(refusal.ref)
        if waiting is None:
            return
        if code.definite:
            del self._waiting[refusal.ref]
            if not waiting[1].done():
                waiting[1].set_exception(Refused(refusal))
        else:
            # Repeated when the pause that the relay asks for is over.
            self._sent_s[refusal.ref] = time.monotonic() + refusal.retry_after_ms / 1_000 - REPEAT_S

    def _answered(self, ref: int) -> None:
        waiting = self._waiting.pop(ref, None)
        self._sent_s.pop(ref, None)
        if waiting is not None and not waiting[1].done():
            waiting[1].set_result(None)


def _index_of(header: bytes) -> int:
    return decode(CommitHeader, header, "commit header").index


class _Arrivals(asyncio.Queue[aiomqtt.Message]):
    """Hands messages on by topic instead of queueing them."""

    def __init__(self, hub: "MqttHub") -> None:
        super().__init__()
        self._hub = hub

    def put_nowait(self, item: aiomqtt.Message) -> None:
        assert isinstance(item.payload, (bytes, bytearray))
        self._hub.arrived(item.topic.value, bytes(item.payload))


class MqttHub:
    """One MQTT connection that carries many devices, each by topics of its own.

    Args:
        host: the broker's.
        port: the broker's.
        relay_id: names the topics.
    """

    def __init__(self, host: str, port: int, relay_id: bytes) -> None:
        self._host = host
        self._port = port
        self._relay_id = relay_id
        self._queues: dict[str, asyncio.Queue[bytes]] = {}
        self._client: aiomqtt.Client | None = None
        self._task: asyncio.Task[None] | None = None
        self._up = asyncio.Event()

    async def start(self) -> None:
        """Connect, and stay connected."""
        self._task = asyncio.create_task(self._stay())
        await self._up.wait()

    async def stop(self) -> None:
        """Disconnect."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def port(self, tag: bytes) -> "MqttPort":
        """A device's way to the relay."""
        topic = f"bp/{self._relay_id.hex()}/{tag.hex()}/down"
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queues[topic] = queue
        if self._client is not None:
            await self._client.subscribe(topic)
        return MqttPort(self, f"bp/{self._relay_id.hex()}/{tag.hex()}/up", queue)

    async def publish(self, topic: str, packet: bytes) -> None:
        """Publish; dropped while there is no broker."""
        client = self._client
        if client is not None:
            # paho's own publish queues and returns; what is under way is bounded by the commands that wait for answers.
            client._client.publish(topic, packet)

    def arrived(self, topic: str, packet: bytes) -> None:
        """Take a message of the broker."""
        queue = self._queues.get(topic)
        if queue is not None:
            queue.put_nowait(packet)

    async def _stay(self) -> None:
        while True:
            try:
                client = aiomqtt.Client(
                    self._host,
                    self._port,
                    queue_type=lambda maxsize: _Arrivals(self),  # type: ignore[arg-type]
                    timeout=3,
                )
                async with client:
                    for topic in self._queues:
                        await client.subscribe(topic)
                    self._client = client
                    self._up.set()
                    async for _ in client.messages:
                        raise AssertionError("the queue yields nothing")
            except (aiomqtt.MqttError, OSError):
                await asyncio.sleep(0.1)
            finally:
                self._client = None


class MqttPort:
    """One device's topics on a hub. Meets `Port`."""

    def __init__(self, hub: MqttHub, topic: str, queue: asyncio.Queue[bytes]) -> None:
        self._hub = hub
        self._topic = topic
        self._queue = queue

    async def send(self, packet: bytes) -> None:
        """Send a packet to the relay."""
        await self._hub.publish(self._topic, packet)

    async def receive(self) -> bytes:
        """Wait for the next packet from the relay."""
        return await self._queue.get()
