"""NATS JetStream: one stream on disk, one replica, a durable consumer for each recipient; synced always or not.

With `sync_interval: always` a message is on the disk when it is acknowledged, by one fsync each; by default it is in
the page cache, and synced every two minutes.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from benchmarks.load import nats
from benchmarks.peers.measured import Failure, Window, measured, slots
from benchmarks.peers.work import Account, Outcome, Work
from benchmarks.servers import missing_broker, nats_server

__all__ = ["JetStream"]

_FETCH_S = 30


class JetStream:
    """Meets `Peer`.

    Args:
        sync_always: whether each message is synced before it is acknowledged.
    """

    def __init__(self, sync_always: bool) -> None:
        self._sync_always = sync_always
        self.name = f"NATS JetStream R1, {'sync always' if sync_always else 'default'}"
        self.synced = "yes, one fsync each" if sync_always else "no: page cache"
        self.kind = 1 if sync_always else 2

    def missing(self) -> str | None:
        """See `Peer.missing`."""
        return missing_broker("nats")

    def run(self, folder: Path, work: Work, tell: Callable[[int], None]) -> Outcome:
        """See `Peer.run`."""
        sync = "sync_interval: always" if self._sync_always else ""
        settings = f"jetstream {{ store_dir: {str(folder / 'jetstream')!r}\n {sync} }}"
        with nats_server(folder, settings) as (server, port):
            return measured(_Session(port), server.pid, work, tell)


class _Session:
    def __init__(self, port: int) -> None:
        self._port = port
        self._open: list[nats.NatsConnection] = []
        self._windows: list[Window] = []

    async def prepare(self, account: Account, failure: Failure) -> None:
        """Make the stream; connect the senders."""
        connection = await nats.connect("127.0.0.1", self._port, failure.lost)
        stream = {
            "name": "box",
            "subjects": ["box.*"],
            "storage": "file",
            "retention": "workqueue",
            "num_replicas": 1,
        }
        await _ask(connection, b"$JS.API.STREAM.CREATE.box", stream)
        connection.close()
        for sender in range(account.work.senders):
            window = Window(account.work.window)
            connection = await nats.connect("127.0.0.1", self._port, failure.lost)

            def acknowledged(subject: bytes, reply: bytes, payload: bytes, window: Window = window) -> None:
                if b'"error"' in payload or payload.startswith(b"NATS/1.0 503"):
                    failure.lost(f"JetStream: {payload[:200]!r}")
                window.give()

            connection.subscribe(b"acks.%d" % sender, acknowledged)
            await connection.flush()
            self._open.append(connection)
            self._windows.append(window)

    async def accept(self, account: Account, failure: Failure, tell: Callable[[int], None]) -> None:
        """Publish, with an acknowledgement by the stream."""

        async def send(sender: int) -> None:
            connection, window, reply = self._open[sender], self._windows[sender], b"acks.%d" % sender
            for place in account.of_sender(sender):
                await window.take()
                connection.publish(b"box.%d" % account.recipient_of[place], account.payloads[place], reply)
            await window.settled()
            tell(account.work.messages * (sender + 1) // account.work.senders)

        await asyncio.gather(*(send(sender) for sender in range(account.work.senders)))

    async def drain(self, account: Account, failure: Failure) -> None:
        """Every recipient connects, makes its consumer, fetches what is its own, and acknowledges it."""
        gate = slots(account.work, 64)

        async def come(recipient: int) -> None:
            wanted = account.wanted[recipient]
            if not wanted:
                return
            everything = asyncio.Event()
            got = 0
            async with gate:
                connection = await nats.connect("127.0.0.1", self._port, failure.lost)
                self._open.append(connection)

                def arrived(subject: bytes, reply: bytes, payload: bytes) -> None:
                    nonlocal got
                    try:
                        if payload.startswith(b"NATS/1.0 "):
                            raise ConnectionError(f"JetStream: {payload[:80]!r}")
                        account.take(recipient, payload)
                    except Exception as error:
                        failure.tell(error)
                    got += 1
                    connection.publish(reply, b"+ACK")
                    if got == wanted:
                        everything.set()

                name = b"r%d" % recipient
                consumer = {
                    "stream_name": "box",
                    "config": {
                        "durable_name": name.decode(),
                        "ack_policy": "explicit",
                        "deliver_policy": "all",
                        "filter_subject": f"box.{recipient}",
                        "max_ack_pending": 1_024,
                    },
                }
                await _ask(connection, b"$JS.API.CONSUMER.CREATE.box.%b.box.%d" % (name, recipient), consumer)
                connection.subscribe(b"mail.%b" % name, arrived)
                request = json.dumps({"batch": wanted, "expires": _FETCH_S * 10**9}).encode()
                connection.publish(b"$JS.API.CONSUMER.MSG.NEXT.box.%b" % name, request, b"mail.%b" % name)
                await everything.wait()
                await connection.flush()

        await asyncio.gather(*(come(recipient) for recipient in range(account.work.recipients)))

    async def close(self) -> None:
        """Disconnect."""
        for connection in self._open:
            connection.close()


async def _ask(connection: nats.NatsConnection, subject: bytes, request: object) -> None:
    answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    inbox = b"inbox.%x" % id(answered)

    def arrived(subject: bytes, reply: bytes, payload: bytes) -> None:
        if not answered.done():
            answered.set_result(payload)

    connection.subscribe(inbox, arrived)
    connection.publish(subject, json.dumps(request).encode(), inbox)
    async with asyncio.timeout(60):
        answer = await answered
    if b'"error"' in answer or answer.startswith(b"NATS/1.0"):
        raise ConnectionError(f"JetStream: {answer[:300]!r}")
