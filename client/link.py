"""The device's side of a link, without I/O, clock or randomness of its own (protocol.md sections 6.2 to 6.5).

    link = Link(card, [device_key], random)
    link.connect(now_s)                        start a handshake, if there is no link
    ref = link.ask(lambda ref: LookUp(ref, …)) queue a command; it is repeated until it is answered
    for packet in link.take_packets(now_s):    hand these to the broker
    events = link.receive(packet, now_s)       what a packet from the broker says
    link.next_deadline_s()                     when `take_packets` has something to repeat

Rules:

* an old link is kept until the new one is confirmed by the relay's first frame; an 'unknown link' hint is not
  authenticated, so it only starts a handshake, and not more often than the backoff allows;
* a welcome must be signed by the key that the card leads to, and its rotations must go on from those seen before: a
  relay's old key, in somebody's hands since a memory image, opens no link;
* every command is repeated after 2 s, doubling to 60 s, with jitter, until it is answered or taken back; refusals that
  say *again* wait at least as long as they say; on a new link all are repeated at once;
* a frame holds up to 256 commands and 256 KiB; of large commands only `window_bytes` are under way at a time;
* a frame that does not open, or does not decode, changes nothing.

Left to client/device.py: what the answers mean, and whether a receipt is genuine; it calls `settle` when a submit has
all its receipts. Time is monotonic seconds, randomness a function from a count to that many bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from client.backoff import Backoff, Random, jittered
from wire.card import RelayCard
from wire.codec import encode
from wire.commands import (
    Delivered,
    Delivery,
    DeviceCommand,
    Directory,
    Done,
    Linked,
    LinkedDevice,
    Receipts,
    RecordPiece,
    Refusal,
    RelayCommand,
    decode_relay_commands,
)
from wire.errors import BlindpostError, FormatError, RefusalCode
from wire.identity import SignedList
from wire.limits import COMMANDS_PER_FRAME_MAX, FRAME_BYTES_MAX, RETRY_FIRST_MS, RETRY_LAST_MS, UINT32_MAX
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
    packet_kind,
)
from wire.prekeys import Bundle
from wire.receipt import ReceiptEntry
from wire.rotation import RotationRecord
from wire.signing import SigningKey

__all__ = [
    "AgainEvent",
    "DeliveryEvent",
    "DirectoryEvent",
    "DoneEvent",
    "Event",
    "Link",
    "ReceiptsEvent",
    "RecordPieceEvent",
    "RefusedEvent",
    "UpEvent",
    "WelcomeRefusedEvent",
]

# Array header of up to 256 commands: three bytes.
_FRAME_ROOM_BYTES = FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES - 3
# Commands below this size are never held back by the window: acks must get through while a large message is under way.
_SMALL_BYTES = 4_096
_WINDOW_BYTES = 1_048_576
_HELLO_FIRST_S = 1.0
_HELLO_LAST_S = 60.0


@dataclass(frozen=True, slots=True)
class UpEvent:
    """A link was confirmed; `rotations` is the verified chain from the card's key, `time` the relay's Unix time."""

    rotations: tuple[RotationRecord, ...]
    time: int
    devices: tuple[LinkedDevice, ...]


@dataclass(frozen=True, slots=True)
class ReceiptsEvent:
    """Receipts of one commit for commands of this link; not verified yet."""

    header: bytes
    signature: bytes
    entries: tuple[ReceiptEntry, ...]


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """A command was refused definitely; it is repeated no more."""

    ref: int
    code: RefusalCode
    field: str
    limit: int
    attachment: bytes


@dataclass(frozen=True, slots=True)
class AgainEvent:
    """A command was refused for now; the link repeats it by itself."""

    ref: int
    code: RefusalCode


@dataclass(frozen=True, slots=True)
class DirectoryEvent:
    """The answer to a look-up; not verified yet."""

    ref: int
    signed_list: SignedList
    bundles: tuple[Bundle, ...]


@dataclass(frozen=True, slots=True)
class DoneEvent:
    """A command is done, and durable."""

    ref: int


@dataclass(frozen=True, slots=True)
class DeliveryEvent:
    """Envelopes for a mailbox of this link."""

    mailbox: bytes
    envelopes: tuple[Delivered, ...]


@dataclass(frozen=True, slots=True)
class RecordPieceEvent:
    """A piece of what the relay holds about the account; not verified yet."""

    ref: int
    record: bytes
    total: int
    offset: int
    piece: bytes


@dataclass(frozen=True, slots=True)
class WelcomeRefusedEvent:
    """A welcome was not one of this card's relay; the broker, or whoever answers, made it up."""

    error: BlindpostError


