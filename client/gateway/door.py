"""Where a device meets its gateway: bytes of the local protocol (messages.py) on one side, a `Member` on the other.

A door is a `client.transport.Channel` for the device: in one process as it is, elsewhere behind a socket that keeps
packets whole and in order. The first word is a challenge: who does not hold a device's key cannot join as that device.
What a device says that is malformed harms that device only: its door closes.
"""

import asyncio
from collections import deque

from client.errors import GatewayBusy, Refused, TransportClosed
from client.gateway.framing import DEVICE_MESSAGE_BYTES_MAX
from client.gateway.messages import Ask, Challenge, DeviceMessage, Join, Proof, Settle, check_join
from client.gateway.service import Gateway, Member
from wire.codec import decode, encode
from wire.commands import DeviceCommand, Refusal, decode_device_commands
from wire.errors import BlindpostError, FormatError, RefusalCode
from wire.limits import ID_BYTES

__all__ = ["Door"]


class Door:
    """One device's way to a gateway. Meets `client.transport.Channel`.

    Args:
        gateway: whom it leads to.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._nonce = gateway.random(ID_BYTES)
        self._packets: deque[bytes] = deque([encode(Challenge(self._nonce))])
        self._member: Member | None = None
        self._joined = asyncio.Event()
        self._closed = False

    def __repr__(self) -> str:
        return f"Door({self._member!r})"

    @property
    def member(self) -> Member | None:
        """The device's place, once it has joined."""
        return self._member

    async def send(self, packet: bytes) -> None:
        """Take a packet of the device.

        Raises:
            TransportClosed: the door is closed, by this packet perhaps.
        """
        if self._closed:
            raise TransportClosed("the gateway has closed its door")
        try:
            self._take(packet)
        except BlindpostError as error:
            self.close()
            raise TransportClosed(str(error)) from None

    def _take(self, packet: bytes) -> None:
        if len(packet) > DEVICE_MESSAGE_BYTES_MAX:
            raise FormatError("message", f"has {len(packet)} bytes", DEVICE_MESSAGE_BYTES_MAX)
        message: DeviceMessage = decode(DeviceMessage, packet, "message")
        member = self._member
        if isinstance(message, Join):
            if member is None:
                check_join(message, self._gateway.card.relay_id, self._nonce)
                self._member = self._gateway.join(message.device_key, message.mailbox)
                self._joined.set()
        elif member is not None:
            match message:
                case Proof(transcript, signature):
                    member.prove(transcript, signature)
                case Ask(plain):
                    for command in decode_device_commands(plain):
                        self._ask(member, command)
                case Settle(refs):
                    member.settle(*refs)

    @staticmethod
    def _ask(member: Member, command: DeviceCommand) -> None:
        try:
            member.ask_decoded(command)
        except GatewayBusy as busy:
            field, limit, after_ms = f"gateway {busy.what}", busy.limit, busy.retry_after_ms
            member.answer(Refusal(command.ref, RefusalCode.LINK_QUOTA, field, limit, after_ms, b""))
        except Refused as refused:
            member.answer(Refusal(command.ref, refused.code, refused.field, refused.limit, 0, b""))

    async def receive(self) -> bytes:
        """Wait for the next packet to the device.

        Raises:
            TransportClosed: the gateway carries the device no more.
        """
        while not self._packets:
            await self._joined.wait()
            if self._member is None:
                raise TransportClosed("the gateway has closed its door")
            self._packets.extend(encode(message) for message in await self._member.hear())
        return self._packets.popleft()

    def close(self) -> None:
        """The device's connection ended. Safe to call twice."""
        self._closed = True
        self._joined.set()
        if self._member is not None:
            self._member.leave()
