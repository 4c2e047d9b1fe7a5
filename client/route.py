"""By which way a device reaches its relay: MQTT to the card's broker, or through its company's gateway.

    HOME/gateway.toml   0600   where there is one: the gateway's card (client/gateway/address.py)

The file is a setting like the certificates beside it, and no secret. Who can change it can lead the device to a gateway
of their own, which learns what a gateway learns (docs/threat-model.md): who says when how much, and never what.
"""

import os
from pathlib import Path
from typing import Final

from client.gateway.address import GatewayCard
from client.transport import MqttTransport, Transport
from wire.card import RelayCard
from wire.errors import FormatError

__all__ = ["GATEWAY_NAME", "gateway_of", "keep_gateway", "transport_of"]

GATEWAY_NAME: Final = "gateway.toml"


def gateway_of(home: Path) -> GatewayCard | None:
    """The gateway that a device's home names, or None.

    Raises:
        FormatError: the file is no gateway's card.
    """
    try:
        return GatewayCard.read(home / GATEWAY_NAME)
    except FileNotFoundError:
        return None


def keep_gateway(home: Path, gateway: GatewayCard | None) -> None:
    """Go through that gateway from the next connection on; None: to the broker.

    Raises:
        OSError: writing failed; what was there is still there.
    """
    path = home / GATEWAY_NAME
    if gateway is None:
        path.unlink(missing_ok=True)
        return
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(gateway.to_toml().encode())
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def transport_of(card: RelayCard, home: Path) -> Transport:
    """The way that a home's settings ask for; only what it needs is loaded.

    Raises:
        FormatError: the card's broker is no address, or the gateway's card is malformed or of another relay.
    """
    gateway = gateway_of(home)
    if gateway is None:
        return MqttTransport(card.broker, home)
    if gateway.relay_id != card.relay_id:
        raise FormatError("gateway card", "leads to another relay than this device's")
    from client.gateway_socket import SocketTransport  # noqa: PLC0415

    return SocketTransport(gateway)
