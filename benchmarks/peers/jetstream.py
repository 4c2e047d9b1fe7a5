"""NATS JetStream: one stream on disk with one replica or three, a durable consumer for each recipient.

With `sync_interval: always` a message is on the disk when it is acknowledged, by one fsync each; by default it is in
the page cache, and synced every two minutes. With three replicas the three nodes of the cluster run here, on loopback;
what is acknowledged is in the page caches of at least two of them, which on one machine is one machine's memory.
Clients connect to the nodes in turn, and each consumer has as many replicas as the stream.
"""

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.load import nats
from benchmarks.peers.measured import Failure, Window, measured, slots
from benchmarks.peers.work import Account, Outcome, Watch, Work
from benchmarks.processes import Server, free_port
from benchmarks.servers import missing_broker, nats_server

__all__ = ["JetStream"]

_FETCH_S = 60
_ELECTED_S_MAX = 30.0
_ANSWER_S = 5.0
_AGAIN_S = 0.01


class JetStream:
    """Meets `Peer`.

    Args:
        sync_always: whether each message is synced before it is acknowledged.
        replicas: of the stream: 1, or 3 on three nodes.
    """

    def __init__(self, sync_always: bool, replicas: int = 1) -> None:
        self._sync_always = sync_always
        self._replicas = replicas
        nodes = ", three nodes here" if replicas > 1 else ""
        self.name = f"NATS JetStream R{replicas}{nodes}, {'sync always' if sync_always else 'default'}"
        memory = "quorum of page caches" if replicas > 1 else "page cache"
        self.synced = "yes, one fsync each" if sync_always else f"no: {memory}"
        self.kind = 1 if sync_always else 2

    def missing(self) -> str | None:
        """See `Peer.missing`."""
        return missing_broker("nats")

    def run(self, folder: Path, work: Work, watch: Watch) -> Outcome:
        """See `Peer.run`."""
        with _nodes(folder, self._replicas, self._sync_always, watch) as (servers, ports):
            return measured(_Session(ports), [server.pid for server in servers], work, watch)


@contextlib.contextmanager
def _nodes(
    folder: Path, count: int, sync_always: bool, watch: Watch
) -> Iterator[tuple[Sequence[Server], Sequence[int]]]:
    """One server, or a cluster whose nodes know each other's routes."""
    sync = "sync_interval: always" if sync_always else ""
    routes = [free_port() for _ in range(count)]
    with contextlib.ExitStack() as stack:
        servers, ports = [], []
        for number in range(count):
            home = folder / f"node{number}"
            home.mkdir()
            settings = [
                f"server_name: node{number}",
                f"jetstream {{ store_dir: {str(home / 'jetstream')!r}\n {sync} }}",
            ]
            if count > 1:
                others = ", ".join(f"nats://127.0.0.1:{port}" for port in routes if port != routes[number])
                settings.append(f"cluster {{ name: bench, listen: 127.0.0.1:{routes[number]}, routes: [{others}] }}")
            server, port = stack.enter_context(nats_server(home, *settings, prefix=watch.prefix))
            servers.append(server)
            ports.append(port)
        yield servers, ports


class _Session:
    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._open: list[nats.NatsConnection] = []
        self._windows: list[Window] = []

    async def prepare(self, account: Account, failure: Failure) -> None:
        """Make the stream; connect the senders."""
        connection = await nats.connect("127.0.0.1", self._ports[0], failure.lost)
        stream = {
            "name": "box",
            "subjects": ["box.*"],
            "storage": "file",
            "retention": "workqueue",
            "num_replicas": len(self._ports),
        }
        await self._make(connection, stream)
        connection.close()
        for sender in range(account.work.senders):
            window = Window(account.work.window)
            connection = await self._connect(sender, failure)

            def acknowledged(subject: bytes, reply: bytes, payload: bytes, window: Window = window) -> None:
                if b'"error"' in payload or payload.startswith(b"NATS/1.0 503"):
                    failure.lost(f"JetStream: {payload[:200]!r}")
                window.give()

            connection.subscribe(b"acks.%d" % sender, acknowledged)
            await connection.flush()
            self._open.append(connection)
            self._windows.append(window)

    async def _connect(self, number: int, failure: Failure) -> nats.NatsConnection:
        return await nats.connect("127.0.0.1", self._ports[number % len(self._ports)], failure.lost)

    async def _make(self, connection: nats.NatsConnection, stream: object) -> None:
        """Make the stream, as soon as the cluster has elected who answers."""
        deadline = time.monotonic() + _ELECTED_S_MAX
        while True:
            try:
                async with asyncio.timeout(_ANSWER_S):
                    return await _ask(connection, b"$JS.API.STREAM.CREATE.box", stream)
            except (ConnectionError, TimeoutError):
                if len(self._ports) == 1 or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)

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
        loop = asyncio.get_running_loop()

        async def come(recipient: int) -> None:
            wanted = account.wanted[recipient]
            if not wanted:
                return
            everything = asyncio.Event()
            got = 0
            async with gate:
                connection = await self._connect(recipient, failure)
                self._open.append(connection)

                def arrived(subject: bytes, reply: bytes, payload: bytes) -> None:
                    nonlocal got
                    if payload.startswith(b"NATS/1.0 503"):
                        # The consumer is made, and this node has not heard yet who leads it.
                        loop.call_later(_AGAIN_S, ask)
                        return
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
                ask = functools.partial(
                    connection.publish, b"$JS.API.CONSUMER.MSG.NEXT.box.%b" % name, request, b"mail.%b" % name
                )
                ask()
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
