"""A device's side of a gateway: what its engine takes in place of a link and a transport of its own.

    transport = GatewayTransport(gateway)
    Device.open(home, passphrase, transport=transport)

The device is the same: outbox, inbox and sessions ask a `Link`, and this one speaks the local protocol of
client/gateway/messages.py instead of handshakes and frames. Its device key stays here. Rules:

* a link is signed only after this device has checked by its own card that the relay answered the hello, with the
  rotations that it has seen before; the gateway's word for it counts nothing;
* receipts, lists and bodies are checked by the same code as on a link of its own: of these a gateway can forge nothing;
* 'confirmed' is believed for links that this device has signed only.

What is asked is repeated on the same timer as on a link of its own, in case a gateway drops it; one that has it still
takes no notice.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from client.backoff import Random
from client.gateway import Door, Gateway
from client.gateway.messages import (
    Answers,
    Ask,
    Challenge,
    Confirmed,
    GatewayMessage,
    Offer,
    Settle,
    answer_offer,
    sign_join,
)
from client.link import Event, Link, UpEvent, WelcomeRefusedEvent
from client.transport import Channel
from wire.card import RelayCard
from wire.codec import decode, encode
from wire.errors import BlindpostError, FormatError
from wire.rotation import RotationRecord
from wire.signing import SigningKey

__all__ = ["GatewayLink", "GatewayTransport", "LinksThroughGateway"]

# A handshake that is repeated may be confirmed by its predecessor's `linked`: so many are remembered.
_SIGNED_MAX: Final = 4


class GatewayLink(Link):
    """A link that a gateway has, as its device sees it.

    Args:
        card: the relay's card.
        device: the device key.
        mailbox: the device's mailbox.
        random: a source of secret random bytes.
        rotations: the chain of the relay's rotations known so far.
        window_bytes: how many bytes of large commands may be under way.
    """

    def __init__(
        self,
        card: RelayCard,
        device: SigningKey,
        mailbox: bytes,
        random: Random,
        rotations: Sequence[RotationRecord],
        window_bytes: int,
    ) -> None:
        super().__init__(card, [device], random, rotations, window_bytes)
        self._device = device
        self._mailbox = mailbox
        self._signed: dict[bytes, tuple[RotationRecord, ...]] = {}
        self._confirmed_once = False
        self._settled: list[int] = []

    @property
    def up(self) -> bool:
        """Whether the gateway's link speaks for this device."""
        return self._confirmed_once

    def connect(self, now_s: float) -> None:
        """The way to the gateway stands (again): it says the first word, and nothing of an older way goes before it."""
        self._forget()

    def _forget(self) -> None:
        self._confirmed_once = False
        self._ready.clear()
        self._signed.clear()
        self._settled.clear()

    def settle(self, ref: int) -> None:
        """Repeat this command no more, here and at the gateway."""
        if self.is_asked(ref):
            self._settled.append(ref)
        super().settle(ref)

    # Receiving

    def receive(self, packet: bytes, now_s: float) -> list[Event]:
        """What a packet of the gateway says; one that is malformed says nothing. Call `take_packets` next."""
        try:
            message: GatewayMessage = decode(GatewayMessage, packet, "gateway message")
        except FormatError:
            return []
        match message:
            case Challenge(nonce):
                self._forget()
                self._ready = [encode(sign_join(self._device, self._card.relay_id, nonce, self._mailbox))]
            case Offer():
                return self._offered(message)
            case Confirmed():
                return self._up(message)
            case Answers(commands):
                return self._events(commands, now_s)
        return []

    def _offered(self, offer: Offer) -> list[Event]:
        try:
            proof, chain = answer_offer(self._device, self._card.relay_id, self._card.signing_key, offer)
        except BlindpostError as error:
            return [WelcomeRefusedEvent(error)]
        if tuple(chain[: len(self._rotations)]) != self._rotations:
            return [WelcomeRefusedEvent(FormatError("rotations", "do not go on from those seen before"))]
        self._signed[proof.transcript] = tuple(chain)
        while len(self._signed) > _SIGNED_MAX:
            del self._signed[next(iter(self._signed))]
        self._ready.append(encode(proof))
        return []

    def _up(self, confirmed: Confirmed) -> list[Event]:
        chain = self._signed.get(confirmed.transcript)
        if chain is None or confirmed.device.device_key != self._device.public:
            return []
        self._confirmed_once = True
        self._rotations = chain
        self._repeat_all()
        return [UpEvent(chain, confirmed.time, (confirmed.device,))]

    # Sending

    def take_packets(self, now_s: float) -> list[bytes]:
        """The packets to hand to the gateway now: joins and proofs, what is settled, then all commands that are due."""
        packets, self._ready = self._ready, []
        if self._settled:
            packets.append(encode(Settle(tuple(self._settled))))
            self._settled.clear()
        if self.up:
            packets.extend(self._frames(_message, now_s))
        return packets


def _message(plain: bytes) -> bytes:
    return encode(Ask(plain))


class LinksThroughGateway:
    """What every way to a gateway has in common: the device's side of the link. Meets `client.transport.LinkMaker`."""

    def link(
        self,
        card: RelayCard,
        device: SigningKey,
        mailbox: bytes,
        random: Random,
        rotations: Sequence[RotationRecord],
        window_bytes: int,
    ) -> Link:
        """The device's side of the gateway's link."""
        return GatewayLink(card, device, mailbox, random, rotations, window_bytes)


class GatewayTransport(LinksThroughGateway):
    """A way to a gateway in the same process. Meets `client.transport.Transport` and `LinkMaker`.

    Args:
        gateway: a `client.gateway.Gateway`.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    @asynccontextmanager
    async def connect(self, topic_up: str, topic_down: str) -> AsyncIterator[Channel]:
        """A door of the gateway; topics are its own business."""
        door = Door(self.gateway)
        try:
            yield door
        finally:
            door.close()
