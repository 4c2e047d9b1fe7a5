"""A link of the load: up to 256 devices behind one handshake, as an enterprise gateway has them (protocol.md 6.2).

It sends frames, repeats what is not answered, takes the relay's answers apart, and hands them to whoever keeps the
account of what was sent (benchmarks/load/ledger.py). Commands come in encoded, so that what can be made before the
clock starts is made then.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from benchmarks.load.parties import Party
from benchmarks.load.ways import Way
from wire.codec import encode
from wire.commands import Ack, Delivery, Done, Linked, Receipts, Refusal, RelayCommand, Subscribe
from wire.errors import BlindpostError, RefusalCode
from wire.limits import COMMANDS_PER_FRAME_MAX, TOKENS_PER_ACK_MAX
from wire.link import FRAME, WELCOME, FrameOpener, FrameSealer, PendingHello, accept_welcome, begin_hello, link_id_of

__all__ = ["DefinitelyRefused", "LoadLink", "Observer"]

REPEAT_S = 3.0
HELLO_REPEAT_S = 1.0
_SWEEP_S = 0.25

# The relay's frames are read without the check that they are canonical: that check is the relay's and the clients', and
# would cost the load a copy of every frame.
_frame_decoder: "msgspec.msgpack.Decoder[Any]" = msgspec.msgpack.Decoder(tuple[RelayCommand, ...])


class DefinitelyRefused(Exception):
    """The relay refused a command for good: the load is wrong, or the relay."""


class Observer(Protocol):
    """Who is told what a link hears."""

    def receipted(self, link: "LoadLink", receipts: Receipts) -> None:
        """Receipts of one commit arrived."""

    def delivered(self, link: "LoadLink", delivery: Delivery) -> list[bytes]:
        """Envelopes arrived; returns the tokens to acknowledge now."""


class LoadLink:
    """One link.

    Args:
        way: the broker connection, which other links may use too.
        relay_id: names the relay.
        relay_key: the first signing key, from the card.
        devices: 1 to 256 devices; the first one's topic is the link's.
        observer: is told of receipts and deliveries.
        failed: called with the error when the link cannot go on.
    """

    def __init__(
        self,
        way: Way,
        relay_id: bytes,
        relay_key: bytes,
        devices: Sequence[Party],
        observer: Observer,
        failed: Callable[[Exception], None],
    ) -> None:
        self.devices = devices
        self.way = way
        self.refusals: dict[str, int] = {}
        self.repeats = 0
        self._relay_id = relay_id
        self._relay_key = relay_key
        self._observer = observer
        self._failed = failed
        self._send_packet: Callable[[bytes], None] | None = None
        self._hello: PendingHello | None = None
        self._sealer: FrameSealer | None = None
        self._opener: FrameOpener | None = None
        self._link_id = b""
        self._linked = asyncio.Event()
        self._ref = 0
        self._waiting: dict[int, tuple[bytes, float]] = {}
        """By ref: the command, and when it is sent again."""
        self._done: dict[int, asyncio.Future[None]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    # ---- life

    async def open(self) -> None:
        """Handshake; returns when the relay has said `linked`."""
        self._send_packet = await self.way.listen(self.devices[0].tag, self._arrived)
        while not self._linked.is_set():
            self._hello = begin_hello(self._relay_id, os.urandom)
            self._send_packet(self._hello.packet)
            try:
                await asyncio.wait_for(self._linked.wait(), HELLO_REPEAT_S)
            except TimeoutError:
                continue
        self._sweep()

    def close(self) -> None:
        """Say nothing more, and hear nothing more."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()

    # ---- commands

    def take_ref(self) -> int:
        """A ref that was not used on this link yet."""
        self._ref += 1
        return self._ref

    def send(self, commands: Sequence[tuple[int, bytes]]) -> None:
        """Send commands, encoded, in one frame."""
        due_s = time.monotonic() + REPEAT_S
        for ref, encoded in commands:
            self._waiting[ref] = encoded, due_s
        self._idle.clear()
        self._put([encoded for _, encoded in commands])

    def answered(self, ref: int) -> bool:
        """A command is answered; False if it was before."""
        known = self._waiting.pop(ref, None) is not None
        if not self._waiting:
            self._idle.set()
        done = self._done.pop(ref, None)
        if done is not None and not done.done():
            done.set_result(None)
        return known

    async def ask(self, makers: Sequence[Callable[[int], object]], at_once: int = 64) -> None:
        """Send commands that the relay answers with `done`, and wait for all of them."""
        for start in range(0, len(makers), at_once):
            made = []
            futures = []
            for make in makers[start : start + at_once]:
                ref = self.take_ref()
                made.append((ref, encode(make(ref))))
                self._done[ref] = asyncio.get_running_loop().create_future()
                futures.append(self._done[ref])
            self.send(made)
            await asyncio.gather(*futures)

    async def subscribe(self, credit: int) -> None:
        """Subscribe all devices of the link; credit 0 stops delivery."""
        await self.ask(
            [
                lambda ref, mailbox=device.mailbox: Subscribe(ref, mailbox, 0, credit)  # type: ignore[misc]
                for device in self.devices
            ],
            at_once=COMMANDS_PER_FRAME_MAX,
        )

    async def settled(self) -> None:
        """Wait until every command is answered."""
        await self._idle.wait()

    @property
    def unanswered(self) -> int:
        """How many commands wait."""
        return len(self._waiting)

    # ---- packets

    def _put(self, encoded: Sequence[bytes]) -> None:
        assert self._sealer is not None
        assert self._send_packet is not None
        count = len(encoded)
        head = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
        self._send_packet(self._sealer.seal(b"".join((head, *encoded))))

    def _arrived(self, packet: bytes) -> None:
        if self._closed or not packet:
            return
        try:
            if packet[0] == FRAME:
                self._frame(packet)
            elif packet[0] == WELCOME and self._hello is not None:
                self._welcome(packet)
        except Exception as error:
            self._failed(error)

    def _welcome(self, packet: bytes) -> None:
        assert self._hello is not None
        assert self._send_packet is not None
        try:
            keys, _, prove = accept_welcome(
                self._hello, self._relay_key, packet, [device.key for device in self.devices]
            )
        except BlindpostError:
            return  # to an older hello; the answer to this one follows, or the hello is repeated
        self._hello = None
        self._sealer, self._opener = FrameSealer(keys.link_id, keys.up_key), FrameOpener(keys.down_key)
        self._link_id = keys.link_id
        self._send_packet(prove)

    def _frame(self, packet: bytes) -> None:
        if self._opener is None or link_id_of(packet) != self._link_id:
            return
        plain = self._opener.open(packet)
        if plain is None:
            return
        acks: list[tuple[int, bytes]] = []
        for command in _frame_decoder.decode(plain):
            if isinstance(command, Receipts):
                self._observer.receipted(self, command)
            elif isinstance(command, Delivery):
                self._acknowledge(command.mailbox, self._observer.delivered(self, command), acks)
            elif isinstance(command, Done):
                for ref in command.refs:
                    self.answered(ref)
            elif isinstance(command, Refusal):
                self._refused(command)
            elif isinstance(command, Linked):
                self._linked.set()
        for start in range(0, len(acks), COMMANDS_PER_FRAME_MAX):
            self.send(acks[start : start + COMMANDS_PER_FRAME_MAX])

    def _acknowledge(self, mailbox: bytes, tokens: list[bytes], acks: list[tuple[int, bytes]]) -> None:
        for start in range(0, len(tokens), TOKENS_PER_ACK_MAX):
            ref = self.take_ref()
            acks.append((ref, encode(Ack(ref, mailbox, tuple(tokens[start : start + TOKENS_PER_ACK_MAX])))))

    def _refused(self, refusal: Refusal) -> None:
        code = RefusalCode(refusal.code)
        self.refusals[code.name.lower()] = self.refusals.get(code.name.lower(), 0) + 1
        if code.definite:
            raise DefinitelyRefused(f"{code.name.lower()}: {refusal.field} (limit {refusal.limit})")
        waiting = self._waiting.get(refusal.ref)
        if waiting is not None:
            self._waiting[refusal.ref] = waiting[0], time.monotonic() + refusal.retry_after_ms / 1_000

    def _sweep(self) -> None:
        """Send again what was not answered in time, or what the relay asked to hear later."""
        now_s = time.monotonic()
        due = [(ref, encoded) for ref, (encoded, due_s) in self._waiting.items() if due_s <= now_s]
        self.repeats += len(due)
        for one in due:
            self.send([one])
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
