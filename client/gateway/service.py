"""The gateway at work: links to the relay, and the devices behind it; the part that knows asyncio.

    async with Gateway(card, seed, MqttTransport(card.broker)) as gateway:
        member = gateway.join(device_key, mailbox)     whoever speaks for a device in this process
        door = Door(gateway)                           for a device that speaks the local protocol (door.py)

One task for each link; each link has a key of the gateway's own and a connection to the broker on that key's topic. A
device goes to the first link that has room and on which nobody claims its mailbox: two devices that claim one are on
two links, where the relay tells whose it is. A device that joins again takes the place of its former self.

The gateway holds link keys, and of its devices what the relay gets as well: envelopes, acks, look-ups. No key of a
device comes here, and nothing in this package imports keys/ (import-linter sees to it).
"""

import asyncio
import os
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from client.backoff import Backoff, Random
from client.errors import GatewayBusy, TransportClosed
from client.gateway.limits import GatewayLimits
from client.gateway.link import SharedLink
from client.gateway.messages import Heard
from client.gateway.seat import Seat
from client.transport import Channel, Transport, topics_of
from wire.card import RelayCard
from wire.codec import decode, encode
from wire.commands import DeviceCommand, RelayCommand
from wire.errors import BlindpostError
from wire.hashing import keyed
from wire.identity import device_tag
from wire.limits import KEY_BYTES
from wire.signing import SigningKey

__all__ = ["Gateway", "Member", "link_key"]

# Packets that are handled before what they caused is sent: one commit of the relay often comes as several.
_PACKETS_PER_TURN: Final = 64


class Member:
    """A device that the gateway carries, as seen by whoever speaks for it. Made by `Gateway.join`.

    It hears of handshakes as `Offer`, answers with `prove`, and may ask at any time: what it asks waits for the link.
    """

    def __init__(self, lane: "Lane", seat: Seat) -> None:
        self._lane = lane
        self.seat = seat
        self._left = False
        self._told = asyncio.Event()

    def __repr__(self) -> str:
        return f"Member({self.seat!r})"

    @property
    def device_key(self) -> bytes:
        """The device's key, which names it."""
        return self.seat.device_key

    @property
    def on_link(self) -> bool:
        """Whether the standing link speaks for this device."""
        return self.seat.on_link

    @property
    def unheard(self) -> int:
        """Answers and deliveries that were dropped because this device did not take what it had."""
        return self.seat.unheard

    @property
    def asked(self) -> int:
        """Commands that wait for an answer."""
        return len(self.seat.asked)

    def prove(self, transcript: bytes, signature: bytes) -> None:
        """Hand over the device's signature for an offered link.

        Raises:
            SignatureError: it is none; the device stays out.
            TransportClosed: it has left.
        """
        self._here().link.prove(self.seat, transcript, signature)
        self._lane.wake()

    def ask(self, command: DeviceCommand) -> None:
        """Queue a command; its ref is the device's own, and one that is under way already is not queued twice.

        Raises:
            FormatError: it is malformed, or too large for a frame.
            Refused: the device may not ask this.
            GatewayBusy: its queue is full; nothing was taken, ask again.
            TransportClosed: it has left.
        """
        self.ask_decoded(decode(DeviceCommand, encode(command), "command"))

    def ask_decoded(self, command: DeviceCommand) -> None:
        """The same of a command that was just decoded, so that it is well-formed.

        Raises:
            FormatError, Refused, GatewayBusy, TransportClosed: as `ask`.
        """
        self._here().link.ask(self.seat, command)
        self._lane.wake()

    def answer(self, command: RelayCommand) -> None:
        """Let the device hear an answer of the gateway's own."""
        self._here().link.answer(self.seat, command)
        self._told.set()

    def settle(self, *refs: int) -> None:
        """Nobody waits for these any more: a submit whose receipts have been verified, or anything taken back.

        Raises:
            TransportClosed: it has left.
        """
        self._here().link.settle(self.seat, refs)
        self._lane.wake()

    async def hear(self) -> list[Heard]:
        """Wait for what there is to hear, in its order.

        Raises:
            TransportClosed: it has left, or its place was taken by itself, come again.
        """
        while not self.seat.heard:
            if self._left:
                raise TransportClosed("the gateway carries this device no more")
            self._told.clear()
            await self._told.wait()
        return self._lane.link.take_heard(self.seat)

    def leave(self) -> None:
        """The gateway speaks for this device no more; what it asked is dropped. Safe to call twice."""
        self._lane.leave(self)

    def _here(self) -> "Lane":
        if self._left:
            raise TransportClosed("the gateway carries this device no more")
        return self._lane

    def tell(self) -> None:
        """There is something to hear."""
        self._told.set()

    def gone(self) -> None:
        """It has left."""
        self._left = True
        self._told.set()


