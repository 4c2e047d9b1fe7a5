"""One link of a gateway, for up to 255 devices, without I/O, clock or randomness of its own.

    link = SharedLink(card, key, random, limits)
    seat = link.admit(device_key, mailbox)       a device joins: it is offered the next handshake, and signs
    link.prove(seat, transcript, signature)
    link.ask(seat, command)                      queue a command
    link.connect(now_s)                          the broker's connection stands
    link.receive(packet, now_s)                  from the broker
    for packet in link.take_packets(now_s):      to the broker
    link.take_told(), link.take_heard(seat)      what devices are to hear

It joins handshake.py (for whom the link speaks) and traffic.py (what is said), and decides when a new handshake begins:
when a device waits that the link does not speak for, soon; when the link speaks for one that has left, later; when the
relay does not know the link, at once. Until the new one is confirmed the old one goes on. A device that has not signed
in time is left out, and waited for again only after it has signed something.
"""

from typing import Final

from msgspec.structs import replace

from client.backoff import Random
from client.gateway.handshake import Handshake
from client.gateway.limits import GatewayLimits
from client.gateway.messages import Confirmed, Heard, Offer
from client.gateway.seat import Seat
from client.gateway.traffic import Traffic
from wire.card import RelayCard
from wire.commands import DeviceCommand, RelayCommand
from wire.errors import BlindpostError, FormatError
from wire.link import FRAME, UNKNOWN_LINK, WELCOME, packet_kind
from wire.signing import SigningKey

__all__ = ["SharedLink"]

_NOBODY: Final[frozenset[bytes]] = frozenset()


