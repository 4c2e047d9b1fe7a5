"""The gateway's side of a handshake for many devices (protocol.md section 6.2), without I/O, clock or randomness.

    begin ──hello──▶ WAITING ──welcome──▶ COLLECTING: devices sign ──prove──▶ PROVING ──linked──▶ STANDING
              ▲                                │ who has not signed in `prove_s` is left out
              └───────── backoff ──────────────┘

Rules:

* a standing link is kept until the relay's first frame on the new one;
* each proof is verified here before it goes into the prove: one bad signature would end the handshake for all;
* the gateway's own key is on every link and names its topic. The relay does not know it as anybody's device;
* the welcome must be signed by the key that the card leads to, and go on from the rotations seen before.

Which devices to wait for, and when to begin anew, is left to client/gateway/link.py.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Final

from client.backoff import Backoff, Random
from client.gateway.limits import GatewayLimits
from client.gateway.messages import Offer
from wire.card import RelayCard
from wire.commands import Linked, LinkedDevice, RelayCommand, decode_relay_commands
from wire.errors import BlindpostError, FormatError
from wire.link import (
    DeviceProof,
    FrameOpener,
    FrameSealer,
    LinkKeys,
    PendingHello,
    begin_hello,
    link_id_of,
    open_welcome,
    prove_packet,
    sign_proof,
    verify_proof,
)
from wire.rotation import RotationRecord
from wire.signing import SigningKey

__all__ = ["Handshake", "Standing"]

_HELLO_FIRST_S: Final = 2.0
_HELLO_LAST_S: Final = 60.0
_HELLO_PAUSE_S: Final = 1.0


@dataclass(slots=True)
class Standing:
    """A link's keys at work, and for whom it speaks. `linked` is what the relay said of its devices."""

    keys: LinkKeys
    offer: Offer
    sealer: FrameSealer
    opener: FrameOpener
    rotations: tuple[RotationRecord, ...]
    proved: frozenset[bytes] = frozenset()
    time: int = 0
    linked: dict[bytes, LinkedDevice] = field(default_factory=dict)


@dataclass(slots=True)
class _Collecting:
    """A welcome that waits for signatures."""

    standing: Standing
    until_s: float
    proofs: dict[bytes, bytes] = field(default_factory=dict)


