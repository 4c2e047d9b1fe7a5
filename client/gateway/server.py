"""The socket at which devices reach a gateway: a `Door` for each connection, and the bounds of each and of all.

    connection ─▶ admission.py ─▶ Challenge ─▶ Join ─▶ the local protocol of messages.py, framed (framing.py)

Rules, for each connection:

* `joins_*` bound how many begin from one address without the relay's word for them (admission.py);
* it joins within `join_s`, by a message of `JOIN_BYTES_MAX` at most; no more than `waiting_max` are in that state;
* a message is a frame's plaintext at most; one that is malformed ends it;
* who says nothing for `idle_s`, or takes nothing for `write_s`, is hung up on: a device says something every 15 s;
* a device of which the relay says that it does not know it has `enrol_s` to enrol.

`connections_max` bounds them all; one in its TLS handshake counts once that is done, and has `join_s` for it.
Nothing is logged: who connects when is nobody's business, and counters have no names. Over TLS the gateway shows its
certificate; a device is known by its signature over the challenge (door.py).
"""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Final

from client.errors import TransportClosed
from client.gateway.address import GatewayAddress
from client.gateway.admission import Admission
from client.gateway.door import Door
from client.gateway.framing import DEVICE_MESSAGE_BYTES_MAX, JOIN_BYTES_MAX, framed, read_framed
from client.gateway.service import Gateway
from wire.errors import BlindpostError
from wire.limits import DEVICES_PER_LINK_MAX

__all__ = ["GatewayServer", "ServerCounters", "ServerLimits"]

