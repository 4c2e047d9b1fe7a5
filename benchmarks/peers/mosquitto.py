"""Mosquitto: QoS 1, a persistent session for each recipient. What it acknowledges is in its memory."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from benchmarks.load import mqtt
from benchmarks.peers.measured import Failure, Window, measured, slots
from benchmarks.peers.work import Account, Outcome, Watch, Work
from benchmarks.servers import missing_broker, mosquitto

__all__ = ["Mosquitto"]


class Mosquitto:
    """Meets `Peer`."""

    name = "Mosquitto, QoS 1, persistent sessions"
    synced = "no: memory"
    kind = 2

    def missing(self) -> str | None:
        """See `Peer.missing`."""
        return missing_broker("mosquitto")

    def run(self, folder: Path, work: Work, watch: Watch) -> Outcome:
        """See `Peer.run`."""
        settings = ["max_queued_messages 0", "max_inflight_messages 0", "set_tcp_nodelay true"]
        with mosquitto(folder, *settings, prefix=watch.prefix) as (server, port):
            return measured(_Session(port), [server.pid], work, watch)


class _Session:
    def __init__(self, port: int) -> None:
        self._port = port
        self._open: list[mqtt.MqttConnection] = []
        self._windows: list[Window] = []

    async def _connect(
        self, name: str, failure: Failure, on_message: mqtt.OnMessage, clean: bool
    ) -> mqtt.MqttConnection:
        return await mqtt.connect("127.0.0.1", self._port, name.encode(), failure.lost, on_message, clean)

    async def prepare(self, account: Account, failure: Failure) -> None:
        """Make the sessions, and leave; connect the senders."""
        for recipient in range(account.work.recipients):
            away = await self._connect(f"r{recipient}", failure, lambda topic, payload: None, clean=False)
            await away.subscribe(b"box/%d" % recipient, qos=1)
            away.close()
        for sender in range(account.work.senders):
            window = Window(account.work.window)
            connection = await self._connect(f"s{sender}", failure, lambda topic, payload: None, clean=True)
            connection.on_puback = lambda packet_id, window=window: window.give()
            self._open.append(connection)
            self._windows.append(window)

    async def accept(self, account: Account, failure: Failure, tell: Callable[[int], None]) -> None:
        """Publish at QoS 1."""

        async def send(sender: int) -> None:
            connection, window = self._open[sender], self._windows[sender]
            for number, place in enumerate(account.of_sender(sender)):
                await window.take()
                topic = b"box/%d" % account.recipient_of[place]
                connection.publish(topic, account.payloads[place], number % 65_535 + 1)
            await window.settled()
            tell(account.work.messages * (sender + 1) // account.work.senders)

        await asyncio.gather(*(send(sender) for sender in range(account.work.senders)))

    async def drain(self, account: Account, failure: Failure) -> None:
        """Every recipient takes up its session."""
        gate = slots(account.work, 64)

        async def come(recipient: int) -> None:
            def arrived(topic: bytes, payload: bytes) -> None:
                try:
                    account.take(recipient, payload)
                except Exception as error:
                    failure.tell(error)

            async with gate:
                self._open.append(await self._connect(f"r{recipient}", failure, arrived, clean=False))

        await asyncio.gather(*(come(recipient) for recipient in range(account.work.recipients)))
        await account.complete.wait()

    async def close(self) -> None:
        """Disconnect."""
        for connection in self._open:
            connection.close()
