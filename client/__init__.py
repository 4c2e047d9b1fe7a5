"""Devices, as an async library: compose, send, receive; what a person does with Blindpost.

    import asyncio
    from pathlib import Path
    from client import Device, Kind
    from wire.card import RelayCard

    async def main() -> None:
        bo = "bo@globex.example"
        async with Device.open(Path("ana"), b"passphrase") as device:
            chat = device.compose(Kind.CHAT, "salam".encode(), to=[bo])
            for receipt in await device.send(chat, [bo], wait_s=30):
                print(receipt.account, receipt.envelope_id.hex())
            for message in await device.receive(wait_s=10):
                print(message.account, message.kind.name, message.payload)

    asyncio.run(main())

A home is made once: `Device.new` with the relay's card and the company's token, or `Device.request`, `approve` and
`accept` for further devices. The command line (blindpost/) is a thin layer over this.

Importing this package imports its pure modules only (messages, errors); `Device` is loaded when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

from client.content import Content, Kind
from client.errors import Alarm, ClientError, Expired, Incomplete, Refused, ServiceEnded, Unknown
from client.message import Message, Notice, SentStatus

if TYPE_CHECKING:
    from client.device import Device
    from client.state import Settings, Surroundings
    from client.transport import MqttTransport, Transport

__all__ = [
    "Alarm",
    "ClientError",
    "Content",
    "Device",
    "Expired",
    "Incomplete",
    "Kind",
    "Message",
    "MqttTransport",
    "Notice",
    "Refused",
    "ServiceEnded",
    "SentStatus",
    "Settings",
    "Surroundings",
    "Transport",
    "Unknown",
]

_LATE = {
    "Device": "client.device",
    "MqttTransport": "client.transport",
    "Settings": "client.state",
    "Surroundings": "client.state",
    "Transport": "client.transport",
}


def __getattr__(name: str) -> Any:
    """The names that bring an event loop, SQLite and MQTT with them, imported when they are first used."""
    module = _LATE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 (only here)

    return getattr(import_module(module), name)
