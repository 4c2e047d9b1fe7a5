"""The link of a recorded device: handshake, frames, and the patience to repeat what is not answered.

What is said and what an answer means is left to phones.py. Every packet goes to the town with what it was before it was
sealed, so that a replay can put other bodies into it.
"""

import asyncio
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from client.content import Content
from keys.identity import DeviceKeys
from wire.commands import (
    DeviceCommand,
    RelayCommand,
    Subscribe,
    decode_relay_commands,
    encode_commands,
)
from wire.errors import BlindpostError
from wire.identity import device_tag
from wire.limits import FRAME_BYTES_MAX
from wire.link import (
    FRAME,
    FRAME_OVERHEAD_BYTES,
    UNKNOWN_LINK,
    WELCOME,
    FrameOpener,
    FrameSealer,
    LinkKeys,
    PendingHello,
    accept_welcome,
    begin_hello,
    link_id_of,
)

if TYPE_CHECKING:
    from sim.experiments.noninterference.recording import Town

__all__ = ["AGAIN_S", "Asked", "Job", "LinkedPhone", "Sealed"]

_FLUSH_S: Final = 0.005
_TICK_S: Final = 1.0
AGAIN_S: Final = 2.0
_AGAIN_MAX_S: Final = 60.0
_KEEPALIVE_S: Final = 15.0
_CREDIT: Final = 64
_ROOM_BYTES: Final = FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES - 64
_COMMANDS_MAX: Final = 64


@dataclass(frozen=True, slots=True, repr=False)
class Sealed:
    """A frame before it was sealed, so that another body can take the place of each.

    Attributes:
        link_id: of its link.
        up_key: seals it.
        counter: its number.
        plain: what it says.
        commands: the same, decoded; none if it says nothing that a relay understands.
    """

    link_id: bytes
    up_key: bytes
    counter: int
    plain: bytes
    commands: tuple[DeviceCommand, ...]

    def __repr__(self) -> str:
        return f"Sealed(commands={len(self.commands)}, keys=<redacted>)"


@dataclass
class Asked:
    """A command that is not answered yet."""

    command: DeviceCommand
    again_s: float
    wait_s: float
    job: "Job | None" = None
    positions: set[int] = field(default_factory=set)


@dataclass(frozen=True, repr=False)
class Job:
    """A message to the devices of one account."""

    account: str
    contents: tuple[Content, ...]
    expiry: int

    def __repr__(self) -> str:
        return f"Job(account={self.account!r}, contents=<redacted>)"


class LinkedPhone(ABC):
    """A device that can be spoken to.

    Args:
        town: the run, which carries packets.
        name: seeds what it draws.
    """

    def __init__(self, town: "Town", name: str) -> None:
        self.on = False
        self._town = town
        self._rng = random.Random(f"{name}/phone")  # a run is to be repeatable
        self.keys = DeviceKeys.generate(self._rng.randbytes)
        self.tag = device_tag(self.keys.public)
        self._asked: dict[int, Asked] = {}
        self._queue: deque[DeviceCommand] = deque()
        self._ref = 0
        self._pending: PendingHello | None = None
        self._link: LinkKeys | None = None
        self._sealer: FrameSealer | None = None
        self._opener: FrameOpener | None = None
        self._flushing = False
        self._heard_s = 0.0
        self._hello_s = 0.0

    @abstractmethod
    def _on(self, command: RelayCommand) -> None:
        """The relay says something."""

    # ---- life

    def switch_on(self) -> None:
        """Start, or come back."""
        if not self.on and not self._town.closed:
            self.on = True
            self._hello()
            self._loop.call_later(_TICK_S * (0.5 + self._rng.random() / 2), self._tick)

    def switch_off(self) -> None:
        """Hear and say nothing, and forget the link."""
        self.on = False
        self._link = self._pending = None

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def _hello(self) -> None:
        self._pending = begin_hello(self._town.relay_id, self._rng.randbytes)
        self._hello_s = self._loop.time()
        self._town.up(self.tag, self._pending.packet, None)

    def _tick(self) -> None:
        """Repeat what is not answered; ask for the link when nothing was heard for long."""
        if not self.on or self._town.closed:
            return
        now_s = self._loop.time()
        if self._pending is not None and now_s >= self._hello_s + AGAIN_S:
            self._hello()
        if self._link is not None:
            if now_s >= self._heard_s + _KEEPALIVE_S:
                self._heard_s = now_s
                self._subscribe()
            for asked in list(self._asked.values()):
                if now_s >= asked.again_s:
                    asked.wait_s = min(2 * asked.wait_s, _AGAIN_MAX_S)
                    asked.again_s = now_s + asked.wait_s
                    self._say(asked.command)
        self._loop.call_later(_TICK_S, self._tick)

    # ---- speaking

    def _ask(self, command_of: Callable[[int], DeviceCommand], job: Job | None = None) -> None:
        self._ref += 1
        command = command_of(self._ref)
        self._asked[self._ref] = Asked(command, self._loop.time() + AGAIN_S, AGAIN_S, job)
        self._say(command)

    def _say(self, command: DeviceCommand) -> None:
        if self._link is None or not self.on:
            return
        self._queue.append(command)
        if not self._flushing:
            self._flushing = True
            self._loop.call_later(_FLUSH_S, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        while self._queue:
            commands: list[DeviceCommand] = []
            room = _ROOM_BYTES
            while self._queue and len(commands) < _COMMANDS_MAX:
                size = len(encode_commands((self._queue[0],)))
                if size > room:
                    break
                room -= size
                commands.append(self._queue.popleft())
            assert commands, "one command fits a frame"
            self._seal_frame(encode_commands(commands), tuple(commands))

    def _seal_frame(self, plain: bytes, commands: tuple[DeviceCommand, ...]) -> None:
        if self._sealer is None or self._link is None or not self.on:
            return
        packet = self._sealer.seal(plain)
        link = self._link
        self._town.up(self.tag, packet, Sealed(link.link_id, link.up_key, self._sealer.counter, plain, commands))

    def _subscribe(self) -> None:
        self._ask(lambda ref: Subscribe(ref, self.keys.mailbox, 0, _CREDIT))

    # ---- hearing

    def hear(self, packet: bytes) -> None:
        """A packet from the relay, whatever the network made of it."""
        if not self.on or not packet:
            return
        if packet[0] == WELCOME and self._pending is not None:
            self._welcome(packet)
        elif packet[0] == UNKNOWN_LINK and self._link is not None and packet[1:] == self._link.link_id:
            self._link = None
            self._hello()
        elif packet[0] == FRAME and self._opener is not None and self._link is not None:
            if link_id_of(packet) != self._link.link_id:
                return
            plain = self._opener.open(packet)
            if plain is not None:
                self._heard_s = self._loop.time()
                for command in decode_relay_commands(plain):
                    self._on(command)

    def _welcome(self, packet: bytes) -> None:
        assert self._pending is not None, "a hello was said"
        try:
            keys, _chain, prove = accept_welcome(self._pending, self._town.relay_key, packet, [self.keys.signing])
        except BlindpostError:
            # Of an older hello, or spoilt on the way: the next hello follows.
            return
        self._pending = None
        self._link = keys
        self._town.link_keys[keys.link_id] = keys.down_key
        self._sealer, self._opener = FrameSealer(keys.link_id, keys.up_key), FrameOpener(keys.down_key)
        self._queue.clear()
        self._heard_s = self._loop.time()
        self._town.up(self.tag, prove, None)