Event = (
    UpEvent
    | ReceiptsEvent
    | RefusedEvent
    | AgainEvent
    | DirectoryEvent
    | DoneEvent
    | DeliveryEvent
    | RecordPieceEvent
    | WelcomeRefusedEvent
)


@dataclass(slots=True)
class _Asked:
    """A command that waits for its answer."""

    encoded: bytes
    due_s: float
    wait_s: float
    sent: bool = False


@dataclass(slots=True)
class _Standing:
    """A link's keys at work."""

    keys: LinkKeys
    sealer: FrameSealer
    opener: FrameOpener
    prove: bytes
    rotations: tuple[RotationRecord, ...] = field(default=())


class Link:
    """One device's, or one gateway's, link to the relay.

    Args:
        card: the relay's card.
        devices: the device keys that the link speaks for.
        random: a source of secret random bytes.
        rotations: the chain of the relay's rotations known so far.
        window_bytes: how many bytes of large commands may be under way.
    """

    def __init__(
        self,
        card: RelayCard,
        devices: Sequence[SigningKey],
        random: Random,
        rotations: Sequence[RotationRecord] = (),
        window_bytes: int = _WINDOW_BYTES,
    ) -> None:
        self._card = card
        self._devices = tuple(devices)
        self._random = random
        self._rotations = tuple(rotations)
        self._window_bytes = window_bytes
        self._standing: _Standing | None = None
        self._proving: _Standing | None = None
        self._hello: PendingHello | None = None
        self._hello_backoff = Backoff(_HELLO_FIRST_S, _HELLO_LAST_S, random)
        self._hello_due_s: float | None = None
        self._hello_at_s = float("-inf")
        self._ready: list[bytes] = []
        self._asked: dict[int, _Asked] = {}
        self._asked_bytes = 0
        self._under_way_bytes = 0
        self._next_ref = int.from_bytes(random(4), "big")

    def __repr__(self) -> str:
        state = "up" if self.up else "proving" if self._proving else "hello" if self._hello else "down"
        return f"Link(relay_id={self._card.relay_id.hex()}, state={state}, asked={len(self._asked)})"

    @property
    def up(self) -> bool:
        """Whether a confirmed link stands."""
        return self._standing is not None

    @property
    def asked_bytes(self) -> int:
        """Bytes of commands that wait for an answer, sent or not; a caller holds back while it is large."""
        return self._asked_bytes

    # Asking

    def ask(self, command_of: Callable[[int], DeviceCommand]) -> int:
        """Queue the command that `command_of` makes of a fresh ref; returns the ref.

        Raises:
            FormatError: the command alone is larger than a frame.
        """
        ref = self._fresh_ref()
        encoded = encode(command_of(ref))
        if len(encoded) > _FRAME_ROOM_BYTES:
            raise FormatError("command", f"has {len(encoded)} bytes", _FRAME_ROOM_BYTES)
        self._asked_bytes += len(encoded)
        self._asked[ref] = _Asked(encoded, due_s=float("-inf"), wait_s=RETRY_FIRST_MS / 1_000)
        return ref

    def settle(self, ref: int) -> None:
        """Repeat this command no more: it is answered, or nobody waits for it."""
        asked = self._asked.pop(ref, None)
        if asked is None:
            return
        self._asked_bytes -= len(asked.encoded)
        if asked.sent:
            self._under_way_bytes -= len(asked.encoded)

    def is_asked(self, ref: int) -> bool:
        """Whether a command still waits for its answer."""
        return ref in self._asked

    # Handshakes

    def connect(self, now_s: float) -> None:
        """The broker's connection stands (again): start a handshake, or repeat what the last one may have lost."""
        self._hello_backoff.reset()
        if self._standing is None:
            self._start_hello(now_s)
        else:
            self._repeat_all()

    def _start_hello(self, now_s: float) -> None:
        self._hello = begin_hello(self._card.relay_id, self._random)
        self._proving = None
        self._ready.append(self._hello.packet)
        self._hello_at_s = now_s
        self._hello_due_s = now_s + self._hello_backoff.next_s()

    def _repeat_all(self) -> None:
        for asked in self._asked.values():
            asked.due_s = float("-inf")
            asked.wait_s = RETRY_FIRST_MS / 1_000

    # Receiving

    def receive(self, packet: bytes, now_s: float) -> list[Event]:
        """What a packet says; whatever is not a valid packet of this relay says nothing.

        Call `take_packets` next: a handshake may have an answer ready.
        """
        try:
            kind = packet_kind(packet)
            if kind == WELCOME:
                return self._welcomed(packet)
            if kind == FRAME:
                return self._framed(packet, now_s)
            if kind == UNKNOWN_LINK:
                self._hinted(link_id_of(packet), now_s)
        except FormatError:
            # From the broker's side, anything may come; only what opens under a key is believed, or even reported.
            return []
        return []

    def _welcomed(self, packet: bytes) -> list[Event]:
        if self._hello is None:
            return []
        try:
            keys, chain, prove = accept_welcome(self._hello, self._card.signing_key, packet, self._devices)
        except BlindpostError as error:
            return [WelcomeRefusedEvent(error)]
        if tuple(chain[: len(self._rotations)]) != self._rotations:
            return [WelcomeRefusedEvent(FormatError("rotations", "do not go on from those seen before"))]
        self._hello = None
        self._proving = _Standing(
            keys,
            FrameSealer(keys.link_id, keys.up_key),
            FrameOpener(keys.down_key),
            prove,
            tuple(chain),
        )
        self._ready.append(prove)
        return []

    def _hinted(self, link_id: bytes, now_s: float) -> None:
        standing = self._standing
        known = standing is not None and standing.keys.link_id == link_id
        if known and self._hello is None and self._proving is None and now_s - self._hello_at_s >= _HELLO_FIRST_S:
            self._start_hello(now_s)

    def _framed(self, packet: bytes, now_s: float) -> list[Event]:
        link_id = link_id_of(packet)
        proving = self._proving
        if proving is not None and proving.keys.link_id == link_id:
            return self._confirmed(proving, packet, now_s)
        standing = self._standing
        if standing is None or standing.keys.link_id != link_id:
            return []
        plain = standing.opener.open(packet)
        if plain is None:
            return []
        return self._events(decode_relay_commands(plain), now_s)

    def _confirmed(self, proving: _Standing, packet: bytes, now_s: float) -> list[Event]:
        plain = proving.opener.open(packet)
        if plain is None:
            return []
        # That the tag verified under the down key is the confirmation; `linked` is what the first frame begins with,
        # and a frame that overtook it is dropped and repeated like any lost one.
        commands = decode_relay_commands(plain)
        first = commands[0]
        if not isinstance(first, Linked):
            return []
        self._standing = proving
        self._proving = None
        self._rotations = proving.rotations
        self._hello_due_s = None
        self._hello_backoff.reset()
        self._repeat_all()
        return [UpEvent(proving.rotations, first.time, first.devices), *self._events(commands[1:], now_s)]

    def _events(self, commands: Sequence[RelayCommand], now_s: float) -> list[Event]:
        events: list[Event] = []
        for command in commands:
            match command:
                case Receipts(header, signature, entries):
                    known = tuple(entry for entry in entries if entry.ref in self._asked)
                    if known:
                        events.append(ReceiptsEvent(header, signature, known))
                case Delivery(mailbox, envelopes):
                    events.append(DeliveryEvent(mailbox, envelopes))
                case Refusal():
                    events.extend(self._refused(command, now_s))
                case Directory(ref, signed_list, bundles):
                    if ref in self._asked:
                        self.settle(ref)
                        events.append(DirectoryEvent(ref, signed_list, bundles))
                case Done(refs):
                    events.extend(self._done(refs))
                case RecordPiece(ref, record, total, offset, piece):
                    if ref in self._asked:
                        self.settle(ref)
                        events.append(RecordPieceEvent(ref, record, total, offset, piece))
                case Linked():
                    pass  # `linked` is said once, in the first frame; a second one adds nothing
        return events

    def _done(self, refs: Sequence[int]) -> list[Event]:
        known = [ref for ref in refs if ref in self._asked]
        for ref in known:
            self.settle(ref)
        return [DoneEvent(ref) for ref in known]

    def _refused(self, refusal: Refusal, now_s: float) -> list[Event]:
        asked = self._asked.get(refusal.ref)
        if asked is None:
            return []
        code = _code_of(refusal.code)
        if code is None or not code.definite:
            # A code that this version does not know is taken for 'again': when in doubt, indefinite is safe.
            self._again(asked, refusal.retry_after_ms / 1_000, now_s)
            return [] if code is None else [AgainEvent(refusal.ref, code)]
        self.settle(refusal.ref)
        return [RefusedEvent(refusal.ref, code, refusal.field, refusal.limit, refusal.attachment)]

    def _again(self, asked: _Asked, retry_after_s: float, now_s: float) -> None:
        if asked.sent:
            asked.sent = False
            self._under_way_bytes -= len(asked.encoded)
        wait_s = min(max(asked.wait_s, retry_after_s), RETRY_LAST_MS / 1_000)
        asked.due_s = now_s + max(jittered(wait_s, self._random), retry_after_s)

    # Sending

    def take_packets(self, now_s: float) -> list[bytes]:
        """The packets to hand to the broker now: handshakes, then frames of all commands that are due."""
        if self._hello_due_s is not None and now_s >= self._hello_due_s:
            self._start_hello(now_s)
        packets, self._ready = self._ready, []
        if self._standing is not None:
            packets.extend(self._frames(self._standing.sealer.seal, now_s))
        return packets

    def _frames(self, seal: Callable[[bytes], bytes], now_s: float) -> list[bytes]:
        frames: list[bytes] = []
        batch: list[bytes] = []
        room = _FRAME_ROOM_BYTES
        for asked in self._asked.values():
            if asked.due_s > now_s:
                continue
            if not self._admitted(asked):
                asked.due_s = float("-inf")
                continue
            if len(batch) == COMMANDS_PER_FRAME_MAX or len(asked.encoded) > room:
                frames.append(seal(_array(batch)))
                batch, room = [], _FRAME_ROOM_BYTES
            batch.append(asked.encoded)
            room -= len(asked.encoded)
            asked.due_s = now_s + jittered(asked.wait_s, self._random)
            asked.wait_s = min(asked.wait_s * 2, RETRY_LAST_MS / 1_000)
        if batch:
            frames.append(seal(_array(batch)))
        return frames

    def _admitted(self, asked: _Asked) -> bool:
        if asked.sent:
            return True
        size = len(asked.encoded)
        if size > _SMALL_BYTES and self._under_way_bytes and self._under_way_bytes + size > self._window_bytes:
            return False
        asked.sent = True
        self._under_way_bytes += size
        return True

    def next_deadline_s(self) -> float | None:
        """When `take_packets` should be called next although nothing has arrived; None: never."""
        deadlines = [] if self._hello_due_s is None else [self._hello_due_s]
        if self.up:
            # What the window holds back is due when something is answered, not at a time.
            deadlines.extend(asked.due_s for asked in self._asked.values() if asked.sent or asked.due_s > 0)
        return min(deadlines, default=None)

    def _fresh_ref(self) -> int:
        while True:
            self._next_ref = (self._next_ref + 1) & UINT32_MAX
            if self._next_ref not in self._asked:
                return self._next_ref


def _code_of(number: int) -> RefusalCode | None:
    try:
        return RefusalCode(number)
    except ValueError:
        return None


def _array(encoded: Sequence[bytes]) -> bytes:
    """The MessagePack array of commands that are encoded already."""
    count = len(encoded)
    head = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return head + b"".join(encoded)