_BUFFER_BYTES: Final = 65_536
_BACKLOG: Final = 1_024
_LOOK_S: Final = 0.5
_TURNS_TO_CLOSE: Final = 4
_ENDS: Final = (BlindpostError, EOFError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """How much the socket takes; every number has its unit in its name."""

    connections_max: int = 64 * DEVICES_PER_LINK_MAX
    waiting_max: int = 512
    """Connections that have not joined."""
    join_s: float = 10.0
    joins_burst: int = 1_024
    """Joins of one address that the relay has not vouched for."""
    joins_per_s: float = 4.0
    """How fast these come back."""
    enrol_s: float = 60.0
    idle_s: float = 300.0
    write_s: float = 30.0


@dataclass(slots=True)
class ServerCounters:
    """What became of connections; figures only."""

    taken: int = 0
    joined: int = 0
    refused_full: int = 0
    refused_rate: int = 0
    ended_unjoined: int = 0
    ended_unknown: int = 0


@dataclass(slots=True, eq=False)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    door: Door
    address: str
    unknown_s: float | None = None
    """When the relay was first heard to know nothing of its device."""


class GatewayServer:
    """Takes devices at an address, for a gateway that runs. Used inside `async with`.

    Args:
        gateway: whom it leads to.
        listen: where it listens.
        tls: the context with the gateway's certificate; None for a socket on this machine.
        limits: every bound.
    """

    def __init__(
        self,
        gateway: Gateway,
        listen: GatewayAddress,
        tls: ssl.SSLContext | None = None,
        limits: ServerLimits | None = None,
    ) -> None:
        self._gateway = gateway
        self._listen = listen
        self._tls = tls
        self._limits = limits or ServerLimits()
        self._admission = Admission(self._limits.joins_burst, self._limits.joins_per_s)
        self._tasks: set[asyncio.Task[None]] = set()
        self._unvouched: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._watching: asyncio.Task[None] | None = None
        self._waiting = 0
        self._closing = False
        self.counters = ServerCounters()

    def __repr__(self) -> str:
        return f"GatewayServer({self._listen.host_and_port}, connections={len(self._tasks)})"

    async def __aenter__(self) -> "GatewayServer":
        self._server = await asyncio.start_server(
            self._connected,
            self._listen.host,
            self._listen.port,
            ssl=self._tls,
            limit=_BUFFER_BYTES,
            backlog=_BACKLOG,
            ssl_handshake_timeout=None if self._tls is None else self._limits.join_s,
        )
        self._watching = asyncio.create_task(self._watch(), name="gateway server")
        return self

    async def __aexit__(self, *ended: object) -> None:
        assert self._server is not None, "it was entered"
        assert self._watching is not None, "it was entered"
        self._closing = True
        self._server.close()
        tasks = [self._watching, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()
        # What was accepted a moment ago, or aborted, is let go of in the loop's next turns.
        for _ in range(_TURNS_TO_CLOSE):
            await asyncio.sleep(0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio runs it as a task"
        address = str((writer.get_extra_info("peername") or ("",))[0])
        counters, limits = self.counters, self._limits
        if self._closing:
            writer.transport.abort()
            return
        if len(self._tasks) >= limits.connections_max or self._waiting >= limits.waiting_max:
            counters.refused_full += 1
            writer.transport.abort()
            return
        if not self._admission.admit(address, _mono_s()):
            counters.refused_rate += 1
            writer.transport.abort()
            return
        counters.taken += 1
        self._tasks.add(task)
        connection = _Connection(reader, writer, Door(self._gateway), address)
        self._unvouched.add(connection)
        try:
            await self._serve(connection)
        except asyncio.CancelledError:
            # The gateway ends, and with it this; asyncio would log a cancelled handler as a failure.
            pass
        finally:
            self._tasks.discard(task)
            connection.door.close()
            self._vouch(connection)
            writer.transport.abort()

    async def _serve(self, connection: _Connection) -> None:
        saying = asyncio.create_task(self._say(connection))
        hearing = asyncio.create_task(self._hear(connection))
        tasks = (saying, hearing)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            connection.door.close()
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, Exception) and not isinstance(outcome, _ENDS):
                raise outcome

    async def _hear(self, connection: _Connection) -> None:
        """What the device says, until it ends or breaks a rule."""
        door, limits = connection.door, self._limits
        self._waiting += 1
        try:
            async with asyncio.timeout(limits.join_s):
                await door.send(await read_framed(connection.reader, JOIN_BYTES_MAX))
        except _ENDS:
            self.counters.ended_unjoined += 1
            raise
        finally:
            self._waiting -= 1
        if door.member is None:
            self.counters.ended_unjoined += 1
            raise TransportClosed("the first message was no join")
        self.counters.joined += 1
        while True:
            async with asyncio.timeout(limits.idle_s):
                message = await read_framed(connection.reader, DEVICE_MESSAGE_BYTES_MAX)
            await door.send(message)

    async def _say(self, connection: _Connection) -> None:
        """What the device is to hear."""
        writer = connection.writer
        while True:
            writer.write(framed(await connection.door.receive()))
            async with asyncio.timeout(self._limits.write_s):
                await writer.drain()

    async def _watch(self) -> None:
        """Look after those that nobody has vouched for yet: few, unless all have just come back."""
        while True:
            await asyncio.sleep(_LOOK_S)
            now_s = _mono_s()
            for connection in list(self._unvouched):
                self._look(connection, now_s)

    def _look(self, connection: _Connection, now_s: float) -> None:
        member = connection.door.member
        if member is None or not member.seat.known:
            return
        if member.seat.enrolled:
            self._vouch(connection)
        elif connection.unknown_s is None:
            connection.unknown_s = now_s
        elif now_s >= connection.unknown_s + self._limits.enrol_s:
            self.counters.ended_unknown += 1
            self._unvouched.discard(connection)
            connection.door.close()

    def _vouch(self, connection: _Connection) -> None:
        member = connection.door.member
        if member is not None and member.seat.enrolled and connection in self._unvouched:
            self._admission.vouch(connection.address, _mono_s())
        self._unvouched.discard(connection)


def _mono_s() -> float:
    return asyncio.get_running_loop().time()
