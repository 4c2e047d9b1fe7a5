"""PostgreSQL as a queue: one table with the key (mailbox, number), inserts of up to a window of rows a commit.

A sender's window is one multi-row INSERT and its commit; a recipient connects and takes its rows with one DELETE …
RETURNING. The same drain over connections that are kept stands beside it: connecting is most of what it costs.
"""

import asyncio
import contextlib
import importlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import program
from benchmarks.peers.measured import Failure, measured, slots
from benchmarks.peers.work import Account, Outcome, Watch, Work
from benchmarks.processes import Server, ServerError, free_port, started, wait_for

__all__ = ["PostgreSql"]

_TABLE = (
    "CREATE TABLE box (mailbox integer NOT NULL, number bigint GENERATED ALWAYS AS IDENTITY, body bytea NOT NULL, "
    "PRIMARY KEY (mailbox, number))"
)
_INSERT = "INSERT INTO box (mailbox, body) SELECT * FROM unnest(%b::integer[], %b::bytea[])"
_TAKE = "DELETE FROM box WHERE mailbox = %b RETURNING body"


class PostgreSql:
    """Meets `Peer`.

    Args:
        kept: whether recipients share connections that are kept, instead of connecting.
    """

    kind = 1
    synced = "yes"

    def __init__(self, kept: bool) -> None:
        self._kept = kept
        self.name = "PostgreSQL as a queue, 64 rows a commit" + (", connections kept" if kept else "")

    def missing(self) -> str | None:
        """See `Peer.missing`."""
        if program("postgres") is None or program("initdb") is None:
            return "PostgreSQL is not installed (apt-get install postgresql)"
        if importlib.util.find_spec("psycopg") is None:
            return "its client is not installed (pip install 'psycopg[binary]')"
        return None

    def run(self, folder: Path, work: Work, watch: Watch) -> Outcome:
        """See `Peer.run`."""
        with _postgresql(folder, watch.prefix) as (server, port):
            return measured(_Session(port, self._kept), [server.pid], work, watch)


@contextlib.contextmanager
def _postgresql(folder: Path, prefix: Sequence[str]) -> Iterator[tuple[Server, int]]:
    initdb, postgres = program("initdb"), program("postgres")
    if initdb is None or postgres is None:
        raise ServerError("PostgreSQL is not installed")
    # PostgreSQL refuses to run as root.
    user = "postgres" if os.getuid() == 0 else None
    data = folder / "pg"
    data.mkdir()
    if user is not None:
        entry = pwd.getpwnam(user)
        folder.chmod(0o711)
        os.chown(data, entry.pw_uid, entry.pw_gid)
    made = subprocess.run(
        [initdb, "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8", "--no-locale"],
        capture_output=True,
        text=True,
        check=False,
        user=user,
        cwd=data,
    )
    if made.returncode:
        raise ServerError(f"initdb: {made.stderr.strip()[-300:]}")
    port = free_port()
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "max_connections": 200}
    command: list[object] = [*prefix, postgres, "-D", data]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    with started(command, folder / "pg.log", folder=data, user=user) as server:
        wait_for(server, port)
        yield server, port
    shutil.rmtree(data, ignore_errors=True)


class _Session:
    def __init__(self, port: int, kept: bool) -> None:
        self._where = f"host=127.0.0.1 port={port} user=bench dbname=postgres"
        self._kept = kept
        self._senders: list[Any] = []
        self._psycopg: Any = importlib.import_module("psycopg")

    async def _connect(self) -> Any:
        deadline = time.monotonic() + 30
        while True:
            try:
                return await self._psycopg.AsyncConnection.connect(self._where, autocommit=True)
            except self._psycopg.OperationalError:
                # It listens before it is ready.
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)

    async def prepare(self, account: Account, failure: Failure) -> None:
        """Make the table; connect the senders."""
        for _ in range(account.work.senders):
            self._senders.append(await self._connect())
        await self._senders[0].execute(_TABLE)

    async def accept(self, account: Account, failure: Failure, tell: Callable[[int], None]) -> None:
        """Insert, a window of rows a commit."""

        async def send(sender: int) -> None:
            connection, places = self._senders[sender], account.of_sender(sender)
            for start in range(0, len(places), account.work.window):
                some = places[start : start + account.work.window]
                boxes = [account.recipient_of[place] for place in some]
                bodies = [account.payloads[place] for place in some]
                await connection.execute(_INSERT, (boxes, bodies))
            tell(account.work.messages * (sender + 1) // account.work.senders)

        await asyncio.gather(*(send(sender) for sender in range(account.work.senders)))

    async def drain(self, account: Account, failure: Failure) -> None:
        """Every recipient takes its rows, on a connection of its own or on a kept one."""
        if self._kept:
            recipients = iter(range(account.work.recipients))

            async def serve(connection: Any) -> None:
                for recipient in recipients:
                    await self._take(connection, account, recipient)

            await asyncio.gather(*(serve(connection) for connection in self._senders))
            return
        gate = slots(account.work, 64)

        async def come(recipient: int) -> None:
            async with gate:
                connection = await self._connect()
                await self._take(connection, account, recipient)
                await connection.close()

        await asyncio.gather(*(come(recipient) for recipient in range(account.work.recipients)))

    @staticmethod
    async def _take(connection: Any, account: Account, recipient: int) -> None:
        cursor = await connection.execute(_TAKE, (recipient,), binary=True)
        for (body,) in await cursor.fetchall():
            account.take(recipient, bytes(body))

    async def close(self) -> None:
        """Disconnect."""
        for connection in self._senders:
            await connection.close()