class SharedLink:
    """A link that speaks for several devices.

    Args:
        card: the relay's card.
        key: the gateway's own key of this link; it names the topic.
        random: a source of secret random bytes.
        limits: every bound.
    """

    def __init__(self, card: RelayCard, key: SigningKey, random: Random, limits: GatewayLimits) -> None:
        self.key = key
        self._limits = limits
        self._handshake = Handshake(card, key, random, limits)
        self._traffic = Traffic(limits, random)
        self._seats: dict[bytes, Seat] = {}
        self._changed_s: float | None = None

    def __repr__(self) -> str:
        return f"SharedLink(seats={len(self._seats)}, {self._handshake!r}, {self._traffic!r})"

    @property
    def up(self) -> bool:
        """Whether a confirmed link stands."""
        return self._handshake.standing is not None

    @property
    def last_error(self) -> BlindpostError | None:
        """Why the last welcome was not believed."""
        return self._handshake.last_error

    @property
    def seats(self) -> tuple[Seat, ...]:
        """The devices of this link."""
        return tuple(self._seats.values())

    @property
    def asked_bytes(self) -> int:
        """Bytes of all commands that are held."""
        return self._traffic.asked_bytes

    def can_seat(self, mailbox: bytes) -> bool:
        """Whether there is room, and nobody who claims that mailbox."""
        return len(self._seats) < self._limits.devices_per_link_max and not self._traffic.claims(mailbox)

    # Devices

    def admit(self, device_key: bytes, mailbox: bytes) -> Seat:
        """A device joins; it hears of the handshake that it is to sign."""
        seat = Seat(device_key, mailbox)
        self._seats[device_key] = seat
        self._traffic.admit(seat)
        standing = self._handshake.standing
        offer = self._handshake.offer()
        if offer is None and standing is not None and device_key in standing.proved:
            # It came back: the link speaks for it still, once it has shown that it is the one.
            offer = standing.offer
        if offer is not None:
            self._offer(seat, offer)
        return seat

    def _offer(self, seat: Seat, offer: Offer) -> None:
        seat.unsigned = True
        self._traffic.say(seat, offer)

    def release(self, seat: Seat) -> None:
        """A device leaves."""
        if self._seats.get(seat.device_key) is not seat:
            return
        del self._seats[seat.device_key]
        self._traffic.release(seat)
        standing = self._handshake.standing
        if standing is not None and seat.enrolled and seat.device_key in standing.linked:
            # It may have enrolled since the relay said this; should it come back to this link, it is told.
            device = standing.linked[seat.device_key]
            standing.linked[seat.device_key] = replace(device, enrolled=True)

    def prove(self, seat: Seat, transcript: bytes, signature: bytes) -> None:
        """A device's signature over an offered transcript.

        Raises:
            SignatureError: it is none; the device is left out.
        """
        stands = self._handshake.prove(seat.device_key, transcript, signature)
        seat.silent = seat.unsigned = False
        if stands and not seat.on_link:
            self._confirm(seat)
            self._traffic.seat_stands(seat)

    def _confirm(self, seat: Seat) -> None:
        standing = self._handshake.standing
        assert standing is not None, "a link was confirmed"
        device = standing.linked[seat.device_key]
        self._traffic.known(seat, enrolled=device.enrolled)
        self._traffic.say(seat, Confirmed(standing.keys.transcript, standing.time, device))

    def ask(self, seat: Seat, command: DeviceCommand) -> None:
        """Queue a command, which was decoded from what the device said.

        Raises:
            FormatError: too large for a frame.
            Refused: the device may not ask this.
            GatewayBusy: its queue is full.
        """
        self._traffic.ask(seat, command)

    def answer(self, seat: Seat, command: RelayCommand) -> None:
        """Tell a device something in the relay's place: why its command was not taken."""
        self._traffic.answer(seat, command)

    def settle(self, seat: Seat, refs: tuple[int, ...]) -> None:
        """The device waits for these no more."""
        self._traffic.settle(seat, refs)

    def take_told(self) -> list[Seat]:
        """The devices that have something to hear since this was last asked."""
        told = list(self._traffic.told)
        self._traffic.told.clear()
        return told

    def take_heard(self, seat: Seat) -> list[Heard]:
        """What a device has to hear."""
        return self._traffic.take_heard(seat)

    # The broker

    def connect(self, now_s: float) -> None:
        """The broker's connection stands (again)."""
        self._handshake.connected()
        if self.up:
            self._traffic.repeat()

    def receive(self, packet: bytes, now_s: float) -> None:
        """What a packet of the broker says; whatever is not a valid packet of this relay says nothing."""
        try:
            kind = packet_kind(packet)
            if kind == WELCOME:
                offer = self._handshake.welcomed(packet, now_s)
                if offer is not None:
                    for seat in self._seats.values():
                        self._offer(seat, offer)
            elif kind == FRAME:
                self._framed(packet, now_s)
            elif kind == UNKNOWN_LINK and self._handshake.hinted(packet, now_s):
                self._handshake.begin(now_s)
        except FormatError:
            # From the broker's side, anything may come; only what opens under a key is believed.
            return

    def _framed(self, packet: bytes, now_s: float) -> None:
        opened = self._handshake.opened(packet)
        if opened is None:
            return
        commands, is_new = opened
        if is_new:
            standing = self._handshake.standing
            assert standing is not None, "it was just confirmed"
            self._changed_s = None
            for seat in self._seats.values():
                seat.silent = seat.unsigned
                if seat.device_key in standing.proved:
                    self._confirm(seat)
            self._traffic.link_stands(standing.proved)
        self._traffic.hear(commands, now_s)

    def take_packets(self, now_s: float) -> list[bytes]:
        """The packets to hand to the broker now."""
        wanted = frozenset(key for key, seat in self._seats.items() if not seat.silent)
        self._begin_anew(now_s, wanted)
        packets = self._handshake.take_packets(now_s, wanted)
        standing = self._handshake.standing
        if standing is not None:
            packets.extend(standing.sealer.seal(plain) for plain in self._traffic.frames(now_s))
        return packets

    def _begin_anew(self, now_s: float, wanted: frozenset[bytes]) -> None:
        """Begin a handshake when the link speaks for others than it should, after a while in which more may change."""
        if not self._seats:
            self._handshake.abandon()
        if self._handshake.under_way:
            return
        standing = self._handshake.standing
        proved = _NOBODY if standing is None else standing.proved
        if not wanted - proved and (standing is None or not proved - set(self._seats)):
            self._changed_s = None
            return
        gather_s = self._limits.gather_s if wanted - proved else self._limits.gather_leaving_s
        begin_s = now_s + gather_s
        self._changed_s = begin_s if self._changed_s is None else min(self._changed_s, begin_s)
        if now_s >= self._change_due_s(self._changed_s):
            self._handshake.begin(now_s)

    def _change_due_s(self, changed_s: float) -> float:
        # All devices of the link subscribe anew, so that one that comes and goes may not cause it all the time.
        pause_s = 0.0 if not self.up else self._limits.change_pause_s
        return max(changed_s, self._handshake.may_begin_s, self._handshake.begun_s + pause_s)

    def next_deadline_s(self) -> float | None:
        """When `take_packets` should be called next although nothing has arrived; None: never."""
        deadlines = [self._handshake.next_deadline_s(), self._traffic.next_deadline_s() if self.up else None]
        if self._changed_s is not None and not self._handshake.under_way:
            deadlines.append(self._change_due_s(self._changed_s))
        return min((deadline for deadline in deadlines if deadline is not None), default=None)
