"""The broker inside the relay's process, when no other is given: amqtt on one listener, without persistence.

It is trusted with nothing (protocol.md section 6): links are sealed end to end, and whoever may connect may
only waste its time. It serves one relay: only the topics of section 6.1 exist, nothing is retained, and no
topic, address or payload is logged.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from amqtt.broker import Broker  # type: ignore[import-untyped]
from amqtt.contexts import Action  # type: ignore[import-untyped]
from amqtt.errors import BrokerError  # type: ignore[import-untyped]
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin  # type: ignore[import-untyped]
from amqtt.session import Session  # type: ignore[import-untyped]

from relay.tasks import finish
from relay.transport.address import BrokerAddress, ListenFailed

_LOGGERS = ("amqtt", "amqtt.broker", "amqtt.broker.plugins", "transitions")


class AnyClient(BaseAuthPlugin):  # type: ignore[misc]
    """Lets everybody connect: the broker is trusted with nothing. amqtt's own such plugin would load password
    hashing.
    """

    async def authenticate(self, *, session: Session) -> bool | None:
        """Whether this client may connect."""
        session.is_anonymous = True
        return True

    @dataclass
    class Config:
        """No options."""


class RelayTopics(BaseTopicPlugin):  # type: ignore[misc]
    """Lets clients use the topics of section 6.1 under `bp/`, four levels, and refuses everything else."""

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool | None:
        """Whether this publication or subscription is one of the protocol."""
        levels = (topic or "").split("/")
        if len(levels) != 4 or levels[0] != "bp" or "#" in levels:
            return False
        return levels[3] in {"up", "down"} and (action == Action.SUBSCRIBE or "+" not in levels)

    @dataclass
    class Config:
        """No options."""


class _Broker(Broker):  # type: ignore[misc]
    """amqtt's broker without retained messages: no payload outlives its delivery."""

    async def retain_message(
        self,
        source_session: Session | None,
        topic_name: str | None,
        data: bytes | bytearray | None,
        qos: int | None = None,
    ) -> None:
        """Keep nothing; the retain flag of a publication is without effect."""


class EmbeddedBroker:
    """amqtt, listening on one address.

    Args:
        address: host and port; the port is not 0.
    """

    def __init__(self, address: BrokerAddress) -> None:
        self._address = address
        self._broker: Broker | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            ListenFailed: the address is in use, or not one of this machine.
        """
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.setLevel(logging.CRITICAL + 1)
            logger.propagate = False
        host = f"[{self._address.host}]" if ":" in self._address.host else self._address.host
        config: dict[str, Any] = {
            "listeners": {"default": {"type": "tcp", "bind": f"{host}:{self._address.port}", "max_connections": 0}},
            "plugins": {
                "relay.transport.broker.AnyClient": {},
                "relay.transport.broker.RelayTopics": {},
            },
        }
        broker = _Broker(config)
        try:
            await broker.start()
        except BrokerError as error:
            raise ListenFailed(f"listen: {self._address.url}: {error.__cause__ or error}") from error
        self._broker = broker

    async def stop(self) -> None:
        """Close the listener and every connection. Safe to call twice."""
        broker, self._broker = self._broker, None
        if broker is not None:
            await finish(asyncio.create_task(broker.shutdown()))
