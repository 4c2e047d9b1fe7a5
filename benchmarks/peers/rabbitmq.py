"""RabbitMQ: a durable queue for each recipient, persistent messages, publisher confirms; quorum or classic queues."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.load import amqp
from benchmarks.machine import program
from benchmarks.peers.measured import Failure, Window, measured, slots
from benchmarks.peers.work import Account, Outcome, Watch, Work
from benchmarks.processes import Server, ServerError, free_port, started, wait_for

__all__ = ["RabbitMq", "version"]


class RabbitMq:
    """Meets `Peer`.

    Args:
        kind: `quorum` or `classic`.
    """

    kind = 1
    synced = "yes"

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.name = f"RabbitMQ, {'quorum queues, one node' if kind == 'quorum' else 'durable classic queues'}"

    def missing(self) -> str | None:
        """See `Peer.missing`."""
        if _server_script() is None:
            return "rabbitmq-server is not installed (apt-get install rabbitmq-server)"
        return None

    def run(self, folder: Path, work: Work, watch: Watch) -> Outcome:
        """See `Peer.run`."""
        with _rabbitmq(folder, watch.prefix) as (server, port):
            return measured(_Session(port, self._kind.encode()), [server.pid], work, watch)


def _server_script() -> Path | None:
    """The server's own script: Debian's wrapper changes the user and the folders."""
    scripts = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))
    if scripts:
        return scripts[-1]
    found = program("rabbitmq-server")
    return Path(found) if found is not None else None


def version() -> str | None:
    """The version by the name of the server's folder; None without one.

    `rabbitmqctl` is not asked: it starts a port mapper that stays, on the usual port, for a look at a number.
    """
    script = _server_script()
    named = [part for part in script.parts if part.startswith("rabbitmq_server-")] if script is not None else []
    return named[0].removeprefix("rabbitmq_server-") if named else None


@contextlib.contextmanager
def _rabbitmq(folder: Path, prefix: Sequence[str]) -> Iterator[tuple[Server, int]]:
    script = _server_script()
    if script is None:
        raise ServerError("rabbitmq-server is not installed")
    port, dist_port, epmd_port = free_port(), free_port(), free_port()
    (folder / "plugins").write_text("[].\n", encoding="ascii")
    (folder / "rabbit.conf").write_text(f"listeners.tcp.default = 127.0.0.1:{port}\n", encoding="ascii")
    environment = {
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"bench{os.getpid()}@localhost",
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbit.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none.conf"),
        "RABBITMQ_PID_FILE": str(folder / "rabbit.pid"),
        "RABBITMQ_DIST_PORT": str(dist_port),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    try:
        with started([*prefix, script], folder / "rabbit.out", environment, folder) as server:
            wait_for(server, port)
            yield server, port
    finally:
        # After the server: while a node is registered, the port mapper refuses to end.
        _end_epmd(epmd_port)


def _end_epmd(port: int) -> None:
    """The port mapper goes on by itself; this one, on a port of our own, serves nobody else."""
    epmd = program("epmd")
    if epmd is not None:
        subprocess.run([epmd, "-port", str(port), "-relaxed_command_check", "-kill"], capture_output=True, check=False)


class _Session:
    def __init__(self, port: int, kind: bytes) -> None:
        self._port = port
        self._kind = kind
        self._senders: list[amqp.AmqpConnection] = []
        self._recipients: list[amqp.AmqpConnection] = []
        self._windows: list[Window] = []

    async def prepare(self, account: Account, failure: Failure) -> None:
        """Declare the queues; connect the senders."""
        for sender in range(account.work.senders):
            window = Window(account.work.window)
            connection = await amqp.connect(self._port, failure.lost)
            await connection.confirm_select()
            connection.on_confirmed = window.give
            self._senders.append(connection)
            self._windows.append(window)
            for recipient in range(sender, account.work.recipients, account.work.senders):
                await connection.declare(b"box.%d" % recipient, self._kind)

    async def accept(self, account: Account, failure: Failure, tell: Callable[[int], None]) -> None:
        """Publish persistent messages, each confirmed."""

        async def send(sender: int) -> None:
            connection, window = self._senders[sender], self._windows[sender]
            for place in account.of_sender(sender):
                await window.take()
                connection.publish(b"box.%d" % account.recipient_of[place], account.payloads[place])
            await window.settled()
            tell(account.work.messages * (sender + 1) // account.work.senders)

        await asyncio.gather(*(send(sender) for sender in range(account.work.senders)))

    async def drain(self, account: Account, failure: Failure) -> None:
        """Every recipient connects, consumes its queue, acknowledges, and leaves."""
        gate = slots(account.work, 64)

        async def come(recipient: int) -> None:
            wanted = account.wanted[recipient]
            if not wanted:
                return
            everything = asyncio.Event()
            got = 0
            async with gate:
                connection = await amqp.connect(self._port, failure.lost)

                def arrived(consumer: bytes, tag: int, body: bytes) -> None:
                    nonlocal got
                    try:
                        account.take(recipient, body)
                    except Exception as error:
                        failure.tell(error)
                    got += 1
                    if got == wanted:
                        connection.acknowledge(tag)
                        everything.set()

                connection.on_delivery = arrived
                await connection.consume(b"box.%d" % recipient, min(65_535, wanted))
                await everything.wait()
                await connection.close()

        await asyncio.gather(*(come(recipient) for recipient in range(account.work.recipients)))

    async def close(self) -> None:
        """Disconnect."""
        for connection in self._senders:
            with contextlib.suppress(TimeoutError):
                await connection.close()
