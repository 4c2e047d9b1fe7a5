"""What the devices of one link say and hear: queues, turns, frames (protocol.md sections 6.3 and 6.4), without I/O.

    ask ─▶ waiting, by device ─turns─▶ frame ─▶ under way ─▶ answered ─▶ heard, by device
                  ▲                                  │ no answer in time; refused for now; a new link
                  └──────────────────────────────────┘

Rules:

* a frame is filled in turns: each device that has something to say may say `quantum_bytes`, then the next one may. Who
  says much waits for its own turns; who says little is in the very next frame;
* what waits for the relay's answer is bounded for the link, below what a relay takes, and for each device, so that
  answers that one device does not get (a full mailbox, a lost frame) hold nobody else up;
* a command is repeated after 2 s, doubling to 60 s, with jitter, until it is answered or settled; refused for now, it
  rests as long as the relay says; on a new link everything goes again at once, in its order;
* but not one-time prekeys (commands 7 and 8): what the relay did not answer on the old link it may have stored, handed
  out and, after a crash, forgotten to have handed out. They are dropped, and not taken again under the same ref; the
  device offers others once it is told of the new link (client/enrolment.py);
* a submit is answered by receipts, and settled by the device once it has verified them: the gateway believes none;
* for a device that does not take what it is told the answer counts as lost, so that it is asked for again, and
  deliveries are dropped, as on any network; nothing waits without bound, and nobody else waits.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import Final

from msgspec.structs import replace

from client.backoff import Random, jittered
from client.errors import GatewayBusy
from client.gateway.limits import Budget, GatewayLimits
from client.gateway.messages import Answers, Confirmed, Heard, Offer
from client.gateway.seat import Asked, Seat, check_entitled, is_admitted, offers_prekeys
from wire.codec import encode
from wire.commands import (
    Delivery,
    DeviceCommand,
    Directory,
    Done,
    Enrol,
    Linked,
    PublishPrekeys,
    Receipts,
    RecordPiece,
    Refusal,
    RelayCommand,
    Submit,
    Subscribe,
)
from wire.errors import FormatError, RefusalCode
from wire.limits import COMMANDS_PER_FRAME_MAX, FRAME_BYTES_MAX, RETRY_FIRST_MS, RETRY_LAST_MS, UINT32_MAX
from wire.link import FRAME_OVERHEAD_BYTES
from wire.receipt import ReceiptEntry

__all__ = ["Traffic"]

# Array header of up to 256 commands: three bytes.
_FRAME_ROOM_BYTES: Final = FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES - 3
# Commands below this size wait for no window of bytes: acks must get through while large mail is under way.
_SMALL_BYTES: Final = 4_096
_ANSWER_BYTES: Final = 512
_ENTRY_BYTES: Final = 64


class Traffic:
    """The commands and answers of one link.

    Args:
        limits: every bound.
        random: for jitter.
    """

    def __init__(self, limits: GatewayLimits, random: Random) -> None:
        self._limits = limits
        self._random = random
        self._asked: dict[int, Asked] = {}
        self._by_mailbox: dict[bytes, Seat] = {}
        self._turns: deque[Seat] = deque()
        self._timers: list[tuple[float, int, Asked]] = []
        self._timers_made = 0
        self._ref = 0
        self._asked_budget = Budget(limits.asked_link_bytes_max, limits.asked_bytes_max)
        self._heard_budget = Budget(limits.heard_link_bytes_max, limits.heard_bytes_max)
        self._sent_bytes = 0
        self._sent_commands = 0
        self._parting: list[bytes] = []
        self.told: dict[Seat, None] = {}
        self.malformed = 0

    def __repr__(self) -> str:
        return f"Traffic(seats={len(self._by_mailbox)}, asked={len(self._asked)})"

    @property
    def asked_bytes(self) -> int:
        """Bytes of all commands that are held."""
        return self._asked_budget.total

    # Devices

    def admit(self, seat: Seat) -> None:
        """A device takes its place; no other one of this link claims its mailbox."""
        assert seat.mailbox not in self._by_mailbox, "two devices with one mailbox are never put together"
        self._by_mailbox[seat.mailbox] = seat

    def claims(self, mailbox: bytes) -> bool:
        """Whether a device of this link claims a mailbox."""
        return mailbox in self._by_mailbox

    def release(self, seat: Seat) -> None:
        """A device leaves; what it asked is nobody's any more."""
        for asked in list(seat.asked.values()):
            self._drop(asked)
        self.take_heard(seat)
        if seat.on_link:
            # Nobody waits for its answer: it only spares the relay from repeating deliveries to nobody.
            self._parting.append(encode(Subscribe(self._fresh_ref(), seat.mailbox, 0, 0)))
        seat.on_link = False
        seat.waiting.clear()
        del self._by_mailbox[seat.mailbox]
        self.told.pop(seat, None)

    # Asking

    def ask(self, seat: Seat, command: DeviceCommand) -> None:
        """Queue a command of a device; the same ref again is a repetition, and the gateway repeats by itself.

        Raises:
            Refused: the device may not ask this here.
            FormatError: larger than a frame.
            GatewayBusy: its queue, or the link's, is full; nothing was queued.
        """
        if command.ref in seat.asked or seat.has_dropped(command.ref):
            return
        check_entitled(seat, command)
        limits, budget = self._limits, self._asked_budget
        if len(seat.asked) >= limits.asked_commands_max:
            raise GatewayBusy("commands", limits.asked_commands_max, limits.retry_after_ms)
        ref = self._fresh_ref()
        encoded = encode(replace(command, ref=ref))
        size = len(encoded)
        if size > _FRAME_ROOM_BYTES:
            raise FormatError("command", f"has {size} bytes", _FRAME_ROOM_BYTES)
        if not budget.fits(seat.asked_bytes, size):
            raise GatewayBusy("bytes", budget.limit_of(seat.asked_bytes, size), limits.retry_after_ms)
        unreceipted = set(range(len(command.envelopes))) if isinstance(command, Submit) else None
        asked = Asked(seat, type(command), ref, command.ref, encoded, unreceipted, RETRY_FIRST_MS / 1_000)
        self._asked[ref] = seat.asked[command.ref] = asked
        seat.asked_bytes += size
        budget.total += size
        seat.waiting.append(asked)
        self._turn(seat)

    def known(self, seat: Seat, *, enrolled: bool) -> None:
        """The relay has told of a device; what it asked before, and may not, is refused now."""
        seat.known = True
        seat.enrolled |= enrolled
        for asked in [asked for asked in seat.asked.values() if not is_admitted(seat, asked.kind)]:
            self._drop(asked)
            self.answer(seat, Refusal(asked.ref_of_device, RefusalCode.NOT_ENTITLED, "link", 0, 0, b""))

    def settle(self, seat: Seat, refs: Iterable[int]) -> None:
        """The device waits for these no more."""
        for ref in refs:
            seat.dropped.pop(ref, None)
            asked = seat.asked.get(ref)
            if asked is not None:
                self._drop(asked)

    def _drop(self, asked: Asked) -> None:
        asked.gone = True
        seat = asked.seat
        del self._asked[asked.ref]
        del seat.asked[asked.ref_of_device]
        seat.asked_bytes -= len(asked.encoded)
        self._asked_budget.total -= len(asked.encoded)
        self._unsent(asked)

    def _unsent(self, asked: Asked) -> None:
        if asked.sent:
            asked.sent = False
            asked.seat.sent_commands -= 1
            asked.seat.sent_bytes -= len(asked.encoded)
            self._sent_commands -= 1
            self._sent_bytes -= len(asked.encoded)

    def _fresh_ref(self) -> int:
        while True:
            self._ref = self._ref % UINT32_MAX + 1
            if self._ref not in self._asked:
                return self._ref

    def _turn(self, seat: Seat) -> None:
        if seat.on_link and seat.waiting and not seat.turning:
            seat.turning = True
            self._turns.append(seat)

    # Frames

    def frames(self, now_s: float) -> list[bytes]:
        """The plaintexts of all frames that may go now, filled in turns."""
        self._wake(now_s)
        frames: list[bytes] = []
        batch, self._parting = self._parting[:COMMANDS_PER_FRAME_MAX], self._parting[COMMANDS_PER_FRAME_MAX:]
        room = _FRAME_ROOM_BYTES - sum(map(len, batch))
        silenced: list[Seat] = []
        held_back: list[Seat] = []
        while self._turns:
            seat = self._turns.popleft()
            seat.allowance += self._limits.quantum_bytes
            said, held = False, False
            while seat.on_link and seat.waiting:
                asked = seat.waiting[0]
                size = len(asked.encoded)
                if asked.gone:
                    seat.waiting.popleft()
                    continue
                if size > seat.allowance:
                    break
                if not self._admitted(asked):
                    held = True
                    seat.allowance = min(seat.allowance, size)
                    break
                seat.waiting.popleft()
                seat.allowance -= size
                said = True
                if len(batch) == COMMANDS_PER_FRAME_MAX or size > room:
                    frames.append(_array(batch))
                    batch, room = [], _FRAME_ROOM_BYTES
                batch.append(asked.encoded)
                room -= size
                self._sent(asked, now_s)
            if held:
                (held_back if said else silenced).append(seat)
            elif seat.on_link and seat.waiting:
                self._turns.append(seat)
            else:
                seat.turning = False
                seat.allowance = 0
        # Whom the window has kept from saying anything comes first when there is room again.
        self._turns.extend(silenced)
        self._turns.extend(held_back)
        if batch:
            frames.append(_array(batch))
        return frames

    def _admitted(self, asked: Asked) -> bool:
        if asked.sent:
            return True
        limits, seat, size = self._limits, asked.seat, len(asked.encoded)
        if self._sent_commands >= limits.window_commands or seat.sent_commands >= limits.device_window_commands:
            return False
        if size <= _SMALL_BYTES:
            return True
        return (not seat.sent_bytes or seat.sent_bytes + size <= limits.device_window_bytes) and (
            not self._sent_bytes or self._sent_bytes + size <= limits.window_bytes
        )

    def _sent(self, asked: Asked, now_s: float) -> None:
        asked.queued = False
        if not asked.sent:
            asked.sent = True
            asked.seat.sent_commands += 1
            asked.seat.sent_bytes += len(asked.encoded)
            self._sent_commands += 1
            self._sent_bytes += len(asked.encoded)
        self._arm(asked, now_s + jittered(asked.wait_s, self._random))
        asked.wait_s = min(asked.wait_s * 2, RETRY_LAST_MS / 1_000)

    def _arm(self, asked: Asked, due_s: float) -> None:
        asked.due_s = due_s
        self._timers_made += 1
        heappush(self._timers, (due_s, self._timers_made, asked))

    def _wake(self, now_s: float) -> None:
        due: list[Asked] = []
        while self._timers and self._timers[0][0] <= now_s:
            due_s, _order, asked = heappop(self._timers)
            if not asked.gone and not asked.queued and asked.due_s == due_s:
                due.append(asked)
        for asked in reversed(due):
            asked.queued = True
            asked.seat.waiting.appendleft(asked)
            self._turn(asked.seat)

    def next_deadline_s(self) -> float | None:
        """When `frames` has something to repeat."""
        while self._timers and (self._timers[0][2].gone or self._timers[0][2].due_s != self._timers[0][0]):
            heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    # Links

    def link_stands(self, proved: frozenset[bytes]) -> None:
        """A new link speaks for these devices: all that is not answered goes again, or waits for a link."""
        self._turns.clear()
        for seat in self._by_mailbox.values():
            for asked in [asked for asked in seat.asked.values() if offers_prekeys(asked)]:
                self._drop(asked)
                seat.drop(asked.ref_of_device)
            seat.on_link = seat.device_key in proved
            seat.turning = False
            self._again(seat)

    def seat_stands(self, seat: Seat) -> None:
        """A device came back to the link that speaks for it already."""
        seat.on_link = True
        self._again(seat)

    def repeat(self) -> None:
        """The broker's connection was made anew: what was under way may be lost."""
        for seat in self._by_mailbox.values():
            self._again(seat)

    def _again(self, seat: Seat) -> None:
        for asked in seat.asked.values():
            asked.wait_s = RETRY_FIRST_MS / 1_000
            asked.queued = True
            if not seat.on_link:
                self._unsent(asked)
        seat.waiting = deque(seat.asked.values())
        self._turn(seat)

    # Hearing

    def hear(self, commands: Sequence[RelayCommand], now_s: float) -> None:
        """Take one frame of the relay apart: to each device what is said to it, under its own refs."""
        parts: dict[Seat, list[RelayCommand]] = {}
        for command in commands:
            for seat, part in self._parts(command, now_s):
                parts.setdefault(seat, []).append(part)
        for seat, said in parts.items():
            self._say(seat, Answers(tuple(said)))

    def say(self, seat: Seat, message: Offer | Confirmed) -> None:
        """Tell a device of a handshake: never held back, and of each kind only the newest is kept."""
        seat.heard = deque(other for other in seat.heard if type(other) is not type(message))
        self._say(seat, message)

    def answer(self, seat: Seat, command: RelayCommand) -> None:
        """An answer of the gateway's own; lost, like any other, when the device does not take what it has."""
        if self._has_room(seat, _ANSWER_BYTES):
            self._say(seat, Answers((command,)))

    def _say(self, seat: Seat, message: Heard) -> None:
        seat.heard.append(message)
        self.told[seat] = None

    def _has_room(self, seat: Seat, size: int) -> bool:
        """Room in what a device has not taken yet; without it, the answer is as good as lost on the way."""
        if not self._heard_budget.fits(seat.heard_bytes, size):
            seat.unheard += 1
            return False
        seat.heard_bytes += size
        self._heard_budget.total += size
        return True

    def take_heard(self, seat: Seat) -> list[Heard]:
        """What a device has to hear; it is its own from now on."""
        messages = list(seat.heard)
        self._heard_budget.total -= seat.heard_bytes
        seat.heard_bytes = 0
        seat.heard.clear()
        return messages

    def _parts(self, command: RelayCommand, now_s: float) -> list[tuple[Seat, RelayCommand]]:
        match command:
            case Receipts():
                return self._receipts(command)
            case Delivery(mailbox, envelopes):
                seat = self._by_mailbox.get(mailbox)
                size = _ANSWER_BYTES + sum(len(one.body) + _ENTRY_BYTES for one in envelopes)
                return [(seat, command)] if seat is not None and self._has_room(seat, size) else []
            case Done(refs):
                return self._done(refs)
            case Directory(ref, signed_list, bundles):
                asked = self._asked.get(ref)
                if asked is None or not self._has_room(asked.seat, len(encode(command))):
                    return []
                self._drop(asked)
                return [(asked.seat, Directory(asked.ref_of_device, signed_list, bundles))]
            case RecordPiece(ref, piece=piece):
                asked = self._asked.get(ref)
                if asked is None or not self._has_room(asked.seat, _ANSWER_BYTES + len(piece)):
                    return []
                self._drop(asked)
                return [(asked.seat, replace(command, ref=asked.ref_of_device))]
            case Refusal():
                return self._refused(command, now_s)
            case Linked():
                return []  # said once, in the frame that confirms

    def _receipts(self, command: Receipts) -> list[tuple[Seat, RelayCommand]]:
        mine: dict[Seat, list[ReceiptEntry]] = {}
        for entry in command.entries:
            asked = self._asked.get(entry.ref)
            if asked is None or not self._has_room(asked.seat, _ENTRY_BYTES + len(entry.path)):
                continue
            own = ReceiptEntry(asked.ref_of_device, entry.position, entry.number, entry.leaf, entry.path)
            mine.setdefault(asked.seat, []).append(own)
            if asked.unreceipted is not None:
                asked.unreceipted.discard(entry.position)
                if not asked.unreceipted:
                    # The relay has answered; whether the device believes it is between the two.
                    self._unsent(asked)
        return [(seat, Receipts(command.header, command.signature, tuple(own))) for seat, own in mine.items()]

    def _done(self, refs: Sequence[int]) -> list[tuple[Seat, RelayCommand]]:
        mine: dict[Seat, list[int]] = {}
        for ref in refs:
            asked = self._asked.get(ref)
            if asked is None or not self._has_room(asked.seat, _ENTRY_BYTES):
                continue
            if asked.kind in {Enrol, PublishPrekeys}:
                asked.seat.enrolled = True
            mine.setdefault(asked.seat, []).append(asked.ref_of_device)
            self._drop(asked)
        return [(seat, Done(tuple(own))) for seat, own in mine.items()]

    def _refused(self, refusal: Refusal, now_s: float) -> list[tuple[Seat, RelayCommand]]:
        asked = self._asked.get(refusal.ref)
        if asked is None:
            self.malformed += refusal.ref == 0
            return []
        if not self._has_room(asked.seat, _ANSWER_BYTES + len(refusal.attachment)):
            return []
        if _is_definite(refusal.code):
            self._drop(asked)
        else:
            retry_after_s = refusal.retry_after_ms / 1_000
            self._unsent(asked)
            wait_s = min(max(asked.wait_s, retry_after_s), RETRY_LAST_MS / 1_000)
            self._arm(asked, now_s + max(jittered(wait_s, self._random), retry_after_s))
        return [(asked.seat, replace(refusal, ref=asked.ref_of_device))]


def _is_definite(code: int) -> bool:
    """A code that this version does not know is taken for 'again': when in doubt, indefinite is safe."""
    try:
        return RefusalCode(code).definite
    except ValueError:
        return False


def _array(encoded: Sequence[bytes]) -> bytes:
    """The MessagePack array of commands that are encoded already."""
    count = len(encoded)
    head = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return head + b"".join(encoded)
