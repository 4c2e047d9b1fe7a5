"""The loop that drives a device: packets in, steps, packets out; connecting again when the broker or relay is gone.

One task owns all state. Methods of client/device.py that run on the same event loop change rows in steps of their own
and wake it; nothing here runs in another thread, so that no lock is needed and a simulated clock drives it as well.

    packets ─▶ client/link.py ─▶ events ─▶ enrolment, submits, outbox, inbox ─▶ steps (durable) ─▶ commands ─▶ packets

A step that fails (a full disk) leaves memory ahead of the store, so everything is loaded again, on a new link; nothing
that rested on the failed step has left.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from msgspec.structs import replace

from client.backoff import Backoff
from client.enrolment import Enrolment
from client.errors import ClientError, Refused, RelayKeyWrong, StoreFailed, TransportClosed, Unknown
from client.inbox import Inbox
from client.link import (
    AgainEvent,
    DeliveryEvent,
    DirectoryEvent,
    DoneEvent,
    Event,
    Link,
    ReceiptsEvent,
    RecordPieceEvent,
    RefusedEvent,
    UpEvent,
    WelcomeRefusedEvent,
)
from client.outbox import Outbox
from client.records import HeldReceipt
from client.state import Settings, State, Surroundings
from client.store import Store
from client.submits import Submits
from client.transport import Channel, LinkMaker, Transport, topics_of
from wire.codec import encode
from wire.commands import DeviceCommand
from wire.errors import BlindpostError
from wire.identity import device_tag

__all__ = ["Answer", "Engine"]

Answer = DoneEvent | DirectoryEvent | RecordPieceEvent
# Packets that are handled before what they caused is sent: one commit of the relay often comes as several.
_PACKETS_PER_TURN = 64


class Engine:
    """The machinery of one device.

    Args:
        store: its open store.
        settings: how it behaves.
        surroundings: clock and randomness.
        transport: how packets travel.

    Raises:
        HomeInvalid: the store holds no device.
    """

    def __init__(self, store: Store, settings: Settings, surroundings: Surroundings, transport: Transport) -> None:
        self._store = store
        self._settings = settings
        self._surroundings = surroundings
        self._transport = transport
        self.arrived = asyncio.Event()
        self.linked = asyncio.Event()
        self.changed = asyncio.Event()
        self._wake = asyncio.Event()
        self._packets: deque[bytes] = deque()
        self._room = asyncio.Event()
        self._futures: dict[bytes, asyncio.Future[None]] = {}
        self._asked: dict[int, tuple[str, asyncio.Future[Answer]]] = {}
        self._collected: dict[bytes, list[HeldReceipt]] = {}
        self.last_error: BlindpostError | None = None
        self._swept_s = float("-inf")
        self._heard_s = float("-inf")
        self._closing = False
        self._assemble()

    def _assemble(self) -> None:
        self.state = State(self._store, self._settings, self._surroundings)
        self.link = self._make_link()
        self.outbox = Outbox(self.state, self.link)
        self.submits = Submits(self.state, self.link, self.outbox)
        self.inbox = Inbox(self.state, self.link, self.outbox)
        self.enrolment = Enrolment(self.state, self.link)
        self.linked.clear()
        for what, future in self._asked.values():
            if not future.done():
                future.set_exception(Unknown(what, "the device had to begin again"))
        self._asked.clear()
        if self.inbox.untaken:
            self.arrived.set()

    def _make_link(self) -> Link:
        state, device, window_bytes = self.state, self.state.keys.signing, self._settings.window_bytes
        if isinstance(self._transport, LinkMaker):
            mailbox = state.keys.mailbox
            return self._transport.link(state.card, device, mailbox, state.random, state.rotations, window_bytes)
        return Link(state.card, [device], state.random, state.rotations, window_bytes)

    # What client/device.py asks

    def wake(self) -> None:
        """There is something new to send."""
        self._wake.set()

    def ask(self, what: str, command_of: Callable[[int], DeviceCommand]) -> "asyncio.Future[Answer]":
        """Ask the relay; the future has the answer, or `Refused`."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[self.link.ask(command_of)] = (what, future)
        self.wake()
        return future

    def future_of(self, name: bytes) -> "asyncio.Future[None]":
        """The end of an outgoing row."""
        return self._futures.setdefault(name, asyncio.get_running_loop().create_future())

    def forget_future(self, name: bytes) -> None:
        """Nobody waits for this row any more."""
        self._futures.pop(name, None)

    def collect(self, message_id: bytes) -> list[HeldReceipt]:
        """A list that receipts of this message are appended to from now on."""
        return self._collected.setdefault(message_id, [])

    def forget_collection(self, message_id: bytes) -> None:
        """Nobody collects receipts of this message any more."""
        self._collected.pop(message_id, None)

    # The loop

    async def run(self) -> None:
        """Run until `close`; comes back from every failure of broker, relay and disk."""
        backoff = Backoff(self._settings.reconnect_first_s, self._settings.reconnect_last_s, self.state.random)
        tag = device_tag(self.state.keys.public)
        topic_up, topic_down = topics_of(self.state.card.relay_id, tag)
        while not self._closing:
            try:
                async with self._transport.connect(topic_up, topic_down) as channel:
                    self._packets.clear()
                    self.link.connect(self._mono_s())
                    if self._is_served:
                        # Whether the relay still knows the link is found out now, not at the next message.
                        self.inbox.subscribe(self._mono_s())
                    await self._serve(channel, backoff)
            except TransportClosed as error:
                self.last_error = error
            except StoreFailed as error:
                self.last_error = error
                self._reload()
            if not self._closing:
                self._expire_quietly()
                await self._pause(backoff.next_s())

    async def _serve(self, channel: Channel, backoff: Backoff) -> None:
        reader = asyncio.create_task(self._read(channel))
        try:
            while not self._closing:
                if self.link.up:
                    backoff.reset()
                self._turn()
                for packet in self.link.take_packets(self._mono_s()):
                    await channel.send(packet)
                if self._packets:
                    continue
                await self._wait(reader)
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError, TransportClosed):
                await reader

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
        wake = asyncio.create_task(self._wake.wait())
        timeout_s = max(0.0, self._deadline_s() - self._mono_s())
        try:
            await asyncio.wait({wake, reader}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wake.cancel()
        self._wake.clear()
        if reader.done():
            reader.result()

    def _outbox_deadline_s(self, now_s: float) -> float | None:
        deadline_s = self.outbox.next_deadline_s(now_s)
        if deadline_s is None or self._is_served:
            return deadline_s
        # A look-up that is due waits for the link; only what expires is looked after, once a second.
        return max(deadline_s, now_s + 1.0)

    @property
    def _is_served(self) -> bool:
        """Whether there is a link and a mailbox: before, what is asked to enrol is repeated, and no subscription."""
        return self.link.up and self.state.device.enrolled

    def _deadline_s(self) -> float:
        now_s = self._mono_s()
        deadlines = [
            self.link.next_deadline_s(),
            self._outbox_deadline_s(now_s),
            self.inbox.next_deadline_s() if self.link.up else None,
            self.enrolment.next_deadline_s() if self.link.up else None,
            self._heard_s + self._settings.keepalive_s if self._is_served else None,
            self._swept_s + self._settings.sweep_s,
        ]
        return min(deadline for deadline in deadlines if deadline is not None)

    def _turn(self) -> None:
        """Handle what has arrived, do what is due, say what is to be said."""
        now_s = self._mono_s()
        for _ in range(min(len(self._packets), _PACKETS_PER_TURN)):
            for event in self.link.receive(self._packets.popleft(), now_s):
                self._heard_s = now_s
                self._handle(event, now_s)
        self._room.set()
        if now_s >= self._swept_s + self._settings.sweep_s:
            self._sweep(now_s)
        self.outbox.expire()
        if self.link.up:
            if self._is_served and now_s >= self._heard_s + self._settings.keepalive_s:
                self._heard_s = now_s
                self.inbox.subscribe(now_s)
            self.inbox.tick(now_s)
            self.enrolment.tick(now_s)
            if self.state.device.enrolled:
                self.outbox.pump(now_s)
                self.submits.pump()
        self._tell_outcomes()

    # Events

    def _handle(self, event: Event, now_s: float) -> None:
        match event:
            case UpEvent():
                self._on_up(event, now_s)
            case ReceiptsEvent():
                for held in self.submits.on_receipts(event):
                    if held.message_id in self._collected:
                        self._collected[held.message_id].append(held)
            case DeliveryEvent():
                if self.inbox.on_delivery(event, now_s):
                    self.arrived.set()
            case DoneEvent(ref):
                self._on_done(event, ref, now_s)
            case DirectoryEvent():
                if self.inbox.on_directory(event, now_s):
                    if self.inbox.untaken:
                        self.arrived.set()
                elif not self.outbox.on_directory(event):
                    self._answer(event.ref, event)
            case RecordPieceEvent(ref):
                self._answer(ref, event)
            case RefusedEvent():
                self._on_refused(event, now_s)
            case AgainEvent():
                self.submits.on_again(event)
            case WelcomeRefusedEvent(error):
                self.last_error = RelayKeyWrong(f"welcome: {error}")
        self._signal()

    def _on_up(self, event: UpEvent, now_s: float) -> None:
        known = self.state.meta.rotations
        chain = tuple(encode(record) for record in event.rotations)
        if chain != known:
            with self._store.step() as step:
                self.state.put_meta(step, replace(self.state.meta, rotations=chain))
        self.last_error = None
        self.enrolment.begin(event)
        if self.state.device.enrolled:
            self.inbox.begin(now_s)
        self.linked.set()

    def _on_done(self, event: DoneEvent, ref: int, now_s: float) -> None:
        enrolled = self.state.device.enrolled
        if self.enrolment.on_done(ref):
            if self.state.device.enrolled and not enrolled:
                self.inbox.begin(now_s)
            return
        self.inbox.on_done(ref)
        self._answer(ref, event)

    def _on_refused(self, event: RefusedEvent, now_s: float) -> None:
        if (
            self.submits.on_refused(event)
            or self.outbox.on_lookup_refused(event)
            or self.enrolment.on_refused(event, now_s)
            or self.inbox.on_refused(event, now_s)
        ):
            return
        what, future = self._asked.pop(event.ref, ("", None))
        if future is not None and not future.done():
            future.set_exception(Refused(what, event.code, event.field, event.limit))

    def _answer(self, ref: int, event: Answer) -> None:
        _what, future = self._asked.pop(ref, ("", None))
        if future is not None and not future.done():
            future.set_result(event)

    def _tell_outcomes(self) -> None:
        outcomes, self.outbox.outcomes = self.outbox.outcomes, []
        for outcome in outcomes:
            future = self._futures.get(outcome.name)
            if future is None or future.done():
                continue
            if outcome.error is None:
                future.set_result(None)
            else:
                future.set_exception(outcome.error)
        if outcomes:
            self._signal()

    def _signal(self) -> None:
        """Let everybody who waits for a change look again."""
        self.changed.set()
        self.changed = asyncio.Event()

    # Time and failure

    def _sweep(self, now_s: float) -> None:
        self._swept_s = now_s
        with self._store.step() as step:
            self.inbox.sweep(step)
            self.state.sessions.sweep(step)
            self.state.evidence.sweep(step, self.state.now_s)
            if self.state.ring is not None and self.state.ring.erase_expired(self.state.now_s):
                self.state.put_ring(step)
        self.enrolment.sweep()

    def _expire_quietly(self) -> None:
        """What ran out of time while there was no connection fails on time all the same."""
        try:
            self.outbox.expire()
        except StoreFailed as error:
            self.last_error = error
            self._reload()
        self._tell_outcomes()

    def _reload(self) -> None:
        try:
            self._assemble()
        except ClientError as error:
            self.last_error = error

    async def _pause(self, wait_s: float) -> None:
        wake = asyncio.create_task(self._wake_to_close())
        try:
            await asyncio.wait({wake}, timeout=wait_s)
        finally:
            wake.cancel()

    async def _wake_to_close(self) -> None:
        while not self._closing:
            self._wake.clear()
            await self._wake.wait()

    def close(self) -> None:
        """Stop the loop."""
        self._closing = True
        self._wake.set()

    @staticmethod
    def _mono_s() -> float:
        return asyncio.get_running_loop().time()