class Lane:
    """One link with its connection to the broker.

    Args:
        link: the link.
        relay_id: names the topics.
        transport: makes connections.
        random: for waits.
        limits: how long to wait.
    """

    def __init__(
        self, link: SharedLink, relay_id: bytes, transport: Transport, random: Random, limits: GatewayLimits
    ) -> None:
        self.link = link
        self.last_error: BlindpostError | None = None
        self._topics = topics_of(relay_id, device_tag(link.key.public))
        self._transport = transport
        self._backoff = Backoff(limits.reconnect_first_s, limits.reconnect_last_s, random)
        self._members: dict[bytes, Member] = {}
        self._packets: deque[bytes] = deque()
        self._room = asyncio.Event()
        self._wake = asyncio.Event()
        self._closing = False

    def __repr__(self) -> str:
        return f"Lane({self.link!r})"

    @property
    def members(self) -> tuple[Member, ...]:
        """The devices of this link."""
        return tuple(self._members.values())

    def join(self, device_key: bytes, mailbox: bytes) -> Member:
        """A device takes its place."""
        seat = self.link.admit(device_key, mailbox)
        member = self._members[device_key] = Member(self, seat)
        self._tell()
        self.wake()
        return member

    def leave(self, member: Member) -> None:
        """A device goes."""
        if self._members.get(member.device_key) is member:
            del self._members[member.device_key]
            self.link.release(member.seat)
            member.gone()
            self.wake()

    def member_of(self, device_key: bytes) -> Member | None:
        """The device of that key, if this link carries it."""
        return self._members.get(device_key)

    def wake(self) -> None:
        """There is something to send."""
        self._wake.set()

    def close(self) -> None:
        """Stop."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Keep a connection until `close`; comes back from every failure of broker and relay."""
        while not self._closing:
            try:
                async with self._transport.connect(*self._topics) as channel:
                    self._packets.clear()
                    self.link.connect(_mono_s())
                    await self._serve(channel)
            except TransportClosed as error:
                self.last_error = error
            if not self._closing:
                await asyncio.sleep(self._backoff.next_s())

    async def _serve(self, channel: Channel) -> None:
        reader = asyncio.create_task(self._read(channel))
        try:
            while not self._closing:
                now_s = _mono_s()
                for _ in range(min(len(self._packets), _PACKETS_PER_TURN)):
                    self.link.receive(self._packets.popleft(), now_s)
                self._room.set()
                self._tell()
                if self.link.up:
                    self._backoff.reset()
                for packet in self.link.take_packets(now_s):
                    await channel.send(packet)
                if self._packets:
                    # A full queue gives its packets without waiting: the devices must have their turn.
                    await asyncio.sleep(0)
                    continue
                await self._wait(reader)
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError, TransportClosed):
                await reader

    def _tell(self) -> None:
        for seat in self.link.take_told():
            member = self._members.get(seat.device_key)
            if member is not None:
                member.tell()

    async def _read(self, channel: Channel) -> None:
        while True:
            packet = await channel.receive()
            self._packets.append(packet)
            self._wake.set()
            if len(self._packets) >= _PACKETS_PER_TURN:
                self._room.clear()
                await self._room.wait()

    async def _wait(self, reader: "asyncio.Task[None]") -> None:
        """Until something arrives, somebody wakes us, or a deadline comes."""
        if not self._wake.is_set():
            deadline_s = self.link.next_deadline_s()
            # Never shorter than a clock's step, or a deadline one rounding away would be waited for in a circle.
            timeout_s = None if deadline_s is None else max(0.001, deadline_s - _mono_s())
            waking = asyncio.create_task(self._wake.wait())
            try:
                await asyncio.wait({waking, reader}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waking.cancel()
        else:
            await asyncio.sleep(0)
        self._wake.clear()
        if reader.done():
            reader.result()


class Gateway:
    """The enterprise server of one company: many devices, few links. Used inside `async with`.

    Args:
        card: the relay's card.
        seed: 32 secret bytes from which the links' own keys follow, so that topics stay the same after a restart.
        transport: how packets reach the broker.
        random: a source of secret random bytes.
        limits: every bound.

    `failed` is set when a link has ended by a fault of this program; leaving the context raises it.
    """

    def __init__(
        self,
        card: RelayCard,
        seed: bytes,
        transport: Transport,
        *,
        random: Random = os.urandom,
        limits: GatewayLimits | None = None,
    ) -> None:
        self.card = card
        self._seed = seed
        self._transport = transport
        self.random = random
        self.limits = limits or GatewayLimits()
        self.lanes: list[Lane] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._open = False
        self.failed = asyncio.Event()

    def __repr__(self) -> str:
        return f"Gateway(devices={len(self.members)}, links={len(self.lanes)}, seed=<redacted>)"

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        for lane in self.lanes:
            lane.close()
            for member in lane.members:
                lane.leave(member)
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome

    @property
    def members(self) -> tuple[Member, ...]:
        """All devices that are carried."""
        return tuple(member for lane in self.lanes for member in lane.members)

    def join(self, device_key: bytes, mailbox: bytes) -> Member:
        """Carry a device. The caller knows that it is the one: door.py does, by a challenge.

        Args:
            device_key: 32 bytes.
            mailbox: the device's mailbox, 16 bytes.

        Raises:
            GatewayBusy: all links are full.
            TransportClosed: the gateway does not run.
        """
        if not self._open:
            raise TransportClosed("the gateway does not run")
        for lane in self.lanes:
            before = lane.member_of(device_key)
            if before is not None:
                lane.leave(before)
        return self._lane_for(mailbox).join(device_key, mailbox)

    def _lane_for(self, mailbox: bytes) -> Lane:
        for lane in self.lanes:
            if lane.link.can_seat(mailbox):
                return lane
        if len(self.lanes) >= self.limits.links_max:
            raise GatewayBusy("links", self.limits.links_max, self.limits.retry_after_ms)
        index = len(self.lanes)
        link = SharedLink(self.card, link_key(self._seed, index), self.random, self.limits)
        lane = Lane(link, self.card.relay_id, self._transport, self.random, self.limits)
        self.lanes.append(lane)
        task = asyncio.create_task(lane.run(), name=f"gateway link {index}")
        task.add_done_callback(self._ended)
        self._tasks.append(task)
        return lane

    def _ended(self, task: "asyncio.Task[None]") -> None:
        # Links come back from every failure of broker and relay: one that ends while the gateway runs met a bug.
        if self._open and not task.cancelled():
            self.failed.set()


def link_key(seed: bytes, index: int) -> SigningKey:
    """The gateway's own key on its link of that number; its tag names the link's topics.

    A broker that lets each client reach its own topics only needs a certificate for each; the transport is told the
    topics when it connects, and can choose by them.
    """
    return SigningKey(keyed(seed, b"bp1-gateway-link", index.to_bytes(4, "big"), KEY_BYTES))


def _mono_s() -> float:
    return asyncio.get_running_loop().time()