class Handshake:
    """One link's handshakes.

    Args:
        card: the relay's card.
        key: the gateway's own key of this link.
        random: a source of secret random bytes.
        limits: how long to wait.
    """

    def __init__(self, card: RelayCard, key: SigningKey, random: Random, limits: GatewayLimits) -> None:
        self._card = card
        self._key = key
        self._random = random
        self._limits = limits
        self._backoff = Backoff(_HELLO_FIRST_S, _HELLO_LAST_S, random)
        self._rotations: tuple[RotationRecord, ...] = ()
        self._hello: PendingHello | None = None
        self._collecting: _Collecting | None = None
        self._proving: Standing | None = None
        self._prove = b""
        self._due_s: float | None = None
        self.begun_s = float("-inf")
        self._ready: list[bytes] = []
        self.standing: Standing | None = None
        self.last_error: BlindpostError | None = None

    def __repr__(self) -> str:
        return f"Handshake(standing={self.standing is not None}, under_way={self.under_way})"

    @property
    def under_way(self) -> bool:
        """Whether a handshake has begun and not ended."""
        return self._due_s is not None

    @property
    def may_begin_s(self) -> float:
        """When the next hello may go, in monotonic seconds: a relay answers one a second on a topic."""
        return self.begun_s + _HELLO_PAUSE_S

    def begin(self, now_s: float) -> None:
        """Send a hello; what was under way before is forgotten, a standing link is kept."""
        self._hello = begin_hello(self._card.relay_id, self._random)
        self._collecting = self._proving = None
        self._ready = [self._hello.packet]
        self.begun_s = now_s
        self._due_s = now_s + self._limits.prove_s + self._backoff.next_s()

    def abandon(self) -> None:
        """Nobody is left who could sign."""
        self._hello = self._collecting = self._proving = self._due_s = None
        self._ready = []

    def connected(self) -> None:
        """The broker's connection stands again: the waits before it say nothing about this one."""
        self._backoff.reset()
        if self._due_s is not None:
            self._due_s = float("-inf")

    # Packets

    def welcomed(self, packet: bytes, now_s: float) -> Offer | None:
        """A welcome: what the devices are to sign, or None for one that is not this relay's."""
        if self._hello is None:
            return None
        try:
            keys, chain = open_welcome(self._hello, self._card.signing_key, packet)
        except BlindpostError as error:
            self.last_error = error
            return None
        if tuple(chain[: len(self._rotations)]) != self._rotations:
            self.last_error = FormatError("rotations", "do not go on from those seen before")
            return None
        offer = Offer(self._hello.hello, packet)
        self._hello = None
        sealer, opener = FrameSealer(keys.link_id, keys.up_key), FrameOpener(keys.down_key)
        standing = Standing(keys, offer, sealer, opener, tuple(chain))
        self._collecting = _Collecting(standing, now_s + self._limits.prove_s)
        return offer

    def prove(self, device_key: bytes, transcript: bytes, signature: bytes) -> bool:
        """A device's proof; True if the device is on the standing link by it.

        False is for a handshake under way, and for one that is over: the device is there, and gets the next one.

        Raises:
            SignatureError: the device did not sign this.
        """
        verify_proof(device_key, transcript, signature)
        collecting, standing = self._collecting, self.standing
        if collecting is not None and collecting.standing.keys.transcript == transcript:
            collecting.proofs[device_key] = signature
            return False
        return standing is not None and standing.keys.transcript == transcript and device_key in standing.proved

    def offer(self) -> Offer | None:
        """What a device that comes now is to sign, if its signature is of use before the next handshake."""
        if self._collecting is not None:
            return self._collecting.standing.offer
        return None

    def opened(self, packet: bytes) -> tuple[list[RelayCommand], bool] | None:
        """A frame's commands, and whether it has confirmed a new link; None for one to drop.

        Raises:
            FormatError: a frame that opens, and is none.
        """
        link_id = link_id_of(packet)
        proving, standing = self._proving, self.standing
        if proving is not None and proving.keys.link_id == link_id:
            plain = proving.opener.open(packet)
            if plain is None:
                return None
            commands = decode_relay_commands(plain)
            first = commands[0]
            if not isinstance(first, Linked):
                return None  # the frame that confirms was overtaken or lost: it is asked for again
            self._confirmed(proving, first)
            return list(commands[1:]), True
        if standing is None or standing.keys.link_id != link_id:
            return None
        plain = standing.opener.open(packet)
        return None if plain is None else (list(decode_relay_commands(plain)), False)

    def _confirmed(self, proving: Standing, linked: Linked) -> None:
        proving.time = linked.time
        proving.linked = {device.device_key: device for device in linked.devices}
        # The relay's own word on for whom the link speaks counts, but for nobody who has not signed.
        proving.proved &= frozenset(proving.linked)
        self.standing = proving
        self._proving = None
        self._due_s = None
        self._rotations = proving.rotations
        self._backoff.reset()

    def hinted(self, packet: bytes, now_s: float) -> bool:
        """Whether an 'unknown link' hint, which anybody can make, is a reason to begin anew."""
        standing = self.standing
        known = standing is not None and standing.keys.link_id == link_id_of(packet)
        return known and not self.under_way and now_s >= self.may_begin_s

    # Time

    def take_packets(self, now_s: float, wanted: Set[bytes]) -> list[bytes]:
        """What is to be sent; `wanted` are the devices whose signatures are waited for."""
        collecting = self._collecting
        if collecting is not None and (wanted <= set(collecting.proofs) or now_s >= collecting.until_s):
            self._collecting = None
            if collecting.proofs:
                self._ready.append(self._proved(collecting))
        if self._due_s is not None and now_s >= self._due_s:
            self.begin(now_s)
        packets, self._ready = self._ready, []
        return packets

    def _proved(self, collecting: _Collecting) -> bytes:
        standing = collecting.standing
        own = DeviceProof(self._key.public, sign_proof(self._key, standing.keys.transcript))
        proofs: Sequence[DeviceProof] = [DeviceProof(*proof) for proof in collecting.proofs.items()]
        standing.proved = frozenset(collecting.proofs)
        self._proving = standing
        return prove_packet(standing.keys, [own, *proofs])

    def next_deadline_s(self) -> float | None:
        """When `take_packets` has something to do although nothing has arrived."""
        deadlines = [] if self._due_s is None else [self._due_s]
        if self._collecting is not None:
            deadlines.append(self._collecting.until_s)
        return min(deadlines, default=None)
